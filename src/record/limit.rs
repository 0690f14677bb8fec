//! Limits of requests: a bucket as nginx's own `limit_req` keeps it, and what a node tells the others of its own.
//!
//! A bucket runs empty at the configured rate, and each request that is admitted adds one. nginx keeps the *excess*: what is
//! in it less the request that came last. Every node has a bucket for each key, into which it puts what it admits itself
//! and what it hears that others have admitted: so each drains the sum, and none asks another. What a node tells is how
//! many it has admitted in all, and its bucket: said twice, or late, or in another order, it adds the same.
//!
//! One rule says what hearing of another's share does ([`Share::hearing`]). What is certainly new, and was admitted so
//! lately that none of it has run out, is added. Where nobody can know that, as when a node has lost its own count or was
//! cut off, all that is sure is that the key's one bucket isn't emptier than either of the two: the fuller one counts. So
//! doubt never makes a bucket fuller than it would be had all requests come to one node.
//!
//! Who takes another's bucket as a whole, to begin with it or because it is the fuller one, takes what that had heard of third
//! nodes with it, and their messages may be on the way yet. So shares say whose requests are in their buckets: a node's own
//! only, and then its share tells how many; or others' too (`mixed`). A node that took such a one knows that it did (`taken`)
//! and what it had heard of third nodes by then (`doubted`): of what each of those tells next, nobody can know how much is there
//! already. (That was the last which may have been overtaken, unless several were on their way: then those after it count again.)
//! No clock decides that. A bucket that runs empty holds nobody's, and all is sure again.

use super::Millis;

/// Rates, excess and bursts are in thousandths of a request.
const REQUEST: u64 = 1000;
/// A clock that went back by more milliseconds than this is one that was mended: workers differ by less.
const MENDED: i64 = 1000;
/// How long a bucket that has run empty is kept.
const KEEP: u64 = 60_000;
/// No bucket is kept for longer: the time of its last request has 32 bits.
const LONGEST: u64 = 20 * 24 * 3_600_000;
/// What a node tells within so many milliseconds of what it told before was heard in time, and counts in full.
const PROMPT: u32 = 1500;
/// A node tells of what comes at once within so many milliseconds: its bucket has lost no more than runs out in them.
const AT_ONCE: u64 = 100;
/// So much in a bucket needn't be told to anybody, nor what drains in a second.
const UNTOLD: u64 = 4 * REQUEST;
/// The others' clocks are ahead by less than a day.
const AHEAD: u32 = 24 * 3_600_000;

/// What is in a bucket. The two fit one word of memory, so that a change is one store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// Thousandths of a request, besides the last one.
    pub excess: u32,
    /// The low bits of the milliseconds as of which that holds.
    pub last: u32,
}

impl Bucket {
    /// What the first request of a key leaves.
    pub const fn first(now: Millis) -> Bucket {
        Bucket { excess: 0, last: now as u32 }
    }

    /// One that holds so much at `now`; `None`: it would be empty.
    pub fn holding(level: u64, rate: u64, now: Millis) -> Option<Bucket> {
        // Less than one request is what is left of one that came earlier.
        let before = REQUEST.saturating_sub(level).saturating_mul(1000) / rate.max(1);
        let last = now.saturating_sub(before.min(LONGEST)) as u32;
        (level > 0).then(|| Bucket { excess: fit(level.saturating_sub(REQUEST)), last })
    }

    /// What it holds after one more request at `now`, as nginx reckons it. `rate`: thousandths of a request a second.
    pub fn with_one(self, rate: u64, now: Millis) -> Bucket {
        let elapsed = self.elapsed(now);
        let excess = (u64::from(self.excess) + REQUEST).saturating_sub(drained(rate, elapsed));
        // What is less than a millisecond isn't lost.
        Bucket { excess: fit(excess), last: if elapsed > 0 { now as u32 } else { self.last } }
    }

    /// What it holds at `now`, the last request included.
    pub fn level(self, rate: u64, now: Millis) -> u64 {
        (u64::from(self.excess) + REQUEST).saturating_sub(drained(rate, self.elapsed(now)))
    }

    /// What it holds with what another node has admitted that isn't counted here yet. `None`: that can't all have come lately.
    fn with_news(self, rate: u64, now: Millis, new: News, there: Bucket) -> Option<Bucket> {
        // As of the last request of all that it tells of: no clock is compared.
        let brim = u64::from(there.excess) + REQUEST;
        let added = u64::from(new.admitted) * REQUEST;
        match new.within <= PROMPT {
            _ if added == 0 => Some(self),
            true if added <= brim + drained(rate, u64::from(PROMPT)) => {
                // While this bucket stood empty, of what had been admitted there as much ran out.
                let idle = drained(rate, self.elapsed(now)).saturating_sub(u64::from(self.excess) + REQUEST);
                Some(self.plus(rate, now, added.saturating_sub(idle).max(added.min(brim))))
            }
            false if added <= brim + drained(rate, AT_ONCE) => Some(self.plus(rate, now, added.min(brim))),
            _ => None,
        }
    }

