//! Whom this node limits requests without: zones of limits go on when nodes are cut off from each other, and whoever runs
//! them is told so, once, with names.

use crate::sync::NoteLevel;
use std::collections::BTreeSet;

/// Peers that are named in a line; the rest are counted.
const NAMED: usize = 8;

/// What was seen at the last look, and what was told.
#[derive(Debug, Default)]
pub(super) struct Apart {
    seen: Option<State>,
    told: Option<State>,
}

/// How this node stands with the others.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    /// Those that aren't connected.
    missing: BTreeSet<String>,
    /// Any other is.
    connected: bool,
}

impl Apart {
    /// How things stand now; returns what is to be told. That is only what has been so since the last look: a peer that
    /// reloads is back at once, and those that are lost together are to be in one line.
    pub(super) fn look(&mut self, missing: BTreeSet<String>, connected: bool) -> Option<(NoteLevel, String)> {
        let now = State { missing, connected };
        if self.seen.as_ref() != Some(&now) {
            self.seen = Some(now);
            return None;
        }
        let alone = !connected;
        let is_news = match &self.told {
            Some(told) => !now.missing.is_subset(&told.missing) || (alone && told.connected),
            None => !now.missing.is_empty(),
        };
        let said = match now.missing.is_empty() {
            // There is nobody to be connected to.
            true if alone => return None,
            true if self.told.as_ref().is_some_and(|told| told.missing.is_empty()) => None,
            true => Some((
                NoteLevel::Info,
                "limit_req: all other nodes are connected: zones with sync are shared with each that has them"
                    .to_owned(),
            )),
            false if !is_news => None,
            false => Some((NoteLevel::Warn, now.warning())),
        };
        self.told = Some(now);
        said
    }
}

impl State {
    fn warning(&self) -> String {
        let mut names = self.missing.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
        if self.missing.len() > NAMED {
            names.push_str(&format!(" and {} more", self.missing.len() - NAMED));
        }
        match self.connected {
            true => format!(
                "limit_req: not connected to {names}: what zones with sync admit here doesn't count there until it is connected \
                 again"
            ),
            false => format!(
                "limit_req: no other node is connected ({names}): zones with sync go on alone, with what this node knows"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// What is told when this has been so for two looks.
    fn told(apart: &mut Apart, missing: &[&str], connected: bool) -> Option<String> {
        assert_eq!(apart.look(set(missing), connected), None, "not at once");
        let said = apart.look(set(missing), connected);
        assert_eq!(apart.look(set(missing), connected), None, "and once");
        said.map(|(level, text)| format!("{level:?} {text}"))
    }

    #[test]
    fn who_is_missing_is_told_once_and_that_all_are_back() {
        let mut apart = Apart::default();
        assert!(told(&mut apart, &["a", "b"], false).expect("a line").starts_with("Warn limit_req: no other node"));
        assert_eq!(told(&mut apart, &["b"], true), None, "fewer");
        let all = Some(
            "Info limit_req: all other nodes are connected: zones with sync are shared with each that has them"
                .to_owned(),
        );
        assert_eq!(told(&mut apart, &[], true), all);
        assert!(told(&mut apart, &["a"], true).expect("a line").contains("not connected to a: "));
        let both = told(&mut apart, &["a", "b"], false).expect("a line");
        assert!(both.contains("(a, b)") && both.contains("go on alone"), "{both}");
        assert_eq!(told(&mut apart, &[], true), all);
        // Lost and back between two looks.
        assert_eq!(apart.look(set(&["a"]), true), None);
        assert_eq!(apart.look(set(&[]), true), None);
        assert_eq!(apart.look(set(&[]), true), None);
    }

    #[test]
    fn the_last_of_two_that_goes_leaves_a_node_alone() {
        let mut apart = Apart::default();
        assert!(told(&mut apart, &[], true).is_some());
        assert!(told(&mut apart, &["a"], true).is_some());
        // The name of another leads nowhere any more.
        assert!(told(&mut apart, &["a"], false).expect("a line").contains("go on alone"));
    }

    #[test]
    fn nobody_is_missed_where_there_is_nobody() {
        let mut apart = Apart::default();
        assert_eq!(told(&mut apart, &[], false), None);
    }

    #[test]
    fn a_line_names_some_and_counts_the_rest() {
        let names: Vec<String> = (10..30).map(|n| format!("n{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let line = told(&mut Apart::default(), &names, true).expect("a line");
        assert!(line.contains("n17 and 12 more: ") && !line.contains("n18"), "{line}");
    }
}
