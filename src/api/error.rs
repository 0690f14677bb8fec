//! Failures: what clients decode, and what people read.

use super::json::{self, Object};
use super::{Response, args::Fields};
use crate::store::{MAX_KEY, MAX_PARTED, MAX_PREFIX, MAX_SPELLINGS, MAX_VALUE, StoreError};

/// Where the endpoints and codes are described.
const REFERENCE: &str = "https://nginx.org/en/docs/http/ngx_http_api_module.html";

/// Why a request fails. The texts are those that the answer carries.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    #[error("unknown version")]
    UnknownVersion,
    #[error("path not found")]
    PathNotFound,
    #[error("method not supported")]
    MethodNotSupported { allow: &'static str },
    #[error("method disabled: changes need \"api write=on\"")]
    MethodDisabled { allow: &'static str },
    #[error("the request body could not be read")]
    BodyRead,
    #[error("the request body is too large")]
    BodyTooLarge,
    #[error("the request body is not JSON: {0}")]
    Json(String),
    #[error("slab zone not found")]
    SlabNotFound,
    #[error("worker not found")]
    WorkerNotFound,
    #[error("zone not found")]
    ZoneNotFound,
    #[error("server zone not found")]
    ServerZoneNotFound,
    #[error("location zone not found")]
    LocationZoneNotFound,
    #[error("limit req not found")]
    LimitReqNotFound,
    #[error("\"position\" is neither 0 nor the id of an event")]
    WatchPosition,
    #[error("keyval not found")]
    KeyvalNotFound,
    #[error("keyval key not found")]
    KeyvalKeyNotFound,
    #[error("keyval key already exists")]
    KeyvalKeyExists,
    #[error("{}", StoreError::Parts)]
    CounterParts,
    #[error(transparent)]
    KeyvalFormat(#[from] FormatError),
    #[error("the keyval zone is full")]
    KeyvalNoMemory,
    #[error("the keyval zone is busy, try again")]
    KeyvalBusy,
    #[error("precondition failed: the record is not as If-Match or If-None-Match says")]
    PreconditionFailed,
    #[error("{0}")]
    BadArgument(&'static str),
    #[error("\"after\" is a place in a zone that was made anew since: begin with the first page")]
    PlaceGone,
    #[error("{done} of {all} pairs were written, then: {why}")]
    Stopped { why: Box<Error>, done: u64, all: usize },
    #[error("{deleted} pairs were deleted, then: {why}")]
    Halted { why: Box<Error>, deleted: u64 },
    #[error("If-Match and If-None-Match go with one pair")]
    ConditionOfMany,
    #[error("If-Match and If-None-Match don't go with \"incr\", which needs no condition")]
    ConditionOfCount,
    #[error("{failed} lines were not imported{}{}",
        if *full { ", some because the zone is full" } else { "" },
        if *busy { "; the rest is left, as the zone stays busy" } else { "" })]
    Incomplete { failed: u64, full: bool, busy: bool, report: Vec<u8> },
    #[error("{}", refusal(*.0))]
    Refused(u16),
}

/// What is wrong with pairs that are JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum FormatError {
    #[error("the request body must be a JSON object, such as {{\"key\":\"value\"}}")]
    NotObject,
    #[error("key required")]
    KeyRequired,
    #[error("invalid key: it is empty")]
    KeyEmpty,
    #[error("invalid key: it is longer than {MAX_KEY} bytes")]
    KeyTooLong,
    #[error("invalid key: a zone of type=ip has addresses and networks, such as 10.0.0.1 and 2001:db8::/32")]
    KeyNoNetwork,
    #[error("invalid key: it is longer than {MAX_PREFIX} bytes, the most that a zone of type=prefix takes")]
    KeyNoPrefix,
    #[error("invalid key: it is longer than {MAX_PARTED} bytes, the most that a zone of type=counter takes")]
    KeyNoCounter,
    #[error("invalid key: it doesn't fit the zone")]
    KeyRefused,
    #[error("invalid key: the zone has this network in {MAX_SPELLINGS} other spellings; delete some of them")]
    KeySpellings,
    #[error("invalid key: it is given twice")]
    KeyTwice,
    #[error("only one key can be added, unless the zone is empty")]
    OneAdded,
    #[error("only one key can be updated")]
    OneUpdated,
    #[error("invalid value: a string is expected, or an object with \"value\" and \"expire\"")]
    ValueType,
    #[error("invalid value: \"value\" must be a string")]
    ValueMember,
    #[error("invalid value: it is longer than {MAX_VALUE} bytes")]
    ValueTooLong,
    #[error("value required")]
    ValueRequired,
    #[error("invalid value: an object may have \"value\" and \"expire\", each once")]
    Member,
    #[error("invalid expire: it must be a whole number of milliseconds, 1 or more")]
    ExpireNumber,
    #[error("invalid expire: it is more than {max} milliseconds", max = super::keyvals::MAX_EXPIRE)]
    ExpireTooLong,
    #[error("invalid value: a string is expected, null, or an object with \"value\" or \"base64\", and \"expire\"")]
    OwnValue,
    #[error("invalid value: an object may have \"value\" or \"base64\", \"expire\" and \"key\", each once")]
    OwnMember,
    #[error("invalid value: \"base64\" must be a string of Base64 with padding")]
    Base64,
    #[error("a line must be a JSON object of one pair, such as {{\"key\":\"value\"}}")]
    OnePair,
    #[error("the line is longer than any pair")]
    LineTooLong,
    #[error("a pair is longer than any can be")]
    PairTooLong,
    #[error("invalid incr: only a zone of type=counter counts")]
    NoCounter,
    #[error("invalid incr: \"incr\" and \"init\" must be whole numbers of 64 bits")]
    CountNumber,
    #[error(
        "invalid value: an object of a counter may have \"value\" or \"incr\", \"expire\", and with \"incr\" also \"init\""
    )]
    CountMember,
    #[error("only one counter can be incremented")]
    OneCounted,
    #[error(
        "invalid expire: a counter keeps its end; give \"expire\" with \"value\", or with \"incr\" for one that isn't there yet"
    )]
    CounterLife,
    #[error("invalid value: {}", StoreError::NoNumber)]
    NoNumber,
    #[error("invalid incr: {}", StoreError::OutOfRange)]
    OutOfRange,
    #[error("timeout not enabled: \"expire\" needs a \"timeout\" on the keyval_zone")]
    NoTimeout,
}

