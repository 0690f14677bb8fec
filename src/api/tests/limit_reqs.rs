//! `/http/limit_reqs/`.

use super::*;
use crate::store::{Matching, Outcome};
use serde_json::json;

/// One request a minute.
const RATE: u64 = 1000 / 60;

fn host() -> Fake {
    let mut host = Fake::bare();
    for name in ["default/zone1_sync", "one"] {
        let of_limits = Params { matching: Matching::Limit, sync: true, evict: true, rate: RATE, ..Params::new(PEER) };
        let zone = host.zone_of(name, 1 << 20, of_limits);
        host.limits.push(zone);
    }
    for (n, outcome) in Outcome::ALL.into_iter().enumerate() {
        (0..=n).for_each(|_| host.limits[1].zone.count_limited(outcome));
    }
    host
}

#[test]
fn zones_and_their_figures_are_shown() {
    let host = host();
    let one = json!({"passed": 1, "delayed": 2, "rejected": 3, "delayed_dry_run": 4, "rejected_dry_run": 5});
    let all = host.get("/9/http/limit_reqs/");
    assert_eq!(all["one"], one);
    assert_eq!(all["default/zone1_sync"]["passed"], 0);
    assert_eq!(host.get("/9/http/limit_reqs/one"), one);
    assert_eq!(host.get("/9/http/limit_reqs/one/?fields=rejected"), json!({"rejected": 3}));
    assert_eq!(host.get("/9/http/limit_reqs?fields="), json!(["default/zone1_sync", "one"]));
    for path in ["/9/http/limit_reqs/default/zone1_sync", "/9/http/limit_reqs/default%2Fzone1_sync"] {
        assert_eq!(host.get(path)["delayed"], 0, "{path}");
    }
    assert_eq!(host.failure("GET", "/9/http/limit_reqs/two", b""), (404, "LimitReqNotFound".into()));
    assert_eq!(host.get("/9/http/keyvals/"), json!({}), "they are none of key-values");
}

#[test]
fn delete_sets_one_to_zero() {
    let host = host();
    assert_eq!(host.ask("DELETE", "/9/http/limit_reqs/one/", b"").status, 204);
    assert_eq!(host.get("/9/http/limit_reqs/one")["rejected"], 0);
    assert_eq!(host.failure("DELETE", "/9/http/limit_reqs/two", b""), (404, "LimitReqNotFound".into()));
    assert_eq!(host.failure("DELETE", "/9/http/limit_reqs/", b""), (405, "MethodNotSupported".into()));
    assert_eq!(host.failure("POST", "/9/http/limit_reqs/one", b"{}"), (405, "MethodNotSupported".into()));
    let read_only = host.ask_with("DELETE", "/9/http/limit_reqs/one", b"", |request| request.write = false);
    assert_eq!(read_only.status, 405);
}

#[test]
fn they_are_shown_among_all_zones() {
    let mut host = host();
    let other = host.zone("more", 1 << 20, None, false);
    host.http.push(other);
    host.limits[1].zone.admit(b"key", RATE, None, NOW).expect("room");
    assert_eq!(host.get("/9/zonemesh/zones/"), json!(["default/zone1_sync", "more", "one"]));
    assert_eq!(host.get("/9/zonemesh/keyvals/"), json!(["more"]), "they are none of key-values");
    let zone = host.get("/9/zonemesh/zones/one?fields=type,sync,evict,rate,records,incomplete,timeout");
    let expected = json!({
        "type": "limit", "sync": true, "evict": true, "rate": 0.016, "records": 1, "incomplete": 0, "timeout": null
    });
    assert_eq!(zone, expected);
    assert_eq!(host.get("/9/zonemesh/zones/default%2Fzone1_sync")["records"], 0);
    assert_eq!(host.get("/9/zonemesh/zones/more?fields=rate"), json!({"rate": null}));
}

#[test]
fn prometheus_gets_them() {
    let response = host().ask("GET", "/9/zonemesh/metrics", b"");
    let text = String::from_utf8_lossy(bytes(&response)).into_owned();
    assert!(text.contains("zonemesh_limit_req_requests_total{zone=\"one\",outcome=\"rejected\"} 3\n"), "{text}");
    assert!(text.contains("zonemesh_zone_records{zone=\"one\"} 0\n"), "{text}");
}
