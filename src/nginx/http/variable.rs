//! Variables of http: which of nginx's functions [`crate::nginx::variable`] calls.

use crate::nginx::conf::main::Block;
use crate::nginx::conf::{Conf, Fault, api::HttpConf};
use crate::nginx::ffi::{ERROR, OK};
use crate::nginx::variable::{Entry, FLAGS, Side};
use nginx_sys as sys;

/// See [`Side`].
pub struct Http;

impl Side for Http {
    const BLOCK: Block = Block::Http;
    type Conf = HttpConf;
    type Session = sys::ngx_http_request_t;
    type Key = sys::ngx_http_complex_value_t;

    fn find() -> Result<Http, Fault> {
        Ok(Http)
    }

    fn compile(&self, conf: &Conf, mut text: sys::ngx_str_t) -> Option<sys::ngx_http_complex_value_t> {
        // SAFETY: zero is the empty state of both structures; the value's parts are in the cycle's pool.
        unsafe {
            let mut key: sys::ngx_http_complex_value_t = std::mem::zeroed();
            let mut order: sys::ngx_http_compile_complex_value_t = std::mem::zeroed();
            order.cf = conf.as_ptr();
            order.value = &mut text;
            order.complex_value = &mut key;
            (sys::ngx_http_compile_complex_value(&mut order) == OK).then_some(key)
        }
    }

    fn add<'c>(&self, conf: &'c Conf, name: &mut sys::ngx_str_t) -> Option<Entry<'c, Http>> {
        // SAFETY: a live configuration of `http`, whose variables live as long.
        let entry = unsafe { sys::ngx_http_add_variable(conf.as_ptr(), name, FLAGS).as_mut() }?;
        Some(Entry {
            get: &mut entry.get_handler,
            set: &mut entry.set_handler,
            data: &mut entry.data,
            flags: &mut entry.flags,
        })
    }

    fn index(&self, conf: &Conf, name: &mut sys::ngx_str_t) -> bool {
        // SAFETY: a live configuration of `http`.
        unsafe { sys::ngx_http_get_variable_index(conf.as_ptr(), name) != ERROR }
    }

    unsafe fn evaluate(
        &self,
        r: *mut sys::ngx_http_request_t,
        key: &sys::ngx_http_complex_value_t,
    ) -> Option<sys::ngx_str_t> {
        let mut text = sys::ngx_str_t::empty();
        // SAFETY: the caller's promise; nginx only reads the compiled value.
        let done = unsafe { sys::ngx_http_complex_value(r, std::ptr::from_ref(key).cast_mut(), &mut text) };
        (done == OK).then_some(text)
    }

    unsafe fn pool(r: *mut sys::ngx_http_request_t) -> *mut sys::ngx_pool_t {
        // SAFETY: the caller's promise.
        unsafe { (*r).pool }
    }

    unsafe fn connection(r: *mut sys::ngx_http_request_t) -> *mut sys::ngx_connection_t {
        // SAFETY: the caller's promise.
        unsafe { (*r).connection }
    }
}
