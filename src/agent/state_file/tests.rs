//! What is written comes back, what is damaged is told with its place, and files follow their zones.

use super::changes::Journal;
use super::write::{Licence, Saved, WriteError, sweep};
use super::*;
use crate::agent::sys::test_eventfd;
use crate::agent::{Agent, Config, now};
use crate::record::{Identity, Kind, Millis, Record, Stamp, Version};
use crate::store::control::CONTROL_SIZE;
use crate::store::{Batch, Condition, Control, DumpPlace, Life, Mapping, Params, Region};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

mod changes;
mod crash;

const NODE: Identity = Identity([1; 16]);
const OTHER: Identity = Identity([0xa5; 16]);

/// A folder of its own, removed in the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("zonemesh-state-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    fn file(&self, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join("one.json");
        fs::write(&path, text).unwrap();
        path
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Memory that lives until the test process ends, as detached threads may still look at it.
fn memory(len: usize) -> Region {
    let mapping: &'static Mapping = Box::leak(Box::new(Region::anonymous(len).unwrap()));
    mapping.region()
}

fn zone(sync: bool) -> Zone {
    Zone::create(memory(4 << 20), &Params { sync, ..Params::new(NODE) }).unwrap()
}

fn licence() -> Licence {
    let control = Control::create(memory(CONTROL_SIZE)).unwrap();
    let lease = control.try_lease(control.generation(), now()).unwrap();
    Licence { control, lease, pid_files: None, withdrawn: Arc::new(AtomicBool::new(false)) }
}

fn state_file(zone: Zone, path: &Path) -> StateFile {
    StateFile::new("one".into(), zone, path.into())
}

/// Writes all, as one who has no file of changes open.
fn write(file: &StateFile, licence: &Licence) -> Result<Saved, WriteError> {
    super::write::write(file, licence, &mut Journal::default())
}

type Contents = BTreeMap<Vec<u8>, (Option<Vec<u8>>, Option<Millis>, Version, bool)>;

/// All that a zone holds; the ends of tombstones are as good as their moment.
fn contents(zone: &Zone) -> Contents {
    let (mut all, mut place, mut batch) = (Contents::new(), DumpPlace::default(), Batch::default());
    while zone.dump(&mut place, &mut batch).unwrap() {
        for dumped in batch.records() {
            let Record { key, value, version, shortened, expires, .. } = dumped.record;
            all.insert(key.to_vec(), (value.map(<[u8]>::to_vec), expires, version, shortened));
        }
    }
    all
}

/// Keys and values of a file, loaded into a new zone.
fn loaded(path: &Path, sync: bool) -> Result<Contents, LoadError> {
    let zone = zone(sync);
    load(path, &zone, now()).map(|_| contents(&zone))
}

fn pairs(text: &str) -> Vec<(String, String, Option<Millis>)> {
    let folder = Folder::new();
    let loaded = loaded(&folder.file(text), false).unwrap_or_else(|error| panic!("{text}: {error}"));
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    loaded.into_iter().map(|(key, (value, end, ..))| (text(key), text(value.unwrap()), end)).collect()
}

