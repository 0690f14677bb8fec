//! Sessions share what one turn of the event loop has for what comes: however many there are, and whatever they send, others
//! have their turn within milliseconds. Who has more to receive queues up in [`crate::nginx::turns`].

use super::super::ffi;
use super::super::turns::SHORT_TURN;
use std::cell::Cell;
use std::time::{Duration, Instant};

/// What all sessions of a worker may use of a turn; what was begun is finished. Beginnings and ends count as well.
const SHARE: Duration = SHORT_TURN;

thread_local! {
    /// The time of nginx's clock, which stands still during a turn, and what was used of it.
    static USED: Cell<(u64, Duration)> = const { Cell::new((0, Duration::ZERO)) };
}

/// Runs `work`, unless the sessions' share of this turn is used up.
pub fn within<T>(work: impl FnOnce() -> T) -> Option<T> {
    let turn = ffi::now();
    let used = match USED.get() {
        (same, used) if same == turn => used,
        _ => Duration::ZERO,
    };
    if used >= SHARE {
        return None;
    }
    let began = Instant::now();
    let done = work();
    USED.set((turn, used + began.elapsed()));
    Some(done)
}
