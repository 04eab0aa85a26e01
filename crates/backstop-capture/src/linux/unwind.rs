//! Walks the stack by call frame information, keeping every register that is kept.
//!
//! A register that no rule mentions has its old value only if the calling convention
//! says so. Otherwise it is gone, and a variable in it is shown as lost rather than as
//! whatever a callee left there.

use std::cell::RefCell;

use gimli::{
    CfaRule, EndianSlice, EvaluationResult, LittleEndian, Location, Register, RegisterRule,
    UnwindContext, UnwindExpression, UnwindSection, UnwindTableRow, Value,
};

use super::memory::Memory;
use super::module::{Module, UnwindTable};
use super::registers::{self, Registers};

type Slice = EndianSlice<'static, LittleEndian>;

/// Recipes that a thread remembers; a program fails at few places, below the same callers.
/// Some two hundred bytes each, on threads on which something failed.
const RECIPES_MAX: usize = 512;

thread_local! {
    /// The last recipes, each at a place that its address says; a newer one takes the place.
    static RECIPES: RefCell<Vec<Option<Known>>> = const { RefCell::new(Vec::new()) };
}

/// A recipe, and what it is for.
#[derive(Debug, Clone, Copy)]
struct Known {
    lookup: u64,
    /// A module is never forgotten, so another one at the same addresses is another one here.
    module: *const Module,
    recipe: Recipe,
}

/// How to get from a frame to its caller, at one address.
///
/// To find it takes a look-up in the table and running its instructions, which is most of the
/// work of a walk.
#[derive(Debug, Clone, Copy)]
struct Recipe {
    cfa: (Register, i64),
    rules: [Rule; registers::COUNT],
    is_signal: bool,
    unwinding: Unwinding,
}

/// Where a caller's register is. What needs an expression is no rule; it is rare.
#[derive(Debug, Clone, Copy)]
enum Rule {
    Lost,
    /// It is where it was.
    Kept,
    /// In memory, so far from the canonical frame address.
    Saved(i32),
    /// It is the canonical frame address with this added.
    Frame(i32),
}

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
        let caller = match remembered(module, lookup) {
            Some(recipe) => recipe.caller_of(&registers, memory),
            None => module.unwind().and_then(|table| {
                let row = Row::at(lookup, table, &mut context)?;
                if let Some(recipe) = row.recipe() {
                    remember(module, lookup, recipe);
                }
                row.caller_of(&registers, table, memory)
            }),
        };
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

fn place(lookup: u64) -> usize {
    // The multiplier spreads neighbours over the upper bits.
    (lookup.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize % RECIPES_MAX
}

fn remembered(module: &'static Module, lookup: u64) -> Option<Recipe> {
    let known = RECIPES.try_with(|recipes| {
        let recipes = recipes.try_borrow().ok()?;
        recipes.get(place(lookup)).copied().flatten()
    });
    known
        .ok()
        .flatten()
        .filter(|known| known.lookup == lookup && std::ptr::eq(known.module, module))
        .map(|known| known.recipe)
}

fn remember(module: &'static Module, lookup: u64, recipe: Recipe) {
    // A thread that is ending remembers nothing.
    let _ = RECIPES.try_with(|recipes| {
        if let Ok(mut recipes) = recipes.try_borrow_mut() {
            recipes.resize(RECIPES_MAX, None);
            recipes[place(lookup)] = Some(Known {
                lookup,
                module,
                recipe,
            });
        }
    });
}

impl Recipe {
    fn caller_of(&self, registers: &Registers, memory: &Memory) -> Option<Caller> {
        let (register, offset) = self.cfa;
        let cfa = registers.get(register)?.wrapping_add_signed(offset);
        let mut caller = Registers::default();
        for (number, rule) in (0..).zip(&self.rules) {
            let register = Register(number);
            let value = match *rule {
                Rule::Lost => continue,
                Rule::Kept => registers.get(register),
                Rule::Saved(offset) => memory.word(cfa.wrapping_add_signed(offset.into())).ok(),
                Rule::Frame(offset) => Some(cfa.wrapping_add_signed(offset.into())),
            };
            caller.set(register, value);
        }
        Some(Caller {
            registers: caller,
            cfa,
            is_signal: self.is_signal,
            unwinding: self.unwinding,
        })
    }
}

/// What the unwind table says about one address.
struct Row<'c> {
    row: &'c UnwindTableRow<usize>,
    encoding: gimli::Encoding,
    is_signal: bool,
    unwinding: Unwinding,
}