/// Bytes as keys and values have them: any, and those that need care in JSON more often.
fn bytes(len: std::ops::Range<usize>) -> impl Strategy<Value = Vec<u8>> {
    let careful = prop::sample::select(b"\"\\/\n\t\0\x1f\x7f{}:,\xc3\xa9\xf0\x9f\xff\xed\xa0".to_vec());
    prop::collection::vec(prop_oneof![any::<u8>(), careful, 32..127u8], len)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn what_is_written_comes_back(
        sync: bool,
        records in prop::collection::btree_map(
            bytes(1..40),
            (prop::option::weighted(0.8, bytes(0..300)), prop::option::of(1u64..1_000_000), any::<(bool, bool)>()),
            0..60,
        ),
    ) {
        let (folder, from, began) = (Folder::new(), zone(sync), now());
        for (n, (key, (value, life, (own, shortened)))) in records.iter().enumerate() {
            if !sync && value.is_none() {
                continue;
            }
            let version = Version { stamp: Stamp(Stamp::at(began - 1000).0 + n as u64), origin: if *own { NODE } else { OTHER } };
            let expires = life.filter(|_| value.is_some()).map(|life| began + 60_000 + life);
            let record =
                Record { kind: Kind::Register, version, key, value: value.as_deref(), expires, shortened: sync && *shortened };
            from.apply(&record, began, 0).unwrap();
        }
        let path = folder.0.join("one.json");
        from.keep_state(Some(number(&path)));
        let saved = write(&state_file(from, &path), &licence()).unwrap();
        prop_assert_eq!(saved.bytes, fs::metadata(&path).unwrap().len());
        prop_assert!(!from.state_is_stale());
        prop_assert_eq!(folder.names(), ["one.json"]);
        let mut expected = contents(&from);
        let to = zone(sync);
        let told = load(&path, &to, now()).unwrap().unwrap();
        let mut there = contents(&to);
        if !sync {
            // Without versions in the file, records are as old as it is.
            expected.values_mut().chain(there.values_mut()).for_each(|record| record.2 = Version { stamp: Stamp(1), origin: NODE });
        }
        prop_assert_eq!(told.records, expected.values().filter(|record| record.0.is_some()).count() as u64);
        prop_assert_eq!(there, expected);
        prop_assert!(!to.state_is_stale());
    }
}

