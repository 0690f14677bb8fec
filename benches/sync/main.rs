//! Drives two servers that replicate, of whichever system: `scripts/bench sync` runs it and reads its lines.
//!
//!     cargo bench --no-default-features --bench sync -- latency SYSTEM FROM TO COUNT
//!     cargo bench --no-default-features --bench sync -- requests SYSTEM FROM TO COUNT
//!     cargo bench --no-default-features --bench sync -- all     SYSTEM COUNT FROM TO...
//!     cargo bench --no-default-features --bench sync -- fill    SYSTEM TO RECORDS
//!     cargo bench --no-default-features --bench sync -- bulk    SYSTEM FROM TO RECORDS
//!     cargo bench --no-default-features --bench sync -- await   SYSTEM TO RECORDS
//!
//! SYSTEM is zonemesh, redis or haproxy; FROM and TO are the paths of the sockets on which its servers
//! take commands. The output is one JSON object. Keys and values have 16 bytes.

mod haproxy;
mod redis;
mod zonemesh;

use std::error::Error;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A connection to one server, kept open, as a client of that system would have it.
pub trait Server: Send {
    /// Writes one record and waits for the answer.
    fn set(&mut self, key: &str, value: u64) -> Result<()>;
    /// What a key has, nothing if it is missing.
    fn get(&mut self, key: &str) -> Result<Option<u64>>;
    /// How many records there are; nothing while the server can't say.
    fn count(&mut self) -> Result<Option<u64>>;
    /// Writes this many records as fast as the system takes them, and waits for all answers.
    fn fill(&mut self, records: u64) -> Result<()>;
}

fn main() -> Result<()> {
    let given: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = given.iter().map(String::as_str).collect();
    let said = match words[..] {
        ["latency", system, from, to, count] => {
            let samples = latency(&mut *connect(system, from)?, &mut [connect(system, to)?], count.parse()?)?;
            json!({ "samples": samples })
        }
        ["requests", system, from, to, count] => {
            json!({ "samples": requests(&mut *connect(system, from)?, &mut *connect(system, to)?, count.parse()?)? })
        }
        ["all", system, count, from, ref to @ ..] => {
            let mut to = to.iter().map(|to| connect(system, to)).collect::<Result<Vec<_>>>()?;
            json!({ "samples": latency(&mut *connect(system, from)?, &mut to, count.parse()?)? })
        }
        ["fill", system, to, records] => {
            let began = Instant::now();
            connect(system, to)?.fill(records.parse()?)?;
            json!({ "seconds": began.elapsed().as_secs_f64() })
        }
        ["bulk", system, from, to, records] => bulk(connect(system, from)?, connect(system, to)?, records.parse()?)?,
        ["await", system, to, records] => {
            let began = Instant::now();
            arrived(system, to, records.parse()?)?;
            json!({ "seconds": began.elapsed().as_secs_f64() })
        }
        // cargo's own runs of all benchmarks.
        [] => return Ok(()),
        _ => return Err("see the top of benches/sync/main.rs for what it takes".into()),
    };
    println!("{said}");
    Ok(())
}

fn connect(system: &str, place: &str) -> Result<Box<dyn Server>> {
    Ok(match system {
        "zonemesh" => Box::new(zonemesh::Client::connect(place)?),
        "redis" => Box::new(redis::Client::connect(place)?),
        "haproxy" => Box::new(haproxy::Client::connect(place)?),
        _ => return Err(format!("no system is called {system}").into()),
    })
}

/// Single updates: microseconds from the write's first byte to the end of the first read on the other server that
/// shows it; on the last, of several that are read one after the other. Between two updates the servers have nothing to do for
/// a millisecond or two.
fn latency(from: &mut dyn Server, to: &mut [Box<dyn Server>], count: u64) -> Result<Vec<f64>> {
    let mut samples = Vec::new();
    let first = unwritten()?;
    for n in 0..count {
        let (key, value) = (key(n % 1000), first + n);
        thread::sleep(Duration::from_micros(1000 + n * 7919 % 1000));
        let began = Instant::now();
        from.set(&key, value)?;
        for to in &mut *to {
            while to.get(&key)? != Some(value) {
                if began.elapsed() > Duration::from_secs(5) {
                    return Err(format!("update {n} of {key} did not arrive within 5 s").into());
                }
            }
        }
        samples.push(began.elapsed().as_secs_f64() * 1e6);
    }
    Ok(samples)
}

/// What of that would be left if nothing took any time between the servers: the write, and one read on the other server,
/// whatever it shows.
fn requests(from: &mut dyn Server, to: &mut dyn Server, count: u64) -> Result<Vec<f64>> {
    let mut samples = Vec::new();
    let first = unwritten()?;
    for n in 0..count {
        let key = key(n % 1000);
        thread::sleep(Duration::from_micros(1000 + n * 7919 % 1000));
        let began = Instant::now();
        from.set(&key, first + n)?;
        to.get(&key)?;
        samples.push(began.elapsed().as_secs_f64() * 1e6);
    }
    Ok(samples)
}

/// A value, below 2^32, that no run before has written: a server that still has what an earlier one wrote would show it without
/// any update. A run begins with the milliseconds of the clock, and each of its updates takes longer than one.
fn unwritten() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64 % 4_000_000_000)
}

/// Seconds until the source has taken all, and until the other server has them.
fn bulk(mut from: Box<dyn Server>, mut to: Box<dyn Server>, records: u64) -> Result<serde_json::Value> {
    let began = Instant::now();
    let source = thread::spawn(move || {
        from.fill(records).map(|()| began.elapsed().as_secs_f64()).map_err(|error| error.to_string())
    });
    while to.count()?.is_none_or(|count| count < records) {
        if began.elapsed() > Duration::from_secs(120) {
            return Err("not all records arrived within 120 s".into());
        }
        thread::sleep(Duration::from_millis(2));
    }
    let everywhere = began.elapsed().as_secs_f64();
    let source = source.join().map_err(|_| "the source panicked")??;
    Ok(json!({ "source": source, "everywhere": everywhere.max(source) }))
}

/// Waits until a server that may not even run yet has so many records.
fn arrived(system: &str, to: &str, records: u64) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(120) {
        if let Ok(mut server) = connect(system, to) {
            while let Ok(count) = server.count() {
                if count.is_some_and(|count| count >= records) {
                    return Ok(());
                }
                thread::sleep(Duration::from_millis(2));
            }
        }
        thread::sleep(Duration::from_millis(2));
    }
    Err(format!("{system} at {to} did not get {records} records within 120 s").into())
}

/// The name of a record: 16 bytes.
pub fn key(n: u64) -> String {
    format!("key{n:013}")
}

/// A value of 16 bytes that tells a number.
pub fn value(n: u64) -> String {
    format!("val{n:013}")
}
