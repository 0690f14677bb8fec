//! Pairs in real zones.

use super::*;
use crate::api::keyvals::MAX_EXPIRE;
use crate::store::{Condition, Found, Life, MIN_ZONE_SIZE};
use serde_json::json as value;

/// `one` (no timeout), `two` (timeout of a minute, synchronized) and a zone with a slash in its name; in stream
/// another `one`.
fn host() -> Fake {
    let mut host = Fake::cluster();
    let zones = vec![
        host.zone("default/zone_1", 1 << 20, None, false),
        host.zone("one", 1 << 20, None, false),
        host.zone("two", 1 << 20, Some(60_000), true),
    ];
    host.http = zones;
    host.stream = Some(vec![host.zone("one", 1 << 20, None, false)]);
    host
}

const ONE: &str = "/9/http/keyvals/one";
const TWO: &str = "/9/http/keyvals/two/";

fn zone(host: &Fake, name: &str) -> Zone {
    host.http.iter().find(|zone| zone.name == name).unwrap().zone
}

fn expires(host: &Fake, name: &str, key: &str) -> Option<Millis> {
    let found: Option<Found> = zone(host, name).get(key.as_bytes(), NOW, &mut Vec::new()).unwrap();
    found.unwrap().expires
}

/// Makes a request that must succeed with this status and no body.
fn done(host: &Fake, method: &str, target: &str, body: &str, status: u16) -> Response {
    let response = host.ask(method, target, body.as_bytes());
    let text = String::from_utf8_lossy(bytes(&response));
    assert_eq!((response.status, &*text), (status, ""), "{method} {target} {body}");
    response
}

