//! nginx with zonemesh: variables for single records, the API for many.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use serde_json::Value;

use crate::{Result, Server, key, value};

/// A connection kept alive.
pub struct Client(BufReader<UnixStream>);

impl Client {
    pub fn connect(place: &str) -> Result<Self> {
        Ok(Self(BufReader::new(UnixStream::connect(place)?)))
    }

    fn ask(&mut self, request: &[u8]) -> Result<(u16, Vec<u8>)> {
        self.0.get_mut().write_all(request)?;
        self.answer()
    }

    fn answer(&mut self) -> Result<(u16, Vec<u8>)> {
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            if self.0.read_line(&mut line)? == 0 {
                return Err("nginx closed the connection".into());
            }
            let line = line.trim_end();
            if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
                status = rest.get(..3).unwrap_or("").parse()?;
            } else if let Some(rest) = line.strip_prefix("Content-Length: ") {
                length = rest.parse()?;
            } else if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok((status, body))
    }
}

impl Server for Client {
    fn set(&mut self, key: &str, number: u64) -> Result<()> {
        let request = format!("GET /set?key={key}&v={} HTTP/1.1\r\nHost: a\r\n\r\n", value(number));
        match self.ask(request.as_bytes())? {
            (204, _) => Ok(()),
            (status, _) => Err(format!("/set answered {status}").into()),
        }
    }

    fn get(&mut self, key: &str) -> Result<Option<u64>> {
        let (_, body) = self.ask(format!("GET /read?key={key} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes())?;
        Ok(std::str::from_utf8(&body)?.strip_prefix("val").and_then(|digits| digits.parse().ok()))
    }

    fn count(&mut self) -> Result<Option<u64>> {
        let (status, body) = self.ask(b"GET /api/9/zonemesh/zones/one HTTP/1.1\r\nHost: a\r\n\r\n")?;
        let said: Value = serde_json::from_slice(&body)?;
        match said.get("records").and_then(Value::as_u64) {
            Some(count) => Ok(Some(count)),
            None => Err(format!("no count of records in the answer {status}: {said}").into()),
        }
    }

    fn fill(&mut self, records: u64) -> Result<()> {
        let mut body = String::new();
        for n in 0..records {
            body.push_str(&format!("{{\"{}\":\"{}\"}}\n", key(n), value(n)));
        }
        let head = format!(
            "POST /api/9/zonemesh/keyvals/one HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-ndjson\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.0.get_mut().write_all(head.as_bytes())?;
        let (status, said) = self.ask(body.as_bytes())?;
        match status {
            200 => Ok(()),
            _ => Err(format!("the import answered {status}: {}", String::from_utf8_lossy(&said)).into()),
        }
    }
}
