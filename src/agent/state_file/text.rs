//! Pairs, and what belongs to a file as a whole, as text.

use super::FORMAT;
use crate::base64;
use crate::record::{Count, Kind, Role, Stamp, Version};
use crate::store::{Dumped, Followed};
use std::io::Write;

/// What comes before the first pair, and whether that is a member. `seed`: of a zone that may be too full for another one;
/// `cleared`: of a shared zone, its last emptying.
pub fn opening(out: &mut Vec<u8>, seed: Option<[u8; 16]>, cleared: Option<Stamp>) -> bool {
    out.push(b'{');
    if seed.is_none() && cleared.is_none() {
        return false;
    }
    // Writing to memory doesn't fail, here and below.
    let _ = write!(out, "\n\"\":{{\"zonemesh\":{FORMAT}");
    if let Some(seed) = seed {
        out.extend_from_slice(b",\"seed\":\"");
        hex(out, seed);
        out.push(b'"');
    }
    if let Some(cleared) = cleared {
        let _ = write!(out, ",\"cleared\":\"{:016x}\"", cleared.0);
    }
    out.push(b'}');
    true
}

/// Appends a record; `first`: nothing stands before it. `shared`: with its version.
pub fn pair(out: &mut Vec<u8>, dumped: &Dumped<'_>, first: bool, shared: bool) {
    out.extend_from_slice(if first { b"\n" } else { b",\n" });
    member(out, dumped, shared);
}

/// What comes after the last pair.
pub fn closing(out: &mut Vec<u8>) {
    out.extend_from_slice(b"\n}\n");
}

/// The first line of a file of changes. `continues`: it goes on from the file of this number.
pub fn changes(out: &mut Vec<u8>, number: u64, continues: Option<u64>) {
    let _ = write!(out, "{{\"\":{{\"zonemesh\":{FORMAT},\"changes\":{number}");
    if let Some(last) = continues {
        let _ = write!(out, ",\"continues\":{last}");
    }
    out.extend_from_slice(b"}}\n");
}

/// In a file of changes: all of it comes after what this state file has.
pub fn follows(out: &mut Vec<u8>, file: &Followed) {
    let Followed { modified, bytes, stamp } = file;
    let _ = writeln!(
        out,
        "{{\"\":{{\"follows\":{{\"modified\":{modified},\"bytes\":{bytes},\"stamp\":\"{:016x}\"}}}}}}",
        stamp.0
    );
}

/// In a file of changes: the zone was emptied.
pub fn cleared(out: &mut Vec<u8>, cleared: Stamp) {
    let _ = writeln!(out, "{{\"\":{{\"cleared\":\"{:016x}\"}}}}", cleared.0);
}

/// A record as a line of a file of changes.
pub fn line(out: &mut Vec<u8>, dumped: &Dumped<'_>) {
    out.push(b'{');
    member(out, dumped, true);
    out.extend_from_slice(b"}\n");
}

fn member(out: &mut Vec<u8>, dumped: &Dumped<'_>, shared: bool) {
    let record = &dumped.record;
    if record.kind == Kind::Counter {
        return counter(out, dumped);
    }
    let name = key(out, record.key);
    let value = record.value.map(|value| std::str::from_utf8(value).map_err(|_| value));
    if let (true, Some(Ok(value)), None, false) = (name, value, dumped.end, shared) {
        return string(out, value);
    }
    begin(out, name);
    match value {
        Some(Ok(value)) => {
            out.extend_from_slice(b"\"value\":");
            string(out, value);
        }
        Some(Err(value)) => {
            out.extend_from_slice(b"\"base64\":");
            encoded(out, value);
        }
        None => out.extend_from_slice(b"\"deleted\":true"),
    }
    end(out, dumped, shared);
}

/// A record of a counter, always with its version: what counts follows from it.
fn counter(out: &mut Vec<u8>, dumped: &Dumped<'_>) {
    let record = &dumped.record;
    let Some((name, role)) = Role::split(record.key) else { return };
    let is_text = key(out, name);
    begin(out, is_text);
    if let Role::Part(id) = role {
        out.extend_from_slice(b"\"part\":\"");
        hex(out, id.0);
        out.extend_from_slice(b"\",");
    }
    match (role, record.value) {
        (_, None) => out.extend_from_slice(b"\"deleted\":true"),
        (Role::Base, Some(value)) => {
            out.extend_from_slice(b"\"value\":");
            string(out, &String::from_utf8_lossy(value));
        }
        (Role::Part(_), Some(value)) => {
            // As it is: records of one version have the same bytes everywhere.
            let count = Count::read(value).unwrap_or(Count { begun: Stamp::ZERO, amount: 0 });
            if count.begun != Stamp::ZERO {
                let _ = write!(out, "\"begun\":\"{:016x}\",", count.begun.0);
            }
            let _ = write!(out, "\"value\":\"{}\"", count.amount);
        }
    }
    end(out, dumped, true);
}

/// Appends a key as a member's name; `false`: it isn't text.
fn key(out: &mut Vec<u8>, key: &[u8]) -> bool {
    let name = std::str::from_utf8(key);
    match name {
        Ok(name) => string(out, name),
        Err(_) => encoded(out, key),
    }
    out.push(b':');
    name.is_ok()
}

/// Begins the object of a pair.
fn begin(out: &mut Vec<u8>, is_text: bool) {
    out.push(b'{');
    if !is_text {
        out.extend_from_slice(b"\"key\":\"base64\",");
    }
}

/// Ends it.
fn end(out: &mut Vec<u8>, dumped: &Dumped<'_>, shared: bool) {
    if let Some(end) = dumped.end {
        out.extend_from_slice(b",\"expire\":");
        number(out, end);
    }
    if shared {
        if dumped.record.shortened {
            out.extend_from_slice(b",\"shortened\":true");
        }
        out.extend_from_slice(b",\"version\":\"");
        version(out, &dumped.record.version);
        out.push(b'"');
    }
    out.push(b'}');
}

fn version(out: &mut Vec<u8>, version: &Version) {
    hex(out, version.stamp.0.to_be_bytes());
    out.push(b'.');
    hex(out, version.origin.0);
}

/// At most 16 bytes in hexadecimal digits.
fn hex<const N: usize>(out: &mut Vec<u8>, bytes: [u8; N]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut digits = [0; 32];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(bytes) {
        pair.copy_from_slice(&[DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
    }
    out.extend_from_slice(digits.get(..2 * N).unwrap_or_default());
}

/// Without the formatter: nearly every pair of a zone with a timeout has an end.
fn number(out: &mut Vec<u8>, mut number: u64) {
    let (mut digits, mut at) = ([0; 20], 20);
    while at == 20 || number > 0 {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
    }
    out.extend_from_slice(&digits[at..]);
}

fn encoded(out: &mut Vec<u8>, bytes: &[u8]) {
    out.push(b'"');
    base64::encode(out, bytes);
    out.push(b'"');
}

/// Appends text in quotes, with the escapes that JSON demands.
fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| needs_escape(*byte)) {
        let (plain, special) = rest.split_at(at);
        out.extend_from_slice(plain);
        let Some((byte, after)) = special.split_first() else { break };
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\t' => out.extend_from_slice(b"\\t"),
            _ => {
                let _ = write!(out, "\\u{byte:04x}");
            }
        }
        rest = after;
    }
    out.extend_from_slice(rest);
    out.push(b'"');
}

fn needs_escape(byte: u8) -> bool {
    byte < b' ' || byte == b'"' || byte == b'\\'
}
