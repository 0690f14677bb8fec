//! The pairs of POST and PATCH: `"key":"value"`, `"key":{"value":"v","expire":1000}`, `"key":null`.

use crate::api::NamedZone;
use crate::api::body::{Change, Pair, Understand};
use crate::api::error::FormatError;
use crate::api::json::Json;
use crate::record::Millis;
use crate::store::{Life, MAX_KEY, MAX_VALUE, Matching};
use std::borrow::Cow;

/// The longest `expire`: 100 years of 365.25 days, in milliseconds.
pub(in crate::api) const MAX_EXPIRE: Millis = 36_525 * 24 * 60 * 60 * 1000;

/// What members of a body mean for a zone.
pub(super) fn understand(zone: &NamedZone) -> Understand {
    let (matching, timeout) = (zone.zone.params().matching, zone.timeout);
    Box::new(move |name, json| {
        check_key(name.as_bytes(), matching)?;
        Ok(Pair { key: bytes(name), change: change(json, timeout)? })
    })
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
        Matching::Exact => FormatError::KeyRefused,
        Matching::Ip => FormatError::KeyNoNetwork,
        Matching::Prefix => FormatError::KeyNoPrefix,
        Matching::Counter => FormatError::KeyNoCounter,
    }
}

fn change(json: Json<'_>, timeout: bool) -> Result<Change<'_>, FormatError> {
    match json {
        Json::Null => Ok(Change::Delete),
        Json::String(text) => Ok(Change::Set { value: value(text)?, life: Life::Default }),
        Json::Object(members) => {
            let (text, life) = members_of(members)?;
            if life.is_some() && !timeout {
                return Err(FormatError::NoTimeout);
            }
            match (text, life) {
                (Some(text), life) => Ok(Change::Set { value: value(text)?, life: life.unwrap_or(Life::Default) }),
                (None, Some(life)) => Ok(Change::Touch(life)),
                (None, None) => Err(FormatError::ValueRequired),
            }
        }
        Json::Number(_) | Json::Other => Err(FormatError::ValueType),
    }
}

/// `value` and `expire` of a pair's object.
fn members_of<'a>(members: Vec<(Cow<'a, str>, Json<'a>)>) -> Result<(Option<Cow<'a, str>>, Option<Life>), FormatError> {
    let (mut value, mut life) = (None, None);
    for (name, json) in members {
        let twice = match name.as_ref() {
            "value" => {
                let Json::String(text) = json else { return Err(FormatError::ValueMember) };
                value.replace(text).is_some()
            }
            "expire" => life.replace(life_of(&json)?).is_some(),
            _ => true,
        };
        if twice {
            return Err(FormatError::Member);
        }
    }
    Ok((value, life))
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
