//! The text for Prometheus.

use super::*;
use std::collections::HashMap;

/// Checks the form of the text, and gives the samples: name with labels, value.
fn samples(text: &str) -> HashMap<String, f64> {
    let (mut samples, mut family, mut seen) = (HashMap::new(), String::new(), Vec::new());
    let mut lines = text.lines().peekable();
    assert!(text.ends_with('\n'));
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help text");
            assert!(!help.is_empty() && !seen.contains(&name.to_owned()), "each name once: {name}");
            let kind = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {name} "))).expect("a type");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
            family = name.to_owned();
            seen.push(family.clone());
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').expect("a value");
        assert_eq!(sample.split('{').next(), Some(family.as_str()));
        assert!(samples.insert(sample.to_owned(), value.parse().expect("a number")).is_none(), "{sample}");
    }
    samples
}

#[test]
fn metrics_have_the_form_that_prometheus_reads() {
    let mut host = Fake::cluster();
    let one = host.zone("a \"b\"\\c\n", 64 << 10, None, true);
    let two = host.zone("two", 64 << 10, None, false);
    host.http = vec![one];
    host.stream = Some(vec![two]);
    let (zone, odd) = (host.stream.as_ref().expect("zones")[0].zone, r#"zone="a \"b\"\\c\n""#);
    let set = |key: &[u8]| zone.set(key, b"v", crate::store::Life::Default, crate::store::Condition::Always, NOW);
    (0..5u8).for_each(|n| _ = set(&[n + 1]).unwrap());
    zone.delete(&[1], NOW).unwrap();
    let response = host.ask("GET", "/9/zonemesh/metrics", b"");
    assert_eq!((response.status, response.content_type), (200, "text/plain; version=0.0.4"));
    let samples = samples(&body(&response));
    assert_eq!(samples["zonemesh_zone_records{zone=\"two\"}"], 4.0);
    assert_eq!(samples[&format!("zonemesh_zone_records{{{odd}}}")], 0.0);
    for (operation, count) in [("set", 5.0), ("delete", 1.0), ("clear", 0.0), ("merge", 0.0)] {
        let name = format!("zonemesh_zone_operations_total{{zone=\"two\",operation=\"{operation}\"}}");
        assert_eq!(samples[&name], count);
    }
    let of = |name: &str| samples[&format!("zonemesh_zone_{name}{{zone=\"two\"}}")];
    assert!(of("used_bytes") > 0.0 && of("capacity_bytes") > of("used_bytes"));
    assert!((of("fill_ratio") - of("used_bytes") / of("capacity_bytes")).abs() < 1e-9);
    assert_eq!((samples["zonemesh_sync_received_bytes_total"], samples["zonemesh_sync_nodes_online"]), (11.0, 2.0));
    assert_eq!((samples["zonemesh_sync_sessions_waited_total"], of("busy_total")), (15.0, 0.0));
    for (name, value) in [
        ("connected", 1.0),
        ("sent_bytes_total", 12.0),
        ("received_bytes_total", 11.0),
        ("sent_messages_total", 14.0),
        ("received_messages_total", 13.0),
        ("pending_records", 15.0),
        ("lag_seconds", 0.016),
        ("round_trip_seconds", 0.001017),
        ("clock_offset_seconds", -0.018),
        ("since_timestamp_seconds", (NOW - 700) as f64 / 1000.0),
        ("certificate_expiry_timestamp_seconds", (NOW + 1000) as f64 / 1000.0),
        ("error_timestamp_seconds", (NOW - 800) as f64 / 1000.0),
    ] {
        let name = format!(r#"zonemesh_sync_peer_{name}{{peer="node2:9000 (10.0.0.2:9000)"}}"#);
        assert_eq!(samples[&*name], value, "{name}");
    }
    let who = r#"peer="node2:9000 (10.0.0.2:9000)",node="abababababababab",certificate="node2""#;
    assert_eq!(samples[&*format!("zonemesh_sync_peer_info{{{who}}}")], 1.0);
    let itself = |name: &str| format!(r#"zonemesh_sync_peer_{name}{{peer="10.0.0.1:9000"}}"#);
    assert_eq!((samples[&itself("connected")], samples[&itself("lag_seconds")]), (0.0, 0.0));
    assert!(!samples.contains_key(&itself("round_trip_seconds")), "not known");
    for (state, is) in [("connected", 0.0), ("itself", 1.0)] {
        let name = format!(r#"zonemesh_sync_peer_state{{peer="10.0.0.1:9000",state="{state}"}}"#);
        assert_eq!(samples[&*name], is, "{name}");
    }
    let refused = r#"{peer="node2:9000 (10.0.0.2:9000)",zone="a \"b\"",by="peer"}"#;
    assert_eq!(samples[&*format!("zonemesh_sync_zone_refused{refused}")], 1.0);
    let heard = r#"zonemesh_sync_peer_heard_timestamp_seconds{node="abababababababab"}"#;
    assert_eq!(samples[heard], (NOW - 500) as f64 / 1000.0);
    assert_eq!(samples[r#"zonemesh_sync_node_received_bytes_total{node="abababababababab"}"#], 21.0);

    let bare = Fake::bare().ask("GET", "/9/zonemesh/metrics", b"");
    let samples = self::samples(&body(&bare));
    assert_eq!(samples.len(), 1, "without zones and a cluster nothing is said of them");
}

fn body(response: &Response) -> String {
    let Body::Bytes(bytes) = &response.body else { panic!("made while it is sent") };
    String::from_utf8(bytes.clone()).expect("UTF-8")
}
