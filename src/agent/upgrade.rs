//! Binary upgrades (USR2): for a while an old and a new nginx listen on the same addresses, each a node of its own.
//!
//! They must find each other, as what the old one has taken and not sent is nowhere else. A node that dials its own
//! address meets itself, and while an upgrade is under way, with some luck, the other one.
//!
//! The files by which nginx's masters tell it may be left of masters that were killed, and the numbers in them be others' by now.
//! So both must live, and the old one must have started the new one.

use super::sys::is_process;
use std::path::PathBuf;
use std::{fs, iter};

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
        let Some(old) = pid_in(&self.old) else { return Upgrade::None };
        if old != self.master {
            return if self.has_started(old, self.master) { Upgrade::New } else { Upgrade::None };
        }
        // A new binary that fails to start leaves no file of its own.
        match pid_in(&self.pid) {
            Some(new) if self.has_started(old, new) => Upgrade::Old,
            _ => Upgrade::None,
        }
    }

    /// Whether `old` and `new` are living masters, of which the first has started the second.
    fn has_started(&self, old: u32, new: u32) -> bool {
        if Process::of(self.master).is_none() {
            // The master lives: /proc doesn't tell of other users' processes, or isn't there.
            return is_process(old) && is_process(new);
        }
        let (Some(before), Some(after)) = (Process::of(old), Process::of(new)) else { return false };
        let above = |pid: &u32| Process::of(*pid).map(|process| process.parent);
        let mut starters = iter::successors(Some(after.parent), above).take(1 + BETWEEN);
        before.name == after.name && starters.any(|pid| pid == old)
    }
}

/// So many processes may stand between two masters: what starts nginx may be a script.
const BETWEEN: usize = 2;

/// A process that lives.
struct Process {
    name: String,
    parent: u32,
}

impl Process {
    /// What /proc tells of it: fields 2 to 4 of proc(5)'s stat.
    fn of(pid: u32) -> Option<Process> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        let stat = String::from_utf8_lossy(&stat);
        // The name, in parentheses, may hold anything.
        let (start, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_ascii_whitespace();
        let lives = !matches!(fields.next()?, "Z" | "X" | "x");
        let (name, parent) = (start.split_once('(')?.1.to_owned(), fields.next()?.parse().ok()?);
        lives.then_some(Process { name, parent })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    /// A process that has started another one of its name. Both end when its input does.
    fn masters() -> (Child, u32) {
        let script = "exec 3<&0; sh -c 'read x <&3; :' & echo $!; read x; wait";
        let mut old =
            Command::new("sh").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        BufReader::new(old.stdout.take().unwrap()).read_line(&mut said).unwrap();
        (old, said.trim().parse().unwrap())
    }

    #[test]
    fn the_files_tell_who_is_to_go_and_are_believed_of_living_masters_only() {
        let folder = std::env::temp_dir().join(format!("zonemesh-upgrade-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let files = |master| PidFiles { master, pid: folder.join("pid"), old: folder.join("pid.oldbin") };
        let write = |name: &str, pid: u32| fs::write(folder.join(name), format!("{pid}\n")).unwrap();
        let (mut process, new) = masters();
        let old = process.id();
        assert_eq!(files(old).look(), Upgrade::None);
        write("pid", old);
        assert_eq!(files(old).look(), Upgrade::None);
        fs::rename(folder.join("pid"), folder.join("pid.oldbin")).unwrap();
        assert_eq!(files(old).look(), Upgrade::None, "the new one hasn't started yet");
        write("pid", new);
        assert_eq!((files(old).look(), files(new).look()), (Upgrade::Old, Upgrade::New));
        // A file that is left of others: of this very number, of one that has started it and is no nginx, of nobody.
        write("pid", old);
        assert_eq!(files(old).look(), Upgrade::None);
        write("pid.oldbin", std::process::id());
        assert_eq!(files(old).look(), Upgrade::None);
        write("pid", new);
        write("pid.oldbin", 3_999_999_999);
        assert_eq!(files(new).look(), Upgrade::None);
        write("pid.oldbin", old);
        assert_eq!(files(new).look(), Upgrade::New);
        process.kill().unwrap();
        // Dying takes it a moment, and nobody has waited for it.
        let until = Instant::now() + Duration::from_secs(10);
        while files(new).look() != Upgrade::None {
            assert!(Instant::now() < until, "who was killed is no master");
        }
        drop(process.stdin.take());
        process.wait().unwrap();
        fs::remove_dir_all(folder).unwrap();
    }
}
