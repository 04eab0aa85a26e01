//! What a crash left in the write-ahead log.
//!
//! SQLite takes every complete commit out of the log and drops the rest without a word.
//! The rest is either a commit that was under way, which nobody was told of, or damage, which
//! people must hear of. Format: <https://www.sqlite.org/walformat.html>.

use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::Path;

use super::error::Error;

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;

/// What was found; both counts are 0 where all is well.
#[derive(Debug, Default, PartialEq, Eq)]
struct Remains {
    /// Frames after the last complete commit.
    dropped: u64,
    /// Commits among them, which can only be there if something before them is damaged.
    commits_lost: u64,
}

/// Reads the log of a store that nobody has open; returns what to tell people.
///
/// A damaged log is kept under another name, because SQLite will overwrite it.
pub(super) fn inspect(database: &Path) -> Result<Option<String>, Error> {
    let path = database.with_extension("db-wal");
    let Ok(file) = File::open(&path) else {
        return Ok(None);
    };
    let remains = read(BufReader::with_capacity(1 << 20, file));
    if remains.commits_lost > 0 {
        let kept = database.with_extension("db-wal.damaged");
        fs::copy(&path, &kept)
            .map_err(|error| Error::io(format!("cannot write {}", kept.display()), error))?;
        return Ok(Some(format!(
            "the write-ahead log is damaged: up to {} commits are lost; it is kept as {}; run `backstop check`",
            remains.commits_lost,
            kept.display()
        )));
    }
    Ok((remains.dropped > 0).then(|| {
        format!(
            "dropped {} pages of a commit that was under way when the server ended; it was never acknowledged",
            remains.dropped
        )
    }))
}

/// A file that cannot be read further counts as ending there, as for SQLite.
fn read(mut log: impl Read) -> Remains {
    let mut remains = Remains::default();
    let mut header = [0; HEADER_BYTES];
    if log.read_exact(&mut header).is_err() {
        return remains;
    }
    let big_endian = word(&header, 0) & 1 == 1;
    let page_bytes = word(&header, 8) as usize;
    if !(512..=65536).contains(&page_bytes) || word(&header, 0) >> 1 != 0x377f_0682 >> 1 {
        return remains;
    }
    let salts = (word(&header, 16), word(&header, 20));
    let mut sum = checksum((0, 0), &header[..24], big_endian);
    let mut sound = sum == (word(&header, 24), word(&header, 28));
    let mut frame = vec![0; FRAME_HEADER_BYTES + page_bytes];
    while log.read_exact(&mut frame).is_ok() {
        // A frame with other salts is left from before the log began anew.
        if (word(&frame, 8), word(&frame, 12)) != salts {
            break;
        }
        let is_commit = word(&frame, 4) != 0;
        if sound {
            sum = checksum(sum, &frame[..8], big_endian);
            sum = checksum(sum, &frame[FRAME_HEADER_BYTES..], big_endian);
            sound = sum == (word(&frame, 16), word(&frame, 20));
        }
        remains.dropped += 1;
        if sound && is_commit {
            remains = Remains::default();
        } else if !sound && is_commit {
            remains.commits_lost += 1;
        }
    }
    remains
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_be_bytes(word)
}

/// The checksum of the format, section 4.2, over a multiple of eight bytes.
fn checksum(before: (u32, u32), bytes: &[u8], big_endian: bool) -> (u32, u32) {
    let (mut first, mut second) = before;
    for pair in bytes.chunks_exact(8) {
        let number = |at: usize| {
            let mut word = [0; 4];
            word.copy_from_slice(&pair[at..at + 4]);
            if big_endian {
                u32::from_be_bytes(word)
            } else {
                u32::from_le_bytes(word)
            }
        };
        first = first.wrapping_add(number(0)).wrapping_add(second);
        second = second.wrapping_add(number(4)).wrapping_add(first);
    }
    (first, second)
}
