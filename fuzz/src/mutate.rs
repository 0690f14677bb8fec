//! Changes of a script that leave it one: libFuzzer's own changes go into the bodies of items.

use crate::drive::script::{CUT, RAW, WAIT, WRITE, items, put};

/// Types that are worth trying: all frames, and what else happens.
const KINDS: [u8; 25] =
    [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, CUT, RAW, WAIT, WRITE];
/// By how much a body may grow at once.
const ROOM: usize = 64;

/// A small generator: a seed decides everything.
struct Dice(u64);

impl Dice {
    fn new(seed: u32) -> Dice {
        Dice(u64::from(seed) << 1 | 1)
    }

    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides.max(1)
    }
}

/// libFuzzer's custom mutator: changes `data[..size]` in place, gives the new size.
pub fn script(data: &mut [u8], size: usize, max_size: usize, seed: u32) -> usize {
    let mut dice = Dice::new(seed);
    if dice.roll(16) == 0 {
        return libfuzzer_sys::fuzzer_mutate(data, size, max_size);
    }
    let mut list: Vec<(u8, Vec<u8>)> =
        items(&data[..size]).into_iter().map(|item| (item.kind, item.body.to_vec())).collect();
    let at = dice.roll(list.len());
    match dice.roll(16) {
        0 if list.len() > 1 => _ = list.remove(at),
        1 if list.len() > 1 => {
            let other = dice.roll(list.len());
            list.swap(at, other);
        }
        2 if !list.is_empty() => list.insert(dice.roll(list.len()), list[at].clone()),
        3 => list.insert(at, (KINDS[dice.roll(KINDS.len())], vec![0; dice.roll(32)])),
        4 if !list.is_empty() => list[at].0 = KINDS[dice.roll(KINDS.len())],
        5 if !list.is_empty() => list.truncate(at + 1),
        _ => match list.get_mut(at) {
            Some((_, body)) => {
                let old = body.len();
                body.resize(old + ROOM, 0);
                let new = libfuzzer_sys::fuzzer_mutate(body, old, old + ROOM);
                body.truncate(new);
            }
            None => list.push((KINDS[dice.roll(KINDS.len())], vec![0; dice.roll(32)])),
        },
    }
    written(&list, &mut data[..max_size])
}

/// libFuzzer's custom crossover: the beginning of one script, and the end of another.
pub fn cross(one: &[u8], other: &[u8], out: &mut [u8], seed: u32) -> usize {
    let mut dice = Dice::new(seed);
    let (one, other) = (items(one), items(other));
    let (first, second) = (dice.roll(one.len() + 1), dice.roll(other.len() + 1));
    let list: Vec<(u8, Vec<u8>)> =
        one[..first].iter().chain(&other[second..]).map(|item| (item.kind, item.body.to_vec())).collect();
    written(&list, out)
}

/// Writes as many items as fit.
fn written(list: &[(u8, Vec<u8>)], out: &mut [u8]) -> usize {
    let mut bytes = Vec::new();
    list.iter().for_each(|(kind, body)| put(&mut bytes, *kind, body));
    let size = bytes.len().min(out.len());
    out[..size].copy_from_slice(&bytes[..size]);
    size
}
