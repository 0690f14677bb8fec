//! Who connects without TLS waits at the door until its turn: see [`Admission`]. Addresses of this node's own peers have a
//! door of their own, so that a flood from elsewhere doesn't keep them waiting. A TLS handshake costs more than the answer to
//! a hello, and asks for a certificate where one is wanted: who comes through that doesn't wait.

use super::session;
use crate::nginx::ffi;
use crate::nginx::log;
use crate::nginx::process::timer::Timer;
use crate::store::{Control, control::Counter};
use crate::sync::admission::{Admission, BURST, RATE, Source, Ticket};
use nginx_sys as sys;
use std::cell::RefCell;
use std::net::{IpAddr, SocketAddr};

/// Between two looks at which addresses this node dials, milliseconds.
const LOOK: u64 = 1_000;
/// Between two lines of the log about those who wait, milliseconds.
const SAY: u64 = 60_000;

thread_local! {
    /// That of the thread of the event loop.
    static DOORS: RefCell<Option<Doors>> = const { RefCell::new(None) };
}

struct Doors {
    peers: Door,
    others: Door,
    timer: Timer,
    /// Where this node dials, sorted, and when that was looked up.
    dialled: (Vec<IpAddr>, Option<u64>),
    /// Sessions that had to wait since the last line about that.
    waited: u64,
    said: Option<u64>,
}

type Door = Admission<*mut sys::ngx_connection_t>;

/// A session's place at the door, for as long as this lives.
pub struct Waiting {
    is_peer: bool,
    ticket: Ticket,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        // A process that ends may have no doors any more.
        let _ = DOORS.try_with(|doors| {
            if let Some(doors) = doors.borrow_mut().as_mut() {
                doors.door(self.is_peer).leave(self.ticket);
            }
        });
    }
}

/// Somebody has come, and spoken. `None`: it is answered now. Otherwise [`session::admit`] is called when it is its turn.
///
/// # Safety
/// In the thread of the event loop; `c` is the live connection of a session that holds what is returned until its end.
pub unsafe fn knock(c: *mut sys::ngx_connection_t, control: &Control) -> Option<Waiting> {
    // SAFETY: the address of a connection lives as long as that.
    let address = unsafe { ffi::ip_of((*c).sockaddr) }.map(|address| address.to_canonical());
    let now = monotonic();
    DOORS.with_borrow_mut(|doors| {
        // SAFETY: in the thread of the event loop.
        let doors = doors.get_or_insert_with(|| Doors::new(unsafe { Timer::new(open) }, now));
        let is_peer = address.is_some_and(|address| doors.dials(address, control, now));
        let ticket = doors.door(is_peer).ask(source(address), c, now)?;
        doors.set_timer();
        control.count(Counter::SessionsWaited, 1);
        doors.tell(now);
        Some(Waiting { is_peer, ticket })
    })
}

/// The process ends.
pub fn close() {
    DOORS.take();
}

/// Lets those in whose turn it is.
fn open() {
    let now = monotonic();
    let admitted = DOORS.with_borrow_mut(|doors| {
        let Some(doors) = doors else { return Vec::new() };
        let mut admitted: Vec<_> = std::iter::from_fn(|| doors.peers.next(now)).collect();
        admitted.extend(std::iter::from_fn(|| doors.others.next(now)));
        doors.set_timer();
        admitted
    });
    // SAFETY: who was there hadn't left, so its connection is live, also when others were admitted; this is the thread of the
    // event loop, and no session is at work.
    admitted.into_iter().for_each(|c| unsafe { session::admit(c) });
}

impl Doors {
    const fn new(timer: Timer, now: u64) -> Doors {
        Doors {
            peers: Admission::new(now),
            others: Admission::new(now),
            timer,
            dialled: (Vec::new(), None),
            waited: 0,
            said: None,
        }
    }

    const fn door(&mut self, is_peer: bool) -> &mut Door {
        if is_peer { &mut self.peers } else { &mut self.others }
    }

    /// Whether this node dials this address.
    fn dials(&mut self, address: IpAddr, control: &Control, now: u64) -> bool {
        let (dialled, looked) = &mut self.dialled;
        if looked.is_none_or(|at| now.saturating_sub(at) >= LOOK) {
            *looked = Some(now);
            let links = control.links().into_iter();
            *dialled =
                links.filter_map(|link| Some(link.address.parse::<SocketAddr>().ok()?.ip().to_canonical())).collect();
            dialled.sort_unstable();
        }
        dialled.binary_search(&address).is_ok()
    }

    fn set_timer(&self) {
        let pause = [self.peers.pause(), self.others.pause()].into_iter().flatten().min();
        if let Some(pause) = pause.filter(|_| !self.timer.is_set()) {
            self.timer.set(usize::try_from(pause.max(1)).unwrap_or(1));
        }
    }

    /// One more had to wait.
    fn tell(&mut self, now: u64) {
        self.waited += 1;
        if self.said.is_none_or(|at| now.saturating_sub(at) >= SAY) {
            self.said = Some(now);
            let waited = std::mem::take(&mut self.waited);
            log::cycle(
                log::WARN,
                format_args!(
                    "zone_sync: sessions begin faster than a cluster's would; beyond {BURST} at once they wait, and {RATE} a second \
                     of this worker are answered, by turns of their addresses ({waited} had to wait since the last such line): keep \
                     strangers off the port, with certificates, \"allow\" and \"deny\", \"limit_conn\" or a firewall"
                ),
            );
        }
    }
}

/// Who waits together: an address, or a network of IPv6 that one host can have all addresses of.
fn source(address: Option<IpAddr>) -> Source {
    match address {
        Some(IpAddr::V4(address)) => u64::from(address.to_bits()),
        Some(IpAddr::V6(address)) => (address.to_bits() >> 64) as u64,
        None => 0,
    }
}

/// A clock that isn't set, milliseconds.
fn monotonic() -> u64 {
    // SAFETY: a number that nginx sets in the thread of the event loop, which this is.
    unsafe { sys::ngx_current_msec as u64 }
}