impl<'c> Row<'c> {
    fn at(
        lookup: u64,
        table: &UnwindTable,
        context: &'c mut UnwindContext<usize>,
    ) -> Option<Row<'c>> {
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
        let unwinding = Unwinding {
            function: fde.initial_address(),
            end: fde.end_address(),
            table: match fde.lsda() {
                Some(gimli::Pointer::Direct(table)) => Some(table),
                _ => None,
            },
        };
        Some(Row {
            encoding: fde.cie().encoding(),
            is_signal: fde.is_signal_trampoline(),
            unwinding,
            row: fde
                .unwind_info_for_address(&table.frames, &table.bases, context, lookup)
                .ok()?,
        })
    }

    /// The row as a recipe, unless it needs more than a recipe can say.
    fn recipe(&self) -> Option<Recipe> {
        let CfaRule::RegisterAndOffset { register, offset } = self.row.cfa() else {
            return None;
        };
        let mut rules = [Rule::Lost; registers::COUNT];
        for (number, rule) in (0..).zip(&mut rules) {
            let register = Register(number);
            *rule = match self.row.register(register) {
                None if register == registers::SP => Rule::Frame(0),
                None if registers::KEPT.contains(&register) => Rule::Kept,
                None | Some(RegisterRule::Undefined | RegisterRule::Architectural) => Rule::Lost,
                Some(RegisterRule::SameValue) => Rule::Kept,
                Some(RegisterRule::Offset(offset)) => Rule::Saved(i32::try_from(offset).ok()?),
                Some(RegisterRule::ValOffset(offset)) => Rule::Frame(i32::try_from(offset).ok()?),
                Some(_) => return None,
            };
        }
        Some(Recipe {
            cfa: (*register, *offset),
            rules,
            is_signal: self.is_signal,
            unwinding: self.unwinding,
        })
    }

    fn caller_of(
        &self,
        registers: &Registers,
        table: &UnwindTable,
        memory: &Memory,
    ) -> Option<Caller> {
        let evaluate = |expression: &UnwindExpression<usize>, initial| {
            evaluate(expression, table, self.encoding, registers, memory, initial)
        };
        let cfa = match self.row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                registers.get(*register)?.wrapping_add_signed(*offset)
            }
            CfaRule::Expression(expression) => evaluate(expression, None)?,
        };
        let mut caller = Registers::default();
        for number in 0..registers::COUNT as u16 {
            let register = Register(number);
            let value = match self.row.register(register) {
                None if register == registers::SP => Some(cfa),
                None if registers::KEPT.contains(&register) => registers.get(register),
                None | Some(RegisterRule::Undefined | RegisterRule::Architectural) => None,
                Some(RegisterRule::SameValue) => registers.get(register),
                Some(RegisterRule::Offset(offset)) => {
                    memory.word(cfa.wrapping_add_signed(offset)).ok()
                }
                Some(RegisterRule::ValOffset(offset)) => Some(cfa.wrapping_add_signed(offset)),
                Some(RegisterRule::Register(other)) => registers.get(other),
                Some(RegisterRule::Expression(expression)) => {
                    evaluate(&expression, Some(cfa)).and_then(|address| memory.word(address).ok())
                }
                Some(RegisterRule::ValExpression(expression)) => evaluate(&expression, Some(cfa)),
                Some(RegisterRule::Constant(value)) => Some(value),
            };
            caller.set(register, value);
        }
        Some(Caller {
            registers: caller,
            cfa,
            is_signal: self.is_signal,
            unwinding: self.unwinding,
        })
    }
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
