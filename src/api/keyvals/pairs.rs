//! The pairs of POST and PATCH: `"key":"value"`, `"key":{"value":"v","expire":1000}`, `"key":null`.

use crate::api::NamedZone;
use crate::api::body::{Change, Pair, Understand};
use crate::api::error::FormatError;
use crate::api::json::Json;
use crate::record::{Millis, number};
use crate::store::{Life, MAX_KEY, MAX_VALUE, Matching};
use std::borrow::Cow;

/// The longest `expire`: 100 years of 365.25 days, in milliseconds.
pub(in crate::api) const MAX_EXPIRE: Millis = 36_525 * 24 * 60 * 60 * 1000;

/// What members of a body mean for a zone.
pub(super) fn understand(zone: &NamedZone) -> Understand {
    let (matching, timeout) = (zone.zone.params().matching, zone.timeout);
    Box::new(move |name, json| {
        check_key(name.as_bytes(), matching)?;
        let change = change(json, timeout)?;
        check_change(&change, matching)?;
        Ok(Pair { key: bytes(name), change })
    })
}

/// Whether a pair of a zone of this type can be changed so.
pub(in crate::api) fn check_change(change: &Change<'_>, matching: Matching) -> Result<(), FormatError> {
    match change {
        Change::Count { .. } if matching != Matching::Counter => Err(FormatError::NoCounter),
        Change::Touch(_) if matching == Matching::Counter => Err(FormatError::CounterLife),
        Change::Set { value, .. } if matching == Matching::Counter && number(value).is_none() => {
            Err(FormatError::NoNumber)
        }
        _ => Ok(()),
    }
}

/// Whether a zone of this type can have such a key.
pub(in crate::api) fn check_key(key: &[u8], matching: Matching) -> Result<(), FormatError> {
    match key.len() {
        0 => Err(FormatError::KeyEmpty),
        1..=MAX_KEY if matching.accepts(key) => Ok(()),
        1..=MAX_KEY => Err(unfit(matching)),
        _ => Err(FormatError::KeyTooLong),
    }
}

fn unfit(matching: Matching) -> FormatError {
    match matching {
        Matching::Exact | Matching::Session => FormatError::KeyRefused,
        Matching::Ip => FormatError::KeyNoNetwork,
        Matching::Prefix => FormatError::KeyNoPrefix,
        // The last is no type of a keyval zone.
        Matching::Counter | Matching::Limit => FormatError::KeyNoCounter,
    }
}

fn change(json: Json<'_>, timeout: bool) -> Result<Change<'_>, FormatError> {
    match json {
        Json::Null => Ok(Change::Delete),
        Json::String(text) => Ok(Change::Set { value: value(text)?, life: Life::Default }),
        Json::Object(members) => {
            let Members { value: text, life, incr, init } = members_of(members)?;
            if life.is_some() && !timeout {
                return Err(FormatError::NoTimeout);
            }
            match (text, life) {
                (None, life) if incr.is_some() => {
                    Ok(Change::Count { by: incr.unwrap_or(0), init, life: life.unwrap_or(Life::Default) })
                }
                _ if incr.is_some() || init.is_some() => Err(FormatError::CountMember),
                (Some(text), life) => Ok(Change::Set { value: value(text)?, life: life.unwrap_or(Life::Default) }),
                (None, Some(life)) => Ok(Change::Touch(life)),
                (None, None) => Err(FormatError::ValueRequired),
            }
        }
        Json::Number(_) | Json::Negative(_) | Json::Other => Err(FormatError::ValueType),
    }
}

/// What a pair's object has.
struct Members<'a> {
    value: Option<Cow<'a, str>>,
    life: Option<Life>,
    incr: Option<i64>,
    init: Option<i64>,
}

fn members_of<'a>(members: Vec<(Cow<'a, str>, Json<'a>)>) -> Result<Members<'a>, FormatError> {
    let (mut value, mut life, mut incr, mut init) = (None, None, None, None);
    for (name, json) in members {
        let twice = match name.as_ref() {
            "value" => {
                let Json::String(text) = json else { return Err(FormatError::ValueMember) };
                value.replace(text).is_some()
            }
            "expire" => life.replace(life_of(&json)?).is_some(),
            "incr" => incr.replace(whole(&json)?).is_some(),
            "init" => init.replace(whole(&json)?).is_some(),
            _ => true,
        };
        if twice {
            return Err(if incr.or(init).is_some() { FormatError::CountMember } else { FormatError::Member });
        }
    }
    Ok(Members { value, life, incr, init })
}

/// A whole number of 64 bits.
pub(in crate::api) fn whole(json: &Json<'_>) -> Result<i64, FormatError> {
    match json {
        Json::Number(number) => i64::try_from(*number).map_err(|_| FormatError::CountNumber),
        Json::Negative(number) => Ok(*number),
        _ => Err(FormatError::CountNumber),
    }
}

fn value(text: Cow<'_, str>) -> Result<Cow<'_, [u8]>, FormatError> {
    if text.len() > MAX_VALUE { Err(FormatError::ValueTooLong) } else { Ok(bytes(text)) }
}

fn bytes(text: Cow<'_, str>) -> Cow<'_, [u8]> {
    match text {
        Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
        Cow::Owned(text) => Cow::Owned(text.into_bytes()),
    }
}

/// The life that an `expire` gives.
pub(in crate::api) fn life_of(json: &Json<'_>) -> Result<Life, FormatError> {
    match json {
        Json::Number(millis @ 1..=MAX_EXPIRE) => Ok(Life::For(*millis)),
        Json::Number(0) => Err(FormatError::ExpireNumber),
        Json::Number(_) => Err(FormatError::ExpireTooLong),
        _ => Err(FormatError::ExpireNumber),
    }
}
