//! Names of peers that are followed as DNS changes, with nginx's own resolver: its `valid=`, `ipv6=` and cache.
//!
//! The resolver belongs to the event loop, so the worker that runs the helper thread asks here, and hands the thread what
//! it found. A name that can't be resolved keeps the addresses that it had; one that doesn't exist (any more) has none.

use super::timer::Timer;
use crate::agent::Peer;
use crate::nginx::conf::peers;
use crate::nginx::conf::sync::SyncServer;
use crate::nginx::ffi::{self, ERROR, OK, guard};
use crate::nginx::log;
use crate::store::LinkFigures;
use nginx_sys as sys;
use std::cell::RefCell;
use std::ffi::{CStr, c_void};
use std::net::SocketAddr;
use std::ptr;

/// Between two tries to resolve a name, at least.
const SHORTEST_PAUSE: usize = 1_000;

thread_local! {
    /// Those of the helper thread that runs in this worker.
    static NAMES: RefCell<Option<Vec<Name>>> = const { RefCell::new(None) };
}

/// Begins to resolve the names of a server. `found` is called, outside of any borrow, whenever [`peers`] changed. `before`: what
/// an agent before this one has dialled; it stays in use until there is an answer.
///
/// # Safety
/// In the thread of the event loop; the server's configuration stays until [`stop`] is called.
pub unsafe fn start(server: &SyncServer, before: &[LinkFigures], found: fn()) {
    let Some(resolver) = server.resolver else { return };
    let pause = usize::try_from(server.retry_interval).unwrap_or(usize::MAX).max(SHORTEST_PAUSE);
    let names = server.names.iter().map(|name| {
        // SAFETY: the caller's promise.
        let timer = unsafe { Timer::new(ask_due) };
        let (name, asking, known) = (name.clone(), ptr::null_mut(), known_before(name, before));
        Name { name, resolver, timer, pause, asking, answer: None, known, failure: None, found }
    });
    NAMES.set(Some(names.collect()));
    if !peers().is_empty() {
        found();
    }
    ask_due();
}

/// The addresses that a name led to, as they are shown.
fn known_before(name: &peers::Name, before: &[LinkFigures]) -> Option<Vec<SocketAddr>> {
    let shown = before.iter().filter(|link| link.server == name.text);
    let mut known: Vec<SocketAddr> = shown.filter_map(|link| link.address.parse().ok()).collect();
    known.sort_unstable();
    known.dedup();
    (!known.is_empty()).then_some(known)
}

/// What the names of a server lead to as far as an agent has dialled it, and the names that led nowhere: for who can't ask any
/// more.
pub fn remembered(server: &SyncServer, before: &[LinkFigures]) -> (Vec<Peer>, Vec<String>) {
    let (mut peers, mut nowhere) = (Vec::new(), Vec::new());
    for name in &server.names {
        match known_before(name, before) {
            Some(known) => peers.extend(known.into_iter().map(|address| name.peer_at(address))),
            None => nowhere.push(name.text.clone()),
        }
    }
    (peers, nowhere)
}

/// Whether that was done.
pub fn is_started() -> bool {
    NAMES.with_borrow(Option::is_some)
}

/// Asks no more.
pub fn stop() {
    NAMES.take();
}

/// All that the names lead to now.
pub fn peers() -> Vec<Peer> {
    NAMES.with_borrow(|names| names.iter().flatten().flat_map(|name| name.peers()).collect())
}

/// The names that lead to no address, or weren't answered for yet.
pub fn leading_nowhere() -> Vec<String> {
    NAMES.with_borrow(|names| {
        let nowhere = names.iter().flatten().filter(|name| name.leads_nowhere());
        nowhere.map(|name| name.name.text.clone()).collect()
    })
}

/// One name, and what is known of it.
struct Name {
    name: peers::Name,
    resolver: crate::nginx::conf::sync::Resolver,
    timer: Timer,
    /// Milliseconds until it is asked for again after a failure.
    pause: usize,
    /// The question that is under way, or null.
    asking: *mut sys::ngx_resolver_ctx_t,
    /// What came of it, until it is taken.
    answer: Option<Answer>,
    /// Sorted; `None` until there was a first answer, if nothing was known before.
    known: Option<Vec<SocketAddr>>,
    /// The last one that was told.
    failure: Option<String>,
    found: fn(),
}

/// What the resolver said.
enum Answer {
    /// These addresses, for so many milliseconds; `None`: for a time that nobody told.
    Found(Vec<SocketAddr>, Option<usize>),
    /// Why not.
    Failed(String),
}

/// Asks for every name whose time has come. nginx calls back at once if it knows the answer.
fn ask_due() {
    // A timer says only that some name is due: one whose own timer has run off, or wasn't set yet.
    let questions = NAMES.with_borrow_mut(|names| {
        let due = names.iter_mut().flatten().filter(|name| name.asking.is_null() && !name.timer.is_set());
        due.filter_map(|name| name.question()).collect::<Vec<_>>()
    });
    for question in questions {
        // SAFETY: a question that was just made, and whose handler is `answered`. `ERROR` means that it is freed, or
        // will be, without an answer.
        if unsafe { sys::ngx_resolve_name(question) } == ERROR {
            settle(question, Answer::Failed("no memory or no socket".to_owned()), false);
        }
    }
    take_answers();
}

/// nginx has an answer.
unsafe extern "C" fn answered(question: *mut sys::ngx_resolver_ctx_t) {
    guard("the resolving of a zone_sync_server", (), || {
        // SAFETY: nginx calls with the question, whose answer is valid until it is done with below.
        let answer = unsafe { read(&*question) };
        settle(question, answer, true);
        take_answers();
    });
}

