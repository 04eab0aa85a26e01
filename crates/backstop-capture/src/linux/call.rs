//! What a register held when a call was made, though the callee has overwritten it since.
//!
//! Debug information may place a variable in a register that no callee keeps, or say that it
//! is what an argument's register held on entry. Both are lost by the time a stack is walked,
//! unless the instructions before the call show where the register's value came from: a
//! constant, the stack pointer, a register that callees keep, or the function's own argument.
//! That is a proof and no guess, because only straight code is believed: from the last place
//! that anything in the function can jump to, up to the call. Functions whose jumps cannot all
//! be seen, as those with jump tables, are not judged.

use std::sync::{Arc, Mutex, PoisonError};

use iced_x86::{
    Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpKind,
    Register,
};

use super::address_map::AddressMap;
use super::exceptions::landing_pads;
use super::follower::{is_write, stub_target};
use super::memory::Memory;
use super::unwind::Step;

/// Bytes of a function that is judged; reading a longer one costs more than it tells.
const FUNCTION_BYTES_MAX: u64 = 256 << 10;
/// Places that are kept; a program fails at few different ones.
const SITES_MAX: usize = 1 << 14;
/// A module's address and one in its code: another library may be loaded at the same place later.
type SiteKey = (usize, u64);
/// Functions that hand an argument on unchanged, one to the next.
const HANDED_ON_MAX: usize = 8;

/// The calls of a stack, seen from one of its frames.
#[derive(Clone, Copy)]
pub(crate) struct Calls<'a> {
    pub(crate) steps: &'a [Step],
    /// The frame, counted from the innermost one.
    pub(crate) at: usize,
    pub(crate) memory: &'a Memory,
}

impl Calls<'_> {
    /// What a register held when this frame made the call that it stands at.
    pub(crate) fn at_call(&self, register: gimli::Register) -> Option<u64> {
        self.held_at_call(number_of(register)?, HANDED_ON_MAX)
    }

    /// What a register held when this frame's function was entered.
    pub(crate) fn at_entry(&self, register: gimli::Register) -> Option<u64> {
        self.held_at_entry(number_of(register)?, HANDED_ON_MAX)
    }

    fn held_at_call(&self, number: usize, left: usize) -> Option<u64> {
        let step = self.steps.get(self.at)?;
        let held = self.site(step)?.held[number]?;
        let (value, low) = match held {
            Held::Constant(value) => return Some(value),
            Held::Kept {
                register,
                offset,
                low,
            } => {
                let kept = step.registers.get(dwarf_number(register)?)?;
                (kept.wrapping_add(offset), low)
            }
            Held::Entry {
                register,
                offset,
                low,
            } => {
                let entered = self.held_at_entry(register, left.checked_sub(1)?)?;
                (entered.wrapping_add(offset), low)
            }
        };
        Some(if low { value & LOW } else { value })
    }

    fn held_at_entry(&self, number: usize, left: usize) -> Option<u64> {
        let own = self.steps.get(self.at)?.unwinding?.function;
        let caller = Calls {
            at: self.at + 1,
            ..*self
        };
        // A function that was jumped to instead has other arguments than were passed here.
        (caller.site(self.steps.get(caller.at)?)?.target == Some(own)).then_some(())?;
        caller.held_at_call(number, left)
    }

    /// The call that a frame stands at; judged once.
    fn site(&self, step: &Step) -> Option<Arc<Site>> {
        // The innermost frame, and one that a signal interrupted, stand at no call.
        if step.address == step.lookup {
            return None;
        }
        static KNOWN: Mutex<Option<AddressMap<SiteKey, Option<Arc<Site>>>>> = Mutex::new(None);
        let key = (std::ptr::from_ref(step.module).addr(), step.address);
        let lock = || KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().as_ref().and_then(|known| known.get(&key).cloned());
        known.unwrap_or_else(|| {
            let site = self.judge(step).map(Arc::new);
            let mut known = lock();
            let known = known.get_or_insert_default();
            if known.len() >= SITES_MAX {
                known.clear();
            }
            known.insert(key, site.clone());
            site
        })
    }

    fn judge(&self, step: &Step) -> Option<Site> {
        let unwinding = step.unwinding?;
        let len = unwinding
            .end
            .checked_sub(unwinding.function)
            .filter(|len| *len <= FUNCTION_BYTES_MAX)?;
        let mut code = vec![0; usize::try_from(len).ok()?];
        self.memory.read(unwinding.function, &mut code).ok()?;
        let pads = match unwinding.table {
            Some(_) => landing_pads(&unwinding, self.memory)?,
            None => Vec::new(),
        };
        let target = |instruction: &Instruction| {
            let direct = match instruction.flow_control() {
                FlowControl::Call => instruction.near_branch_target(),
                _ if instruction.is_ip_rel_memory_operand() => {
                    self.memory.word(instruction.ip_rel_memory_address()).ok()?
                }
                _ => return None,
            };
            Some(stub_target(direct, self.memory))
        };
        judge(&code, unwinding.function, step.address, &pads, target)
    }
}

