//! The registers of x86-64 in DWARF's numbering.
//!
//! Specification: System V ABI, AMD64 supplement, figure 3.36.
//! Another architecture needs this file alone: how many registers, which ones a
//! callee keeps, and how they are read.

use gimli::Register;

/// General registers and the return address.
pub(crate) const COUNT: usize = 17;
/// The stack pointer.
pub(crate) const SP: Register = gimli::X86_64::RSP;
/// The return address, and of the innermost frame the instruction pointer.
pub(crate) const RA: Register = gimli::X86_64::RA;

/// Registers that every function hands back as it found them.
pub(crate) const KEPT: [Register; 6] = [
    gimli::X86_64::RBX,
    gimli::X86_64::RBP,
    gimli::X86_64::R12,
    gimli::X86_64::R13,
    gimli::X86_64::R14,
    gimli::X86_64::R15,
];

/// The values of the registers in one frame; `None` where a callee has overwritten it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Registers([Option<u64>; COUNT]);

impl Registers {
    /// The registers of the function into which this is inlined, at this point.
    #[inline(always)]
    pub(crate) fn here() -> Registers {
        let mut kept = [0_u64; 8];
        // SAFETY: the instructions only store registers into `kept`, which has room for eight words.
        unsafe {
            std::arch::asm!(
                "mov [{0}], rbx",
                "mov [{0} + 8], rbp",
                "mov [{0} + 16], rsp",
                "mov [{0} + 24], r12",
                "mov [{0} + 32], r13",
                "mov [{0} + 40], r14",
                "mov [{0} + 48], r15",
                "lea {1}, [rip]",
                "mov [{0} + 56], {1}",
                in(reg) kept.as_mut_ptr(),
                out(reg) _,
                options(nostack, preserves_flags),
            );
        }
        let mut registers = Registers::default();
        let numbers = [
            gimli::X86_64::RBX,
            gimli::X86_64::RBP,
            SP,
            gimli::X86_64::R12,
            gimli::X86_64::R13,
            gimli::X86_64::R14,
            gimli::X86_64::R15,
            RA,
        ];
        for (number, value) in numbers.into_iter().zip(kept) {
            registers.set(number, Some(value));
        }
        registers
    }

    /// The value, unless it was overwritten or is a register that is not followed.
    pub(crate) fn get(&self, register: Register) -> Option<u64> {
        self.0.get(usize::from(register.0)).copied().flatten()
    }

    pub(crate) fn set(&mut self, register: Register, value: Option<u64>) {
        if let Some(slot) = self.0.get_mut(usize::from(register.0)) {
            *slot = value;
        }
    }
}
