//! Where a variable is: memory, registers, constants, pieces of all of them.

use std::cell::Cell;
use std::rc::Rc;

use gimli::{AttributeValue, EvaluationResult, Expression, Location, Piece, Value, ValueType};

use super::call::Calls;
use super::debug_file::Slice;
use super::function::VarDie;
use super::memory::Memory;
use super::registers::Registers;
use super::unit::Unit;
use crate::{Origin, State};

/// Steps of a location expression; real ones have about twenty.
const STEPS_MAX: u32 = 1000;
/// Questions an expression may ask; each answers one operation.
const QUESTIONS_MAX: usize = 256;
/// A value put together of pieces; larger ones lie in memory.
const COMPOSITE_BYTES_MAX: u64 = 4096;

/// Where bytes of a value are.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    /// An address of this process.
    Memory(u64),
    /// Bytes that were put together, and an offset into them.
    Composite(Rc<Composite>, u64),
}

/// Bytes put together of registers, constants and memory; some may be missing.
#[derive(Debug)]
pub(crate) struct Composite {
    bytes: Vec<u8>,
    holes: Vec<Hole>,
}

#[derive(Debug)]
struct Hole {
    start: usize,
    end: usize,
    state: State,
}

impl Place {
    /// The place `offset` bytes further on.
    pub(crate) fn add(&self, offset: u64) -> Place {
        match self {
            Place::Memory(address) => Place::Memory(address.wrapping_add(offset)),
            Place::Composite(composite, at) => {
                Place::Composite(Rc::clone(composite), at.saturating_add(offset))
            }
        }
    }

    pub(crate) fn read(&self, memory: &Memory, out: &mut [u8]) -> Result<(), State> {
        match self {
            Place::Memory(address) => memory.read(*address, out).map_err(|_| memory.failure()),
            Place::Composite(composite, at) => composite.read(*at, out),
        }
    }

    /// Reads what is known of some bytes; the others are 0.
    pub(crate) fn read_known(&self, memory: &Memory, out: &mut [u8]) -> Result<(), State> {
        let Place::Composite(composite, at) = self else {
            return self.read(memory, out);
        };
        let start = usize::try_from(*at).map_err(|_| State::Unsupported)?;
        let known = composite.bytes.get(start..).ok_or(State::Unsupported)?;
        let len = known.len().min(out.len());
        out[..len].copy_from_slice(&known[..len]);
        Ok(())
    }

    /// Reads a number of up to 16 bytes.
    pub(crate) fn uint(&self, memory: &Memory, size: u64) -> Result<u128, State> {
        let mut bytes = [0; 16];
        let out = usize::try_from(size)
            .ok()
            .and_then(|size| bytes.get_mut(..size));
        self.read(memory, out.ok_or(State::Unsupported)?)?;
        Ok(u128::from_le_bytes(bytes))
    }
}

impl Composite {
    fn read(&self, at: u64, out: &mut [u8]) -> Result<(), State> {
        let start = usize::try_from(at).map_err(|_| State::Unsupported)?;
        let end = start.checked_add(out.len()).ok_or(State::Unsupported)?;
        if let Some(hole) = self
            .holes
            .iter()
            .find(|hole| hole.start < end && start < hole.end)
        {
            return Err(hole.state);
        }
        // A piece that is shorter than its type says nothing about the rest.
        out.copy_from_slice(self.bytes.get(start..end).ok_or(State::Unsupported)?);
        Ok(())
    }
}

/// What a location expression may ask for.
pub(crate) struct Context<'a> {
    pub(crate) unit: &'static Unit,
    pub(crate) memory: &'a Memory,
    pub(crate) registers: &'a Registers,
    pub(crate) cfa: Option<u64>,
    pub(crate) frame_base: Option<AttributeValue<Slice>>,
    /// The address looked up, as one of the file.
    pub(crate) address: u64,
    /// What is added to an address of the file to get one of the process.
    pub(crate) bias: u64,
    pub(crate) calls: Calls<'a>,
    /// A register was taken from the instructions before a call.
    pub(crate) recovered: Cell<bool>,
}