/// What is known of one call.
#[derive(Debug, PartialEq, Eq)]
struct Site {
    /// The function that is called, where the instruction says so.
    target: Option<u64>,
    held: [Option<Held>; REGISTERS],
}

/// Where the value of a register is to be had after the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Constant(u64),
    /// A register that callees keep, plus an offset.
    Kept {
        register: usize,
        offset: u64,
        low: bool,
    },
    /// What an argument's register held when the function was entered, plus an offset.
    Entry {
        register: usize,
        offset: u64,
        low: bool,
    },
}

const REGISTERS: usize = 16;
/// The half of a register that is left when a 32-bit value is moved.
const LOW: u64 = 0xffff_ffff;
const RSP: usize = 4;
/// `rbx`, `rbp`, `r12` to `r15`, and the stack pointer.
const KEPT: [usize; 7] = [3, 5, 12, 13, 14, 15, RSP];
/// `rdi`, `rsi`, `rdx`, `rcx`, `r8` and `r9`.
const ARGUMENTS: [usize; 6] = [7, 6, 2, 1, 8, 9];

/// A register's value in terms of something that need not be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Symbol {
    base: Base,
    offset: u64,
    /// Only the low half of the sum, the rest zero.
    low: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    Nothing,
    /// What the register held where the straight code begins.
    Start(usize),
    /// Something that an instruction made.
    Made(u32),
}

impl Symbol {
    fn constant(value: u64) -> Symbol {
        Symbol {
            base: Base::Nothing,
            offset: value,
            low: false,
        }
    }

    fn plus(self, offset: u64) -> Option<Symbol> {
        (!self.low).then(|| Symbol {
            offset: self.offset.wrapping_add(offset),
            ..self
        })
    }

    fn low_half(self) -> Symbol {
        match self.base {
            Base::Nothing => Symbol::constant(self.offset & LOW),
            _ => Symbol { low: true, ..self },
        }
    }
}

/// Judges the call that returns to `back` in the function whose code lies at `start`.
fn judge(
    code: &[u8],
    start: u64,
    back: u64,
    pads: &[u64],
    target: impl Fn(&Instruction) -> Option<u64>,
) -> Option<Site> {
    let mut joined = start;
    let mut calls = false;
    let mut join = |at: u64| {
        if at > joined && at < back {
            joined = at;
        }
    };
    pads.iter().for_each(|pad| join(*pad));
    let mut instruction = Instruction::default();
    let mut decoder = Decoder::with_ip(64, code, start, DecoderOptions::NONE);
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        if instruction.is_invalid() {
            return None;
        }
        match instruction.flow_control() {
            FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => {
                join(instruction.near_branch_target());
            }
            // A jump through memory without an index leaves the function; any other may be a
            // jump table, which can lead anywhere.
            FlowControl::IndirectBranch
                if instruction.op0_kind() == OpKind::Memory
                    && instruction.memory_index() == Register::None => {}
            FlowControl::IndirectBranch | FlowControl::XbeginXabortXend => return None,
            FlowControl::Call | FlowControl::IndirectCall => {
                calls |= instruction.next_ip() == back;
            }
            _ => {}
        }
    }
    if !calls {
        return None;
    }
    let straight = code.get(usize::try_from(joined - start).ok()?..)?;
    let mut follower = Follower::new();
    let mut decoder = Decoder::with_ip(64, straight, joined, DecoderOptions::NONE);
    loop {
        decoder.decode_out(&mut instruction);
        // Beyond the call: the last jump led into the middle of an instruction.
        if instruction.is_invalid() || instruction.next_ip() > back {
            return None;
        }
        if instruction.next_ip() == back {
            break;
        }
        follower.step(&instruction)?;
    }
    let entered = joined == start;
    Some(Site {
        target: target(&instruction),
        held: std::array::from_fn(|number| follower.held(number, entered)),
    })
}

struct Follower {
    registers: [Symbol; REGISTERS],
    made: u32,
    info: InstructionInfoFactory,
}

impl Follower {
    fn new() -> Follower {
        Follower {
            registers: std::array::from_fn(|number| Symbol {
                base: Base::Start(number),
                offset: 0,
                low: false,
            }),
            made: 0,
            info: InstructionInfoFactory::new(),
        }
    }

