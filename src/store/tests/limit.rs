//! Limits of requests on several nodes: what each admits, what the cluster admits, and what a node that dies leaves.

use super::{Fixture, START, identity};
use crate::record::{Millis, Record, Role};
use crate::store::{Applied, Cursor, FeedEnd, Limited, Matching, Outcome, Params, Zone};

const MB: usize = 1 << 20;
const DRIFT: Millis = 60_000;
/// Ten requests a second.
const TEN: u64 = 10_000;

fn params(node: u8, rate: u64) -> Params {
    Params { sync: true, evict: true, matching: Matching::Limit, rate, ..Params::new(identity(node)) }
}

/// Nodes that hear of each other every so many milliseconds.
struct Cluster {
    rate: u64,
    nodes: Vec<Fixture>,
    cursors: Vec<Vec<Cursor>>,
    now: Millis,
}

impl Cluster {
    fn new(count: u8, rate: u64) -> Cluster {
        let nodes: Vec<Fixture> = (1..=count).map(|node| Fixture::with(4 * MB, params(node, rate))).collect();
        let walkers = |node: &Fixture| (0..count).map(|_| node.feed_open(1).expect("a walker")).collect();
        let cursors = nodes.iter().map(walkers).collect();
        Cluster { rate, nodes, cursors, now: START }
    }

    fn ask(&self, node: usize, key: &[u8], burst: u64) -> bool {
        let asked = self.nodes[node].admit(key, self.rate, Some(burst * 1000), self.now).expect("an answer");
        matches!(asked, Limited::Within(_))
    }

    /// Everybody tells everybody what is new.
    fn exchange(&mut self) {
        for from in 0..self.nodes.len() {
            for to in (0..self.nodes.len()).filter(|to| *to != from) {
                let told = tell(&self.nodes[from], &mut self.cursors[from][to], &self.nodes[to], self.now);
                assert!(told.iter().all(|applied| matches!(applied, Applied::Newer | Applied::Stale)), "{told:?}");
            }
        }
    }

    /// Offers so many requests for each thousand that the rate allows, for some time; `chosen` says on which node each
    /// comes. Returns how many were admitted.
    fn offer(&mut self, load: u64, millis: Millis, delay: Millis, burst: u64, chosen: impl Fn(u64) -> usize) -> u64 {
        let (mut admitted, mut offered) = (0, 0);
        for elapsed in 0..millis {
            self.now += 1;
            // Both are in thousandths.
            while offered * 1_000_000_000 / (self.rate * load) <= elapsed {
                admitted += u64::from(self.ask(chosen(offered), b"key", burst));
                offered += 1;
            }
            if elapsed % delay == 0 {
                self.exchange();
            }
        }
        admitted
    }
}

/// Tells one node what is new of another's own.
fn tell(from: &Zone, cursor: &mut Cursor, to: &Zone, now: Millis) -> Vec<Applied> {
    let mut told = Vec::new();
    let mut each = |record: &Record<'_>| {
        if record.version.origin != from.node() {
            return true;
        }
        told.push(to.apply(record, now, DRIFT).expect("an answer"));
        true
    };
    for shard in 0..from.all_shards().count_ones() {
        while let FeedEnd::More | FeedEnd::Reset = from.feed(cursor, shard, &mut each).expect("a walk") {}
    }
    told
}

/// What the cluster may admit: the rate and a twentieth, the burst, and one for each node. And never less than the rate.
fn check(admitted: u64, rate: u64, seconds: u64, burst: u64, nodes: u64, what: &str) {
    let allowed = rate * seconds;
    let most = allowed + allowed / 20 + burst + nodes;
    assert!((allowed..=most).contains(&admitted), "{what}: {admitted}, not between {allowed} and {most}");
}

#[test]
fn three_times_the_rate_is_held_to_the_rate_wherever_it_comes() {
    const SECONDS: u64 = 10;
    for nodes in 2..=5 {
        for rate in [10, 100, 1000] {
            for (way, chosen) in [("evenly", 0), ("on one", 1), ("moving", 2)] {
                // As much burst as a fifth of a second drains, and what comes in the meantime from the others.
                let burst = (rate / 5).max(2);
                let mut cluster = Cluster::new(nodes as u8, rate * 1000);
                let on = |n: u64| match chosen {
                    0 => (n % nodes) as usize,
                    1 => 0,
                    _ => (n / (rate * 3) % nodes) as usize,
                };
                let admitted = cluster.offer(3000, SECONDS * 1000, 10, burst, on);
                check(admitted, rate, SECONDS, burst, nodes, &format!("{nodes} nodes, {rate} r/s, {way}"));
            }
        }
    }
}

