//! The handler: what nginx's own does with its zones, with those that are shared.
//!
//! Each limit that holds is looked at first, and only if none refuses does the request count in all of them. nginx's own
//! handler is called in between, where its zones hold as well: so what one refuses doesn't count with the other. The
//! longest delay wins, and `limit_req_status` of the request is set once, by whoever decides.

use super::original::Settings;
use super::{Limit, LimitConf, LimitMain, ctx_index, main_of};
use crate::nginx::conf::main::{KeyvalZone, Rule};
use crate::nginx::ffi::{self, DECLINED, OK, guard};
use crate::nginx::http::request::INTERNAL;
use crate::nginx::http::variable::Http;
use crate::nginx::log;
use crate::nginx::variable::Side;
use crate::nginx::wake;
use crate::store::{Limited, MAX_PARTED, Outcome, StoreError, Zone};
use nginx_sys as sys;

const AGAIN: sys::ngx_int_t = sys::NGX_AGAIN as sys::ngx_int_t;

// nginx's numbers of what became of a request.
const PASSED: u32 = Outcome::Passed as u32;
const DELAYED: u32 = Outcome::Delayed as u32;
const DELAYED_DRY_RUN: u32 = Outcome::DelayedDryRun as u32;

/// A limit that holds for this request, and its key.
struct Asked<'a> {
    limit: Limit,
    name: &'a str,
    rule: &'a Rule,
    zone: Zone,
    complaints: &'a log::Limited,
    key: &'a [u8],
}

/// What a limit makes of a request that it has counted.
#[derive(Clone, Copy)]
struct Delay<'a> {
    millis: u64,
    excess: u64,
    name: &'a str,
}

/// In the place of nginx's own.
pub unsafe extern "C" fn handler(r: *mut sys::ngx_http_request_t) -> sys::ngx_int_t {
    guard("limit_req", INTERNAL, || {
        // SAFETY: nginx calls with a live request in a location of the configuration in force, whose structures of this
        // module are only read by now.
        unsafe {
            let main = &*main_of((*r).main_conf);
            let conf = &*(*(*r).loc_conf.add(ctx_index())).cast::<LimitConf>();
            if conf.limits.is_empty() {
                return main.handler.map_or(DECLINED, |theirs| theirs(r));
            }
            if (*(*r).main).limit_req_status() != 0 {
                return DECLINED;
            }
            limit(r, main, conf)
        }
    })
}

/// # Safety
/// As for `handler`.
unsafe fn limit(r: *mut sys::ngx_http_request_t, main: &LimitMain, conf: &LimitConf) -> sys::ngx_int_t {
    let now = ffi::now();
    // SAFETY: the caller's promise.
    unsafe {
        let settings = main.original.map_or_else(|| conf.own.settings(), |original| original.settings(r));
        // Only looked at.
        let mut asked = Vec::new();
        let mut longest = None;
        let theirs = main.handler.filter(|_| conf.plain);
        for (n, limit) in conf.limits.iter().enumerate() {
            // In their order, as with nginx: what follows a refusal isn't asked for its key.
            let one = match ask(r, limit) {
                Ok(Some(one)) => one,
                Ok(None) => continue,
                Err(()) => return INTERNAL,
            };
            if n + 1 < conf.limits.len() || theirs.is_some() {
                match one.zone.look(one.key, one.rule.rate, one.limit.burst, now) {
                    Ok(Limited::Within(_)) => asked.push(one),
                    Ok(Limited::Beyond(excess)) => return refuse(r, &one, &settings, Ok(excess)),
                    Err(error) => return refuse(r, &one, &settings, Err(error)),
                }
                continue;
            }
            // The last one is looked at and counted in one go.
            match one.zone.admit(one.key, one.rule.rate, Some(one.limit.burst), now) {
                Ok(Limited::Within(excess)) => longest = Some(counted(&one, excess, &settings)),
                Ok(Limited::Beyond(excess)) => return refuse(r, &one, &settings, Ok(excess)),
                Err(error) => return refuse(r, &one, &settings, Err(error)),
            }
        }
        let mut answer = DECLINED;
        if let Some(theirs) = theirs {
            answer = theirs(r);
            let status = (*(*r).main).limit_req_status();
            if !matches!((answer, status), (DECLINED, 0 | PASSED | DELAYED_DRY_RUN) | (AGAIN, DELAYED)) {
                return answer;
            }
        }
        for one in asked.iter().rev() {
            // Nobody asks again whether it is within the burst, as nobody does with nginx.
            match one.zone.admit(one.key, one.rule.rate, None, now) {
                Ok(Limited::Within(excess) | Limited::Beyond(excess)) => {
                    let delay = counted(one, excess, &settings);
                    if longest.is_none_or(|longest: Delay<'_>| delay.millis > longest.millis) {
                        longest = Some(delay);
                    }
                }
                // No room, or another process is stuck. With nginx's own that shows when a limit is looked at; and a limit that
                // can't count must not be a way past it.
                Err(error) => {
                    if answer == AGAIN {
                        wait_no_more(r);
                    }
                    return refuse(r, one, &settings, Err(error));
                }
            }
        }
        if let Some(longest) = longest {
            wake::soon();
            answer = decide(r, &settings, answer, longest);
        }
        answer
    }
}

