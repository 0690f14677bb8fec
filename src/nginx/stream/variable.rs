//! Variables of stream: the functions that [`crate::nginx::variable`] calls, which are looked up.

use super::symbols::look_up;
use crate::nginx::conf::main::Block;
use crate::nginx::conf::{Conf, Fault, sync::SrvConf};
use crate::nginx::ffi::{ERROR, OK};
use crate::nginx::variable::{Entry, FLAGS, Side};
use nginx_sys as sys;

/// See [`Side`].
pub struct Stream {
    compile: unsafe extern "C" fn(*mut sys::ngx_stream_compile_complex_value_t) -> sys::ngx_int_t,
    evaluate: unsafe extern "C" fn(
        *mut sys::ngx_stream_session_t,
        *mut sys::ngx_stream_complex_value_t,
        *mut sys::ngx_str_t,
    ) -> sys::ngx_int_t,
    add: unsafe extern "C" fn(
        *mut sys::ngx_conf_t,
        *mut sys::ngx_str_t,
        sys::ngx_uint_t,
    ) -> *mut sys::ngx_stream_variable_t,
    index: unsafe extern "C" fn(*mut sys::ngx_conf_t, *mut sys::ngx_str_t) -> sys::ngx_int_t,
}

impl Side for Stream {
    const BLOCK: Block = Block::Stream;
    type Conf = SrvConf;
    type Session = sys::ngx_stream_session_t;
    type Key = sys::ngx_stream_complex_value_t;

    fn find() -> Result<Stream, Fault> {
        // SAFETY: functions of these names and types are in the headers that the module was built with.
        unsafe {
            Ok(Stream {
                compile: look_up(c"ngx_stream_compile_complex_value")?,
                evaluate: look_up(c"ngx_stream_complex_value")?,
                add: look_up(c"ngx_stream_add_variable")?,
                index: look_up(c"ngx_stream_get_variable_index")?,
            })
        }
    }

    fn compile(&self, conf: &Conf, mut text: sys::ngx_str_t) -> Option<sys::ngx_stream_complex_value_t> {
        // SAFETY: zero is the empty state of both structures; the value's parts are in the cycle's pool.
        unsafe {
            let mut key: sys::ngx_stream_complex_value_t = std::mem::zeroed();
            let mut order: sys::ngx_stream_compile_complex_value_t = std::mem::zeroed();
            order.cf = conf.as_ptr();
            order.value = &mut text;
            order.complex_value = &mut key;
            ((self.compile)(&mut order) == OK).then_some(key)
        }
    }

    fn add<'c>(&self, conf: &'c Conf, name: &mut sys::ngx_str_t) -> Option<Entry<'c, Stream>> {
        // SAFETY: a live configuration of `stream`, whose variables live as long.
        let entry = unsafe { (self.add)(conf.as_ptr(), name, FLAGS).as_mut() }?;
        Some(Entry {
            get: &mut entry.get_handler,
            set: &mut entry.set_handler,
            data: &mut entry.data,
            flags: &mut entry.flags,
        })
    }

    fn index(&self, conf: &Conf, name: &mut sys::ngx_str_t) -> bool {
        // SAFETY: a live configuration of `stream`.
        unsafe { (self.index)(conf.as_ptr(), name) != ERROR }
    }

    unsafe fn evaluate(
        &self,
        session: *mut sys::ngx_stream_session_t,
        key: &sys::ngx_stream_complex_value_t,
    ) -> Option<sys::ngx_str_t> {
        let mut text = sys::ngx_str_t::empty();
        // SAFETY: the caller's promise; nginx only reads the compiled value.
        let done = unsafe { (self.evaluate)(session, std::ptr::from_ref(key).cast_mut(), &mut text) };
        (done == OK).then_some(text)
    }

    unsafe fn pool(session: *mut sys::ngx_stream_session_t) -> *mut sys::ngx_pool_t {
        // SAFETY: the caller's promise; a session lives in the pool of its connection.
        unsafe { (*(*session).connection).pool }
    }

    unsafe fn connection(session: *mut sys::ngx_stream_session_t) -> *mut sys::ngx_connection_t {
        // SAFETY: the caller's promise.
        unsafe { (*session).connection }
    }
}
