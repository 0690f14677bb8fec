//! What is wrong with a configuration, and where.

use std::fmt;

/// Where a directive stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// File.
    pub file: String,
    /// Line, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Why a configuration is refused: names the directive, what was wrong, and the remedy.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What to tell.
    pub text: String,
    /// Where; `None`: at the directive that is being read.
    pub place: Option<Place>,
}

impl Fault {
    /// At the directive that is being read.
    pub fn new(text: impl Into<String>) -> Fault {
        Fault { text: text.into(), place: None }
    }

    /// At a directive that was read before.
    pub fn at(place: &Place, text: impl Into<String>) -> Fault {
        Fault { text: text.into(), place: Some(place.clone()) }
    }

    /// A feature that is known, and not there yet.
    pub fn unsupported(what: impl fmt::Display, remedy: &str) -> Fault {
        Fault::new(format!("{what} is not supported by this version of zonemesh: {remedy}"))
    }
}

impl From<String> for Fault {
    fn from(text: String) -> Fault {
        Fault::new(text)
    }
}