#[test]
fn what_is_within_the_rate_is_admitted_though_it_moves() {
    for nodes in 2..=5 {
        let mut cluster = Cluster::new(nodes as u8, 100_000);
        let admitted = cluster.offer(1000, 10_000, 10, 5, |n| (n * 7 / 3 % nodes) as usize);
        assert!(admitted >= 999, "{nodes} nodes: {admitted} of 1000");
    }
}

#[test]
fn each_node_admits_a_burst_before_it_has_heard_and_they_are_made_up_for() {
    let mut cluster = Cluster::new(3, 10_000);
    let mut admitted = 0;
    for node in 0..3 {
        admitted += (0..10).filter(|_| cluster.ask(node, b"key", 4)).count();
    }
    assert_eq!(admitted, 3 * 5, "one and the burst on each");
    cluster.exchange();
    // All of them are in each bucket: until it holds less than the burst again, nobody admits.
    cluster.now += 900;
    assert!((0..3).all(|node| !cluster.ask(node, b"key", 4)));
    cluster.now += 201;
    assert!((0..3).all(|node| cluster.ask(node, b"key", 4)));
}

#[test]
fn what_is_told_twice_or_late_counts_once() {
    let (here, there) = (Fixture::with(MB, params(1, 10_000)), Fixture::with(MB, params(2, 10_000)));
    let mut late = there.feed_open(1).expect("a walker");
    let mut again = there.feed_open(1).expect("a walker");
    assert_eq!(here.admit(b"key", 10_000, None, START), Ok(Limited::Within(0)));
    for _ in 0..3 {
        there.admit(b"key", 10_000, None, START).expect("memory");
        tell(&there, &mut again, &here, START);
    }
    assert_eq!(here.limited(b"key", 10_000, START), Ok(4000));
    assert_eq!(tell(&there, &mut late, &here, START), [Applied::Stale]);
    assert_eq!(here.limited(b"key", 10_000, START), Ok(4000));
}

#[test]
fn a_node_that_comes_new_begins_with_what_others_have() {
    let (here, there) = (Fixture::with(MB, params(1, 10_000)), Fixture::with(MB, params(2, 10_000)));
    for _ in 0..5 {
        there.admit(b"key", 10_000, None, START).expect("memory");
    }
    let mut walker = there.feed_open(1).expect("a walker");
    tell(&there, &mut walker, &here, START);
    assert_eq!(here.limited(b"key", 10_000, START), Ok(5000));
    assert_eq!(here.admit(b"key", 10_000, Some(4000), START), Ok(Limited::Beyond(5000)));
    assert_eq!(here.limited(b"key", 10_000, START + 300), Ok(2000), "and it has drained meanwhile");
    // Its own part goes on from there, and what the other admits is added.
    assert_eq!(here.admit(b"key", 10_000, Some(9000), START), Ok(Limited::Within(5000)));
    there.admit(b"key", 10_000, None, START).expect("memory");
    tell(&there, &mut walker, &here, START);
    assert_eq!(here.limited(b"key", 10_000, START), Ok(7000));
}

#[test]
fn keys_end_a_minute_after_their_bucket_is_empty() {
    let zone = Fixture::with(MB, params(1, 1000));
    for _ in 0..3 {
        zone.admit(b"key", 1000, None, START).expect("memory");
    }
    let records = |now| {
        zone.upkeep(now, 10_000);
        zone.stats().records
    };
    assert_eq!(records(START + 62_000), 1);
    assert_eq!(records(START + 64_000), 0);
    assert_eq!(zone.admit(b"key", 1000, None, START + 64_000), Ok(Limited::Within(0)));
}

#[test]
fn a_full_zone_lets_those_go_that_end_soonest() {
    let zone = Fixture::with(MB, params(1, 1000));
    let keys = 40_000_u64;
    for n in 0..keys {
        let asked = zone.admit(&n.to_be_bytes(), 1000, Some(0), START + n);
        assert_eq!(asked, Ok(Limited::Within(0)), "{n}: {:?}", zone.stats());
    }
    let (now, held) = (START + keys, zone.stats().records);
    assert!(zone.stats().evicted > keys / 2, "{:?}", zone.stats());
    // Most of those that came last are known, and none of the oldest: what ends within the same seconds goes in any order.
    let known = |range: std::ops::Range<u64>| {
        // Asked twice within the same millisecond, a known key is beyond its burst.
        range.filter(|n| zone.limited(&n.to_be_bytes(), 1, now).expect("an answer") > 0).count() as u64
    };
    assert!(known(keys - held / 2..keys) >= held / 2 * 4 / 5, "{} of {}", known(keys - held / 2..keys), held / 2);
    assert!(known(0..keys - 2 * held) < 10, "{}", known(0..keys - 2 * held));
}

