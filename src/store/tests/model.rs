//! The store and a plain map, given the same operations and the same time, hold the same.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::check::check;
use super::*;
use crate::store::{Condition, Life, StoreError, Written};

#[derive(Clone, Debug)]
enum Operation {
    Set { key: u8, len: usize, life: Option<Millis>, condition: u8 },
    Touch { key: u8, life: Millis },
    Delete { key: u8 },
    Clear,
    Wait { millis: Millis },
    Upkeep { budget: usize },
}

fn operation() -> impl Strategy<Value = Operation> {
    let len = prop_oneof![4 => 0..200usize, 1 => 0..6000usize];
    let life = prop_oneof![Just(None), (1..5000u64).prop_map(Some)];
    prop_oneof![
        8 => (0..40u8, len, life, 0..3u8).prop_map(|(key, len, life, condition)| Operation::Set { key, len, life, condition }),
        2 => (0..40u8, 1..5000u64).prop_map(|(key, life)| Operation::Touch { key, life }),
        3 => (0..40u8).prop_map(|key| Operation::Delete { key }),
        1 => Just(Operation::Clear),
        4 => (0..2000u64).prop_map(|millis| Operation::Wait { millis }),
        3 => (0..50usize).prop_map(|budget| Operation::Upkeep { budget }),
    ]
}

type Model = BTreeMap<Vec<u8>, (Vec<u8>, Option<Millis>)>;

fn run(operations: &[Operation], size: usize, timeout: Option<Millis>, sync: bool) {
    let zone = Fixture::new(size, timeout, sync);
    let (mut model, mut now) = (Model::new(), START);
    for (step, operation) in operations.iter().enumerate() {
        model.retain(|_, (_, end)| end.is_none_or(|end| end > now));
        match operation {
            Operation::Set { key, len, life, condition } => {
                let (key, value) = (vec![*key; 3], vec![step as u8; *len]);
                let condition = [Condition::Always, Condition::Absent, Condition::Present][usize::from(*condition)];
                let had = model.contains_key(&key);
                let holds = match condition {
                    Condition::Always => true,
                    Condition::Absent => !had,
                    Condition::Present => had,
                    Condition::Version(_) => unreachable!("not among those that are generated"),
                };
                let written = zone.set(&key, &value, life.map_or(Life::Default, Life::For), condition, now);
                match written {
                    Ok(Written::Done(_)) => {
                        assert!(holds);
                        model.insert(key, (value, life.or(timeout).map(|life| now + life)));
                    }
                    Ok(Written::Unmet) => assert!(!holds),
                    Err(StoreError::NoMemory) => {
                        assert!(holds && size < 1 << 20);
                        let fits = model.get(&key).is_some_and(|(old, _)| old.len() >= value.len());
                        assert!(!fits, "an update that isn't longer never fails: step {step}, {operation:?}");
                    }
                    Err(other) => panic!("{other}"),
                }
            }
            Operation::Touch { key, life } => {
                let written = zone.touch(&[*key; 3], Life::For(*life), now).expect("a life of the same size");
                let had = model.get_mut(&vec![*key; 3]);
                assert_eq!(had.is_some(), written != Written::Unmet);
                if let Some((_, end)) = had {
                    *end = Some(now + life);
                }
            }
            Operation::Delete { key } => {
                let had = model.remove(&vec![*key; 3]).is_some();
                assert_eq!(zone.delete(&[*key; 3], now).expect("deleted") != Written::Unmet, had);
            }
            Operation::Clear => {
                zone.clear(now).expect("cleared");
                model.clear();
            }
            Operation::Wait { millis } => now += millis,
            Operation::Upkeep { budget } => {
                zone.upkeep(now, *budget);
            }
        }
        model.retain(|_, (_, end)| end.is_none_or(|end| end > now));
        let expected: Vec<_> = model.iter().map(|(k, (v, end))| (k.clone(), v.clone(), *end)).collect();
        assert_eq!(listing(&zone, now), expected, "after step {step}: {operation:?}");
        for (key, (expected, _)) in &model {
            assert_eq!(value(&zone, key, now).as_ref(), Some(expected));
        }
    }
    check(&zone);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_store_is_a_map(
        operations in prop::collection::vec(operation(), 1..150),
        small in any::<bool>(),
        timeout in prop_oneof![Just(None), (1..10_000u64).prop_map(Some)],
        sync in any::<bool>(),
    ) {
        run(&operations, if small { 32 << 10 } else { 1 << 20 }, timeout, sync);
    }
}
