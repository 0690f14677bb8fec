//! The watchers that one worker has for one zone.
//!
//! One walk of the feed serves all who are abreast. Work goes in rounds, as it does between nodes: a round closes a stamp,
//! walks every shard that may hold a change at or below it to its end, and then the position is told.
//!
//! A client that comes with a position, or reads too slowly, walks for itself, shard by shard, as fast as it reads: of a
//! shard that it has walked to its end it gets what all get. Its own marker is then never behind that of all, so it can
//! meet a change twice but not miss one.

use super::position::{Position, SLACK};
use super::watcher::{Private, Since, UNTOLD, Watcher};
use super::{Order, event};
use crate::record::Millis;
use crate::store::{Cursor, FeedEnd, ShardMask, StoreError, Zone};
use std::collections::BTreeMap;
use std::rc::Rc;

/// For how long a zone counts as watched after a watcher said so: what goes meanwhile can be told who comes back.
const WATCHED_FOR: Millis = 90_000;
/// Between two rounds: keys that change often are told less often than they change.
const PAUSE: Millis = 5;
/// After a shard's lock was found stuck.
const BUSY: Millis = 100;
/// Bytes of a client's own walk in one piece.
const PIECE: usize = 16 * 1024;

/// See the module's text.
pub struct Group {
    pub zone: Zone,
    owner: u64,
    cursor: Option<Cursor>,
    shards: Vec<Walked>,
    todo: ShardMask,
    /// What will hold when `todo` is done.
    round: Option<Position>,
    /// What held when it last was.
    position: Option<Rc<Position>>,
    /// Shards that are walked from their beginning again, by which nobody is told what they know.
    again: ShardMask,
    /// A round is wanted though nothing has changed.
    wanted: bool,
    /// Everybody is to be told something, in this round or the next.
    heartbeat: bool,
    rest_until: Millis,
    /// Shards whose locks didn't come free, and until when they are let alone. No position is told meanwhile.
    aside: ShardMask,
    aside_until: Millis,
    watchers: BTreeMap<u64, Watcher>,
}

/// How far the common walk is in one shard.
#[derive(Clone, Copy)]
struct Walked {
    changes: u64,
    /// When it was last at the end.
    at: Millis,
}

/// What there is to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// More, at once.
    More,
    /// More, at this time.
    At(Millis),
    /// Nothing before something changes.
    Nothing,
}

/// Where a client's own walk stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Catching {
    /// There is more.
    More,
    /// The zone has no walker to spare, or is stuck: try again.
    Held,
    /// It is abreast of the others.
    Abreast,
}

impl Group {
    /// Begins to watch. `None`: the zone has as many walkers as it can, or is busy.
    pub fn open(zone: Zone, now: Millis) -> Option<Group> {
        // Before the walker is put into the feed: whoever changes something behind it sees that it is watched.
        zone.watch_until(now.saturating_add(WATCHED_FOR));
        let owner = Zone::walker_owner();
        let shards = (0..zone.all_shards().count_ones())
            .map(|shard| Walked { changes: zone.changes_in(shard), at: now })
            .collect();
        let cursor = zone.feed_open_at_end(owner).or_else(|| {
            zone.sweep_watchers();
            zone.feed_open_at_end(owner)
        });
        Some(Group {
            zone,
            owner,
            cursor: Some(cursor?),
            shards,
            todo: 0,
            round: None,
            position: None,
            again: 0,
            wanted: false,
            heartbeat: false,
            rest_until: 0,
            aside: 0,
            aside_until: 0,
            watchers: BTreeMap::new(),
        })
    }

    /// One more client.
    pub fn join(&mut self, token: u64, order: Order) {
        self.watchers.insert(token, Watcher::new(order, &self.zone));
        self.wanted = true;
    }

    /// A client is gone.
    pub fn leave(&mut self, token: u64) {
        let private = self.watchers.remove(&token).and_then(|watcher| watcher.private);
        if let Some(cursor) = private.and_then(|private| private.cursor) {
            self.zone.feed_close(cursor);
        }
    }