#[test]
fn a_full_zone_lets_the_oldest_go_wherever_the_wheel_stands() {
    let zone = Fixture::with(64 << 10, params(1, 1000));
    // All ends lie in one slot of the wheel that is minutes wide.
    let begin = START.next_multiple_of(4096 << 6) + (3300 << 6);
    zone.upkeep(begin, 10_000);
    let (count, now) = (3000_u64, begin + 3000);
    for n in 0..count {
        zone.admit(&n.to_be_bytes(), 1000, Some(0), begin + n).expect("an answer");
    }
    let held = zone.stats().records;
    assert!((400..count / 2).contains(&held), "{held}");
    let known = |n: &u64| zone.limited(&n.to_be_bytes(), 1, now).expect("an answer") > 0;
    let last = (count - held / 2..count).filter(known).count() as u64;
    assert!(last >= held / 2 - 2, "{last} of the last {} are known", held / 2);
    assert_eq!((0..count - 2 * held).filter(known).count(), 0, "none of the oldest is");
}

#[test]
fn who_is_refused_for_long_is_no_older_for_it() {
    let zone = Fixture::with(64 << 10, params(1, 1000));
    // Closed for a quarter of an hour, and not asked for again.
    for _ in 0..900 {
        zone.admit(b"closed", 1000, None, START).expect("room");
    }
    for n in 0..3000_u64 {
        zone.admit(&n.to_be_bytes(), 1000, Some(0), START + n).expect("an answer");
    }
    assert!(zone.stats().evicted > 1000, "{:?}", zone.stats());
    assert_eq!(zone.admit(b"closed", 1000, Some(5000), START + 3000), Ok(Limited::Beyond(897_000)));
}

#[test]
fn keys_of_any_bytes_and_lengths() {
    let (here, there) = (Fixture::with(4 * MB, params(1, 1000)), Fixture::with(4 * MB, params(2, 1000)));
    let mut walker = there.feed_open(1).expect("a walker");
    for len in (1..64).chain([990, 1015, 4000, 4040, 4056, 4060, 8192, 65_527]) {
        let key = vec![len as u8; len];
        assert_eq!(here.admit(&key, 1000, Some(0), START), Ok(Limited::Within(0)), "{len}");
        assert_eq!(there.admit(&key, 1000, Some(0), START), Ok(Limited::Within(0)), "{len}");
        tell(&there, &mut walker, &here, START);
        assert_eq!(here.limited(&key, 1000, START), Ok(2000), "{len}");
    }
    assert!(here.admit(&[1; 65_528], 1000, None, START).is_err());
    assert!(here.admit(b"", 1000, None, START).is_err());
}

#[test]
fn outcomes_are_counted() {
    let zone = Fixture::with(MB, params(1, 1000));
    for (n, outcome) in Outcome::ALL.into_iter().enumerate() {
        (0..=n).for_each(|_| zone.count_limited(outcome));
    }
    assert_eq!(Outcome::ALL.map(|outcome| zone.limited_total(outcome)), [1, 2, 3, 4, 5]);
    zone.reset_limited();
    assert_eq!(Outcome::ALL.map(|outcome| zone.limited_total(outcome)), [0; 5]);
}

#[test]
fn news_that_come_once_a_second_nearly_hold_the_rate() {
    for nodes in 2..=5 {
        for rate in [10, 100] {
            let (seconds, burst, delay) = (20, rate / 2, 1000);
            let mut cluster = Cluster::new(nodes as u8, rate * 1000);
            let admitted = cluster.offer(3000, seconds * 1000, delay, burst, |n| (n % nodes) as usize);
            // What each can admit before it hears of the others; and some of what it does after a pause isn't made up for.
            let most = rate * seconds * 3 / 2 + nodes * (burst + 1) + (nodes - 1) * rate;
            assert!(
                (rate * seconds..=most).contains(&admitted),
                "{nodes} nodes, {rate} r/s: {admitted}, at most {most}"
            );
        }
    }
}

