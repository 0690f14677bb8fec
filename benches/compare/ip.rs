//! Look-ups of addresses in a zone of networks, mixed as in a table of routes: most of IPv4, a quarter of IPv6.

use std::collections::HashSet;
use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use serde_json::json;
use zonemesh::record::Identity;
use zonemesh::store::{Condition, Life, Matching, Params, Region, Zone};

use crate::worker::{Out, START, cpu_ns};

/// Lengths of prefixes, as often as they stand here.
const V4: [u32; 20] = [24, 24, 24, 24, 24, 24, 24, 24, 24, 24, 23, 22, 22, 20, 19, 16, 16, 28, 32, 32];
const V6: [u32; 8] = [48, 48, 48, 32, 40, 44, 56, 64];
/// Addresses that are looked up in turn.
const ADDRESSES: usize = 1 << 16;

/// Nanoseconds for an address within some network, and for any address.
pub fn measure(prefixes: usize, rounds: usize, time: Duration) {
    // Text of up to 24 bytes, a value of one: 80 or 96 bytes, and a bucket's share.
    let Ok(memory) = Region::anonymous((prefixes * 112).next_multiple_of(1 << 20)) else { return };
    let params = Params { matching: Matching::Ip, ..Params::new(Identity([1; 16])) };
    let Ok(zone) = Zone::create(memory.region(), &params) else { return };
    let mut random = Random(1);
    let (mut seen, mut within, mut any) = (HashSet::new(), Vec::new(), Vec::new());
    while seen.len() < prefixes {
        let (prefix, address) = random.network();
        if seen.insert(prefix.clone()) {
            if let Err(error) = zone.set(prefix.as_bytes(), b"1", Life::Default, Condition::Always, START) {
                return eprintln!("{} of {prefixes} prefixes: {error}", seen.len());
            }
            within.push(address);
        }
    }
    let within: Vec<String> =
        (0..ADDRESSES).map(|_| within[random.below(within.len() as u64) as usize].clone()).collect();
    any.extend((0..ADDRESSES).map(|_| random.network().1));
    for (name, addresses) in [("look-up of an address in some prefix", within), ("look-up of any address", any)] {
        let samples: Vec<f64> = (0..rounds).map(|_| sample(&zone, &addresses, time)).collect();
        println!("{}", json!({"part": "ip", "keys": prefixes, "name": name, "samples": samples}));
    }
}

fn sample(zone: &Zone, addresses: &[String], time: Duration) -> f64 {
    let (start, mut turns) = (cpu_ns(), 0);
    while cpu_ns() - start < time.as_nanos() as u64 {
        for address in addresses.iter().cycle().skip(turns % addresses.len()).take(1024) {
            let mut out = Out::default();
            let _ = black_box(zone.look_up(address.as_bytes(), START, &mut out));
            black_box(&out);
        }
        turns += 1024;
    }
    (cpu_ns() - start) as f64 / turns as f64
}

/// Marsaglia's xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((u128::from(self.0) * u128::from(end)) >> 64) as u64
    }

    /// A network, and an address in it.
    fn network(&mut self) -> (String, String) {
        if self.below(4) > 0 {
            let (len, bits) = (V4[self.below(V4.len() as u64) as usize], self.below(0xe000_0000) as u32);
            let prefix = Ipv4Addr::from(bits & u32::MAX << (32 - len));
            return (format!("{prefix}/{len}"), Ipv4Addr::from(bits).to_string());
        }
        let len = V6[self.below(V6.len() as u64) as usize];
        let bits = 0x2 << 124 | u128::from(self.below(1 << 60)) << 64 | u128::from(self.below(u64::MAX));
        let prefix = Ipv6Addr::from(bits & u128::MAX << (128 - len));
        (format!("{prefix}/{len}"), Ipv6Addr::from(bits).to_string())
    }
}
