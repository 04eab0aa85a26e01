//! The object files that are mapped into this process.

use std::ffi::{CStr, OsStr};
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use gimli::{BaseAddresses, EhFrame, EhFrameHdr, EndianSlice, LittleEndian, ParsedEhFrameHdr};
use object::read::elf::NoteIterator;

use super::debug_file::DebugFile;
use super::lazy::Lazy;

type Notes<'a> = NoteIterator<'a, object::elf::FileHeader64<object::LittleEndian>>;

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
    /// What the loader calls it.
    name: Vec<u8>,
    build: Build,
    /// The place of the index of the unwind tables.
    unwind_header: Option<(u64, u64)>,
    unwind: Option<UnwindTable>,
    debug: Lazy<Option<DebugFile>>,
}

/// What tells two builds of a library apart that follow one another at the same place.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Build {
    /// What the linker wrote into the loaded object.
    Id(Vec<u8>),
    /// Without an id: the state of the file; `None` for what is no file.
    File(Option<Stamp>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
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
        let id = match &self.build {
            Build::Id(id) => Some(id.as_slice()),
            Build::File(_) => None,
        };
        let is_library = !self.name.is_empty();
        let open = || DebugFile::open(&self.path, id, is_library);
        self.debug.get(open).as_ref()
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
    // SAFETY: the callback is the one for a pointer to such counts, which outlive the call.
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
        // SAFETY: the loader passes a description that is valid during the call and, as was just
        // checked, whole; `loaded` passes its own variable, which nobody else uses meanwhile.
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
    // SAFETY: the callback is the one for a pointer to such a list, which outlives the call.
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
    id: Option<Vec<u8>>,
    unwind_header: Option<(u64, u64)>,
    unwind: Option<UnwindTable>,
}

impl Seen {
    fn path(&self) -> PathBuf {
        if self.name.is_empty() {
            std::env::current_exe().unwrap_or_default()
        } else {
            PathBuf::from(OsStr::from_bytes(&self.name))
        }
    }

    fn build(&self) -> Build {
        match &self.id {
            Some(id) => Build::Id(id.clone()),
            // The program itself cannot be loaded anew, whatever becomes of its file.
            None if self.name.is_empty() => Build::File(None),
            None => Build::File(Stamp::of(&self.path())),
        }
    }

    /// Whether this is the module that was seen before, and not another one at its place.
    fn is(&self, module: &Module) -> bool {
        let same_place = module.bias == self.bias
            && module.text == self.text
            && module.mapped == self.mapped
            && module.name == self.name
            && module.unwind_header == self.unwind_header;
        same_place && module.build == self.build()
    }

    fn into_module(self) -> Module {
        Module {
            path: self.path(),
            build: self.build(),
            name: self.name,
            bias: self.bias,
            text: self.text,
            mapped: self.mapped,
            unwind_header: self.unwind_header,
            unwind: self.unwind,
            debug: Lazy::new(),
        }
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Stamp> {
        let file = std::fs::metadata(path).ok()?;
        Some(Stamp {
            device: file.dev(),
            inode: file.ino(),
            bytes: file.len(),
            changed: (file.mtime(), file.mtime_nsec()),
        })
    }
}

/// Notes one loaded object for [`listed`].
///
/// The loader keeps the object while this runs, so what is mapped of it is read here.
unsafe extern "C" fn note(
    info: *mut libc::dl_phdr_info,
    size: libc::size_t,
    seen: *mut libc::c_void,
) -> libc::c_int {
    // No loader that the standard library runs with passes less.
    if size < size_of::<libc::dl_phdr_info>() {
        return 1;
    }
    // SAFETY: the loader passes a description that is valid during the call and, as was just
    // checked, whole; `listed` passes its own vector, which nobody else uses meanwhile.
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
        // SAFETY: the loader says how many headers lie there, and keeps them during the call.
        unsafe { std::slice::from_raw_parts(info.dlpi_phdr, usize::from(info.dlpi_phnum)) }
    };
    let mut object = Seen {
        name,
        bias: info.dlpi_addr,
        text: Vec::new(),
        mapped: Vec::new(),
        id: None,
        unwind_header: None,
        unwind: None,
    };
    let range = |header: &libc::Elf64_Phdr| {
        let start = info.dlpi_addr.wrapping_add(header.p_vaddr);
        (start, start.saturating_add(header.p_memsz))
    };
    let mut readable = Readable(Vec::new());
    for header in headers
        .iter()
        .filter(|header| header.p_type == libc::PT_LOAD)
    {
        object.mapped.push(range(header));
        if header.p_flags & libc::PF_X != 0 {
            object.text.push(range(header));
        }
        if header.p_flags & libc::PF_R != 0 {
            readable.0.push(range(header));
        }
    }
    for header in headers {
        let (start, end) = range(header);
        match header.p_type {
            libc::PT_GNU_EH_FRAME => object.unwind_header = Some((start, end - start)),
            libc::PT_NOTE if object.id.is_none() => {
                // SAFETY: the object is loaded during this call, and the bytes are copied.
                let notes = unsafe { readable.bytes(start, end - start) };
                object.id = notes.and_then(|notes| build_id(notes, header.p_align));
            }
            _ => {}
        }
    }
    object.unwind = object
        .unwind_header
        // SAFETY: the object is loaded now; later the table is used only for an address that a
        // frame of a stack returns to, so for an object that is loaded then.
        .and_then(|(start, len)| unsafe { UnwindTable::at(start, len, &readable) });
    seen.push(object);
    0
}

