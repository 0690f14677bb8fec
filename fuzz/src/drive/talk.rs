//! What two nodes say to each other today, as scripts: where the search for other things to say begins.

use super::push::fill_with_records;
use super::script::{WAIT, WRITE, put, put_frames};
use super::world::World;
use zonemesh::record::{Identity, Kind, Record, Stamp, Version};
use zonemesh::sync::{Pull, Push};

/// Between two exchanges, milliseconds, and how many there are: enough to join and to compare.
const STEP: u32 = 50;
const STEPS: u32 = 400;
/// The exchange before which the dialer gets a record that no feed brings.
const LATER: u32 = 20;

/// The dialer's side, the dialled node's, and the dialer at the end.
pub fn conversation() -> (Vec<u8>, Vec<u8>, World) {
    let (mut dialer, mut dialled) = (World::new(1, true), World::new(2, false));
    fill_with_records(&dialer);
    let mut push = Push::new(dialer.node.clone(), 1, dialer.now);
    let mut pull = Pull::new(dialled.node.clone(), 1, dialled.now);
    let (mut said, mut answered) = (Vec::new(), Vec::new());
    for step in 0..STEPS {
        if step == LATER {
            later(&dialer);
        }
        if step % 90 == 30 {
            let body = [&[0x23][..], b"own writes"].concat();
            put(&mut said, WRITE, &body);
            put(&mut answered, WRITE, &body);
            dialer.write(&body);
            dialled.write(&body);
            push.mark(2, dialer.node.zones[2].zone.all_shards());
        }
        let (mut forth, mut back) = (Vec::new(), Vec::new());
        if push.deadline() <= dialer.now {
            push.tick(dialer.now).expect("a good conversation");
        }
        push.fill(&mut forth, 1 << 16, dialer.now).expect("a good conversation");
        pull.handle(&forth, &mut back, dialled.now).expect("a good conversation");
        if pull.deadline() <= dialled.now {
            pull.tick(&mut back, dialled.now).expect("a good conversation");
        }
        push.handle(&back, dialer.now).expect("a good conversation");
        put_frames(&mut said, &forth);
        put_frames(&mut answered, &back);
        for world in [&mut dialer, &mut dialled] {
            world.now += u64::from(STEP);
        }
        put(&mut said, WAIT, &STEP.to_le_bytes());
        put(&mut answered, WAIT, &STEP.to_le_bytes());
    }
    (said, answered, dialer)
}

/// A record of a third node, which only comparing finds.
fn later(dialer: &World) {
    let version = Version { stamp: Stamp::at(dialer.now - 50_000), origin: Identity([8; 16]) };
    let record = Record {
        kind: Kind::Register,
        version,
        key: b"found",
        value: Some(b"by comparing"),
        expires: None,
        shortened: false,
    };
    dialer.node.zones[2].zone.apply(&record, dialer.now, 60_000).expect("nobody holds a lock");
}