    fn fresh(&mut self) -> Symbol {
        self.made += 1;
        Symbol {
            base: Base::Made(self.made),
            offset: 0,
            low: false,
        }
    }

    fn step(&mut self, instruction: &Instruction) -> Option<()> {
        if matches!(
            instruction.flow_control(),
            FlowControl::Call | FlowControl::IndirectCall
        ) {
            for number in (0..REGISTERS).filter(|number| !KEPT.contains(number)) {
                self.registers[number] = self.fresh();
            }
            return Some(());
        }
        let known = self.known(instruction);
        let pushed = match instruction.mnemonic() {
            Mnemonic::Push | Mnemonic::Pop => {
                let by = i64::from(instruction.stack_pointer_increment());
                self.registers[RSP].plus(by as u64)
            }
            _ => None,
        };
        let written: Vec<usize> = self
            .info
            .info(instruction)
            .used_registers()
            .iter()
            .filter(|used| is_write(used.access()) && used.register().is_gpr())
            .map(|used| used.register().full_register().number())
            .collect();
        for number in written {
            *self.registers.get_mut(number)? = self.fresh();
        }
        if let Some((number, symbol)) = known {
            self.registers[number] = symbol;
        }
        if let Some(pushed) = pushed.filter(|_| instruction.op0_register() != Register::RSP) {
            self.registers[RSP] = pushed;
        }
        Some(())
    }

    /// The register that an instruction sets to something that can be told, and to what.
    fn known(&self, instruction: &Instruction) -> Option<(usize, Symbol)> {
        let to = instruction.op0_register();
        if instruction.op0_kind() != OpKind::Register || !to.is_gpr() || to.size() < 4 {
            return None;
        }
        let number = to.full_register().number();
        let from = instruction.op1_kind();
        let source = instruction.op1_register();
        let symbol = match instruction.mnemonic() {
            Mnemonic::Mov if from == OpKind::Register && source.is_gpr() => {
                self.registers[source.full_register().number()]
            }
            Mnemonic::Mov if from != OpKind::Memory && from != OpKind::Register => {
                Symbol::constant(instruction.try_immediate(1).ok()?)
            }
            Mnemonic::Xor if from == OpKind::Register && source == to => Symbol::constant(0),
            Mnemonic::Lea if instruction.is_ip_rel_memory_operand() => {
                Symbol::constant(instruction.ip_rel_memory_address())
            }
            Mnemonic::Lea if instruction.memory_index() == Register::None => {
                let base = instruction.memory_base();
                let displacement = instruction.memory_displacement64();
                match base {
                    Register::None => Symbol::constant(displacement),
                    base if base.is_gpr64() => self.registers[base.number()].plus(displacement)?,
                    _ => return None,
                }
            }
            Mnemonic::Add | Mnemonic::Sub if to.size() == 8 && from != OpKind::Memory => {
                let by = instruction.try_immediate(1).ok()?;
                let subtract = instruction.mnemonic() == Mnemonic::Sub;
                let by = if subtract { by.wrapping_neg() } else { by };
                self.registers[number].plus(by)?
            }
            _ => return None,
        };
        let symbol = if to.size() == 8 {
            symbol
        } else {
            symbol.low_half()
        };
        Some((number, symbol))
    }

    fn held(&self, number: usize, entered: bool) -> Option<Held> {
        let symbol = self.registers[number];
        if symbol.base == Base::Nothing {
            return Some(Held::Constant(symbol.offset));
        }
        let kept = KEPT.into_iter().find_map(|register| {
            let kept = self.registers[register];
            let same = kept.base == symbol.base;
            let offset = symbol.offset.wrapping_sub(kept.offset);
            // From the low half of a sum only that half of the same sum can be told.
            (same && (!kept.low || symbol.low && offset == 0)).then_some(Held::Kept {
                register,
                offset,
                low: symbol.low,
            })
        });
        kept.or_else(|| match symbol.base {
            Base::Start(register) if entered && ARGUMENTS.contains(&register) => {
                Some(Held::Entry {
                    register,
                    offset: symbol.offset,
                    low: symbol.low,
                })
            }
            _ => None,
        })
    }
}

/// The numbers of DWARF and of instructions differ for the first eight registers.
const DWARF_ORDER: [usize; 8] = [0, 2, 1, 3, 6, 7, 5, 4];

fn number_of(register: gimli::Register) -> Option<usize> {
    match usize::from(register.0) {
        number @ 0..8 => Some(DWARF_ORDER[number]),
        number @ 8..REGISTERS => Some(number),
        _ => None,
    }
}

