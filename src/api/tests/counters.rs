//! Counters over the API.

use super::*;
use crate::store::Matching;
use serde_json::json as value;

const ONE: &str = "/9/http/keyvals/one";
const OWN: &str = "/9/zonemesh/keyvals/one";
const PLAIN: &str = "/9/http/keyvals/plain";

/// `one` has counters and a timeout, `ever` counters and none, `plain` strings.
fn host() -> Fake {
    let mut host = Fake::cluster();
    let counters = Params { matching: Matching::Counter, sync: true, ..Params::new(Identity([7; 16])) };
    host.http = vec![
        host.zone_of("ever", 1 << 20, counters),
        host.zone_of("one", 1 << 20, Params { timeout: Some(60_000), ..counters }),
        host.zone("plain", 1 << 20, Some(60_000), false),
    ];
    host
}

fn said(host: &Fake, method: &str, target: &str, body: &str) -> (u16, Value) {
    let response = host.ask(method, target, body.as_bytes());
    (response.status, if bytes(&response).is_empty() { value!(null) } else { json(&response) })
}

fn refused(host: &Fake, method: &str, target: &str, body: &str) -> String {
    let (status, said) = said(host, method, target, body);
    let error = &said["error"];
    assert_eq!((status, error["code"].as_str()), (400, Some("KeyvalFormatError")), "{method} {target} {body}: {said}");
    error["text"].as_str().unwrap().to_owned()
}

