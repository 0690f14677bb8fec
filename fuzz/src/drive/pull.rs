//! A node that was dialled, and a dialer that says anything.

use super::script::items;
use super::world::World;
use zonemesh::record::Millis;
use zonemesh::sync::Pull;

/// What one call may append: answers for all zones, and somewhat more than what came in.
const MOST: usize = 64 * 1024;

/// Runs a script; gives the world as it then is.
pub fn run(data: &[u8]) -> World {
    let mut world = World::new(2, false);
    let mut pull = Pull::new(world.node.clone(), 1, world.now);
    let mut ended = false;
    for item in items(data) {
        world.happens(&item);
        let bytes = item.wire().unwrap_or_default();
        for part in bytes.chunks(world.cut) {
            let mut out = Vec::new();
            ended = pull.handle(part, &mut out, world.now).is_err();
            assert!(out.len() <= MOST + 16 * part.len(), "{} bytes in, {} out", part.len(), out.len());
            if ended {
                assert!(pull.handle(part, &mut out, world.now).is_err(), "a session that has ended goes on");
                break;
            }
        }
        if ended || !tick(&mut pull, world.now) {
            break;
        }
        assert!(pull.notes().len() <= 65, "too many log lines");
    }
    let mut out = Vec::new();
    pull.close(&mut out, "the end");
    assert!(out.len() <= 1_024);
    world.check();
    world
}

/// Time has passed: whatever is due is done, and then nothing is due at the same time. `false`: the session is over.
fn tick(pull: &mut Pull, now: Millis) -> bool {
    for _ in 0..3 {
        if pull.deadline() > now {
            return true;
        }
        let mut out = Vec::new();
        if pull.tick(&mut out, now).is_err() {
            return false;
        }
        assert!(out.len() <= MOST);
    }
    panic!("a deadline that is always due");
}