fn dwarf_number(number: usize) -> Option<gimli::Register> {
    let dwarf = match number {
        0..8 => DWARF_ORDER.iter().position(|own| *own == number)?,
        number => number,
    };
    Some(gimli::Register(u16::try_from(dwarf).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 0x1000;
    /// `call` to the next instruction.
    const CALL: [u8; 5] = [0xe8, 0, 0, 0, 0];

    fn site(before: &[u8], after: &[u8], pads: &[u64]) -> Option<Site> {
        let code = [before, &CALL, after].concat();
        let back = START + before.len() as u64 + CALL.len() as u64;
        judge(&code, START, back, pads, |call| {
            Some(call.near_branch_target())
        })
    }

    fn held(before: &[u8], number: usize) -> Option<Held> {
        site(before, &[0xc3], &[]).and_then(|site| site.held[number])
    }

    const RDI: usize = 7;
    const RSI: usize = 6;
    const RBX: usize = 3;

    #[test]
    fn arguments_come_from_where_the_code_takes_them() {
        let kept = |register, offset, low| {
            Some(Held::Kept {
                register,
                offset,
                low,
            })
        };
        // mov rdi, rbx
        assert_eq!(held(&[0x48, 0x89, 0xdf], RDI), kept(RBX, 0, false));
        // mov edi, ebx
        assert_eq!(held(&[0x89, 0xdf], RDI), kept(RBX, 0, true));
        // lea rdi, [rsp + 16]
        assert_eq!(
            held(&[0x48, 0x8d, 0x7c, 0x24, 16], RDI),
            kept(RSP, 16, false)
        );
        // mov edi, 7
        assert_eq!(held(&[0xbf, 7, 0, 0, 0], RDI), Some(Held::Constant(7)));
        // xor esi, esi
        assert_eq!(held(&[0x31, 0xf6], RSI), Some(Held::Constant(0)));
        // mov rbx, [rdi]; mov rdi, rbx: whatever was loaded is kept in rbx.
        assert_eq!(
            held(&[0x48, 0x8b, 0x1f, 0x48, 0x89, 0xdf], RDI),
            kept(RBX, 0, false)
        );
        // push rbx; lea rsi, [rdi + 8]: the function's own argument, handed on.
        assert_eq!(
            held(&[0x53, 0x48, 0x8d, 0x77, 8], RSI),
            Some(Held::Entry {
                register: RDI,
                offset: 8,
                low: false
            })
        );
    }

    #[test]
    fn what_is_no_proof_is_not_told() {
        // mov rdi, [rsp]: the slot may have changed since.
        assert_eq!(held(&[0x48, 0x8b, 0x3c, 0x24], RDI), None);
        // mov rdi, rbx; inc rbx
        assert_eq!(held(&[0x48, 0x89, 0xdf, 0x48, 0xff, 0xc3], RDI), None);
        // call; and what the first callee left in rdi.
        assert_eq!(held(&CALL, RDI), None);
        // mov ebx, edi; mov rsi, rdi: the upper half of rsi is in no register that is kept.
        let halves = held(&[0x89, 0xfb, 0x48, 0x89, 0xfe], RSI);
        assert!(matches!(halves, Some(Held::Entry { .. })), "{halves:?}");
    }

    #[test]
    fn only_straight_code_is_believed() {
        // mov rdi, rbx; nop; call; and a jump back to the `nop`, so rdi may be another one.
        let before = [0x48, 0x89, 0xdf, 0x90];
        let back_to_nop = [0xeb, 0xf8];
        let jumped = site(&before, &back_to_nop, &[]).expect("it is a call");
        assert_eq!(jumped.held[RDI], None);
        let straight = site(&before, &[0xc3], &[]).expect("it is a call");
        assert!(straight.held[RDI].is_some());
        assert_eq!(straight.target, Some(START + 9));
        // The same for a landing pad at the `nop`.
        let landed = site(&before, &[0xc3], &[START + 3]).expect("it is a call");
        assert_eq!(landed.held[RDI], None);
        // jmp rax: a jump table may lead anywhere.
        assert_eq!(site(&before, &[0xff, 0xe0], &[]), None);
        // A return address that follows no call.
        assert_eq!(judge(&[0x90, 0x90], START, START + 1, &[], |_| None), None);
    }

    #[test]
    fn numbers_of_registers() {
        for number in 0..REGISTERS {
            let dwarf = dwarf_number(number).expect("there are sixteen");
            assert_eq!(number_of(dwarf), Some(number));
        }
        assert_eq!(number_of(gimli::X86_64::RDI), Some(RDI));
        assert_eq!(number_of(gimli::X86_64::RSI), Some(RSI));
        assert_eq!(number_of(gimli::X86_64::RA), None);
    }
}
