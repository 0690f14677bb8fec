//! Networks and prefixes: the longest that contains what is looked up answers.

use proptest::prelude::*;

use super::check::check;
use super::*;
use crate::store::{AttachError, Condition, Life, Matching, StoreError};

fn zone_of(matching: Matching, size: usize) -> Fixture {
    Fixture::with(size, Params { matching, ..Params::new(identity(1)) })
}

fn put(zone: &Zone, key: &str) {
    zone.set(key.as_bytes(), key.as_bytes(), Life::Default, Condition::Always, START).expect("room");
}

fn answer(zone: &Zone, key: &str, now: Millis) -> Option<String> {
    let mut value = Vec::new();
    let found = zone.look_up(key.as_bytes(), now, &mut value).expect("a look-up");
    found.map(|_| String::from_utf8(value).expect("text"))
}

#[test]
fn the_longest_network_answers() {
    let zone = zone_of(Matching::Ip, 64 << 10);
    for key in
        ["10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", "0.0.0.0/0", "2001:db8::/32", "2001:db8::1", "::/0", "192.168.7.9/24"]
    {
        put(&zone, key);
    }
    for (asked, expected) in [
        ("10.1.2.3", "10.1.2.3"),
        ("10.1.2.4", "10.1.0.0/16"),
        ("10.2.2.4", "10.0.0.0/8"),
        ("11.2.2.4", "0.0.0.0/0"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("10.1.0.0/16", "10.1.0.0/16"),
        ("10.1.0.0/15", "10.0.0.0/8"),
        ("10.1.4.0/24", "10.1.0.0/16"),
        ("2001:db8::1", "2001:db8::1"),
        ("2001:0DB8:0::2", "2001:db8::/32"),
        ("fe80::1", "::/0"),
        ("192.168.7.200", "192.168.7.9/24"),
    ] {
        assert_eq!(answer(&zone, asked, START).as_deref(), Some(expected), "{asked}");
    }
    assert_eq!(answer(&zone, "unix:", START), None);
    // The API means the record itself: exactly this spelling.
    assert_eq!(value(&zone, b"10.1.2.4", START), None);
    assert_eq!(value(&zone, b"192.168.7.9/24", START).as_deref(), Some(&b"192.168.7.9/24"[..]));
    assert_eq!(value(&zone, b"192.168.7.0/24", START), None);
    assert_eq!(zone.set(b"not one", b"", Life::Default, Condition::Always, START), Err(StoreError::BadKey));
    zone.delete(b"10.1.2.3", START).expect("deleted");
    assert_eq!(answer(&zone, "10.1.2.3", START).as_deref(), Some("10.1.0.0/16"));
    check(&zone);
}

#[test]
fn of_two_spellings_the_one_written_last_answers() {
    let zone = zone_of(Matching::Ip, 64 << 10);
    put(&zone, "10.0.0.1");
    put(&zone, "10.0.0.1/32");
    assert_eq!(answer(&zone, "10.0.0.1", START).as_deref(), Some("10.0.0.1/32"));
    put(&zone, "10.0.0.1");
    assert_eq!(answer(&zone, "10.0.0.1", START).as_deref(), Some("10.0.0.1"));
    assert_eq!(listing(&zone, START).len(), 2);
}

#[test]
fn an_ended_record_makes_way_for_a_shorter_one() {
    let zone = zone_of(Matching::Prefix, 64 << 10);
    put(&zone, "/a");
    zone.set(b"/a/b", b"short", Life::For(100), Condition::Always, START).expect("room");
    assert_eq!(answer(&zone, "/a/b/c", START).as_deref(), Some("short"));
    assert_eq!(answer(&zone, "/a/b/c", START + 100).as_deref(), Some("/a"));
}

#[test]
fn the_type_of_a_zone_stays() {
    let mapping = Region::anonymous(64 << 10).expect("memory");
    let params = Params { matching: Matching::Ip, ..Params::new(identity(1)) };
    Zone::create(mapping.region(), &params).expect("a zone");
    assert!(Zone::attach(mapping.region(), &params).is_ok());
    let other = Params::new(identity(1));
    assert!(matches!(Zone::attach(mapping.region(), &other), Err(AttachError::OtherMatching)));
}

/// The same by trying every record, as a reference.
fn contains(network: &str, asked: std::net::IpAddr) -> Option<u8> {
    let (address, len) = network.split_once('/').expect("a network");
    let len: u8 = len.parse().expect("a length");
    let (a, b, full) = match (address.parse().expect("an address"), asked) {
        (std::net::IpAddr::V4(a), std::net::IpAddr::V4(b)) => (u128::from(a.to_bits()), u128::from(b.to_bits()), 32),
        (std::net::IpAddr::V6(a), std::net::IpAddr::V6(b)) => (a.to_bits(), b.to_bits(), 128),
        _ => return None,
    };
    let shift = full - u32::from(len);
    (a.checked_shr(shift).unwrap_or(0) == b.checked_shr(shift).unwrap_or(0)).then_some(len)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn networks_answer_as_a_search_through_all_of_them(
        v4 in prop::collection::vec((any::<u32>(), 0..=32u8), 0..40),
        v6 in prop::collection::vec((any::<u128>(), 0..=128u8), 0..40),
        asked in prop::collection::vec((any::<u32>(), 0..40usize, 0..=128u8), 1..40),
    ) {
        let zone = zone_of(Matching::Ip, 256 << 10);
        let mut networks: Vec<String> = v4.iter().map(|(a, l)| format!("{}/{l}", std::net::Ipv4Addr::from_bits(*a))).collect();
        networks.extend(v6.iter().map(|(a, l)| format!("{}/{l}", std::net::Ipv6Addr::from_bits(a & !(0xffff << 96)))));
        networks.iter().for_each(|network| put(&zone, network));
        for (bits, near, change) in asked {
            // Near one of the networks, with one bit changed, so that most answers aren't the trivial one.
            let address: std::net::IpAddr = match (v4.get(near), v6.get(near)) {
                (_, Some((a, _))) if bits % 2 == 0 => {
                    std::net::Ipv6Addr::from_bits((a & !(0xffff << 96)) ^ 1u128.checked_shl(change.into()).unwrap_or(0) & !(0xffff << 96)).into()
                }
                (Some((a, _)), _) => std::net::Ipv4Addr::from_bits(a ^ 1u32.checked_shl(change.into()).unwrap_or(0)).into(),
                _ => std::net::Ipv4Addr::from_bits(bits).into(),
            };
            let best = networks.iter().filter_map(|network| contains(network, address)).max();
            let found = answer(&zone, &address.to_string(), START);
            prop_assert_eq!(found.as_ref().map(|text| contains(text, address).expect("it contains it")), best, "{} in {:?}", address, networks);
        }
    }

    #[test]
    fn prefixes_answer_as_a_search_through_all_of_them(
        keys in prop::collection::vec("[ab]{1,6}", 0..30),
        asked in prop::collection::vec("[ab]{0,9}", 1..30),
    ) {
        let zone = zone_of(Matching::Prefix, 64 << 10);
        keys.iter().for_each(|key| put(&zone, key));
        for text in asked {
            let best = keys.iter().filter(|key| text.starts_with(key.as_str())).max_by_key(|key| key.len());
            prop_assert_eq!(answer(&zone, &text, START), best.cloned());
        }
    }
}
