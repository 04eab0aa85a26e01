//! Source lines of one unit.

use gimli::{AttributeValue, Dwarf};

use super::debug_file::Slice;
use crate::source::note_digest;

/// The line table of one unit, sorted for lookups.
#[derive(Debug)]
pub(crate) struct Lines {
    files: Vec<Option<String>>,
    /// The files' digests, where the table has them.
    digests: Vec<Option<[u8; 16]>>,
    sequences: Vec<Sequence>,
}

#[derive(Debug)]
struct Sequence {
    start: u64,
    end: u64,
    rows: Vec<Row>,
}

/// One row: what begins at an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    address: u64,
    /// An index for [`Lines::file`].
    pub(crate) file: u64,
    /// 0 for code that belongs to no line.
    pub(crate) line: u32,
    /// 0 for the left edge.
    pub(crate) column: u32,
}

impl Lines {
    pub(crate) fn read(dwarf: &Dwarf<Slice>, unit: &gimli::Unit<Slice>) -> Option<Lines> {
        let mut rows = unit.line_program.clone()?.rows();
        let mut sequences = Vec::new();
        let mut sequence: Vec<Row> = Vec::new();
        while let Ok(Some((_, row))) = rows.next_row() {
            if row.end_sequence() {
                let start = sequence.first().map_or(0, |row| row.address);
                // Zero is where the linker leaves functions that it dropped.
                if start != 0 {
                    let rows = std::mem::take(&mut sequence);
                    sequences.push(Sequence {
                        start,
                        end: row.address(),
                        rows,
                    });
                }
                sequence.clear();
                continue;
            }
            let row = Row {
                address: row.address(),
                file: row.file_index(),
                line: row
                    .line()
                    .map_or(0, |line| u32::try_from(line.get()).unwrap_or(0)),
                column: match row.column() {
                    gimli::ColumnType::LeftEdge => 0,
                    gimli::ColumnType::Column(column) => u32::try_from(column.get()).unwrap_or(0),
                },
            };
            match sequence.last_mut() {
                Some(last) if last.address == row.address => *last = row,
                _ => sequence.push(row),
            }
        }
        sequences.sort_by_key(|sequence| sequence.start);
        Some(Lines {
            files: read_files(dwarf, unit)?,
            digests: read_digests(unit),
            sequences,
        })
    }

    /// The row that covers an address of the file.
    pub(crate) fn at(&self, address: u64) -> Option<Row> {
        let after = self
            .sequences
            .partition_point(|sequence| sequence.start <= address);
        let sequence = self.sequences.get(after.checked_sub(1)?)?;
        if address >= sequence.end {
            return None;
        }
        let after = sequence.rows.partition_point(|row| row.address <= address);
        sequence.rows.get(after.checked_sub(1)?).copied()
    }

    /// The path of a file of the table.
    pub(crate) fn file(&self, index: u64) -> Option<&str> {
        let index = usize::try_from(index).ok()?;
        let path = self.files.get(index)?.as_deref()?;
        if let Some(digest) = self.digests.get(index).copied().flatten() {
            note_digest(path, digest);
        }
        Some(path)
    }
}

/// Only version 5 has digests, and counts files from 0.
fn read_digests(unit: &gimli::Unit<Slice>) -> Vec<Option<[u8; 16]>> {
    let header = unit.line_program.as_ref().map(|program| program.header());
    let Some(header) = header.filter(|header| header.file_has_md5()) else {
        return Vec::new();
    };
    let known = header.file_names().iter().map(|file| Some(*file.md5()));
    known.collect()
}

fn read_files(dwarf: &Dwarf<Slice>, unit: &gimli::Unit<Slice>) -> Option<Vec<Option<String>>> {
    let header = unit.line_program.as_ref()?.header();
    let text = |value: AttributeValue<Slice>| {
        let slice = dwarf.attr_string(unit, value).ok()?;
        Some(String::from_utf8_lossy(slice.slice()).into_owned())
    };
    let comp_dir = unit
        .comp_dir
        .map(|dir| String::from_utf8_lossy(dir.slice()).into_owned());
    let path = |file: &gimli::FileEntry<Slice>| {
        let mut path = comp_dir.clone().unwrap_or_default();
        // Directory 0 is the compilation directory itself, which version 4 does not list.
        if (header.version() >= 5 || file.directory_index() != 0)
            && let Some(dir) = file.directory(header).and_then(text)
        {
            push(&mut path, &dir);
        }
        push(&mut path, &text(file.path_name())?);
        Some(path)
    };
    // Version 4 counts files from 1, version 5 from 0.
    let before = if header.version() >= 5 {
        None
    } else {
        Some(None)
    };
    Some(
        before
            .into_iter()
            .chain(header.file_names().iter().map(path))
            .collect(),
    )
}

fn push(path: &mut String, part: &str) {
    if part.starts_with('/') {
        path.clear();
    } else if !path.is_empty() && !path.ends_with('/') {
        path.push('/');
    }
    path.push_str(part);
}
