//! Walks the stack by call frame information, keeping every register that is kept.
//!
//! A register that no rule mentions has its old value only if the calling convention
//! says so. Otherwise it is gone, and a variable in it is shown as lost rather than as
//! whatever a callee left there.

use std::sync::{Mutex, MutexGuard, TryLockError};

use gimli::{
    CfaRule, EndianSlice, EvaluationResult, LittleEndian, Location, Register, RegisterRule,
    UnwindContext, UnwindExpression, UnwindSection, Value,
};

use super::address_map::AddressMap;
use super::memory::{Memory, StackCopy};
use super::module::{Loaded, Module, UnwindTable};
use super::registers::{self, Registers};

type Slice = EndianSlice<'static, LittleEndian>;

/// Steps of an unwind expression; real ones have about ten.
const EXPRESSION_STEPS_MAX: u32 = 1000;
/// Addresses whose rules are kept, of about 250 bytes each; a program fails at few different ones.
const RULES_MAX: usize = 1 << 13;
/// Frames of a usual stack.
const FRAMES_USUAL: usize = 64;

/// One physical frame.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Step {
    /// Where execution stands or continues.
    pub(crate) address: u64,
    /// An address inside the instruction that is being executed.
    pub(crate) lookup: u64,
    pub(crate) module: &'static Module,
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
pub(crate) fn walk(start: Registers, loaded: &Loaded, memory: &Memory, max: usize) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::with_capacity(FRAMES_USUAL.min(max));
    let mut stack = StackCopy::new(start.get(registers::SP).unwrap_or(0), memory);
    let mut reader = Reader::default();
    let mut registers = start;
    let mut exact = true;
    while steps.len() < max {
        let Some(address) = registers.get(registers::RA).filter(|address| *address > 1) else {
            break;
        };
        let lookup = if exact { address } else { address - 1 };
        let Some(rule) = rule_at(lookup, loaded, &mut reader) else {
            break;
        };
        let caller = match rule.way {
            Way::None => None,
            Way::Plain(plain) => plain.caller(&registers, &mut stack),
            Way::Evaluated => reader.caller(&registers, lookup, rule.module, memory),
        };
        steps.push(Step {
            address,
            lookup,
            module: rule.module,
            registers,
            cfa: caller.as_ref().map(|caller| caller.cfa),
            unwinding: caller.as_ref().and(rule.unwinding),
        });
        let Some(caller) = caller else { break };
        // Every frame lies above its callee, or the walk would never end.
        let moved = caller.registers.get(registers::SP) > registers.get(registers::SP);
        if !moved && !rule.is_signal && steps.len() > 1 {
            break;
        }
        registers = caller.registers;
        exact = rule.is_signal;
    }
    steps
}

/// How to get from a frame to its caller; the same for every stack that stands there.
#[derive(Debug, Clone, Copy)]
struct Rule {
    module: &'static Module,
    way: Way,
    unwinding: Option<Unwinding>,
    is_signal: bool,
}

#[derive(Debug, Clone, Copy)]
enum Way {
    /// There is no unwind information for the address.
    None,
    Plain(Plain),
    /// By expressions, as in the stubs of the loader: read anew each time.
    Evaluated,
}

/// The rules of all but a few functions: everything lies at an offset from the frame address.
#[derive(Debug, Clone, Copy)]
struct Plain {
    base: Register,
    offset: i64,
    saved: [Saved; registers::COUNT],
}

#[derive(Debug, Clone, Copy)]
enum Saved {
    Lost,
    Kept,
    /// On the stack, at an offset from the frame address.
    At(i32),
    /// The frame address itself.
    Frame,
}

struct Caller {
    registers: Registers,
    cfa: u64,
}

