//! What nginx itself tells: processes, connections, requests, memory, and the cluster.
//!
//! Figures that stock nginx doesn't keep are left out, never invented.

use super::args::Fields;
use super::json::{self, Object};
use super::{Connections, Nginx, Requests, Slab, Worker, ZoneSync, time};
use crate::record::Millis;
use crate::store::{Comparisons, Matching, StateFigures, Zone};

/// `/nginx`
pub(super) fn nginx(nginx: &Nginx, now: Millis, fields: &Fields) -> Vec<u8> {
    json::object(fields, |object| {
        object
            .string("version", &nginx.version)
            .string("build", &nginx.build)
            .string("address", &nginx.address)
            .number("generation", nginx.generation)
            .string("load_timestamp", &time::iso8601(nginx.load_timestamp))
            .string("timestamp", &time::iso8601(now))
            .number("pid", u64::from(nginx.pid))
            .number("ppid", u64::from(nginx.ppid));
    })
}

/// `/processes`
pub(super) fn processes(respawned: u64, fields: &Fields) -> Vec<u8> {
    json::object(fields, |object| {
        object.number("respawned", respawned);
    })
}

/// `/connections`
pub(super) fn connections(connections: &Connections, fields: &Fields) -> Vec<u8> {
    json::object(fields, |object| {
        object
            .number("accepted", connections.accepted)
            .number("dropped", connections.dropped)
            .number("active", connections.active)
            .number("idle", connections.idle);
    })
}

/// `/http/requests`
pub(super) fn requests(requests: &Requests, fields: &Fields) -> Vec<u8> {
    json::object(fields, |object| {
        object.number("total", requests.total).number("current", requests.current);
    })
}

/// `/workers/`: an array; `fields` is about each of them.
pub(super) fn workers(workers: &[Worker], fields: &Fields) -> Vec<u8> {
    let mut body = Vec::new();
    json::array(&mut body, workers, |out, one| out.extend_from_slice(&worker(one, fields)));
    body
}

/// `/workers/{id}`. nginx doesn't keep what else the commercial one tells of a worker.
pub(super) fn worker(worker: &Worker, fields: &Fields) -> Vec<u8> {
    json::object(fields, |object| {
        object
            .number("id", worker.id)
            .number("pid", u64::from(worker.pid))
            .object(b"connections", |connections| {
                connections.number("idle", worker.idle);
            })
            .object(b"http", |http| {
                http.object(b"requests", |requests| {
                    requests.number("total", worker.requests);
                });
            });
    })
}

/// `/slabs/`: a collection, so `fields` is about each zone's members.
pub(super) fn slabs(slabs: &[(String, Slab)], fields: &Fields) -> Vec<u8> {
    json::collection(fields, |object| {
        for (name, zone) in slabs {
            object.member(name.as_bytes(), |out| slab_into(out, zone, fields));
        }
    })
}

/// `/slabs/{zone}`
pub(super) fn slab(zone: &Slab, fields: &Fields) -> Vec<u8> {
    let mut body = Vec::new();
    slab_into(&mut body, zone, fields);
    body
}

fn slab_into(out: &mut Vec<u8>, zone: &Slab, fields: &Fields) {
    let mut object = Object::new(out, fields);
    object.object(b"pages", |pages| {
        pages.number("used", zone.pages_used).number("free", zone.pages_free);
    });
    object.object(b"slots", |slots| {
        for slot in &zone.slots {
            slots.object(slot.size.to_string().as_bytes(), |object| {
                object
                    .number("used", slot.used)
                    .number("free", slot.free)
                    .number("reqs", slot.reqs)
                    .number("fails", slot.fails);
            });
        }
    });
    object.end();
}