    /// As much as another one holds now; `None`: it is empty.
    fn like(there: Bucket, rate: u64, now: Millis) -> Option<Bucket> {
        Bucket::holding(there.level(rate, now), rate, now)
    }

    fn plus(self, rate: u64, now: Millis, added: u64) -> Bucket {
        match self.level(rate, now) {
            // It had run empty, and would go on running empty of what is added if the time stayed.
            0 => Bucket::holding(added, rate, now).unwrap_or(self),
            // The time stays: taking it forward each time would lose what drains in less than its unit.
            _ => Bucket { excess: fit(u64::from(self.excess) + added), last: self.last },
        }
    }

    /// If the clock was set back since its last request: it goes on from what the clock says now.
    pub fn mended(self, now: Millis) -> Option<Bucket> {
        (self.signed_elapsed(now) < -MENDED).then_some(Bucket { last: now as u32, ..self })
    }

    /// When it may be forgotten.
    pub fn ends(self, rate: u64, now: Millis) -> Millis {
        let empty = self.level(rate, now).saturating_mul(1000) / rate.max(1);
        now.saturating_add(empty.saturating_add(KEEP).min(LONGEST))
    }

    /// Whether it holds so much more than was told, as the end that was told says, that it should be told anew: who comes
    /// new would begin with too little, and all would forget it before it is empty. Unless who was just heard tells as much, but
    /// for one request at most: where that takes long to run out, it counts, as two that admit their last ones at once tell one
    /// too few each.
    pub fn is_untold(self, rate: u64, now: Millis, told: Millis, there: Bucket) -> bool {
        let tolerated = (UNTOLD * 1000 / rate.max(1)).clamp(1000, KEEP / 2);
        let less = drained(rate, tolerated).min(REQUEST);
        self.ends(rate, now) > told.saturating_add(tolerated)
            && self.level(rate, now) > there.level(rate, now).saturating_add(less)
    }

    /// As one word.
    pub const fn to_word(self) -> u64 {
        (self.excess as u64) << 32 | self.last as u64
    }

    /// From one word.
    pub const fn from_word(word: u64) -> Bucket {
        Bucket { excess: (word >> 32) as u32, last: word as u32 }
    }

    /// Milliseconds since the last request.
    fn elapsed(self, now: Millis) -> u64 {
        match self.signed_elapsed(now) {
            back if back < -MENDED => 1,
            elapsed => u64::try_from(elapsed).unwrap_or(0),
        }
    }

    fn signed_elapsed(self, now: Millis) -> i64 {
        i64::from((now as u32).wrapping_sub(self.last).cast_signed())
    }
}

/// What another node's share tells that isn't counted here yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct News {
    /// How many were admitted.
    pub admitted: u32,
    /// The milliseconds in which they were, by the other's clock.
    pub within: u32,
}

/// What one node has admitted for a key: the value of its part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    /// When it began to count: after that was forgotten, it counts from zero again. The low bits of the milliseconds of a
    /// stamp not below any that the node had merged into the shard.
    pub begun: u32,
    /// How many it has admitted since; counts from anew after [`Share::MOST`].
    pub admitted: u32,
    /// What others have admitted may be in its bucket, too.
    pub mixed: bool,
    /// It took a mixed bucket as a whole. Concerns its own node only.
    pub taken: bool,
    /// Of a copy, in another's memory: when the own share there took a mixed bucket, this was what was known here. So the own
    /// bucket may hold more of it than it tells. Concerns that memory only.
    pub doubted: bool,
    /// Its bucket.
    pub bucket: Bucket,
}

impl Share {
    /// Bytes of it.
    pub const LEN: usize = 16;
    /// Where in them the bucket is.
    pub const BUCKET: usize = 8;
    /// So many can be told apart of what was admitted between two messages.
    pub const MOST: u32 = (1 << 29) - 1;

    const MIXED: u32 = 1 << 29;
    const TAKEN: u32 = 1 << 30;
    const DOUBTED: u32 = 1 << 31;

    /// What the first request leaves that a node counts. `fullest`: the share, of those that it knows, whose bucket holds most;
    /// the key's one bucket isn't emptier, and what all knew of each other is in it.
    pub fn first(fullest: Option<&Share>, rate: u64, now: Millis, begun: Millis) -> Share {
        let there = fullest.and_then(|there| Some((there, Bucket::like(there.bucket, rate, now)?)));
        let (mixed, taken) = (there.is_some(), there.is_some_and(|(there, _)| there.mixed));
        let bucket = there.map_or(Bucket::first(now), |(_, bucket)| bucket.with_one(rate, now));
        Share { begun: begun as u32, admitted: 1, mixed, taken, doubted: false, bucket }
    }

