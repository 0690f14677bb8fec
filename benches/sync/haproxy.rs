//! HAProxy: records of a stick table, over the socket on which it takes commands.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use crate::{Result, Server, key};

/// A session that goes on after each command.
pub struct Client(BufReader<UnixStream>);

/// Commands in a line, which must fit into HAProxy's buffer (`tune.bufsize`, 16 KiB).
const LINE: usize = 250;

impl Client {
    pub fn connect(path: &str) -> Result<Self> {
        let mut client = Self(BufReader::with_capacity(1 << 16, UnixStream::connect(path)?));
        client.ask("prompt")?;
        Ok(client)
    }

    fn ask(&mut self, command: &str) -> Result<String> {
        self.0.get_mut().write_all(format!("{command}\n").as_bytes())?;
        self.answer()
    }

    /// What it says up to the next prompt.
    fn answer(&mut self) -> Result<String> {
        let mut said = Vec::new();
        loop {
            if self.0.read_until(b'>', &mut said)? == 0 {
                return Err("haproxy closed the connection".into());
            }
            if said == b">" || said.ends_with(b"\n>") {
                let mut space = [0];
                self.0.read_exact(&mut space)?;
                return Ok(String::from_utf8(said)?);
            }
        }
    }
}

fn set(key: &str, number: u64) -> String {
    format!("set table one key {key} data.gpc0 {number}")
}

/// The number after a word like `used:`.
fn after(said: &str, word: &str) -> Option<u64> {
    let rest = &said[said.find(word)? + word.len()..];
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

impl Server for Client {
    fn set(&mut self, key: &str, value: u64) -> Result<()> {
        let said = self.ask(&set(key, value))?;
        if said.trim_end_matches('>').trim().is_empty() {
            Ok(())
        } else {
            Err(format!("set table answered {said}").into())
        }
    }

    fn get(&mut self, key: &str) -> Result<Option<u64>> {
        Ok(after(&self.ask(&format!("show table one key {key}"))?, "gpc0="))
    }

    fn count(&mut self) -> Result<Option<u64>> {
        Ok(after(&self.ask("show table")?, "used:"))
    }

    fn fill(&mut self, records: u64) -> Result<()> {
        let commands: Vec<String> = (0..records).map(|n| set(&key(n), n)).collect();
        for line in commands.chunks(LINE) {
            self.0.get_mut().write_all(format!("{}\n", line.join(";")).as_bytes())?;
            // Each command has an answer and a prompt of its own.
            for _ in line {
                self.answer()?;
            }
        }
        Ok(())
    }
}
