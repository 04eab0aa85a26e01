//! A disk in memory that fails: an SQLite file layer for tests.
//!
//! [`Disk`] registers itself as an SQLite VFS. What is written is seen at once and survives a
//! power cut only once it was synced; of what was not synced a cut keeps any part, in any order,
//! torn at sectors of 512 bytes. A sync that fails drops what it should have written, as Linux
//! does. Reads, writes and syncs fail with `EIO` or `ENOSPC` when asked to.
//! Everything that is left to chance comes from one seed, so that a run can be replayed.
//!
//! Specification of the layer: <https://www.sqlite.org/vfs.html>.

mod layer;
mod random;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use random::Random;

/// A cut leaves a sector as it was or as it was to be.
const SECTOR: usize = 512;

/// Regions of the shared memory of a write-ahead log.
const REGION_BYTES: usize = 32 * 1024;

/// Locks of the shared memory of a write-ahead log.
const SHM_LOCKS: usize = 8;

/// A disk in memory, registered as an SQLite VFS.
///
/// Drop every connection before the disk.
#[derive(Debug)]
pub struct Disk {
    state: Arc<Mutex<State>>,
    registration: layer::Registration,
}

/// How often operations fail, in parts of 10,000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// Reads that fail with `EIO`.
    pub read: u32,
    /// Writes that fail with `EIO`.
    pub write: u32,
    /// Writes that fail with `ENOSPC`.
    pub full: u32,
    /// Syncs that fail with `EIO`.
    pub sync: u32,
}

/// What an operation did instead of its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Read,
    Write,
    Full,
    Sync,
    PowerIsOff,
}

#[derive(Debug)]
pub(crate) struct State {
    random: Random,
    files: BTreeMap<String, File>,
    faults: Faults,
    /// Writes, syncs and the like until the power goes.
    power_for: Option<u64>,
    /// Counts power cuts; a file that was opened before one is dead.
    epoch: u64,
    power: bool,
    operations: u64,
    /// Dead connections still point into the memory that they shared.
    graveyard: Vec<Shm>,
}

#[derive(Debug, Default)]
struct File {
    current: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
    /// The directory entry survives a power cut.
    entry_durable: bool,
    lock: Locks,
    shm: Shm,
}

/// A change that was not synced.
#[derive(Debug, Clone)]
enum Change {
    Write { at: usize, bytes: Vec<u8> },
    Truncate { len: usize },
}

/// The locks of the main file: how many hold SHARED, and whether somebody holds more.
#[derive(Debug, Default)]
struct Locks {
    shared: u32,
    reserved: bool,
    pending: bool,
    exclusive: bool,
}

/// Memory that connections share beside a write-ahead log; lost with the power.
#[derive(Debug, Default)]
struct Shm {
    regions: Vec<Box<[u64; REGION_BYTES / 8]>>,
    shared: [u32; SHM_LOCKS],
    exclusive: [bool; SHM_LOCKS],
}

impl Disk {
    /// Makes an empty disk and registers it.
    pub fn new(seed: u64) -> Disk {
        let state = Arc::new(Mutex::new(State {
            random: Random::new(seed),
            files: BTreeMap::new(),
            faults: Faults::default(),
            power_for: None,
            epoch: 0,
            power: true,
            operations: 0,
            graveyard: Vec::new(),
        }));
        Disk {
            registration: layer::Registration::new(Arc::clone(&state)),
            state,
        }
    }

    /// Returns the name under which SQLite knows the disk.
    pub fn vfs(&self) -> &str {
        self.registration.name()
    }

    /// Lets operations fail from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// Lets the power go after so many more writes, truncations, syncs and deletions.
    pub fn cut_power_after(&self, operations: u64) {
        self.lock().power_for = Some(operations);
    }

    /// Says whether the power is still on.
    pub fn has_power(&self) -> bool {
        self.lock().power
    }