impl Error {
    /// HTTP status, and the code that programs compare.
    fn codes(&self) -> (u16, &'static str) {
        match self {
            Error::UnknownVersion => (404, "UnknownVersion"),
            Error::PathNotFound => (404, "PathNotFound"),
            Error::MethodNotSupported { .. } => (405, "MethodNotSupported"),
            Error::MethodDisabled { .. } => (405, "MethodDisabled"),
            Error::BodyRead => (400, "BodyReadError"),
            Error::BodyTooLarge => (413, "BodyTooLarge"),
            Error::Json(_) => (415, "JsonError"),
            Error::SlabNotFound => (404, "SlabNotFound"),
            Error::WorkerNotFound => (404, "WorkerNotFound"),
            Error::ZoneNotFound => (404, "ZoneNotFound"),
            Error::ServerZoneNotFound => (404, "ServerZoneNotFound"),
            Error::LocationZoneNotFound => (404, "LocationZoneNotFound"),
            Error::LimitReqNotFound => (404, "LimitReqNotFound"),
            Error::WatchPosition => (400, "WatchPositionError"),
            Error::KeyvalNotFound => (404, "KeyvalNotFound"),
            Error::KeyvalKeyNotFound => (404, "KeyvalKeyNotFound"),
            Error::KeyvalKeyExists => (409, "KeyvalKeyExists"),
            Error::CounterParts => (409, "KeyvalCounterParts"),
            Error::KeyvalFormat(_) => (400, "KeyvalFormatError"),
            Error::KeyvalNoMemory => (507, "KeyvalNoMemory"),
            Error::KeyvalBusy => (503, "KeyvalBusy"),
            Error::PreconditionFailed => (412, "PreconditionFailed"),
            Error::BadArgument(_) => (400, "BadArgument"),
            Error::PlaceGone => (410, "PlaceGone"),
            Error::Stopped { why, .. } | Error::Halted { why, .. } => why.codes(),
            Error::ConditionOfMany | Error::ConditionOfCount => (400, "BadArgument"),
            Error::Incomplete { busy: true, .. } => (503, "ImportIncomplete"),
            Error::Incomplete { full: true, .. } => (507, "ImportIncomplete"),
            Error::Incomplete { .. } => (400, "ImportIncomplete"),
            Error::Refused(status) => (*status, refused(*status)),
        }
    }

    /// The answer. `version`: that of the path, if it has a known one.
    pub(super) fn response(&self, version: Option<u8>, request_id: &str) -> Response {
        let (status, code) = self.codes();
        let mut body = Vec::with_capacity(256);
        let all = Fields::All;
        let mut object = Object::new(&mut body, &all);
        if version.is_some_and(|version| version <= 3) {
            object.string("path", "").string("method", "");
        }
        object.member(b"error", |out| {
            let mut error = Object::new(out, &all);
            error.number("status", u64::from(status)).string("text", &self.to_string()).string("code", code);
            error.end();
        });
        object.string("request_id", request_id).string("href", REFERENCE);
        if let Error::Incomplete { report, .. } = self {
            object.member(b"report", |out| out.extend_from_slice(report));
        }
        object.end();
        let allow = match self {
            Error::MethodNotSupported { allow } | Error::MethodDisabled { allow } => Some(*allow),
            _ => None,
        };
        Response { body: body.into(), allow, ..Response::empty(status) }
    }
}

/// What a status that nginx itself answers with means.
fn refusal(status: u16) -> &'static str {
    match status {
        400 => "bad request",
        401 => "authorization required",
        403 => "forbidden",
        404 => "not found",
        405 => "method not supported",
        408 => "request timeout",
        413 => "the request body is too large",
        429 => "too many requests",
        503 => "service unavailable",
        504 => "gateway timeout",
        500.. => "internal error",
        _ => "request refused",
    }
}

/// Its code.
fn refused(status: u16) -> &'static str {
    match status {
        400 => "BadRequest",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "NotFound",
        405 => "MethodNotSupported",
        408 => "RequestTimeout",
        413 => "BodyTooLarge",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "GatewayTimeout",
        500.. => "InternalError",
        _ => "RequestRefused",
    }
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Error {
        match error {
            StoreError::NoMemory => Error::KeyvalNoMemory,
            StoreError::Busy => Error::KeyvalBusy,
            StoreError::BadKey => FormatError::KeyRefused.into(),
            StoreError::BadValue => FormatError::ValueTooLong.into(),
            StoreError::Spellings => FormatError::KeySpellings.into(),
            StoreError::NoNumber => FormatError::NoNumber.into(),
            StoreError::OutOfRange => FormatError::OutOfRange.into(),
            StoreError::Parts => Error::CounterParts,
        }
    }
}

impl From<json::NotJson> for Error {
    fn from(error: json::NotJson) -> Error {
        Error::Json(error.0)
    }
}
