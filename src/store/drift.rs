//! Zones that two nodes don't share although one of them offers to, since their configurations differ: a table in the
//! control region, for whoever looks after the cluster.

use super::control::Control;
use super::hash::Hasher;
use super::links::cut;
use crate::record::{Identity, Millis};

/// Entries; the oldest gives way.
pub(super) const DRIFTS: usize = 128;
/// Bytes of an entry: peer, when (0: free), side, lengths, zone, reason.
pub(super) const DRIFT_LEN: usize = 256;

const AT: usize = 16;
const SIDE: usize = 24;
const LENGTHS: usize = 32;
const TEXTS: usize = 48;
/// Longer ones are cut off.
const ROOM: usize = (DRIFT_LEN - TEXTS) / 2;
/// Of a name that is cut off, what stands for the rest of it.
const CUT_MARK: &str = "…";
/// Digits that follow the mark.
const CUT_DIGITS: usize = 12;

/// Which node doesn't take the zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Side {
    /// This one.
    Here = 1,
    /// The peer.
    There = 2,
}

/// A zone that isn't shared with a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// The peer.
    pub peer: Identity,
    /// The zone's name.
    pub zone: String,
    /// Who refuses it.
    pub side: Side,
    /// What that node says of its own zone of this name.
    pub reason: String,
}

impl Control {
    /// A zone is refused.
    pub fn show_drift(&self, drift: &Drift, now: Millis) {
        let zone = shown_name(&drift.zone);
        self.locked(|| {
            let same = |entry: &usize| {
                self.drift_at(*entry)
                    .is_some_and(|known| (known.peer, known.side, &known.zone) == (drift.peer, drift.side, &zone))
            };
            let entry = (0..DRIFTS)
                .map(Control::drift_place)
                .find(same)
                .or_else(|| (0..DRIFTS).map(Control::drift_place).min_by_key(|entry| self.get(entry + AT)));
            let Some(entry) = entry else { return };
            self.put(entry + AT, 0);
            self.write(entry, &drift.peer.0);
            self.put(entry + SIDE, drift.side as u64);
            for (n, text) in [&zone, cut(&drift.reason, ROOM)].into_iter().enumerate() {
                self.put(entry + LENGTHS + 8 * n, text.len() as u64);
                self.write(entry + TEXTS + ROOM * n, text.as_bytes());
            }
            self.put(entry + AT, now.max(1));
        });
    }

    /// A new session with a peer begins: what one side refuses now is told anew.
    pub fn forget_drifts(&self, peer: Identity, side: Side) {
        // Without a look at the texts, as each hello asks.
        let there = |entry: &usize| {
            self.get(entry + AT) != 0 && self.get(entry + SIDE) == side as u64 && self.identity_at(*entry) == peer
        };
        let entries = || (0..DRIFTS).map(Control::drift_place).filter(there);
        // Seldom is there something to forget, and then the lock is taken.
        if entries().next().is_some() {
            self.locked(|| entries().for_each(|entry| self.put(entry + AT, 0)));
        }
    }

    /// All that is known, as sessions that live or lived last have told.
    pub fn drifts(&self) -> Vec<Drift> {
        self.locked(|| (0..DRIFTS).map(Control::drift_place).filter_map(|entry| self.drift_at(entry)).collect())
            .unwrap_or_default()
    }

    fn drift_at(&self, entry: usize) -> Option<Drift> {
        if self.get(entry + AT) == 0 {
            return None;
        }
        let side = if self.get(entry + SIDE) == Side::Here as u64 { Side::Here } else { Side::There };
        let text = |n: usize| {
            let mut text = vec![0; (self.get(entry + LENGTHS + 8 * n) as usize).min(ROOM)];
            self.read(entry + TEXTS + ROOM * n, &mut text);
            String::from_utf8_lossy(&text).into_owned()
        };
        Some(Drift { peer: self.identity_at(entry), zone: text(0), side, reason: text(1) })
    }
}

/// A name that fits in, unlike that of every other zone.
fn shown_name(name: &str) -> String {
    if name.len() <= ROOM {
        return name.to_owned();
    }
    let hash = Hasher::new(&[0; 16]).hash(name.as_bytes()) >> (64 - 4 * CUT_DIGITS);
    format!("{}{CUT_MARK}{hash:0CUT_DIGITS$x}", cut(name, ROOM - CUT_MARK.len() - CUT_DIGITS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Region;
    use crate::store::control::CONTROL_SIZE;

    #[test]
    fn drift_is_known_by_peer_zone_and_side_until_the_next_session() {
        let memory = Region::anonymous(CONTROL_SIZE).expect("memory");
        let control = Control::create(memory.region()).expect("a control region");
        let drift = |peer: u8, zone: &str, side, reason: &str| Drift {
            peer: Identity([peer; 16]),
            zone: zone.into(),
            side,
            reason: reason.into(),
        };
        control.show_drift(&drift(1, "one", Side::Here, "missing"), 1);
        control.show_drift(&drift(1, "one", Side::There, "of another type"), 2);
        control.show_drift(&drift(2, "one", Side::Here, "missing"), 3);
        control.show_drift(&drift(1, "one", Side::Here, "of another kind"), 4);
        assert_eq!(
            control.drifts(),
            [
                drift(1, "one", Side::Here, "of another kind"),
                drift(1, "one", Side::There, "of another type"),
                drift(2, "one", Side::Here, "missing")
            ]
        );
        control.forget_drifts(Identity([1; 16]), Side::Here);
        assert_eq!(control.drifts().len(), 2);
        // A peer that offers more than there is room for displaces the oldest only.
        let long = "é".repeat(100);
        (0..DRIFTS as u64 - 1)
            .for_each(|n| control.show_drift(&drift(3, &format!("{n}{long}"), Side::Here, &long), 9 + n));
        let drifts = control.drifts();
        assert_eq!(drifts.len(), DRIFTS);
        assert!(drifts.contains(&drift(2, "one", Side::Here, "missing")));
        assert!(!drifts.contains(&drift(1, "one", Side::There, "of another type")));
        assert!(drifts.iter().all(|drift| drift.zone.len() <= ROOM && drift.reason.len() <= ROOM));
        // Names that begin alike are two all the same.
        control.forget_drifts(Identity([3; 16]), Side::Here);
        for (zone, at) in [("1", 900), ("2", 901), ("1", 902)] {
            control.show_drift(&drift(4, &format!("{long}{zone}"), Side::There, zone), at);
        }
        let shown: Vec<_> = control.drifts().into_iter().filter(|drift| drift.peer == Identity([4; 16])).collect();
        let [one, two] = shown.as_slice() else { panic!("two zones: {shown:?}") };
        assert_eq!((one.reason.as_str(), two.reason.as_str()), ("1", "2"));
        assert!(one.zone != two.zone && one.zone.len() <= ROOM && one.zone.starts_with("ééé"), "{shown:?}");
    }
}
