//! When each of many things happens next. In a large cluster there are thousands, and at most times hardly one of them is due.

use zonemesh::record::Millis;

/// So many stand together, with the least of their times beside them.
const TOGETHER: usize = 64;

/// Times, by index.
#[derive(Default)]
pub struct Due {
    times: Vec<Millis>,
    least: Vec<Millis>,
}

impl Due {
    pub fn new(times: Vec<Millis>) -> Due {
        let least = times.chunks(TOGETHER).map(least).collect();
        Due { times, least }
    }

    pub fn push(&mut self, time: Millis) {
        self.times.push(time);
        self.look_at(self.times.len() - 1);
    }

    pub fn get(&self, index: usize) -> Millis {
        self.times[index]
    }

    pub fn set(&mut self, index: usize, time: Millis) {
        let before = std::mem::replace(&mut self.times[index], time);
        let least = &mut self.least[index / TOGETHER];
        if time <= *least {
            *least = time;
        } else if before == *least {
            self.look_at(index);
        }
    }

    /// Leaves those out for whose index, counted as it was before, `keep` says no.
    pub fn retain(&mut self, mut keep: impl FnMut(usize) -> bool) {
        let mut indices = 0..;
        self.times.retain(|_| indices.next().is_some_and(&mut keep));
        *self = Due::new(std::mem::take(&mut self.times));
    }

    /// The least of all.
    pub fn next(&self) -> Millis {
        least(&self.least)
    }

    /// The first that is due by `now`, from `index` on.
    pub fn first(&self, index: usize, now: Millis) -> Option<usize> {
        let is_due = |time: &Millis| *time <= now;
        let block = index / TOGETHER;
        let here = self.times.get(index..).unwrap_or_default();
        let here = &here[..here.len().min(TOGETHER - index % TOGETHER)];
        if let Some(at) = here.iter().position(is_due) {
            return Some(index + at);
        }
        let further = self.least.iter().skip(block + 1).position(is_due)? + block + 1;
        let at = self.times[further * TOGETHER..].iter().position(is_due)?;
        Some(further * TOGETHER + at)
    }

    fn look_at(&mut self, index: usize) {
        let block = index / TOGETHER;
        let from = block * TOGETHER;
        let least = least(&self.times[from..self.times.len().min(from + TOGETHER)]);
        match self.least.get_mut(block) {
            Some(place) => *place = least,
            None => self.least.push(least),
        }
    }
}

fn least(times: &[Millis]) -> Millis {
    times.iter().copied().fold(Millis::MAX, Millis::min)
}
