//! DELETE with `prefix`, `suffix` or `glob`: removes the pairs whose keys are so, and says how many there were.

use super::counts;
use crate::api::condition::Precondition;
use crate::api::error::Error;
use crate::api::response::{BUSY_PAUSE, BUSY_TRIES};
use crate::api::{Answer, Job, NamedZone, Request, Response, Step, args, route};
use crate::record::Millis;
use crate::store::{ScanPlace, StoreError, Written};

/// Longest pattern: matching takes time in proportion to it.
const MAX_GLOB: usize = 256;

/// DELETE without `key`.
pub(super) fn answer(request: &Request<'_>, zone: &NamedZone) -> Result<Answer, Error> {
    let given = |name| args::first(request.args, name).map(|value| value.into_owned());
    let filter = Filter { prefix: given("prefix"), suffix: given("suffix"), glob: given("glob") };
    match &filter {
        _ if Precondition::of(request) != Precondition::None => Err(Error::ConditionOfMany),
        Filter { prefix, suffix, glob: None } if [prefix, suffix].iter().any(|part| part.as_deref() == Some(b"")) => {
            Err(Error::BadArgument("\"prefix\" and \"suffix\" are not empty (all pairs: glob=*)"))
        }
        // A slip in a name must not empty a zone.
        Filter { prefix: None, suffix: None, glob: None } => {
            Err(Error::BadArgument("say what to delete: key, prefix, suffix or glob (all pairs: glob=*)"))
        }
        Filter { glob: Some(glob), .. } if glob.len() > MAX_GLOB => {
            Err(Error::BadArgument("\"glob\" has at most 256 bytes"))
        }
        _ => Ok(Answer::Later(Box::new(Remove {
            zone: zone.clone(),
            filter,
            at: Some(ScanPlace::default()),
            doomed: Vec::new(),
            deleted: 0,
            busy: 0,
            version: route::version(request.path).0,
            request_id: request.request_id.to_owned(),
        }))),
    }
}

/// What a key must be like; all that is given must hold.
struct Filter {
    prefix: Option<Vec<u8>>,
    suffix: Option<Vec<u8>>,
    glob: Option<Vec<u8>>,
}

impl Filter {
    fn matches(&self, key: &[u8]) -> bool {
        self.prefix.as_ref().is_none_or(|prefix| key.starts_with(prefix))
            && self.suffix.as_ref().is_none_or(|suffix| key.ends_with(suffix))
            && self.glob.as_ref().is_none_or(|glob| is_like(key, glob))
    }
}

struct Remove {
    zone: NamedZone,
    filter: Filter,
    at: Option<ScanPlace>,
    /// Keys that were found and not removed yet.
    doomed: Vec<Vec<u8>>,
    deleted: u64,
    busy: u32,
    version: Option<u8>,
    request_id: String,
}

impl Job for Remove {
    fn step(&mut self, now: Millis) -> Step {
        match self.some(now) {
            Ok(()) => self.busy = 0,
            Err(StoreError::Busy) if self.busy < BUSY_TRIES => {
                self.busy += 1;
                return Step::Pause(BUSY_PAUSE);
            }
            Err(error) => {
                let error = Error::Halted { why: Box::new(error.into()), deleted: self.deleted };
                return Step::Done(error.response(self.version, &self.request_id));
            }
        }
        if self.at.is_some() || !self.doomed.is_empty() {
            return Step::More;
        }
        Step::Done(Response::ok(counts(&[("deleted", self.deleted)])))
    }

    fn wakes(&self) -> bool {
        self.zone.zone.announces()
    }
}

impl Remove {
    fn some(&mut self, now: Millis) -> Result<(), StoreError> {
        let zone = self.zone.zone;
        if self.doomed.is_empty()
            && let Some(at) = self.at
        {
            let mut doomed = Vec::new();
            self.at = zone.scan(at, now, &mut |key, _, _| {
                if self.filter.matches(key) {
                    doomed.push(key.to_vec());
                }
            })?;
            self.doomed = doomed;
        }
        while let Some(key) = self.doomed.last() {
            if let Written::Done(_) = zone.delete(key, now)? {
                self.deleted += 1;
            }
            self.doomed.pop();
        }
        Ok(())
    }
}

/// Whether `key` is like a pattern: `*` stands for any bytes, `?` for one, `\` takes the next as it is.
fn is_like(key: &[u8], glob: &[u8]) -> bool {
    let (mut k, mut g) = (0, 0);
    // Where the last star was, and how far it reaches now.
    let mut star: Option<(usize, usize)> = None;
    while let Some(&byte) = key.get(k) {
        match (glob.get(g), glob.get(g + 1)) {
            (Some(b'*'), _) => {
                star = Some((g, k));
                g += 1;
                continue;
            }
            (Some(b'?'), _) => (k, g) = (k + 1, g + 1),
            (Some(b'\\'), Some(&next)) if next == byte => (k, g) = (k + 1, g + 2),
            (Some(&next), _) if next == byte && (next != b'\\' || g + 1 == glob.len()) => (k, g) = (k + 1, g + 1),
            _ => match &mut star {
                Some((at, reach)) => {
                    *reach += 1;
                    (g, k) = (*at + 1, *reach);
                }
                None => return false,
            },
        }
    }
    glob.get(g..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (glob, like, unlike) in [
            ("*", &["", "a", "a*b"][..], &[][..]),
            ("", &[""], &["a"]),
            ("a*", &["a", "ab", "a/b"], &["", "ba"]),
            ("*b", &["b", "ab", "bb"], &["ba", ""]),
            ("a*b*c", &["abc", "a1b2c", "abbcc", "abcbc"], &["ab", "acb", "abca"]),
            ("?", &["a"], &["", "ab"]),
            ("user:?:*", &["user:1:x", "user:1:"], &["user:10:x", "user::x"]),
            ("a\\*", &["a*"], &["ab", "a"]),
            ("a\\?\\\\", &["a?\\"], &["ab\\"]),
            ("a\\", &["a\\"], &["a"]),
            ("**a**", &["a", "bab"], &["b"]),
        ] {
            for key in like {
                assert!(is_like(key.as_bytes(), glob.as_bytes()), "{key} is like {glob}");
            }
            for key in unlike {
                assert!(!is_like(key.as_bytes(), glob.as_bytes()), "{key} is not like {glob}");
            }
        }
    }
}
