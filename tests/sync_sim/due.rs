//! When each of many things happens next. In a large cluster there are thousands, and at most times hardly one of them is due.

use zonemesh::record::Millis;

/// Times, by index, as a tree: each place above the lowest has the lesser of the two below it.
#[derive(Default)]
pub struct Due {
    /// The first is unused; the last half are the times. What is below `n` is at `2 n` and `2 n + 1`.
    least: Vec<Millis>,
    count: usize,
}

impl Due {
    pub fn new(times: Vec<Millis>) -> Due {
        let (count, places) = (times.len(), times.len().next_power_of_two());
        let mut least = vec![Millis::MAX; 2 * places];
        least[places..places + count].copy_from_slice(&times);
        (1..places).rev().for_each(|at| least[at] = least[2 * at].min(least[2 * at + 1]));
        Due { least, count }
    }

    pub fn push(&mut self, time: Millis) {
        if self.count == self.places() {
            let mut times = self.least.split_off(self.places());
            times.resize((2 * self.count).max(1), Millis::MAX);
            *self = Due { count: self.count, ..Due::new(times) };
        }
        self.count += 1;
        self.set(self.count - 1, time);
    }

    pub fn get(&self, index: usize) -> Millis {
        self.least[self.places() + index]
    }

    pub fn set(&mut self, index: usize, time: Millis) {
        let mut at = self.places() + index;
        self.least[at] = time;
        while at > 1 {
            at /= 2;
            let least = self.least[2 * at].min(self.least[2 * at + 1]);
            if std::mem::replace(&mut self.least[at], least) == least {
                return;
            }
        }
    }

    /// Leaves those out for whose index, counted as it was before, `keep` says no.
    pub fn retain(&mut self, mut keep: impl FnMut(usize) -> bool) {
        let times = (0..self.count).filter(|index| keep(*index)).map(|index| self.get(index)).collect();
        *self = Due::new(times);
    }

    /// The least of all.
    pub fn next(&self) -> Millis {
        self.least.get(1).copied().unwrap_or(Millis::MAX)
    }

    /// The first that is due by `now`, from `index` on.
    pub fn first(&self, index: usize, now: Millis) -> Option<usize> {
        if index >= self.count || self.next() > now {
            return None;
        }
        // To the right, as far up as may be, until one has something that is due.
        let mut at = self.places() + index;
        while self.least[at] > now {
            while at % 2 == 1 {
                at /= 2;
            }
            if at == 0 {
                return None;
            }
            at += 1;
        }
        while at < self.places() {
            at *= 2;
            at += usize::from(self.least[at] > now);
        }
        Some(at - self.places())
    }

    fn places(&self) -> usize {
        self.least.len() / 2
    }
}
