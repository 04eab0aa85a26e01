//! Where unwinding enters a function: the table of its calls and landing pads.
//!
//! Format: <https://itanium-cxx-abi.github.io/cxx-abi/exceptions.pdf>.

use gimli::{EndianSlice, LittleEndian, Reader};

use super::memory::Memory;
use super::unwind::Unwinding;

/// Bytes of one table; a function that needs more is not judged.
const TABLE_BYTES_MAX: usize = 64 << 10;
/// Bytes before the first row: three of encodings, and two lengths.
const HEAD_BYTES_MAX: usize = 3 + 2 * 10;
const PAGE_BYTES: u64 = 4096;

/// The landing pad of the call at an address; 0 where unwinding just passes through.
pub(super) fn landing_pad(unwinding: &Unwinding, lookup: u64, memory: &Memory) -> Option<u64> {
    let offset = lookup.checked_sub(unwinding.function)?;
    let call = calls(unwinding, memory)?
        .into_iter()
        .find(|call| (call.start..call.start.saturating_add(call.len)).contains(&offset));
    // A call that is not listed must not unwind, so nothing says what is alive.
    call.map(|call| call.pad)
}

/// Where unwinding may enter a function.
pub(super) fn landing_pads(unwinding: &Unwinding, memory: &Memory) -> Option<Vec<u64>> {
    let pads = calls(unwinding, memory)?.into_iter().map(|call| call.pad);
    Some(pads.filter(|pad| *pad != 0).collect())
}

/// Calls of an exception table that stand in a row, and their landing pad.
struct Call {
    /// Counted from the start of the function.
    start: u64,
    len: u64,
    /// An address of the process; 0 for none.
    pad: u64,
}

fn calls(unwinding: &Unwinding, memory: &Memory) -> Option<Vec<Call>> {
    let address = unwinding.table?;
    let mut head = [0; HEAD_BYTES_MAX];
    let readable = read_start(address, &mut head, memory);
    let mut table = EndianSlice::new(&head[..readable], LittleEndian);
    let pads_start = match table.read_u8().ok()? {
        OMITTED => unwinding.function,
        _ => return None,
    };
    if table.read_u8().ok()? != OMITTED {
        table.read_uleb128().ok()?;
    }
    let encoding = table.read_u8().ok()?;
    let len = usize::try_from(table.read_uleb128().ok()?).ok()?;
    let mut bytes = vec![0; Some(len).filter(|len| *len <= TABLE_BYTES_MAX)?];
    let start = address.wrapping_add((readable - table.len()) as u64);
    memory.read(start, &mut bytes).ok()?;
    let mut rows = EndianSlice::new(&bytes, LittleEndian);
    let mut calls = Vec::new();
    while !rows.is_empty() {
        let mut number = || match encoding {
            ULEB128 => rows.read_uleb128().ok(),
            UDATA4 => rows.read_u32().ok().map(u64::from),
            _ => None,
        };
        let (start, len, pad) = (number()?, number()?, number()?);
        rows.read_uleb128().ok()?;
        let pad = match pad {
            0 => 0,
            pad => pads_start.wrapping_add(pad),
        };
        calls.push(Call { start, len, pad });
    }
    Some(calls)
}

/// Reads as much as is there, and says how much that is: a short table may end with its page.
fn read_start(address: u64, out: &mut [u8], memory: &Memory) -> usize {
    if memory.read(address, out).is_ok() {
        return out.len();
    }
    let page = (PAGE_BYTES - address % PAGE_BYTES) as usize;
    let len = page.min(out.len());
    match memory.read(address, &mut out[..len]) {
        Ok(()) => len,
        Err(_) => 0,
    }
}

/// `DW_EH_PE_omit`, `DW_EH_PE_uleb128` and `DW_EH_PE_udata4`.
const OMITTED: u8 = 0xff;
const ULEB128: u8 = 0x01;
const UDATA4: u8 = 0x03;
