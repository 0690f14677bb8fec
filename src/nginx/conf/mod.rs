//! Directives: what a configuration says, checked and put where the rest of the glue finds it.
//!
//! A directive is a type that implements [`Directive`]; [`command`] makes the entry of nginx's table from it. What goes
//! wrong is a [`Fault`], which nginx prints with file and line.

pub mod api;
pub mod fault;
pub mod increment;
pub mod keyval;
pub mod main;
pub mod openssl;
pub mod parse;
pub mod peers;
pub mod rest;
pub mod shadow;
pub mod status;
pub mod sync;
pub mod sync_settings;
pub mod tls;

pub use fault::{Fault, Place};

use super::ffi::{self, CONF_ERROR, CONF_OK, guard};
use super::log;
use main::MainConf;
use nginx_sys as sys;
use std::borrow::Cow;
use std::ffi::{CStr, c_char, c_void};
use std::fmt::Arguments;

/// The file that nginx is reading, at one directive.
pub struct Conf {
    cf: *mut sys::ngx_conf_t,
}

/// One directive.
pub trait Directive {
    /// The configuration structure that the command's table and offset lead to.
    type Own;
    /// Reads it.
    fn set(conf: &mut Conf, own: &mut Self::Own) -> Result<(), Fault>;
}

/// The entry of nginx's table for `D`; `offset` must lead to a `D::Own` of the module in whose table this stands.
pub const fn command<D: Directive>(name: &'static CStr, flags: u32, offset: usize) -> sys::ngx_command_t {
    sys::ngx_command_t {
        name: ffi::constant(name),
        type_: flags as sys::ngx_uint_t,
        set: Some(set::<D>),
        conf: offset as sys::ngx_uint_t,
        offset: 0,
        post: std::ptr::null_mut(),
    }
}

/// What nginx calls for a directive.
unsafe extern "C" fn set<D: Directive>(
    cf: *mut sys::ngx_conf_t,
    _cmd: *mut sys::ngx_command_t,
    own: *mut c_void,
) -> *mut c_char {
    guard("a directive", CONF_ERROR, || {
        // SAFETY: nginx calls with a live `cf` and, as the table's offset says, the module's structure; it is read and
        // written by one thread, one directive at a time.
        let (mut conf, own) = unsafe { (Conf::new(cf), &mut *own.cast::<D::Own>()) };
        match D::set(&mut conf, own) {
            Ok(()) => CONF_OK,
            Err(fault) => conf.fail(&fault),
        }
    })
}

impl Conf {
    /// # Safety
    /// `cf` is live for as long as the result is used.
    pub unsafe fn new(cf: *mut sys::ngx_conf_t) -> Conf {
        Conf { cf }
    }

    fn raw(&self) -> &sys::ngx_conf_t {
        // SAFETY: `new`'s promise.
        unsafe { &*self.cf }
    }

    /// The pointer, for calls into nginx.
    pub fn as_ptr(&self) -> *mut sys::ngx_conf_t {
        self.cf
    }

    /// The words of the directive, its name first.
    pub fn words(&self) -> &[sys::ngx_str_t] {
        // SAFETY: null or an array of strings that lives as long as the directive is handled.
        unsafe { self.raw().args.as_ref().map_or(&[], |args| args.as_slice()) }
    }

    /// Word `n`, as bytes; empty if there is none. It lives in the cycle's pool.
    pub fn word(&self, n: usize) -> &[u8] {
        // SAFETY: nginx keeps the words in the pool of the cycle that it reads.
        self.words().get(n).map_or(&[], |word| unsafe { ffi::bytes(*word) })
    }

    /// Word `n` as text for comparing and for messages.
    pub fn text(&self, n: usize) -> Cow<'_, str> {
        String::from_utf8_lossy(self.word(n))
    }

    /// The directive's name.
    pub fn name(&self) -> Cow<'_, str> {
        self.text(0)
    }

    /// The words after the name, as text.
    pub fn parameters(&self) -> impl Iterator<Item = Cow<'_, str>> {
        (1..self.words().len()).map(|n| self.text(n))
    }

    /// The cycle that is being configured.
    pub fn cycle(&self) -> *mut sys::ngx_cycle_t {
        self.raw().cycle
    }

    /// The pool of that cycle.
    pub fn pool(&self) -> *mut sys::ngx_pool_t {
        self.raw().pool
    }

    /// `http`'s, `stream`'s or the main context.
    pub fn ctx(&self) -> *mut c_void {
        self.raw().ctx
    }

    /// File and line.
    pub fn place(&self) -> Place {
        // SAFETY: null or the file that is being read.
        match unsafe { self.raw().conf_file.as_ref() } {
            Some(file) => Place {
                // SAFETY: the name of the file that is being read.
                file: String::from_utf8_lossy(unsafe { ffi::bytes(file.file.name) }).into_owned(),
                line: file.line,
            },
            None => Place::default(),
        }
    }

    /// The module's main configuration of this cycle.
    pub fn main(&mut self) -> Result<&mut MainConf, Fault> {
        // SAFETY: the configuration is read by one thread, and `&mut self` keeps a second reference from being made.
        unsafe { MainConf::of_mut(self.cycle()) }.ok_or_else(|| Fault::new("the module has no configuration"))
    }

    /// A warning at this directive.
    pub fn warn(&self, text: Arguments<'_>) {
        self.write(log::WARN, &format!("{text} in {}", self.place()));
    }

    /// A warning at a directive that was read before.
    pub fn warn_at(&self, place: &Place, text: Arguments<'_>) {
        self.write(log::WARN, &format!("{text} in {place}"));
    }

    /// Writes the fault to the log and returns what nginx wants for it.
    pub fn fail(&self, fault: &Fault) -> *mut c_char {
        let place = self.place();
        self.write(log::EMERG, &format!("{} in {}", fault.text, fault.place.as_ref().unwrap_or(&place)));
        CONF_ERROR
    }

    /// Makes a fault into a log line and an error code, for callbacks at the end of a block.
    pub fn finish(&self, result: Result<(), Fault>) -> sys::ngx_int_t {
        match result {
            Ok(()) => ffi::OK,
            Err(fault) => {
                self.fail(&fault);
                ffi::ERROR
            }
        }
    }

    fn write(&self, level: sys::ngx_uint_t, text: &str) {
        // SAFETY: the log of the cycle that is being configured; `%*s` takes a length and that many bytes.
        unsafe {
            let log = self.raw().log;
            if !log.is_null() && (*log).log_level >= level {
                sys::ngx_log_error_core(level, log, 0, c"%*s".as_ptr(), text.len(), text.as_ptr());
            }
        }
    }
}

/// Makes a structure for nginx to hand to directives; it is dropped with the cycle.
///
/// # Safety
/// `cf` is live.
pub unsafe extern "C" fn create<T: Default>(cf: *mut sys::ngx_conf_t) -> *mut c_void {
    guard("create_conf", std::ptr::null_mut(), || {
        // SAFETY: the pool of the cycle that is being configured; its end is the end of the configuration.
        unsafe { ffi::owned_by_pool((*cf).pool, T::default()).cast() }
    })
}
