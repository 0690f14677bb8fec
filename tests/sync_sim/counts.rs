//! Counters, and what limits admit: what was added on every node. Of what a memory had that is lost, the others may know a part;
//! all else must be in the sums, once.

use std::collections::BTreeMap;

/// All that was acknowledged to those who add.
#[derive(Default)]
pub struct Ledger {
    /// By zone and key.
    added: BTreeMap<(usize, Vec<u8>), Vec<Added>>,
}

/// What one memory was given to add.
struct Added {
    node: usize,
    amount: i64,
    is_lost: bool,
}

impl Ledger {
    /// A node has acknowledged it.
    pub fn add(&mut self, node: usize, zone: usize, key: &[u8], amount: i64) {
        let all = self.added.entry((zone, key.to_vec())).or_default();
        match all.iter_mut().find(|added| added.node == node && !added.is_lost) {
            Some(added) => added.amount += amount,
            None => all.push(Added { node, amount, is_lost: false }),
        }
    }

    /// A node has lost its memory.
    pub fn forget(&mut self, node: usize) {
        self.added.values_mut().flatten().filter(|added| added.node == node).for_each(|added| added.is_lost = true);
    }

    /// Whether what `node` shows now can be true: all that it added itself, and nothing that nobody added.
    pub fn check_now(&self, node: usize, zone: usize, shown: impl Fn(&[u8]) -> Option<i64>) -> Result<(), String> {
        self.check_with(zone, shown, |added| added.node == node && !added.is_lost)
    }

    /// Whether what all nodes show has everything.
    pub fn check(&self, zone: usize, shown: impl Fn(&[u8]) -> Option<i64>) -> Result<(), String> {
        self.check_with(zone, shown, |added| !added.is_lost)
    }

    /// Of each key of a zone: what `node` has added, what any other has at most, both in memory that lives, and what all have.
    pub fn amounts(&self, zone: usize, node: usize) -> impl Iterator<Item = (&[u8], [i64; 3])> {
        self.added.range((zone, Vec::new())..(zone + 1, Vec::new())).map(move |((_, key), all)| {
            let living = |own: bool| {
                let of = all.iter().filter(move |added| !added.is_lost && (added.node == node) == own);
                of.map(|added| added.amount).max().unwrap_or(0)
            };
            (key.as_slice(), [living(true), living(false), all.iter().map(|added| added.amount).sum()])
        })
    }

    fn check_with(
        &self,
        zone: usize,
        shown: impl Fn(&[u8]) -> Option<i64>,
        must: impl Fn(&Added) -> bool,
    ) -> Result<(), String> {
        for ((_, key), all) in self.added.iter().filter(|((at, _), _)| *at == zone) {
            let sum =
                |which: &dyn Fn(&Added) -> bool| all.iter().filter(|added| which(added)).map(|a| a.amount).sum::<i64>();
            let (least, most) = (sum(&|added| must(added)), sum(&|_| true));
            let shown = shown(key);
            if shown.is_none_or(|shown| shown < least || shown > most) {
                let key = String::from_utf8_lossy(key);
                return Err(format!("\"{key}\" shows {shown:?}, where {least} to {most} were added"));
            }
        }
        Ok(())
    }
}
