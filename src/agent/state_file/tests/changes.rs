//! Files of changes: what is appended comes back, only the last line may be half there, and nothing that belongs to another
//! state file is taken.

use super::*;
use crate::store::{Matching, Written};

/// A zone whose changes are appended from the first.
struct Followed {
    folder: Folder,
    state: StateFile,
    licence: Licence,
    journal: Journal,
}

impl Followed {
    fn new(zone: Zone) -> Followed {
        let folder = Folder::new();
        let path = folder.0.join("one.json");
        zone.keep_state(Some(number(&path)));
        let terms = Terms { slow: Duration::ZERO, rounds: Duration::ZERO, follow: 0, ..Terms::ORDINARY };
        let state = StateFile { terms, ..state_file(zone, &path) };
        let mut new = Followed { folder, state, licence: licence(), journal: Journal::default() };
        new.write();
        new
    }

    fn zone(&self) -> &Zone {
        &self.state.zone
    }

    fn set(&self, key: &str, value: &str) {
        self.zone().set(key.as_bytes(), value.as_bytes(), Life::Default, Condition::Always, now()).unwrap();
    }

    fn write(&mut self) {
        crate::agent::state_file::write::write(&self.state, &self.licence, &mut self.journal).unwrap();
        assert!(!self.zone().state_is_stale());
    }

    fn append(&mut self) {
        let round = self.journal.append(&self.state, &self.licence).unwrap();
        assert!(round.all);
        self.zone().state_covers(round.changes);
        assert!(!self.zone().state_is_stale());
    }

    fn changes(&self, number: u64) -> PathBuf {
        self.folder.0.join(format!("one.json.{number}.changes"))
    }

    /// What is loaded into a zone of the same parameters, and what was told of that.
    fn load(&self) -> (Zone, Loaded) {
        let params = Params { node: OTHER, ..self.zone().params() };
        let to = Zone::create(memory(4 << 20), &params).unwrap();
        let told = load(&self.state.path, &to, now()).unwrap_or_else(|error| panic!("{error}")).unwrap();
        (to, told)
    }

    fn error(&self) -> String {
        let to = Zone::create(memory(4 << 20), &self.zone().params()).unwrap();
        load(&self.state.path, &to, now()).expect_err("it is damaged").to_string()
    }
}