#[test]
fn who_comes_back_counts_no_request_twice() {
    let mut pair = Cluster::new(2, TEN);
    pair.offer(3000, 20_000, 10, 4, |n| (n % 2) as usize);
    let (back, now) = (Fixture::with(MB, params(9, TEN)), pair.now);
    let mut walkers: Vec<Cursor> = pair.nodes.iter().map(|node| node.feed_open(1).expect("a walker")).collect();
    tell(&pair.nodes[0], &mut walkers[0], &back, now);
    back.admit(b"key", TEN, None, now).expect("memory");
    tell(&pair.nodes[1], &mut walkers[1], &back, now);
    // That is what both knew of, the one here, and the one that asks.
    let excess = back.limited(b"key", TEN, now).expect("an answer");
    assert!((1000..=7000).contains(&excess), "{excess}");
    // What is admitted from now on is new.
    pair.nodes[1].admit(b"key", TEN, None, now).expect("memory");
    tell(&pair.nodes[1], &mut walkers[1], &back, now);
    assert_eq!(back.limited(b"key", TEN, now), Ok(excess + 1000));
}

#[test]
fn what_all_admitted_at_once_is_made_up_for_to_the_end() {
    // One a minute.
    let rate = 1000 / 60;
    let mut cluster = Cluster::new(5, rate);
    let (mut admitted, began) = (0, cluster.now);
    for _ in 0..10 {
        for node in 0..5 {
            admitted += (0..20).filter(|_| cluster.ask(node, b"key", 10)).count() as u64;
        }
        for _ in 0..3 {
            cluster.now += 10;
            cluster.exchange();
        }
        cluster.now += 12 * 60_000;
        for node in &cluster.nodes {
            node.upkeep(cluster.now, 10_000);
        }
    }
    let most = 5 * 11 + rate * (cluster.now - began) / 1_000_000;
    assert!((55..=most).contains(&admitted), "{admitted}, at most {most}");
}

#[test]
fn buckets_that_began_one_after_another_hold_the_sum() {
    let mut cluster = Cluster::new(5, 1000);
    for node in 0..5 {
        cluster.now += 2;
        assert_eq!((0..20).filter(|_| cluster.ask(node, b"key", 9)).count(), 10);
    }
    cluster.exchange();
    for node in 0..5 {
        let excess = cluster.nodes[node].limited(b"key", 1000, cluster.now).expect("an answer");
        assert!((49_980..=50_000).contains(&excess), "node {node}: {excess}");
    }
}

#[test]
fn who_is_asked_later_begins_with_what_all_admitted_at_once() {
    let mut cluster = Cluster::new(4, TEN);
    for node in 0..3 {
        assert_eq!((0..20).filter(|_| cluster.ask(node, b"key", 9)).count(), 10);
    }
    // It hears of each before that has heard of the others.
    for node in 0..3 {
        tell(&cluster.nodes[node], &mut cluster.cursors[node][3], &cluster.nodes[3], cluster.now);
    }
    cluster.exchange();
    cluster.exchange();
    assert_eq!(cluster.nodes[3].limited(b"key", TEN, cluster.now), Ok(30_000));
    // There is nothing to tell any more.
    let shards = |node: &Fixture| (0..node.all_shards().count_ones()).map(|shard| node.writes(shard)).sum::<u64>();
    let writes = |cluster: &Cluster| cluster.nodes.iter().map(shards).sum::<u64>();
    let told = writes(&cluster);
    cluster.exchange();
    assert_eq!(writes(&cluster), told);
}

/// Three nodes, and so little a rate that nothing runs out. What is told goes from one to the next.
struct Chain(Cluster);

impl Chain {
    fn new() -> Chain {
        Chain(Cluster::new(3, 1))
    }

    /// A request on this node.
    fn ask(&self, node: usize) {
        assert!(self.0.ask(node, b"key", 1000));
    }

    fn tell(&mut self, from: usize, to: usize) {
        tell(&self.0.nodes[from], &mut self.0.cursors[from][to], &self.0.nodes[to], self.0.now);
    }

    /// How many requests the last one's bucket holds.
    fn held(&self) -> u64 {
        self.0.nodes[2].limited(b"key", 1, self.0.now).expect("an answer").div_ceil(1000)
    }
}

#[test]
fn what_a_bucket_began_with_does_not_count_again() {
    // The last node begins with what the second has heard of the first, and then hears of the first itself: what it had
    // never heard of, or had heard of before.
    for known in [false, true] {
        let mut chain = Chain::new();
        chain.ask(0);
        if known {
            chain.tell(0, 2);
            chain.ask(0);
        }
        let of_first = 1 + u64::from(known);
        chain.tell(0, 1);
        chain.ask(1);
        chain.tell(1, 2);
        chain.ask(2);
        assert_eq!(chain.held(), of_first + 2);
        chain.tell(0, 2);
        assert_eq!(chain.held(), of_first + 2, "known before: {known}");
        // What each tells from now on is new.
        chain.ask(0);
        chain.tell(0, 2);
        assert_eq!(chain.held(), of_first + 3);
    }
}

