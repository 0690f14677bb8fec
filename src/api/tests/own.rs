//! Key-values below `/zonemesh/keyvals/`.

use super::*;
use crate::store::{Condition, Life};
use serde_json::json as value;

const ONE: &str = "/9/zonemesh/keyvals/one";
const TWO: &str = "/9/zonemesh/keyvals/two";

/// `one` in http, `two` (with a timeout, synchronized) in stream.
fn host() -> Fake {
    let mut host = Fake::cluster();
    host.http = vec![host.zone("one", 1 << 20, None, false)];
    host.stream = Some(vec![host.zone("two", 1 << 20, Some(60_000), true)]);
    host
}

fn filled(count: usize) -> Fake {
    let host = host();
    for n in 0..count {
        let (key, value) = (format!("key {n}"), format!("value {n}"));
        let zone = host.http[0].zone;
        zone.set(key.as_bytes(), value.as_bytes(), Life::Default, Condition::Always, NOW).unwrap();
    }
    host
}

fn status(response: &Response) -> (u16, String) {
    let code =
        if response.status < 400 { String::new() } else { json(response)["error"]["code"].as_str().unwrap().into() };
    (response.status, code)
}

fn header<'r>(response: &'r Response, name: &str) -> Option<&'r str> {
    response.headers.iter().find(|(found, _)| *found == name).map(|(_, value)| value.as_str())
}

fn text(response: &Response) -> &str {
    std::str::from_utf8(bytes(response)).unwrap()
}

#[test]
fn zones_of_http_and_stream_are_listed() {
    let host = host();
    assert_eq!(host.get("/9/zonemesh"), value!(["keyvals", "metrics", "peers", "sync", "zones"]));
    assert_eq!(host.get("/9/zonemesh/keyvals/"), value!(["one", "two"]));
    assert_eq!(host.get(ONE), value!({"pairs": {}, "next": null}));
    assert_eq!(host.get(TWO), value!({"pairs": {}, "next": null}));
    assert_eq!(host.failure("GET", "/9/zonemesh/keyvals/none", b""), (404, "KeyvalNotFound".into()));
    assert_eq!(host.failure("PUT", "/9/zonemesh/keyvals/none", b"{}"), (404, "KeyvalNotFound".into()));
}

