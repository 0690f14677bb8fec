//! Paths, versions, methods.

use super::*;

const READ: &str = "GET, HEAD, OPTIONS";

#[test]
fn versions_are_listed() {
    for path in ["", "/", "//"] {
        assert_eq!(bytes(&Fake::bare().ask("GET", path, b"")), b"[1,2,3,4,5,6,7,8,9]", "{path}");
    }
}

#[test]
fn every_version_answers_with_and_without_a_slash_at_the_end() {
    let host = Fake::bare();
    for version in 1..=9 {
        for path in ["", "/", "/nginx", "/nginx/", "/http/requests", "/http/requests/", "/slabs/cache/"] {
            let path = format!("/{version}{path}");
            assert_eq!(host.ask("GET", &path, b"").status, 200, "{path}");
        }
    }
    assert_eq!(host.ask("GET", "9/nginx", b"").status, 200, "the location's name may have the slash");
    assert_eq!(host.ask("GET", "//9//http//requests//", b"").status, 200);
}

#[test]
fn unknown_versions() {
    for path in ["/0", "/10/", "/09/nginx", "/+9", "/x", "/nginx", "/9x/", "/9%2Fnginx"] {
        assert_eq!(Fake::bare().failure("GET", path, b""), (404, "UnknownVersion".into()), "{path}");
        assert_eq!(Fake::bare().failure("PUT", path, b""), (404, "UnknownVersion".into()), "{path}");
    }
}

#[test]
fn unknown_paths_whatever_the_method() {
    let paths = [
        "/9/foo",
        "/9/nginx/x",
        "/9/connections/x/",
        "/9/http/foo",
        "/9/http/requests/x",
        "/9/http/upstreams/x",
        "/9/stream/foo",
        "/9/stream/limit_reqs",
        "/9/stream/zone_sync/x",
        "/9/ssl/x",
        "/9/processes/1/2",
        "/9/HTTP",
    ];
    let host = Fake::cluster();
    for path in paths {
        for method in ["GET", "HEAD", "OPTIONS", "POST", "DELETE", "PUT", "BREW"] {
            assert_eq!(host.failure(method, path, b""), (404, "PathNotFound".into()), "{method} {path}");
        }
    }
}

#[test]
fn roots_name_what_exists() {
    let root = ["nginx", "processes", "connections", "slabs", "http", "resolvers", "ssl", "workers"];
    assert_eq!(Fake::bare().get("/9/"), Value::from(&root[..]));
    let with_stream = [&root[..], &["stream"]].concat();
    assert_eq!(Fake::cluster().get("/9"), Value::from(with_stream));
    let unknown = Fake { respawned: None, ..Fake::bare() };
    assert!(!unknown.get("/9/").as_array().unwrap().contains(&Value::from("processes")));
    assert_eq!(unknown.failure("GET", "/9/processes", b""), (404, "PathNotFound".into()));
}

#[test]
fn every_name_of_a_root_answers() {
    let host = Fake::cluster();
    let mut asked = 0;
    for root in ["/9/", "/9/http/", "/9/stream/"] {
        for name in host.get(root).as_array().unwrap() {
            host.get(&format!("{root}{}", name.as_str().unwrap()));
            asked += 1;
        }
    }
    assert_eq!(asked, 9 + 8 + 5);
}

#[test]
fn what_the_prometheus_exporter_asks_for_answers() {
    let host = Fake::cluster();
    let paths = [
        "nginx",
        "processes",
        "slabs",
        "connections",
        "ssl",
        "resolvers",
        "http/requests",
        "http/caches",
        "http/server_zones",
        "http/location_zones",
        "http/upstreams",
        "http/limit_reqs",
        "http/limit_conns",
        "stream/server_zones",
        "stream/upstreams",
        "stream/limit_conns",
        "stream/zone_sync",
    ];
    for path in paths {
        assert!(host.get(&format!("/8/{path}")).is_object(), "{path}");
    }
    assert_eq!(host.get("/8/http/upstreams"), serde_json::json!({}));
    assert_eq!(host.get("/8/http/upstreams?fields="), serde_json::json!([]));
}

#[test]
fn stream_is_there_only_with_its_block_and_zone_sync_only_with_its_server() {
    let bare = Fake::bare();
    for path in
        ["/9/stream", "/9/stream/keyvals", "/9/stream/keyvals/one", "/9/stream/zone_sync", "/9/stream/upstreams"]
    {
        assert_eq!(bare.failure("GET", path, b""), (404, "PathNotFound".into()), "{path}");
    }
    let alone = Fake { sync: None, ..Fake::cluster() };
    assert_eq!(alone.failure("GET", "/9/stream/zone_sync", b""), (404, "PathNotFound".into()));
    assert!(!alone.get("/9/stream").as_array().unwrap().contains(&Value::from("zone_sync")));
    assert_eq!(alone.get("/9/stream/keyvals"), serde_json::json!({}));
}