/// A variable's place and how it was found.
pub(crate) struct Located {
    pub(crate) place: Place,
    pub(crate) origin: Origin,
}

/// Finds a variable of `size` bytes at the context's address.
///
/// This is the one decision on whether a variable is readable, and where.
pub(crate) fn locate(var: &VarDie, size: u64, context: &Context<'_>) -> Result<Located, State> {
    context.recovered.set(false);
    let mut located = locate_as_described(var, size, context)?;
    if context.recovered.get() {
        located.origin = Origin::Caller;
    }
    Ok(located)
}

fn locate_as_described(var: &VarDie, size: u64, context: &Context<'_>) -> Result<Located, State> {
    if let Some(value) = var.const_value {
        return constant(value, size);
    }
    match var.location {
        None => Err(State::OptimizedOut),
        Some(AttributeValue::Exprloc(expression)) => context.locate(expression, size),
        Some(list) => {
            let unit = context.unit;
            let entries = unit.dwarf.attr_locations(&unit.unit, list);
            let mut entries = entries.ok().flatten().ok_or(State::Unsupported)?;
            while let Ok(Some(entry)) = entries.next() {
                if (entry.range.begin..entry.range.end).contains(&context.address) {
                    return context.locate(entry.data, size);
                }
            }
            Err(State::OptimizedOut)
        }
    }
}

fn constant(value: AttributeValue<Slice>, size: u64) -> Result<Located, State> {
    let bytes = match value {
        AttributeValue::Block(block) => block.slice().to_vec(),
        AttributeValue::String(text) => text.slice().to_vec(),
        value => {
            let number = value
                .sdata_value()
                .map(i128::from)
                .or_else(|| value.udata_value().map(i128::from))
                .ok_or(State::Unsupported)?;
            let size = usize::try_from(size)
                .ok()
                .filter(|size| *size <= 16)
                .ok_or(State::Unsupported)?;
            // A sign can be extended over a number of 128 bits; for anything else it would be a guess.
            if size > 8 && size != 16 {
                return Err(State::Unsupported);
            }
            number.to_le_bytes()[..size].to_vec()
        }
    };
    Ok(composite(bytes, Vec::new(), Origin::Constant))
}

fn composite(bytes: Vec<u8>, holes: Vec<Hole>, origin: Origin) -> Located {
    Located {
        place: Place::Composite(Rc::new(Composite { bytes, holes }), 0),
        origin,
    }
}