/// The build id among an object's notes.
fn build_id(notes: &[u8], align: u64) -> Option<Vec<u8>> {
    /// Ids have 8 to 64 bytes.
    const ID_BYTES_MAX: usize = 64;
    let endian = object::LittleEndian;
    let mut notes = Notes::new(endian, align, notes).ok()?;
    while let Ok(Some(note)) = notes.next() {
        if note.name() == object::elf::ELF_NOTE_GNU
            && note.n_type(endian) == object::elf::NT_GNU_BUILD_ID
        {
            let id = note.desc();
            return (id.len() <= ID_BYTES_MAX).then(|| id.to_vec());
        }
    }
    None
}

impl UnwindTable {
    /// The tables whose index lies at an address.
    ///
    /// # Safety
    ///
    /// The object with these segments must be loaded now, and whenever the tables are used.
    unsafe fn at(address: u64, len: u64, readable: &Readable) -> Option<UnwindTable> {
        let bases = BaseAddresses::default().set_eh_frame_hdr(address);
        // SAFETY: the caller keeps the object loaded.
        let header = unsafe { readable.bytes(address, len.min(readable.after(address)?)) }?;
        let header = EhFrameHdr::new(header, LittleEndian)
            .parse(&bases, 8)
            .ok()?;
        let gimli::Pointer::Direct(frames) = header.eh_frame_ptr() else {
            return None;
        };
        // The section's length is not told; it ends with the segment at the latest.
        // SAFETY: the caller keeps the object loaded.
        let section = unsafe { readable.bytes(frames, readable.after(frames)?) }?;
        Some(UnwindTable {
            header,
            frames: EhFrame::new(section, LittleEndian),
            bases: bases.set_eh_frame(frames),
        })
    }
}

/// The segments of a loaded object that can be read, as addresses of the process.
struct Readable(Vec<(u64, u64)>);

impl Readable {
    /// How many bytes there are from an address to the end of its segment.
    fn after(&self, address: u64) -> Option<u64> {
        let mut segments = self.0.iter();
        let (_, end) = segments.find(|(start, end)| (*start..*end).contains(&address))?;
        Some(end - address)
    }

    /// The bytes at an address, if all of them lie within one segment.
    ///
    /// # Safety
    ///
    /// The object must be loaded now and whenever the bytes are used, and nothing may write to
    /// them: what is asked for are notes and unwind tables, which are constant.
    unsafe fn bytes(&self, address: u64, len: u64) -> Option<&'static [u8]> {
        let len = usize::try_from(len)
            .ok()
            .filter(|_| len <= self.after(address).unwrap_or(0))?;
        // SAFETY: the range lies within one readable segment, which the caller keeps loaded.
        Some(unsafe { std::slice::from_raw_parts(address as *const u8, len) })
    }
}
