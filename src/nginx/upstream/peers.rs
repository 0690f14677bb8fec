//! nginx's list of an upstream's servers: finding the one that a session is bound to, and taking it for a request.
//!
//! All of nginx's methods of balancing keep their state of a request in a structure that begins with that of round robin, and
//! give servers back with round robin's function. So a server can be taken past the method, if it is done as round robin does.
//! With `zone` in the upstream the list is shared by all workers, under a lock.

use super::sid::{Servers, Sid, Wanted};
use crate::nginx::ffi;
use nginx_sys as sys;

type Peers = *mut sys::ngx_http_upstream_rr_peers_t;
type Peer = *mut sys::ngx_http_upstream_rr_peer_t;
/// A request's state in round robin.
pub type State = sys::ngx_http_upstream_rr_peer_data_t;

/// How many servers a request may try in all.
pub struct Tries {
    /// So many has the upstream that serve everybody, and bound ones that drain.
    servers: sys::ngx_uint_t,
    /// `proxy_next_upstream_tries` and its like; 0: without a bound.
    limit: sys::ngx_uint_t,
}

impl Tries {
    /// For a request that hasn't tried any.
    ///
    /// # Safety
    /// The request's upstream is live, and the method's `init` was called for it.
    pub unsafe fn new(upstream: *const sys::ngx_http_upstream_t) -> Tries {
        // SAFETY: the caller's promise; its configuration outlives the request.
        unsafe {
            let limit = (*upstream).conf.as_ref().map_or(0, |conf| conf.next_upstream_tries);
            Tries { servers: (*upstream).peer.tries, limit }
        }
    }

    /// How many more there are with one that nginx hasn't counted: 1, or 0 beyond the bound.
    fn one_more(&mut self) -> sys::ngx_uint_t {
        let is_free = self.limit == 0 || self.servers < self.limit;
        self.servers += sys::ngx_uint_t::from(is_free);
        is_free.into()
    }
}

/// Whether a request's state begins with [`State`].
///
/// # Safety
/// `pc` is live, and a method's `init` was called for it.
pub unsafe fn is_round_robin(pc: *const sys::ngx_peer_connection_t) -> bool {
    type Free = unsafe extern "C" fn(*mut sys::ngx_peer_connection_t, *mut std::ffi::c_void, sys::ngx_uint_t);
    let known: Free = sys::ngx_http_upstream_free_round_robin_peer;
    // SAFETY: the caller's promise.
    unsafe { (*pc).free }.is_some_and(|free| std::ptr::fn_addr_eq(free, known))
}

/// The name of the server that a request has now.
///
/// # Safety
/// `state` is live, and the request has a server or none.
pub unsafe fn current(state: *const State, servers: &Servers) -> Option<Sid> {
    // SAFETY: the caller's promise; a server isn't freed while a request has it, and its texts never change.
    unsafe {
        let peer = (*state).current.as_ref()?;
        Some(servers.sid(ffi::bytes(peer.name), line_of(peer)))
    }
}

/// Takes the server of this name for a request, if it may have it. A server among the backup ones is taken when none of
/// the others is to be had, as the methods do it; the request's list is that of the backup servers from then on.
///
/// # Safety
/// `pc` and `state` are those of one request, which has no server now.
pub unsafe fn take(
    pc: *mut sys::ngx_peer_connection_t,
    state: *mut State,
    servers: &Servers,
    sid: &Sid,
    tries: &mut Tries,
) -> bool {
    let wanted = servers.wanted(sid);
    // SAFETY: the caller's promise; lists live as long as the configuration, and their servers are looked at under the lock.
    unsafe {
        let first = (*state).peers;
        let others = {
            let list = Locked::new(first, servers);
            if list.is_outdated(state) {
                return false;
            }
            if let Some(chosen) = list.find(&wanted, |place| is_tried(state, place)) {
                take_peer(pc, state, servers, chosen, tries);
                return true;
            }
            if list.any_usable(|place| is_tried(state, place)) { None } else { Some((*first).next) }
        };
        let Some(backup) = others.filter(|backup| !backup.is_null()) else { return false };
        let list = Locked::new(backup, servers);
        // It may have grown since it was seen how many bits are needed.
        if list.is_outdated(state) {
            return false;
        }
        let Some(chosen) = list.find(&wanted, |_| false) else { return false };
        let words = (*backup).number.div_ceil(usize::BITS as usize);
        (*state).tried.write_bytes(0, words);
        (*state).peers = backup;
        take_peer(pc, state, servers, chosen, tries);
        true
    }
}

