//! The pairs of a zone, or of all, as a body that is made while it is sent.
//!
//! A listing keeps a place in the zone and nothing else: what is there from its beginning to its end is in it exactly
//! once, what comes, changes or goes meanwhile may be in it as it was at any moment of that time.

use crate::api::NamedZone;
use crate::api::args::Fields;
use crate::api::copied::Copied;
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
    /// What was looked at and not written yet, and how much of the first value of it was.
    copied: Copied,
    written: usize,
    seen: usize,
    patience: Patience,
}

/// Bytes of a value that are written at once: a large one takes several steps.
const A_STEP: usize = 32 * 1024;

#[allow(clippy::large_enum_variant, reason = "a listing has one, which is nearly always the large one")]
enum State {
    /// Before the first zone.
    Begin,
    /// Between two zones, or after the last. `first`: none was written yet.
    Between {
        first: bool,
    },
    /// Within a zone. `place`: where to look further, if there is more. `any`: a pair was written.
    Within {
        zone: Zone,
        place: Option<ScanPlace>,
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
        Listing {
            fields,
            many,
            zones: zones.into_iter(),
            state: State::Begin,
            copied: Copied::default(),
            written: 0,
            seen: 0,
            patience: Patience::default(),
        }
    }

    /// Begins it: a small one is made whole.
    pub(super) fn body(self, now: Millis) -> Result<Body, Error> {
        Body::begin(self, now).ok_or(Error::KeyvalBusy)
    }

    /// Looks at some dozens of records; `Err`: the zone is busy.
    fn look(&mut self, zone: &Zone, place: ScanPlace, now: Millis) -> Result<Option<ScanPlace>, ()> {
        let next = zone.scan(place, now, &mut |key, value, found| {
            self.seen += key.len() + value.len();
            if self.fields.keep(key) {
                self.copied.push(key, if self.fields == Fields::Names { b"" } else { value }, found);
            }
        });
        next.map_err(|_| ())
    }

    /// Writes some of what was looked at; `any`: a pair stands before it in its zone.
    fn write(&mut self, any: &mut bool, out: &mut Vec<u8>) {
        let end = out.len() + A_STEP;
        while out.len() < end
            && let Some((key, value, _)) = self.copied.first()
        {
            if self.written == 0 {
                if std::mem::replace(any, true) {
                    out.push(b',');
                }
                json::string(out, key);
                if self.fields != Fields::Names {
                    out.extend_from_slice(b":\"");
                }
            }
            let (part, rest) = json::split(value.get(self.written..).unwrap_or_default(), A_STEP);
            json::part(out, part);
            self.written += part.len();
            if rest.is_empty() {
                if self.fields != Fields::Names {
                    out.push(b'"');
                }
                self.copied.pop();
                self.written = 0;
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
        State::Within { zone, place: Some(ScanPlace::default()), any: false }
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
            State::Within { zone, place, mut any } => {
                let place = match (self.copied.is_empty(), place) {
                    (true, Some(at)) => match self.look(&zone, at, now) {
                        Ok(next) => {
                            self.patience.done();
                            next
                        }
                        Err(()) => {
                            self.state = State::Within { zone, place, any };
                            return self.patience.busy();
                        }
                    },
                    _ => place,
                };
                self.write(&mut any, out);
                if place.is_some() || !self.copied.is_empty() {
                    State::Within { zone, place, any }
                } else {
                    out.push(if self.fields == Fields::Names { b']' } else { b'}' });
                    State::Between { first: false }
                }
            }
            State::Ended => State::Ended,
        };
        if matches!(self.state, State::Ended) { Produced::End } else { Produced::More }
    }

    fn seen(&self) -> usize {
        self.seen
    }
}