/// Keys, values and ends of what lives.
fn living(zone: &Zone) -> BTreeMap<Vec<u8>, (Vec<u8>, Option<Millis>)> {
    let is_live = |end: &Option<Millis>| end.is_none_or(|end| end > now());
    let all = contents(zone).into_iter();
    all.filter_map(|(key, (value, end, ..))| Some((key, (value?, end)))).filter(|(_, (_, end))| is_live(end)).collect()
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Set(u8, u16),
    Short(u8),
    Touch(u8),
    Delete(u8),
    Clear,
    Append,
    Whole,
    NewJournal,
    Restart,
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let op = prop_oneof![
        8 => (any::<u8>(), 0..600u16).prop_map(|(key, len)| Op::Set(key % 40, len)),
        2 => any::<u8>().prop_map(|key| Op::Short(key % 40)),
        2 => any::<u8>().prop_map(|key| Op::Touch(key % 40)),
        4 => any::<u8>().prop_map(|key| Op::Delete(key % 40)),
        1 => Just(Op::Clear),
        4 => Just(Op::Append),
        1 => Just(Op::Whole),
        1 => Just(Op::NewJournal),
        1 => Just(Op::Restart),
    ];
    prop::collection::vec(op, 1..80)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_appended_comes_back(sync: bool, ops in ops()) {
        let mut followed = Followed::new(zone(sync));
        let mut zones = 0;
        for op in ops {
            let key = |key: u8| [b'k', key, 0xff - key];
            let zone = *followed.zone();
            match op {
                Op::Set(n, len) => {
                    let value = vec![n; len.into()];
                    zone.set(&key(n), &value, Life::Default, Condition::Always, now()).unwrap();
                }
                Op::Short(n) => {
                    zone.set(&key(n), b"short", Life::For(1), Condition::Always, now()).unwrap();
                    zone.upkeep(now() + 200, 1000);
                }
                Op::Touch(n) => drop(zone.touch(&key(n), Life::For(1_000_000 + u64::from(n)), now()).unwrap()),
                Op::Delete(n) => drop(zone.delete(&key(n), now()).unwrap()),
                Op::Clear => drop(zone.clear(now()).unwrap()),
                Op::Append => followed.append(),
                Op::Whole => followed.write(),
                // As another agent does.
                Op::NewJournal => followed.journal = Journal::default(),
                // As after a kill -9 of everything. What wasn't appended by then is lost.
                Op::Restart => {
                    followed.append();
                    zones += 1;
                    let (to, told) = followed.load();
                    prop_assert_eq!(told.left_out, 0);
                    prop_assert_eq!(living(&to), living(&zone));
                    followed.state.zone = to;
                    followed.journal = Journal::default();
                    prop_assert!(!to.state_is_stale());
                    if told.changes == 0 {
                        // A small file isn't followed before it was written.
                        followed.write();
                    }
                }
            }
            prop_assert!(!followed.zone().trail_missed());
        }
        followed.append();
        let (to, _) = followed.load();
        prop_assert_eq!(living(&to), living(followed.zone()), "after {} restarts", zones);
        if sync {
            prop_assert_eq!(to.cleared(), followed.zone().cleared());
            let versions = |zone: &Zone| -> Vec<_> { contents(zone).into_iter().map(|(key, (value, _, version, _))| (key, value.is_some(), version)).collect() };
            let ended = |zone: &Zone| living(zone).len();
            let lives: Vec<_> = versions(followed.zone()).into_iter().filter(|record| record.1).collect();
            prop_assert_eq!(versions(&to).into_iter().filter(|record| record.1).collect::<Vec<_>>(), lives, "{}", ended(&to));
        }
    }
}

#[test]
fn deletes_of_a_shared_zone_are_remembered() {
    let mut followed = Followed::new(zone(true));
    followed.set("a", "v");
    followed.append();
    let Written::Done(version) = followed.zone().delete(b"a", now()).unwrap() else { panic!("it was there") };
    followed.append();
    let (to, told) = followed.load();
    assert_eq!((told.records, told.changes), (0, 1));
    let there = contents(&to);
    assert_eq!((&there[&b"a"[..]].0, there[&b"a"[..]].2), (&None, version));
}

#[test]
fn a_file_of_changes_that_was_cut_short_gives_what_is_whole() {
    let mut followed = Followed::new(zone(true));
    for n in 0..6 {
        followed.set(&format!("key {n}"), "value\n\u{1f980}\"");
        followed.append();
    }
    let (path, whole) = (followed.changes(1), followed.folder.0.join("whole"));
    let text = fs::read(&path).unwrap();
    fs::copy(&path, whole).unwrap();
    let mut last = 0;
    for len in 0..=text.len() {
        fs::write(&path, &text[..len]).unwrap();
        let there = living(&followed.load().0);
        for n in 0..there.len() {
            assert!(there.contains_key(format!("key {n}").as_bytes()), "{len}");
        }
        assert!(there.len() >= last, "{len}");
        last = there.len();
        // What a disk has behind the last byte that it was told to keep.
        fs::write(&path, [&text[..len], &[0; 100]].concat()).unwrap();
        assert_eq!(living(&followed.load().0).len(), last, "{len}");
        assert_eq!(fs::metadata(&path).unwrap().len() as usize, len + 100, "it stays as it is");
    }
    assert_eq!(last, 6);
}

