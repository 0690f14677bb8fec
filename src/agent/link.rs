//! One peer, as the tasks of the thread see it: what its session tells the others, and what they leave for it.

use super::now;
use super::waiting::Waiting;
use crate::record::{Identity, Millis};
use crate::store::{Certificate, LinkFigures, LinkState, Pulse, ShardMask, Traffic};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::Waker;
use std::time::Instant;

/// What becomes of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Being dialled, or waiting for the next try.
    Dialling,
    /// There is a session.
    Connected,
    /// This node itself.
    Over,
}

/// One peer, as the others see it.
pub(super) struct Link {
    /// Where it is shown.
    pub(super) slot: usize,
    figures: RefCell<LinkFigures>,
    /// The session to the same address beside which this one looks for another node.
    pub(super) beside: Option<Rc<Link>>,
    pub(super) state: Cell<State>,
    /// It isn't to be dialled any more.
    pub(super) removed: Cell<bool>,
    /// The last try failed.
    pub(super) unreachable: Cell<bool>,
    /// The session has sent everything, and it was acknowledged.
    pub(super) flushed: Cell<bool>,
    /// The zones in which it had no room for some of what this node wrote.
    pub(super) left_out: RefCell<Vec<usize>>,
    /// Who it is, while connected.
    pub(super) peer: Cell<Option<Identity>>,
    /// What its clock said, and when that came: of use also when this node's own clock is set.
    pub(super) clock: Cell<Option<(Millis, Instant)>>,
    /// The address is this node's own.
    pub(super) own: Cell<bool>,
    /// The peer says that another node listens on the same address.
    pub(super) shared: Cell<bool>,
    pub(super) waiting: Waiting,
    /// When the oldest change of each zone was made that it hasn't confirmed.
    behind: Box<[Cell<Option<Millis>>]>,
    /// It is shown to lack something.
    lacks: Cell<bool>,
    marks: Box<[Cell<ShardMask>]>,
    marked: Cell<bool>,
    waker: Cell<Option<Waker>>,
}

impl Link {
    /// `behind`: until the peer says so, it may lack what is older than this.
    pub(super) fn new(
        figures: LinkFigures,
        slot: usize,
        zones: usize,
        behind: Millis,
        beside: Option<Rc<Link>>,
    ) -> Link {
        // A second node at an address isn't waited for.
        let state = if beside.is_some() { State::Over } else { State::Dialling };
        Link {
            slot,
            figures: RefCell::new(figures),
            beside,
            state: Cell::new(state),
            removed: Cell::new(false),
            clock: Cell::new(None),
            unreachable: Cell::new(false),
            flushed: Cell::new(false),
            left_out: RefCell::default(),
            peer: Cell::new(None),
            own: Cell::new(false),
            shared: Cell::new(false),
            waiting: Waiting::new(zones),
            behind: (0..zones).map(|_| Cell::new(Some(behind))).collect(),
            lacks: Cell::new(false),
            marks: (0..zones).map(|_| Cell::new(0)).collect(),
            marked: Cell::new(false),
            waker: Cell::new(None),
        }
    }

    /// As the log has it.
    pub(super) fn label(&self) -> String {
        self.figures.borrow().label()
    }

    /// Another node ought to be there, and isn't connected.
    pub(super) fn is_missed(&self) -> bool {
        self.peer.get().is_none() && self.state.get() != State::Over && self.beside.is_none() && !self.own.get()
    }

    /// As it is shown.
    pub(super) fn figures(&self) -> LinkFigures {
        let mut figures = self.figures.borrow_mut();
        let state = match (self.state.get(), self.peer.get()) {
            (_, Some(_)) => LinkState::Connected,
            (State::Over, None) => LinkState::Itself,
            (_, None) if self.unreachable.get() => LinkState::Unreachable,
            (_, None) => LinkState::Connecting,
        };
        if figures.since == 0 || (figures.state, figures.node) != (state, self.peer.get()) {
            figures.since = now();
        }
        (figures.state, figures.node) = (state, self.peer.get());
        figures.pending = self.waiting.sum();
        figures.behind = self.behind.iter().filter_map(Cell::get).min().filter(|_| state != LinkState::Itself);
        self.lacks.set(figures.behind.is_some());
        figures.clone()
    }

