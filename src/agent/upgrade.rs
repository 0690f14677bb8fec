//! Binary upgrades (USR2): for a while an old and a new nginx listen on the same addresses, each a node of its own.
//!
//! They must find each other, as what the old one has taken and not sent is nowhere else. A node that dials its own
//! address meets itself, and while an upgrade is under way, with some luck, the other one.

use std::fs;
use std::path::PathBuf;

/// The files by which nginx's masters tell what they are doing.
#[derive(Clone, Debug)]
pub struct PidFiles {
    /// The master's process.
    pub master: u32,
    /// `pid`: the master that is to stay.
    pub pid: PathBuf,
    /// `pid` with `.oldbin`: there during an upgrade, the master that is to go.
    pub old: PathBuf,
}

/// This node's part in an upgrade.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Upgrade {
    /// There is none.
    #[default]
    None,
    /// Another master is to go.
    New,
    /// This node's master is to go; the other one has started.
    Old,
}

impl PidFiles {
    /// How things stand.
    pub fn look(&self) -> Upgrade {
        let pid_in = |path| fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u32>().ok());
        match pid_in(&self.old) {
            None => Upgrade::None,
            Some(old) if old != self.master => Upgrade::New,
            // A new binary that fails to start leaves no file of its own.
            Some(_) if pid_in(&self.pid).is_some() => Upgrade::Old,
            Some(_) => Upgrade::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_tell_who_is_to_go() {
        let folder = std::env::temp_dir().join(format!("zonemesh-upgrade-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let files = |master| PidFiles { master, pid: folder.join("pid"), old: folder.join("pid.oldbin") };
        assert_eq!(files(10).look(), Upgrade::None);
        fs::write(folder.join("pid"), "10\n").unwrap();
        assert_eq!(files(10).look(), Upgrade::None);
        fs::rename(folder.join("pid"), folder.join("pid.oldbin")).unwrap();
        assert_eq!(files(10).look(), Upgrade::None, "the new one hasn't started yet");
        fs::write(folder.join("pid"), "11\n").unwrap();
        assert_eq!((files(10).look(), files(11).look()), (Upgrade::Old, Upgrade::New));
        fs::remove_file(folder.join("pid.oldbin")).unwrap();
        assert_eq!(files(11).look(), Upgrade::None);
        fs::remove_dir_all(folder).unwrap();
    }
}
