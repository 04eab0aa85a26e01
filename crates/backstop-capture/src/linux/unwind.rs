//! Walks the stack by call frame information, keeping every register that is kept.
//!
//! A register that no rule mentions has its old value only if the calling convention
//! says so. Otherwise it is gone, and a variable in it is shown as lost rather than as
//! whatever a callee left there.

use gimli::{
    CfaRule, EndianSlice, EvaluationResult, LittleEndian, Location, Register, RegisterRule,
    UnwindContext, UnwindExpression, UnwindSection, Value,
};

use super::memory::Memory;
use super::module::{Module, UnwindTable};
use super::registers::{self, Registers};

type Slice = EndianSlice<'static, LittleEndian>;

/// Steps of an unwind expression; real ones have about ten.
const EXPRESSION_STEPS_MAX: u32 = 1000;

/// One physical frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    /// Where execution stands or continues.
    pub(crate) address: u64,
    /// An address inside the instruction that is being executed.
    pub(crate) lookup: u64,
    /// The registers as they are in this frame.
    pub(crate) registers: Registers,
    /// The canonical frame address, where the module has unwind information.
    pub(crate) cfa: Option<u64>,
    /// Where the function and its exception table are, where the module has unwind information.
    pub(crate) unwinding: Option<Unwinding>,
}

/// Where a function and its exception table are, as addresses of the process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unwinding {
    pub(crate) function: u64,
    pub(crate) end: u64,
    /// A function without one has nothing to drop.
    pub(crate) table: Option<u64>,
}

/// Walks at most `max` frames, innermost first.
pub(crate) fn walk(
    start: Registers,
    modules: &[&'static Module],
    memory: &Memory,
    max: usize,
) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut context = UnwindContext::new();
    let mut registers = start;
    let mut exact = true;
    while steps.len() < max {
        let Some(address) = registers.get(registers::RA).filter(|address| *address > 1) else {
            break;
        };
        let lookup = if exact { address } else { address - 1 };
        let Some(module) = modules.iter().find(|module| module.has_code(lookup)) else {
            break;
        };
        let caller = module
            .unwind()
            .and_then(|table| caller_of(&registers, lookup, table, &mut context, memory));
        steps.push(Step {
            address,
            lookup,
            registers,
            cfa: caller.as_ref().map(|caller| caller.cfa),
            unwinding: caller.as_ref().map(|caller| caller.unwinding),
        });
        let Some(caller) = caller else { break };
        // Every frame lies above its callee, or the walk would never end.
        let moved = caller.registers.get(registers::SP) > registers.get(registers::SP);
        if !moved && !caller.is_signal && steps.len() > 1 {
            break;
        }
        registers = caller.registers;
        exact = caller.is_signal;
    }
    steps
}

struct Caller {
    registers: Registers,
    cfa: u64,
    is_signal: bool,
    unwinding: Unwinding,
}

fn caller_of(
    registers: &Registers,
    lookup: u64,
    table: &UnwindTable,
    context: &mut UnwindContext<usize>,
    memory: &Memory,
) -> Option<Caller> {
    let fde = table
        .header
        .table()?
        .fde_for_address(
            &table.frames,
            &table.bases,
            lookup,
            |section, bases, offset| section.cie_from_offset(bases, offset),
        )
        .ok()?;
    let encoding = fde.cie().encoding();
    let is_signal = fde.is_signal_trampoline();
    let unwinding = Unwinding {
        function: fde.initial_address(),
        end: fde.end_address(),
        table: match fde.lsda() {
            Some(gimli::Pointer::Direct(table)) => Some(table),
            _ => None,
        },
    };
    let row = fde
        .unwind_info_for_address(&table.frames, &table.bases, context, lookup)
        .ok()?;
    let cfa = match row.cfa() {
        CfaRule::RegisterAndOffset { register, offset } => {
            registers.get(*register)?.wrapping_add_signed(*offset)
        }
        CfaRule::Expression(expression) => {
            evaluate(expression, table, encoding, registers, memory, None)?
        }
    };
    let mut caller = Registers::default();
    for number in 0..registers::COUNT as u16 {
        let register = Register(number);
        let value = match row.register(register) {
            None if registers::KEPT.contains(&register) => registers.get(register),
            None | Some(RegisterRule::Undefined | RegisterRule::Architectural) => None,
            Some(RegisterRule::SameValue) => registers.get(register),
            Some(RegisterRule::Offset(offset)) => memory.word(cfa.wrapping_add_signed(offset)).ok(),
            Some(RegisterRule::ValOffset(offset)) => Some(cfa.wrapping_add_signed(offset)),
            Some(RegisterRule::Register(other)) => registers.get(other),
            Some(RegisterRule::Expression(expression)) => {
                evaluate(&expression, table, encoding, registers, memory, Some(cfa))
                    .and_then(|address| memory.word(address).ok())
            }
            Some(RegisterRule::ValExpression(expression)) => {
                evaluate(&expression, table, encoding, registers, memory, Some(cfa))
            }
            Some(RegisterRule::Constant(value)) => Some(value),
        };
        caller.set(register, value);
    }
    if row.register(registers::SP).is_none() {
        caller.set(registers::SP, Some(cfa));
    }
    Some(Caller {
        registers: caller,
        cfa,
        is_signal,
        unwinding,
    })
}

fn evaluate(
    expression: &UnwindExpression<usize>,
    table: &UnwindTable,
    encoding: gimli::Encoding,
    registers: &Registers,
    memory: &Memory,
    initial: Option<u64>,
) -> Option<u64> {
    let expression: gimli::Expression<Slice> = expression.get(&table.frames).ok()?;
    let mut evaluation = expression.evaluation(encoding);
    evaluation.set_max_iterations(EXPRESSION_STEPS_MAX);
    if let Some(initial) = initial {
        evaluation.set_initial_value(initial);
    }
    let mut result = evaluation.evaluate().ok()?;
    loop {
        result = match result {
            EvaluationResult::Complete => break,
            EvaluationResult::RequiresRegister { register, .. } => {
                evaluation.resume_with_register(Value::Generic(registers.get(register)?))
            }
            EvaluationResult::RequiresMemory { address, size, .. } => evaluation
                .resume_with_memory(Value::Generic(
                    memory.uint(address, usize::from(size)).ok()? as u64,
                )),
            _ => return None,
        }
        .ok()?;
    }
    match evaluation.as_result() {
        [piece] => match piece.location {
            Location::Address { address } => Some(address),
            _ => None,
        },
        _ => None,
    }
}