/// Looks which key a limit has for a request. `None`: it doesn't count with this limit.
unsafe fn ask<'a>(r: *mut sys::ngx_http_request_t, limit: &Limit) -> Result<Option<Asked<'a>>, ()> {
    // SAFETY: the caller's request is live; its configuration outlives it, and with it the zones; keys are in the pool of
    // the request, or constants of the configuration.
    unsafe {
        let KeyvalZone { name, zone, limit: rule, complaints, .. } = &*limit.zone;
        let (Some(rule), Some(zone)) = (rule, zone) else { return Ok(None) };
        let key = ffi::bytes(Http.evaluate(r, &rule.key).ok_or(())?);
        if key.len() > MAX_PARTED {
            let key = String::from_utf8_lossy(key);
            let text = &rule.text;
            log::plain(
                (*(*r).connection).log,
                log::ERR,
                format_args!("the value of the \"{text}\" key is more than {MAX_PARTED} bytes: \"{key}\""),
            );
            return Ok(None);
        }
        Ok((!key.is_empty()).then_some(Asked { limit: *limit, name, rule, zone: *zone, complaints, key }))
    }
}

/// What a limit makes of a request that it counted with this excess; for its figures, too.
fn counted<'a>(one: &Asked<'a>, excess: u64, settings: &Settings) -> Delay<'a> {
    let millis = excess.saturating_sub(one.limit.delay).saturating_mul(1000) / one.rule.rate.max(1);
    one.zone.count_limited(match (millis, settings.dry_run) {
        (0, _) => Outcome::Passed,
        (_, false) => Outcome::Delayed,
        (_, true) => Outcome::DelayedDryRun,
    });
    Delay { millis, excess, name: one.name }
}

/// A limit is exceeded, or couldn't be looked at or counted with.
unsafe fn refuse(
    r: *mut sys::ngx_http_request_t,
    one: &Asked<'_>,
    settings: &Settings,
    found: Result<u64, StoreError>,
) -> sys::ngx_int_t {
    // SAFETY: the caller's request is live.
    unsafe {
        match found {
            Ok(excess) => {
                let (dry, excess) = (dry(settings), shown(excess));
                let text = format_args!("limiting requests{dry}, excess: {excess} by zone \"{}\"", one.name);
                log::plain((*(*r).connection).log, settings.level, text);
            }
            Err(error) => complain(r, one, error),
        }
        let outcome = if settings.dry_run { Outcome::RejectedDryRun } else { Outcome::Rejected };
        one.zone.count_limited(outcome);
        (*(*r).main).set_limit_req_status(outcome as u32);
    }
    if settings.dry_run { DECLINED } else { settings.status }
}

