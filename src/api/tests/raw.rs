//! `keyval_rest`.

use super::*;
use crate::store::MAX_VALUE;

struct Rest {
    fake: Fake,
    zone: NamedZone,
}

impl Rest {
    fn new(timeout: Option<Millis>) -> Rest {
        let mut fake = Fake::bare();
        let zone = fake.zone("one", 4 << 20, timeout, true);
        Rest { fake, zone }
    }

    fn ask(&self, method: &str, key: &[u8], body: &[u8], headers: &[(&str, &str)]) -> Response {
        let mut response = None;
        self.fake.ask_headed(method, "", body, headers, |request| {
            response = Some(crate::api::raw::handle(request, key, &self.zone));
            request.method = "GET";
        });
        response.unwrap()
    }
}

fn header<'r>(response: &'r Response, name: &str) -> Option<&'r str> {
    response.headers.iter().find(|(found, _)| *found == name).map(|(_, value)| value.as_str())
}

#[test]
fn values_are_bodies() {
    let rest = Rest::new(None);
    assert_eq!(rest.ask("GET", b"k", b"", &[]).status, 404);
    let created = rest.ask("PUT", b"k", b"\xff\0v", &[]);
    assert_eq!((created.status, created.changed), (201, true));
    let shown = rest.ask("GET", b"k", b"", &[]);
    assert_eq!((shown.status, shown.content_type, bytes(&shown)), (200, "application/octet-stream", &b"\xff\0v"[..]));
    assert_eq!(header(&shown, "ETag"), header(&created, "ETag"));
    assert_eq!(header(&shown, "Expires"), None);
    assert_eq!(rest.ask("PUT", b"k", b"w", &[]).status, 204);
    assert_eq!(rest.ask("POST", b"k", b"x", &[]).status, 409);
    assert_eq!(rest.ask("POST", b"l", b"x", &[]).status, 201);
    assert_eq!(bytes(&rest.ask("GET", b"k", b"", &[])), b"w");
    assert_eq!(rest.ask("DELETE", b"k", b"", &[]).status, 204);
    assert_eq!(rest.ask("DELETE", b"k", b"", &[]).status, 404);
    let patch = rest.ask("PATCH", b"k", b"", &[]);
    assert_eq!((patch.status, patch.allow), (405, Some("GET, HEAD, PUT, POST, DELETE, OPTIONS")));
    assert_eq!(rest.ask("OPTIONS", b"k", b"", &[]).allow, patch.allow);
    assert_eq!(rest.ask("PUT", b"", b"v", &[]).status, 400);
    assert_eq!(rest.ask("GET", b"", b"v", &[]).status, 404);
    assert_eq!(rest.ask("PUT", b"k", &vec![b'v'; MAX_VALUE], &[]).status, 201);
    assert_eq!(rest.ask("PUT", b"k", &vec![b'v'; MAX_VALUE + 1], &[]).status, 413);
    let full: Vec<u16> = (0..10).map(|n| rest.ask("PUT", &[b'a', n], &vec![b'v'; MAX_VALUE], &[]).status).collect();
    assert!(full.contains(&507), "{full:?}");
}

#[test]
fn lives_and_tags() {
    let rest = Rest::new(Some(60_000));
    let tag = rest.ask("PUT", b"k", b"v", &[("x-ttl", "10"), ("cache-control", "max-age=99")]);
    let tag = header(&tag, "ETag").unwrap().to_owned();
    let shown = rest.ask("GET", b"k", b"", &[]);
    assert_eq!(header(&shown, "Expires"), Some("Tue, 14 Nov 2023 22:13:30 GMT"), "ten seconds later");
    assert_eq!(rest.ask("GET", b"k", b"", &[("if-none-match", &format!("W/{tag}"))]).status, 304);
    assert_eq!(rest.ask("PUT", b"k", b"v", &[("if-match", "\"x\"")]).status, 412);
    assert_eq!(rest.ask("PUT", b"k", b"v", &[("if-none-match", "*")]).status, 412);
    let again = rest.ask("PUT", b"k", b"v", &[("if-match", &tag), ("cache-control", "private, max-age=20")]);
    assert_eq!(again.status, 204);
    assert_eq!(header(&rest.ask("GET", b"k", b"", &[]), "Expires"), Some("Tue, 14 Nov 2023 22:13:40 GMT"));
    assert_eq!(rest.ask("DELETE", b"k", b"", &[("if-match", &tag)]).status, 412);
    for bad in ["0", "-1", "1.5", "x", "", "99999999999"] {
        assert_eq!(rest.ask("PUT", b"k", b"v", &[("x-ttl", bad)]).status, 400, "{bad}");
    }
    assert_eq!(Rest::new(None).ask("PUT", b"k", b"v", &[("x-ttl", "5")]).status, 400);
}

#[test]
fn a_post_has_conditions_too() {
    let rest = Rest::new(None);
    for tag in ["*", "\"x\""] {
        assert_eq!(rest.ask("POST", b"k", b"v", &[("if-match", tag)]).status, 412, "{tag}");
    }
    assert_eq!(rest.ask("POST", b"k", b"v", &[("if-none-match", "*")]).status, 201);
    assert_eq!(rest.ask("POST", b"k", b"v", &[("if-none-match", "*")]).status, 412);
    assert_eq!(rest.ask("POST", b"k", b"v", &[("if-match", "*")]).status, 409);
}

#[test]
fn a_record_ends_at_a_date() {
    let rest = Rest::new(Some(60_000));
    // NOW is Tue, 14 Nov 2023 22:13:20.123 GMT.
    let put = |headers: &[(&str, &str)]| rest.ask("PUT", b"k", b"v", headers).status;
    assert_eq!(put(&[("expires", "Tue, 14 Nov 2023 22:13:50 GMT")]), 201);
    let shown = rest.ask("GET", b"k", b"", &[]);
    assert_eq!(header(&shown, "Expires"), Some("Tue, 14 Nov 2023 22:13:50 GMT"));
    // Lives in seconds count more.
    assert_eq!(put(&[("x-ttl", "5"), ("expires", "Tue, 14 Nov 2023 22:13:50 GMT")]), 204);
    assert_eq!(header(&rest.ask("GET", b"k", b"", &[]), "Expires"), Some("Tue, 14 Nov 2023 22:13:25 GMT"));
    for bad in ["Tue, 14 Nov 2023 22:13:20 GMT", "Fri, 14 Nov 2200 22:13:20 GMT", "soon", "0", ""] {
        assert_eq!(put(&[("expires", bad)]), 400, "{bad}");
    }
    let endless = Rest::new(None);
    assert_eq!(endless.ask("PUT", b"k", b"v", &[("expires", "Tue, 14 Nov 2023 22:13:50 GMT")]).status, 400);
}
