//! Follows instructions without running them, on the registers and memory of a frame.
//!
//! Values that are not known stay unknown, and following ends where one of them decides the
//! way. What is noted on the way is what a landing pad does: drop, free and release.

use std::collections::{HashMap, HashSet};

use iced_x86::{
    Code, ConditionCode, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory,
    Mnemonic, OpAccess, OpKind, Register,
};

use super::memory::Memory;
use super::module::Module;
use super::registers::Registers;

/// Instructions that are followed; a landing pad that frees a long list stops being a proof here.
const STEPS_MAX: usize = 20_000;
/// Addresses that are noted.
const TOUCHED_MAX: usize = 4096;

/// What was done by the instructions that were followed.
#[derive(Debug, Default)]
pub(super) struct Followed {
    /// Addresses of values that are dropped, with the type's name as the symbol has it.
    pub(super) dropped: Vec<(u64, String)>,
    /// Addresses that are freed, released or handed to a function.
    pub(super) touched: Vec<u64>,
    /// Addresses that pointers are loaded from, which a landing pad does only to drop what they belong to.
    pub(super) loaded: HashSet<u64>,
}

/// Follows from an address to the end of the landing pad, or to where it cannot be followed.
///
/// What was seen before that point happens in any case, so it is kept.
pub(super) fn follow(
    pad: u64,
    registers: &Registers,
    modules: &[&'static Module],
    memory: &Memory,
) -> Followed {
    let mut follower = Follower::new(registers, modules, memory);
    follower.try_follow(pad);
    follower.followed
}

/// Follows instructions on values of which some are unknown.
struct Follower<'a> {
    registers: [Option<u64>; 16],
    vectors: [Option<u128>; 16],
    flags: Flags,
    /// Bytes written on the way; `None` for an unknown one.
    written: HashMap<u64, Option<u8>>,
    modules: &'a [&'static Module],
    memory: &'a Memory,
    followed: Followed,
    info: InstructionInfoFactory,
}

#[derive(Debug, Clone, Copy, Default)]
struct Flags {
    zero: Option<bool>,
    sign: Option<bool>,
    carry: Option<bool>,
    overflow: Option<bool>,
}

enum Next {
    At(u64),
    Done,
}

impl<'a> Follower<'a> {
    fn new(kept: &Registers, modules: &'a [&'static Module], memory: &'a Memory) -> Follower<'a> {
        let mut registers = [None; 16];
        // The numbers of DWARF and of instructions differ.
        const ORDER: [(u16, usize); 7] = [
            (3, 3),
            (6, 5),
            (7, 4),
            (12, 12),
            (13, 13),
            (14, 14),
            (15, 15),
        ];
        for (dwarf, number) in ORDER {
            registers[number] = kept.get(gimli::Register(dwarf));
        }
        Follower {
            registers,
            vectors: [None; 16],
            flags: Flags::default(),
            written: HashMap::new(),
            modules,
            memory,
            followed: Followed::default(),
            info: InstructionInfoFactory::new(),
        }
    }

    fn try_follow(&mut self, pad: u64) -> Option<()> {
        let mut at = pad;
        let mut code = [0; 15];
        for _ in 0..STEPS_MAX {
            let module = self.modules.iter().find(|module| module.has_code(at))?;
            let len = (1..=code.len())
                .rev()
                .find(|len| module.has_code(at + *len as u64 - 1))?;
            self.memory.read(at, &mut code[..len]).ok()?;
            let instruction = Decoder::with_ip(64, &code[..len], at, DecoderOptions::NONE).decode();
            if instruction.is_invalid() {
                return None;
            }
            match self.step(&instruction)? {
                Next::At(next) => at = next,
                Next::Done => return Some(()),
            }
        }
        None
    }

    fn step(&mut self, instruction: &Instruction) -> Option<Next> {
        let next = instruction.next_ip();
        match instruction.flow_control() {
            FlowControl::Next => self.compute(instruction)?,
            FlowControl::UnconditionalBranch => {
                return Some(Next::At(instruction.near_branch_target()));
            }
            FlowControl::ConditionalBranch => {
                let taken = self.flags.holds(instruction.condition_code())?;
                return Some(Next::At(if taken {
                    instruction.near_branch_target()
                } else {
                    next
                }));
            }
            FlowControl::Call => return self.call(instruction.near_branch_target(), next),
            FlowControl::IndirectCall => {
                let target = self.operand(instruction, 0);
                return match target {
                    Some(target) => self.call(target, next),
                    None => {
                        self.after_call();
                        Some(Next::At(next))
                    }
                };
            }
            // The landing pad caught the panic, or aborts: nothing more is dropped.
            FlowControl::Return | FlowControl::Exception | FlowControl::Interrupt => {
                return Some(Next::Done);
            }
            _ => return None,
        }
        Some(Next::At(next))
    }

