//! One outbound connection: moves bytes between the socket and a [`Push`].
//!
//! It is one hand-written poll instead of several futures, because reading, writing, marks and time all work on the
//! same state, and because an update should leave in the very poll that learns of it.

use super::hub::Hub;
use super::link::Link;
use super::now;
use crate::record::{Millis, Stamp};
use crate::store::control::Counter;
use crate::store::{Pulse, Traffic};
use crate::sync::{Node, NoteLevel, Pong, Push, SessionError};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

/// What a session runs over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// Why a session is over.
pub(super) enum End {
    /// The node ends.
    Told,
    /// The peer is this node.
    Itself,
    /// The peer is the node that the session beside this one has.
    Twin,
    /// Anything else.
    Lost {
        /// The peer had said who it is.
        greeted: bool,
        /// It said why there is no session.
        answered: bool,
        level: NoteLevel,
        why: String,
    },
}

/// Bytes of frames asked for at once; frames are made as the socket takes them.
const FILL: usize = 64 * 1024;
/// Bytes read at once.
const READ: usize = 16 * 1024;
/// Turns of one poll: then the other sessions have theirs.
const TURNS: usize = 16;
/// The session looks up at a beat after this at the latest: its deadlines are those of a clock that may be set.
const LONGEST_NAP: Duration = Duration::from_millis(500);
/// More than any deadline is away.
const DAY: Millis = 86_400_000;
/// Between two counts of what waits, as long as something passes; the last one is at a beat.
const COUNT_EVERY: Duration = Duration::from_millis(100);
/// Pings among which the quickest is believed.
const PULSES: usize = 12;
/// For a goodbye after an error.
const GOODBYE: Duration = Duration::from_millis(100);

pub(super) struct Session<'a> {
    hub: &'a Hub,
    link: &'a Link,
    /// The peer, for the log.
    label: String,
    push: Push,
    stream: Box<dyn Stream>,
    input: Box<[u8]>,
    output: Vec<u8>,
    /// How much of `output` is sent.
    sent: usize,
    /// Bytes were given to `stream` that it may still hold.
    unflushed: bool,
    timer: Pin<Box<Sleep>>,
    counted: Instant,
    uncounted: bool,
    /// Messages received and sent, of those that were counted.
    messages: (u64, u64),
    /// When the oldest ping was sent that wasn't answered.
    pinged: Option<Instant>,
    /// Of the last pings: how long each took, and how far ahead the peer's clock seemed.
    pulses: VecDeque<(Duration, i64)>,
    closed: bool,
}