/// `/zonemesh/zones/{zone}`: what it is, how full, what became of its records, and what of its state file. `timeout` and the
/// file's `age` are in milliseconds, `rate` (of a zone of limits) in requests a second.
pub(super) fn zone(zone: &Zone, now: Millis, fields: &Fields) -> Vec<u8> {
    let (params, stats) = (zone.params(), zone.stats());
    let bytes = |pages: u64| pages.saturating_mul(stats.page_size);
    json::object(fields, |object| {
        object
            .string("type", params.matching.name())
            .member(b"sync", |out| json::boolean(out, params.sync))
            .member(b"evict", |out| json::boolean(out, params.evict))
            .member(b"timeout", |out| match params.timeout {
                Some(timeout) => out.extend_from_slice(timeout.to_string().as_bytes()),
                None => out.extend_from_slice(b"null"),
            })
            .member(b"rate", |out| match params.matching {
                Matching::Limit => out.extend_from_slice(per_second(params.rate).as_bytes()),
                _ => out.extend_from_slice(b"null"),
            })
            .object(b"pages", |pages| {
                pages.number("used", stats.pages_used).number("free", stats.pages_free);
            })
            .object(b"bytes", |all| {
                all.number("used", bytes(stats.pages_used)).number("free", bytes(stats.pages_free));
            })
            .number("records", stats.records)
            .number("tombstones", stats.tombstones)
            .number("evictions", stats.evicted)
            .number("refusals", stats.refused)
            .number("incomplete", stats.incomplete)
            .object(b"origins", |origins| {
                origins.number("known", stats.origins).number("room", stats.origins_room);
            })
            .number("future", stats.future)
            .number("expired", stats.expired)
            .object(b"comparisons", |all| {
                let Comparisons { begun, ended, records } = stats.comparisons;
                all.number("begun", begun).number("ended", ended).number("records", records);
            })
            .number("mended", stats.mended)
            .number("retired", stats.retired)
            .number("pending", stats.pending)
            .number("busy", stats.busy);
        match params.sync {
            true => object.member(b"joined", |out| json::boolean(out, zone.joined())),
            false => object.null("joined"),
        };
        match zone.joining().filter(|_| params.sync) {
            Some(joining) => object.object(b"joining", |object| {
                object.number("records", joining.taken).number("of", joining.total);
            }),
            None => object.null("joining"),
        };
        match zone.state_figures() {
            None => object.member(b"state", |out| out.extend_from_slice(b"null")),
            Some(state) => object.object(b"state", |object| state_into(object, &state, now)),
        };
    })
}

/// Thousandths of a request, as a number of requests.
fn per_second(rate: u64) -> String {
    match (rate / 1000, rate % 1000) {
        (whole, 0) => whole.to_string(),
        (whole, part) => format!("{whole}.{part:03}"),
    }
}

/// A state file that was never written has neither time nor age.
fn state_into(object: &mut Object<'_>, state: &StateFigures, now: Millis) {
    if state.written > 0 {
        object.string("written", &time::iso8601(state.written)).number("age", now.saturating_sub(state.written));
    }
    object
        .number("bytes", state.bytes)
        .number("writes", state.writes)
        .number("errors", state.errors)
        .member(b"pending", |out| json::boolean(out, state.pending));
    let changes = &state.changes;
    object.object(b"changes", |object| {
        if changes.appended > 0 {
            object.string("appended", &time::iso8601(changes.appended));
        }
        object.number("appends", changes.appends).number("files", changes.files).number("bytes", changes.bytes);
    });
}

/// `/zonemesh/sync`: what `/stream/zone_sync/` hasn't.
pub(super) fn sync(sync: &ZoneSync, fields: &Fields) -> Vec<u8> {
    json::object(fields, |object| {
        object.number("sessions_waited", sync.sessions_waited);
    })
}

/// `/stream/zone_sync/`
pub(super) fn zone_sync(sync: &ZoneSync, fields: &Fields) -> Vec<u8> {
    json::object(fields, |object| {
        object.object(b"zones", |zones| {
            for (name, stats) in &sync.zones {
                zones.object(name.as_bytes(), |zone| {
                    zone.number("records_pending", stats.pending).number("records_total", stats.records);
                });
            }
        });
        object.object(b"status", |status| {
            status
                .number("bytes_in", sync.bytes_in)
                .number("msgs_in", sync.msgs_in)
                .number("msgs_out", sync.msgs_out)
                .number("bytes_out", sync.bytes_out)
                .number("nodes_online", sync.nodes_online);
        });
    })
}