    fn call(&mut self, target: u64, next: u64) -> Option<Next> {
        let target = stub_target(target, self.memory);
        let name = self.name(target).unwrap_or_default();
        if name.contains("_Unwind_Resume")
            || name.contains("panic_in_cleanup")
            || name.contains("panic_cannot_unwind")
        {
            return Some(Next::Done);
        }
        let argument = self.registers[7];
        if let Some(argument) = argument {
            if let Some(ty) = dropped_in_place(&name).or_else(|| dropped_by_glue(&name)) {
                self.followed.dropped.push((argument, ty.to_owned()));
            }
            self.touch(argument);
        }
        if self.followed.dropped.len() > TOUCHED_MAX {
            return None;
        }
        self.after_call();
        Some(Next::At(next))
    }

    fn name(&self, target: u64) -> Option<String> {
        let module = self.modules.iter().find(|module| module.has_code(target))?;
        let symbol = module
            .debug()?
            .symbol_at(target.wrapping_sub(module.bias))?;
        Some(format!("{:#}", rustc_demangle::demangle(symbol)))
    }

    fn after_call(&mut self) {
        for number in [0, 1, 2, 6, 7, 8, 9, 10, 11] {
            self.registers[number] = None;
        }
        self.vectors = [None; 16];
        self.flags = Flags::default();
    }

    fn touch(&mut self, address: u64) {
        if self.followed.touched.len() < TOUCHED_MAX {
            self.followed.touched.push(address);
        }
    }

    fn compute(&mut self, instruction: &Instruction) -> Option<()> {
        let size = operand_size(instruction);
        let mask = mask_of(size);
        self.note_load(instruction);
        let (left, right) = (self.operand(instruction, 0), self.operand(instruction, 1));
        match instruction.mnemonic() {
            Mnemonic::Nop | Mnemonic::Endbr64 | Mnemonic::Cld => Some(()),
            Mnemonic::Mov if size <= 8 => self.store(instruction, right),
            Mnemonic::Movzx => self.store(instruction, right),
            Mnemonic::Movsx | Mnemonic::Movsxd => {
                let from = instruction.op1_register();
                let bits = if instruction.op1_kind() == OpKind::Register {
                    from.size()
                } else {
                    instruction.memory_size().size()
                };
                self.store(instruction, right.map(|value| sign_extend(value, bits)))
            }
            Mnemonic::Lea => {
                let address = self.address(instruction);
                self.store(instruction, address)
            }
            Mnemonic::Xor
                if instruction.op0_kind() == OpKind::Register
                    && instruction.op1_kind() == OpKind::Register
                    && instruction.op0_register() == instruction.op1_register() =>
            {
                self.flags = Flags::of_result(0, size);
                self.store(instruction, Some(0))
            }
            Mnemonic::And | Mnemonic::Or | Mnemonic::Xor => {
                let result = left.zip(right).map(|(left, right)| match instruction.mnemonic() {
                    Mnemonic::And => left & right,
                    Mnemonic::Or => left | right,
                    _ => left ^ right,
                } & mask);
                self.flags = result
                    .map(|result| Flags::of_result(result, size))
                    .unwrap_or_default();
                self.store(instruction, result)
            }
            Mnemonic::Test => {
                self.flags = left
                    .zip(right)
                    .map(|(left, right)| Flags::of_result(left & right & mask, size))
                    .unwrap_or_default();
                Some(())
            }
            Mnemonic::Cmp => {
                self.flags = left
                    .zip(right)
                    .map(|(left, right)| Flags::of_difference(left, right, size))
                    .unwrap_or_default();
                Some(())
            }
            Mnemonic::Add | Mnemonic::Sub | Mnemonic::Inc | Mnemonic::Dec => {
                self.note_release(instruction);
                let right = match instruction.mnemonic() {
                    Mnemonic::Inc | Mnemonic::Dec => Some(1),
                    _ => right,
                };
                let subtract = matches!(instruction.mnemonic(), Mnemonic::Sub | Mnemonic::Dec);
                let pair = left.zip(right);
                self.flags = match pair {
                    Some((left, right)) if subtract => Flags::of_difference(left, right, size),
                    Some((left, right)) => Flags {
                        carry: None,
                        overflow: None,
                        ..Flags::of_result(left.wrapping_add(right) & mask, size)
                    },
                    None => Flags::default(),
                };
                let result = pair.map(|(left, right)| match subtract {
                    true => left.wrapping_sub(right) & mask,
                    false => left.wrapping_add(right) & mask,
                });
                self.store(instruction, result)
            }
            Mnemonic::Shl | Mnemonic::Shr if instruction.op1_kind() == OpKind::Immediate8 => {
                let result = left.zip(right).map(|(left, right)| {
                    let by = (right & 63) as u32;
                    if instruction.mnemonic() == Mnemonic::Shl { left << by } else { (left & mask) >> by }
                } & mask);
                self.flags = result
                    .map(|result| Flags {
                        carry: None,
                        overflow: None,
                        ..Flags::of_result(result, size)
                    })
                    .unwrap_or_default();
                self.store(instruction, result)
            }
            Mnemonic::Push => {
                let value = left;
                let sp = self.registers[4]?.wrapping_sub(8);
                self.registers[4] = Some(sp);
                self.write(sp, value, 8);
                Some(())
            }
            Mnemonic::Pop => {
                let sp = self.registers[4]?;
                let value = self.load(sp, 8);
                self.registers[4] = Some(sp.wrapping_add(8));
                self.store(instruction, value)
            }
            Mnemonic::Not => self.store(instruction, left.map(|value| !value & mask)),
            Mnemonic::Neg => {
                self.flags = left
                    .map(|value| Flags::of_difference(0, value, size))
                    .unwrap_or_default();
                self.store(instruction, left.map(|value| value.wrapping_neg() & mask))
            }
            // Hash tables find their full slots with these.
            Mnemonic::Bsf | Mnemonic::Tzcnt => {
                self.flags = Flags {
                    zero: right.map(|value| value == 0),
                    ..Flags::default()
                };
                let known = right.filter(|value| *value != 0);
                self.store(
                    instruction,
                    known.map(|value| u64::from(value.trailing_zeros())),
                )
            }
            Mnemonic::Imul if instruction.op_count() == 3 => {
                let by = self.operand(instruction, 2);
                self.flags = Flags::default();
                self.store(
                    instruction,
                    right
                        .zip(by)
                        .map(|(value, by)| value.wrapping_mul(by) & mask),
                )
            }
            Mnemonic::Movdqa | Mnemonic::Movdqu | Mnemonic::Movaps | Mnemonic::Movups => {
                self.move_vector(instruction)
            }
            Mnemonic::Pmovmskb if is_vector(instruction.op1_register()) => {
                let bytes =
                    self.vectors[instruction.op1_register().number()].map(u128::to_le_bytes);
                let bits = bytes.map(|bytes| {
                    bytes
                        .iter()
                        .enumerate()
                        .map(|(at, byte)| u64::from(byte >> 7) << at)
                        .sum()
                });
                self.store(instruction, bits)
            }
            _ => self.forget_written(instruction),
        }
    }

