//! Redis, in its own protocol.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::thread;

use crate::{Result, Server, key, value};

/// A connection.
pub struct Client(BufReader<UnixStream>);

impl Client {
    pub fn connect(place: &str) -> Result<Self> {
        Ok(Self(BufReader::with_capacity(1 << 16, UnixStream::connect(place)?)))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.0.read_line(&mut line)? == 0 {
            return Err("redis closed the connection".into());
        }
        Ok(line.trim_end().to_owned())
    }
}

/// SET of one record, as bytes of the protocol.
fn set(key: &str, value: &str) -> String {
    format!("*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n{value}\r\n", key.len(), value.len())
}

impl Server for Client {
    fn set(&mut self, key: &str, number: u64) -> Result<()> {
        self.0.get_mut().write_all(set(key, &value(number)).as_bytes())?;
        match self.line()?.as_str() {
            "+OK" => Ok(()),
            said => Err(format!("SET answered {said}").into()),
        }
    }

    fn get(&mut self, key: &str) -> Result<Option<u64>> {
        self.0.get_mut().write_all(format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len()).as_bytes())?;
        match self.line()?.strip_prefix('$').map(str::parse::<usize>) {
            Some(Ok(length)) => {
                let mut bytes = vec![0; length + 2];
                self.0.read_exact(&mut bytes)?;
                Ok(std::str::from_utf8(&bytes)?.trim_end().strip_prefix("val").and_then(|digits| digits.parse().ok()))
            }
            _ => Ok(None),
        }
    }

    fn count(&mut self) -> Result<Option<u64>> {
        self.0.get_mut().write_all(b"*1\r\n$6\r\nDBSIZE\r\n")?;
        // While it loads what its master sent it answers with an error.
        Ok(self.line()?.strip_prefix(':').and_then(|digits| digits.parse().ok()))
    }

    fn fill(&mut self, records: u64) -> Result<()> {
        let mut all = String::new();
        for n in 0..records {
            all.push_str(&set(&key(n), &value(n)));
        }
        let mut writer = self.0.get_ref().try_clone()?;
        let written = thread::spawn(move || writer.write_all(all.as_bytes()));
        for _ in 0..records {
            let said = self.line()?;
            if said != "+OK" {
                return Err(format!("SET answered {said}").into());
            }
        }
        written.join().map_err(|_| "the writer panicked")??;
        Ok(())
    }
}
