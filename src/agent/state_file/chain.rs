//! Finds the files of changes that belong to a state file, and which of their lines count.

use super::changes;
use super::read::{Item, ReadError, Reader};
use super::scan::damage;
use crate::record::Stamp;
use crate::store::Followed;
use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, Read, Seek, SeekFrom, Take};
use std::path::{Path, PathBuf};

/// What follows a state file.
pub struct Chain {
    /// The state file, with the stamp of its pairs that have none.
    pub followed: Followed,
    /// The zone's last emptying that it tells of.
    pub cleared: Stamp,
    links: Vec<Link>,
    /// For each key where the line stands that counts: which file, and where in it.
    last: HashMap<u128, (usize, u64)>,
    digest: Digest,
    counters: bool,
}

/// A file of changes that can't be read.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct ChainError {
    pub path: PathBuf,
    pub error: ReadError,
}

/// One file.
struct Link {
    number: u64,
    path: PathBuf,
    continues: Option<u64>,
    follows: Vec<Followed>,
    cleared: Stamp,
    /// For each key where its last line stands.
    lines: HashMap<u128, u64>,
    /// Bytes up to the end of the last whole line.
    whole: u64,
}

/// Stands for a key. Two keys meet by chance or malice only where somebody guesses 128 bits.
struct Digest(RandomState, RandomState);

impl Digest {
    fn of(&self, key: &[u8]) -> u128 {
        u128::from(self.0.hash_one(key)) << 64 | u128::from(self.1.hash_one(key))
    }
}

/// Reads the files of changes beside a state file, which is known by `found`. `None`: none belongs to it. And how many
/// belong to none that is there. `counters`: they are of a zone of counters.
///
/// # Errors
///
/// One is damaged elsewhere than in the last line.
pub fn read(target: &Path, found: &Followed, counters: bool) -> Result<(Option<Chain>, usize), ChainError> {
    let digest = Digest(RandomState::new(), RandomState::new());
    let listed = changes::list(target)
        .map_err(|error| ChainError { path: target.to_path_buf(), error: ReadError::Io(error) })?;
    let mut links = Vec::new();
    for (number, path) in listed {
        match Link::read(number, &path, &digest, counters) {
            // Its writer was killed before it could write the first line.
            Ok(link) if link.whole == 0 => {}
            Ok(link) => links.push(link),
            // Removed since it was listed, by who has written the state file anew; its reader looks for that.
            Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(ChainError { path, error }),
        }
    }
    let all = links.len();
    let Some((first, followed)) = first(&links, found) else { return Ok((None, all)) };
    let mut rest: Vec<Option<Link>> = links.into_iter().map(Some).collect();
    let mut links: Vec<Link> = rest.get_mut(first).and_then(Option::take).into_iter().collect();
    while let Some(number) = links.last().map(|link| link.number) {
        // If two go on from one, the first one's writer died before anybody relied on it.
        let next = rest.iter_mut().rev().find(|link| link.as_ref().is_some_and(|link| link.continues == Some(number)));
        match next.and_then(Option::take) {
            Some(next) => links.push(next),
            None => break,
        }
    }
    let mut chain = Chain { followed, cleared: Stamp::ZERO, links: Vec::new(), last: HashMap::new(), digest, counters };
    for (at, mut link) in links.into_iter().enumerate() {
        chain.cleared = chain.cleared.max(link.cleared);
        chain.last.extend(link.lines.drain().map(|(key, offset)| (key, (at, offset))));
        chain.links.push(link);
    }
    let left_out = all - chain.links.len();
    Ok((Some(chain), left_out))
}

/// With which file the changes of a state file begin.
fn first(links: &[Link], found: &Followed) -> Option<(usize, Followed)> {
    let same = |followed: &&Followed| (found.modified, found.bytes) == (followed.modified, followed.bytes);
    let follows = |at: usize| Some((at, *links.get(at)?.follows.iter().find(same)?));
    // If two were begun for it, the first one's writer died before anybody relied on it.
    let mut first = (0..links.len()).rev().find_map(follows)?;
    // But if a clock is so coarse that two state files look alike, the earlier one's changes are needed: it may be that one.
    let mut at = first.0;
    while let Some(continues) = links.get(at).and_then(|link| link.continues) {
        match links.iter().position(|link| link.number == continues).filter(|before| *before < at) {
            Some(before) => at = before,
            None => break,
        }
        first = follows(at).unwrap_or(first);
    }
    Some(first)
}

impl Chain {
    /// Whether a line tells of this key, whatever the state file says.
    pub fn knows(&self, key: &[u8]) -> bool {
        self.last.contains_key(&self.digest.of(key))
    }

    /// Whether this line of a file is the one that counts for its key.
    pub fn counts(&self, file: usize, key: &[u8], offset: u64) -> bool {
        self.last.get(&self.digest.of(key)) == Some(&(file, offset))
    }

    /// The files, first to last.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.links.iter().map(|link| &*link.path)
    }

    /// Opens one of them.
    pub fn open(&self, file: usize) -> io::Result<Reader<Take<File>>> {
        let link = self.links.get(file).ok_or(io::ErrorKind::NotFound)?;
        Ok(Reader::of_changes(File::open(&link.path)?.take(link.whole)).with(self.counters))
    }

    /// The number of the last file.
    pub fn last_number(&self) -> u64 {
        self.links.last().map_or(0, |link| link.number)
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.links.iter().map(|link| link.whole).sum()
    }
}

impl Link {
    fn read(number: u64, path: &Path, digest: &Digest, counters: bool) -> Result<Link, ReadError> {
        let mut file = File::open(path)?;
        let whole = whole_lines(&mut file)?;
        file.rewind()?;
        let mut link = Link {
            number,
            path: path.to_path_buf(),
            continues: None,
            follows: Vec::new(),
            cleared: Stamp::ZERO,
            lines: HashMap::new(),
            whole,
        };
        let mut reader = Reader::of_changes(file.take(whole)).with(counters);
        let mut first = true;
        while let Some(item) = reader.item()? {
            match item {
                Item::About(about) if first => {
                    match about.changes {
                        Some(same) if same == number => {}
                        Some(_) => {
                            return damage(about.offset, "the number of the file isn't the one that its name has");
                        }
                        None => return damage(about.offset, "the first line has to tell the file's number"),
                    }
                    link.continues = about.continues;
                    first = false;
                }
                Item::About(about) => {
                    if about.changes.is_some() || about.continues.is_some() {
                        return damage(about.offset, "this belongs to the first line");
                    }
                    link.follows.extend(about.follows);
                    link.cleared = link.cleared.max(about.cleared.unwrap_or_default());
                }
                Item::Pair(pair) if first => {
                    return damage(pair.offset, "the first line has to tell the file's number");
                }
                Item::Pair(pair) => drop(link.lines.insert(digest.of(&pair.key), pair.offset)),
            }
        }
        if first && whole > 0 {
            return damage(0, "the first line has to tell the file's number");
        }
        Ok(link)
    }
}

/// Where the last whole line ends. What comes behind it was being written when its writer was killed.
fn whole_lines(file: &mut File) -> io::Result<u64> {
    let mut end = file.seek(SeekFrom::End(0))?;
    let mut piece = [0; 4096];
    while end > 0 {
        let len = end.min(piece.len() as u64);
        let Some(piece) = piece.get_mut(..len as usize) else { break };
        file.seek(SeekFrom::Start(end - len))?;
        file.read_exact(piece)?;
        if let Some(at) = piece.iter().rposition(|byte| *byte == b'\n') {
            return Ok(end - len + at as u64 + 1);
        }
        end -= len;
    }
    Ok(0)
}
