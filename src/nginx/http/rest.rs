//! The content of a location with `keyval_rest`.

use super::request::Request;
use crate::api::{self, NamedZone, Response};
use crate::nginx::conf::main::KeyvalZone;
use std::borrow::Cow;

/// Answers a request for one record.
pub fn answer(request: &Request, question: &api::Request<'_>, zone: &KeyvalZone) -> Option<Response> {
    let zone = NamedZone { name: zone.name.clone(), zone: zone.zone?, timeout: zone.timeout.is_some() };
    let key: Cow<'_, [u8]> = request.key().into();
    Some(api::raw::handle(question, &key, &zone))
}
