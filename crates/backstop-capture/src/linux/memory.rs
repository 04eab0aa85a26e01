//! Reads this process's own memory without trusting a single address.
//!
//! Memory is copied by the kernel, which answers with an error where a plain load would end
//! the process. For values, whole pages are copied, each at most once by a reader, so all values
//! of a capture see one state of a page even while other threads write. Walking a stack has
//! a reader of its own, which copies larger pieces, because it needs a few words of each page.

use std::cell::{Cell, RefCell};
use std::sync::atomic::{AtomicU8, Ordering};

use super::address_map::AddressMap;
use crate::State;

const PAGE_BYTES: usize = 4096;
/// What one piece of the stack has. A new pipe holds four times as much; to a user who has many
/// pipes the kernel gives smaller ones, then the stack is read page by page.
const PIECE_BYTES: usize = 4 * PAGE_BYTES;
/// The copied part of a stack; what lies beyond is read page by page.
const STACK_BYTES_MAX: usize = 1 << 20;

/// How pages are copied; found out once per process.
static METHOD: AtomicU8 = AtomicU8::new(READV);
const READV: u8 = 0;
const PIPE: u8 = 1;

/// Memory at an address cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Unreadable;

/// Copied pages by their addresses; `None` is one that cannot be read.
#[derive(Debug, Default)]
struct Pages {
    pages: Vec<(u64, Option<Box<[u8; PAGE_BYTES]>>)>,
    places: AddressMap<u64, usize>,
    /// The place of the page that was read last; mostly it is the next one's too.
    last: usize,
}

impl Pages {
    fn get(
        &mut self,
        base: u64,
        copy: impl FnOnce() -> Option<Box<[u8; PAGE_BYTES]>>,
    ) -> Option<&[u8; PAGE_BYTES]> {
        let is_last = self
            .pages
            .get(self.last)
            .is_some_and(|(last, _)| *last == base);
        if !is_last {
            self.last = *self.places.entry(base).or_insert_with(|| {
                self.pages.push((base, copy()));
                self.pages.len() - 1
            });
        }
        self.pages[self.last].1.as_deref()
    }
}

/// Copies of this process's memory, up to a number of bytes.
#[derive(Debug)]
pub(crate) struct Memory {
    pages: RefCell<Pages>,
    pipe: Cell<Option<[i32; 2]>>,
    bytes_left: Cell<usize>,
    /// This process; asked anew for each capture, because a fork changes it.
    process: libc::pid_t,
}

impl Memory {
    /// A reader that copies at most `bytes` from the process.
    pub(crate) fn new(bytes: usize) -> Memory {
        Memory {
            pages: RefCell::default(),
            pipe: Cell::new(None),
            bytes_left: Cell::new(bytes),
            // SAFETY: the call has no preconditions.
            process: unsafe { libc::getpid() },
        }
    }

    /// Fills `out` from `address`.
    pub(crate) fn read(&self, address: u64, out: &mut [u8]) -> Result<(), Unreadable> {
        let end = address.checked_add(out.len() as u64).ok_or(Unreadable)?;
        let mut pages = self.pages.borrow_mut();
        let mut at = address;
        let mut done = 0;
        while at < end {
            let base = at & !(PAGE_BYTES as u64 - 1);
            let page = pages.get(base, || self.copy_page(base)).ok_or(Unreadable)?;
            let offset = (at - base) as usize;
            let len = (PAGE_BYTES - offset).min((end - at) as usize);
            out[done..done + len].copy_from_slice(&page[offset..offset + len]);
            done += len;
            at += len as u64;
        }
        Ok(())
    }

    /// Why reading failed: the memory is not there, or this reader may read no more.
    pub(crate) fn failure(&self) -> State {
        if self.bytes_left.get() < PAGE_BYTES {
            State::Truncated
        } else {
            State::Unreadable
        }
    }

