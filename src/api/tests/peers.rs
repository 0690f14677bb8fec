//! `/zonemesh/peers`.

use super::*;
use serde_json::json;

#[test]
fn peers_are_shown_as_they_stand() {
    let peers = Fake::cluster().get("/9/zonemesh/peers");
    assert_eq!(
        peers[0],
        json!({
            "server": "node2:9000",
            "address": "10.0.0.2:9000",
            "state": "connected",
            "since": time::iso8601(NOW - 700),
            "node": "abababababababab",
            "certificate": { "name": "node2", "expires": time::iso8601(NOW + 1000) },
            "error": { "text": "can't be reached", "time": time::iso8601(NOW - 800) },
            "bytes_in": 11, "bytes_out": 12, "msgs_in": 13, "msgs_out": 14,
            "records_pending": 15,
            "lag": 16,
            "round_trip": 1.017,
            "clock_offset": -18,
            "inbound": {
                "heard": time::iso8601(NOW - 500), "bytes_in": 21, "bytes_out": 22, "msgs_in": 23, "msgs_out": 24
            },
            "refused": [{ "zone": "a \"b\"", "by": "peer", "reason": "missing" }],
        })
    );
    assert_eq!(
        peers[1],
        json!({
            "server": "10.0.0.1:9000",
            "address": "10.0.0.1:9000",
            "state": "itself",
            "since": time::iso8601(NOW - 900),
            "node": null, "certificate": null, "error": null,
            "bytes_in": 0, "bytes_out": 0, "msgs_in": 0, "msgs_out": 0,
            "records_pending": 0, "lag": 0, "round_trip": null, "clock_offset": null,
            "inbound": null,
            "refused": [],
        })
    );
    assert_eq!(peers.as_array().map(Vec::len), Some(2));
}

#[test]
fn fields_are_about_each_peer() {
    let host = Fake::cluster();
    assert_eq!(
        host.get("/9/zonemesh/peers/?fields=state,lag"),
        json!([{ "state": "connected", "lag": 16 }, { "state": "itself", "lag": 0 }])
    );
}

#[test]
fn there_are_peers_where_there_is_zone_sync() {
    assert_eq!(Fake::cluster().get("/9/zonemesh/sync"), json!({ "sessions_waited": 15 }));
    assert_eq!(Fake::bare().ask("GET", "/9/zonemesh/sync", b"").status, 404);
    assert!(Fake::cluster().get("/9/zonemesh/").as_array().unwrap().contains(&"peers".into()));
    assert_eq!(Fake::bare().failure("GET", "/9/zonemesh/peers", b""), (404, "PathNotFound".into()));
    assert_eq!(Fake::bare().get("/9/zonemesh/"), json!(["keyvals", "metrics", "zones"]));
    assert_eq!(Fake::cluster().failure("DELETE", "/9/zonemesh/peers", b"").0, 405);
}