#[test]
fn put_creates_and_replaces() {
    let host = host();
    let created = host.ask("PUT", TWO, br#"{"a":"1"}"#);
    assert_eq!((created.status, bytes(&created).len(), created.changed), (201, 0, true));
    let replaced = host.ask("PUT", &format!("{TWO}?key=a"), br#""2""#);
    assert_eq!(replaced.status, 204);
    assert_ne!(header(&created, "ETag"), header(&replaced, "ETag"));
    let shown = host.ask("GET", &format!("{TWO}?key=a"), b"");
    assert_eq!(text(&shown), r#"{"a":"2"}"#);
    assert_eq!(header(&shown, "ETag"), header(&replaced, "ETag"));
    let many = host.ask("PUT", TWO, br#"{"a":"3","b":{"value":"4","expire":1000},"c":null}"#);
    assert_eq!(json(&many), value!({"created": 1, "replaced": 1, "deleted": 0, "missing": 1}));
    assert_eq!(host.get(TWO)["pairs"], value!({"a": "3", "b": "4"}));
    assert_eq!(host.ask("PUT", TWO, br#"{"a":null}"#).status, 204);
    assert_eq!(host.failure("PUT", TWO, br#"{"a":null}"#), (404, "KeyvalKeyNotFound".into()));
    assert_eq!(host.get(TWO)["pairs"], value!({"b": "4"}));
}

#[test]
fn a_body_with_a_fault_changes_nothing() {
    let host = host();
    for body in [
        r#"{"a":"1","b":2}"#,
        r#"{"a":"1","":"2"}"#,
        r#"{"a":"1","a":"2"}"#,
        r#"{"a":"1","b":{"key":"a","value":"2"}}"#,
        r#"{"a":"1","b":{"value":"2","value":"3"}}"#,
        r#"{"a":"1","b":{"value":"2","base64":""}}"#,
        r#"{"a":"1","b":{"base64":"x"}}"#,
        r#"{"a":"1","b":{"expire":5}}"#,
        r#"{"a":"1","b":{"value":"2","expire":0}}"#,
        r#"{"a":"1","b":{"value":"2","expire":5}}"#,
        r#"{"a":"1","b":{"value":"2","other":"3"}}"#,
        "{}",
        "[]",
    ] {
        assert_eq!(host.failure("PUT", ONE, body.as_bytes()), (400, "KeyvalFormatError".into()), "{body}");
    }
    assert_eq!(host.failure("PUT", ONE, b"{"), (415, "JsonError".into()));
    assert_eq!(host.get(ONE)["pairs"], value!({}));
}

#[test]
fn any_bytes_go_in_and_out() {
    let host = host();
    let odd = br#"{"v":{"base64":"/wA="},"x":{"key":{"base64":"/w=="},"value":"w"}}"#;
    assert_eq!(host.ask("PUT", ONE, odd).status, 200);
    let shown = host.get(ONE);
    assert_eq!(shown["pairs"]["v"], value!({"base64": "/wA="}));
    assert_eq!(shown["pairs"]["\u{fffd}"], value!({"key": {"base64": "/w=="}, "value": "w"}));
    assert_eq!(host.ask("GET", &format!("{ONE}?key=%ff"), b"").status, 200);
    // What a listing says can be put again.
    let lines = host.ask("GET", &format!("{ONE}?format=ndjson&meta=1"), b"");
    assert_eq!(lines.content_type, "application/x-ndjson");
    assert_eq!(host.ask("DELETE", &format!("{ONE}?glob=*"), b"").status, 200);
    let report = host.ask("POST", ONE, bytes(&lines));
    assert_eq!(json(&report)["created"], 2, "{report:?}");
    assert_eq!(host.get(ONE), shown);
    assert_eq!(host.ask("PUT", &format!("{ONE}?key=%fe"), br#"{"base64":"AA=="}"#).status, 201);
    assert_eq!(host.ask("DELETE", &format!("{ONE}?key=%fe"), b"").status, 204);
}

#[test]
fn meta_tells_all() {
    let host = host();
    host.ask("PUT", TWO, br#"{"a":{"value":"1","expire":5000}}"#);
    host.ask("PUT", ONE, br#"{"b":"1"}"#);
    let found = host.get(&format!("{TWO}?meta=1"))["pairs"]["a"].clone();
    assert_eq!((&found["value"], &found["expire"]), (&value!("1"), &value!(5000)));
    let tag = host.ask("GET", &format!("{TWO}?key=a"), b"");
    assert_eq!(header(&tag, "ETag").unwrap(), format!("\"{}\"", found["version"].as_str().unwrap()));
    assert_eq!(found["origin"], "0707070707070707");
    assert_eq!(host.get(&format!("{ONE}?meta=1&key=b"))["b"]["expire"], value!(null));
}

#[test]
fn conditions_guard_writes() {
    let host = host();
    let ask = |method: &str, key: &str, body: &[u8], headers: &[(&str, &str)]| {
        host.ask_headed(method, &format!("{ONE}?key={key}"), body, headers, |_| ())
    };
    let failed = (412, "PreconditionFailed".to_owned());
    assert_eq!(status(&ask("PUT", "a", b"\"1\"", &[("if-match", "*")])), failed);
    let first = ask("PUT", "a", b"\"1\"", &[("if-none-match", "*")]);
    assert_eq!(first.status, 201);
    assert_eq!(status(&ask("PUT", "a", b"\"2\"", &[("if-none-match", "*")])), failed);
    let first = header(&first, "ETag").unwrap();
    let second = ask("PUT", "a", b"\"2\"", &[("if-match", first)]);
    assert_eq!(second.status, 204);
    assert_eq!(status(&ask("PUT", "a", b"\"3\"", &[("if-match", first)])), failed);
    assert_eq!(status(&ask("DELETE", "a", b"", &[("if-match", first)])), failed);
    let second = header(&second, "ETag").unwrap();
    assert_eq!(ask("GET", "a", b"", &[("if-none-match", second)]).status, 304);
    assert_eq!(ask("GET", "a", b"", &[("if-none-match", first)]).status, 200);
    assert_eq!(status(&ask("GET", "a", b"", &[("if-match", first)])), failed);
    let both = format!("{first}, {second}");
    assert_eq!(ask("PUT", "a", b"\"2\"", &[("if-match", &both)]).status, 204);
    assert_eq!(ask("DELETE", "a", b"", &[("if-match", "*")]).status, 204);
    assert_eq!(status(&ask("DELETE", "a", b"", &[("if-match", "*")])), failed);
    assert_eq!(status(&ask("DELETE", "a", b"", &[])), (404, "KeyvalKeyNotFound".to_owned()));
    let many = host.ask_headed("PUT", ONE, br#"{"a":"1","b":"2"}"#, &[("if-match", "*")], |_| ());
    assert_eq!(status(&many), (400, "BadArgument".to_owned()));
}

#[test]
fn pages_show_each_record_once() {
    let host = filled(500);
    for limit in [1, 7, 50, 499, 500, 501] {
        let (mut seen, mut target) = (Vec::new(), format!("{ONE}?limit={limit}"));
        loop {
            let page = host.get(&target);
            let pairs = page["pairs"].as_object().unwrap();
            assert!(pairs.len() <= limit);
            seen.extend(pairs.keys().cloned());
            // What comes and goes between two pages does no harm.
            let zone = host.http[0].zone;
            let other = format!("other {}", seen.len());
            zone.set(other.as_bytes(), b"", Life::Default, Condition::Always, NOW).unwrap();
            if seen.len() % 3 == 0 {
                zone.delete(other.as_bytes(), NOW).unwrap();
            }
            match page["next"].as_str() {
                Some(next) => target = format!("{ONE}?limit={limit}&after={next}"),
                None => break,
            }
        }
        let mut kept: Vec<String> = seen.into_iter().filter(|key| key.starts_with("key")).collect();
        kept.sort();
        let mut all: Vec<String> = (0..500).map(|n| format!("key {n}")).collect();
        all.sort();
        assert_eq!(kept, all, "pages of {limit}");
        host.ask("DELETE", &format!("{ONE}?prefix=other"), b"");
    }
    let some = host.get(&format!("{ONE}?prefix=key%2049"));
    assert_eq!(some["pairs"].as_object().unwrap().len(), 11);
    let lines = host.ask("GET", &format!("{ONE}?prefix=key%2049&format=ndjson&limit=5"), b"");
    assert_eq!(text(&lines).lines().count(), 5);
}

#[test]
fn places_belong_to_their_zone() {
    let host = filled(10);
    let next = host.get(&format!("{ONE}?limit=1"))["next"].as_str().unwrap().to_owned();
    assert_eq!(host.failure("GET", &format!("{TWO}?after={next}"), b""), (410, "PlaceGone".into()));
    let mark = next.split('.').next().unwrap();
    for bad in ["x", "1", "", ".", &format!("{mark}.1.2.3"), &format!("{mark}.g"), "-1.1"] {
        assert_eq!(host.failure("GET", &format!("{ONE}?after={bad}"), b"").0, 400, "{bad}");
    }
    assert_eq!(host.get(&format!("{ONE}?after={mark}.ffffffffffffffff.ffffffffffffffff"))["pairs"], value!({}));
    for bad in ["limit=0", "limit=x", "limit=-1", "format=xml", "meta=yes"] {
        assert_eq!(host.failure("GET", &format!("{ONE}?{bad}"), b""), (400, "BadArgument".into()), "{bad}");
    }
}

#[test]
fn deletes_what_is_like_a_pattern_and_counts_it() {
    let host = filled(300);
    for (filter, deleted) in [("prefix=key%201&suffix=9", 11), ("suffix=0", 30), ("glob=key%20?2", 9), ("prefix=x", 0)]
    {
        assert_eq!(
            json(&host.ask("DELETE", &format!("{ONE}?{filter}"), b"")),
            value!({"deleted": deleted}),
            "{filter}"
        );
    }
    assert_eq!(host.http[0].zone.stats().records, 250);
    assert_eq!(host.failure("DELETE", ONE, b""), (400, "BadArgument".into()));
    assert_eq!(host.failure("DELETE", &format!("{ONE}?prefx=key"), b""), (400, "BadArgument".into()));
    assert_eq!(host.failure("DELETE", &format!("{ONE}?glob={}", "a".repeat(257)), b""), (400, "BadArgument".into()));
    assert_eq!(json(&host.ask("DELETE", &format!("{ONE}?glob=*"), b"")), value!({"deleted": 250}));
}

#[test]
fn imports_line_by_line_and_names_what_failed() {
    let host = host();
    let body = "{\"a\":\"1\"}\n\n  {\"b\":{\"value\":\"2\",\"expire\":900}}\r\n{\"a\":\"3\"}\n{\"c\":null}\n{\"b\":null}\n{\"d\":\"4\"}";
    let report = json(&host.ask("POST", TWO, body.as_bytes()));
    let good = value!({"lines": 7, "created": 3, "replaced": 1, "deleted": 1, "missing": 1, "failed": 0, "errors": []});
    assert_eq!(report, good);
    assert_eq!(host.get(TWO)["pairs"], value!({"a": "3", "d": "4"}));
    let bad = "{\"e\":\"5\"}\nno\n{\"f\":1}\n{\"g\":\"1\",\"h\":\"2\"}\n{}\n{\"i\":\"6\"}\n";
    let response = host.ask("POST", TWO, bad.as_bytes());
    check_failure(&response);
    assert_eq!(status(&response), (400, "ImportIncomplete".into()));
    let report = json(&response)["report"].clone();
    assert_eq!((&report["created"], &report["failed"], &report["lines"]), (&value!(2), &value!(4), &value!(6)));
    let lines: Vec<u64> =
        report["errors"].as_array().unwrap().iter().map(|one| one["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [2, 3, 4, 5]);
    let many = "x\n".repeat(1000);
    let report = json(&host.ask("POST", TWO, many.as_bytes()))["report"].clone();
    assert_eq!((&report["failed"], report["errors"].as_array().unwrap().len()), (&value!(1000), 10));
    assert_eq!(json(&host.ask("POST", TWO, b""))["lines"], 0);
}

#[test]
fn a_full_zone_says_how_far_it_went() {
    let mut host = Fake::bare();
    host.http = vec![host.zone("one", crate::store::MIN_ZONE_SIZE, None, false)];
    let pairs: Vec<String> = (0..1000).map(|n| format!("{{\"key {n}\":\"{}\"}}", "v".repeat(50))).collect();
    let response = host.ask("POST", ONE, pairs.join("\n").as_bytes());
    assert_eq!(status(&response), (507, "ImportIncomplete".into()));
    let report = json(&response)["report"].clone();
    let (created, failed) = (report["created"].as_u64().unwrap(), report["failed"].as_u64().unwrap());
    assert!(created > 20 && created + failed == 1000, "{report}");
    host.ask("DELETE", &format!("{ONE}?glob=*"), b"");
    let object = pairs.join(",").replace("},{", ",");
    let response = host.ask("PUT", ONE, object.as_bytes());
    assert_eq!(status(&response), (507, "KeyvalNoMemory".into()));
    assert!(text(&response).contains(" of 1000 pairs were written"), "{response:?}");
}

#[test]
fn without_write_nothing_changes() {
    let host = filled(1);
    for method in ["PUT", "POST", "DELETE"] {
        let response = host.ask_with(method, ONE, b"{\"a\":\"b\"}", |request| request.write = false);
        assert_eq!(status(&response), (405, "MethodDisabled".into()));
        assert_eq!(response.allow, Some("GET, HEAD, OPTIONS"));
    }
    let patch = host.ask("PATCH", ONE, b"{}");
    assert_eq!((patch.status, patch.allow), (405, Some("GET, HEAD, PUT, POST, DELETE, OPTIONS")));
    assert_eq!(host.http[0].zone.stats().records, 1);
}

#[test]
fn an_empty_pattern_deletes_nothing() {
    let host = filled(10);
    for nothing in ["prefix=", "suffix=", "prefix=&suffix=", "prefix=key&suffix="] {
        let target = format!("{ONE}?{nothing}");
        assert_eq!(host.failure("DELETE", &target, b""), (400, "BadArgument".into()), "{nothing}");
    }
    assert_eq!(host.http[0].zone.stats().records, 10);
    assert_eq!(json(&host.ask("DELETE", &format!("{ONE}?prefix=&glob=*"), b"")), value!({"deleted": 10}));
}

#[test]
fn conditions_are_for_one_pair() {
    let host = filled(3);
    for (method, target, body) in [
        ("DELETE", format!("{ONE}?prefix=key"), &b""[..]),
        ("POST", ONE.to_owned(), b"{\"a\":\"b\"}"),
        ("PUT", ONE.to_owned(), b"{\"a\":\"b\",\"c\":\"d\"}"),
    ] {
        for name in ["if-match", "if-none-match"] {
            let response = host.ask_headed(method, &target, body, &[(name, "*")], |_| ());
            assert_eq!(status(&response), (400, "BadArgument".into()), "{method} {target} with {name}");
        }
    }
    assert_eq!(host.http[0].zone.stats().records, 3);
}

#[test]
fn a_life_is_given_once() {
    let host = host();
    for life in ["null,\"expire\":null", "null,\"expire\":5", "5,\"expire\":null", "5,\"expire\":5"] {
        let body = format!("{{\"a\":{{\"value\":\"v\",\"expire\":{life}}}}}");
        assert_eq!(host.failure("PUT", ONE, body.as_bytes()), (400, "KeyvalFormatError".into()), "{life}");
    }
}

#[test]
fn a_key_in_the_arguments_may_be_any_bytes() {
    let host = host();
    let key = "%ff".repeat(crate::store::MAX_KEY);
    assert_eq!(host.ask("PUT", &format!("{ONE}?key={key}"), b"\"v\"").status, 201);
    assert_eq!(host.ask("PUT", &format!("{ONE}?key={key}%ff"), b"\"v\"").status, 400);
}

#[test]
fn a_body_that_is_long_is_read_in_steps() {
    let mut host = Fake::bare();
    host.http = vec![host.zone("one", 64 << 20, None, false)];
    let pairs: Vec<String> = (0..50_000).map(|n| format!("\"key {n}\":\"value {n}\"")).collect();
    let body = format!("{{{}}}", pairs.join(","));
    assert_eq!(json(&host.ask("PUT", ONE, body.as_bytes()))["created"], 50_000);
    let twice = format!("{{{},{}}}", pairs.join(","), pairs[49_999]);
    assert_eq!(host.failure("PUT", ONE, twice.as_bytes()), (400, "KeyvalFormatError".into()));
    let (changed, bad) = (body.replace("value", "other"), "\"key\":7");
    // What is wrong with a body counts wherever it stands, and that it is no JSON counts more.
    for (body, answer) in [
        (format!("{{{bad},{}", &changed[1..]), (400, "KeyvalFormatError".to_owned())),
        (format!("{},{bad}}}", &changed[..changed.len() - 1]), (400, "KeyvalFormatError".to_owned())),
        (format!("{{{bad},{} x", &changed[1..]), (415, "JsonError".to_owned())),
        (changed[..changed.len() - 1].to_owned(), (415, "JsonError".to_owned())),
    ] {
        assert_eq!(host.failure("PUT", ONE, body.as_bytes()), answer);
    }
    assert_eq!(host.get(&format!("{ONE}?key=key%207")), value!({"key 7": "value 7"}));
}

/// Begins, and meets a zone that is locked as often as `tries` says; then the zone is free. Returns the answer.
fn while_busy(host: &Fake, method: &str, target: &str, body: &str, tries: u32) -> Response {
    let (path, args) = target.split_once('?').unwrap_or((target, ""));
    let request = Request {
        method,
        path,
        args,
        body: None,
        write: true,
        request_id: "0123abcd",
        now: NOW,
        header: &|_| None,
        pieces: &|| Box::new(InPieces { rest: body.as_bytes().to_vec(), waited: false }),
    };
    let Answer::Later(mut job) = handle(&request, host) else { panic!("done at once") };
    let (mut pauses, mut answer) = (0, None);
    let step = |job: &mut Box<dyn Job>, pauses: &mut u32| match job.step(NOW) {
        Step::More | Step::Wait => None,
        Step::Pause(_) => {
            *pauses += 1;
            None
        }
        Step::Done(response) => Some(response),
        Step::Refused(status) => panic!("refused with {status}"),
    };
    // Who looks at records holds their lock.
    let mut once = true;
    let scanned = host.http[0].zone.scan(crate::store::ScanPlace::default(), NOW, &mut |_, _, _| {
        while std::mem::take(&mut once) || (pauses < tries && answer.is_none()) {
            answer = step(&mut job, &mut pauses);
        }
    });
    assert!(scanned.is_ok() && pauses > 0);
    loop {
        if let Some(response) = answer {
            return response;
        }
        answer = step(&mut job, &mut pauses);
    }
}

#[test]
fn work_waits_for_a_busy_zone_and_gives_up_in_the_end() {
    let small = || {
        let mut host = Fake::bare();
        host.http = vec![host.zone("one", crate::store::MIN_ZONE_SIZE, None, false)];
        assert_eq!(host.ask("PUT", ONE, b"{\"a\":\"1\"}").status, 201);
        host
    };
    let lines = "{\"b\":\"2\"}\n{\"c\":\"3\"}\n{\"d\":\"4\"}\n";
    let report = json(&while_busy(&small(), "POST", ONE, lines, 2));
    assert_eq!((&report["lines"], &report["created"], &report["failed"]), (&value!(3), &value!(3), &value!(0)));
    let host = small();
    let response = while_busy(&host, "POST", ONE, lines, u32::MAX);
    assert_eq!(status(&response), (503, "ImportIncomplete".into()));
    let report = json(&response)["report"].clone();
    assert_eq!((&report["lines"], &report["created"], &report["failed"]), (&value!(0), &value!(0), &value!(0)));
    assert_eq!(json(&while_busy(&small(), "DELETE", &format!("{ONE}?prefix=a"), "", 2)), value!({"deleted": 1}));
    let response = while_busy(&small(), "DELETE", &format!("{ONE}?prefix=a"), "", u32::MAX);
    assert_eq!(status(&response), (503, "KeyvalBusy".into()));
    assert!(text(&response).contains("0 pairs were deleted, then"), "{response:?}");
}