impl Plain {
    fn caller(&self, registers: &Registers, stack: &mut StackCopy<'_>) -> Option<Caller> {
        let cfa = registers.get(self.base)?.wrapping_add_signed(self.offset);
        let mut caller = Registers::default();
        for (number, saved) in (0..).zip(&self.saved) {
            let register = Register(number);
            let value = match saved {
                Saved::Lost => None,
                Saved::Kept => registers.get(register),
                Saved::At(offset) => stack.word(cfa.wrapping_add_signed(i64::from(*offset))).ok(),
                Saved::Frame => Some(cfa),
            };
            caller.set(register, value);
        }
        Some(Caller {
            registers: caller,
            cfa,
        })
    }

    /// `None` when a rule needs more than an offset.
    fn of(row: &gimli::UnwindTableRow<usize>) -> Option<Plain> {
        let CfaRule::RegisterAndOffset { register, offset } = row.cfa() else {
            return None;
        };
        let mut saved = [Saved::Lost; registers::COUNT];
        for (number, saved) in (0..).zip(&mut saved) {
            *saved = match row.register(Register(number)) {
                None if Register(number) == registers::SP => Saved::Frame,
                None if registers::KEPT.contains(&Register(number)) => Saved::Kept,
                None | Some(RegisterRule::Undefined | RegisterRule::Architectural) => Saved::Lost,
                Some(RegisterRule::SameValue) => Saved::Kept,
                Some(RegisterRule::Offset(offset)) => Saved::At(i32::try_from(offset).ok()?),
                Some(_) => return None,
            };
        }
        Some(Plain {
            base: *register,
            offset: *offset,
            saved,
        })
    }
}

/// Rules that were found, for the modules that were loaded then.
struct Rules {
    generation: u64,
    known: Option<AddressMap<u64, Rule>>,
}

static RULES: Mutex<Rules> = Mutex::new(Rules {
    generation: 0,
    known: None,
});

/// The rules that are kept; `None` while another thread has them, or they are for other modules.
fn kept_rules(loaded: &Loaded) -> Option<MutexGuard<'static, Rules>> {
    let mut rules = match RULES.try_lock() {
        Ok(rules) => rules,
        Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        // Waiting would cost more than reading the rule again.
        Err(TryLockError::WouldBlock) => return None,
    };
    if rules.generation < loaded.generation {
        *rules = Rules {
            generation: loaded.generation,
            known: None,
        };
    }
    (rules.generation == loaded.generation).then_some(rules)
}

fn rule_at(lookup: u64, loaded: &Loaded, reader: &mut Reader) -> Option<Rule> {
    let known = kept_rules(loaded);
    let known = known.and_then(|rules| rules.known.as_ref()?.get(&lookup).copied());
    if known.is_some() {
        return known;
    }
    let module = loaded.iter().find(|module| module.has_code(lookup))?;
    let rule = reader.rule(lookup, module);
    if let Some(mut rules) = kept_rules(loaded) {
        let known = rules.known.get_or_insert_default();
        if known.len() >= RULES_MAX {
            known.clear();
        }
        known.insert(lookup, rule);
    }
    Some(rule)
}

/// Reads unwind tables.
#[derive(Default)]
struct Reader {
    /// Made when it is first needed.
    context: Option<UnwindContext<usize>>,
}

impl Reader {
    fn rule(&mut self, lookup: u64, module: &'static Module) -> Rule {
        let none = Rule {
            module,
            way: Way::None,
            unwinding: None,
            is_signal: false,
        };
        let found = module.unwind().and_then(|table| {
            let fde = description(lookup, table)?;
            let context = self.context.get_or_insert_with(UnwindContext::new);
            let row = fde
                .unwind_info_for_address(&table.frames, &table.bases, context, lookup)
                .ok()?;
            Some(Rule {
                module,
                way: Plain::of(row).map_or(Way::Evaluated, Way::Plain),
                unwinding: Some(Unwinding::of(&fde)),
                is_signal: fde.is_signal_trampoline(),
            })
        });
        found.unwrap_or(none)
    }

