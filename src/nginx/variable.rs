//! A variable that `keyval` makes: reading it looks its key up, setting it writes the record.
//!
//! http and stream have variables of the same kind, each with functions of its own. [`Side`] is all that differs.

use super::conf::main::{Block, KeyvalZone, MainConf};
use super::conf::{Conf, Fault};
use super::ffi::{self, ERROR, OK, guard};
use super::{log, wake};
use crate::store::{Condition, Life, MAX_PARTED, MAX_PREFIX, Matching, Sink, StoreError, Zone};
use nginx_sys as sys;

/// http or stream, as far as variables are concerned. A value of it holds the functions to call.
pub trait Side: Sized + 'static {
    /// Which of the two.
    const BLOCK: Block;
    /// What directives of the block's main level are given.
    type Conf;
    /// A request or a session.
    type Session;
    /// Text and variables mixed, compiled.
    type Key;

    /// Finds the functions, within the block.
    fn find() -> Result<Self, Fault>;
    /// Compiles a text; `None`: nginx has said what is wrong with it.
    fn compile(&self, conf: &Conf, text: sys::ngx_str_t) -> Option<Self::Key>;
    /// Makes a variable, or finds one that may be changed; `None`: nginx has said why it can't. The name is copied.
    fn add<'c>(&self, conf: &'c Conf, name: &mut sys::ngx_str_t) -> Option<Entry<'c, Self>>;
    /// Gives the variable an index. The name's bytes must live as long as the configuration.
    fn index(&self, conf: &Conf, name: &mut sys::ngx_str_t) -> bool;

    /// The key as it is at this moment, in memory of the session or the configuration.
    ///
    /// # Safety
    /// `session` is live, and the key belongs to the configuration that it is served with.
    unsafe fn evaluate(&self, session: *mut Self::Session, key: &Self::Key) -> Option<sys::ngx_str_t>;
    /// The pool of the session.
    ///
    /// # Safety
    /// `session` is live.
    unsafe fn pool(session: *mut Self::Session) -> *mut sys::ngx_pool_t;
    /// The connection that it came by.
    ///
    /// # Safety
    /// `session` is live.
    unsafe fn connection(session: *mut Self::Session) -> *mut sys::ngx_connection_t;
}

/// What a variable is read with.
pub type Get<S> =
    unsafe extern "C" fn(*mut <S as Side>::Session, *mut sys::ngx_variable_value_t, usize) -> sys::ngx_int_t;
/// What a variable is set with.
pub type Set<S> = unsafe extern "C" fn(*mut <S as Side>::Session, *mut sys::ngx_variable_value_t, usize);

/// nginx's entry of a variable.
pub struct Entry<'c, S: Side> {
    /// Its `get_handler`.
    pub get: &'c mut Option<Get<S>>,
    /// Its `set_handler`.
    pub set: &'c mut Option<Set<S>>,
    /// What they are called with.
    pub data: &'c mut usize,
    /// Its flags.
    pub flags: &'c mut sys::ngx_uint_t,
}

/// What a new variable is, in both blocks: another at each look, and open to be set.
pub const FLAGS: sys::ngx_uint_t = (sys::NGX_HTTP_VAR_CHANGEABLE | sys::NGX_HTTP_VAR_NOCACHEABLE) as sys::ngx_uint_t;
const _: () = assert!(
    sys::NGX_HTTP_VAR_CHANGEABLE == sys::NGX_STREAM_VAR_CHANGEABLE
        && sys::NGX_HTTP_VAR_NOCACHEABLE == sys::NGX_STREAM_VAR_NOCACHEABLE
);

/// One `keyval`.
struct Variable<S: Side> {
    side: S,
    key: S::Key,
    zone: *const KeyvalZone,
}

/// Registers `$name`, with the key in the first word of the directive. Returns where its zone is to be put, once all of
/// the configuration is read.
pub fn add<S: Side>(conf: &Conf, name: &str) -> Result<*mut *const KeyvalZone, Fault> {
    let memory = || Fault::new("\"keyval\": no memory");
    let side = S::find()?;
    let Some(text) = conf.words().get(1) else { return Err(Fault::new("\"keyval\" has no key")) };
    let key =
        side.compile(conf, *text).ok_or_else(|| Fault::new(format!("bad key \"{}\" of \"keyval\"", conf.text(1))))?;
    // SAFETY: the pool of the configuration, which outlives the sessions that it serves; it keeps the name as well.
    let (variable, mut name_in_pool) = unsafe {
        let variable = ffi::owned_by_pool(conf.pool(), Variable { side, key, zone: std::ptr::null() });
        (variable, ffi::copied(conf.pool(), name.as_bytes()).ok_or_else(memory)?)
    };
    // SAFETY: null, or just made; nothing else refers to it yet.
    let Some(Variable { side, zone, .. }) = (unsafe { variable.as_mut() }) else { return Err(memory()) };

    let Some(entry) = side.add(conf, &mut name_in_pool) else {
        return Err(Fault::new(format!("\"keyval\" can't make \"${name}\": the name is taken; choose another")));
    };
    if entry.get.is_some() && entry.set.is_none() {
        conf.warn(format_args!(
            "\"${name}\" was set before this \"keyval\": what stands above will not write to the zone; put \"keyval\" first"
        ));
    }
    *entry.get = Some(get::<S>);
    *entry.set = Some(set::<S>);
    *entry.data = variable as usize;
    // It may have been there before, as a variable of `set`, without this.
    *entry.flags |= FLAGS;
    // Scripting modules find indexed variables only.
    if !side.index(conf, &mut name_in_pool) {
        return Err(memory());
    }
    Ok(zone)
}