impl<'a> Session<'a> {
    pub(super) fn new(hub: &'a Hub, link: &'a Link, label: String, node: Node, stream: Box<dyn Stream>) -> Session<'a> {
        Session {
            hub,
            link,
            label,
            push: Push::new(node, hub.lease.number, now()),
            stream,
            input: vec![0; READ].into_boxed_slice(),
            output: Vec::new(),
            sent: 0,
            unflushed: false,
            timer: Box::pin(sleep_until(Instant::now())),
            counted: Instant::now(),
            uncounted: true,
            messages: (0, 0),
            pinged: None,
            pulses: VecDeque::new(),
            closed: false,
        }
    }

    /// Until its end. `tell` is called with what is worth a line about the peer.
    pub(super) async fn run(mut self, tell: &mut dyn FnMut(String)) -> End {
        let stop = poll_fn(|cx| self.poll(cx, tell)).await;
        // What this node ends itself is no failure of the peer.
        let greeted = self.push.peer().is_some() || matches!(stop, Stop::Session(SessionError::Renewed));
        let answered = matches!(stop, Stop::Session(SessionError::Bye(_)));
        let bye = match &stop {
            Stop::Told(why) => (*why).into(),
            Stop::Twin => "another session leads to this node".into(),
            Stop::Session(error) => error.to_string(),
            Stop::Io(..) | Stop::Closed => String::new(),
        };
        if self.hub.holds() {
            self.close(&bye);
            if !bye.is_empty() {
                let _ = timeout(GOODBYE, poll_fn(|cx| self.poll_goodbye(cx))).await;
            }
        }
        let (level, why) = match stop {
            Stop::Told(_) => return End::Told,
            Stop::Twin => return End::Twin,
            Stop::Session(SessionError::Itself) => return End::Itself,
            Stop::Session(error @ (SessionError::Bye(_) | SessionError::Renewed)) => {
                (NoteLevel::Notice, error.to_string())
            }
            Stop::Session(error @ SessionError::Silent(_)) => (NoteLevel::Warn, error.to_string()),
            Stop::Session(error) => (NoteLevel::Error, error.to_string()),
            Stop::Closed => (NoteLevel::Notice, "the peer closed the connection".into()),
            Stop::Io(what, error) => (NoteLevel::Warn, super::tls::explain_io(what, &error)),
        };
        End::Lost { greeted, answered, level, why }
    }

    fn poll(&mut self, cx: &mut Context<'_>, tell: &mut dyn FnMut(String)) -> Poll<Stop> {
        self.link.listen(cx.waker());
        for _ in 0..TURNS {
            match self.turn(cx, tell) {
                Ok(true) => {}
                Ok(false) => return self.rest(cx),
                Err(stop) => return Poll::Ready(stop),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Does what can be done now; `false`: there was nothing.
    fn turn(&mut self, cx: &mut Context<'_>, tell: &mut dyn FnMut(String)) -> Result<bool, Stop> {
        if self.hub.ending() {
            return Err(Stop::Told("it reloads or quits"));
        }
        if self.link.is_twin(self.push.peer()) {
            return Err(Stop::Twin);
        }
        if self.link.removed.get() {
            return Err(Stop::Told("the name that led here leads elsewhere now"));
        }
        let now = now();
        // What has changed leaves first, and what has come is read in the next turn.
        let changed = self.link.take_marks(|zone, shards| self.push.mark(zone, shards));
        let read = !changed && self.read(cx, now, tell)?;
        // A thread that slept meanwhile may find that another one acts: zones and peers are that one's.
        if !self.hub.holds() {
            return Err(Stop::Told("another helper thread acts"));
        }
        if !changed && self.push.is_due(now) {
            self.push.tick(now)?;
        }
        let wrote = self.write(cx, now)?;
        for note in self.push.notes() {
            self.hub.log.line(note.level, format!("zone_sync peer {}: {}", self.label, note.text));
        }
        Ok(changed || read || wrote)
    }

    fn read(&mut self, cx: &mut Context<'_>, now: Millis, tell: &mut dyn FnMut(String)) -> Result<bool, Stop> {
        let mut buffer = ReadBuf::new(&mut self.input);
        match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
            Poll::Pending => return Ok(false),
            // Over TLS, a connection that was closed without the words that TLS has for it.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(Stop::Closed),
            Poll::Ready(Err(error)) => return Err(Stop::Io("recv()", error)),
            Poll::Ready(Ok(())) => {}
        }
        if buffer.filled().is_empty() {
            return Err(Stop::Closed);
        }
        let len = buffer.filled().len() as u64;
        self.hub.control.count(Counter::BytesIn, len);
        self.link.count(&Traffic { bytes_in: len, ..Traffic::default() });
        self.uncounted = true;
        let greeted = self.push.peer().is_some();
        self.push.handle(buffer.filled(), now)?;
        if self.link.is_twin(self.push.peer()) {
            return Err(Stop::Twin);
        }
        if let Some(pong) = self.push.pong() {
            self.answered(&pong, now);
        }
        if let Some(peer) = self.push.peer().filter(|_| !greeted) {
            self.link.unreachable.set(false);
            self.link.peer.set(Some(peer));
            self.hub.count_online();
            self.hub.show(self.link);
            tell(format!("connected to node {peer}"));
        }
        Ok(true)
    }

    /// A ping was answered: how long that took, what the peer's clock says, and whether it is alone at its address.
    fn answered(&mut self, pong: &Pong, now: Millis) {
        if let Some(pinged) = self.pinged.take() {
            let took = pinged.elapsed();
            let half = (took / 2).as_millis() as Millis;
            self.link.clock.set(Some((pong.clock.saturating_add(half), std::time::Instant::now())));
            let then = now.saturating_sub(half);
            let ahead = pong.clock.cast_signed().saturating_sub(then.cast_signed());
            self.pulses.truncate(PULSES - 1);
            self.pulses.push_front((took, ahead));
            // Of a ping that waited behind other bytes nobody knows on which way; the quickest tells the clock best.
            let ahead = self.pulses.iter().min().map_or(ahead, |(_, ahead)| *ahead);
            self.link.measured(Pulse { round_trip: took.as_micros() as u64, ahead });
        }
        if self.link.shared.replace(pong.shared) != pong.shared {
            self.hub.announce();
        }
    }

    fn write(&mut self, cx: &mut Context<'_>, now: Millis) -> Result<bool, Stop> {
        let waiting = self.output.len() - self.sent;
        if waiting < FILL {
            self.output.drain(..self.sent);
            self.sent = 0;
            self.push.fill(&mut self.output, FILL, now)?;
            if self.push.pinged() {
                self.pinged.get_or_insert_with(Instant::now);
            }
        }
        let wrote = match self.poll_output(cx) {
            Poll::Ready(Ok(wrote)) => wrote,
            Poll::Ready(Err(error)) => return Err(Stop::Io("send()", error)),
            Poll::Pending => return Ok(false),
        };
        self.uncounted |= wrote;
        Ok(wrote)
    }

    /// Gives all of `output` to the stream, and makes it pass all on. `true`: there was some.
    fn poll_output(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut wrote = false;
        while let Some(rest) = self.output.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.hub.control.count(Counter::BytesOut, written as u64);
            self.link.count(&Traffic { bytes_out: written as u64, ..Traffic::default() });
            self.sent += written;
            self.unflushed = true;
            wrote = true;
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(wrote))
    }

    /// There is nothing to do now: says how far this peer is, and sleeps until the next deadline.
    fn rest(&mut self, cx: &mut Context<'_>) -> Poll<Stop> {
        let flushed = self.sent == self.output.len() && self.push.peer().is_some() && self.push.flushed();
        self.link.left_out.replace(self.push.left_out().collect());
        if self.link.flushed.replace(flushed) != flushed {
            self.uncounted = true;
            if self.hub.finishing() {
                self.hub.announce();
            }
        }
        let (at, rest) = (Instant::now(), self.hub.rest);
        let due = at + Duration::from_millis(self.push.deadline().saturating_sub(now()).min(DAY));
        let mut until = rest.slot_after(due.into_std()).min(rest.beat_after((at + LONGEST_NAP).into_std()));
        if self.uncounted {
            let due = self.counted + COUNT_EVERY;
            if due <= at {
                self.count();
            } else {
                until = until.min(rest.beat_after(due.into_std()));
            }
        }
        let until = Instant::from_std(until);
        self.timer.as_mut().reset(until);
        if self.timer.as_mut().poll(cx).is_ready() {
            // It is due already: the next poll follows at once.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    fn count(&mut self) {
        self.hub.set_waiting(self.link, |zone| self.push.pending(zone));
        self.link.confirmed(|zone| self.push.unconfirmed(zone).map(Stamp::millis));
        let (before, messages) = (self.messages, self.push.messages());
        self.messages = messages;
        let (msgs_in, msgs_out) = (messages.0 - before.0, messages.1 - before.1);
        self.link.count(&Traffic { msgs_in, msgs_out, ..Traffic::default() });
        self.hub.show(self.link);
        self.counted = Instant::now();
        self.uncounted = false;
    }

    fn poll_goodbye(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_output(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn close(&mut self, why: &str) {
        if !std::mem::replace(&mut self.closed, true) {
            self.push.close(&mut self.output, why);
        }
    }
}

/// A session that is cut off gives its walkers back too, as long as they can be its own.
impl Drop for Session<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() && self.hub.holds() {
            self.close("");
        }
    }
}

enum Stop {
    /// And what the peer is told.
    Told(&'static str),
    Twin,
    Session(SessionError),
    Closed,
    Io(&'static str, io::Error),
}

impl From<SessionError> for Stop {
    fn from(error: SessionError) -> Stop {
        Stop::Session(error)
    }
}