    /// Returns how many operations that change something there were so far.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Cuts the power if it was not cut, decides what survived, and switches it on again.
    ///
    /// Files that were open are dead: every use of them is an error.
    pub fn restart(&self) {
        let mut state = self.lock();
        state.epoch += 1;
        state.power = true;
        state.power_for = None;
        state.faults = Faults::default();
        let State {
            files,
            random,
            graveyard,
            ..
        } = &mut *state;
        for file in files.values_mut() {
            graveyard.push(std::mem::take(&mut file.shm));
        }
        files.retain(|_, file| file.survive(random));
    }

    /// Changes bytes of a file, as a dying disk does; returns whether the file is that long.
    pub fn corrupt(&self, name_ends_with: &str, at: usize, bytes: &[u8]) -> bool {
        let mut state = self.lock();
        let Some((_, file)) = state
            .files
            .iter_mut()
            .find(|(name, _)| name.ends_with(name_ends_with))
        else {
            return false;
        };
        for content in [&mut file.current, &mut file.durable] {
            let Some(place) = content.get_mut(at..at + bytes.len()) else {
                return false;
            };
            place.copy_from_slice(bytes);
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Counts an operation that changes something; says whether it fails.
    fn change(&mut self, epoch: u64) -> Result<(), Fault> {
        self.alive(epoch)?;
        self.operations += 1;
        match &mut self.power_for {
            Some(0) => {
                self.power = false;
                Err(Fault::PowerIsOff)
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn alive(&self, epoch: u64) -> Result<(), Fault> {
        match self.power && self.epoch == epoch {
            true => Ok(()),
            false => Err(Fault::PowerIsOff),
        }
    }

    fn chance(&mut self, parts: u32, fault: Fault) -> Result<(), Fault> {
        match parts > 0 && self.random.below(10_000) < u64::from(parts) {
            true => Err(fault),
            false => Ok(()),
        }
    }

    fn read(&mut self, name: &str, epoch: u64, at: usize, into: &mut [u8]) -> Result<usize, Fault> {
        self.alive(epoch)?;
        self.chance(self.faults.read, Fault::Read)?;
        let content = self.files.get(name).map_or(&[][..], |file| &file.current);
        let from = content.get(at..).unwrap_or_default();
        let len = from.len().min(into.len());
        into[..len].copy_from_slice(&from[..len]);
        into[len..].fill(0);
        Ok(len)
    }

    fn write(&mut self, name: &str, epoch: u64, at: usize, bytes: &[u8]) -> Result<(), Fault> {
        self.change(epoch)?;
        self.chance(self.faults.write, Fault::Write)?;
        self.chance(self.faults.full, Fault::Full)?;
        let change = Change::Write {
            at,
            bytes: bytes.to_vec(),
        };
        let file = self.files.entry(name.to_owned()).or_default();
        change.apply(&mut file.current);
        file.pending.push(change);
        Ok(())
    }

    fn truncate(&mut self, name: &str, epoch: u64, len: usize) -> Result<(), Fault> {
        self.change(epoch)?;
        self.chance(self.faults.write, Fault::Write)?;
        let change = Change::Truncate { len };
        let file = self.files.entry(name.to_owned()).or_default();
        change.apply(&mut file.current);
        file.pending.push(change);
        Ok(())
    }

    fn sync(&mut self, name: &str, epoch: u64) -> Result<(), Fault> {
        self.change(epoch)?;
        let failed = self.chance(self.faults.sync, Fault::Sync);
        let State { files, random, .. } = self;
        let file = files.entry(name.to_owned()).or_default();
        if failed.is_err() {
            // The pages count as written from now on, although only some of them were.
            file.keep_some(random);
            return failed;
        }
        for change in file.pending.drain(..) {
            change.apply(&mut file.durable);
        }
        file.entry_durable = true;
        Ok(())
    }

    fn delete(&mut self, name: &str, epoch: u64) -> Result<bool, Fault> {
        self.change(epoch)?;
        Ok(self.files.remove(name).is_some())
    }
}

impl File {
    /// Becomes what a power cut leaves; says whether it is there at all.
    fn survive(&mut self, random: &mut Random) -> bool {
        let is_there = self.entry_durable || random.below(2) == 0;
        self.keep_some(random);
        self.current.clone_from(&self.durable);
        self.entry_durable = true;
        self.lock = Locks::default();
        is_there
    }

    /// Makes any part of the pending changes durable, in any order, and forgets the rest.
    fn keep_some(&mut self, random: &mut Random) {
        let mut pending = std::mem::take(&mut self.pending);
        // Half of the time in order, because order makes worse states than chaos does.
        if random.below(2) == 0 {
            random.shuffle(&mut pending);
        }
        let kept_of_ten = random.below(11);
        for change in pending {
            if random.below(10) < kept_of_ten {
                change.apply(&mut self.durable);
            } else if random.below(2) == 0 {
                change.apply_torn(&mut self.durable, random);
            }
        }
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::Write { at, bytes } => put(content, *at, bytes),
            Change::Truncate { len } => content.truncate(*len),
        }
    }

    /// Applies some of the sectors of a write.
    fn apply_torn(&self, content: &mut Vec<u8>, random: &mut Random) {
        let Change::Write { at, bytes } = self else {
            return;
        };
        let mut start = *at;
        let end = at + bytes.len();
        while start < end {
            let sector_end = ((start / SECTOR + 1) * SECTOR).min(end);
            if random.below(2) == 0 {
                put(content, start, &bytes[start - at..sector_end - at]);
            }
            start = sector_end;
        }
    }
}

fn put(content: &mut Vec<u8>, at: usize, bytes: &[u8]) {
    if content.len() < at + bytes.len() {
        content.resize(at + bytes.len(), 0);
    }
    content[at..at + bytes.len()].copy_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use rusqlite::{Connection, OpenFlags};

    use super::*;

    fn open(disk: &Disk) -> Connection {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let connection =
            Connection::open_with_flags_and_vfs("/sim/x.db", flags, disk.vfs()).unwrap();
        connection
            .pragma_update(None, "journal_mode", "wal")
            .unwrap();
        connection
            .pragma_update(None, "synchronous", "full")
            .unwrap();
        connection
    }

    fn count(connection: &Connection) -> rusqlite::Result<i64> {
        connection.query_row("SELECT count(*) FROM t", [], |row| row.get(0))
    }

    #[test]
    fn what_was_committed_survives_and_connections_see_each_other() {
        let disk = Disk::new(1);
        let writer = open(&disk);
        writer
            .execute_batch("CREATE TABLE t (x); INSERT INTO t VALUES (1)")
            .unwrap();
        let reader = open(&disk);
        assert_eq!(count(&reader).unwrap(), 1);
        writer.execute_batch("INSERT INTO t VALUES (2)").unwrap();
        assert_eq!(count(&reader).unwrap(), 2);
        disk.restart();
        assert!(count(&reader).is_err());
        drop((writer, reader));
        assert_eq!(count(&open(&disk)).unwrap(), 2);
    }

    #[test]
    fn without_syncs_a_power_cut_loses_commits() {
        let lost = (0..20).filter(|seed| {
            let disk = Disk::new(*seed);
            let writer = open(&disk);
            writer.execute_batch("CREATE TABLE t (x)").unwrap();
            writer.pragma_update(None, "synchronous", "off").unwrap();
            for _ in 0..20 {
                writer
                    .execute_batch("INSERT INTO t VALUES (randomblob(3000))")
                    .unwrap();
            }
            disk.restart();
            drop(writer);
            count(&open(&disk)).unwrap_or(0) < 20
        });
        assert!(lost.count() > 10, "the disk must be able to lose something");
    }

    #[test]
    fn faults_are_errors_and_pass() {
        let disk = Disk::new(3);
        let writer = open(&disk);
        writer.execute_batch("CREATE TABLE t (x)").unwrap();
        for faults in [
            Faults {
                full: 10_000,
                ..Faults::default()
            },
            Faults {
                sync: 10_000,
                ..Faults::default()
            },
            Faults {
                write: 10_000,
                ..Faults::default()
            },
        ] {
            disk.set_faults(faults);
            writer
                .execute_batch("INSERT INTO t VALUES (1)")
                .unwrap_err();
        }
        disk.set_faults(Faults::default());
        writer.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        assert_eq!(count(&writer).unwrap(), 1);
    }
}
