//! Debug information of one module, wherever it lies.
//!
//! Looked for in this order: the file itself; the file named by its `.gnu_debuglink`
//! beside it, in `.debug` beside it and below `/usr/lib/debug`; the build-id directories of
//! the user and there (for libraries, names only); a `.dwp` package beside the file for units that are split off.

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use gimli::{Dwarf, DwarfPackage, EndianSlice, LittleEndian, SectionId};
use object::elf::FileHeader64;
use object::read::elf::ElfFile;
use object::{Object, ObjectSection, ObjectSymbol};

use super::address_map::AddressMap;
use super::lazy::Lazy;
use super::unit::Unit;
use crate::directories;

pub(crate) type Slice = EndianSlice<'static, LittleEndian>;
pub(super) type Elf = ElfFile<'static, FileHeader64<object::LittleEndian>>;

/// Where distributions put separate debug files.
const GLOBAL_DEBUG_DIR: &str = "/usr/lib/debug";
/// Names of a debug link that are accepted; longer ones are no file names.
const LINK_NAME_BYTES_MAX: usize = 255;
/// A section that claims to grow beyond this when unpacked is not unpacked.
const SECTION_BYTES_MAX: u64 = 4 << 30;

/// The debug information of one module.
#[derive(Debug)]
pub(crate) struct DebugFile {
    dwarf: Dwarf<Slice>,
    package: Option<DwarfPackage<Slice>>,
    /// Address ranges and the offset of their unit, sorted by start.
    aranges: Vec<Arange>,
    /// Offsets of units that `aranges` covers.
    covered: Vec<usize>,
    /// Ranges of units that `.debug_aranges` does not mention; found when first needed.
    uncovered: Lazy<Vec<Arange>>,
    unit_offsets: Lazy<Vec<usize>>,
    units: Mutex<AddressMap<usize, Option<&'static Unit>>>,
    symbols: Lazy<Vec<Symbol>>,
    symbol_file: Option<Elf>,
    /// Where the debug information was found, for the doctor.
    pub(crate) found: Found,
}

/// Where debug information was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// In the program's own file.
    Inside,
    /// In a file of its own.
    Separate(PathBuf),
    /// Nowhere: symbols at most.
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Arange {
    start: u64,
    end: u64,
    unit: usize,
}

/// A function of the symbol table.
#[derive(Debug, Clone, Copy)]
struct Symbol {
    start: u64,
    end: u64,
    name: &'static str,
}

impl DebugFile {
    /// Opens the debug information of the object file at `path`, which was loaded with a build id.
    ///
    /// Of a library for which a distribution has a debug file the symbols are enough: nobody
    /// asks for the lines of the C library, and unpacking them takes 10 MB and 15 ms.
    pub(crate) fn open(path: &Path, id: Option<&[u8]>, is_library: bool) -> Option<DebugFile> {
        let own = open_elf(path)?;
        // The file may have been replaced since it was loaded.
        if id.is_some() && own.build_id().ok().flatten() != id {
            return None;
        }
        let separate = if has_dwarf(&own) {
            None
        } else {
            separate_file(path, &own)
        };
        let found = match &separate {
            Some((found, _)) => Found::Separate(found.clone()),
            None if has_dwarf(&own) => Found::Inside,
            None => Found::Nothing,
        };
        let (debug_path, elf) = separate.unwrap_or_else(|| (path.to_owned(), own));
        let symbols_only = |debug| is_library && is_distributed(debug);
        if matches!(&found, Found::Separate(debug) if symbols_only(debug)) {
            let dwarf = Dwarf::load(|_| Ok::<_, gimli::Error>(empty())).ok()?;
            return Some(DebugFile::new(dwarf, None, Some(elf), Found::Nothing));
        }
        let load = |id: SectionId| Ok::<_, gimli::Error>(section(&elf, id.name()));
        let mut dwarf = Dwarf::load(load).ok()?;
        dwarf.file_type = gimli::DwarfFileType::Main;
        let package = package_of(&debug_path).or_else(|| package_of(path));
        Some(DebugFile::new(dwarf, package, Some(elf), found))
    }