#[test]
fn pairs_are_added_shown_changed_and_removed() {
    let host = host();
    assert_eq!(host.get(ONE), value!({}));
    done(&host, "POST", ONE, r#"{"a":"1"}"#, 201);
    done(&host, "POST", ONE, r#"{"b":"2"}"#, 201);
    assert_eq!(host.get(ONE), value!({"a": "1", "b": "2"}));
    assert_eq!(host.get("/9/http/keyvals/one/?key=b"), value!({"b": "2"}));
    done(&host, "PATCH", "/9/http/keyvals/one/", r#"{"a":"3"}"#, 204);
    assert_eq!(host.get(ONE), value!({"a": "3", "b": "2"}));
    done(&host, "PATCH", ONE, r#"{"a":null}"#, 204);
    assert_eq!(host.get(ONE), value!({"b": "2"}));
    done(&host, "DELETE", "/9/http/keyvals/one/", "", 204);
    assert_eq!(host.get(ONE), value!({}));
}

#[test]
fn http_and_stream_are_apart() {
    let host = host();
    done(&host, "POST", ONE, r#"{"a":"http"}"#, 201);
    done(&host, "POST", "/9/stream/keyvals/one", r#"{"a":"stream"}"#, 201);
    assert_eq!(
        host.get("/9/http/keyvals/"),
        value!({"default/zone_1": {}, "one": {"a": "http"}, "two": {}}),
        "empty zones are listed"
    );
    assert_eq!(host.get("/9/stream/keyvals"), value!({"one": {"a": "stream"}}));
    assert_eq!(host.failure("GET", "/9/stream/keyvals/two", b""), (404, "KeyvalNotFound".into()));
}

#[test]
fn zone_names_may_be_encoded() {
    let host = host();
    done(&host, "POST", "/9/http/keyvals/default%2Fzone_1", r#"{"a":"1"}"#, 201);
    for name in ["default%2fzone%5F1/", "default/zone_1", "default/zone_1/"] {
        assert_eq!(host.get(&format!("/9/http/keyvals/{name}")), value!({"a": "1"}), "{name}");
    }
    assert_eq!(host.failure("GET", "/9/http/keyvals/default%252Fzone_1", b""), (404, "KeyvalNotFound".into()));
    assert_eq!(host.failure("GET", "/9/http/keyvals/default", b""), (404, "KeyvalNotFound".into()));
}

#[test]
fn several_pairs_go_into_an_empty_zone_only() {
    let host = host();
    done(&host, "POST", ONE, r#"{"a":"1","b":{"value":"2"},"c":"3"}"#, 201);
    assert_eq!(host.get(ONE), value!({"a": "1", "b": "2", "c": "3"}));
    assert_eq!(host.failure("POST", ONE, br#"{"d":"4","e":"5"}"#), (400, "KeyvalFormatError".into()));
    done(&host, "POST", ONE, r#"{"d":"4"}"#, 201);
    assert_eq!(host.get("/9/http/keyvals?fields="), value!(["default/zone_1", "one", "two"]));
    assert_eq!(host.get("/9/http/keyvals/one?fields=a,c"), value!({"a": "1", "c": "3"}));
    assert_eq!(host.get("/9/http/keyvals?fields=a")["one"], value!({"a": "1"}));
    let mut names: Vec<String> = serde_json::from_value(host.get("/9/http/keyvals/one?fields=")).unwrap();
    names.sort();
    assert_eq!(names, ["a", "b", "c", "d"]);
}

#[test]
fn a_zone_whose_pairs_are_over_counts_as_empty() {
    let host = host();
    done(&host, "POST", TWO, r#"{"a":"1"}"#, 201);
    let later = |request: &mut Request<'_>| request.now = NOW + 61_000;
    assert_eq!(bytes(&host.ask_with("GET", TWO, b"", later)), b"{}");
    assert_eq!(host.ask_with("GET", "/9/http/keyvals/two?key=a", b"", later).status, 404);
    assert_eq!(host.ask_with("PATCH", TWO, br#"{"a":"2"}"#, later).status, 404);
    assert_eq!(host.ask_with("POST", TWO, br#"{"a":"2","b":"3"}"#, later).status, 201);
}

#[test]
fn missing_zones_and_keys() {
    let host = host();
    done(&host, "POST", ONE, r#"{"a":"1"}"#, 201);
    for (method, body) in [("GET", ""), ("POST", r#"{"a":"1"}"#), ("PATCH", "not JSON"), ("DELETE", "")] {
        let answer = host.failure(method, "/9/http/keyvals/none", body.as_bytes());
        assert_eq!(answer, (404, "KeyvalNotFound".into()), "{method}");
    }
    let long = format!("{ONE}?key={}", "k".repeat(70_000));
    for target in ["/9/http/keyvals/one?key=none", "/9/http/keyvals/one?key=", "/9/http/keyvals/one?key=A", &long] {
        assert_eq!(host.failure("GET", target, b""), (404, "KeyvalKeyNotFound".into()));
    }
    for body in [r#"{"none":"1"}"#, r#"{"none":null}"#] {
        assert_eq!(host.failure("PATCH", ONE, body.as_bytes()), (404, "KeyvalKeyNotFound".into()));
    }
    assert_eq!(host.failure("PATCH", TWO, br#"{"none":{"expire":5}}"#), (404, "KeyvalKeyNotFound".into()));
    assert_eq!(host.failure("POST", ONE, br#"{"a":"2"}"#), (409, "KeyvalKeyExists".into()));
    assert_eq!(host.get(ONE), value!({"a": "1"}));
}

#[test]
fn lives() {
    let host = host();
    done(&host, "POST", TWO, r#"{"a":"1","b":{"value":"2","expire":5000},"c":{"value":"3"}}"#, 201);
    assert_eq!(expires(&host, "two", "a"), Some(NOW + 60_000));
    assert_eq!(expires(&host, "two", "b"), Some(NOW + 5_000));
    assert_eq!(expires(&host, "two", "c"), Some(NOW + 60_000));
    done(&host, "PATCH", TWO, r#"{"a":{"expire":7000}}"#, 204);
    assert_eq!(expires(&host, "two", "a"), Some(NOW + 7_000));
    done(&host, "PATCH", TWO, r#"{"a":{"value":"x","expire":3155760000000}}"#, 204);
    assert_eq!(expires(&host, "two", "a"), Some(NOW + MAX_EXPIRE));
    done(&host, "PATCH", TWO, r#"{"b":"4"}"#, 204);
    assert_eq!(expires(&host, "two", "b"), Some(NOW + 60_000), "a plain value begins a new life");
    done(&host, "PATCH", TWO, r#"{"a":{"value":"x"}}"#, 204);
    assert_eq!(expires(&host, "two", "a"), Some(NOW + 60_000), "in an object as well");
    done(&host, "PATCH", TWO, r#"{"c":{"expire":8000,"value":"5"}}"#, 204);
    assert_eq!(host.get(TWO), value!({"a": "x", "b": "4", "c": "5"}));
    assert_eq!(expires(&host, "two", "c"), Some(NOW + 8_000));
}

#[test]
fn bodies_that_are_not_acceptable_have_each_their_text() {
    let host = host();
    done(&host, "POST", TWO, r#"{"a":"1"}"#, 201);
    let before = host.get("/9/http/keyvals");
    let long_key = format!("{{\"{}\":\"v\"}}", "k".repeat(65_537));
    let long_value = format!("{{\"k\":\"{}\"}}", "v".repeat(1_048_577));
    // `\u00e9` is two bytes: limits are of bytes.
    let wide_key = format!("{{\"{}\":\"v\"}}", "\\u00e9".repeat(32_769));
    let bodies = [
        (TWO, "[]", "must be a JSON object"),
        (TWO, "\"a\"", "must be a JSON object"),
        (TWO, "17", "must be a JSON object"),
        (TWO, "null", "must be a JSON object"),
        (TWO, " {} ", "key required"),
        (TWO, r#"{"":"v"}"#, "it is empty"),
        (TWO, &long_key, "longer than 65536 bytes"),
        (TWO, &wide_key, "longer than 65536 bytes"),
        (TWO, &long_value, "longer than 1048576 bytes"),
        (TWO, r#"{"k":"v","k":"v"}"#, "given twice"),
        (TWO, r#"{"k":"v","\u006b":"v"}"#, "given twice"),
        (TWO, r#"{"k":1}"#, "a string is expected"),
        (TWO, r#"{"k":true}"#, "a string is expected"),
        (TWO, r#"{"k":["v"]}"#, "a string is expected"),
        (TWO, r#"{"k":-1.5e3}"#, "a string is expected"),
        (TWO, r#"{"k":{}}"#, "value required"),
        (TWO, r#"{"k":{"value":1}}"#, "\"value\" must be a string"),
        (TWO, r#"{"k":{"value":null}}"#, "\"value\" must be a string"),
        (TWO, r#"{"k":{"value":{"value":"v"}}}"#, "\"value\" must be a string"),
        (TWO, r#"{"k":{"value":"v","value":"v"}}"#, "each once"),
        (TWO, r#"{"k":{"value":"v","expire":5,"expire":5}}"#, "each once"),
        (TWO, r#"{"k":{"value":"v","ttl":5}}"#, "may have"),
        (TWO, r#"{"k":{"value":"v","expire":0}}"#, "1 or more"),
        (TWO, r#"{"k":{"value":"v","expire":-1}}"#, "1 or more"),
        (TWO, r#"{"k":{"value":"v","expire":1.5}}"#, "whole number"),
        (TWO, r#"{"k":{"value":"v","expire":"5"}}"#, "whole number"),
        (TWO, r#"{"k":{"value":"v","expire":null}}"#, "whole number"),
        (TWO, r#"{"k":{"value":"v","expire":3155760000001}}"#, "more than 3155760000000"),
        (TWO, r#"{"k":{"value":"v","expire":18446744073709551615}}"#, "more than"),
        (ONE, r#"{"k":{"value":"v","expire":5}}"#, "timeout not enabled"),
        (ONE, r#"{"k":{"expire":5}}"#, "timeout not enabled"),
    ];
    for method in ["POST", "PATCH"] {
        for (target, body, text) in bodies {
            let response = host.ask(method, target, body.as_bytes());
            check_failure(&response);
            let error = &json(&response)["error"];
            let shown = body.get(..60).unwrap_or(body);
            assert_eq!((response.status, &error["code"]), (400, &"KeyvalFormatError".into()), "{method} {shown}");
            assert!(error["text"].as_str().unwrap().contains(text), "{method} {shown}: {error}");
            assert!(!response.changed);
        }
    }
    for (method, body, text) in [
        ("POST", r#"{"k":null}"#, "value required"),
        ("POST", r#"{"k":{"expire":5}}"#, "value required"),
        ("POST", r#"{"k":"v","l":"v"}"#, "only one key can be added"),
        ("PATCH", r#"{"a":"v","k":"v"}"#, "only one key can be updated"),
    ] {
        let response = host.ask(method, TWO, body.as_bytes());
        assert_eq!(response.status, 400);
        assert!(json(&response)["error"]["text"].as_str().unwrap().contains(text), "{body}");
    }
    assert_eq!(host.get("/9/http/keyvals"), before, "nothing was changed");
}

#[test]
fn a_list_with_one_bad_pair_adds_none() {
    let host = host();
    for bad in ["1", "null", "{\"expire\":5}", "{\"value\":\"v\",\"expire\":0}"] {
        let body = format!(r#"{{"a":"1","b":"2","c":{bad}}}"#);
        assert_eq!(host.failure("POST", TWO, body.as_bytes()), (400, "KeyvalFormatError".into()));
        assert_eq!(host.get(TWO), value!({}));
    }
}

#[test]
fn bodies_that_are_not_json_or_not_there() {
    let host = host();
    let deep = "{\"a\":".repeat(100_000);
    let bodies: [&[u8]; 14] = [
        b"",
        b"   ",
        b"a=b",
        b"{",
        b"{\"a\"}",
        b"{\"a\":\"b\"",
        b"{\"a\":\"b\"} x",
        b"{\"a\":\"b\",}",
        b"{'a':'b'}",
        b"{\"a\":\"\xff\"}",
        b"{\"a\":\"\n\"}",
        b"{\"a\":\"\\ud800\"}",
        b"{\"a\":\"b\"}{\"c\":\"d\"}",
        deep.as_bytes(),
    ];
    for method in ["POST", "PATCH"] {
        for body in bodies {
            let answer = host.failure(method, ONE, body);
            assert_eq!(answer, (415, "JsonError".into()), "{:?}", String::from_utf8_lossy(&body[..body.len().min(60)]));
        }
        for (status, code) in [(400, "BodyReadError"), (408, "RequestTimeout"), (413, "BodyTooLarge")] {
            let response = host.ask_in_pieces(method, ONE, &|| Box::new(Unreadable(status)));
            check_failure(&response);
            assert_eq!((response.status, &json(&response)["error"]["code"]), (status, &code.into()));
        }
    }
    assert_eq!(host.ask("DELETE", ONE, b"").status, 204);
    assert_eq!(host.get(ONE), value!({}));
}

#[test]
fn any_text_comes_back_as_it_was() {
    let host = host();
    let texts = [
        "quotes \" \\ / '".to_owned(),
        (0..0x20u8).map(char::from).collect(),
        "\u{7f}\u{80}é\u{2028}日本\u{1f980}\u{10ffff}\u{fffd}".to_owned(),
        "a+b c%20d&e=f".to_owned(),
        "\0".to_owned(),
        "x".repeat(65_536),
    ];
    let mut all = serde_json::Map::new();
    for text in &texts {
        let pair = value!({ text: format!("value of {text}") });
        done(&host, "POST", ONE, &pair.to_string(), 201);
        let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        assert_eq!(host.get(&format!("{ONE}?key={encoded}")), pair);
        all.extend(pair.as_object().unwrap().clone());
    }
    assert_eq!(host.get(ONE), Value::from(all));
    let pair = host.get(&format!("{ONE}?key=a+b%20c%2520d%26e=f"));
    assert_eq!(pair["a+b c%20d&e=f"], "value of a+b c%20d&e=f", "a plus is a plus");
}

#[test]
fn the_longest_key_and_value_are_kept() {
    let mut host = host();
    host.http = vec![host.zone("one", 8 << 20, None, false)];
    let pair = value!({ "k".repeat(65_536): "v".repeat(1 << 20) });
    done(&host, "POST", ONE, &pair.to_string(), 201);
    assert_eq!(host.get(ONE), pair);
}

#[test]
fn bytes_that_are_no_text_are_shown_as_such() {
    let host = host();
    zone(&host, "one").set(b"k\xff\xc3", b"\xe2\x82v\x00", Life::Default, Condition::Always, NOW).unwrap();
    assert_eq!(bytes(&host.ask("GET", ONE, b"")), "{\"k\u{fffd}\u{fffd}\":\"\u{fffd}v\\u0000\"}".as_bytes());
    assert_eq!(host.get(&format!("{ONE}?key=k%FF%C3")), value!({"k\u{fffd}\u{fffd}": "\u{fffd}v\0"}));
}

#[test]
fn a_full_zone_keeps_all_it_has() {
    let mut host = host();
    host.http = vec![host.zone("one", MIN_ZONE_SIZE, None, true)];
    let mut held = serde_json::Map::new();
    let refused = (0..10_000).find_map(|n| {
        let (key, text) = (format!("key {n}"), "v".repeat(100));
        let response = host.ask("POST", ONE, value!({ &key: text }).to_string().as_bytes());
        if response.status == 201 {
            held.insert(key, text.into());
        }
        (response.status != 201).then_some(response)
    });
    let refused = refused.expect("the zone gets full");
    check_failure(&refused);
    assert_eq!((refused.status, &json(&refused)["error"]["code"]), (507, &"KeyvalNoMemory".into()));
    assert!(!refused.changed);
    assert!(held.len() > 20);
    assert_eq!(host.get(ONE), Value::from(held.clone()));
    let large = value!({ "key 0": "w".repeat(100_000) }).to_string();
    assert_eq!(host.failure("PATCH", ONE, large.as_bytes()), (507, "KeyvalNoMemory".into()));
    assert_eq!(host.get(ONE), Value::from(held));
}

#[test]
fn a_list_that_does_not_fit_is_taken_back() {
    let mut host = host();
    host.http = vec![host.zone("one", MIN_ZONE_SIZE, None, true)];
    let list: serde_json::Map<_, _> = (0..1000).map(|n| (format!("key {n}"), "v".repeat(100).into())).collect();
    let response = host.ask("POST", ONE, Value::from(list).to_string().as_bytes());
    check_failure(&response);
    assert_eq!(response.status, 507);
    assert!(response.changed, "the tombstones are to be sent");
    assert_eq!(host.get(ONE), value!({}));
    done(&host, "POST", ONE, r#"{"a":"1","b":"2"}"#, 201);
}

#[test]
fn only_changes_of_synchronized_zones_wake_the_agent() {
    let host = host();
    for (target, sync) in [(ONE, false), (TWO, true)] {
        assert_eq!(done(&host, "POST", target, r#"{"a":"1"}"#, 201).changed, sync);
        assert_eq!(done(&host, "PATCH", target, r#"{"a":"2"}"#, 204).changed, sync);
        assert_eq!(done(&host, "PATCH", target, r#"{"a":null}"#, 204).changed, sync);
        assert_eq!(done(&host, "DELETE", target, "", 204).changed, sync);
        assert!(!host.ask("GET", target, b"").changed);
        assert!(!host.ask("PATCH", target, br#"{"a":"2"}"#).changed);
    }
}

#[test]
fn large_zones_are_listed_whole() {
    let mut host = host();
    host.http = vec![host.zone("one", 64 << 20, None, false)];
    let pairs: serde_json::Map<_, _> = (0..100_000).map(|n| (format!("key {n}"), format!("{n}").into())).collect();
    let pairs = Value::from(pairs);
    done(&host, "POST", ONE, &pairs.to_string(), 201);
    assert!(host.get(ONE) == pairs, "all pairs, each once");
}

#[test]
fn a_large_listing_is_made_piece_by_piece() {
    let mut host = Fake::bare();
    host.http = vec![host.zone("one", 16 << 20, None, false)];
    let zone = zone(&host, "one");
    let pair = |n: usize| (format!("key {n}"), format!("value {n}"));
    let steady: Vec<(String, String)> = (0..20_000).map(pair).collect();
    for (key, value) in &steady {
        zone.set(key.as_bytes(), value.as_bytes(), Life::Default, Condition::Always, NOW).unwrap();
    }
    let request = Request {
        method: "GET",
        path: ONE,
        args: "",
        body: None,
        write: false,
        request_id: "0123abcd",
        now: NOW,
        header: &|_| None,
        pieces: &|| panic!("no body is read"),
    };
    let Answer::Now(Response { body: Body::Stream(mut all, mut rest), .. }) = handle(&request, &host) else {
        panic!("made at once")
    };
    let (mut largest, mut pieces) = (0, 0);
    loop {
        // Others come and go meanwhile.
        zone.set(format!("new {pieces}").as_bytes(), b"", Life::Default, Condition::Always, NOW).unwrap();
        zone.set(steady[pieces % 20_000].0.as_bytes(), b"again", Life::Default, Condition::Always, NOW).unwrap();
        let mut piece = Vec::new();
        let state = rest.produce(&mut piece, NOW);
        largest = largest.max(piece.len());
        pieces += 1;
        all.extend(piece);
        match state {
            Produced::More => {}
            Produced::End => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(largest < 64 * 1024 && pieces > 100, "{pieces} pieces, the largest of {largest} bytes");
    let text = String::from_utf8(all).unwrap();
    assert!(serde_json::from_str::<Value>(&text).unwrap().is_object());
    for (key, _) in &steady {
        assert_eq!(text.matches(&format!("\"{key}\":")).count(), 1, "{key}");
    }
}

#[test]
fn values_of_any_size_and_bytes_are_listed() {
    let mut host = Fake::bare();
    host.http = vec![host.zone("one", 32 << 20, None, false)];
    let zone = zone(&host, "one");
    let values: [Vec<u8>; 4] =
        [vec![0; 1 << 20], vec![0xff; 100_000], "\u{1f980}".repeat(50_000).into_bytes(), b"short".to_vec()];
    for (n, value) in values.iter().enumerate() {
        zone.set(format!("k{n}").as_bytes(), value, Life::Default, Condition::Always, NOW).unwrap();
    }
    let all = host.get(ONE);
    for (n, value) in values.iter().enumerate() {
        assert!(all[format!("k{n}")] == *String::from_utf8_lossy(value), "value {n}");
    }
    assert_eq!(all.as_object().unwrap().len(), 4);
}

#[test]
fn every_version_writes() {
    let host = host();
    for version in 1..=9 {
        let target = format!("/{version}/http/keyvals/one");
        assert_eq!(host.ask("POST", &target, b"{\"k\":\"v\"}").status, 201, "{version}");
        assert_eq!(host.ask("POST", &target, b"{\"k\":\"v\"}").status, 409, "{version}");
        assert_eq!(host.ask("PATCH", &target, b"{\"k\":\"w\"}").status, 204, "{version}");
        assert_eq!(host.get(&target), value!({"k": "w"}), "{version}");
        assert_eq!(host.ask("DELETE", &target, b"").status, 204, "{version}");
    }
}