    fn move_vector(&mut self, instruction: &Instruction) -> Option<()> {
        let load = |at: u64| {
            Some(
                u128::from(self.load(at, 8)?) | u128::from(self.load(at.wrapping_add(8), 8)?) << 64,
            )
        };
        let value = match instruction.op1_kind() {
            OpKind::Memory => self.address(instruction).and_then(load),
            _ if is_vector(instruction.op1_register()) => {
                self.vectors[instruction.op1_register().number()]
            }
            _ => None,
        };
        if instruction.op0_kind() == OpKind::Memory {
            let address = self.address(instruction)?;
            self.write(address, value.map(|value| value as u64), 8);
            self.write(
                address.wrapping_add(8),
                value.map(|value| (value >> 64) as u64),
                8,
            );
        } else if is_vector(instruction.op0_register()) {
            self.vectors[instruction.op0_register().number()] = value;
        }
        Some(())
    }

    /// A pointer that is loaded belongs to something that is being dropped.
    fn note_load(&mut self, instruction: &Instruction) {
        let loads = instruction.op1_kind() == OpKind::Memory
            && instruction.mnemonic() != Mnemonic::Lea
            || instruction.mnemonic() == Mnemonic::Push && instruction.op0_kind() == OpKind::Memory;
        if loads
            && instruction.memory_size().size() == 8
            && self.loaded_left()
            && let Some(address) = self.address(instruction)
            && !self.written.contains_key(&address)
        {
            self.followed.loaded.insert(address);
        }
    }

    fn loaded_left(&self) -> bool {
        self.followed.loaded.len() < TOUCHED_MAX
    }

    /// A count that is changed in memory is a reference that is given up.
    fn note_release(&mut self, instruction: &Instruction) {
        if instruction.op0_kind() == OpKind::Memory
            && let Some(address) = self.address(instruction)
        {
            self.touch(address);
        }
    }

