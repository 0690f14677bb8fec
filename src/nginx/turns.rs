//! Long work takes turns: in one turn of the event loop all that this module has under way, requests and sessions together,
//! goes on for about [`TURN`]. Each that waits has a [`Place`] in one queue, gets a [`SLICE`] of time when it is its turn,
//! and goes to the end of the queue if it wants more. What is short in itself, but may come in crowds, has a queue of its own.

use super::ffi::guard;
use nginx_sys as sys;
use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::ptr;
use std::thread::LocalKey;
use std::time::{Duration, Instant};

/// For all of them, in one turn of the event loop. A request of HTTP takes some turns: each may be as much longer.
const TURN: Duration = Duration::from_millis(1);
/// The same for what is short. A hundred peers that go at once take longer than a client of HTTP should wait.
pub const SHORT_TURN: Duration = Duration::from_micros(250);
/// For one of them at a time: it looks at the clock itself.
pub const SLICE: Duration = Duration::from_micros(500);

/// What is called when it is something's turn.
pub type Run = unsafe fn(*mut c_void);

/// A place in the queue, taken or not. It stays where it is while it is taken.
#[repr(C)]
pub struct Place {
    // The first field: a pointer to it is one to the whole.
    link: sys::ngx_queue_t,
    run: Option<(Run, *mut c_void)>,
}

/// Which queue.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Goes on for a [`SLICE`] at a time.
    Long,
    /// Is done in some microseconds.
    Short,
}

#[repr(C)]
struct Queue {
    // The first field: a pointer to it is one to the whole.
    event: sys::ngx_event_t,
    /// A ring through the places; null: never used.
    head: sys::ngx_queue_t,
}

impl Queue {
    const fn new() -> Queue {
        // SAFETY: all of it are structures of C for which all zeroes is the value that nginx itself begins with.
        unsafe { std::mem::zeroed() }
    }
}

thread_local! {
    static LONG: UnsafeCell<Queue> = const { UnsafeCell::new(Queue::new()) };
    static SHORT: UnsafeCell<Queue> = const { UnsafeCell::new(Queue::new()) };
}

impl Work {
    const fn queue(self) -> &'static LocalKey<UnsafeCell<Queue>> {
        match self {
            Work::Long => &LONG,
            Work::Short => &SHORT,
        }
    }
}

impl Place {
    /// One that isn't taken.
    pub const fn new() -> Place {
        Place { link: sys::ngx_queue_t { prev: ptr::null_mut(), next: ptr::null_mut() }, run: None }
    }

    /// Queues up to have `run` called with `of_whom`, in the next turn at the earliest. If it waits already, it goes on
    /// waiting.
    ///
    /// # Safety
    /// In the thread of the event loop, with a pointer that is good as long as the place is taken.
    pub unsafe fn take(&mut self, work: Work, run: Run, of_whom: *mut c_void) {
        if self.run.is_some() {
            return;
        }
        self.run = Some((run, of_whom));
        work.queue().with(|queue| {
            let queue = queue.get();
            // SAFETY: only this thread has this queue, and no reference to it outlives a statement. The links are those of
            // the head and of places that are taken, which stay where they are.
            unsafe {
                let head = &raw mut (*queue).head;
                if (*head).next.is_null() {
                    ((*head).prev, (*head).next) = (head, head);
                }
                let last = (*head).prev;
                (self.link.prev, self.link.next) = (last, head);
                (*last).next = &raw mut self.link;
                (*head).prev = &raw mut self.link;
                wake(queue);
            }
        });
    }

    /// Gives the place up.
    pub fn leave(&mut self) {
        if self.run.take().is_some() {
            // SAFETY: it is taken, so its neighbours in the ring are the head or places that are taken.
            unsafe {
                (*self.link.prev).next = self.link.next;
                (*self.link.next).prev = self.link.prev;
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.leave();
    }
}

/// Lets nginx call in its next turn, once.
///
/// # Safety
/// The queue of this thread, which is that of the event loop.
unsafe fn wake(queue: *mut Queue) {
    // SAFETY: the event lives as long as the thread.
    unsafe {
        let event = &raw mut (*queue).event;
        (*event).handler = Some(turn);
        (*event).log = (*sys::ngx_cycle).log;
        sys::ngx_post_event(event, &raw mut sys::ngx_posted_next_events);
    }
}

/// The turn of those that wait.
unsafe extern "C" fn turn(event: *mut sys::ngx_event_t) {
    let (began, queue) = (Instant::now(), event.cast::<Queue>());
    let most = if SHORT.with(|short| ptr::eq(queue, short.get())) { SHORT_TURN } else { TURN };
    // SAFETY: the event is the first field of one of this thread's queues; otherwise as in `take`. Who is called may take and
    // leave places, its own too, and free it: so the place is left before.
    unsafe {
        let head = &raw mut (*queue).head;
        while (*head).next != head && began.elapsed() < most {
            let place = (*head).next.cast::<Place>();
            let run = (*place).run;
            (*place).leave();
            if let Some((run, of_whom)) = run {
                guard("work that goes on", (), || run(of_whom));
            }
        }
        if (*head).next != head {
            wake(queue);
        }
    }
}