    pub(super) fn new(
        dwarf: Dwarf<Slice>,
        package: Option<DwarfPackage<Slice>>,
        symbol_file: Option<Elf>,
        found: Found,
    ) -> DebugFile {
        let (aranges, covered) = read_aranges(&dwarf);
        DebugFile {
            dwarf,
            package,
            aranges,
            covered,
            uncovered: Lazy::new(),
            unit_offsets: Lazy::new(),
            units: Mutex::default(),
            symbols: Lazy::new(),
            symbol_file,
            found,
        }
    }

    /// The unit that holds the code or data at an address of the file.
    pub(crate) fn unit_at(&'static self, address: u64) -> Option<&'static Unit> {
        let offset = find(&self.aranges, address)
            .or_else(|| find(self.uncovered.get(|| self.find_uncovered()), address))?;
        self.unit(offset)
    }

    /// The unit whose header lies at an offset of `.debug_info`.
    pub(crate) fn unit(&'static self, offset: usize) -> Option<&'static Unit> {
        let known = self.lock_units().get(&offset).copied();
        known.unwrap_or_else(|| {
            let unit = Unit::open(self, &self.dwarf, self.package.as_ref(), offset)
                .map(|unit| &*Box::leak(Box::new(unit)));
            // Two threads may have made it; the first one stays.
            *self.lock_units().entry(offset).or_insert(unit)
        })
    }

    fn lock_units(&self) -> std::sync::MutexGuard<'_, AddressMap<usize, Option<&'static Unit>>> {
        self.units.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The unit that holds a DIE at an offset of `.debug_info`, for references across units.
    pub(crate) fn unit_around(&'static self, die: usize) -> Option<&'static Unit> {
        let offsets = self.unit_offsets();
        let after = offsets.partition_point(|offset| *offset <= die);
        self.unit(*offsets.get(after.checked_sub(1)?)?)
    }

    /// The name in the symbol table of the function at an address of the file.
    pub(crate) fn symbol_at(&self, address: u64) -> Option<&'static str> {
        let symbols = self.symbols.get(|| {
            self.symbol_file
                .as_ref()
                .map(read_symbols)
                .unwrap_or_default()
        });
        let after = symbols.partition_point(|symbol| symbol.start <= address);
        let symbol = symbols.get(after.checked_sub(1)?)?;
        (address < symbol.end).then_some(symbol.name)
    }

    /// Whether there is any function in the symbol table.
    pub(crate) fn symbol_at_any(&self) -> bool {
        self.symbol_at(0);
        self.symbols
            .peek()
            .is_some_and(|symbols| !symbols.is_empty())
    }

    /// Looks for a unit of the user's code that has variables; else says whether a package is missing.
    pub(crate) fn best_unit(&'static self) -> (bool, bool) {
        let mut package_missing = false;
        for offset in self.unit_offsets() {
            let Some(unit) = self.unit(*offset) else {
                continue;
            };
            if unit.is_foreign() {
                continue;
            }
            package_missing |= unit.package_missing;
            if unit.has_variables() {
                return (true, false);
            }
        }
        (false, package_missing)
    }

    /// Reads the symbols and the functions of the user's own units.
    pub(crate) fn warm_up(&'static self) {
        self.symbol_at(0);
        for offset in self.unit_offsets() {
            let own = self.unit(*offset).filter(|unit| !unit.is_foreign());
            if let Some(unit) = own {
                unit.has_variables();
                unit.lines();
            }
        }
    }

    pub(super) fn unit_offsets(&self) -> &[usize] {
        self.unit_offsets.get(|| {
            self.dwarf
                .units()
                .map_while(Result::ok)
                .filter_map(|header| Some(header.debug_info_offset()?.0))
                .collect()
        })
    }

    fn find_uncovered(&self) -> Vec<Arange> {
        let mut ranges = Vec::new();
        for header in self.dwarf.units().map_while(Result::ok) {
            let Some(offset) = header.debug_info_offset() else {
                continue;
            };
            if self.covered.binary_search(&offset.0).is_ok() {
                continue;
            }
            let Ok(unit) = self.dwarf.unit(header) else {
                continue;
            };
            let Ok(mut unit_ranges) = self.dwarf.unit_ranges(&unit) else {
                continue;
            };
            while let Ok(Some(range)) = unit_ranges.next() {
                ranges.push(Arange {
                    start: range.begin,
                    end: range.end,
                    unit: offset.0,
                });
            }
        }
        ranges.sort_unstable();
        ranges
    }
}

fn find(aranges: &[Arange], address: u64) -> Option<usize> {
    let after = aranges.partition_point(|range| range.start <= address);
    let range = aranges.get(after.checked_sub(1)?)?;
    (address < range.end).then_some(range.unit)
}

fn read_aranges(dwarf: &Dwarf<Slice>) -> (Vec<Arange>, Vec<usize>) {
    let (mut ranges, mut covered) = (Vec::new(), Vec::new());
    for header in dwarf.debug_aranges.headers().map_while(Result::ok) {
        let unit = header.debug_info_offset().0;
        covered.push(unit);
        for entry in header.entries().map_while(Result::ok) {
            let (start, len) = (entry.address(), entry.length());
            // Zero is where the linker leaves functions that it dropped.
            if start != 0 && len != 0 {
                ranges.push(Arange {
                    start,
                    end: start.saturating_add(len),
                    unit,
                });
            }
        }
    }
    ranges.sort_unstable();
    covered.sort_unstable();
    (ranges, covered)
}

fn read_symbols(elf: &Elf) -> Vec<Symbol> {
    let mut symbols: Vec<Symbol> = elf
        .symbols()
        .chain(elf.dynamic_symbols())
        .filter(|symbol| symbol.is_definition() && symbol.kind() == object::SymbolKind::Text)
        .filter_map(|symbol| {
            let start = symbol.address();
            Some(Symbol {
                start,
                end: start.saturating_add(symbol.size()),
                name: symbol.name().ok()?,
            })
        })
        .collect();
    symbols.sort_by_key(|symbol| (symbol.start, symbol.end));
    symbols
}

pub(super) fn open_elf(path: &Path) -> Option<Elf> {
    let file = File::open(path).ok()?;
    // SAFETY: the map is private and lives for ever. A program that is overwritten in place
    // while it runs breaks its own code in the same way.
    let map = unsafe { memmap2::Mmap::map(&file) }.ok()?;
    let map: &'static memmap2::Mmap = Box::leak(Box::new(map));
    Elf::parse(&map[..]).ok()
}

fn has_dwarf(elf: &Elf) -> bool {
    elf.section_by_name(".debug_info")
        .is_some_and(|section| section.size() > 0)
        || elf.section_by_name(".zdebug_info").is_some()
}

/// A section's bytes, unpacked; empty where there is none.
pub(super) fn section(elf: &Elf, name: &str) -> Slice {
    let data = elf
        .section_by_name(name)
        .and_then(|section| section.compressed_data().ok())
        .and_then(|data| match data.format {
            object::CompressionFormat::None => Some(data.data),
            format => unpack(format, data.data, data.uncompressed_size),
        })
        .unwrap_or_default();
    EndianSlice::new(data, LittleEndian)
}

fn unpack(format: object::CompressionFormat, data: &[u8], bytes: u64) -> Option<&'static [u8]> {
    if bytes > SECTION_BYTES_MAX {
        return None;
    }
    let unpacked = super::unpack::unpack(format, data, bytes as usize)?;
    Some(Box::leak(unpacked.into_boxed_slice()))
}

fn package_of(path: &Path) -> Option<DwarfPackage<Slice>> {
    let beside = |name: PathBuf| open_elf(&name);
    let mut appended = path.as_os_str().to_owned();
    appended.push(".dwp");
    let elf = beside(appended.into()).or_else(|| beside(path.with_extension("dwp")))?;
    let load = |id: SectionId| {
        Ok::<_, gimli::Error>(id.dwo_name().map_or(empty(), |name| section(&elf, name)))
    };
    DwarfPackage::load(load, empty()).ok()
}

/// The file that a stripped object names as the place of its debug information.
fn separate_file(path: &Path, elf: &Elf) -> Option<(PathBuf, Elf)> {
    let build_id = elf.build_id().ok().flatten();
    let by_id = build_id.into_iter().flat_map(|id| {
        let roots = directories::own()
            .into_iter()
            .chain([GLOBAL_DEBUG_DIR.into()]);
        roots
            .map(|root: PathBuf| build_id_path(&root, id))
            .collect::<Vec<_>>()
    });
    let by_link = elf
        .gnu_debuglink()
        .ok()
        .flatten()
        .filter(|(name, _)| name.len() <= LINK_NAME_BYTES_MAX && !name.contains(&b'/'))
        .map(|(name, _)| link_paths(path, name))
        .unwrap_or_default();
    by_link
        .into_iter()
        .chain(by_id)
        .filter(|candidate| candidate != path)
        .filter_map(|candidate| {
            let found = open_elf(&candidate)?;
            // Another build's file would give wrong values: the build id must agree where there is one.
            let same_build = build_id == found.build_id().ok().flatten();
            (has_dwarf(&found) && same_build).then_some((candidate, found))
        })
        .next()
}

/// Whether a debug file is a distribution's, and not in a directory that the user named.
fn is_distributed(debug: &Path) -> bool {
    debug.starts_with(GLOBAL_DEBUG_DIR)
        && !directories::own().iter().any(|own| debug.starts_with(own))
}

fn build_id_path(root: &Path, id: &[u8]) -> PathBuf {
    let hex = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let (first, rest) = id.split_at(1.min(id.len()));
    root.join(".build-id")
        .join(hex(first))
        .join(format!("{}.debug", hex(rest)))
}

fn link_paths(path: &Path, name: &[u8]) -> Vec<PathBuf> {
    let name = std::ffi::OsStr::from_bytes(name);
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let Some(dir) = path.parent() else {
        return Vec::new();
    };
    let global = Path::new(GLOBAL_DEBUG_DIR).join(dir.strip_prefix("/").unwrap_or(dir));
    vec![
        dir.join(name),
        dir.join(".debug").join(name),
        global.join(name),
    ]
}

fn empty() -> Slice {
    EndianSlice::new(&[], LittleEndian)
}

#[cfg(test)]
pub(super) mod tests {
    use gimli::UnitOffset;

    use super::*;
    use crate::platform::module;

    /// Numbers that look random and are the same in every run.
    pub(crate) struct Random(pub(crate) u64);

    impl Random {
        pub(crate) fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }

        pub(crate) fn below(&mut self, end: usize) -> usize {
            (self.next() % end.max(1) as u64) as usize
        }
    }

    /// How often to repeat; more with `BACKSTOP_CAPTURE_FUZZ` set to a number.
    pub(crate) fn rounds(usual: usize) -> usize {
        std::env::var("BACKSTOP_CAPTURE_FUZZ")
            .ok()
            .and_then(|rounds| rounds.parse().ok())
            .unwrap_or(usual)
    }

    /// Units of this crate's own code in this test program.
    pub(crate) fn own_units() -> Vec<&'static Unit> {
        let debug = module::loaded()[0]
            .debug()
            .expect("tests have debug information");
        debug
            .unit_offsets()
            .iter()
            .filter_map(|offset| debug.unit(*offset))
            .filter(|unit| !unit.is_foreign() && unit.has_variables())
            .collect()
    }

    /// Offsets of all DIEs of a unit, as far as they can be read.
    pub(crate) fn offsets(unit: &Unit) -> Vec<UnitOffset> {
        let mut offsets = Vec::new();
        let Ok(mut entries) = unit.unit.entries_raw(None) else {
            return offsets;
        };
        let mut entry = gimli::DebuggingInformationEntry::null();
        while !entries.is_empty() {
            match entries.read_entry(&mut entry) {
                Ok(true) => offsets.push(entry.offset()),
                Ok(false) => {}
                Err(_) => break,
            }
        }
        offsets
    }
}
