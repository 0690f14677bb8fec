//! What a peer's certificate says, as far as people want to see it: whom it names and until when it is good.
//!
//! rustls and webpki check certificates and keep to themselves what is in them. This reads only what is needed, by the grammar
//! of RFC 5280, and decides nothing: what it can't read is shown as nothing.

use crate::record::Millis;
use crate::store::Certificate;
use std::net::IpAddr;

/// Tags of DER.
mod tag {
    pub const INTEGER: u8 = 0x02;
    pub const OCTETS: u8 = 0x04;
    pub const OID: u8 = 0x06;
    pub const UTC_TIME: u8 = 0x17;
    pub const LONG_TIME: u8 = 0x18;
    pub const SEQUENCE: u8 = 0x30;
    /// `[0]` and `[3]` of a certificate: version and extensions.
    pub const VERSION: u8 = 0xa0;
    pub const EXTENSIONS: u8 = 0xa3;
    /// In subjectAltName.
    pub const DNS: u8 = 0x82;
    pub const IP: u8 = 0x87;
}

/// id-ce-subjectAltName, 2.5.29.17.
const ALT_NAME: [u8; 3] = [0x55, 0x1d, 0x11];
/// id-at-commonName, 2.5.4.3.
const COMMON_NAME: [u8; 3] = [0x55, 0x04, 0x03];

/// The first name of subjectAltName, or the subject's common name; and the end. `None`: it can't be read.
pub(super) fn read(der: &[u8]) -> Option<Certificate> {
    let mut body = Der(Der(Der(der).expect(tag::SEQUENCE)?).expect(tag::SEQUENCE)?);
    body.skip_if(tag::VERSION);
    body.expect(tag::INTEGER)?;
    // The signature's algorithm, and the issuer.
    body.expect(tag::SEQUENCE)?;
    body.expect(tag::SEQUENCE)?;
    let mut validity = Der(body.expect(tag::SEQUENCE)?);
    validity.next()?;
    let ends = time(validity.next()?);
    let subject = body.expect(tag::SEQUENCE)?;
    let extensions = body.find(|tag, _| tag == tag::EXTENSIONS);
    let name = extensions.and_then(alt_name).or_else(|| common_name(subject)).unwrap_or_default();
    let name = name.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    Some(Certificate { name, ends: ends.unwrap_or(0) })
}

/// A DNS name if there is one, else an address.
fn alt_name(extensions: &[u8]) -> Option<String> {
    let mut all = Der(Der(extensions).expect(tag::SEQUENCE)?);
    let extension = all.find(|_, extension| Der(extension).expect(tag::OID).is_some_and(|oid| oid == ALT_NAME))?;
    let names = Der(extension).find(|tag, _| tag == tag::OCTETS)?;
    let names = Der(names).expect(tag::SEQUENCE)?;
    let dns = Der(names).find(|tag, _| tag == tag::DNS).map(|name| String::from_utf8_lossy(name).into_owned());
    dns.or_else(|| address(Der(names).find(|tag, _| tag == tag::IP)?))
}

fn address(bytes: &[u8]) -> Option<String> {
    let address =
        <[u8; 4]>::try_from(bytes).map(IpAddr::from).or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from));
    address.ok().map(|address| address.to_string())
}

fn common_name(subject: &[u8]) -> Option<String> {
    let mut parts = Der(subject);
    while let Some((_, part)) = parts.next() {
        let mut attribute = Der(Der(part).expect(tag::SEQUENCE)?);
        if attribute.expect(tag::OID)? == COMMON_NAME {
            return attribute.next().map(|(_, name)| String::from_utf8_lossy(name).into_owned());
        }
    }
    None
}

/// Milliseconds since the epoch of Unix. Times of certificates are in UTC, to the second.
fn time((kind, text): (u8, &[u8])) -> Option<Millis> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let (year, rest) = match kind {
        tag::UTC_TIME => {
            let (year, rest) = text.split_at_checked(2)?;
            let year: i64 = year.parse().ok()?;
            (if year < 50 { 2000 + year } else { 1900 + year }, rest)
        }
        tag::LONG_TIME => {
            let (year, rest) = text.split_at_checked(4)?;
            (year.parse().ok()?, rest)
        }
        _ => return None,
    };
    let number = |at: usize| rest.get(at..at + 2).and_then(|digits| digits.parse::<i64>().ok());
    let (month, day) = (number(0)?, number(2)?);
    let seconds = days(year, month, day) * 86_400 + number(4)? * 3600 + number(6)? * 60 + number(8)?;
    u64::try_from(seconds).ok()?.checked_mul(1000)
}

/// Days since 1970-01-01. The year is counted from March, so that a leap day is its last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leaps = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    // 719,468 days before 1970 it was the first of March of the year 0.
    year * 365 + leaps + (153 * month + 2).div_euclid(5) + day - 1 - 719_468
}

/// What is left to be read: tag, length and content after one another.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// Tag and content of the next.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&[tag, first], rest) = self.0.split_first_chunk()?;
        let (length, rest) = match usize::from(first) {
            short @ 0..0x80 => (short, rest),
            long => {
                let (digits, rest) = rest.split_at_checked(long - 0x80).filter(|(digits, _)| digits.len() <= 4)?;
                (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
            }
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// Content of the next, which must have this tag.
    fn expect(&mut self, wanted: u8) -> Option<&'a [u8]> {
        self.next().filter(|(tag, _)| *tag == wanted).map(|(_, content)| content)
    }

    fn skip_if(&mut self, tag: u8) {
        if self.0.first() == Some(&tag) {
            self.next();
        }
    }

    /// Content of the first of the rest for which this holds.
    fn find(&mut self, is_it: impl Fn(u8, &[u8]) -> bool) -> Option<&'a [u8]> {
        while let Some((tag, content)) = self.next() {
            if is_it(tag, content) {
                return Some(content);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        let utc = |text: &str| time((tag::UTC_TIME, text.as_bytes()));
        let long = |text: &str| time((tag::LONG_TIME, text.as_bytes()));
        assert_eq!(utc("700101000000Z"), Some(0));
        assert_eq!(utc("240229120001Z"), Some(1_709_208_001_000));
        assert_eq!(long("20240301000000Z"), Some(1_709_251_200_000));
        assert_eq!(long("21000301000000Z"), Some(4_107_542_400_000));
        assert_eq!(long("99991231235959Z"), Some(253_402_300_799_000));
        for bad in ["", "Z", "24Z", "240229120001", "24022912000Z", "2402291200é1Z"] {
            assert_eq!(utc(bad), None, "{bad}");
        }
        assert_eq!(long("19690101000000Z"), None, "before the epoch");
        assert_eq!(time((tag::INTEGER, b"240229120001Z")), None);
    }

    #[test]
    fn nonsense_is_nothing() {
        for bad in
            [&[][..], &[0x30], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], &[0x30, 0x89, 1, 2, 3], &[0x30, 2, 0x30, 0x80]]
        {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }
}