    /// For instructions without a meaning here: what they write is unknown from then on.
    fn forget_written(&mut self, instruction: &Instruction) -> Option<()> {
        self.note_release(instruction);
        let info = self.info.info(instruction);
        let registers: Vec<Register> = info
            .used_registers()
            .iter()
            .filter(|used| is_write(used.access()))
            .map(|used| used.register())
            .collect();
        let writes_memory = info
            .used_memory()
            .iter()
            .any(|used| is_write(used.access()));
        let bytes = instruction.memory_size().size().max(1);
        for register in registers {
            if register.is_gpr() {
                self.registers[register.full_register().number()] = None;
            } else if is_vector(register) {
                self.vectors[register.number()] = None;
            }
        }
        if writes_memory {
            let address = self.address(instruction)?;
            for at in 0..bytes as u64 {
                self.written.insert(address.wrapping_add(at), None);
            }
        }
        self.flags = Flags::default();
        self.registers[4].map(|_| ())
    }

    fn operand(&self, instruction: &Instruction, operand: u32) -> Option<u64> {
        if operand >= instruction.op_count() {
            return None;
        }
        match instruction.op_kind(operand) {
            OpKind::Register => self.register(instruction.op_register(operand)),
            OpKind::Memory => {
                let bytes = instruction.memory_size().size();
                let address = self.address(instruction)?;
                if bytes > 8 {
                    None
                } else {
                    self.load(address, bytes)
                }
            }
            OpKind::NearBranch64 => Some(instruction.near_branch_target()),
            _ => instruction.try_immediate(operand).ok(),
        }
    }

    fn register(&self, register: Register) -> Option<u64> {
        if register == Register::RIP || !register.is_gpr() {
            return None;
        }
        let value = self.registers[register.full_register().number()]?;
        let value = if is_high_byte(register) {
            value >> 8
        } else {
            value
        };
        Some(value & mask_of(register.size()))
    }

    fn address(&self, instruction: &Instruction) -> Option<u64> {
        if instruction.memory_segment() == Register::FS
            || instruction.memory_segment() == Register::GS
        {
            return None;
        }
        if instruction.is_ip_rel_memory_operand() {
            return Some(instruction.ip_rel_memory_address());
        }
        let part = |register: Register| match register {
            Register::None => Some(0),
            register => self.register(register),
        };
        let index = part(instruction.memory_index())?
            .wrapping_mul(u64::from(instruction.memory_index_scale()));
        Some(
            part(instruction.memory_base())?
                .wrapping_add(index)
                .wrapping_add(instruction.memory_displacement64()),
        )
    }

    fn load(&self, address: u64, bytes: usize) -> Option<u64> {
        let mut value = self.memory.uint(address, bytes).ok()? as u64;
        for at in 0..bytes {
            if let Some(byte) = self.written.get(&address.wrapping_add(at as u64)) {
                value = value & !(0xff << (at * 8)) | u64::from((*byte)?) << (at * 8);
            }
        }
        Some(value)
    }

    fn store(&mut self, instruction: &Instruction, value: Option<u64>) -> Option<()> {
        match instruction.op0_kind() {
            OpKind::Register => {
                let register = instruction.op0_register();
                if !register.is_gpr() {
                    return Some(());
                }
                let number = register.full_register().number();
                // Writing half a register clears the rest; writing less keeps it.
                let kept = match register.size() {
                    8 | 4 => Some(0),
                    size => self.registers[number].map(|old| old & !mask_of(size)),
                };
                self.registers[number] = match (value, kept) {
                    (Some(value), Some(kept)) if !is_high_byte(register) => {
                        Some(kept | value & mask_of(register.size()))
                    }
                    _ => None,
                };
            }
            OpKind::Memory => {
                let address = self.address(instruction)?;
                self.write(address, value, instruction.memory_size().size());
            }
            _ => return None,
        }
        Some(())
    }

    fn write(&mut self, address: u64, value: Option<u64>, bytes: usize) {
        for at in 0..bytes.min(64) {
            let byte = value
                .filter(|_| at < 8)
                .map(|value| (value >> (at * 8)) as u8);
            self.written.insert(address.wrapping_add(at as u64), byte);
        }
    }
}

impl Flags {
    fn of_result(result: u64, size: usize) -> Flags {
        Flags {
            zero: Some(result & mask_of(size) == 0),
            sign: Some(result >> (size.min(8) * 8 - 1) & 1 == 1),
            carry: Some(false),
            overflow: Some(false),
        }
    }

