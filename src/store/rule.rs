//! Rules that the simulator breaks, one at a time, to see that it would notice.
//!
//! One rule isn't among them: that nobody vouches for what a node wrote whose memory was made anew. What such a node has
//! acknowledged binds nobody in the simulator's eyes, so it doesn't miss what others take away for that.
//!
//! In a release all rules hold, and nothing of this is left in the code.

macro_rules! rules {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What holds unless somebody breaks it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Rule {
            $($(#[$doc])* $name),*
        }

        impl Rule {
            /// All of them.
            pub const ALL: &[Rule] = &[$(Rule::$name),*];
        }
    };
}

rules! {
    /// What was left out for want of room isn't held for past.
    LeftOut,
    /// Nor what this node wrote, if it has had other memory.
    Born,
    /// What a node wrote whose memory was made anew isn't held for past.
    Anew,
    /// What won over something that may come again is kept while that may come.
    Unsettled,
    /// What is missing for want of room is shown.
    Shown,
    /// What was left out counts as missing until comparing has brought it.
    MadeUp,
    /// When that has brought it, nothing is missing any more.
    Complete,
    /// What was given up for others before it was sent is told of with the position that covers it.
    GivenUp,
    /// One session at a time takes the full state.
    OneDonor,
    /// Who has the state of one node asks others only for what that doesn't cover.
    Filtered,
    /// A session that ends gives its walkers back.
    Walkers,
    /// What a peer says of an origin takes the place of what it said before.
    OneEntry,
    /// No more frames are made than the caller asks for.
    Budget,
    /// Of two versions of a key the later one stays.
    Later,
    /// What is too far ahead of this node's clock isn't taken.
    Ahead,
    /// When a clock is mended, what it had stamped of the future is stamped anew.
    Renewed,
    /// What a memory has added itself it knows best.
    Owner,
    /// What isn't counted any more and is taken away for that leaves no later stamp than its own.
    NotLater,
    /// What ends in a zone that is shared leaves a tombstone.
    Ended,
    /// What may still be on its way isn't compared, nor what is about to end.
    Young,
    /// Who takes a bucket with what third nodes have admitted knows that it did.
    Taken,
}

#[cfg(for_tests)]
mod breaking {
    use super::Rule;
    use std::cell::Cell;

    thread_local! {
        static BROKEN: Cell<Option<Rule>> = const { Cell::new(None) };
    }

    impl Rule {
        /// Breaks this rule in what the calling thread does from now on, or none any more. `false`: this build breaks none.
        pub fn break_only(rule: Option<Rule>) -> bool {
            BROKEN.set(rule);
            true
        }

        /// Whether it isn't broken.
        pub(crate) fn holds(self) -> bool {
            BROKEN.get() != Some(self)
        }
    }
}

#[cfg(not(for_tests))]
impl Rule {
    /// Would break this rule; this build breaks none.
    pub const fn break_only(_: Option<Rule>) -> bool {
        false
    }

    #[inline(always)]
    pub(crate) const fn holds(self) -> bool {
        true
    }
}