/// Does what round robin does when it has chosen.
///
/// # Safety
/// As for [`take`]; the list is locked, and the server is in it at that place.
unsafe fn take_peer(
    pc: *mut sys::ngx_peer_connection_t,
    state: *mut State,
    servers: &Servers,
    (place, peer): (usize, Peer),
    tries: &mut Tries,
) {
    // SAFETY: the caller's promise; there is a bit for each server of the list.
    unsafe {
        let now = now();
        (*pc).set_cached(0);
        (*pc).connection = std::ptr::null_mut();
        (*pc).sockaddr = (*peer).sockaddr;
        (*pc).socklen = (*peer).socklen;
        (*pc).name = &raw mut (*peer).name;
        if (*peer).down != 0 && servers.is_draining(line_of(&*peer)) {
            // nginx doesn't count it among the tries that a request has.
            (*pc).tries += tries.one_more();
        }
        (*state).current = peer;
        *(*state).tried.add(place / usize::BITS as usize) |= 1 << (place % usize::BITS as usize);
        (*peer).conns += 1;
        #[cfg(all(nginx_1_27_3, ngx_feature = "http_upstream_zone"))]
        {
            (*peer).refs += 1;
        }
        if now - (*peer).checked > (*peer).fail_timeout {
            (*peer).checked = now;
        }
    }
}

/// The text of the `server` line that a server comes from. One that was resolved for a `service` has that record's name.
///
/// # Safety
/// The server is live.
unsafe fn line_of(peer: &sys::ngx_http_upstream_rr_peer_t) -> &[u8] {
    // SAFETY: the caller's promise; what a server was resolved for outlives it, with the line's text.
    unsafe {
        #[cfg(all(nginx_1_27_3, ngx_feature = "http_upstream_zone"))]
        if let Some(line) = peer.host.as_ref().and_then(|host| host.peer.as_ref()) {
            return ffi::bytes(line.server);
        }
        ffi::bytes(peer.server)
    }
}

unsafe fn is_tried(state: *const State, place: usize) -> bool {
    // SAFETY: the caller hands over a live state, which has a bit for each server of its list.
    unsafe { *(*state).tried.add(place / usize::BITS as usize) & 1 << (place % usize::BITS as usize) != 0 }
}

/// A list, locked for writing if it is shared.
struct Locked<'a> {
    peers: Peers,
    servers: &'a Servers,
}

impl<'a> Locked<'a> {
    /// # Safety
    /// The list outlives the result, and this process hasn't locked it.
    unsafe fn new(peers: Peers, servers: &'a Servers) -> Locked<'a> {
        #[cfg(ngx_feature = "http_upstream_zone")]
        // SAFETY: the caller's promise.
        unsafe {
            if !(*peers).shpool.is_null() {
                sys::ngx_rwlock_wlock(&raw mut (*peers).rwlock);
            }
        }
        Locked { peers, servers }
    }

    /// Whether servers came or went since the request began: the method says what becomes of it.
    ///
    /// # Safety
    /// `state` is live.
    unsafe fn is_outdated(&self, state: *const State) -> bool {
        #[cfg(all(nginx_1_27_3, ngx_feature = "http_upstream_zone"))]
        // SAFETY: the list is live and locked, the state the caller's.
        return unsafe { (*self.peers).config.as_ref().is_some_and(|config| *config != (*state).config) };
        #[cfg(not(all(nginx_1_27_3, ngx_feature = "http_upstream_zone")))]
        {
            let _ = state;
            false
        }
    }

    /// The servers, with their places.
    fn each(&self) -> impl Iterator<Item = (usize, &sys::ngx_http_upstream_rr_peer_t)> {
        // SAFETY: a live list, which doesn't change while it is locked.
        let first = unsafe { (*self.peers).peer.as_ref() };
        // SAFETY: as above.
        std::iter::successors(first, |peer| unsafe { peer.next.as_ref() }).enumerate()
    }

    /// The first server of a name that takes a request, and its place in the list.
    fn find(&self, wanted: &Wanted<'_>, is_tried: impl Fn(usize) -> bool) -> Option<(usize, Peer)> {
        let (place, peer) = self.each().find(|(place, peer)| {
            // SAFETY: texts of a live server, which never change.
            let (address, line) = unsafe { (ffi::bytes(peer.name), line_of(peer)) };
            wanted.is(address, line) && !is_tried(*place) && self.may_serve(peer, self.servers.is_draining(line))
        })?;
        Some((place, std::ptr::from_ref(peer).cast_mut()))
    }

    /// Whether any takes a request of nobody.
    fn any_usable(&self, is_tried: impl Fn(usize) -> bool) -> bool {
        self.each().any(|(place, peer)| !is_tried(place) && self.may_serve(peer, false))
    }

    /// As round robin decides it, but that one that drains may serve those that are bound to it.
    fn may_serve(&self, peer: &sys::ngx_http_upstream_rr_peer_t, drains: bool) -> bool {
        // SAFETY: a live list.
        let is_single = unsafe { (*self.peers).single() } != 0;
        let has_room = peer.max_conns == 0 || peer.conns < peer.max_conns;
        let failed = peer.max_fails != 0 && peer.fails >= peer.max_fails && now() - peer.checked <= peer.fail_timeout;
        // A single one is never given up for its failures.
        (peer.down == 0 || drains) && (is_single || !failed) && has_room
    }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        #[cfg(ngx_feature = "http_upstream_zone")]
        // SAFETY: locked by `new`, and live.
        unsafe {
            if !(*self.peers).shpool.is_null() {
                sys::ngx_rwlock_unlock(&raw mut (*self.peers).rwlock);
            }
        }
    }
}

/// The time of this turn of the event loop, in seconds.
fn now() -> sys::time_t {
    sys::ngx_timeofday().sec
}