/// A session that looks at the variable.
unsafe extern "C" fn get<S: Side>(
    session: *mut S::Session,
    value: *mut sys::ngx_variable_value_t,
    data: usize,
) -> sys::ngx_int_t {
    guard("a keyval variable", ERROR, || {
        // SAFETY: nginx calls with a live session and value, and with the variable that `add` registered.
        unsafe {
            let variable = &*(data as *const Variable<S>);
            let value = &mut *value;
            value.set_valid(1);
            value.set_no_cacheable(0);
            // What isn't there is empty, for scripts as well, and not without a value.
            value.set_not_found(0);
            value.set_len(0);
            value.data = c"".as_ptr().cast_mut().cast();

            let Some((zone, key)) = place(session, variable) else { return ERROR };
            if key.is_empty() {
                return OK;
            }
            let mut sink = PoolSink { pool: S::pool(session), data: std::ptr::null_mut(), len: 0 };
            match zone.1.look_up(key, ffi::now(), &mut sink) {
                Ok(Some(_)) => {
                    value.data = sink.data;
                    // Values are 1 MiB at most: they fit the 28 bits of the field.
                    value.set_len(sink.len as u32);
                    OK
                }
                Ok(None) | Err(StoreError::BadKey) => OK,
                Err(error) => {
                    complain::<S>(session, "look up", zone.0, error);
                    ERROR
                }
            }
        }
    })
}

/// A session that sets the variable.
unsafe extern "C" fn set<S: Side>(session: *mut S::Session, value: *mut sys::ngx_variable_value_t, data: usize) {
    guard("the setting of a keyval variable", (), || {
        // SAFETY: nginx calls with a live session and value, and with the variable that `add` registered.
        unsafe {
            let variable = &*(data as *const Variable<S>);
            let Some((zone, key)) = place(session, variable) else { return };
            let now = ffi::now();
            // Scripts take a variable away by giving it no value.
            let result = if (*value).not_found() != 0 {
                zone.1.delete(key, now)
            } else {
                zone.1.set(key, (*value).as_bytes(), Life::Default, Condition::Always, now)
            };
            match result {
                Ok(_) if zone.1.announces() => {
                    if let Some(control) = MainConf::current().and_then(MainConf::control) {
                        wake::everybody(control);
                    }
                }
                Ok(_) => {}
                Err(error) => complain::<S>(session, "write to", zone.0, error),
            }
        }
    });
}

/// The zone, and the key as it is at this moment.
unsafe fn place<S: Side>(session: *mut S::Session, variable: &Variable<S>) -> Option<((&KeyvalZone, Zone), &[u8])> {
    // SAFETY: the zone is set when the configuration is complete, and is part of it; the key is evaluated into the
    // session's pool, or is a constant of the configuration.
    unsafe {
        let zone = variable.zone.as_ref()?;
        let key = variable.side.evaluate(session, &variable.key)?;
        Some(((zone, zone.zone?), ffi::bytes(key)))
    }
}

/// One line for what went wrong, at a bounded rate for each zone.
unsafe fn complain<S: Side>(session: *mut S::Session, what: &str, zone: &KeyvalZone, error: StoreError) {
    let (name, why) = (&zone.name, why(zone, error));
    // SAFETY: a live session has a connection with a log.
    unsafe {
        let log = (*S::connection(session)).log;
        zone.complaints.write(log, log::ERR, ffi::now(), format_args!("can't {what} keyval zone \"{name}\": {why}"));
    }
}

/// Why a zone refuses something, for the log.
pub fn why(zone: &KeyvalZone, error: StoreError) -> String {
    match (error, zone.matching) {
        (StoreError::BadKey, Matching::Ip) => "the key is neither an address nor a network (type=ip)".to_owned(),
        (StoreError::BadKey, Matching::Counter) => {
            format!("the key is empty or longer than {MAX_PARTED} bytes (type=counter)")
        }
        (StoreError::BadKey, Matching::Prefix) => {
            format!("the key is empty or longer than {MAX_PREFIX} bytes (type=prefix)")
        }
        _ => error.to_string(),
    }
}

/// Puts a value that was found into the session's pool.
struct PoolSink {
    pool: *mut sys::ngx_pool_t,
    data: *mut u8,
    len: usize,
}

impl Sink for PoolSink {
    fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        if self.data.is_null() || self.len < len {
            // SAFETY: the pool of a live session.
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