    /// The caller of a frame whose rules are expressions.
    fn caller(
        &mut self,
        registers: &Registers,
        lookup: u64,
        module: &Module,
        memory: &Memory,
    ) -> Option<Caller> {
        let table = module.unwind()?;
        let fde = description(lookup, table)?;
        let encoding = fde.cie().encoding();
        let context = self.context.get_or_insert_with(UnwindContext::new);
        let row = fde
            .unwind_info_for_address(&table.frames, &table.bases, context, lookup)
            .ok()?;
        let evaluate = |expression: &UnwindExpression<usize>, initial| {
            evaluate(expression, table, encoding, registers, memory, initial)
        };
        let cfa = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                registers.get(*register)?.wrapping_add_signed(*offset)
            }
            CfaRule::Expression(expression) => evaluate(expression, None)?,
        };
        let mut caller = Registers::default();
        for number in 0..registers::COUNT as u16 {
            let register = Register(number);
            let value = match row.register(register) {
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
        })
    }
}

type Description = gimli::FrameDescriptionEntry<Slice>;

fn description(lookup: u64, table: &UnwindTable) -> Option<Description> {
    let cie = |section: &gimli::EhFrame<Slice>, bases: &gimli::BaseAddresses, offset| {
        section.cie_from_offset(bases, offset)
    };
    let index = table.header.table()?;
    let found = index.fde_for_address(&table.frames, &table.bases, lookup, cie);
    found.ok()
}

impl Unwinding {
    fn of(fde: &Description) -> Unwinding {
        Unwinding {
            function: fde.initial_address(),
            end: fde.end_address(),
            table: match fde.lsda() {
                Some(gimli::Pointer::Direct(table)) => Some(table),
                _ => None,
            },
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::debug_file::tests::{Random, rounds};
    use crate::platform::module;

    /// A walk over registers and a stack that hold anything ends with at most as many frames
    /// as were asked for.
    #[test]
    fn any_registers_over_any_stack() {
        const FRAMES_MAX: usize = 64;
        let loaded = module::loaded();
        let code = [
            any_registers_over_any_stack as *const () as u64,
            libc::malloc as *const () as u64,
            UnwindContext::<usize>::new as *const () as u64,
        ];
        let mut random = Random(0x51_7cc1_b727_220a);
        let mut words = vec![0_u64; 4096];
        let mut longest = 0;
        for _ in 0..rounds(2000) {
            let base = words.as_ptr() as u64;
            let address = |random: &mut Random| {
                code[random.below(code.len())].wrapping_add(random.next() % (1 << 18))
            };
            for _ in 0..64 {
                let at = random.below(words.len());
                words[at] = match random.below(4) {
                    0 => random.next() >> random.below(64),
                    1 => base.wrapping_add(random.next() % (1 << 15)),
                    _ => address(&mut random),
                };
            }
            let mut registers = Registers::default();
            for number in 0..registers::COUNT as u16 {
                let value = base.wrapping_add(random.next() % (1 << 15));
                registers.set(Register(number), (random.below(8) > 0).then_some(value));
            }
            registers.set(registers::RA, Some(address(&mut random)));
            let memory = Memory::new(1 << 20);
            let steps = walk(registers, &loaded, &memory, FRAMES_MAX);
            assert!(steps.len() <= FRAMES_MAX);
            longest = longest.max(steps.len());
        }
        assert!(longest > 3, "some walks go on for a while: {longest}");
    }

    /// What is kept of a place is what its unwind table says.
    #[test]
    fn a_walk_is_the_same_the_second_time() {
        #[inline(never)]
        fn below(loaded: &Loaded) -> [Vec<(u64, Option<u64>)>; 2] {
            let memory = Memory::new(1 << 20);
            let registers = Registers::here();
            [(); 2].map(|()| {
                let steps = walk(registers, loaded, &memory, 100);
                steps.iter().map(|step| (step.address, step.cfa)).collect()
            })
        }
        let [first, second] = below(&module::loaded());
        assert!(first.len() > 3, "{first:?}");
        assert_eq!(first, second);
    }
}