    /// What went wrong.
    pub(super) fn failed(&self, why: &str) {
        self.figures.borrow_mut().error = Some((why.to_owned(), now()));
    }

    /// The peer has shown this certificate, or none.
    pub(super) fn shown(&self, certificate: Option<Certificate>) {
        self.figures.borrow_mut().certificate = certificate;
    }

    /// A ping was answered.
    pub(super) fn measured(&self, pulse: Pulse) {
        self.figures.borrow_mut().pulse = Some(pulse);
    }

    /// Something passed.
    pub(super) fn count(&self, passed: &Traffic) {
        let mut figures = self.figures.borrow_mut();
        let Traffic { bytes_in, bytes_out, msgs_in, msgs_out } = figures.traffic;
        figures.traffic = Traffic {
            bytes_in: bytes_in.saturating_add(passed.bytes_in),
            bytes_out: bytes_out.saturating_add(passed.bytes_out),
            msgs_in: msgs_in.saturating_add(passed.msgs_in),
            msgs_out: msgs_out.saturating_add(passed.msgs_out),
        };
    }

    /// Up to where the peer has confirmed each zone; `None`: all of it.
    pub(super) fn confirmed(&self, until: impl Fn(usize) -> Option<Millis>) {
        for (zone, behind) in self.behind.iter().enumerate() {
            behind.set(behind.get().and_then(|since| Some(since.max(until(zone)?))));
        }
    }

    /// Whether it isn't to be dialled any more. Who looks for a second node looks as long as the first says that there is
    /// one, and is done when what it had found is gone too.
    pub(super) fn is_over(&self) -> bool {
        let beside = |beside: &Rc<Link>| beside.removed.get() || (!beside.wants_second() && self.peer.get().is_none());
        self.removed.get() || self.beside.as_ref().is_some_and(beside)
    }

    /// Whether to look for a second node at the address. At this node's own there are none but itself and the one that is
    /// connected.
    pub(super) fn wants_second(&self) -> bool {
        self.shared.get() && !self.own.get()
    }

    /// Whether this one and that beside it lead to one node.
    pub(super) fn is_twin(&self, peer: Option<Identity>) -> bool {
        peer.is_some() && self.beside.as_ref().is_some_and(|beside| beside.peer.get() == peer)
    }

    /// A session begins; what changed before it is none of its business, as it begins with the whole feed.
    pub(super) fn open(&self) {
        self.state.set(State::Connected);
        self.flushed.set(false);
        self.take_marks(|_, _| {});
    }

    /// The session is over.
    pub(super) fn close(&self, state: State) {
        self.state.set(state);
        self.peer.set(None);
        self.shared.set(false);
        self.clock.set(None);
        self.left_out.take();
        self.figures.borrow_mut().pulse = None;
        self.waker.set(None);
    }

    /// Hands each zone's changed shards to `each`, once; `false`: there are none.
    pub(super) fn take_marks(&self, mut each: impl FnMut(usize, ShardMask)) -> bool {
        if !self.marked.replace(false) {
            return false;
        }
        for (index, mark) in self.marks.iter().enumerate() {
            let shards = mark.take();
            if shards != 0 {
                each(index, shards);
            }
        }
        true
    }

    /// The session that polls is to be woken through `waker`.
    pub(super) fn listen(&self, waker: &Waker) {
        self.waker.set(Some(waker.clone()));
    }

    /// Shards of a zone have changed. `true`: a peer that isn't connected lacks something, and lacked nothing before.
    pub(super) fn mark(&self, zone: usize, shards: ShardMask) -> bool {
        if let Some(behind) = self.behind.get(zone) {
            behind.set(behind.get().or_else(|| Some(now())));
        }
        if self.state.get() != State::Connected {
            return !self.lacks.replace(true);
        }
        if let Some(mark) = self.marks.get(zone) {
            mark.set(mark.get() | shards);
            self.marked.set(true);
            self.flushed.set(false);
        }
        false
    }

    pub(super) fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}
