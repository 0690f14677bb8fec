//! A variable that `keyval` makes: reading it looks its key up, setting it writes the record.

use crate::nginx::conf::main::{KeyvalZone, MainConf};
use crate::nginx::conf::{Conf, Fault};
use crate::nginx::ffi::{self, ERROR, OK, guard};
use crate::nginx::{log, wake};
use crate::store::{Condition, Life, MAX_PREFIX, Matching, Sink, StoreError, Zone};
use nginx_sys as sys;

/// One `keyval`.
pub struct Variable {
    key: sys::ngx_http_complex_value_t,
    zone: *const KeyvalZone,
}

impl Variable {
    /// The zone, known when all of `http` is read.
    pub fn set_zone(&mut self, zone: *const KeyvalZone) {
        self.zone = zone;
    }
}

/// Registers `$name`, with the key in the first word of the directive.
pub fn add(conf: &Conf, name: &str) -> Result<*mut Variable, Fault> {
    let memory = || Fault::new("\"keyval\": no memory");
    let key = compile(conf)?;
    // SAFETY: the pool of the configuration, which outlives the requests that it serves.
    let variable = unsafe { ffi::owned_by_pool(conf.pool(), Variable { key, zone: std::ptr::null() }) };
    if variable.is_null() {
        return Err(memory());
    }
    // SAFETY: a live configuration of `http`; nginx copies the name of a new variable and keeps the one given to
    // `get_variable_index`, so that is a copy in the cycle's pool.
    unsafe {
        let mut name_in_pool = ffi::copied(conf.pool(), name.as_bytes()).ok_or_else(memory)?;
        let flags = sys::NGX_HTTP_VAR_CHANGEABLE | sys::NGX_HTTP_VAR_NOCACHEABLE;
        let entry = sys::ngx_http_add_variable(conf.as_ptr(), &mut name_in_pool, flags as sys::ngx_uint_t);
        let Some(entry) = entry.as_mut() else {
            return Err(Fault::new(format!("\"keyval\" can't make \"${name}\": the name is taken; choose another")));
        };
        if entry.get_handler.is_some() && entry.set_handler.is_none() {
            conf.warn(format_args!(
                "\"${name}\" was set before this \"keyval\": what stands above will not write to the zone; put \"keyval\" first"
            ));
        }
        entry.get_handler = Some(get);
        entry.set_handler = Some(set);
        entry.data = variable as usize;
        // It may have been there before, as a variable of `set`, without this.
        entry.flags |= sys::NGX_HTTP_VAR_NOCACHEABLE as sys::ngx_uint_t;
        // Scripting modules find indexed variables only.
        if sys::ngx_http_get_variable_index(conf.as_ptr(), &mut name_in_pool) == ERROR {
            return Err(memory());
        }
    }
    Ok(variable)
}

/// The key: text and variables mixed.
fn compile(conf: &Conf) -> Result<sys::ngx_http_complex_value_t, Fault> {
    let Some(word) = conf.words().get(1) else { return Err(Fault::new("\"keyval\" has no key")) };
    let mut text = *word;
    // SAFETY: zero is the empty state of both structures; the value's parts are in the cycle's pool.
    unsafe {
        let mut key: sys::ngx_http_complex_value_t = std::mem::zeroed();
        let mut order: sys::ngx_http_compile_complex_value_t = std::mem::zeroed();
        order.cf = conf.as_ptr();
        order.value = &mut text;
        order.complex_value = &mut key;
        if sys::ngx_http_compile_complex_value(&mut order) != OK {
            return Err(Fault::new(format!("bad key \"{}\" of \"keyval\"", conf.text(1))));
        }
        Ok(key)
    }
}

