//! Messages survive the way there and back, whatever they hold.

use super::super::frame::{Input, Reader};
use super::super::message::{self, Entry, Hello, Listed, Message, Mode, Pong};
use super::super::write;
use crate::record::{Identity, Kind, Record, Stamp, Version};
use crate::store::Matching;
use proptest::prelude::*;

fn identity() -> impl Strategy<Value = Identity> {
    any::<u128>().prop_map(|bits| Identity(bits.max(1).to_le_bytes()))
}

fn entries() -> impl Strategy<Value = Vec<Entry>> {
    let entry = (identity(), any::<u64>(), any::<bool>());
    let entry =
        entry.prop_map(|(identity, stamp, gone)| Entry { identity, stamp: Stamp(stamp), gone, anew: stamp % 2 == 0 });
    proptest::collection::vec(entry, 0..120)
}

/// Takes what was written apart and hands each message to `each`. Every frame but a record's is within `bound`.
fn read(out: &[u8], bound: usize, mut each: impl FnMut(Message<'_>)) {
    let mut input = Input::new(bound);
    let mut rest = out;
    while let Some((kind, body)) = input.next(&mut rest).unwrap() {
        each(message::decode(kind, body).unwrap());
        // What follows the known fields is of a later version; in records it can't be told from another record.
        if !matches!(kind, message::kind::RECORDS | message::kind::CHUNK) {
            let mut longer = body.to_vec();
            longer.extend_from_slice(b"later fields");
            message::decode(kind, &longer).unwrap();
        }
        for cut in 0..body.len() {
            let _ = message::decode(kind, &body[..cut]);
        }
    }
    assert!(rest.is_empty());
}

proptest! {
    #[test]
    fn hellos_round_trip(lowest: u16, highest: u16, identity in identity(), now: u64, bound: u32) {
        let sent = Hello { lowest, highest, identity, now, bound };
        let mut out = Vec::new();
        write::hello(&mut out, &sent);
        read(&out, 64, |message| match message {
            Message::Hello(got) => assert_eq!(got, sent),
            other => panic!("{other:?}"),
        });
    }

    #[test]
    fn lists_round_trip_in_parts(zone: u64, epoch: u64, stamp: u64, complete: bool, sent in entries()) {
        let bound = 1024;
        let mut out = Vec::new();
        write::subscribe(&mut out, bound, zone, epoch, Mode::Full, Stamp(stamp), &sent);
        let (mut got, mut last) = (Vec::new(), false);
        read(&out, bound, |message| match message {
            Message::Subscribe { zone: z, epoch: e, mode, more, cleared, positions } => {
                assert!(!last);
                last = !more;
                assert_eq!((z, e, Mode::from_byte(mode), cleared), (zone, epoch, Some(Mode::Full), Stamp(stamp)));
                got.extend(positions);
            }
            other => panic!("{other:?}"),
        });
        prop_assert!(last);
        prop_assert_eq!(&got, &sent);

        let mut out = Vec::new();
        write::position(&mut out, bound, zone, epoch, complete, &sent, Stamp(stamp));
        let (mut got, mut completes) = (Vec::new(), 0);
        read(&out, bound, |message| match message {
            Message::Position { zone: z, epoch: e, complete, positions, evicted } => {
                assert_eq!((z, e, evicted), (zone, epoch, Stamp(stamp)));
                completes += u32::from(complete);
                got.extend(positions);
            }
            other => panic!("{other:?}"),
        });
        prop_assert_eq!(completes, u32::from(complete));
        prop_assert_eq!(&got, &sent);

        let mut out = Vec::new();
        write::have(&mut out, bound, zone, &sent);
        let mut got = Vec::new();
        read(&out, bound, |message| match message {
            Message::Have { zone: z, positions } => {
                assert_eq!(z, zone);
                got.extend(positions);
            }
            other => panic!("{other:?}"),
        });
        prop_assert_eq!(&got, &sent);
    }

    #[test]
    fn comparing_round_trips_in_parts(
        zone: u64,
        round: u64,
        seed: [u8; 16],
        numbers in proptest::collection::vec(any::<u64>(), 0..400),
        stamps in (any::<u64>(), any::<u64>(), any::<u64>()),
        trusted: bool,
        positions in entries(),
    ) {
        let bound = 1024;
        let (until, ends, evicted) = (Stamp(stamps.0), stamps.1, Stamp(stamps.2));
        let mut out = Vec::new();
        write::compare(&mut out, &write::Question { zone, round, seed, bits: 9, until, ends, evicted });
        read(&out, bound, |message| match message {
            Message::Compare { zone: z, round: r, seed: s, bits, until: u, ends: e, evicted: v } => {
                assert_eq!((z, r, s, bits, u, e, v), (zone, round, &seed, 9, until, ends, evicted));
            }
            other => panic!("{other:?}"),
        });

        let (mut lists, mut wants) = (Vec::new(), Vec::new());
        let ranges: Vec<u16> = numbers.iter().map(|number| *number as u16).collect();
        write::list(&mut lists, bound, zone, round, &ranges);
        write::want(&mut wants, bound, zone, round, &numbers);
        let (mut listed, mut wanted, mut lasts) = (Vec::new(), Vec::new(), 0);
        for out in [&lists, &wants] {
            read(out, bound, |message| match message {
                Message::List { zone: z, round: r, more, ranges } => {
                    assert_eq!((z, r), (zone, round));
                    listed.extend(ranges.map(|range| u16::from_le_bytes(*range)));
                    lasts += u32::from(!more);
                }
                Message::Want { zone: z, round: r, more, hashes } => {
                    assert_eq!((z, r), (zone, round));
                    wanted.extend(hashes.map(|hash| u64::from_le_bytes(*hash)));
                    lasts += u32::from(!more);
                }
                other => panic!("{other:?}"),
            });
        }
        prop_assert_eq!((listed, wanted, lasts), (ranges, numbers.clone(), 2));

        let versions: Vec<Listed> = numbers
            .iter()
            .zip(&positions)
            .map(|(hash, entry)| {
                let version = Version { stamp: entry.stamp, origin: entry.identity };
                Listed { hash: *hash, version, tombstone: entry.gone }
            })
            .collect();
        let mut out = Vec::new();
        write::versions(&mut out, zone, round, &versions);
        write::sent(&mut out, zone, round);
        let mut got = Vec::new();
        read(&out, 8192, |message| match message {
            Message::Versions { versions, .. } => got.extend(versions.filter_map(Listed::decode)),
            Message::Sent { zone: z, round: r } => assert_eq!((z, r), (zone, round)),
            other => panic!("{other:?}"),
        });
        prop_assert_eq!(got, versions);

        let mut out = Vec::new();
        write::listed(&mut out, bound, zone, round, trusted, evicted, &positions);
        let (mut got, mut lasts) = (Vec::new(), 0);
        read(&out, bound, |message| match message {
            Message::Listed { more, trusted: t, evicted: v, positions, .. } => {
                assert_eq!((t, v), (trusted, evicted));
                lasts += u32::from(!more);
                got.extend(positions);
            }
            other => panic!("{other:?}"),
        });
        prop_assert_eq!((got, lasts), (positions, 1));
    }

    #[test]
    fn records_round_trip(
        records in proptest::collection::vec(
            (
                (1u64.., identity(), proptest::option::of(0u64..2000)),
                proptest::collection::vec(any::<u8>(), 1..40),
                proptest::option::of(proptest::collection::vec(any::<u8>(), 0..90)),
                proptest::option::of(any::<u64>()),
                any::<bool>(),
            ),
            0..12,
        ),
    ) {
        let own = Identity([7; 16]);
        let mut out = Vec::new();
        let sent: Vec<_> = records
            .iter()
            .map(|((stamp, origin, number), key, value, expires, shortened)| {
                let origin = number.map_or(own, |_| *origin);
                let version = Version { stamp: Stamp(*stamp), origin };
                let expires = expires.filter(|_| value.is_some());
                let record =
                    Record { kind: Kind::Register, version, key, value: value.as_deref(), expires, shortened: *shortened };
                (record, *number)
            })
            .collect();
        for (record, number) in &sent {
            let before = out.len();
            write::put_record(&mut out, record, *number);
            let payload = record.key.len() + record.value.map_or(0, <[u8]>::len);
            prop_assert!(out.len() - before <= payload + message::RECORD_HEAD);
        }
        let mut reader = Reader::new(&out);
        for (record, number) in &sent {
            let lookup = |got: u64| (Some(got) == *number).then_some(record.version.origin);
            let got = message::decode_record(&mut reader, own, lookup);
            prop_assert_eq!(got, Ok(Some(*record)));
        }
        prop_assert!(reader.is_empty());
    }

    #[test]
    fn the_small_ones_round_trip(a: u64, b in 1u64.., c: u64, joined: bool, identity in identity(), text in ".{0,200}") {
        let mut out = Vec::new();
        write::zone(&mut out, a, Matching::Exact, joined, &text);
        write::origin(&mut out, a, identity);
        write::clear(&mut out, a, Stamp(b));
        write::ack(&mut out, a, b, Stamp(c), !joined);
        write::ping(&mut out, c);
        write::pong(&mut out, c, Pong { clock: a, shared: joined });
        write::chunk(&mut out, a, b, joined, !joined, 77, text.as_bytes());
        write::refuse(&mut out, a, &text);
        write::bye(&mut out, 3, &text);
        write::total(&mut out, a, b, c);
        let mut at = 0;
        read(&out, 4096, |message| {
            match (at, message) {
                (0, Message::Zone { number, kind, matching, joined: j, name }) => {
                    assert_eq!((number, kind, matching, j, name), (a, 1, 0, joined, text.as_bytes()));
                }
                (1, Message::Origin { number, identity: got }) => assert_eq!((number, got), (a, identity)),
                (2, Message::Clear { zone, stamp }) => assert_eq!((zone, stamp), (a, Stamp(b))),
                (3, Message::Ack { zone, epoch, stamp, lacking }) => {
                    assert_eq!((zone, epoch, stamp, lacking), (a, b, Stamp(c), !joined));
                }
                (4, Message::Ping { time }) => assert_eq!(time, c),
                (5, Message::Pong(pong)) => assert_eq!(pong, Pong { clock: a, shared: joined }),
                (6, Message::Chunk { zone, epoch, first, last, total, bytes }) => {
                    assert_eq!((zone, epoch, first, last, total), (a, b, joined, !joined, 77));
                    assert_eq!(bytes, text.as_bytes());
                }
                (7, Message::Refuse { number, reason }) => {
                    assert_eq!(number, a);
                    assert!(text.as_bytes().starts_with(reason) && std::str::from_utf8(reason).is_ok());
                }
                (8, Message::Bye { code, text: got }) => {
                    assert_eq!(code, 3);
                    assert!(text.as_bytes().starts_with(got));
                }
                (9, Message::Total { zone, epoch, records }) => assert_eq!((zone, epoch, records), (a, b, c)),
                (at, other) => panic!("{at}: {other:?}"),
            }
            at += 1;
        });
        prop_assert_eq!(at, 10);
    }

    #[test]
    fn any_body_of_any_type_is_taken_or_refused(kind: u8, body in proptest::collection::vec(any::<u8>(), 0..120)) {
        match message::decode(kind, &body) {
            Ok(Message::Records { mut records, .. }) => {
                while !records.is_empty() && message::decode_record(&mut records, Identity([1; 16]), |_| None).is_ok() {}
            }
            Ok(Message::Subscribe { positions, .. } | Message::Position { positions, .. }) => {
                assert!(positions.count() < 5);
            }
            _ => {}
        }
    }
}