    /// Whether anybody is left.
    pub fn is_empty(&self) -> bool {
        self.watchers.is_empty()
    }

    /// Gives the walkers back.
    pub fn close(mut self) {
        let tokens: Vec<u64> = self.watchers.keys().copied().collect();
        tokens.into_iter().for_each(|token| self.leave(token));
        if let Some(cursor) = self.cursor.take() {
            self.zone.feed_close(cursor);
        }
    }

    /// The client of this number.
    pub fn watcher(&mut self, token: u64) -> Option<&mut Watcher> {
        self.watchers.get_mut(&token)
    }

    /// The zone stays watched.
    pub fn renew(&self, now: Millis) {
        self.zone.watch_until(now.saturating_add(WATCHED_FOR));
    }

    /// Everybody gets a sign of life, and, unless a shard is stuck, a position that is of now.
    pub fn beat(&mut self) {
        self.wanted = true;
        self.heartbeat = true;
    }

    /// Whether there is something new. Costs a look at one word of each shard.
    pub fn has_news(&self) -> bool {
        self.changed() != 0 || self.wanted || self.is_cleared()
    }

    /// Wakes everybody: there will be no more.
    pub fn poke_all(&mut self) {
        self.watchers.values_mut().for_each(Watcher::poke);
    }

    /// Goes on until there is nothing more to do now, or the time is `over`.
    pub fn work(&mut self, now: Millis, over: &dyn Fn() -> bool) -> Next {
        // By a clock that was set back they would be let alone for long.
        if !(1..=BUSY).contains(&self.aside_until.saturating_sub(now)) {
            self.aside = 0;
        }
        loop {
            if self.todo & self.aside != 0 {
                // What changes elsewhere doesn't wait for the round's end.
                self.todo |= self.changed();
            }
            if self.round.is_none() {
                if !self.has_news() {
                    return Next::Nothing;
                }
                // By a clock that was set back it would rest for long.
                if (1..=PAUSE).contains(&self.rest_until.saturating_sub(now)) {
                    return Next::At(self.rest_until);
                }
                self.begin(now);
            }
            while self.todo & !self.aside != 0 {
                if over() {
                    return Next::More;
                }
                let shard = (self.todo & !self.aside).trailing_zeros();
                if self.walk(shard, now).is_err() {
                    self.aside |= 1 << shard;
                    self.aside_until = now.saturating_add(BUSY);
                }
            }
            if self.todo != 0 {
                self.show_life();
                return Next::At(self.aside_until);
            }
            self.complete(now);
        }
    }

    fn begin(&mut self, now: Millis) {
        self.wanted = false;
        let (own, held) = self.zone.close(now);
        let position = Position::of(&self.zone, own, now);
        // The node's clock was ahead and was mended: it is another node now, and goes on from earlier stamps. An emptying from now on
        // isn't later than the last one was.
        if self.position.as_ref().is_some_and(|last| position.cleared < last.cleared) {
            for watcher in self.watchers.values_mut() {
                watcher.restart(&self.zone);
                watcher.poke();
            }
        }
        self.round = Some(position);
        // After the stamp was closed: what is at or below it has been counted, or its writer holds a lock.
        self.todo |= if self.heartbeat { self.zone.all_shards() } else { held | self.changed() };
    }

    fn complete(&mut self, now: Millis) {
        let Some(position) = self.round.take() else { return };
        let position = Rc::new(position);
        let heartbeat = std::mem::take(&mut self.heartbeat);
        self.rest_until = now.saturating_add(PAUSE);
        for watcher in self.watchers.values_mut().filter(|watcher| !watcher.is_full()) {
            if watcher.private.is_some() {
                if heartbeat && watcher.out.is_empty() {
                    watcher.out.extend_from_slice(event::HEARTBEAT);
                }
                continue;
            }
            watcher.tell_clear(position.cleared);
            if watcher.unmarked || heartbeat {
                if heartbeat {
                    watcher.out.extend_from_slice(event::HEARTBEAT);
                }
                event::id(&mut watcher.out, &position);
                watcher.unmarked = false;
                watcher.position = Some(position.clone());
                watcher.poke();
            }
        }
        self.position = Some(position);
    }

