//! A request, as far as the API needs it: what was asked, and how to answer.

use super::{core_location, flow, path, slot};
use crate::api::{Body, Response};
use crate::nginx::ffi::{self, ERROR, OK};
use nginx_sys as sys;
use std::borrow::Cow;

/// `NGX_HTTP_INTERNAL_SERVER_ERROR`
pub const INTERNAL: sys::ngx_int_t = sys::NGX_HTTP_INTERNAL_SERVER_ERROR as sys::ngx_int_t;

/// A live request.
#[derive(Clone, Copy)]
pub struct Request {
    r: *mut sys::ngx_http_request_t,
}

impl Request {
    /// # Safety
    /// `r` is live for as long as the result and what it returns are used.
    pub unsafe fn new(r: *mut sys::ngx_http_request_t) -> Request {
        Request { r }
    }

    fn raw(&self) -> &sys::ngx_http_request_t {
        // SAFETY: `new`'s promise.
        unsafe { &*self.r }
    }

    /// GET, POST, ...
    pub fn method(&self) -> Cow<'_, str> {
        // SAFETY: strings of a request live as long as it does.
        let name = unsafe { ffi::bytes(self.raw().method_name) };
        String::from_utf8_lossy(name.trim_ascii())
    }

    /// What follows the location's name.
    pub fn path(&self) -> String {
        let raw = self.raw();
        // SAFETY: strings of a request live as long as it does, those of its location longer.
        unsafe {
            let location = core_location(raw.loc_conf);
            let sent = (raw.valid_unparsed_uri() != 0).then(|| ffi::bytes(raw.unparsed_uri));
            path::below(ffi::bytes(location.name), ffi::bytes(raw.uri), sent)
        }
    }

    /// What follows the location's name, decoded: the key of a record.
    pub fn key(&self) -> Vec<u8> {
        let raw = self.raw();
        // SAFETY: as in `path`.
        unsafe {
            let location = core_location(raw.loc_conf);
            let sent = (raw.valid_unparsed_uri() != 0).then(|| ffi::bytes(raw.unparsed_uri));
            path::key(ffi::bytes(location.name), ffi::bytes(raw.uri), sent)
        }
    }

    /// A header of the request by its name in lower case; several of one name are joined by commas.
    pub fn header(&self, name: &str) -> Option<String> {
        let mut found: Option<String> = None;
        // SAFETY: the list of a live request's headers, complete when a handler runs. nginx keeps the names in lower
        // case beside them.
        unsafe {
            for header in ffi::list::<sys::ngx_table_elt_t>(&self.raw().headers_in.headers) {
                let key = sys::ngx_str_t { len: (*header).key.len, data: (*header).lowcase_key };
                if ffi::bytes(key) == name.as_bytes() {
                    let value = String::from_utf8_lossy(ffi::bytes((*header).value));
                    found = Some(found.map_or_else(|| value.to_string(), |first| format!("{first}, {value}")));
                }
            }
        }
        found
    }

    /// The query.
    pub fn args(&self) -> String {
        // SAFETY: strings of a request live as long as it does.
        path::printable(unsafe { ffi::bytes(self.raw().args) })
    }

    /// A variable by its index.
    pub fn variable(&self, index: usize) -> String {
        // SAFETY: a live request, and an index that was given out for this configuration.
        let value = unsafe { sys::ngx_http_get_indexed_variable(self.r, index).as_ref() };
        value.filter(|value| value.not_found() == 0).map_or_else(String::new, |value| path::printable(value.as_bytes()))
    }

    /// The address that the client connected to, without port.
    pub fn local_address(&self) -> String {
        let mut text = [0u8; 128];
        let mut address = sys::ngx_str_t { len: text.len(), data: text.as_mut_ptr() };
        // SAFETY: nginx writes at most `len` bytes to the buffer, and sets the length to what it wrote.
        unsafe {
            if sys::ngx_connection_local_sockaddr(self.raw().connection, &mut address, 0) != OK {
                return String::new();
            }
            String::from_utf8_lossy(ffi::bytes(address)).into_owned()
        }
    }

    /// Sends the answer; returns what the request is to be finalized with.
    pub fn send(&self, response: Response) -> sys::ngx_int_t {
        // SAFETY: a live request whose header has not been sent.
        unsafe {
            // From here on this answer is this module's, and no error of nginx's.
            if slot::of_mine(self.r).is_null() || self.describe(&response).is_none() {
                return INTERNAL;
            }
            let rc = sys::ngx_http_send_header(self.r);
            if rc == ERROR || rc > OK || (*self.r).header_only() != 0 {
                return rc;
            }
            match response.body {
                Body::Bytes(bytes) => self.send_body(bytes),
                Body::Stream(begin, rest) => flow::begin(self.r, begin, rest),
            }
        }
    }

    /// Puts status and headers into the answer. `None`: no memory.
    ///
    /// # Safety
    /// The header has not been sent.
    pub unsafe fn describe(&self, response: &Response) -> Option<()> {
        // SAFETY: the caller's promise, for a live request; all that is put into it is in its pool, or is constant.
        unsafe {
            let out = &mut (*self.r).headers_out;
            out.status = sys::ngx_uint_t::from(response.status);
            out.content_length = std::ptr::null_mut();
            out.content_length_n = match &response.body {
                Body::Bytes(bytes) => bytes.len() as libc::off_t,
                // nginx sends it in chunks, or until the connection closes.
                Body::Stream(..) => -1,
            };
            if matches!(response.status, 204 | 304) {
                (*self.r).set_header_only(1);
                out.content_length_n = -1;
            } else {
                out.content_type = ffi::borrowed(response.content_type.as_bytes());
                out.content_type_len = out.content_type.len;
                out.content_type_lowcase = std::ptr::null_mut();
            }
            // What an answer depends on was looked at; nginx would compare tags that it doesn't know.
            (*self.r).set_disable_not_modified(1);
            self.add_header("Cache-Control", response.cache_control)?;
            if let Some(allow) = response.allow {
                self.add_header("Allow", allow)?;
            }
            response.headers.iter().try_for_each(|(name, value)| self.add_header(name, value))
        }
    }

    /// # Safety
    /// The header has not been sent.
    unsafe fn add_header(&self, name: &'static str, value: &str) -> Option<()> {
        // SAFETY: a live request; the value is copied to its pool, and the name is a constant.
        unsafe {
            let value = ffi::copied((*self.r).pool, value.as_bytes())?;
            let entry = sys::ngx_list_push(&mut (*self.r).headers_out.headers).cast::<sys::ngx_table_elt_t>();
            // All fields, also those that newer nginx has and these bindings may not know by name.
            entry.as_mut()?;
            entry.write(std::mem::zeroed());
            (*entry).hash = 1;
            (*entry).key = ffi::borrowed(name.as_bytes());
            (*entry).value = value;
            if name == "ETag" {
                // Compression weakens it.
                (*self.r).headers_out.etag = entry;
            }
        }
        Some(())
    }

    /// # Safety
    /// The header was sent, and says how long the body is.
    unsafe fn send_body(&self, body: Vec<u8>) -> sys::ngx_int_t {
        // SAFETY: a live request; its pool drops the body at its end, after nginx has sent it.
        unsafe {
            let pool = (*self.r).pool;
            let body = ffi::owned_by_pool(pool, body);
            let buffer = sys::ngx_pcalloc(pool, size_of::<sys::ngx_buf_t>()).cast::<sys::ngx_buf_t>();
            if body.is_null() || buffer.is_null() {
                return ERROR;
            }
            let main = (*self.r).main == self.r;
            if !(*body).is_empty() {
                (*buffer).pos = (*body).as_mut_ptr();
                (*buffer).last = (*buffer).pos.add((*body).len());
                (*buffer).set_memory(1);
            } else {
                (*buffer).set_sync(u32::from(!main));
            }
            (*buffer).set_last_buf(u32::from(main));
            (*buffer).set_last_in_chain(1);
            let mut chain = sys::ngx_chain_t { buf: buffer, next: std::ptr::null_mut() };
            sys::ngx_http_output_filter(self.r, &mut chain)
        }
    }
}
