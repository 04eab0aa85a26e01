//! The functions that SQLite calls.

#![expect(
    non_snake_case,
    reason = "the functions have the names of the fields they fill"
)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::ffi;

use super::{Fault, Locks, SHM_LOCKS, State};

/// Longer paths are not ours.
const PATH_BYTES_MAX: c_int = 512;

/// A VFS that SQLite knows until this is dropped.
#[derive(Debug)]
pub(crate) struct Registration {
    name: CString,
    vfs: *mut ffi::sqlite3_vfs,
}

// SAFETY: the pointer is used only to unregister and free, by whoever owns the value.
unsafe impl Send for Registration {}
// SAFETY: no method reads through the pointer.
unsafe impl Sync for Registration {}

/// What SQLite keeps of an open file; it allocates and frees the memory.
#[repr(C)]
struct OpenFile {
    base: ffi::sqlite3_file,
    own: *mut Own,
}

/// Our part of an open file.
struct Own {
    state: Arc<Mutex<State>>,
    name: String,
    epoch: u64,
    lock: c_int,
    shm_shared: [bool; SHM_LOCKS],
    shm_exclusive: [bool; SHM_LOCKS],
    delete_on_close: bool,
}

impl Registration {
    pub(crate) fn new(state: Arc<Mutex<State>>) -> Registration {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("faulty-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let name = CString::new(name).expect("the name has no NUL");
        let vfs = Box::into_raw(Box::new(ffi::sqlite3_vfs {
            iVersion: 2,
            szOsFile: size_of::<OpenFile>() as c_int,
            mxPathname: PATH_BYTES_MAX,
            pNext: ptr::null_mut(),
            zName: name.as_ptr(),
            pAppData: Box::into_raw(Box::new(state)).cast(),
            xOpen: Some(xOpen),
            xDelete: Some(xDelete),
            xAccess: Some(xAccess),
            xFullPathname: Some(xFullPathname),
            xDlOpen: None,
            xDlError: None,
            xDlSym: None,
            xDlClose: None,
            xRandomness: Some(xRandomness),
            xSleep: Some(xSleep),
            xCurrentTime: Some(xCurrentTime),
            xGetLastError: Some(xGetLastError),
            xCurrentTimeInt64: Some(xCurrentTimeInt64),
            xSetSystemCall: None,
            xGetSystemCall: None,
            xNextSystemCall: None,
        }));
        // SAFETY: the structure is complete and lives until it is unregistered in `drop`.
        let code = unsafe { ffi::sqlite3_vfs_register(vfs, 0) };
        assert_eq!(code, ffi::SQLITE_OK, "SQLite takes a new VFS");
        Registration { name, vfs }
    }

    pub(crate) fn name(&self) -> &str {
        self.name.to_str().expect("the name is ASCII")
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: both boxes were made in `new`, and the owner has dropped every connection.
        unsafe {
            ffi::sqlite3_vfs_unregister(self.vfs);
            let vfs = Box::from_raw(self.vfs);
            drop(Box::from_raw(vfs.pAppData.cast::<Arc<Mutex<State>>>()));
        }
    }
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(xClose),
    xRead: Some(xRead),
    xWrite: Some(xWrite),
    xTruncate: Some(xTruncate),
    xSync: Some(xSync),
    xFileSize: Some(xFileSize),
    xLock: Some(xLock),
    xUnlock: Some(xUnlock),
    xCheckReservedLock: Some(xCheckReservedLock),
    xFileControl: Some(xFileControl),
    xSectorSize: Some(xSectorSize),
    xDeviceCharacteristics: Some(xDeviceCharacteristics),
    xShmMap: Some(xShmMap),
    xShmLock: Some(xShmLock),
    xShmBarrier: Some(xShmBarrier),
    xShmUnmap: Some(xShmUnmap),
    xFetch: None,
    xUnfetch: None,
};

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn code_of(fault: Fault) -> c_int {
    match fault {
        Fault::Read => ffi::SQLITE_IOERR_READ,
        Fault::Write | Fault::PowerIsOff => ffi::SQLITE_IOERR_WRITE,
        Fault::Full => ffi::SQLITE_FULL,
        Fault::Sync => ffi::SQLITE_IOERR_FSYNC,
    }
}

fn code<T>(result: Result<T, Fault>) -> c_int {
    result.map_or_else(code_of, |_| ffi::SQLITE_OK)
}

/// Returns the disk behind a VFS.
///
/// # Safety
///
/// `vfs` is one that [`Registration::new`] made and that is registered.
unsafe fn state_of<'a>(vfs: *mut ffi::sqlite3_vfs) -> &'a Arc<Mutex<State>> {
    // SAFETY: `pAppData` is the box that `new` made, and it lives as long as the registration.
    unsafe { &*(*vfs).pAppData.cast::<Arc<Mutex<State>>>() }
}

/// Returns our part of an open file.
///
/// # Safety
///
/// `file` was opened by [`xOpen`] and is not closed; SQLite uses a file from one thread at a time.
unsafe fn own_of<'a>(file: *mut ffi::sqlite3_file) -> &'a mut Own {
    // SAFETY: `xOpen` put the pointer of a box there.
    unsafe { &mut *(*file.cast::<OpenFile>()).own }
}

unsafe fn name_of(name: *const c_char) -> String {
    if name.is_null() {
        return String::new();
    }
    // SAFETY: SQLite passes texts that end with NUL.
    unsafe { CStr::from_ptr(name) }
        .to_string_lossy()
        .into_owned()
}

unsafe extern "C" fn xOpen(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes our VFS and memory for one `OpenFile`.
    unsafe {
        (*file).pMethods = ptr::null();
        let state = state_of(vfs);
        let mut name = name_of(name);
        let mut world = lock(state);
        if !world.power {
            return ffi::SQLITE_CANTOPEN;
        }
        if name.is_empty() {
            name = format!("temporary-{}", world.random.bits());
        }
        if flags & ffi::SQLITE_OPEN_CREATE == 0 && !world.files.contains_key(&name) {
            return ffi::SQLITE_CANTOPEN;
        }
        world.files.entry(name.clone()).or_default();
        let epoch = world.epoch;
        drop(world);
        (*file.cast::<OpenFile>()).own = Box::into_raw(Box::new(Own {
            state: Arc::clone(state),
            name,
            epoch,
            lock: ffi::SQLITE_LOCK_NONE,
            shm_shared: [false; SHM_LOCKS],
            shm_exclusive: [false; SHM_LOCKS],
            delete_on_close: flags & ffi::SQLITE_OPEN_DELETEONCLOSE != 0,
        }));
        (*file).pMethods = &raw const METHODS;
        if !out_flags.is_null() {
            *out_flags = flags;
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn xDelete(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    _sync_directory: c_int,
) -> c_int {
    // SAFETY: SQLite passes our VFS and a text.
    let (state, name) = unsafe { (state_of(vfs), name_of(name)) };
    let mut world = lock(state);
    let epoch = world.epoch;
    match world.delete(&name, epoch) {
        Ok(true) => ffi::SQLITE_OK,
        Ok(false) => ffi::SQLITE_IOERR_DELETE_NOENT,
        Err(fault) => code_of(fault),
    }
}

unsafe extern "C" fn xAccess(
    vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite passes our VFS, a text and a place for the answer.
    unsafe {
        let world = lock(state_of(vfs));
        let file = world.files.get(&name_of(name));
        // An empty file counts as missing where existence is asked, as in the layer for Unix.
        *out = c_int::from(match flags {
            ffi::SQLITE_ACCESS_EXISTS => file.is_some_and(|file| !file.current.is_empty()),
            _ => file.is_some(),
        });
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn xFullPathname(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    len: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: SQLite passes a text and `len` bytes for the answer.
    unsafe {
        let bytes = CStr::from_ptr(name).to_bytes_with_nul();
        if bytes.len() > len as usize {
            return ffi::SQLITE_CANTOPEN;
        }
        ptr::copy_nonoverlapping(bytes.as_ptr().cast(), out, bytes.len());
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn xRandomness(
    vfs: *mut ffi::sqlite3_vfs,
    len: c_int,
    out: *mut c_char,
) -> c_int {
    // SAFETY: SQLite passes our VFS and `len` bytes.
    let (state, bytes) = unsafe {
        let bytes = std::slice::from_raw_parts_mut(out.cast::<u8>(), len as usize);
        (state_of(vfs), bytes)
    };
    let mut world = lock(state);
    for byte in bytes {
        *byte = world.random.bits() as u8;
    }
    len
}

/// Time stands still here: nobody else holds a lock for long.
unsafe extern "C" fn xSleep(_vfs: *mut ffi::sqlite3_vfs, micros: c_int) -> c_int {
    std::thread::yield_now();
    micros
}

unsafe extern "C" fn xCurrentTime(_vfs: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    // SAFETY: SQLite passes a place for the answer.
    unsafe { *out = 2_461_366.5 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn xCurrentTimeInt64(_vfs: *mut ffi::sqlite3_vfs, out: *mut i64) -> c_int {
    // SAFETY: SQLite passes a place for the answer.
    unsafe { *out = 212_662_065_600_000 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn xGetLastError(
    _vfs: *mut ffi::sqlite3_vfs,
    _len: c_int,
    _out: *mut c_char,
) -> c_int {
    0
}

unsafe extern "C" fn xClose(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: `xOpen` made the box, and SQLite closes a file once.
    unsafe {
        xShmUnmap(file, 0);
        xUnlock(file, ffi::SQLITE_LOCK_NONE);
        let own = Box::from_raw((*file.cast::<OpenFile>()).own);
        let mut world = lock(&own.state);
        if own.delete_on_close && world.epoch == own.epoch {
            world.files.remove(&own.name);
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn xRead(
    file: *mut ffi::sqlite3_file,
    into: *mut c_void,
    len: c_int,
    at: i64,
) -> c_int {
    // SAFETY: SQLite passes an open file and `len` bytes.
    let (own, into) = unsafe {
        let into = std::slice::from_raw_parts_mut(into.cast::<u8>(), len as usize);
        (own_of(file), into)
    };
    match lock(&own.state).read(&own.name, own.epoch, at as usize, into) {
        Ok(read) if read == into.len() => ffi::SQLITE_OK,
        Ok(_) => ffi::SQLITE_IOERR_SHORT_READ,
        Err(fault) => code_of(fault),
    }
}

unsafe extern "C" fn xWrite(
    file: *mut ffi::sqlite3_file,
    bytes: *const c_void,
    len: c_int,
    at: i64,
) -> c_int {
    // SAFETY: SQLite passes an open file and `len` bytes.
    let (own, bytes) = unsafe {
        let bytes = std::slice::from_raw_parts(bytes.cast::<u8>(), len as usize);
        (own_of(file), bytes)
    };
    code(lock(&own.state).write(&own.name, own.epoch, at as usize, bytes))
}

unsafe extern "C" fn xTruncate(file: *mut ffi::sqlite3_file, len: i64) -> c_int {
    // SAFETY: SQLite passes an open file.
    let own = unsafe { own_of(file) };
    code(lock(&own.state).truncate(&own.name, own.epoch, len as usize))
}

unsafe extern "C" fn xSync(file: *mut ffi::sqlite3_file, _flags: c_int) -> c_int {
    // SAFETY: SQLite passes an open file.
    let own = unsafe { own_of(file) };
    code(lock(&own.state).sync(&own.name, own.epoch))
}

unsafe extern "C" fn xFileSize(file: *mut ffi::sqlite3_file, out: *mut i64) -> c_int {
    // SAFETY: SQLite passes an open file and a place for the answer.
    let own = unsafe { own_of(file) };
    let world = lock(&own.state);
    if let Err(fault) = world.alive(own.epoch) {
        return code_of(fault);
    }
    let len = world
        .files
        .get(&own.name)
        .map_or(0, |file| file.current.len());
    // SAFETY: as above.
    unsafe { *out = len as i64 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn xLock(file: *mut ffi::sqlite3_file, wanted: c_int) -> c_int {
    // SAFETY: SQLite passes an open file.
    let own = unsafe { own_of(file) };
    let mut world = lock(&own.state);
    if let Err(fault) = world.alive(own.epoch) {
        return code_of(fault);
    }
    let Some(locked) = world.files.get_mut(&own.name) else {
        return ffi::SQLITE_IOERR_LOCK;
    };
    match locked.lock.raise(own.lock, wanted) {
        true => {
            own.lock = own.lock.max(wanted);
            ffi::SQLITE_OK
        }
        false => ffi::SQLITE_BUSY,
    }
}

unsafe extern "C" fn xUnlock(file: *mut ffi::sqlite3_file, wanted: c_int) -> c_int {
    // SAFETY: SQLite passes an open file.
    let own = unsafe { own_of(file) };
    let mut world = lock(&own.state);
    if world.epoch == own.epoch
        && let Some(locked) = world.files.get_mut(&own.name)
    {
        locked.lock.lower(own.lock, wanted);
    }
    own.lock = own.lock.min(wanted);
    ffi::SQLITE_OK
}

impl Locks {
    /// Raises a lock from one level to another; says whether nobody was in the way.
    fn raise(&mut self, from: c_int, to: c_int) -> bool {
        if from < ffi::SQLITE_LOCK_SHARED && to >= ffi::SQLITE_LOCK_SHARED {
            if self.pending || self.exclusive {
                return false;
            }
            self.shared += 1;
        }
        if from < ffi::SQLITE_LOCK_RESERVED && to >= ffi::SQLITE_LOCK_RESERVED {
            if self.reserved {
                return false;
            }
            self.reserved = true;
        }
        if from < ffi::SQLITE_LOCK_EXCLUSIVE && to >= ffi::SQLITE_LOCK_EXCLUSIVE {
            self.pending = true;
            if self.shared > 1 {
                self.pending = false;
                return false;
            }
            self.exclusive = true;
        }
        true
    }

    fn lower(&mut self, from: c_int, to: c_int) {
        if from >= ffi::SQLITE_LOCK_EXCLUSIVE && to < ffi::SQLITE_LOCK_EXCLUSIVE {
            self.exclusive = false;
            self.pending = false;
        }
        if from >= ffi::SQLITE_LOCK_RESERVED && to < ffi::SQLITE_LOCK_RESERVED {
            self.reserved = false;
        }
        if from >= ffi::SQLITE_LOCK_SHARED && to < ffi::SQLITE_LOCK_SHARED {
            self.shared -= 1;
        }
    }
}

unsafe extern "C" fn xCheckReservedLock(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: SQLite passes an open file and a place for the answer.
    unsafe {
        let own = own_of(file);
        let world = lock(&own.state);
        *out = c_int::from(
            world
                .files
                .get(&own.name)
                .is_some_and(|file| file.lock.reserved),
        );
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn xFileControl(
    _file: *mut ffi::sqlite3_file,
    _operation: c_int,
    _argument: *mut c_void,
) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn xSectorSize(_file: *mut ffi::sqlite3_file) -> c_int {
    4096
}

/// A torn write leaves the bytes beside it alone, which SQLite assumes of every disk.
unsafe extern "C" fn xDeviceCharacteristics(_file: *mut ffi::sqlite3_file) -> c_int {
    ffi::SQLITE_IOCAP_POWERSAFE_OVERWRITE
}

unsafe extern "C" fn xShmMap(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    bytes: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: SQLite passes an open file and a place for the answer.
    let own = unsafe { own_of(file) };
    let mut world = lock(&own.state);
    if let Err(fault) = world.alive(own.epoch) {
        return code_of(fault);
    }
    let Some(shared) = world.files.get_mut(&own.name) else {
        return ffi::SQLITE_IOERR_SHMMAP;
    };
    assert_eq!(
        bytes as usize,
        super::REGION_BYTES,
        "SQLite has one size of region"
    );
    let regions = &mut shared.shm.regions;
    while extend != 0 && regions.len() <= region as usize {
        regions.push(Box::new([0; super::REGION_BYTES / 8]));
    }
    let region = regions.get_mut(region as usize);
    // SAFETY: as above. A region stays where it is as long as the disk lives.
    unsafe { *out = region.map_or(ptr::null_mut(), |region| region.as_mut_ptr().cast()) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn xShmLock(
    file: *mut ffi::sqlite3_file,
    offset: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    // SAFETY: SQLite passes an open file.
    let own = unsafe { own_of(file) };
    let mut world = lock(&own.state);
    let slots = offset as usize..(offset + count) as usize;
    let gives_back = flags & ffi::SQLITE_SHM_UNLOCK != 0;
    let exclusive = flags & ffi::SQLITE_SHM_EXCLUSIVE != 0;
    if let Err(fault) = world.alive(own.epoch) {
        return if gives_back {
            ffi::SQLITE_OK
        } else {
            code_of(fault)
        };
    }
    let Some(locked) = world.files.get_mut(&own.name) else {
        return ffi::SQLITE_IOERR_SHMLOCK;
    };
    let shm = &mut locked.shm;
    if gives_back {
        for slot in slots {
            if std::mem::take(&mut own.shm_exclusive[slot]) {
                shm.exclusive[slot] = false;
            }
            if std::mem::take(&mut own.shm_shared[slot]) {
                shm.shared[slot] -= 1;
            }
        }
        return ffi::SQLITE_OK;
    }
    let busy = slots.clone().any(|slot| {
        let others = shm.shared[slot] - u32::from(own.shm_shared[slot]);
        (shm.exclusive[slot] && !own.shm_exclusive[slot]) || (exclusive && others > 0)
    });
    if busy {
        return ffi::SQLITE_BUSY;
    }
    for slot in slots {
        if exclusive {
            shm.exclusive[slot] = true;
            own.shm_exclusive[slot] = true;
        } else if !std::mem::replace(&mut own.shm_shared[slot], true) {
            shm.shared[slot] += 1;
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn xShmBarrier(file: *mut ffi::sqlite3_file) {
    // SAFETY: SQLite passes an open file.
    let own = unsafe { own_of(file) };
    // Taking a lock is a barrier.
    drop(lock(&own.state));
}

unsafe extern "C" fn xShmUnmap(file: *mut ffi::sqlite3_file, _delete: c_int) -> c_int {
    // SAFETY: SQLite passes an open file.
    unsafe {
        xShmLock(file, 0, SHM_LOCKS as c_int, ffi::SQLITE_SHM_UNLOCK);
    }
    ffi::SQLITE_OK
}