impl Context<'_> {
    fn locate(&self, expression: Expression<Slice>, size: u64) -> Result<Located, State> {
        if expression.0.slice().is_empty() {
            return Err(State::OptimizedOut);
        }
        let pieces = self.evaluate(expression, true)?;
        match pieces.as_slice() {
            [] => Err(State::OptimizedOut),
            [
                Piece {
                    size_in_bits: None,
                    location,
                    ..
                },
            ] => self.whole(location, size),
            pieces => self.join(pieces, size),
        }
    }

    fn whole(&self, location: &Location<Slice>, size: u64) -> Result<Located, State> {
        match location {
            Location::Address { address } => Ok(Located {
                place: Place::Memory(*address),
                origin: Origin::Memory,
            }),
            location => {
                let (bytes, origin) = self.bytes(location)?;
                // More bytes than the expression yields would be invented ones.
                if bytes.len() < usize::try_from(size).unwrap_or(usize::MAX) {
                    return Err(State::Unsupported);
                }
                Ok(composite(bytes, Vec::new(), origin))
            }
        }
    }

    fn join(&self, pieces: &[Piece<Slice>], size: u64) -> Result<Located, State> {
        let (mut bytes, mut holes) = (Vec::new(), Vec::new());
        let mut origin = Origin::Constant;
        for piece in pieces {
            let bits = piece.size_in_bits.ok_or(State::Unsupported)?;
            if bits % 8 != 0 || bits / 8 > COMPOSITE_BYTES_MAX {
                return Err(State::Unsupported);
            }
            let len = (bits / 8) as usize;
            let start = bytes.len();
            bytes.resize(start + len, 0);
            let read = match (&piece.location, piece.bit_offset.unwrap_or(0)) {
                (Location::Address { address }, 0) => self
                    .memory
                    .read(*address, &mut bytes[start..])
                    .map(|()| Origin::Memory)
                    .map_err(|_| self.memory.failure()),
                (location, offset) if offset % 8 == 0 => {
                    self.bytes(location).and_then(|(value, origin)| {
                        let from = (offset / 8) as usize;
                        let part = value
                            .get(from..from.saturating_add(len))
                            .ok_or(State::Unsupported)?;
                        bytes[start..].copy_from_slice(part);
                        Ok(origin)
                    })
                }
                _ => Err(State::Unsupported),
            };
            match read {
                Ok(Origin::Register) => origin = Origin::Register,
                Ok(Origin::Memory) if origin == Origin::Constant => origin = Origin::Memory,
                Ok(_) => {}
                Err(state) => holes.push(Hole {
                    start,
                    end: start + len,
                    state,
                }),
            }
            if bytes.len() as u64 > COMPOSITE_BYTES_MAX {
                return Err(State::Unsupported);
            }
        }
        // What the pieces do not reach was optimised out.
        let described = bytes.len();
        let size = usize::try_from(size.min(COMPOSITE_BYTES_MAX)).unwrap_or(0);
        if described < size {
            bytes.resize(size, 0);
            holes.push(Hole {
                start: described,
                end: size,
                state: State::OptimizedOut,
            });
        }
        match holes.as_slice() {
            [hole] if hole.start == 0 && hole.end >= size => Err(hole.state),
            holes
                if !holes.is_empty()
                    && holes
                        .iter()
                        .map(|hole| hole.end - hole.start)
                        .sum::<usize>()
                        >= size =>
            {
                Err(holes[0].state)
            }
            _ => Ok(composite(bytes, holes, origin)),
        }
    }

    /// The bytes of a register or a computed value.
    fn bytes(&self, location: &Location<Slice>) -> Result<(Vec<u8>, Origin), State> {
        match location {
            Location::Register { register } => {
                let value = self.register(*register)?;
                Ok((value.to_le_bytes().to_vec(), Origin::Register))
            }
            Location::Value { value } => Ok((value_bytes(*value), Origin::Register)),
            Location::Bytes { value } => Ok((value.slice().to_vec(), Origin::Constant)),
            Location::Empty => Err(State::OptimizedOut),
            Location::Address { .. } | Location::ImplicitPointer { .. } => Err(State::Unsupported),
        }
    }

    /// Runs an expression, answering what it asks; `frame_base` says whether it may ask for that.
    fn evaluate(
        &self,
        expression: Expression<Slice>,
        frame_base: bool,
    ) -> Result<Vec<Piece<Slice>>, State> {
        let mut evaluation = expression.evaluation(self.unit.unit.encoding());
        evaluation.set_max_iterations(STEPS_MAX);
        let mut result = evaluation.evaluate().map_err(|_| State::Unsupported)?;
        for _ in 0..QUESTIONS_MAX {
            let answer = match result {
                EvaluationResult::Complete => return Ok(evaluation.result()),
                EvaluationResult::RequiresRegister {
                    register,
                    base_type,
                } => {
                    let value = self.register(register)?;
                    evaluation.resume_with_register(self.typed(value, base_type)?)
                }
                EvaluationResult::RequiresMemory {
                    address,
                    size,
                    base_type,
                    ..
                } => {
                    let value = self
                        .memory
                        .uint(address, usize::from(size))
                        .map_err(|_| self.memory.failure())?;
                    evaluation.resume_with_memory(self.typed(value as u64, base_type)?)
                }
                EvaluationResult::RequiresFrameBase if frame_base => {
                    evaluation.resume_with_frame_base(self.frame_base()?)
                }
                EvaluationResult::RequiresCallFrameCfa => {
                    evaluation.resume_with_call_frame_cfa(self.cfa.ok_or(State::RegisterLost)?)
                }
                EvaluationResult::RequiresRelocatedAddress(address) => {
                    evaluation.resume_with_relocated_address(address.wrapping_add(self.bias))
                }
                EvaluationResult::RequiresIndexedAddress { index, relocate } => {
                    let address = self
                        .unit
                        .dwarf
                        .address(&self.unit.unit, index)
                        .map_err(|_| State::Unsupported)?;
                    let bias = if relocate { self.bias } else { 0 };
                    evaluation.resume_with_indexed_address(address.wrapping_add(bias))
                }
                EvaluationResult::RequiresBaseType(offset) => {
                    evaluation.resume_with_base_type(self.value_type(offset)?)
                }
                EvaluationResult::RequiresEntryValue(of) => {
                    let value = self.entry_value(of).ok_or(State::OptimizedOut)?;
                    evaluation.resume_with_entry_value(Value::Generic(value))
                }
                _ => return Err(State::Unsupported),
            };
            result = answer.map_err(|_| State::Unsupported)?;
        }
        Err(State::Unsupported)
    }

    /// A register's value in this frame, as it is or as it was when the frame made its call.
    fn register(&self, register: gimli::Register) -> Result<u64, State> {
        if let Some(value) = self.registers.get(register) {
            return Ok(value);
        }
        let value = self.calls.at_call(register).ok_or(State::RegisterLost)?;
        self.recovered.set(true);
        Ok(value)
    }

    /// What a register held when the frame's function was entered.
    fn entry_value(&self, of: Expression<Slice>) -> Option<u64> {
        let mut operations = of.operations(self.unit.unit.encoding());
        let (Ok(Some(gimli::Operation::Register { register })), Ok(None)) =
            (operations.next(), operations.next())
        else {
            return None;
        };
        let value = self.calls.at_entry(register)?;
        self.recovered.set(true);
        Some(value)
    }

    fn typed(&self, value: u64, base_type: gimli::UnitOffset) -> Result<Value, State> {
        if base_type.0 == 0 {
            return Ok(Value::Generic(value));
        }
        Value::Generic(value)
            .convert(self.value_type(base_type)?, u64::MAX)
            .map_err(|_| State::Unsupported)
    }

    fn value_type(&self, offset: gimli::UnitOffset) -> Result<ValueType, State> {
        let entry = self
            .unit
            .unit
            .entry(offset)
            .map_err(|_| State::Unsupported)?;
        ValueType::from_entry(&entry)
            .ok()
            .flatten()
            .ok_or(State::Unsupported)
    }

    /// The frame base, which is an address or the value of a register.
    fn frame_base(&self) -> Result<u64, State> {
        let Some(AttributeValue::Exprloc(expression)) = self.frame_base else {
            return Err(State::Unsupported);
        };
        match self.evaluate(expression, false)?.as_slice() {
            [piece] => match piece.location {
                Location::Register { register } => {
                    self.registers.get(register).ok_or(State::RegisterLost)
                }
                Location::Address { address } => Ok(address),
                _ => Err(State::Unsupported),
            },
            _ => Err(State::Unsupported),
        }
    }
}

fn value_bytes(value: Value) -> Vec<u8> {
    match value {
        Value::Generic(value) | Value::U64(value) => value.to_le_bytes().to_vec(),
        Value::I8(value) => value.to_le_bytes().to_vec(),
        Value::U8(value) => value.to_le_bytes().to_vec(),
        Value::I16(value) => value.to_le_bytes().to_vec(),
        Value::U16(value) => value.to_le_bytes().to_vec(),
        Value::I32(value) => value.to_le_bytes().to_vec(),
        Value::U32(value) => value.to_le_bytes().to_vec(),
        Value::I64(value) => value.to_le_bytes().to_vec(),
        Value::F32(value) => value.to_le_bytes().to_vec(),
        Value::F64(value) => value.to_le_bytes().to_vec(),
    }
}
