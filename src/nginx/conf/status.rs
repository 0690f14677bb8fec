//! `status_zone`

use super::{Conf, Directive, Fault};
use crate::api::StatusKind;
use crate::nginx::shm;
use crate::store::Tally;
use std::marker::PhantomData;

/// Something that is counted: all servers, or all locations, that name it.
pub struct StatusZone {
    /// What it stands in.
    pub kind: StatusKind,
    /// Its name.
    pub name: String,
    /// Where it is counted, once there is shared memory.
    pub tally: Option<Tally>,
}

/// What a server or a location says.
#[derive(Clone, Copy, Default)]
pub enum Setting {
    /// Nothing: a location does as the one around it.
    #[default]
    Unset,
    /// `off`
    Off,
    /// A name. The zone is part of the same configuration.
    Zone(*const StatusZone),
}

impl Setting {
    /// Where to count.
    ///
    /// # Safety
    /// The configuration that it belongs to is live.
    pub unsafe fn tally(self) -> Option<Tally> {
        match self {
            // SAFETY: the caller's promise.
            Setting::Zone(zone) => unsafe { (*zone).tally },
            Setting::Unset | Setting::Off => None,
        }
    }

    /// A location takes from the one around it what it doesn't say itself.
    pub fn inherit(&mut self, outer: Setting) {
        if matches!(self, Setting::Unset) {
            *self = outer;
        }
    }
}

/// Where the directive may stand.
pub trait Level: 'static {
    /// What is counted there.
    const KIND: StatusKind;
}

/// `server` in http.
pub struct HttpServer;
/// `location`, and `if` in it.
pub struct HttpLocation;
/// `server` in stream.
pub struct StreamServer;

impl Level for HttpServer {
    const KIND: StatusKind = StatusKind::HttpServer;
}
impl Level for HttpLocation {
    const KIND: StatusKind = StatusKind::HttpLocation;
}
impl Level for StreamServer {
    const KIND: StatusKind = StatusKind::StreamServer;
}

/// `status_zone zone|off`
pub struct StatusZoneDirective<L>(PhantomData<L>);

impl<L: Level> Directive for StatusZoneDirective<L> {
    type Own = Setting;

    fn set(conf: &mut Conf, own: &mut Setting) -> Result<(), Fault> {
        if !matches!(own, Setting::Unset) {
            return Err(Fault::new("\"status_zone\" is duplicate: keep one"));
        }
        let name = conf.text(1).into_owned();
        *own = match &*name {
            "off" => Setting::Off,
            "" => return Err(Fault::new("\"status_zone\" has an empty name; give it one, or \"off\"")),
            _ => {
                let (zone, is_new) = conf.main()?.status_zone(L::KIND, &name);
                if is_new {
                    shm::tallies::add(conf, zone)?;
                }
                Setting::Zone(zone)
            }
        };
        Ok(())
    }
}