/// A request that looks at the variable.
unsafe extern "C" fn get(
    r: *mut sys::ngx_http_request_t,
    value: *mut sys::ngx_http_variable_value_t,
    data: usize,
) -> sys::ngx_int_t {
    guard("a keyval variable", ERROR, || {
        // SAFETY: nginx calls with a live request and value, and with the variable that `add` registered.
        unsafe {
            let variable = &*(data as *const Variable);
            let value = &mut *value;
            value.set_valid(1);
            value.set_no_cacheable(0);
            value.set_not_found(1);
            value.set_len(0);
            value.data = std::ptr::null_mut();

            let Some((zone, key)) = place(r, variable) else { return ERROR };
            if key.is_empty() {
                return OK;
            }
            let mut sink = PoolSink { pool: (*r).pool, data: std::ptr::null_mut(), len: 0 };
            match zone.1.look_up(key, ffi::now(), &mut sink) {
                Ok(Some(_)) => {
                    value.data = sink.data;
                    // Values are 1 MiB at most: they fit the 28 bits of the field.
                    value.set_len(sink.len as u32);
                    value.set_not_found(0);
                    OK
                }
                Ok(None) | Err(StoreError::BadKey) => OK,
                Err(error) => {
                    complain(r, "look up", zone.0, error);
                    ERROR
                }
            }
        }
    })
}

/// A request that sets the variable.
unsafe extern "C" fn set(r: *mut sys::ngx_http_request_t, value: *mut sys::ngx_http_variable_value_t, data: usize) {
    guard("the setting of a keyval variable", (), || {
        // SAFETY: nginx calls with a live request and value, and with the variable that `add` registered.
        unsafe {
            let variable = &*(data as *const Variable);
            let Some((zone, key)) = place(r, variable) else { return };
            let now = ffi::now();
            // Scripts take a variable away by giving it no value.
            let result = if (*value).not_found() != 0 {
                zone.1.delete(key, now)
            } else {
                zone.1.set(key, (*value).as_bytes(), Life::Default, Condition::Always, now)
            };
            match result {
                Ok(_) if zone.0.sync => {
                    if let Some(control) = MainConf::current().and_then(MainConf::control) {
                        wake::agent(control);
                    }
                }
                Ok(_) => {}
                Err(error) => complain(r, "write to", zone.0, error),
            }
        }
    });
}

/// The zone, and the key as it is at this moment.
unsafe fn place(r: *mut sys::ngx_http_request_t, variable: &Variable) -> Option<((&KeyvalZone, Zone), &[u8])> {
    // SAFETY: the zone is set when the configuration is complete, and is part of it; the key is evaluated into the
    // request's pool, or is a constant of the configuration. nginx only reads the compiled value.
    unsafe {
        let zone = variable.zone.as_ref()?;
        let mut key = sys::ngx_str_t::empty();
        if sys::ngx_http_complex_value(r, (&raw const variable.key).cast_mut(), &mut key) != OK {
            return None;
        }
        Some(((zone, zone.zone?), ffi::bytes(key)))
    }
}

/// One line for what went wrong, at a bounded rate.
unsafe fn complain(r: *mut sys::ngx_http_request_t, what: &str, zone: &KeyvalZone, error: StoreError) {
    static RATE: log::Limited = log::Limited::new();
    let (name, why) = (&zone.name, why(zone, error));
    // SAFETY: a live request has a connection with a log.
    unsafe {
        let log = (*(*r).connection).log;
        RATE.write(log, log::ERR, ffi::now(), format_args!("can't {what} keyval zone \"{name}\": {why}"));
    }
}

fn why(zone: &KeyvalZone, error: StoreError) -> String {
    match (error, zone.matching) {
        (StoreError::BadKey, Matching::Ip) => "the key is neither an address nor a network (type=ip)".to_owned(),
        (StoreError::BadKey, Matching::Prefix) => {
            format!("the key is empty or longer than {MAX_PREFIX} bytes (type=prefix)")
        }
        _ => error.to_string(),
    }
}

/// Puts a value that was found into the request's pool.
struct PoolSink {
    pool: *mut sys::ngx_pool_t,
    data: *mut u8,
    len: usize,
}

impl Sink for PoolSink {
    fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        if self.data.is_null() || self.len < len {
            // SAFETY: the pool of a live request.
            self.data = unsafe { sys::ngx_pnalloc(self.pool, len.max(1)) }.cast();
        }
        if self.data.is_null() {
            return None;
        }
        self.len = len;
        // SAFETY: `len` bytes or more of the pool that nothing else has; any bytes are valid, zeroed or not, once
        // written: the slice is made over memory that is set first.
        unsafe {
            self.data.write_bytes(0, len);
            Some(std::slice::from_raw_parts_mut(self.data, len))
        }
    }
}