    /// The sign of life doesn't wait for a shard that is stuck, of which no position could tell.
    fn show_life(&mut self) {
        if !std::mem::take(&mut self.heartbeat) {
            return;
        }
        for watcher in self.watchers.values_mut().filter(|watcher| !watcher.is_full()) {
            watcher.out.extend_from_slice(event::HEARTBEAT);
            watcher.poke();
        }
    }

    /// Walks on in one shard, one hold of its lock.
    fn walk(&mut self, shard: u32, now: Millis) -> Result<(), StoreError> {
        let (zone, bit) = (self.zone, 1 << shard);
        let Some(cursor) = &mut self.cursor else { return Ok(()) };
        let Some(walked) = self.shards.get_mut(shard as usize) else { return Ok(()) };
        if zone.take_missed(cursor) != 0 || is_late(&zone, shard, walked.at, now) {
            walked.at = now;
            for watcher in self.watchers.values_mut().filter(|watcher| watcher.is_abreast(shard)) {
                watcher.restart(&zone);
                watcher.poke();
            }
        }
        let changes = zone.changes_in(shard);
        let since = self.position.as_ref().filter(|_| self.again & bit != 0).map(Since::position).unwrap_or_default();
        let watchers = &mut self.watchers;
        let mut text = Vec::new();
        let mut stalled = false;
        let end = zone.watch_feed(cursor, shard, now, &mut |change| {
            let cleared = zone.cleared();
            if change.record.version.stamp <= cleared || since.has(change) {
                return true;
            }
            let key = change.record.key;
            let mut wanting = watchers.values().filter(|watcher| watcher.is_abreast(shard) && watcher.wants(key));
            stalled = wanting.any(Watcher::is_full);
            if stalled {
                return false;
            }
            text.clear();
            for watcher in watchers.values_mut().filter(|watcher| watcher.is_abreast(shard) && watcher.wants(key)) {
                if text.is_empty() {
                    event::change(&mut text, change, now);
                }
                watcher.tell_clear(cleared);
                watcher.push(&text);
                watcher.poke();
            }
            true
        })?;
        match end {
            FeedEnd::Drained => {
                *walked = Walked { changes, at: now };
                self.todo &= !bit;
                self.again &= !bit;
            }
            FeedEnd::Reset => self.again |= bit,
            FeedEnd::More | FeedEnd::Stopped => {}
        }
        if stalled {
            self.part(shard);
        }
        Ok(())
    }

    /// Those who don't read fast enough go on alone.
    fn part(&mut self, shard: u32) {
        let Some(cursor) = &self.cursor else { return };
        let (zone, owner) = (self.zone, self.owner);
        for watcher in self.watchers.values_mut().filter(|watcher| watcher.is_full() && watcher.is_abreast(shard)) {
            if let Some(private) = &mut watcher.private {
                private.todo |= 1 << shard;
                continue;
            }
            let told = self.shards.iter().map(|walked| walked.at).collect();
            let alone = zone.spares_walker().then(|| zone.feed_fork(cursor, owner)).flatten();
            match (alone, watcher.position.clone()) {
                (Some(cursor), _) => {
                    let cursor = Some(cursor);
                    let private = Private { cursor, todo: zone.all_shards(), aside: 0, since: Since::default(), told };
                    watcher.private = Some(private);
                }
                // All that it was sent since will come again, once there is a walker.
                (None, Some(position)) => watcher.resume(position, &zone),
                (None, None) => watcher.restart(&zone),
            }
        }
    }