#[test]
fn files_written_by_hand_load() {
    let later = now() + 100_000;
    let of = |key: &str, value: &str, end| vec![(key.to_owned(), value.to_owned(), end)];
    for (text, expected) in [
        ("", vec![]),
        (" \n\t ", vec![]),
        ("{}", vec![]),
        (" { } \n", vec![]),
        (r#"{"a":"b"}"#, of("a", "b", None)),
        ("\r\n{\n \"a\" :\t\"b\" } ", of("a", "b", None)),
        (r#"{"a":{"value":"b"}}"#, of("a", "b", None)),
        (&format!(r#"{{"a":{{"expire":{later},"value":"b"}}}}"#), of("a", "b", Some(later))),
        (r#"{"\u00e9\ud83e\udd80\"\\\/\b\f\n\r\t":""}"#, of("é\u{1f980}\"\\/\u{8}\u{c}\n\r\t", "", None)),
        (r#"{"a":{"base64":"aGk="}}"#, of("a", "hi", None)),
        (r#"{"aGk=":{"key":"base64","value":"v"}}"#, of("hi", "v", None)),
        (r#"{"aGk=":"v"}"#, of("aGk=", "v", None)),
        (r#"{"":{"zonemesh":1,"cleared":"0000000000000001"},"a":"b"}"#, of("a", "b", None)),
        (r#"{"":{},"a":"b"}"#, of("a", "b", None)),
        (
            r#"{"gone":{"value":"v","expire":1000},"gone":"is there","x":{"deleted":true}}"#,
            of("gone", "is there", None),
        ),
    ] {
        assert_eq!(pairs(text), expected, "{text}");
    }
}

#[test]
fn mistakes_are_told_with_their_place() {
    let (long_key, long_value) = ("k".repeat(65_537), "v".repeat((1 << 20) + 1));
    let (long_key, long_value) = (format!(r#"{{"{long_key}":""}}"#), format!(r#"{{"k":"{long_value}"}}"#));
    for (text, place, why) in [
        ("null", 0, "an object of pairs has to begin here"),
        ("\0\0\0\0", 0, "an object of pairs"),
        ("{", 1, "the file ends here"),
        (r#"{"a":"b""#, 8, "the file ends here"),
        (r#"{"a":"b"#, 7, "within a string"),
        (r#"{"a":"b"}x"#, 9, "nothing may follow"),
        (r#"{"a":"b",}"#, 9, "a string has to begin here"),
        (r#"{"a":"b" "c":"d"}"#, 9, "a comma"),
        (r#"{"a" "b"}"#, 5, "a colon"),
        (r#"{"a":1}"#, 5, "a string or an object"),
        (r#"{"a":null}"#, 5, "a string or an object"),
        (r#"{"":"b"}"#, 4, "a string or an object"),
        (r#"{"a":"b","":"c"}"#, 9, "a key can't be empty"),
        (r#"{"a":"b","a":"c"}"#, 9, "the key was there before"),
        (r#"{"a":{}}"#, 1, "the pair has no value"),
        (r#"{"a":{"value":"b","value":"c"}}"#, 18, "given twice"),
        (r#"{"a":{"value":"b","base64":""}}"#, 18, "given twice"),
        (r#"{"a":{"value":"b","expires":1}}"#, 18, "only \"value\""),
        (r#"{"a":{"value":"b","expire":1.5}}"#, 28, "a comma"),
        (r#"{"a":{"value":"b","expire":-1}}"#, 27, "a whole number"),
        (r#"{"a":{"value":"b","expire":01}}"#, 27, "begin with zero"),
        (r#"{"a":{"value":"b","expire":18446744073709551616}}"#, 27, "too large"),
        (r#"{"a":{"value":"b","expire":281474976710656}}"#, 18, "milliseconds since the epoch"),
        (r#"{"a":{"value":"b","version":"1"}}"#, 18, "a version has"),
        (r#"{"a":{"base64":"a"}}"#, 6, "not base64"),
        (r#"{"a":{"value":"b","key":"base64"}}"#, 1, "not base64"),
        (r#"{"a":{"deleted":false}}"#, 16, "only \"true\""),
        (r#"{"":{"zonemesh":2}}"#, 5, "a later version of zonemesh"),
        (r#"{"":{"other":2}}"#, 5, "as a whole"),
        ("{\"a\":\"\n\"}", 6, "control character"),
        (r#"{"a":"\x"}"#, 6, "unknown escape"),
        (r#"{"a":"\ud800"}"#, 6, "half of a character"),
        (r#"{"a":"\udc00"}"#, 6, "no character"),
        (r#"{"a":"\u12g4"}"#, 6, "four hexadecimal digits"),
        (&long_key, 1, "longer than 65536"),
        (&long_value, 1, "longer than 1048576"),
    ] {
        let folder = Folder::new();
        let error = loaded(&folder.file(text), true).expect_err(text).to_string();
        assert!(
            error.starts_with(&format!("is damaged at byte {place}: ")) && error.contains(why),
            "{text:.60}: {error}"
        );
    }
    let folder = Folder::new();
    let error = loaded(&folder.file(b"{\"a\":\"\xff\"}"), false).unwrap_err().to_string();
    assert!(error.contains("byte 6: the text is not UTF-8"), "{error}");
    let zone =
        Zone::create(memory(1 << 20), &Params { matching: crate::store::Matching::Ip, ..Params::new(NODE) }).unwrap();
    let error = load(&folder.file(r#"{"10.0.0.1":"v","host":"v"}"#), &zone, now()).unwrap_err().to_string();
    assert!(error.contains("byte 16: no key of a zone of type=ip"), "{error}");
}

/// A small file with everything in it.
fn sample(folder: &Folder) -> (PathBuf, Vec<u8>, Contents) {
    let zone = zone(true);
    let set = |key: &[u8], life| zone.set(key, b"v\xff", life, Condition::Always, now()).unwrap();
    set(b"plain", Life::Default);
    set(b"b\xfftes", Life::For(1_000_000));
    set(b"gone", Life::Default);
    zone.delete(b"gone", now()).unwrap();
    let path = folder.0.join("one.json");
    write(&state_file(zone, &path), &licence()).unwrap();
    let text = fs::read(&path).unwrap();
    (path, text, contents(&zone))
}

#[test]
fn a_file_that_was_cut_short_is_refused() {
    let folder = Folder::new();
    let (path, text, whole) = sample(&folder);
    for len in 1..text.len() {
        fs::write(&path, &text[..len]).unwrap();
        match loaded(&path, true) {
            Ok(there) => assert!(len + 1 == text.len() && there == whole, "cut to {len} bytes"),
            Err(LoadError::Damaged { offset, .. }) => {
                assert!(offset <= len as u64, "cut to {len} bytes: byte {offset}")
            }
            Err(error) => panic!("cut to {len} bytes: {error}"),
        }
        assert_eq!(fs::read(&path).unwrap().len(), len, "it stays as it is");
    }
}

#[test]
fn a_damaged_byte_is_refused_with_a_place_or_changes_nothing_else() {
    let folder = Folder::new();
    let (path, text, whole) = sample(&folder);
    for at in 0..text.len() {
        for byte in [0, b'"', b'{', b'}', b',', b' ', b'0', 0xff, text[at] ^ 1] {
            let mut damaged = text.clone();
            damaged[at] = byte;
            fs::write(&path, &damaged).unwrap();
            match loaded(&path, true) {
                // What holds no order of its own may be something else now, in one record or in the zone's emptying.
                Ok(there) => {
                    let same = whole.iter().filter(|(key, record)| there.get(*key) == Some(record)).count();
                    assert!(same + 1 >= whole.len() || there.len() < whole.len(), "byte {at} as {byte:#x}");
                }
                Err(LoadError::Damaged { offset, .. }) => {
                    assert!(offset <= text.len() as u64, "byte {at} as {byte:#x}")
                }
                Err(error) => panic!("byte {at} as {byte:#x}: {error}"),
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_counted() {
    let folder = Folder::new();
    let value = "v".repeat(200);
    let text: Vec<String> = (0..2000).map(|n| format!(r#""key {n}":"{value}""#)).collect();
    let path = folder.file(format!("{{{}}}", text.join(",")));
    let small = |evict| Zone::create(memory(64 << 10), &Params { evict, ..Params::new(NODE) }).unwrap();
    let (strict, evicting) = (small(false), small(true));
    let error = load(&path, &strict, now()).unwrap_err().to_string();
    let fits = strict.stats().records;
    assert!(error.starts_with(&format!("has 2000 records, of which {} don't fit", 2000 - fits)), "{error}");
    let told = load(&path, &evicting, now()).unwrap().unwrap();
    assert_eq!((told.records, told.records + told.given_up), (evicting.stats().records, 2000));
}

#[test]
fn versions_decide_and_those_from_far_ahead_are_replaced() {
    let folder = Folder::new();
    let version = |millis: Millis| format!("{:016x}.{}", Stamp::at(millis).0, "a5".repeat(16));
    let (past, future, began) = (now() - 500, now() + 10 * 86_400_000, now());
    let path = folder.file(format!(
        r#"{{"a":{{"value":"v","version":"{}"}},"b":{{"value":"v","version":"{}"}},"c":"v","d":{{"deleted":true,"expire":{},"version":"{}"}},
           "e":{{"value":"v","expire":{},"version":"{}"}},"f":{{"deleted":true,"expire":1,"version":"{}"}}}}"#,
        version(past), version(future), began + 1000, version(past), began - 100, version(past), version(past)
    ));
    let (shared, plain) = (zone(true), zone(false));
    let told = load(&path, &shared, began).unwrap().unwrap();
    assert_eq!(told, Loaded { records: 3, ended: 1, ahead: 1, ..Loaded::default() });
    let there = contents(&shared);
    let of = |key: &[u8]| there[key].clone();
    assert_eq!(of(b"a").2, Version { stamp: Stamp::at(past), origin: OTHER });
    assert_eq!(of(b"b").2.origin, NODE);
    assert!(of(b"b").2.stamp <= Stamp::at(now()) && of(b"c").2 == of(b"b").2, "the time of the file");
    assert_eq!(of(b"d").0, None, "a delete is remembered");
    assert_eq!(of(b"e").0, None, "what has ended is remembered as a delete");
    assert!(!there.contains_key(&b"f"[..]), "an old delete is forgotten");
    assert_eq!(shared.positions(), [(NODE, Stamp::ZERO), (OTHER, Stamp::ZERO)], "nothing is promised for anybody");
    assert!(!shared.joined());
    assert_eq!(load(&path, &plain, began).unwrap().unwrap().records, 3);
    assert_eq!(plain.stats().tombstones, 0);
    // What is written now wins over what was loaded.
    shared.set(b"a", b"new", Life::Default, Condition::Always, past - 10_000).unwrap();
    assert!(contents(&shared)[&b"a"[..]].2.stamp > Stamp::at(past));
}

#[test]
fn an_emptying_is_remembered() {
    let folder = Folder::new();
    let (path, zone) = (folder.0.join("one.json"), zone(true));
    zone.set(b"a", b"v", Life::Default, Condition::Always, now()).unwrap();
    let cleared = zone.clear(now()).unwrap();
    zone.set(b"b", b"v", Life::Default, Condition::Always, now()).unwrap();
    write(&state_file(zone, &path), &licence()).unwrap();
    let to = self::zone(true);
    load(&path, &to, now()).unwrap();
    assert_eq!(to.cleared(), cleared);
    assert_eq!(contents(&to), contents(&zone));
}

#[test]
fn only_who_has_the_licence_replaces_the_file() {
    let folder = Folder::new();
    let (path, zone) = (folder.file("{\"old\":\"v\"}"), zone(false));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    zone.set(b"new", b"v", Life::Default, Condition::Always, now()).unwrap();
    let file = state_file(zone, &path);
    let (withdrawn, outdated, released) = (licence(), licence(), licence());
    withdrawn.withdrawn.store(true, Ordering::Release);
    outdated.control.next_generation();
    released.control.release(&released.lease);
    for licence in [withdrawn, outdated, released] {
        assert!(write(&file, &licence).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"old\":\"v\"}");
        assert_eq!(folder.names(), ["one.json"], "nothing is left beside it");
    }
    write(&file, &licence()).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "{\n\"new\":\"v\"\n}\n");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640, "it keeps its mode");
    fs::remove_file(&path).unwrap();
    write(&file, &licence()).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[test]
fn what_killed_writers_left_goes_and_nothing_else_does() {
    let folder = Folder::new();
    let path = folder.file("{}");
    let own = format!("one.json.{}.zmtmp", std::process::id());
    let stay = ["one.json.1", "one.json.x1.zmtmp", "one.json..zmtmp", "two.json.1.zmtmp", own.as_str()];
    for name in stay.iter().chain(&["one.json.1.zmtmp", "one.json.4194303.zmtmp"]) {
        fs::write(folder.0.join(name), "{\"half").unwrap();
    }
    assert!(loaded(&path, true).unwrap().is_empty(), "the file is as it was");
    sweep(&path);
    let mut expected: Vec<String> = stay.iter().map(|name| (*name).to_owned()).chain(["one.json".to_owned()]).collect();
    expected.sort();
    assert_eq!(folder.names(), expected);
    assert_eq!(folder_of(Path::new("one.json")), Path::new("."));
}

mod keeping {
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    struct Running {
        agent: Agent,
        lines: crossbeam_channel::Receiver<crate::agent::LogLine>,
        said: Vec<String>,
    }

    fn start(zones: &[(Zone, PathBuf)]) -> Running {
        start_with(zones.iter().map(|(zone, path)| state_file(*zone, path)).collect())
    }

    fn start_with(states: Vec<StateFile>) -> Running {
        let control = Control::create(memory(CONTROL_SIZE)).unwrap();
        control.next_generation();
        let lease = control.try_lease(control.generation(), now()).unwrap();
        states.iter().for_each(|state| state.zone.keep_state(Some(number(&state.path))));
        let zones = states.iter().map(|state| state.zone).collect();
        let config = Config { control, lease, zones, handovers: Vec::new(), states, pid_files: None, cluster: None };
        let (agent, lines) = Agent::start(config, test_eventfd().as_raw_fd()).unwrap();
        Running { agent, lines, said: Vec::new() }
    }

    impl Running {
        fn says(&mut self, text: &str) -> usize {
            self.said.extend(self.lines.try_iter().map(|line| line.text));
            self.said.iter().filter(|line| line.contains(text)).count()
        }
    }

    fn set(zone: &Zone, key: &str) {
        zone.set(key.as_bytes(), b"v", Life::Default, Condition::Always, now()).unwrap();
    }

    fn until(what: &str, mut condition: impl FnMut() -> bool) -> Duration {
        let began = Instant::now();
        while !condition() {
            assert!(began.elapsed() < PATIENCE, "{what} doesn't come true");
            std::thread::sleep(Duration::from_millis(2));
        }
        began.elapsed()
    }

    fn has(path: &Path, key: &str) -> bool {
        fs::read_to_string(path).is_ok_and(|text| text.contains(&format!("\"{key}\"")))
    }

    #[test]
    fn files_follow_their_zones_at_a_bounded_rate_and_to_the_end() {
        let folder = Folder::new();
        let zones: Vec<_> = (0..6).map(|n| (zone(n % 2 == 0), folder.0.join(format!("{n}.json")))).collect();
        let mut running = start(&zones);
        for (zone, path) in &zones {
            set(zone, "first");
            until("the first write", || has(path, "first"));
        }
        let (zone, path) = &zones[0];
        let before = zone.state_figures().unwrap().writes;
        let began = Instant::now();
        for n in 0u64.. {
            set(zone, &format!("key {}", n % 5000));
            if n % 64 == 0 && began.elapsed() > Duration::from_secs(2) {
                break;
            }
        }
        let writes = zone.state_figures().unwrap().writes - before;
        let most = began.elapsed().as_millis() as u64 / 400 + 2;
        assert!((2..=most).contains(&writes), "{writes} writes in a storm of {:?}", began.elapsed());
        until("what came last", || !zone.state_is_stale());
        // Nothing changes, nothing is written.
        let writes = zone.state_figures().unwrap().writes;
        std::thread::sleep(Duration::from_millis(600));
        assert_eq!(zone.state_figures().unwrap().writes, writes);
        // At the end no pause is kept.
        set(zone, "late");
        until("a late one", || has(path, "late"));
        set(zone, "last");
        running.agent.finish(Duration::ZERO, PATIENCE);
        assert!(running.agent.join(PATIENCE));
        assert!(has(path, "last"));
        assert_eq!(running.says("state file"), 0, "{:?}", running.said);
    }

    #[test]
    fn a_failure_is_told_once_and_mended() {
        let folder = Folder::new();
        let (zone, path) = (zone(false), folder.0.join("missing/one.json"));
        let mut running = start(&[(zone, path.clone())]);
        set(&zone, "a");
        until("two tries", || zone.state_figures().unwrap().errors >= 2);
        assert_eq!(running.says("can't be written and stays as it is: can't make"), 1, "{:?}", running.said);
        fs::create_dir(folder.0.join("missing")).unwrap();
        until("the next try", || has(&path, "a"));
        until("a line", || running.says("is written again") == 1);
        running.agent.stop();
        assert!(running.agent.join(PATIENCE));
    }

    #[test]
    fn an_agent_that_is_stopped_writes_no_more() {
        let folder = Folder::new();
        let (zone, path) = (zone(false), folder.0.join("one.json"));
        let mut running = start(&[(zone, path.clone())]);
        set(&zone, "a");
        until("the first write", || has(&path, "a"));
        running.agent.stop();
        assert!(running.agent.join(PATIENCE));
        set(&zone, "b");
        let next = start(&[(zone, path.clone())]);
        until("the next agent's write", || has(&path, "b"));
        next.agent.stop();
    }

    /// Changes are appended from the first, and the file is written anew after few of them.
    fn eager(zone: Zone, path: &Path) -> StateFile {
        let terms = Terms { slow: Duration::ZERO, follow: 0, fewest: 2000, ..Terms::ORDINARY };
        StateFile { terms, ..state_file(zone, path) }
    }

    #[test]
    fn changes_of_a_slow_file_are_appended_until_there_are_many() {
        let folder = Folder::new();
        for sync in [false, true] {
            let (zone, path) = (zone(sync), folder.0.join(format!("{sync}.json")));
            set(&zone, "first");
            let mut running = start_with(vec![eager(zone, &path)]);
            until("the first file", || !zone.state_is_stale());
            let writes = || zone.state_figures().unwrap().writes;
            assert_eq!(writes(), 1);
            set(&zone, "appended");
            zone.delete(b"first", now()).unwrap();
            until("an append", || !zone.state_is_stale());
            let changes = zone.state_changes();
            assert_eq!((writes(), changes.files), (1, 1));
            assert!(changes.bytes > 0 && changes.appended > 0 && changes.appends > 0);
            assert!(has(&path, "first") && !has(&path, "appended"), "the file is as it was");
            // Another agent goes on with it.
            running.agent.stop();
            assert!(running.agent.join(PATIENCE));
            set(&zone, "between");
            running = start_with(vec![eager(zone, &path)]);
            until("the other agent's append", || !zone.state_is_stale());
            assert_eq!((writes(), zone.state_changes().files), (1, 2));
            let there = loaded(&path, sync).unwrap();
            assert!(there.contains_key(&b"between"[..]) && there.contains_key(&b"appended"[..]));
            assert!(there.get(&b"first"[..]).is_none_or(|first| first.0.is_none()));
            for n in 0..100 {
                set(&zone, &format!("one of many {n}"));
            }
            until("the next file", || writes() >= 2 && !zone.state_is_stale());
            assert!(has(&path, "one of many 7"));
            set(&zone, "last");
            running.agent.finish(Duration::ZERO, PATIENCE);
            assert!(running.agent.join(PATIENCE));
            assert!(has(&path, "last"), "in the end all is in one file");
            assert_eq!(folder.names().iter().filter(|name| name.contains(".changes")).count(), 0);
            assert_eq!(running.says("state file"), 0, "{:?}", running.said);
        }
    }

    #[test]
    fn a_file_that_somebody_put_there_is_written_anew_and_not_appended_to() {
        let folder = Folder::new();
        let (zone, path) = (zone(false), folder.0.join("one.json"));
        let running = start_with(vec![eager(zone, &path)]);
        set(&zone, "a");
        until("the first file", || !zone.state_is_stale());
        fs::write(&path, "{}").unwrap();
        set(&zone, "b");
        until("the next file", || has(&path, "b") && !zone.state_is_stale());
        assert!(has(&path, "a"));
        running.agent.stop();
    }
}

#[test]
fn counters_come_back_with_all_that_was_added() {
    use crate::store::{Counted, Matching, Missing};
    for sync in [false, true] {
        let counters = || {
            Zone::create(memory(4 << 20), &Params { matching: Matching::Counter, sync, ..Params::new(NODE) }).unwrap()
        };
        let add = |zone: &Zone, key: &[u8], by| match zone.count(key, by, Missing::Begin(0, Life::Default), now()) {
            Ok(Counted::Done { sum, .. }) => sum,
            other => panic!("{other:?}"),
        };
        let (folder, zone) = (Folder::new(), counters());
        zone.set(b"set", b"40", Life::Default, Condition::Always, now()).unwrap();
        for (key, by) in [(&b"set"[..], 2), (b"added", -7), (b"b\xff\0", 1), (b"b\xff\0\x01", 5), (b"gone", 1)] {
            add(&zone, key, by);
        }
        zone.delete(b"gone", now()).unwrap();
        let path = folder.0.join("one.json");
        write(&state_file(zone, &path), &licence()).unwrap();
        let text = String::from_utf8(fs::read(&path).unwrap()).unwrap();
        assert!(text.contains("\"set\":{\"value\":\"40\",\"version\":"), "{text}");
        assert!(text.contains("\"added\":{\"part\":\""), "{text}");

        let new = counters();
        load(&path, &new, now()).unwrap();
        assert_eq!(contents(&new), contents(&zone), "record by record");
        for (key, sum) in [(&b"set"[..], 43), (b"added", -6), (b"b\xff\0", 2), (b"b\xff\0\x01", 6), (b"gone", 1)] {
            assert_eq!(add(&new, key, 1), sum, "{key:?}");
        }
        // Once more: what was added before stays what it was.
        write(&state_file(new, &path), &licence()).unwrap();
        let third = counters();
        load(&path, &third, now()).unwrap();
        assert_eq!((add(&third, b"set", 1), add(&third, b"added", 1)), (44, -5));

        let others = counters();
        load(&folder.file(r#"{"a":"5","b":{"value":"-1","expire":99999999999999}}"#), &others, now()).unwrap();
        assert_eq!((add(&others, b"a", 1), add(&others, b"b", 1)), (6, 0), "a file of plain numbers");
        for (text, why) in [
            (r#"{"a":"x"}"#, "byte 1: a counter takes a whole number"),
            (r#"{"a":{"part":"00","begun":"0000000000000001","value":"1"}}"#, "16 hexadecimal digits"),
            (r#"{"a":{"part":"0000000000000007","begun":"0000000000000001","value":"1"}}"#, "needs its \"version\""),
            (r#"{"a":{"begun":"0000000000000001","value":"1"}}"#, "belongs to a \"part\""),
        ] {
            let error = load(&folder.file(text), &counters(), now()).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