#[test]
fn damage_elsewhere_is_told_with_file_and_place() {
    let mut followed = Followed::new(zone(false));
    for n in 0..3 {
        followed.set(&format!("key {n}"), "value");
    }
    followed.append();
    let path = followed.changes(1);
    let text = fs::read_to_string(&path).unwrap();
    let place = text.find("key 1").unwrap();
    for (from, to, offset, why) in [
        ("\"key 1\"", "key 1\"\"", place - 1, "a string has to begin here"),
        ("\"changes\":1", "\"changes\":2", 1, "the number of the file isn't the one that its name has"),
        ("{\"\":{\"zonemesh\":1,\"changes\":1}}\n", "", 1, "the first line has to tell the file's number"),
        ("\"zonemesh\":1", "\"zonemesh\":2", 5, "a later version of zonemesh"),
        ("\"zonemesh\":1", "\"zonemech\":1", 5, "only \"zonemesh\""),
        ("{\"key 2\"", "{\"\":{\"changes\":1},\"key 2\"", text.find("\"key 2\"").unwrap(), "belongs to the first line"),
        ("\"bytes\":", "\"byte\":", text.find("\"bytes\"").unwrap(), "only \"modified\""),
    ] {
        assert_eq!(text.matches(from).count(), 1, "{from}");
        fs::write(&path, text.replace(from, to)).unwrap();
        let (error, path) = (followed.error(), path.display());
        let expected = format!("is followed by \"{path}\", which is damaged at byte {offset}: ");
        assert!(error.starts_with(&expected) && error.contains(why), "{to}: {error}");
    }
    fs::write(&path, &text).unwrap();
    assert_eq!(living(&followed.load().0).len(), 3);
}

#[test]
fn a_state_file_that_was_put_back_wins_over_later_changes() {
    let mut followed = Followed::new(zone(false));
    followed.set("a", "1");
    followed.write();
    let (path, copy) = (followed.state.path.clone(), followed.folder.0.join("copy"));
    fs::copy(&path, &copy).unwrap();
    followed.set("a", "2");
    followed.append();
    assert_eq!(living(&followed.load().0)[&b"a"[..]].0, b"2");
    // Byte for byte what is there already, but put there later.
    fs::copy(&copy, &path).unwrap();
    let (to, told) = followed.load();
    assert_eq!((living(&to)[&b"a"[..]].0.as_slice(), told.changes, told.left_out), (&b"1"[..], 0, 1));
    assert!(matches!(followed.journal.append(&followed.state, &followed.licence), Err(WriteError::Lost)));
    followed.write();
    assert_eq!(followed.folder.names(), ["copy", "one.json"], "a new state file takes the old changes away");
    assert_eq!(living(&followed.load().0)[&b"a"[..]].0, b"2");
}

#[test]
fn changes_follow_the_state_file_that_they_were_made_after() {
    let mut followed = Followed::new(zone(false));
    followed.set("a", "1");
    followed.append();
    let old = fs::read_to_string(followed.changes(1)).unwrap();
    followed.write();
    followed.set("b", "2");
    followed.append();
    assert_eq!(followed.folder.names(), ["one.json", "one.json.1.changes"]);
    // Some that were left behind, of a life before.
    fs::write(followed.changes(9), old.replace("\"changes\":1", "\"changes\":9")).unwrap();
    let (to, told) = followed.load();
    assert_eq!((living(&to).len(), told.changes, told.left_out), (2, 1, 1));
    followed.write();
    assert_eq!(followed.folder.names(), ["one.json"]);
    // One that was begun for a state file that never came follows nothing.
    fs::write(followed.changes(5), "{\"\":{\"zonemesh\":1,\"changes\":5}}\n{\"b\":{\"deleted\":true}}\n").unwrap();
    let (to, told) = followed.load();
    assert_eq!((living(&to).len(), told.changes, told.left_out), (2, 0, 1));
}

#[test]
fn nobody_appends_without_the_licence() {
    let mut followed = Followed::new(zone(false));
    followed.set("a", "1");
    followed.append();
    let text = fs::read(followed.changes(1)).unwrap();
    followed.set("a", "2");
    let (withdrawn, outdated, released) = (licence(), licence(), licence());
    withdrawn.withdrawn.store(true, Ordering::Release);
    outdated.control.next_generation();
    released.control.release(&released.lease);
    for licence in [withdrawn, outdated, released] {
        assert!(matches!(followed.journal.append(&followed.state, &licence), Err(WriteError::Withdrawn)));
        assert_eq!(fs::read(followed.changes(1)).unwrap(), text);
    }
    // What a walk in vain has passed is passed again.
    followed.append();
    assert_eq!(living(&followed.load().0)[&b"a"[..]].0, b"2");
}