    /// Reads a number of up to 16 bytes.
    pub(crate) fn uint(&self, address: u64, size: usize) -> Result<u128, Unreadable> {
        let mut bytes = [0; 16];
        self.read(address, bytes.get_mut(..size).ok_or(Unreadable)?)?;
        Ok(u128::from_le_bytes(bytes))
    }

    /// Reads a pointer.
    pub(crate) fn word(&self, address: u64) -> Result<u64, Unreadable> {
        let mut bytes = [0; 8];
        self.read(address, &mut bytes)?;
        Ok(u64::from_le_bytes(bytes))
    }

    fn copy_page(&self, base: u64) -> Option<Box<[u8; PAGE_BYTES]>> {
        let mut page = Box::new([0; PAGE_BYTES]);
        self.copy(base, &mut page[..]).then_some(page)
    }

    /// Copies as many bytes as `out` has, at most a piece; says whether all of them are there.
    fn copy(&self, address: u64, out: &mut [u8]) -> bool {
        let Some(left) = self.bytes_left.get().checked_sub(out.len()) else {
            return false;
        };
        self.bytes_left.set(left);
        if METHOD.load(Ordering::Relaxed) == READV {
            match copy_by_readv(self.process, address, out) {
                Ok(copied) => return copied,
                // A seccomp filter forbids the call; every later page goes through a pipe.
                Err(Forbidden) => METHOD.store(PIPE, Ordering::Relaxed),
            }
        }
        self.copy_by_pipe(address, out)
    }

    fn copy_by_pipe(&self, address: u64, out: &mut [u8]) -> bool {
        let pipe = match self.pipe.get() {
            Some(pipe) => pipe,
            None => {
                let mut pipe = [0; 2];
                // SAFETY: `pipe` has room for the two descriptors the call writes.
                if unsafe { libc::pipe2(pipe.as_mut_ptr(), libc::O_CLOEXEC | libc::O_NONBLOCK) }
                    != 0
                {
                    return false;
                }
                self.pipe.set(Some(pipe));
                pipe
            }
        };
        // SAFETY: the call only reads, and the kernel checks the source: it answers EFAULT, or
        // writes less, where it is not mapped.
        let written = unsafe { libc::write(pipe[1], address as *const libc::c_void, out.len()) };
        if written <= 0 {
            return false;
        }
        // SAFETY: `out` is borrowed mutably and has as many bytes as the call may write.
        let read = unsafe { libc::read(pipe[0], out.as_mut_ptr().cast(), out.len()) };
        read == out.len() as isize && written == read
    }
}

/// The stack from one address upwards, copied piece by piece as it is walked.
pub(crate) struct StackCopy<'a> {
    memory: &'a Memory,
    start: u64,
    bytes: Vec<u8>,
    /// No further piece can be had.
    ended: bool,
}