    fn of_difference(left: u64, right: u64, size: usize) -> Flags {
        let (left, right) = (left & mask_of(size), right & mask_of(size));
        let result = left.wrapping_sub(right) & mask_of(size);
        let sign = |value: u64| value >> (size.min(8) * 8 - 1) & 1 == 1;
        Flags {
            zero: Some(result == 0),
            sign: Some(sign(result)),
            carry: Some(left < right),
            overflow: Some(sign(left) != sign(right) && sign(result) != sign(left)),
        }
    }

    fn holds(&self, condition: ConditionCode) -> Option<bool> {
        let Flags {
            zero,
            sign,
            carry,
            overflow,
        } = *self;
        Some(match condition {
            ConditionCode::e => zero?,
            ConditionCode::ne => !zero?,
            ConditionCode::s => sign?,
            ConditionCode::ns => !sign?,
            ConditionCode::b => carry?,
            ConditionCode::ae => !carry?,
            ConditionCode::be => carry? || zero?,
            ConditionCode::a => !carry? && !zero?,
            ConditionCode::l => sign? != overflow?,
            ConditionCode::ge => sign? == overflow?,
            ConditionCode::le => zero? || sign? != overflow?,
            ConditionCode::g => !zero? && sign? == overflow?,
            ConditionCode::o => overflow?,
            ConditionCode::no => !overflow?,
            _ => return None,
        })
    }
}

/// The function behind a `jmp *[rip + n]`; any other address is its own.
pub(super) fn stub_target(target: u64, memory: &Memory) -> u64 {
    let mut code = [0; 15];
    if memory.read(target, &mut code).is_err() {
        return target;
    }
    let mut decoder = Decoder::with_ip(64, &code, target, DecoderOptions::NONE);
    let mut instruction = decoder.decode();
    if instruction.mnemonic() == Mnemonic::Endbr64 {
        instruction = decoder.decode();
    }
    let is_jump = instruction.code() == Code::Jmp_rm64 && instruction.is_ip_rel_memory_operand();
    let address = is_jump.then(|| instruction.ip_rel_memory_address());
    address
        .and_then(|address| memory.word(address).ok())
        .unwrap_or(target)
}

/// `core::ptr::drop_in_place<shop::Guard>`, with `::` before the type in the newer symbols.
fn dropped_in_place(name: &str) -> Option<&str> {
    let (_, rest) = name.split_once("drop_in_place")?;
    let ty = rest.strip_prefix("::").unwrap_or(rest).strip_prefix('<')?;
    Some(ty.trim_end_matches('>'))
}

/// `<shop::Guard as core::ops::drop::Drop>::drop`, called on the value itself.
fn dropped_by_glue(name: &str) -> Option<&str> {
    let (ty, _) = name
        .strip_prefix('<')?
        .split_once(" as core::ops::drop::Drop>::drop")?;
    Some(ty)
}

fn operand_size(instruction: &Instruction) -> usize {
    match instruction.op0_kind() {
        OpKind::Register => instruction.op0_register().size(),
        OpKind::Memory => instruction.memory_size().size(),
        _ => 8,
    }
    .clamp(1, 64)
}

fn mask_of(size: usize) -> u64 {
    if size >= 8 {
        u64::MAX
    } else {
        (1 << (size * 8)) - 1
    }
}

fn sign_extend(value: u64, bytes: usize) -> u64 {
    let unused = 64 - (bytes.clamp(1, 8) * 8) as u32;
    ((value << unused) as i64 >> unused) as u64
}

fn is_vector(register: Register) -> bool {
    register.is_xmm() && register.number() < 16
}

fn is_high_byte(register: Register) -> bool {
    matches!(
        register,
        Register::AH | Register::BH | Register::CH | Register::DH
    )
}

pub(super) fn is_write(access: OpAccess) -> bool {
    matches!(
        access,
        OpAccess::Write | OpAccess::ReadWrite | OpAccess::CondWrite | OpAccess::ReadCondWrite
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_symbols_name_what_is_dropped() {
        let older = "core::ptr::drop_in_place<alloc::vec::Vec<u8>>";
        let newer = "core::ptr::drop_in_place::<alloc::vec::Vec<u8>>";
        assert_eq!(dropped_in_place(older), Some("alloc::vec::Vec<u8"));
        assert_eq!(dropped_in_place(newer), dropped_in_place(older));
        assert_eq!(dropped_in_place("shop::drop_in_place_of"), None);
        let own = "<shop::Guard as core::ops::drop::Drop>::drop";
        assert_eq!(dropped_by_glue(own), Some("shop::Guard"));
    }
}