#[test]
fn what_goes_unseen_is_noticed() {
    let small = |evict| Zone::create(memory(64 << 10), &Params { evict, ..Params::new(NODE) }).unwrap();
    let mut followed = Followed::new(small(true));
    let value = "v".repeat(300);
    for n in 0..500 {
        followed.set(&format!("key {n}"), &value);
    }
    assert!(followed.zone().stats().evicted > 0 && followed.zone().trail_missed());
    followed.write();
    assert!(!followed.zone().trail_missed());
    // Tombstones that are given up for want of room before they were written.
    let mut followed = Followed::new(small(false));
    let mut n = 0;
    let mut fill = |followed: &Followed| {
        let set = |n| {
            followed.zone().set(
                format!("key {n}").as_bytes(),
                value.as_bytes(),
                Life::Default,
                Condition::Always,
                now(),
            )
        };
        while set(n).is_ok() {
            n += 1;
        }
        n
    };
    let last = fill(&followed);
    followed.append();
    (0..last).for_each(|n| _ = followed.zone().delete(format!("key {n}").as_bytes(), now()).unwrap());
    assert!(!followed.zone().trail_missed());
    fill(&followed);
    assert!(followed.zone().trail_missed());
    followed.write();
    assert_eq!(living(&followed.load().0), living(followed.zone()));
}

#[test]
fn nothing_is_remembered_for_files_that_are_not_followed() {
    let zone = zone(false);
    let set = |key: &[u8]| zone.set(key, b"v", Life::Default, Condition::Always, now()).unwrap();
    set(b"a");
    zone.delete(b"a", now()).unwrap();
    assert_eq!(zone.stats().tombstones, 0);
    let mut followed = Followed::new(zone);
    followed.set("a", "v");
    zone.delete(b"a", now()).unwrap();
    assert_eq!(zone.stats().tombstones, 1);
    followed.append();
    zone.upkeep(now() + 70_000, 100);
    assert_eq!(zone.stats().tombstones, 0, "for a minute");
    zone.keep_state(None);
    assert!(!zone.trail_stands());
    set(b"a");
    zone.delete(b"a", now()).unwrap();
    assert_eq!(zone.stats().tombstones, 0);
    assert_eq!(zone.params().matching, Matching::Exact);
}

#[test]
fn who_reads_while_another_writes_has_all_that_was_there_when_it_began() {
    let mut followed = Followed::new(zone(false));
    for n in 0..2_000 {
        followed.set(&format!("filling {n}"), &"v".repeat(100));
    }
    followed.set("count", "0");
    followed.write();
    let (path, params) = (followed.state.path.clone(), followed.zone().params());
    let (written, ended) = (&AtomicU64::new(0), &AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for count in 1.. {
                followed.set("count", &count.to_string());
                // Most are appended; then all is written, and the files of changes go.
                if count % 3 == 0 {
                    followed.write()
                } else {
                    followed.append()
                }
                written.store(count, Ordering::SeqCst);
                if ended.load(Ordering::SeqCst) {
                    break;
                }
            }
        });
        let (mut loaded, until) = (0, Instant::now() + Duration::from_secs(60));
        let once = || {
            let least = written.load(Ordering::SeqCst);
            let to = Zone::create(memory(1 << 20), &params).unwrap();
            match load(&path, &to, now()) {
                // It says so, where the writer is that much quicker.
                Err(LoadError::Restless) if Instant::now() < until => return Ok(0),
                Err(error) => return Err(error.to_string()),
                Ok(_) => {}
            }
            let mut count = Vec::new();
            to.get(b"count", now(), &mut count).unwrap();
            let count: u64 = String::from_utf8(count).unwrap().parse().map_err(|_| "no count".to_owned())?;
            if count < least { Err(format!("{count} instead of {least}")) } else { Ok(1) }
        };
        let mut outcome = Ok(());
        while outcome.is_ok() && loaded < 40 {
            outcome = once().map(|one| loaded += one);
        }
        ended.store(true, Ordering::SeqCst);
        assert_eq!(outcome, Ok(()));
    });
}