    /// What one more leaves.
    pub fn with_one(self, rate: u64, now: Millis) -> Share {
        let holds = self.bucket.level(rate, now) > 0;
        Share {
            admitted: self.admitted.wrapping_add(1) & Share::MOST,
            // What had run empty holds that one only.
            mixed: self.mixed && holds,
            taken: self.taken && holds,
            bucket: self.bucket.with_one(rate, now),
            ..self
        }
    }

    /// What it tells that isn't in the bucket of the own share, if `known` of it is there already. `None`: nobody can know, as
    /// what was counted of it here was lost, or came by a third node. `forgotten`: up to when shares may have been forgotten here.
    pub fn since(&self, known: Option<&Share>, own: &Share, forgotten: Millis, now: Millis) -> Option<News> {
        if own.taken && known.is_none_or(|known| known.doubted) {
            return None;
        }
        let last = self.bucket.last;
        match known {
            Some(known) if known.begun == self.begun => Some(News {
                admitted: self.admitted.wrapping_sub(known.admitted) & Share::MOST,
                within: last.wrapping_sub(known.bucket.last),
            }),
            // It began when the own one was there to be added to, or so lately before that it can't have ended here meanwhile.
            _ if self.age(now) <= own.age(now) + i64::from(PROMPT)
                && self.age(now) < now.saturating_sub(forgotten).cast_signed() =>
            {
                Some(News { admitted: self.admitted, within: last.wrapping_sub(self.begun) })
            }
            _ => None,
        }
    }

    /// What it is once another node has told of its own, and how much of that isn't counted here yet; `None`: that can't be
    /// known. And whether it took a mixed bucket as a whole: then all else that is known of others is to be doubted.
    pub fn hearing(self, there: &Share, new: Option<News>, rate: u64, now: Millis) -> (Share, bool) {
        let this = self.bucket.mended(now).unwrap_or(self.bucket);
        if let Some(bucket) = new.and_then(|new| this.with_news(rate, now, new, there.bucket)) {
            return (Share { bucket, mixed: self.mixed || bucket != this, ..self }, false);
        }
        match Bucket::like(there.bucket, rate, now) {
            Some(bucket) if bucket.level(rate, now) > this.level(rate, now) => {
                (Share { bucket, mixed: true, taken: self.taken || there.mixed, ..self }, there.mixed)
            }
            _ => (Share { bucket: this, ..self }, false),
        }
    }

    /// Milliseconds since it began; less than none if that is ahead of this node's clock.
    fn age(&self, now: Millis) -> i64 {
        match (now as u32).wrapping_sub(self.begun) {
            age if age > u32::MAX - AHEAD => i64::from(age.cast_signed()),
            age => i64::from(age),
        }
    }

    /// As it is stored and travels.
    pub fn to_bytes(self) -> [u8; Share::LEN] {
        let mut bytes = [0; Share::LEN];
        bytes[..Share::BUCKET].copy_from_slice(&self.counted().to_le_bytes());
        bytes[Share::BUCKET..].copy_from_slice(&self.bucket.to_word().to_le_bytes());
        bytes
    }

    /// All but the bucket, as one word.
    pub fn counted(&self) -> u64 {
        let mark = |is: bool, bit| if is { bit } else { 0 };
        let marks =
            mark(self.mixed, Share::MIXED) | mark(self.taken, Share::TAKEN) | mark(self.doubted, Share::DOUBTED);
        u64::from(self.begun) << 32 | u64::from(self.admitted & Share::MOST | marks)
    }

    /// `None`: no share.
    pub fn from_bytes(bytes: &[u8]) -> Option<Share> {
        let (counted, bucket) = bytes.split_first_chunk::<8>()?;
        let counted = u64::from_le_bytes(*counted);
        let has = |bit: u32| counted & u64::from(bit) != 0;
        Some(Share {
            begun: (counted >> 32) as u32,
            admitted: counted as u32 & Share::MOST,
            mixed: has(Share::MIXED),
            taken: has(Share::TAKEN),
            doubted: has(Share::DOUBTED),
            bucket: Bucket::from_word(u64::from_le_bytes(bucket.try_into().ok()?)),
        })
    }
}

/// What runs out in so many milliseconds; in whole thousandths, as with nginx.
const fn drained(rate: u64, millis: u64) -> u64 {
    rate.saturating_mul(millis) / 1000
}

fn fit(excess: u64) -> u32 {
    u32::try_from(excess).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
