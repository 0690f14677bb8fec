//! One client: what waits to be sent to it, and, while it isn't abreast of the others, its own walk of the feed.

use super::position::Position;
use super::{Order, Start, event};
use crate::record::{Millis, Stamp};
use crate::store::{Change, Cursor, ShardMask, Zone};
use std::rc::Rc;

/// What waits for a client that doesn't read is not more than this and one event.
const FULL: usize = 64 * 1024;
/// Of a shard about which the client has been told nothing yet.
pub const UNTOLD: Millis = Millis::MAX;

/// See the module's text.
pub struct Watcher {
    prefix: Vec<u8>,
    pub out: Vec<u8>,
    /// What makes its connection ask for more.
    poke: Option<Box<dyn Fn()>>,
    /// The connection has nothing to send, and waits to be poked.
    pub idle: bool,
    /// The last emptying that it was told of.
    cleared: Stamp,
    /// How far it is, as it was told last.
    pub position: Option<Rc<Position>>,
    /// It was sent something since.
    pub unmarked: bool,
    /// It is not abreast of the others.
    pub private: Option<Private>,
}

/// A walk of its own.
pub struct Private {
    /// None while the zone has no walker to spare.
    pub cursor: Option<Cursor>,
    /// Shards that it has to walk to their end; of the others it gets what all get.
    pub todo: ShardMask,
    /// Those of them whose locks didn't come free.
    pub aside: ShardMask,
    pub since: Since,
    /// For each shard, up to when the client has been told everything.
    pub told: Vec<Millis>,
}

/// What a client has already.
#[derive(Clone, Default)]
pub struct Since {
    /// Of records that are there.
    pub values: Option<Rc<Position>>,
    /// Of those that are gone.
    pub gone: Option<Rc<Position>>,
}

impl Since {
    /// All up to a position.
    pub fn position(position: &Rc<Position>) -> Since {
        Since { values: Some(position.clone()), gone: Some(position.clone()) }
    }

    /// Whether it has this.
    pub fn has(&self, change: &Change<'_>) -> bool {
        let position = if change.record.value.is_some() { &self.values } else { &self.gone };
        position.as_ref().is_some_and(|position| position.has(change))
    }
}

impl Watcher {
    /// A new client. What is in the feed of `zone` from now on is for it too.
    pub fn new(order: Order, zone: &Zone) -> Watcher {
        let mut watcher = Watcher {
            prefix: order.prefix,
            out: event::GREETING.to_vec(),
            poke: None,
            idle: false,
            cleared: zone.cleared(),
            position: None,
            unmarked: true,
            private: None,
        };
        match order.start {
            Start::Now => {}
            Start::After(position) if position.is_kept(zone) => watcher.resume(Rc::new(position), zone),
            Start::Everything | Start::After(_) => watcher.restart(zone),
        }
        watcher
    }

    /// Begins after a position.
    pub fn resume(&mut self, position: Rc<Position>, zone: &Zone) {
        self.cleared = position.cleared;
        let since = Since::position(&position);
        let told = vec![position.time; zone.all_shards().count_ones() as usize];
        self.private = Some(Private { cursor: None, todo: zone.all_shards(), aside: 0, since, told });
        self.position = Some(position);
    }

    /// Forgets all that the client was told, and begins with everything.
    pub fn restart(&mut self, zone: &Zone) {
        if let Some(cursor) = self.private.take().and_then(|private| private.cursor) {
            zone.feed_close(cursor);
        }
        self.out.clear();
        self.out.extend_from_slice(event::RESET);
        self.cleared = zone.cleared();
        self.position = None;
        self.unmarked = true;
        let told = vec![UNTOLD; zone.all_shards().count_ones() as usize];
        self.private = Some(Private { cursor: None, todo: zone.all_shards(), aside: 0, since: Since::default(), told });
    }

    /// Whether what happens in a shard is for it as for all.
    pub fn is_abreast(&self, shard: u32) -> bool {
        self.private.as_ref().is_none_or(|private| private.todo >> shard & 1 == 0)
    }

    /// Whether it asked for such keys.
    pub fn wants(&self, key: &[u8]) -> bool {
        key.starts_with(&self.prefix)
    }

    /// Whether it has to read before it gets more.
    pub fn is_full(&self) -> bool {
        self.out.len() >= FULL
    }

    /// Tells it of an emptying, unless it knows.
    pub fn tell_clear(&mut self, cleared: Stamp) {
        if cleared > self.cleared {
            self.cleared = cleared;
            self.unmarked = true;
            event::clear(&mut self.out, cleared);
        }
    }

    /// Gives it the text of an event.
    pub fn push(&mut self, text: &[u8]) {
        self.out.extend_from_slice(text);
        self.unmarked = true;
    }

    /// It is to be poked through this.
    pub fn poke_by(&mut self, poke: Box<dyn Fn()>) {
        self.poke = Some(poke);
    }

    /// Makes its connection ask for more, if there is any reason.
    pub fn poke(&mut self) {
        if let Some(poke) = &self.poke
            && std::mem::take(&mut self.idle)
        {
            poke();
        }
    }
}
