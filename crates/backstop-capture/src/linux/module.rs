//! The object files that are mapped into this process.

use std::ffi::{CStr, OsStr};
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use gimli::{BaseAddresses, EhFrame, EhFrameHdr, EndianSlice, LittleEndian, ParsedEhFrameHdr};

use super::debug_file::DebugFile;
use super::lazy::Lazy;

/// More loaded objects than any program has; a bound for the loop over them.
const MODULES_MAX: usize = 4096;

/// One loaded object file: the program or a shared library.
#[derive(Debug)]
pub(crate) struct Module {
    /// The file; empty for the kernel's own.
    pub(crate) path: PathBuf,
    /// What is added to an address of the file to get one of the process.
    pub(crate) bias: u64,
    /// Executable ranges, as addresses of the process.
    text: Vec<(u64, u64)>,
    /// All mapped ranges, as addresses of the process.
    mapped: Vec<(u64, u64)>,
    unwind: Option<UnwindTable>,
    debug: Lazy<Option<DebugFile>>,
}

/// The unwind tables of a module, where the loader mapped them.
#[derive(Debug)]
pub(crate) struct UnwindTable {
    pub(crate) header: ParsedEhFrameHdr<EndianSlice<'static, LittleEndian>>,
    pub(crate) frames: EhFrame<EndianSlice<'static, LittleEndian>>,
    pub(crate) bases: BaseAddresses,
}

impl Module {
    pub(crate) fn has_code(&self, address: u64) -> bool {
        contains(&self.text, address)
    }

    pub(crate) fn maps(&self, address: u64) -> bool {
        contains(&self.mapped, address)
    }

    pub(crate) fn unwind(&self) -> Option<&UnwindTable> {
        self.unwind.as_ref()
    }

    /// The debug information, opened on first use.
    pub(crate) fn debug(&'static self) -> Option<&'static DebugFile> {
        self.debug.get(|| DebugFile::open(&self.path)).as_ref()
    }
}

fn contains(ranges: &[(u64, u64)], address: u64) -> bool {
    ranges
        .iter()
        .any(|(start, end)| (*start..*end).contains(&address))
}

/// Modules stay for ever once seen: their number is small, and a capture that is
/// resolved later may still name them.
static KNOWN: Mutex<Vec<&'static Module>> = Mutex::new(Vec::new());

/// The modules that are loaded at one time.
#[derive(Debug)]
pub(crate) struct Loaded {
    modules: Vec<&'static Module>,
    /// Another number for every time that something was loaded or unloaded.
    pub(crate) generation: u64,
}

impl Deref for Loaded {
    type Target = [&'static Module];

    fn deref(&self) -> &[&'static Module] {
        &self.modules
    }
}

/// What the loader counts: objects that it has added and taken away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Counts {
    added: u64,
    removed: u64,
}

/// The list of the last call, and the loader's counts then.
static LAST: Mutex<Option<(Counts, Arc<Loaded>)>> = Mutex::new(None);

/// The modules that are loaded now.
pub(crate) fn loaded() -> Arc<Loaded> {
    let mut counts: Option<Counts> = None;
    // SAFETY: the callback follows the C signature and `counts` outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(note_counts), (&raw mut counts).cast()) };
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let (Some(counts), Some((then, modules))) = (counts, &*last)
        && *then == counts
    {
        return Arc::clone(modules);
    }
    let generation = last.as_ref().map_or(1, |(_, old)| old.generation + 1);
    let loaded = Arc::new(Loaded {
        modules: listed(),
        generation,
    });
    *last = Some((counts.unwrap_or_default(), Arc::clone(&loaded)));
    loaded
}

/// Notes the loader's counts for [`loaded`], and stops at the first object.
unsafe extern "C" fn note_counts(
    info: *mut libc::dl_phdr_info,
    size: libc::size_t,
    counts: *mut libc::c_void,
) -> libc::c_int {
    // Loaders that do not count tell it by a shorter description.
    if size >= size_of::<libc::dl_phdr_info>() {
        // SAFETY: the loader passes a valid description, and `loaded` its own variable.
        let (info, counts) = unsafe { (&*info, &mut *counts.cast::<Option<Counts>>()) };
        *counts = Some(Counts {
            added: info.dlpi_adds,
            removed: info.dlpi_subs,
        });
    }
    1
}

fn listed() -> Vec<&'static Module> {
    let mut seen: Vec<Seen> = Vec::new();
    // SAFETY: the callback follows the C signature and `seen` outlives the call.
    unsafe { libc::dl_iterate_phdr(Some(note), (&raw mut seen).cast()) };
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    seen.into_iter()
        .map(|seen| match known.iter().find(|module| seen.is(module)) {
            Some(module) => *module,
            None => {
                let module: &'static Module = Box::leak(Box::new(seen.into_module()));
                known.push(module);
                module
            }
        })
        .collect()
}

