//! `keyval_zone` and `keyval`.

use super::main::{Block, KeyvalZone};
use super::{Conf, Directive, Fault, Place, parse};
use crate::nginx::log::Limited;
use crate::nginx::shm;
use crate::nginx::variable::{self, Side};
use crate::store::{MIN_ZONE_SIZE, Matching};
use std::marker::PhantomData;

/// A variable or location whose zone isn't looked up yet: the zone may be declared later, and in the other block.
pub struct Waiting {
    /// Where the zone is to be put; in the cycle's pool.
    slot: *mut *const KeyvalZone,
    /// The directive, for messages.
    what: String,
    zone: String,
    /// Only counters will do.
    counts: bool,
    place: Place,
}

impl Waiting {
    /// `what` waits for the zone of this name to be put into `slot`, which is in the cycle's pool.
    pub fn new(slot: *mut *const KeyvalZone, what: String, zone: String, place: Place) -> Waiting {
        Waiting { slot, what, zone, counts: false, place }
    }

    /// The zone has to be one of counters.
    pub fn counting(self) -> Waiting {
        Waiting { counts: true, ..self }
    }

    /// Gives the variable its zone; at the end of the configuration.
    pub fn resolve(self, zones: &[Box<KeyvalZone>]) -> Result<(), Fault> {
        let Some(zone) = zones.iter().find(|zone| zone.name == self.zone && zone.is_keyval()) else {
            return Err(Fault::at(
                &self.place,
                format!(
                    "unknown zone \"{0}\" of {1}: declare it with \"keyval_zone zone={0}:1m\", in \
                     \"http\" or in \"stream\"",
                    self.zone, self.what
                ),
            ));
        };
        if self.counts && zone.matching != Matching::Counter {
            let (name, own) = (&zone.name, zone.matching.name());
            return Err(Fault::at(
                &self.place,
                format!(
                    "zone \"{name}\" of {} is of type={own}, which doesn't count: declare it in {} with \"type=counter\"",
                    self.what, zone.place
                ),
            ));
        }
        // SAFETY: the slot lives in the cycle's pool, and nothing looks at it before the configuration is over.
        unsafe { *self.slot = &raw const **zone };
        Ok(())
    }
}

/// `keyval_zone zone=name:size [timeout=time|ttl=time] [type=string|ip|prefix|counter] [state=file] [sync] [evict]`
pub struct KeyvalZoneDirective<S>(PhantomData<S>);

impl<S: Side> Directive for KeyvalZoneDirective<S> {
    type Own = S::Conf;

    fn set(conf: &mut Conf, _own: &mut S::Conf) -> Result<(), Fault> {
        let mut zone = read_zone(conf, S::BLOCK)?;
        let main = conf.main()?;
        zone.main = main;
        let zone = main.add_zone(zone)?;
        shm::add_keyval(conf, zone)
    }
}

/// `keyval key $variable zone=name`
pub struct KeyvalDirective<S>(PhantomData<S>);

impl<S: Side> Directive for KeyvalDirective<S> {
    type Own = S::Conf;

    fn set(conf: &mut Conf, _own: &mut S::Conf) -> Result<(), Fault> {
        let text = conf.text(2).into_owned();
        let name = match text.strip_prefix('$') {
            Some(name) if is_name(name) => name.to_owned(),
            _ => {
                return Err(Fault::new(format!(
                    "\"keyval\" takes a variable second, as in \"keyval $arg_key $value zone=name\", not \"{text}\""
                )));
            }
        };
        let parameter = conf.text(3).into_owned();
        let zone = match parameter.strip_prefix("zone=") {
            Some("") => {
                return Err(Fault::new(format!(
                    "\"keyval\" of \"${name}\" has an empty \"zone=\": name a keyval_zone"
                )));
            }
            Some(zone) => zone.to_owned(),
            None => {
                return Err(Fault::new(format!(
                    "unknown parameter \"{parameter}\" of \"keyval\" for \"${name}\"; it takes \"zone=name\" third"
                )));
            }
        };
        let what = format!("\"keyval\" for \"${name}\"");
        let waiting = Waiting::new(variable::add::<S>(conf, &name)?, what, zone, conf.place());
        conf.main()?.add_waiting(waiting);
        Ok(())
    }
}