/// Notes the answer to a question, and gives the question back.
fn settle(question: *mut sys::ngx_resolver_ctx_t, answer: Answer, done: bool) {
    NAMES.with_borrow_mut(|names| {
        if let Some(name) = names.iter_mut().flatten().find(|name| ptr::eq(name.asking, question)) {
            name.asking = ptr::null_mut();
            name.answer = Some(answer.at_port(name.name.port));
        }
    });
    if done {
        // SAFETY: nginx wants each question that it answered back, once.
        unsafe { sys::ngx_resolve_name_done(question) };
    }
}

/// Acts on what the names have been answered, and tells whoever waits for it.
fn take_answers() {
    let changed = NAMES.with_borrow_mut(|names| {
        let answered = names.iter_mut().flatten().filter_map(|name| name.take_answer().then_some(name.found));
        answered.last()
    });
    if let Some(found) = changed {
        found();
    }
}

impl Answer {
    fn at_port(mut self, port: u16) -> Answer {
        if let Answer::Found(addresses, _) = &mut self {
            addresses.iter_mut().for_each(|address| address.set_port(port));
        }
        self
    }
}

impl Name {
    /// A question for nginx's resolver, to be asked right away.
    fn question(&mut self) -> Option<*mut sys::ngx_resolver_ctx_t> {
        // SAFETY: the resolver of the configuration in force; null, or a context to fill in. There are servers to ask, so
        // that it isn't the mark for "no resolver".
        unsafe {
            let question = sys::ngx_resolve_start(self.resolver.resolver, ptr::null_mut());
            let Some(fields) = question.as_mut().filter(|_| question as isize != -1) else {
                self.answer = Some(Answer::Failed("no memory".to_owned()));
                return None;
            };
            fields.name = sys::ngx_str_t { len: self.name.host.len(), data: self.name.host.as_ptr().cast_mut() };
            fields.handler = Some(answered);
            fields.data = ptr::null_mut::<c_void>();
            fields.timeout = self.resolver.timeout;
            // A worker that ends doesn't wait for it.
            fields.set_cancelable(1);
            self.asking = question;
            Some(question)
        }
    }

    /// `true`: the addresses are others now.
    fn take_answer(&mut self) -> bool {
        let Some(answer) = self.answer.take() else { return false };
        let text = &self.name.text;
        let (addresses, valid) = match answer {
            Answer::Found(addresses, valid) => (addresses, valid),
            Answer::Failed(why) => {
                if self.failure.as_ref() != Some(&why) {
                    let keeps = if self.leads_nowhere() { "" } else { "; the addresses known so far stay in use" };
                    let text = format_args!("zone_sync_server {text} can't be resolved: {why}{keeps}; asked again");
                    log::cycle(log::ERR, text);
                    self.failure = Some(why);
                }
                self.timer.set(self.pause);
                return false;
            }
        };
        self.failure = None;
        self.timer.set(valid.map_or(self.pause, |valid| valid.max(SHORTEST_PAUSE)));
        if self.known.as_ref() == Some(&addresses) {
            return false;
        }
        let list: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
        // All nodes behind it are left now.
        let (level, list) = match list.is_empty() {
            true if !self.leads_nowhere() => (log::WARN, "no address any more".to_owned()),
            true => (log::NOTICE, "no address".to_owned()),
            false => (log::NOTICE, list.join(", ")),
        };
        log::cycle(level, format_args!("zone_sync_server {text} leads to {list}"));
        self.known = Some(addresses);
        true
    }

    fn leads_nowhere(&self) -> bool {
        self.known.as_ref().is_none_or(Vec::is_empty)
    }

    fn peers(&self) -> impl Iterator<Item = Peer> {
        self.known.iter().flatten().map(|address| self.name.peer_at(*address))
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        if !self.asking.is_null() {
            // SAFETY: a question without an answer yet: nginx forgets it.
            unsafe { sys::ngx_resolve_name_done(self.asking) };
        }
    }
}

/// What nginx's resolver says to a question; addresses have no port yet.
///
/// # Safety
/// nginx has called back with this question, and it wasn't given back yet.
unsafe fn read(question: &sys::ngx_resolver_ctx_t) -> Answer {
    if question.state == sys::NGX_RESOLVE_NXDOMAIN as sys::ngx_int_t {
        return Answer::Found(Vec::new(), None);
    }
    if question.state != OK {
        // SAFETY: takes any number, and gives a constant text.
        let why = unsafe { CStr::from_ptr(sys::ngx_resolver_strerror(question.state)) };
        return Answer::Failed(why.to_string_lossy().into_owned());
    }
    // SAFETY: an answer has `naddrs` addresses, each of the family that it names.
    let mut found: Vec<SocketAddr> = unsafe {
        let all: &[sys::ngx_resolver_addr_t] = match question.naddrs {
            0 => &[],
            count => std::slice::from_raw_parts(question.addrs, count),
        };
        all.iter().filter_map(|each| ffi::ip_of(each.sockaddr)).map(|ip| SocketAddr::new(ip, 0)).collect()
    };
    // nginx gives them in another order each time.
    found.sort_unstable();
    found.dedup();
    let valid = question.valid.saturating_sub(sys::ngx_timeofday().sec);
    // In its last second nginx still answers from its memory.
    Answer::Found(found, usize::try_from(valid.saturating_add(1)).ok().map(|seconds| seconds.saturating_mul(1000)))
}