struct Seen {
    name: Vec<u8>,
    bias: u64,
    text: Vec<(u64, u64)>,
    mapped: Vec<(u64, u64)>,
    unwind_header: Option<(u64, u64)>,
}

impl Seen {
    fn is(&self, module: &Module) -> bool {
        // Two libraries can follow one another at the same place; their text differs then.
        module.bias == self.bias && module.text == self.text
    }

    fn into_module(self) -> Module {
        let path = if self.name.is_empty() {
            std::env::current_exe().unwrap_or_default()
        } else {
            PathBuf::from(OsStr::from_bytes(&self.name))
        };
        let unwind = self
            .unwind_header
            .and_then(|(address, len)| UnwindTable::at(address, len, &self.mapped));
        Module {
            path,
            bias: self.bias,
            text: self.text,
            mapped: self.mapped,
            unwind,
            debug: Lazy::new(),
        }
    }
}

/// Notes one loaded object for [`listed`].
unsafe extern "C" fn note(
    info: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    seen: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: the loader passes a valid description, and `listed` its own vector.
    let (info, seen) = unsafe { (&*info, &mut *seen.cast::<Vec<Seen>>()) };
    if seen.len() >= MODULES_MAX {
        return 1;
    }
    let name = if info.dlpi_name.is_null() {
        Vec::new()
    } else {
        // SAFETY: the loader's names end with a zero.
        unsafe { CStr::from_ptr(info.dlpi_name) }
            .to_bytes()
            .to_vec()
    };
    let headers = if info.dlpi_phdr.is_null() {
        &[]
    } else {
        // SAFETY: the loader says how many headers lie there, and keeps them mapped.
        unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) }
    };
    let mut object = Seen {
        name,
        bias: info.dlpi_addr,
        text: Vec::new(),
        mapped: Vec::new(),
        unwind_header: None,
    };
    for header in headers {
        let start = info.dlpi_addr.wrapping_add(header.p_vaddr);
        let range = (start, start.saturating_add(header.p_memsz));
        match header.p_type {
            libc::PT_LOAD => {
                object.mapped.push(range);
                if header.p_flags & libc::PF_X != 0 {
                    object.text.push(range);
                }
            }
            libc::PT_GNU_EH_FRAME => object.unwind_header = Some((start, header.p_memsz)),
            _ => {}
        }
    }
    seen.push(object);
    0
}

impl UnwindTable {
    fn at(address: u64, len: u64, mapped: &[(u64, u64)]) -> Option<UnwindTable> {
        let within = |address: u64| {
            mapped
                .iter()
                .find(|(start, end)| (*start..*end).contains(&address))
                .map(|(_, end)| end - address)
        };
        let len = len.min(within(address)?);
        let bases = BaseAddresses::default().set_eh_frame_hdr(address);
        let header = EhFrameHdr::new(mapped_bytes(address, len), LittleEndian)
            .parse(&bases, 8)
            .ok()?;
        let gimli::Pointer::Direct(frames) = header.eh_frame_ptr() else {
            return None;
        };
        // The section's length is not told; it ends with the segment at the latest.
        let frames_len = within(frames)?;
        Some(UnwindTable {
            header,
            frames: EhFrame::new(mapped_bytes(frames, frames_len), LittleEndian),
            bases: bases.set_eh_frame(frames),
        })
    }
}

/// Bytes of a segment that the loader mapped.
fn mapped_bytes(address: u64, len: u64) -> &'static [u8] {
    // SAFETY: the caller has checked that the range lies within one loaded, readable segment.
    // It is used only while a frame of the module is on the stack, so the module stays loaded.
    unsafe { std::slice::from_raw_parts(address as *const u8, len as usize) }
}
