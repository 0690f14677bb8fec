//! Pairs in the bodies of PUT and POST: `"key":"value"`, `"key":{"value":..,"expire":ms}`, `"key":{"base64":".."}`, and
//! `"key":null`, which deletes; of counters `"key":{"incr":n}`. What a listing writes, with `meta` too, is read again.

use crate::api::NamedZone;
use crate::api::body::{Change, Pair, Understand};
use crate::api::error::FormatError;
use crate::api::json::Json;
use crate::api::keyvals::{check_change, check_key, life_of, whole};
use crate::base64;
use crate::store::{Life, MAX_VALUE};
use std::borrow::Cow;

type Members<'a> = Vec<(Cow<'a, str>, Json<'a>)>;

/// What members of a body mean for a zone.
pub(super) fn understand(zone: &NamedZone) -> Understand {
    let zone = zone.clone();
    Box::new(move |name, json| pair(name, json, &zone))
}

/// A member of a body.
pub(super) fn pair<'a>(name: Cow<'_, str>, json: Json<'_>, zone: &NamedZone) -> Result<Pair<'a>, FormatError> {
    let mut read = value(json)?;
    let key = read.key.take().unwrap_or_else(|| name.into_owned().into_bytes());
    check_key(&key, zone.zone.params().matching)?;
    Ok(Pair { key: key.into(), change: change(read, zone)? })
}

/// The value that a body is, for the pair of this key.
pub(super) fn understand_value(key: &[u8], zone: &NamedZone) -> Understand {
    let (key, zone) = (key.to_vec(), zone.clone());
    Box::new(move |_, json| {
        // A key in the value says no more than the one in the arguments, which may have any bytes.
        let read = value(json)?;
        check_key(&key, zone.zone.params().matching)?;
        Ok(Pair { key: key.clone().into(), change: change(read, &zone)? })
    })
}

fn change<'a>(read: Value, zone: &NamedZone) -> Result<Change<'a>, FormatError> {
    let Value { content, life, .. } = read;
    if life.is_some() && !zone.timeout {
        return Err(FormatError::NoTimeout);
    }
    let life = life.unwrap_or(Life::Default);
    let change = match content {
        Content::Value(value) if value.len() > MAX_VALUE => return Err(FormatError::ValueTooLong),
        Content::Value(value) => Change::Set { value: value.into(), life },
        Content::More { by, init } => Change::Count { by, init, life },
        Content::Nothing => Change::Delete,
    };
    check_change(&change, zone.zone.params().matching)?;
    Ok(change)
}

/// What stands beside a key.
struct Value {
    /// The key's own bytes, where its name can't say them.
    key: Option<Vec<u8>>,
    content: Content,
    life: Option<Life>,
}

enum Content {
    Value(Vec<u8>),
    /// A counter is to get so much more.
    More {
        by: i64,
        init: Option<i64>,
    },
    /// The pair is to go.
    Nothing,
}

fn value(json: Json<'_>) -> Result<Value, FormatError> {
    match json {
        Json::Null => Ok(Value { key: None, content: Content::Nothing, life: None }),
        Json::String(text) => {
            Ok(Value { key: None, content: Content::Value(text.into_owned().into_bytes()), life: None })
        }
        Json::Object(members) => object(members),
        Json::Number(_) | Json::Negative(_) | Json::Other => Err(FormatError::OwnValue),
    }
}

fn object(members: Members<'_>) -> Result<Value, FormatError> {
    let (mut key, mut value, mut life, mut others) = (None, None, None, Vec::new());
    let (mut incr, mut init) = (None, None);
    for (name, json) in members {
        let twice = match name.as_ref() {
            "base64" => value.replace(Some(encoded(&json)?)).is_some(),
            "value" if json == Json::Null => value.replace(None).is_some(),
            "value" => value.replace(Some(bytes(json)?)).is_some(),
            "incr" => incr.replace(whole(&json)?).is_some(),
            "init" => init.replace(whole(&json)?).is_some(),
            "key" => key.replace(bytes(json)?).is_some(),
            // What a listing shows of a record that never ends.
            "expire" if json == Json::Null => life.replace(None).is_some(),
            "expire" => life.replace(Some(life_of(&json)?)).is_some(),
            // A listing shows them; a write gives the record new ones.
            "version" | "origin" if !others.contains(&name) => {
                others.push(name);
                false
            }
            _ => true,
        };
        if twice {
            return Err(if incr.or(init).is_some() { FormatError::CountMember } else { FormatError::OwnMember });
        }
    }
    let content = match (value, incr) {
        (None, Some(by)) => Content::More { by, init },
        (Some(_), Some(_)) | (_, None) if incr.or(init).is_some() => return Err(FormatError::CountMember),
        (value, _) => value.ok_or(FormatError::ValueRequired)?.map_or(Content::Nothing, Content::Value),
    };
    Ok(Value { key, content, life: life.flatten() })
}

/// A string, or `{"base64":".."}`.
fn bytes(json: Json<'_>) -> Result<Vec<u8>, FormatError> {
    match json {
        Json::String(text) => Ok(text.into_owned().into_bytes()),
        Json::Object(members) => match members.as_slice() {
            [(name, json)] if name == "base64" => encoded(json),
            _ => Err(FormatError::OwnValue),
        },
        _ => Err(FormatError::OwnValue),
    }
}

fn encoded(json: &Json<'_>) -> Result<Vec<u8>, FormatError> {
    let Json::String(text) = json else { return Err(FormatError::Base64) };
    base64::decode(text.as_bytes()).ok_or(FormatError::Base64)
}