#[test]
fn methods_that_an_endpoint_lacks() {
    let host = Fake::cluster();
    for (path, allow) in [
        ("/", READ),
        ("/9/", READ),
        ("/9/nginx", READ),
        ("/9/slabs", READ),
        ("/9/http/keyvals", READ),
        ("/9/http/upstreams", READ),
        ("/9/stream/zone_sync", READ),
        ("/9/connections", "GET, HEAD, DELETE, OPTIONS"),
        ("/9/slabs/cache", "GET, HEAD, DELETE, OPTIONS"),
        ("/9/http/keyvals/one", "GET, HEAD, POST, PATCH, DELETE, OPTIONS"),
    ] {
        for method in ["PUT", "POST", "PATCH", "DELETE", "get", "BREW", "CONNECT", ""] {
            if allow.contains(method) && !method.is_empty() {
                continue;
            }
            let response = host.ask(method, path, b"{}");
            check_failure(&response);
            assert_eq!((response.status, response.allow), (405, Some(allow)), "{method} {path}");
            assert_eq!(json(&response)["error"]["code"], "MethodNotSupported");
        }
        let options = host.ask("OPTIONS", path, b"");
        assert_eq!((options.status, options.allow, bytes(&options).len()), (204, Some(allow), 0), "{path}");
    }
    assert!(host.resets.borrow().is_empty());
}

#[test]
fn without_write_changes_are_disabled_and_not_allowed() {
    let host = Fake::cluster();
    let ask = |method, path| host.ask_with(method, path, b"{\"a\":\"b\"}", |request| request.write = false);
    let cases = [("POST", true), ("PATCH", true), ("DELETE", true), ("DELETE", false)];
    for (method, pairs) in cases {
        let paths: &[&str] = match pairs {
            true => &["/9/http/keyvals/one/", "/9/stream/keyvals/one"],
            false => &["/9/connections", "/9/processes", "/9/http/requests", "/9/slabs/cache"],
        };
        for path in paths {
            let response = ask(method, path);
            check_failure(&response);
            assert_eq!((response.status, response.allow), (405, Some(READ)), "{method} {path}");
            assert_eq!(json(&response)["error"]["code"], "MethodDisabled");
            assert_eq!(ask("OPTIONS", path).allow, Some(READ));
        }
    }
    assert_eq!(json(&ask("PUT", "/9/http/keyvals/one"))["error"]["code"], "MethodNotSupported");
    assert_eq!(ask("GET", "/9/connections").status, 200);
    assert!(host.resets.borrow().is_empty());
}

#[test]
fn head_is_get() {
    let host = Fake::cluster();
    for path in ["/", "/9/nginx", "/9/foo", "/9/http/keyvals/none"] {
        assert_eq!(host.ask("HEAD", path, b""), host.ask("GET", path, b""), "{path}");
    }
}

#[test]
fn figures_are_reset() {
    let host = Fake::cluster();
    let paths =
        ["/9/processes/", "/9/connections", "/9/http/requests", "/9/slabs/cache/", "/9/workers/", "/9/workers/1"];
    for path in paths {
        assert_eq!(host.ask("DELETE", path, b""), Response::empty(204), "{path}");
    }
    assert_eq!(
        *host.resets.borrow(),
        ["Processes", "Connections", "Requests", "Slab(\"cache\")", "Workers", "Worker(1)"]
    );
    host.resets.borrow_mut().clear();
    for path in ["/9/http/server_zones/a%2Fb", "/9/http/location_zones/images/", "/9/stream/server_zones/tcp"] {
        assert_eq!(host.ask("DELETE", path, b""), Response::empty(204), "{path}");
    }
    assert_eq!(
        *host.resets.borrow(),
        ["Status(HttpServer, \"a/b\")", "Status(HttpLocation, \"images\")", "Status(StreamServer, \"tcp\")"]
    );
    for (path, code) in [
        ("/9/http/server_zones/none", "ServerZoneNotFound"),
        ("/9/http/server_zones/images", "ServerZoneNotFound"),
        ("/9/http/location_zones/site", "LocationZoneNotFound"),
        ("/9/stream/server_zones/site", "ServerZoneNotFound"),
    ] {
        assert_eq!(host.failure("GET", path, b""), (404, code.into()), "{path}");
        assert_eq!(host.failure("DELETE", path, b""), (404, code.into()), "{path}");
    }
    assert_eq!(host.failure("DELETE", "/9/http/server_zones/", b""), (405, "MethodNotSupported".into()));
    assert_eq!(host.failure("DELETE", "/9/slabs/none", b""), (404, "SlabNotFound".into()));
    assert_eq!(host.failure("GET", "/9/slabs/none", b""), (404, "SlabNotFound".into()));
}

#[test]
fn workers_are_an_array() {
    let host = Fake::bare();
    let one = serde_json::json!(
        {"id": 1, "pid": 72, "connections": {"idle": 74}, "http": {"requests": {"total": 76}}});
    assert_eq!(host.get("/9/workers")[1], one);
    assert_eq!(host.get("/9/workers/1/"), one);
    assert_eq!(host.get("/9/workers?fields=id"), serde_json::json!([{"id": 0}, {"id": 1}]));
    for id in ["2", "x", "-1", "99999999999999999999"] {
        let path = format!("/9/workers/{id}");
        assert_eq!(host.failure("GET", &path, b""), (404, "WorkerNotFound".into()));
        assert_eq!(host.failure("DELETE", &path, b""), (404, "WorkerNotFound".into()));
    }
}

#[test]
fn every_code_of_an_error_is_documented() {
    let (source, page) = (include_str!("../error.rs"), include_str!("../../../docs/api.md"));
    let codes: Vec<&str> = source
        .lines()
        .filter_map(|line| line.split_once("=> (").map_or_else(|| line.split_once("why.codes("), Some))
        .filter_map(|(_, rest)| rest.split('"').nth(1))
        .collect();
    assert!(codes.len() > 20, "{codes:?}");
    let unknown: Vec<_> = codes.iter().filter(|code| !page.contains(&format!("`{code}`"))).collect();
    assert!(unknown.is_empty(), "docs/api.md doesn't name {unknown:?}");
}
