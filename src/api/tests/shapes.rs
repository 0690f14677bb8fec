//! Bodies, to the letter.

use super::*;
use serde_json::json as value;

fn body(host: &Fake, path: &str) -> String {
    let response = host.ask("GET", path, b"");
    assert_eq!(response.status, 200, "{path}");
    String::from_utf8(bytes(&response).to_vec()).unwrap()
}

#[test]
fn nginx() {
    assert_eq!(
        body(&Fake::bare(), "/9/nginx"),
        r#"{"version":"1.22.1","build":"a \"build\"","address":"127.0.0.1","generation":4,"#.to_owned()
            + r#""load_timestamp":"2023-11-14T22:13:19.123Z","timestamp":"2023-11-14T22:13:20.123Z","pid":22,"ppid":21}"#
    );
    assert_eq!(body(&Fake::bare(), "/9/nginx?fields=pid,version,none"), r#"{"version":"1.22.1","pid":22}"#);
}

#[test]
fn counters() {
    let host = Fake::bare();
    assert_eq!(body(&host, "/9/processes"), r#"{"respawned":3}"#);
    assert_eq!(body(&host, "/9/connections"), r#"{"accepted":31,"dropped":32,"active":33,"idle":34}"#);
    assert_eq!(body(&host, "/9/http/requests"), r#"{"total":41,"current":42}"#);
    assert_eq!(body(&host, "/9/http/requests?fields=current"), r#"{"current":42}"#);
    assert_eq!(body(&host, "/9/http/requests?fields=none"), "{}");
    assert_eq!(body(&host, "/9/http/requests?fields="), r#"["total","current"]"#);
}

#[test]
fn slabs() {
    let host = Fake::bare();
    let slab = |used| {
        value!({"pages": {"used": used, "free": 52}, "slots": {
            "8": {"used": 1, "free": 2, "reqs": 3, "fails": 4},
            "2048": {"used": 5, "free": 6, "reqs": 7, "fails": 8},
        }})
    };
    assert_eq!(host.get("/9/slabs/"), value!({"cache": slab(51), "a/b": slab(61)}));
    for path in ["/9/slabs/a%2Fb", "/9/slabs/a%2fb/", "/9/slabs/a/b"] {
        assert_eq!(host.get(path), slab(61), "{path}");
    }
    assert_eq!(
        body(&host, "/9/slabs?fields=pages"),
        r#"{"cache":{"pages":{"used":51,"free":52}},"a/b":{"pages":{"used":61,"free":52}}}"#
    );
    assert_eq!(body(&host, "/9/slabs?fields="), r#"["cache","a/b"]"#);
}

#[test]
fn zone_sync() {
    let host = Fake::cluster();
    assert_eq!(
        body(&host, "/9/stream/zone_sync/"),
        r#"{"zones":{"a/b":{"records_pending":2,"records_total":7},"one":{"records_pending":0,"records_total":1}},"#
            .to_owned()
            + r#""status":{"bytes_in":11,"msgs_in":12,"msgs_out":13,"bytes_out":14,"nodes_online":2}}"#
    );
    assert_eq!(host.get("/9/stream/zone_sync?fields=status")["status"]["nodes_online"], 2);
    assert_eq!(body(&host, "/9/stream/zone_sync?fields="), r#"["zones","status"]"#);
}

#[test]
fn status_zones() {
    let host = Fake::cluster();
    let responses = r#"{"1xx":1,"2xx":5,"3xx":4,"4xx":11,"5xx":7,"codes":{"101":1,"200":2,"204":3,"301":4,"403":5,"404":6,"502":7},"total":36}"#;
    let rest = r#""discarded":62,"received":63,"sent":64}"#;
    let server = format!(r#"{{"processing":61,"requests":99,"responses":{responses},{rest}"#);
    assert_eq!(body(&host, "/9/http/server_zones/site"), server);
    assert_eq!(body(&host, "/9/http/server_zones/a%2Fb/"), server);
    assert_eq!(body(&host, "/9/http/server_zones/"), format!(r#"{{"a/b":{server},"site":{server}}}"#));
    assert_eq!(
        body(&host, "/9/http/location_zones/images"),
        format!(r#"{{"requests":99,"responses":{responses},{rest}"#)
    );
    assert_eq!(
        body(&host, "/9/stream/server_zones/tcp"),
        format!(r#"{{"processing":61,"connections":99,"sessions":{{"2xx":5,"4xx":11,"5xx":7,"total":36}},{rest}"#)
    );
    assert_eq!(body(&host, "/9/http/server_zones?fields="), r#"["a/b","site"]"#);
    assert_eq!(body(&host, "/9/http/location_zones?fields=sent"), r#"{"images":{"sent":64}}"#);
    assert_eq!(body(&host, "/9/stream/server_zones/tcp?fields=connections,sent"), r#"{"connections":99,"sent":64}"#);
    for version in 1..=9 {
        let zone = host.get(&format!("/{version}/http/server_zones/site"));
        assert_eq!(zone["responses"].get("codes").is_some(), version >= 7, "{version}");
        assert_eq!(zone["responses"]["total"], 36);
    }
}

#[test]
fn errors_of_old_versions_have_path_and_method() {
    for version in 1..=9 {
        let error = json(&Fake::bare().ask("GET", &format!("/{version}/none"), b""));
        let mut expected = value!({
            "error": {"status": 404, "text": "path not found", "code": "PathNotFound"},
            "request_id": "0123abcd",
            "href": "https://nginx.org/en/docs/http/ngx_http_api_module.html",
        });
        if version <= 3 {
            expected["path"] = "".into();
            expected["method"] = "".into();
        }
        assert_eq!(error, expected);
    }
}

#[test]
fn what_nginx_refuses_has_an_error() {
    for (status, code) in [(400, "BadRequest"), (403, "Forbidden"), (413, "BodyTooLarge"), (502, "InternalError")] {
        let response = refused(status, "/9/http/keyvals/one", "0123abcd");
        check_failure(&response);
        assert_eq!((response.status, &json(&response)["error"]["code"]), (status, &Value::from(code)));
    }
}