/// All limits have counted the request. `theirs`: what nginx's own handler made of it.
unsafe fn decide(
    r: *mut sys::ngx_http_request_t,
    settings: &Settings,
    theirs: sys::ngx_int_t,
    delay: Delay<'_>,
) -> sys::ngx_int_t {
    // SAFETY: the caller's request is live.
    unsafe {
        let status = (*(*r).main).limit_req_status();
        let write = (*(*r).connection).write;
        // It waits already; for how long is what its timer says.
        let waits = if theirs == AGAIN { (*write).timer.key.saturating_sub(sys::ngx_current_msec) as u64 } else { 0 };
        if delay.millis <= waits {
            if status == 0 {
                (*(*r).main).set_limit_req_status(PASSED);
            }
            return theirs;
        }
        let (dry, excess) = (dry(settings), shown(delay.excess));
        let text = format_args!("delaying request{dry}, excess: {excess}, by zone \"{}\"", delay.name);
        log::plain((*(*r).connection).log, settings.delay_level(), text);
        (*(*r).main).set_limit_req_status(if settings.dry_run { DELAYED_DRY_RUN } else { DELAYED });
        if settings.dry_run {
            return DECLINED;
        }
        let millis = delay.millis as sys::ngx_msec_t;
        if theirs == AGAIN {
            sys::ngx_del_timer(write);
            sys::ngx_add_timer(write, millis);
            return AGAIN;
        }
        wait(r, millis)
    }
}

/// Lets the request wait, and notice if its client goes away.
unsafe fn wait(r: *mut sys::ngx_http_request_t, millis: sys::ngx_msec_t) -> sys::ngx_int_t {
    // SAFETY: the caller's request is live, in a phase whose handlers may let it wait.
    unsafe {
        let (read, write) = ((*(*r).connection).read, (*(*r).connection).write);
        if (*read).ready() != 0 {
            sys::ngx_post_event(read, &raw mut sys::ngx_posted_events);
        } else if sys::ngx_handle_read_event(read, 0) != OK {
            return INTERNAL;
        }
        (*r).read_event_handler = Some(sys::ngx_http_test_reading);
        (*r).write_event_handler = Some(waited);
        (*write).set_delayed(1);
        sys::ngx_add_timer(write, millis);
    }
    AGAIN
}

/// Ends what `wait`, or nginx's own handler, has begun.
unsafe fn wait_no_more(r: *mut sys::ngx_http_request_t) {
    // SAFETY: the caller's request is live, and waits.
    unsafe {
        let write = (*(*r).connection).write;
        (*write).set_delayed(0);
        if (*write).timer_set() != 0 {
            sys::ngx_del_timer(write);
        }
        (*r).read_event_handler = Some(sys::ngx_http_block_reading);
        (*r).write_event_handler = Some(sys::ngx_http_core_run_phases);
    }
}

/// The connection can be written to, or the time is over.
unsafe extern "C" fn waited(r: *mut sys::ngx_http_request_t) {
    // SAFETY: nginx calls with a live request.
    unsafe {
        let (read, write) = ((*(*r).connection).read, (*(*r).connection).write);
        if (*write).delayed() != 0 {
            if sys::ngx_handle_write_event(write, 0) != OK {
                sys::ngx_http_finalize_request(r, INTERNAL);
            }
            return;
        }
        if sys::ngx_handle_read_event(read, 0) != OK {
            return sys::ngx_http_finalize_request(r, INTERNAL);
        }
        (*r).read_event_handler = Some(sys::ngx_http_block_reading);
        (*r).write_event_handler = Some(sys::ngx_http_core_run_phases);
        sys::ngx_http_core_run_phases(r);
    }
}

/// What went wrong with a zone: in nginx's words if there is no room, as nginx does for each request; the rest at a bounded
/// rate.
///
/// # Safety
/// The request is live.
unsafe fn complain(r: *mut sys::ngx_http_request_t, one: &Asked<'_>, error: StoreError) {
    if error == StoreError::NoMemory {
        let text = format_args!("could not allocate node in limit_req zone \"{}\"", one.name);
        return log::cycle_plain(log::ALERT, text);
    }
    // SAFETY: the caller's promise; a live request has a connection with a log.
    unsafe {
        let text = format_args!("limit_req zone \"{}\": {error}", one.name);
        one.complaints.write((*(*r).connection).log, log::ALERT, ffi::now(), text);
    }
}

fn dry(settings: &Settings) -> &'static str {
    if settings.dry_run { ", dry run" } else { "" }
}

/// Thousandths, as nginx writes them.
fn shown(excess: u64) -> String {
    format!("{}.{:03}", excess / 1000, excess % 1000)
}