#[test]
fn a_bucket_of_one_nodes_own_requests_leaves_no_doubt() {
    let mut chain = Chain::new();
    chain.ask(0);
    chain.tell(0, 1);
    chain.tell(0, 2);
    // All three at once.
    (0..3).for_each(|node| (0..5).for_each(|_| chain.ask(node)));
    chain.tell(0, 2);
    chain.tell(1, 2);
    assert_eq!(chain.held(), 16);
}

#[test]
fn what_came_with_a_fuller_bucket_does_not_count_again() {
    let mut chain = Chain::new();
    chain.ask(1);
    chain.0.now += 2000;
    chain.ask(2);
    (0..3).for_each(|_| chain.ask(0));
    chain.tell(0, 1);
    chain.ask(1);
    // The second began so long ago that what it has told may have been lost here: its five count, instead of the own one.
    chain.tell(1, 2);
    assert_eq!(chain.held(), 5);
    chain.tell(0, 2);
    assert_eq!(chain.held(), 5);
    chain.ask(0);
    chain.tell(0, 2);
    assert_eq!(chain.held(), 6);
}

#[test]
fn what_is_doubted_here_is_not_elsewhere() {
    let mut chain = Chain::new();
    chain.ask(0);
    chain.tell(0, 1);
    chain.ask(1);
    chain.tell(1, 2);
    chain.tell(0, 2);
    chain.ask(2);
    // The last has the first's part doubted, and passes it on to one that comes new.
    let (new, last, now) = (Fixture::with(4 * MB, params(9, 1)), &chain.0.nodes[2], chain.0.now);
    let mut walker = last.feed_open(1).expect("a walker");
    let mut each = |record: &Record<'_>| new.apply(record, now, DRIFT).is_ok();
    for shard in 0..last.all_shards().count_ones() {
        while let FeedEnd::More | FeedEnd::Reset = last.feed(&mut walker, shard, &mut each).expect("a walk") {}
    }
    let marks = |zone: &Zone| {
        let mut marks = Vec::new();
        let place = zone.place(&Role::Part(zone.own_part()).of(b"key"));
        zone.parts_each(place, b"key", |_, met| marks.extend(zone.share_in(met).map(|share| share.doubted)));
        marks.sort_unstable();
        marks
    };
    assert_eq!(marks(last), [false, false, true]);
    assert_eq!(marks(&new), [false; 3]);
}

#[test]
fn a_light_load_is_not_refused_after_a_gap() {
    for seconds in [3, 60] {
        let mut cluster = Cluster::new(3, TEN);
        (0..3).for_each(|node| assert!(cluster.ask(node, b"key", 2)));
        cluster.exchange();
        cluster.now += 1000;
        for _ in 0..seconds {
            for node in 0..3 {
                cluster.now += 333;
                assert!(cluster.ask(node, b"key", 2), "node {node}");
            }
        }
        cluster.exchange();
        for node in 0..3 {
            assert!(cluster.ask(node, b"key", 2), "node {node}, after {seconds} s");
        }
    }
}

#[test]
fn other_nodes_clocks_lose_nothing() {
    const APART: Millis = 30_000;
    let (here, there) = (Fixture::with(MB, params(1, TEN)), Fixture::with(MB, params(2, TEN)));
    let mut walker = there.feed_open(1).expect("a walker");
    there.admit(b"key", TEN, None, START - APART).expect("memory");
    tell(&there, &mut walker, &here, START);
    here.admit(b"key", TEN, None, START).expect("memory");
    for _ in 0..20 {
        there.admit(b"key", TEN, None, START - APART + 10_000).expect("memory");
    }
    tell(&there, &mut walker, &here, START);
    assert_eq!(here.limited(b"key", TEN, START), Ok(21_000));
}

#[test]
fn a_clock_that_is_set_back_closes_no_key() {
    const HOUR: Millis = 3_600_000;
    let zone = Fixture::with(MB, params(1, TEN));
    for _ in 0..5 {
        zone.admit(b"key", TEN, Some(4000), START + HOUR).expect("memory");
    }
    assert!(matches!(zone.admit(b"key", TEN, Some(4000), START + HOUR), Ok(Limited::Beyond(_))));
    assert!(matches!(zone.admit(b"key", TEN, Some(4000), START), Ok(Limited::Beyond(_))));
    assert!(matches!(zone.admit(b"key", TEN, Some(4000), START + 200), Ok(Limited::Within(_))));
}