#[test]
fn increments_begin_and_go_on() {
    let host = host();
    assert_eq!(said(&host, "POST", ONE, r#"{"a":{"incr":2}}"#), (201, value!({"a": "2"})));
    assert_eq!(said(&host, "POST", ONE, r#"{"a":{"incr":-5}}"#), (200, value!({"a": "-3"})), "it may be there");
    assert_eq!(said(&host, "PATCH", ONE, r#"{"a":{"incr":1,"init":100}}"#), (200, value!({"a": "-2"})));
    assert_eq!(said(&host, "PATCH", ONE, r#"{"b":{"incr":1,"init":100}}"#), (201, value!({"b": "101"})));
    assert_eq!(host.failure("PATCH", ONE, br#"{"c":{"incr":1}}"#), (404, "KeyvalKeyNotFound".into()));
    assert!(host.ask("POST", ONE, br#"{"a":{"incr":0}}"#).changed || host.http[1].zone.announces());
    assert_eq!(host.get(ONE), value!({"a": "-2", "b": "101"}));
    assert_eq!(host.get(&format!("{ONE}?key=a")), value!({"a": "-2"}));
    let largest = format!("{{\"a\":{{\"incr\":{}}}}}", i64::MAX);
    assert_eq!(said(&host, "POST", ONE, &largest).0, 200);
    assert!(refused(&host, "POST", ONE, r#"{"a":{"incr":3}}"#).contains("more than 9223372036854775807"));
}

#[test]
fn values_are_set_and_deleted() {
    let host = host();
    assert_eq!(said(&host, "POST", ONE, r#"{"a":"5"}"#).0, 201);
    assert_eq!(host.failure("POST", ONE, br#"{"a":"6"}"#), (409, "KeyvalKeyExists".into()));
    assert_eq!(said(&host, "POST", ONE, r#"{"a":{"incr":1}}"#), (200, value!({"a": "6"})));
    assert_eq!(said(&host, "PATCH", ONE, r#"{"a":{"value":"-7","expire":1000}}"#).0, 204);
    assert_eq!(said(&host, "POST", ONE, r#"{"a":{"incr":1,"expire":5}}"#), (200, value!({"a": "-6"})));
    assert_eq!(host.get(&format!("{OWN}?meta=1"))["pairs"]["a"]["expire"], 1000, "it keeps its end");
    assert_eq!(said(&host, "PATCH", ONE, r#"{"a":null}"#).0, 204);
    assert_eq!(host.get(ONE), value!({}));
    // Several, into an empty zone.
    assert_eq!(said(&host, "POST", ONE, r#"{"a":"1","b":"2"}"#).0, 201);
    assert_eq!(host.get(ONE), value!({"a": "1", "b": "2"}));
    assert_eq!(said(&host, "DELETE", ONE, "").0, 204);
    assert_eq!(host.get(ONE), value!({}));
}

#[test]
fn what_is_no_number_is_refused() {
    let host = host();
    for (body, why) in [
        (r#"{"a":"x"}"#, "whole number from -9223372036854775808 to"),
        (r#"{"a":"1.5"}"#, "whole number"),
        (r#"{"a":{"incr":1.5}}"#, "whole numbers of 64 bits"),
        (r#"{"a":{"incr":"1"}}"#, "whole numbers of 64 bits"),
        (r#"{"a":{"incr":9223372036854775808}}"#, "whole numbers of 64 bits"),
        (r#"{"a":{"incr":1,"init":null}}"#, "whole numbers of 64 bits"),
        (r#"{"a":{"incr":1,"value":"2"}}"#, "\"value\" or \"incr\""),
        (r#"{"a":{"incr":1,"incr":2}}"#, "\"value\" or \"incr\""),
        (r#"{"a":{"init":1}}"#, "\"value\" or \"incr\""),
        (r#"{"a":{"incr":1,"expire":0}}"#, "invalid expire"),
    ] {
        for (method, target) in [("POST", ONE), ("PATCH", ONE), ("PUT", OWN)] {
            let text = refused(&host, method, target, body);
            assert!(text.contains(why), "{method} {body}: {text}");
        }
    }
    assert!(refused(&host, "PATCH", ONE, r#"{"a":{"expire":5}}"#).contains("keeps its end"));
    assert!(refused(&host, "POST", ONE, r#"{"a":{"incr":1},"b":"1"}"#).contains("only one counter"));
    assert!(refused(&host, "POST", PLAIN, r#"{"a":{"incr":1}}"#).contains("type=counter"));
    assert!(refused(&host, "PUT", "/9/zonemesh/keyvals/plain", r#"{"a":{"incr":1}}"#).contains("type=counter"));
    assert!(refused(&host, "POST", "/9/http/keyvals/ever", r#"{"a":{"incr":1,"expire":5}}"#).contains("timeout"));
    assert_eq!(host.get(ONE), value!({}));
}

#[test]
fn the_own_paths_count_too() {
    let host = host();
    let many = r#"{"a":{"incr":1},"b":{"incr":5,"init":10},"c":"7"}"#;
    let counts =
        |created: u64, replaced: u64| value!({"created": created, "replaced": replaced, "deleted": 0, "missing": 0});
    assert_eq!(said(&host, "PUT", OWN, many), (200, counts(3, 0)));
    assert_eq!(said(&host, "PUT", OWN, many), (200, counts(0, 3)));
    assert_eq!(host.get(OWN)["pairs"], value!({"a": "2", "b": "20", "c": "7"}));
    assert_eq!(said(&host, "PUT", &format!("{OWN}?key=a"), r#"{"incr":3}"#), (200, value!({"a": "5"})));
    let (status, report) = said(&host, "POST", OWN, "{\"a\":{\"incr\":1}}\n{\"a\":{\"incr\":\"x\"}}\n{\"d\":\"1\"}\n");
    assert_eq!((status, &report["report"]["created"], &report["report"]["replaced"]), (400, &value!(1), &value!(1)));
    // A page for each.
    let (mut all, mut after) = (serde_json::Map::new(), String::new());
    loop {
        let page = host.get(&format!("{OWN}?limit=1{after}"));
        let pairs = page["pairs"].as_object().unwrap();
        assert!(pairs.len() <= 1);
        all.extend(pairs.clone());
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(Value::from(all), value!({"a": "6", "b": "20", "c": "7", "d": "1"}));
    // What was exported is set again.
    let lines = host.ask("GET", &format!("{OWN}?format=ndjson&meta=1"), b"");
    assert_eq!(said(&host, "DELETE", &format!("{OWN}?glob=*"), ""), (200, value!({"deleted": 4})));
    assert_eq!(json(&host.ask("POST", OWN, bytes(&lines)))["created"], 4);
    assert_eq!(host.get(OWN)["pairs"], value!({"a": "6", "b": "20", "c": "7", "d": "1"}));
}

#[test]
fn conditions_are_of_all_that_was_added() {
    let host = host();
    said(&host, "PUT", OWN, r#"{"a":"1"}"#);
    let tag = |host: &Fake| {
        let response = host.ask("GET", &format!("{OWN}?key=a"), b"");
        response.headers.iter().find(|(name, _)| *name == "ETag").unwrap().1.clone()
    };
    let before = tag(&host);
    said(&host, "POST", ONE, r#"{"a":{"incr":1}}"#);
    let put = |tag: &str, body: &[u8]| {
        host.ask_headed("PUT", &format!("{OWN}?key=a"), body, &[("if-match", tag)], |_| ()).status
    };
    assert_eq!(put(&before, br#""9""#), 412);
    assert_eq!(put(&tag(&host), br#"{"incr":1}"#), 400, "what adds needs no condition");
    assert_eq!(put(&tag(&host), br#""9""#), 204);
    assert_eq!(host.get(ONE), value!({"a": "9"}));
}

#[test]
fn a_counter_of_too_many_parts_is_a_conflict() {
    let error = crate::api::error::Error::from(crate::store::StoreError::Parts);
    let response = error.response(Some(9), "id");
    assert_eq!((response.status, &json(&response)["error"]["code"]), (409, &"KeyvalCounterParts".into()));
    let text = json(&response)["error"]["text"].to_string();
    assert!(text.contains("set it to begin anew"), "{text}");
}