fn read_zone(conf: &Conf, block: Block) -> Result<KeyvalZone, Fault> {
    let (mut named, mut timeout, mut matching, mut state) = (None, None, None, None);
    let (mut sync, mut evict) = (false, false);
    for parameter in conf.parameters() {
        let parameter = &*parameter;
        match parameter.split_once('=') {
            Some(("zone", value)) if named.is_none() => named = Some(name_and_size("keyval_zone", value)?),
            Some((key @ ("timeout" | "ttl"), value)) => {
                let millis = parse::time(value).ok_or_else(|| {
                    in_zone(&named, format!("bad time \"{value}\" in \"{key}=\"; write for example \"{key}=1h\""))
                })?;
                match &timeout {
                    None => timeout = Some((key.to_owned(), millis)),
                    Some((other, _)) if other == key => {
                        return Err(in_zone(&named, format!("two \"{key}=\"; keep one")));
                    }
                    Some(_) => {
                        let why = "both \"timeout=\" and \"ttl=\", which mean the same; keep one";
                        return Err(in_zone(&named, why.to_owned()));
                    }
                }
            }
            Some(("type", value)) if matching.is_none() => matching = Some(type_of(&named, value)?),
            Some(("type", value)) => return Err(in_zone(&named, format!("a second \"type={value}\"; keep one"))),
            Some(("state", "")) => {
                return Err(in_zone(&named, "an empty \"state=\"; name a file".to_owned()));
            }
            Some(("state", path)) if state.is_none() => state = Some(shm::state::path(conf, path)?),
            Some(("state", path)) => return Err(in_zone(&named, format!("a second \"state={path}\"; keep one"))),
            None if parameter == "sync" => sync = true,
            None if parameter == "evict" => evict = true,
            Some(("zone", value)) => return Err(in_zone(&named, format!("a second \"zone={value}\"; keep one"))),
            _ => {
                return Err(in_zone(
                    &named,
                    format!(
                        "unknown parameter \"{parameter}\"; known are zone=, timeout=, ttl=, type=, state=, sync and evict"
                    ),
                ));
            }
        }
    }
    let Some((name, size)) = named else {
        return Err(Fault::new("\"keyval_zone\" has no zone; write \"keyval_zone zone=name:size\""));
    };
    if evict && matching == Some(Matching::Counter) {
        return Err(Fault::new(format!(
            "\"keyval_zone\" \"{name}\": \"evict\" beside \"type=counter\": what is given up would be missing in sums; \
             remove one of them, and give the zone a \"timeout\" if counters are to go"
        )));
    }
    let timeout = timeout.map(|(_, millis)| millis);
    let matching = matching.unwrap_or_default();
    Ok(KeyvalZone { timeout, sync, matching, evict, state, ..empty_zone(name, block, size, conf.place()) })
}

/// A zone for sessions: a full one gives up the oldest.
pub fn session_zone(name: String, size: usize, sync: bool, place: Place) -> KeyvalZone {
    let zone = empty_zone(name, Block::Http, size, place);
    KeyvalZone { sync, matching: Matching::Session, evict: true, ..zone }
}

/// A zone of which no more is known.
pub fn empty_zone(name: String, block: Block, size: usize, place: Place) -> KeyvalZone {
    KeyvalZone {
        name,
        block,
        size,
        timeout: None,
        sync: false,
        matching: Matching::Exact,
        evict: false,
        state: None,
        upstream: None,
        place,
        main: std::ptr::null(),
        region: None,
        zone: None,
        inherited: false,
        resized: None,
        complaints: Limited::new(),
        limit: None,
    }
}

fn type_of(named: &Option<(String, usize)>, value: &str) -> Result<Matching, Fault> {
    let types = [Matching::Exact, Matching::Ip, Matching::Prefix, Matching::Counter];
    types.into_iter().find(|matching| matching.name() == value).ok_or_else(|| {
        let why = format!("unknown type \"{value}\"; it is \"string\", \"ip\", \"prefix\" or \"counter\"");
        in_zone(named, why)
    })
}

/// Reads `name:size`, for a zone of this directive.
pub fn name_and_size(directive: &str, value: &str) -> Result<(String, usize), Fault> {
    let (name, size) = value.split_once(':').unwrap_or((value, ""));
    if name.is_empty() {
        return Err(Fault::new(format!("\"{directive}\" has no name in \"zone={value}\"; write \"zone=name:size\"")));
    }
    let fault = |why: String| Fault::new(format!("\"{directive}\" \"{name}\": {why}"));
    if name == shm::CONTROL_NAME {
        return Err(fault("the module itself has a zone of this name; choose another".to_owned()));
    }
    if size.is_empty() {
        return Err(fault(format!("no size; write for example \"zone={name}:1m\"")));
    }
    let bytes =
        parse::size(size).ok_or_else(|| fault(format!("bad size \"{size}\"; write for example \"zone={name}:1m\"")))?;
    if bytes < MIN_ZONE_SIZE {
        return Err(fault(format!("\"{size}\" is too small; give it {}k or more", MIN_ZONE_SIZE / 1024)));
    }
    if bytes > MAX_ZONE_SIZE {
        return Err(fault(format!("\"{size}\" is too large; give it 64g (65536m) or less")));
    }
    Ok((name.to_owned(), bytes))
}

/// Largest zone, bytes.
const MAX_ZONE_SIZE: usize = 64 << 30;

/// A fault that names the directive, and the zone if it was read already.
fn in_zone(named: &Option<(String, usize)>, why: String) -> Fault {
    match named {
        Some((name, _)) => Fault::new(format!("\"keyval_zone\" \"{name}\": {why}")),
        None => Fault::new(format!("\"keyval_zone\": {why}")),
    }
}

/// What nginx takes for a variable's name within text.
fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