    /// Walks on for one client alone, and appends what it finds.
    pub fn catch_up(&mut self, token: u64, out: &mut Vec<u8>, now: Millis) -> Catching {
        let (zone, owner) = (self.zone, self.owner);
        let Some(watcher) = self.watchers.get_mut(&token) else { return Catching::Abreast };
        let Some(mut private) = watcher.private.take() else { return Catching::Abreast };
        // Those that are busy come last.
        let ready = Some(private.todo & !private.aside).filter(|shards| *shards != 0).unwrap_or(private.todo);
        let shard = ready.trailing_zeros();
        let mut cursor = match private.cursor.take() {
            Some(cursor) => cursor,
            None => {
                if private.since.values.is_none() {
                    // What was gone before the walk began needn't be told.
                    let (own, _) = zone.close(now);
                    private.since.gone = Some(Rc::new(Position::of(&zone, own, now)));
                }
                match zone.spares_walker().then(|| zone.feed_open(owner)).flatten() {
                    Some(cursor) => cursor,
                    None => {
                        watcher.private = Some(private);
                        return Catching::Held;
                    }
                }
            }
        };
        if private.todo == 0 {
            zone.feed_close(cursor);
            self.wanted = true;
            return Catching::Abreast;
        }
        let missed = zone.take_missed(&cursor);
        let is_told = |(shard, told): (usize, &Millis)| missed >> shard & 1 != 0 && *told != UNTOLD;
        let told = private.told.get(shard as usize).copied().unwrap_or(UNTOLD);
        if private.told.iter().enumerate().any(is_told) || is_late(&zone, shard, told, now) {
            zone.feed_close(cursor);
            watcher.restart(&zone);
            out.append(&mut watcher.out);
            return Catching::More;
        }
        if told == UNTOLD
            && let Some(told) = private.told.get_mut(shard as usize)
        {
            *told = now;
        }
        let (since, begin) = (&private.since, out.len());
        let end = zone.watch_feed(&mut cursor, shard, now, &mut |change| {
            let cleared = zone.cleared();
            if change.record.version.stamp <= cleared || !watcher.wants(change.record.key) || since.has(change) {
                return true;
            }
            if out.len() - begin >= PIECE {
                return false;
            }
            watcher.tell_clear(cleared);
            out.append(&mut watcher.out);
            event::change(out, change, now);
            watcher.unmarked = true;
            true
        });
        let state = match end {
            Ok(FeedEnd::Drained) => {
                private.todo &= !(1 << shard);
                if let Some(told) = private.told.get_mut(shard as usize) {
                    *told = now;
                }
                Catching::More
            }
            Ok(FeedEnd::Reset) => {
                // It walks from the beginning again: what it has is what it was told that it has.
                if let (None, Some(position)) = (&private.since.values, &watcher.position) {
                    private.since = Since::position(position);
                }
                Catching::More
            }
            Ok(FeedEnd::More | FeedEnd::Stopped) => Catching::More,
            Err(_) => {
                private.aside |= 1 << shard;
                if private.todo & !private.aside != 0 { Catching::More } else { Catching::Held }
            }
        };
        if state == Catching::Held {
            private.aside = 0;
        }
        private.cursor = Some(cursor);
        watcher.private = Some(private);
        state
    }

    fn is_cleared(&self) -> bool {
        self.position.as_ref().is_none_or(|position| position.cleared != self.zone.cleared())
    }

    /// Shards in which something has changed since they were walked to their end.
    fn changed(&self) -> ShardMask {
        let is_news = |(shard, walked): &(u32, &Walked)| self.zone.changes_in(*shard) != walked.changes;
        (0..).zip(&self.shards).filter(is_news).fold(0, |mask, (shard, _)| mask | 1 << shard)
    }
}

/// Whether something may be forgotten that a client which was told everything up to `told` doesn't know.
fn is_late(zone: &Zone, shard: u32, told: Millis, now: Millis) -> bool {
    // Who looked within this time can't have missed anything.
    let fresh = zone.remembered().saturating_sub(2 * SLACK);
    now.saturating_sub(told) > fresh && zone.forgotten(shard).saturating_add(SLACK) >= told
}
