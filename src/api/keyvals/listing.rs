//! The pairs of a zone, or of all, as a body that is made while it is sent.
//!
//! A listing keeps a place in the zone and nothing else: what is there from its beginning to its end is in it exactly
//! once, what comes, changes or goes meanwhile may be in it as it was at any moment of that time.

use crate::api::NamedZone;
use crate::api::args::Fields;
use crate::api::error::Error;
use crate::api::json;
use crate::api::response::{Body, Patience, Produce, Produced};
use crate::record::Millis;
use crate::store::{ScanPlace, Zone};

/// See the module's text.
pub(super) struct Listing {
    fields: Fields,
    /// Whether the zones are the members of an object.
    many: bool,
    zones: std::vec::IntoIter<NamedZone>,
    state: State,
    patience: Patience,
}

#[allow(clippy::large_enum_variant, reason = "a listing has one, which is nearly always the large one")]
enum State {
    /// Before the first zone.
    Begin,
    /// Between two zones, or after the last. `first`: none was written yet.
    Between {
        first: bool,
    },
    /// Within a zone. `any`: it has a pair already.
    Within {
        zone: Zone,
        place: ScanPlace,
        any: bool,
    },
    Ended,
}

impl Listing {
    /// One zone: an object of its pairs.
    pub(super) fn of(zone: &NamedZone, fields: Fields) -> Listing {
        Listing::new(vec![zone.clone()], fields, false)
    }

    /// Several: an object of such objects.
    pub(super) fn of_all(zones: &[NamedZone], fields: Fields) -> Listing {
        Listing::new(zones.to_vec(), fields, true)
    }

    fn new(zones: Vec<NamedZone>, fields: Fields, many: bool) -> Listing {
        Listing { fields, many, zones: zones.into_iter(), state: State::Begin, patience: Patience::default() }
    }

    /// Begins it: a small one is made whole.
    pub(super) fn body(self, now: Millis) -> Result<Body, Error> {
        Body::begin(self, now).ok_or(Error::KeyvalBusy)
    }

    /// Some dozens of records. `Err`: the zone is busy, and nothing was written.
    fn pairs(&self, zone: &Zone, place: ScanPlace, any: bool, out: &mut Vec<u8>, now: Millis) -> Result<State, ()> {
        let mut any = any;
        let next = zone.scan(place, now, &mut |key, value, _| {
            if !self.fields.keep(key) {
                return;
            }
            if std::mem::replace(&mut any, true) {
                out.push(b',');
            }
            json::string(out, key);
            if self.fields != Fields::Names {
                out.push(b':');
                json::string(out, value);
            }
        });
        match next.map_err(|_| ())? {
            Some(place) => Ok(State::Within { zone: *zone, place, any }),
            None => {
                out.push(if self.fields == Fields::Names { b']' } else { b'}' });
                Ok(State::Between { first: false })
            }
        }
    }

    /// Begins the next zone, or ends the whole.
    fn between(&mut self, first: bool, out: &mut Vec<u8>) -> State {
        let Some(NamedZone { name, zone, .. }) = self.zones.next() else {
            if self.many {
                out.push(b'}');
            }
            return State::Ended;
        };
        if !first {
            out.push(b',');
        }
        if self.many {
            json::string(out, name.as_bytes());
            out.push(b':');
        }
        out.push(if self.fields == Fields::Names { b'[' } else { b'{' });
        State::Within { zone, place: ScanPlace::default(), any: false }
    }
}

impl Produce for Listing {
    fn produce(&mut self, out: &mut Vec<u8>, now: Millis) -> Produced {
        self.state = match std::mem::replace(&mut self.state, State::Ended) {
            State::Begin => {
                if self.many {
                    out.push(b'{');
                }
                self.between(true, out)
            }
            State::Between { first } => self.between(first, out),
            State::Within { zone, place, any } => match self.pairs(&zone, place, any, out, now) {
                Ok(state) => {
                    self.patience.done();
                    state
                }
                Err(()) => {
                    self.state = State::Within { zone, place, any };
                    return self.patience.busy();
                }
            },
            State::Ended => State::Ended,
        };
        if matches!(self.state, State::Ended) { Produced::End } else { Produced::More }
    }
}
