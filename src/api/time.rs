//! Times as the API writes them: ISO 8601 in UTC, with milliseconds.

use crate::record::Millis;

/// For example `2017-07-07T13:32:21.006Z`.
pub(super) fn iso8601(millis: Millis) -> String {
    let seconds = millis / 1000;
    let (year, month, day) = date(seconds / DAY);
    let second = seconds % DAY;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        second / 3600,
        second / 60 % 60,
        second % 60,
        millis % 1000
    )
}

/// As HTTP's headers have it: `Fri, 07 Jul 2017 13:32:21 GMT`.
pub(super) fn http_date(millis: Millis) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    let seconds = millis / 1000;
    let (year, month, day) = date(seconds / DAY);
    let second = seconds % DAY;
    let week_day = DAYS.get((seconds / DAY % 7) as usize).unwrap_or(&"");
    let month = MONTHS.get((month - 1) as usize).unwrap_or(&"");
    format!(
        "{week_day}, {day:02} {month} {year:04} {:02}:{:02}:{:02} GMT",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// Reads such a date, of today's form: which day of the week it is isn't looked at. The forms that HTTP has for the sake of
/// old senders, with names of days in full or without `GMT`, aren't read.
pub(super) fn parse_http_date(text: &str) -> Option<Millis> {
    let (_, rest) = text.split_once(", ")?;
    let mut words = rest.split(' ');
    let (day, month, year) = (words.next()?, words.next()?, words.next()?);
    let mut clock = words.next()?.split(':').map(|part| number(part, 2));
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    if words.next() != Some("GMT") || words.next().is_some() || clock.next().is_some() {
        return None;
    }
    let month = 1 + MONTHS.iter().position(|name| *name == month)? as u64;
    let (day, year) = (number(day, 2)?, number(year, 4)?);
    let is_time = (1970..).contains(&year) && (1..=month_length(year, month)).contains(&day);
    if !is_time || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let years: u64 = (1970..year).map(year_length).sum();
    let months: u64 = (1..month).map(|month| month_length(year, month)).sum();
    Some(((years + months + day - 1) * DAY + hour * 3600 + minute * 60 + second) * 1000)
}

/// A number of just so many digits.
fn number(text: &str, digits: usize) -> Option<u64> {
    (text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
/// Seconds in a day: leap seconds don't count in the time of Unix.
const DAY: u64 = 24 * 60 * 60;
/// Days in 400 years of the Gregorian calendar, after which it repeats.
const CYCLE: u64 = 400 * 365 + 97;

/// Year, month and day of a day counted from 1970-01-01.
fn date(days: u64) -> (u64, u64, u64) {
    let mut year = 1970 + days / CYCLE * 400;
    let mut day = days % CYCLE;
    while day >= year_length(year) {
        day -= year_length(year);
        year += 1;
    }
    let mut month = 1;
    while day >= month_length(year, month) {
        day -= month_length(year, month);
        month += 1;
    }
    (year, month, day + 1)
}

fn year_length(year: u64) -> u64 {
    if is_leap(year) { 366 } else { 365 }
}

fn month_length(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_times() {
        // The seconds are what `date -u -d ... +%s` says.
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00"),
            (86_399, "1970-01-01T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (978_307_199, "2000-12-31T23:59:59"),
            (1_499_434_341, "2017-07-07T13:32:21"),
            (1_709_164_800, "2024-02-29T00:00:00"),
            (1_735_689_599, "2024-12-31T23:59:59"),
            (4_107_542_400, "2100-03-01T00:00:00"),
            (4_107_542_399, "2100-02-28T23:59:59"),
            (253_402_300_799, "9999-12-31T23:59:59"),
        ] {
            assert_eq!(iso8601(seconds * 1000 + 6), format!("{text}.006Z"));
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut last = date(0);
        for day in 1..2 * CYCLE {
            let (year, month, dom) = date(day);
            let next = match last {
                (y, m, d) if d < month_length(y, m) => (y, m, d + 1),
                (y, 12, _) => (y + 1, 1, 1),
                (y, m, _) => (y, m + 1, 1),
            };
            assert_eq!((year, month, dom), next);
            last = next;
        }
        assert_eq!(last.0, 2769, "two cycles of 400 years are over");
    }

    #[test]
    fn dates_of_http() {
        // What `date -u -R -d @...` says.
        for (seconds, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (1_709_164_800, "Thu, 29 Feb 2024 00:00:00 GMT"),
        ] {
            assert_eq!(http_date(seconds * 1000 + 999), text);
            assert_eq!(parse_http_date(text), Some(seconds * 1000));
        }
        for text in [
            "",
            "tomorrow",
            "Sun, 06 Nov 1994 08:49:37",
            "Sun, 06 Nov 1994 08:49:37 GMT x",
            "Sun, 6 Nov 1994 08:49:37 GMT",
            "Sun, 31 Feb 2027 08:49:37 GMT",
            "Sun, 00 Nov 1994 08:49:37 GMT",
            "Sun, 06 nov 1994 08:49:37 GMT",
            "Sun, 06 Nov 1994 24:00:00 GMT",
            "Sun, 06 Nov 1994 08:49 GMT",
            "Sun, 06 Nov 1969 08:49:37 GMT",
            "Sun, +6 Nov 1994 08:49:37 GMT",
            "Sunday, 06-Nov-94 08:49:37 GMT",
            "Sun Nov  6 08:49:37 1994",
        ] {
            assert_eq!(parse_http_date(text), None, "{text}");
        }
    }

    #[test]
    fn any_number_is_a_time() {
        assert!(http_date(u64::MAX).ends_with("GMT"));
        assert!(iso8601(u64::MAX).ends_with('Z'));
    }
}