impl<'a> StackCopy<'a> {
    pub(crate) fn new(start: u64, memory: &'a Memory) -> StackCopy<'a> {
        StackCopy {
            memory,
            start,
            bytes: Vec::new(),
            ended: false,
        }
    }

    /// Reads a word of the stack, or of anything else.
    pub(crate) fn word(&mut self, address: u64) -> Result<u64, Unreadable> {
        loop {
            let offset = address.checked_sub(self.start).ok_or(Unreadable);
            let offset = offset.map_or(usize::MAX, |offset| offset as usize);
            if let Some(word) = self.bytes.get(offset..).and_then(<[u8]>::first_chunk) {
                return Ok(u64::from_le_bytes(*word));
            }
            if self.ended || offset >= self.bytes.len() + PIECE_BYTES {
                return self.memory.word(address);
            }
            self.add_piece();
        }
    }

    fn add_piece(&mut self) {
        let from = self.start.wrapping_add(self.bytes.len() as u64);
        // Pieces end with a page: a page is there or it is not.
        let len = PIECE_BYTES - from as usize % PAGE_BYTES;
        let known = self.bytes.len();
        self.bytes.resize(known + len, 0);
        if known + len > STACK_BYTES_MAX || !self.memory.copy(from, &mut self.bytes[known..]) {
            self.bytes.truncate(known);
            self.ended = true;
        }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if let Some(pipe) = self.pipe.get() {
            for descriptor in pipe {
                // SAFETY: this reader opened the descriptor, hands it to nobody, and ends here.
                unsafe { libc::close(descriptor) };
            }
        }
    }
}

struct Forbidden;

/// Copies bytes; `false` when not all of them are mapped and readable.
fn copy_by_readv(process: libc::pid_t, address: u64, out: &mut [u8]) -> Result<bool, Forbidden> {
    let local = libc::iovec {
        iov_base: out.as_mut_ptr().cast(),
        iov_len: out.len(),
    };
    let remote = libc::iovec {
        iov_base: address as *mut libc::c_void,
        iov_len: out.len(),
    };
    // SAFETY: both lists have the one entry that is told. `out` is borrowed mutably and has
    // `iov_len` bytes; the source is only read, and the kernel answers where it is not mapped.
    let copied = unsafe { libc::process_vm_readv(process, &local, 1, &remote, 1, 0) };
    if copied >= 0 {
        return Ok(copied == out.len() as isize);
    }
    match std::io::Error::last_os_error().raw_os_error() {
        Some(libc::EPERM | libc::ENOSYS | libc::EACCES) => Err(Forbidden),
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_is_there_and_nothing_else() {
        let data: Vec<u8> = (0..=255).cycle().take(3 * PAGE_BYTES).collect();
        let memory = Memory::new(1 << 20);
        let mut copy = vec![0; data.len()];
        assert_eq!(memory.read(data.as_ptr() as u64, &mut copy), Ok(()));
        assert_eq!(copy, data);
        assert_eq!(memory.word(0), Err(Unreadable));
        assert_eq!(memory.word(u64::MAX - 3), Err(Unreadable));
        assert_eq!(memory.word(0xffff_8000_0000_0000), Err(Unreadable));
    }

    #[test]
    fn the_pipe_reads_the_same() {
        let data = vec![7_u8; 3 * PAGE_BYTES];
        let memory = Memory::new(1 << 20);
        let base = (data.as_ptr() as u64 + PAGE_BYTES as u64) & !(PAGE_BYTES as u64 - 1);
        let mut page = [0; PAGE_BYTES];
        assert!(memory.copy_by_pipe(base, &mut page));
        assert_eq!(page, [7; PAGE_BYTES]);
        assert!(!memory.copy_by_pipe(0, &mut page));
        assert!(
            memory.copy_by_pipe(base, &mut page),
            "a failure leaves the pipe empty"
        );
    }

    #[test]
    fn a_stack_is_copied_in_pieces() {
        let words: Vec<u64> = (0..20_000).collect();
        let memory = Memory::new(1 << 20);
        let base = words.as_ptr() as u64;
        let mut stack = StackCopy::new(base + 8, &memory);
        for at in [1, 2, 700, 600, 3000, 9999] {
            assert_eq!(stack.word(base + at * 8), Ok(at));
        }
        // Below the start, and far above it.
        assert_eq!(stack.word(base), Ok(0));
        assert_eq!(stack.word(base + 19_999 * 8), Ok(19_999));
        assert_eq!(stack.word(0), Err(Unreadable));
        assert_eq!(StackCopy::new(16, &memory).word(24), Err(Unreadable));
    }

    #[test]
    fn the_budget_ends_reading() {
        let data = vec![1_u8; 4 * PAGE_BYTES];
        let memory = Memory::new(PAGE_BYTES);
        let base = data.as_ptr() as u64;
        assert!(memory.word(base).is_ok());
        assert_eq!(memory.word(base + 2 * PAGE_BYTES as u64), Err(Unreadable));
    }
}
