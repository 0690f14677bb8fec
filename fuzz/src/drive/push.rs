//! A node that dials, and a dialled node that says anything.

use super::script::{WRITE, items};
use super::world::{LIMITS, World};
use zonemesh::sync::Push;

/// Bytes asked for at once, and what may come beyond them: frames are whole, and lists aren't cut.
const BUDGET: usize = 8 * 1024;
const BEYOND: usize = 64 * 1024;
/// Calls of `fill` until nothing more is to be sent.
const CALLS: usize = 2_000;

/// Runs a script; gives the world as it then is, and what was sent.
pub fn run(data: &[u8]) -> (World, Vec<u8>) {
    let mut world = World::new(1, true);
    fill_with_records(&world);
    let mut before = world.contents();
    let mut push = Push::new(world.node.clone(), 1, world.now);
    let mut sent = Vec::new();
    'script: for item in items(data) {
        world.happens(&item);
        if item.kind == WRITE {
            (0..world.node.zones.len()).for_each(|zone| push.mark(zone, world.node.zones[zone].zone.all_shards()));
            before = world.contents();
        }
        let bytes = item.wire().unwrap_or_default();
        for part in bytes.chunks(world.cut) {
            if push.handle(part, world.now).is_err() {
                assert!(push.handle(part, world.now).is_err(), "a session that has ended goes on");
                break 'script;
            }
        }
        if push.deadline() <= world.now && push.tick(world.now).is_err() {
            break;
        }
        if !drain(&mut push, &world, &mut sent) {
            break;
        }
        assert!(push.notes().len() <= 65, "too many log lines");
        let _ = push.flushed();
        (0..world.node.zones.len()).for_each(|zone| _ = push.pending(zone));
    }
    push.close(&mut sent, "the end");
    let now: Vec<_> = world.contents();
    assert!(now.iter().all(|record| before.contains(record)), "who is dialled changed what the dialer has");
    world.check();
    (world, sent)
}

/// What there is to send, within the bounds of each call. `false`: the session is over.
fn drain(push: &mut Push, world: &World, sent: &mut Vec<u8>) -> bool {
    sent.clear();
    for _ in 0..CALLS {
        let mut out = Vec::new();
        if push.fill(&mut out, BUDGET, world.now).is_err() {
            return false;
        }
        assert!(out.len() <= BUDGET + BEYOND, "{} bytes at once", out.len());
        if out.is_empty() {
            if push.deadline() > world.now {
                return true;
            }
            if push.tick(world.now).is_err() {
                return false;
            }
        }
        sent.extend(out);
    }
    panic!("there is always something to send");
}

/// Records of each form: one larger than a frame, one with an end, a tombstone, one of another node.
pub fn fill_with_records(world: &World) {
    use zonemesh::record::{Identity, Kind, Record, Stamp, Version};
    let zone = &world.node.zones[2].zone;
    let large = vec![5; 3 * LIMITS.frame_size];
    let stamp = |millis| Stamp::at(world.now - 60_000 + millis);
    let own = world.node.control.identity();
    let record = |key: &[u8], stamp, origin, value, expires| {
        let version = Version { stamp, origin };
        let record = Record { kind: Kind::Register, version, key, value, expires, shortened: expires.is_some() };
        zone.apply(&record, world.now, LIMITS.max_drift).expect("nobody holds a lock");
    };
    record(b"own", stamp(1), own, Some(b"1".as_slice()), None);
    record(b"with an end", stamp(2), own, Some(b"2"), Some(world.now + 3_600_000));
    record(b"deleted", stamp(3), own, None, None);
    record(b"large", stamp(4), own, Some(&large), None);
    record(b"of another", stamp(5), Identity([9; 16]), Some(b"\xff\x00"), None);
    zone.advance(Identity([9; 16]), stamp(5));
    zone.close(world.now);
}
