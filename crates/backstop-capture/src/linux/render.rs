//! Makes a value tree of a type and a place.
//!
//! Total by construction: every failure is a [`State`] in the tree. Redaction is decided
//! by name and type before the bytes of a value are read, and by content before a text
//! leaves this module.

use super::location::Place;
use super::memory::Memory;
use super::module::Module;
use super::ty::{Field, Kind, Type, Variant, Variants};
use super::verdict::{Rules, Verdict};
use crate::{Limits, Redaction, State, Value};

/// Pointers to pointers that are followed within one value, beyond the levels that are shown.
const POINTERS_MAX: usize = 24;
/// A length above this is no length of anything in memory.
pub(super) const LEN_MAX: u64 = isize::MAX as u64;

pub(super) type Result<T> = std::result::Result<T, State>;

/// Renders the values of one capture.
pub(crate) struct Renderer<'a> {
    pub(super) memory: &'a Memory,
    modules: &'a [&'static Module],
    redaction: &'a Redaction,
    rules: Rules,
    pub(super) limits: &'a Limits,
    pub(super) nodes_left: usize,
    pointers: usize,
    pub(super) depth: usize,
    worst: State,
}

impl<'a> Renderer<'a> {
    pub(crate) fn new(
        memory: &'a Memory,
        modules: &'a [&'static Module],
        redaction: &'a Redaction,
        limits: &'a Limits,
    ) -> Renderer<'a> {
        Renderer {
            memory,
            modules,
            redaction,
            rules: Rules::of(redaction),
            limits,
            nodes_left: 0,
            pointers: 0,
            depth: 0,
            worst: State::Ok,
        }
    }

    /// Whether a variable is hidden before anything is known of its value.
    pub(crate) fn hides(&self, name: &str, verdict: &Verdict, ty: &Type) -> bool {
        let by_name = verdict.get(self.rules, || self.redaction.hides_name(name));
        by_name && !is_harmless(ty) || self.hides_type(ty)
    }

    fn hides_type(&self, ty: &Type) -> bool {
        let decide = || self.redaction.hides_type(&ty.path);
        ty.hidden.get(self.rules, decide)
    }

    /// Renders a variable and says how far it can be trusted.
    pub(crate) fn variable(&mut self, ty: &'static Type, place: &Place) -> (Value, State) {
        self.nodes_left = self.limits.nodes;
        self.pointers = 0;
        self.depth = 0;
        self.worst = State::Ok;
        match self.try_value(ty, place) {
            Ok(Value::Missing(state)) | Err(state) => (Value::Missing(state), state),
            Ok(value) => (value, self.worst),
        }
    }

    /// The first bytes of a value as they lie in memory, where the limits ask for them;
    /// bytes that were optimised out are 0.
    pub(crate) fn raw(&self, ty: &Type, place: &Place) -> Vec<u8> {
        let len = usize::try_from(ty.size)
            .unwrap_or(usize::MAX)
            .min(self.limits.raw_bytes);
        let mut bytes = vec![0; len];
        match place.read_known(self.memory, &mut bytes) {
            Ok(()) => bytes,
            Err(_) => Vec::new(),
        }
    }

    /// Renders a part of a value; a failure becomes a part that is missing.
    pub(super) fn value(&mut self, ty: &'static Type, place: &Place) -> Value {
        self.try_value(ty, place)
            .unwrap_or_else(|state| self.missing(state))
    }

    pub(super) fn missing(&mut self, state: State) -> Value {
        // A part that was optimised out leaves the rest right; hidden parts are hidden on purpose.
        let worst = match state {
            State::OptimizedOut | State::RegisterLost | State::Unsupported => State::Partial,
            State::Redacted => State::Ok,
            state => state,
        };
        self.worst = self.worst.max(worst);
        Value::Missing(state)
    }

    /// Notes that a limit cut the value.
    pub(super) fn cut(&mut self) {
        self.worst = self.worst.max(State::Truncated);
    }

    pub(super) fn try_value(&mut self, ty: &'static Type, place: &Place) -> Result<Value> {
        self.nodes_left = self.nodes_left.checked_sub(1).ok_or(State::Truncated)?;
        if self.hides_type(ty) {
            return Err(State::Redacted);
        }
        if self.depth > self.limits.depth {
            return Err(State::Truncated);
        }
        self.depth += 1;
        let value = match self.known(ty, place) {
            Some(value) => value,
            None => self.by_kind(ty, place),
        };
        self.depth -= 1;
        value
    }

    /// Renders what `Debug` shows as if it were not there, one level up.
    pub(super) fn transparent(&mut self, ty: &'static Type, place: &Place) -> Result<Value> {
        let depth = self.depth;
        self.depth = depth.saturating_sub(1);
        let value = self.try_value(ty, place);
        self.depth = depth;
        value
    }

    fn by_kind(&mut self, ty: &'static Type, place: &Place) -> Result<Value> {
        match &ty.kind {
            Kind::Bool => match place.uint(self.memory, 1)? {
                0 => Ok(Value::Bool(false)),
                1 => Ok(Value::Bool(true)),
                _ => Err(State::Invalid),
            },
            Kind::Char => {
                let code = place.uint(self.memory, ty.size.min(4))? as u32;
                char::from_u32(code).map(Value::Char).ok_or(State::Invalid)
            }
            Kind::Unsigned if ty.size == 0 => Ok(Value::Unit),
            Kind::Unsigned => Ok(Value::Unsigned(place.uint(self.memory, ty.size)?)),
            Kind::Signed => Ok(Value::Signed(sign_extend(
                place.uint(self.memory, ty.size)?,
                ty.size,
            ))),
            Kind::Float => match (place.uint(self.memory, ty.size)?, ty.size) {
                (bits, 4) => Ok(Value::F32(f32::from_bits(bits as u32))),
                (bits, 8) => Ok(Value::F64(f64::from_bits(bits as u64))),
                _ => Err(State::Unsupported),
            },
            Kind::Pointer(target) => {
                let address = place.uint(self.memory, 8)? as u64;
                self.pointer(ty, target.as_ref().map(super::ty::Reference::ty), address)
            }
            Kind::Struct(fields) => self.structure(ty.short(), ty, fields, place),
            Kind::Enum(_, variants) => self.variant(ty, variants, place),
            Kind::Array(element, count) => {
                let element = element.as_ref().ok_or(State::Unsupported)?.ty();
                self.list(element, place, *count)
            }
            Kind::Enumeration(names) => {
                let bits = place.uint(self.memory, ty.size)?;
                let name = names
                    .iter()
                    .find(|(value, _)| same_bits(*value as u128, bits, ty.size));
                name.map(|(_, name)| Value::Symbol((*name).to_owned()))
                    .ok_or(State::Invalid)
            }
            Kind::Union(_) | Kind::Function | Kind::Unknown => Err(State::Unsupported),
        }
    }

    /// Follows a reference or `Box`; shows the address of a raw pointer.
    fn pointer(&mut self, ty: &Type, target: Option<&'static Type>, address: u64) -> Result<Value> {
        let Some(target) = target else {
            return Ok(Value::Pointer(address));
        };
        if matches!(target.kind, Kind::Function) {
            return Ok(match self.symbol(address) {
                Some(name) => Value::Symbol(format!("fn {name}")),
                None => Value::Pointer(address),
            });
        }
        if ty.name.starts_with('*') || !is_owning_or_reference(ty.name) {
            return Ok(Value::Pointer(address));
        }
        self.follow(target, address)
    }

    /// Renders what a valid pointer points at.
    pub(super) fn follow(&mut self, target: &'static Type, address: u64) -> Result<Value> {
        if address == 0 {
            return Err(State::Invalid);
        }
        if self.pointers >= POINTERS_MAX {
            return Err(State::Truncated);
        }
        self.pointers += 1;
        let value = self.transparent(target, &Place::Memory(address));
        self.pointers -= 1;
        value
    }

    pub(super) fn structure(
        &mut self,
        name: &str,
        ty: &'static Type,
        fields: &'static [Field],
        place: &Place,
    ) -> Result<Value> {
        if let Some(value) = self.fat_pointer(ty, fields, place) {
            return value;
        }
        if fields.is_empty() {
            return Ok(Value::Symbol(name.to_owned()));
        }
        let is_tuple = fields.iter().all(|field| {
            field
                .name
                .strip_prefix("__")
                .is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
        });
        if is_tuple {
            // The debug information orders fields by their place in memory.
            let mut ordered: Vec<&'static Field> = fields.iter().collect();
            ordered.sort_by_key(|field| field.name[2..].parse::<u32>().unwrap_or(u32::MAX));
            let name = if name.starts_with('(') { "" } else { name };
            let items = ordered
                .into_iter()
                .take(self.limits.items)
                .map(|field| self.field(field, place))
                .collect();
            if fields.len() > self.limits.items {
                self.cut();
            }
            return Ok(Value::Tuple {
                name: name.to_owned(),
                items,
            });
        }
        let mut shown = Vec::new();
        for field in fields.iter().take(self.limits.items) {
            let value = match field.ty() {
                Some(ty) if self.hides(field.name, &field.hidden, ty) => {
                    Value::Missing(State::Redacted)
                }
                _ => self.field(field, place),
            };
            shown.push((field.name.to_owned(), value));
        }
        if fields.len() > self.limits.items {
            self.cut();
        }
        Ok(Value::Struct {
            name: name.to_owned(),
            fields: shown,
        })
    }

    fn field(&mut self, field: &'static Field, place: &Place) -> Value {
        match field.ty() {
            Some(ty) => self.value(ty, &place.add(field.offset)),
            None => self.missing(State::Unsupported),
        }
    }

    /// `&[T]`, `&str`, `Box<dyn Trait>`: a pointer and a length or a vtable.
    fn fat_pointer(
        &mut self,
        ty: &'static Type,
        fields: &'static [Field],
        place: &Place,
    ) -> Option<Result<Value>> {
        let [first, second] = fields else { return None };
        match (first.name, second.name) {
            ("data_ptr", "length") => Some(self.slice(ty, first, second, place)),
            ("pointer", "vtable") => Some(self.trait_object(ty, first, second, place)),
            _ => None,
        }
    }

    fn slice(
        &mut self,
        ty: &'static Type,
        data: &'static Field,
        length: &Field,
        place: &Place,
    ) -> Result<Value> {
        let address = place.add(data.offset).uint(self.memory, 8)? as u64;
        let len = place.add(length.offset).uint(self.memory, 8)? as u64;
        let Some(Kind::Pointer(Some(element))) = data.ty().map(|ty| &ty.kind) else {
            return Err(State::Unsupported);
        };
        let element = element.ty();
        if ty.name.starts_with('*') {
            return Ok(Value::Pointer(address));
        }
        if ends_in_text(ty.name) && element.size == 1 {
            return self.text(address, len);
        }
        // `&Path` and the like point at a struct whose last field is the text.
        if let Some(kind) = super::printers::unsized_text(element) {
            return self.lossy_text(address.wrapping_add(kind), len);
        }
        if element
            .fields()
            .last()
            .is_some_and(|_| element.size == 0 && !element.fields().is_empty())
        {
            return Err(State::Unsupported);
        }
        self.list_at(element, address, len)
    }

    fn trait_object(
        &mut self,
        ty: &Type,
        pointer: &Field,
        vtable: &Field,
        place: &Place,
    ) -> Result<Value> {
        let address = place.add(pointer.offset).uint(self.memory, 8)? as u64;
        let vtable = place.add(vtable.offset).uint(self.memory, 8)? as u64;
        if ty.name.starts_with('*') {
            return Ok(Value::Pointer(address));
        }
        match self.concrete(vtable) {
            Some(concrete) if concrete.size == 0 => {
                self.transparent(concrete, &Place::Memory(address))
            }
            Some(concrete) => self.follow(concrete, address),
            None => Err(State::Unsupported),
        }
    }

    /// The type that a vtable belongs to.
    pub(super) fn concrete(&self, vtable: u64) -> Option<&'static Type> {
        let module = self.modules.iter().find(|module| module.maps(vtable))?;
        let address = vtable.wrapping_sub(module.bias);
        let die = module.debug()?.unit_at(address)?.vtable_type(address)?;
        Some(die.unit.type_at(die.offset))
    }

    fn symbol(&self, address: u64) -> Option<String> {
        let module = self
            .modules
            .iter()
            .find(|module| module.has_code(address))?;
        let name = module
            .debug()?
            .symbol_at(address.wrapping_sub(module.bias))?;
        Some(format!("{:#}", rustc_demangle::demangle(name)))
    }

    /// The variant a value is in.
    pub(super) fn active<'v>(&self, variants: &'v Variants, place: &Place) -> Result<&'v Variant> {
        active(variants, place, self.memory)
    }

    fn variant(
        &mut self,
        ty: &'static Type,
        variants: &'static Variants,
        place: &Place,
    ) -> Result<Value> {
        let variant = self.active(variants, place)?;
        let field = &variant.field;
        let content = field.ty().ok_or(State::Unsupported)?;
        let name = if field.name.bytes().all(|byte| byte.is_ascii_digit()) {
            content.short()
        } else {
            field.name
        };
        let _ = ty;
        self.structure(name, content, content.fields(), &place.add(field.offset))
    }

    pub(super) fn list_at(
        &mut self,
        element: &'static Type,
        address: u64,
        len: u64,
    ) -> Result<Value> {
        let bytes = len
            .checked_mul(element.size)
            .filter(|bytes| *bytes <= LEN_MAX);
        if len > LEN_MAX && element.size > 0 || bytes.is_none() || address == 0 {
            return Err(State::Invalid);
        }
        self.list(element, &Place::Memory(address), len)
    }

    fn list(&mut self, element: &'static Type, place: &Place, len: u64) -> Result<Value> {
        if element.size == 1 && matches!(element.kind, Kind::Unsigned) {
            self.check_bytes(place, len)?;
        }
        let items = self.elements(element, len, |at| {
            place.add(at.saturating_mul(element.size))
        });
        Ok(Value::List { items, len })
    }

    /// Renders as many elements as the limits allow.
    pub(super) fn elements(
        &mut self,
        element: &'static Type,
        len: u64,
        place: impl Fn(u64) -> Place,
    ) -> Vec<Value> {
        let shown = len.min(self.limits.items as u64);
        if shown < len {
            self.cut();
        }
        let mut items = Vec::new();
        for at in 0..shown {
            match self.try_value(element, &place(at)) {
                Ok(value) => items.push(value),
                // All further ones would be cut too.
                Err(State::Truncated) if self.nodes_left == 0 => {
                    self.cut();
                    break;
                }
                Err(state) => {
                    let value = self.missing(state);
                    items.push(value);
                }
            }
        }
        items
    }

    /// A text that must be UTF-8.
    pub(super) fn text(&mut self, address: u64, len: u64) -> Result<Value> {
        let bytes = self.text_bytes(address, len)?;
        let text = whole_characters(bytes, len)?;
        self.shown_text(text, len)
    }

    /// A text of the operating system, which may hold anything.
    pub(super) fn lossy_text(&mut self, address: u64, len: u64) -> Result<Value> {
        let bytes = self.text_bytes(address, len)?;
        self.shown_text(String::from_utf8_lossy(&bytes).into_owned(), len)
    }

    pub(super) fn text_bytes(&mut self, address: u64, len: u64) -> Result<Vec<u8>> {
        if len > LEN_MAX || address == 0 {
            return Err(State::Invalid);
        }
        let shown = usize::try_from(len)
            .unwrap_or(usize::MAX)
            .min(self.limits.text_bytes);
        let mut bytes = vec![0; shown];
        Place::Memory(address).read(self.memory, &mut bytes)?;
        Ok(bytes)
    }

    /// Hides bytes that are a text which would be hidden: bodies, keys, buffers.
    fn check_bytes(&self, place: &Place, len: u64) -> Result<()> {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let mut bytes = vec![0; len.min(self.limits.text_bytes)];
        // What cannot be read is told item by item.
        let read = self.redaction.contents && place.read(self.memory, &mut bytes).is_ok();
        if read && self.redaction.hides_text(&String::from_utf8_lossy(&bytes)) {
            return Err(State::Redacted);
        }
        Ok(())
    }

    /// Redaction's word on a text for what it contains.
    pub(super) fn hides_text(&self, text: &str) -> bool {
        self.redaction.hides_text(text)
    }

    pub(super) fn shown_text(&mut self, text: String, len: u64) -> Result<Value> {
        if self.hides_text(&text) {
            return Err(State::Redacted);
        }
        if (text.len() as u64) < len {
            self.cut();
        }
        Ok(Value::Text { text, bytes: len })
    }

    /// An entry of a map, whose key may say that the value is secret.
    pub(super) fn entry(
        &mut self,
        key: &(&'static Type, Place),
        value: &(&'static Type, Place),
    ) -> (Value, Value) {
        let name = self.value(key.0, &key.1);
        let hidden = matches!(&name, Value::Text { text, .. } if self.redaction.hides_name(text) && !is_harmless(value.0));
        let value = if hidden {
            Value::Missing(State::Redacted)
        } else {
            self.value(value.0, &value.1)
        };
        (name, value)
    }
}

/// The variant a value is in.
pub(super) fn active<'v>(
    variants: &'v Variants,
    place: &Place,
    memory: &Memory,
) -> Result<&'v Variant> {
    let Some(discriminant) = &variants.discriminant else {
        return match variants.list.as_slice() {
            [only] => Ok(only),
            _ => Err(State::Unsupported),
        };
    };
    let size = discriminant.ty().ok_or(State::Unsupported)?.size;
    let bits = place.add(discriminant.offset).uint(memory, size)?;
    variants
        .list
        .iter()
        .find(|variant| {
            variant
                .value
                .is_some_and(|value| same_bits(value, bits, size))
        })
        .or_else(|| variants.list.iter().find(|variant| variant.value.is_none()))
        .ok_or(State::Invalid)
}

/// Truth values, counts of things and moments are no secrets whatever their name.
fn is_harmless(ty: &Type) -> bool {
    matches!(ty.kind, Kind::Bool | Kind::Enumeration(_))
        || ty.size == 0
        || matches!(
            ty.base.as_str(),
            "core::time::Duration" | "std::time::Instant" | "std::time::SystemTime"
        )
}

fn is_owning_or_reference(name: &str) -> bool {
    name.starts_with('&') || name.starts_with("alloc::boxed::Box<") || name.starts_with("Box<")
}

fn ends_in_text(name: &str) -> bool {
    let name = name.trim_end_matches('>');
    name == "&str"
        || name == "&mut str"
        || name.starts_with("alloc::boxed::Box<str")
        || name.starts_with("*const str")
        || name.starts_with("*mut str")
}

fn sign_extend(bits: u128, size: u64) -> i128 {
    let unused = 128_u64.saturating_sub(size.saturating_mul(8)) as u32;
    if unused >= 128 {
        0
    } else {
        ((bits << unused) as i128) >> unused
    }
}

/// Whether two numbers agree in the bits that a value of this size has.
fn same_bits(a: u128, b: u128, size: u64) -> bool {
    let unused = 128_u64.saturating_sub(size.saturating_mul(8)) as u32;
    unused >= 128 || (a << unused) == (b << unused)
}

/// The text that `bytes` begin, of `len` bytes in all; what was cut in the middle of a character
/// ends before it.
pub(super) fn whole_characters(bytes: Vec<u8>, len: u64) -> Result<String> {
    let error = match String::from_utf8(bytes) {
        Ok(text) => return Ok(text),
        Err(error) => error,
    };
    let valid = error.utf8_error().valid_up_to();
    let was_cut = (error.as_bytes().len() as u64) < len;
    if !was_cut || error.utf8_error().error_len().is_some() {
        return Err(State::Invalid);
    }
    let mut bytes = error.into_bytes();
    bytes.truncate(valid);
    String::from_utf8(bytes).map_err(|_| State::Invalid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::debug_file::tests::{Random, offsets, own_units, rounds};
    use crate::platform::module;

    /// Every type of this program, laid over memory that holds anything, gives a value or a state.
    #[test]
    fn a_text_ends_before_a_character_that_was_cut() {
        let check = |bytes: &[u8], len, expected: Option<&str>| {
            let text = whole_characters(bytes.to_vec(), len).ok();
            assert_eq!(text.as_deref(), expected);
        };
        check(b"ab", 2, Some("ab"));
        check(b"ab\xc3", 9, Some("ab"));
        check(b"ab\xc3", 3, None);
        check(b"a\xffb", 9, None);
    }

    #[test]
    fn any_type_over_any_memory() {
        let types: Vec<&'static Type> = own_units()
            .into_iter()
            .flat_map(|unit| offsets(unit).into_iter().map(|offset| unit.type_at(offset)))
            .filter(|ty| ty.size > 0)
            .take(5000)
            .collect();
        assert!(types.len() > 200, "{}", types.len());
        let modules = module::loaded();
        let limits = Limits::default();
        let redaction = Redaction::default();
        let mut random = Random(0x2545_f491_4f6c_dd1d);
        let mut words = vec![0_u64; 1024];
        for round in 0..rounds(1000) {
            let base = words.as_ptr() as u64;
            for _ in 0..64 {
                let at = random.below(words.len());
                words[at] = match random.below(6) {
                    0 => random.next(),
                    1 => 0,
                    2 => random.next() % 64,
                    3 => base.wrapping_add(random.next() % 8192),
                    4 => u64::MAX - random.next() % 4096,
                    _ => std::ptr::from_ref(types[random.below(types.len())]) as u64,
                };
            }
            let memory = Memory::new(limits.memory_bytes);
            let mut renderer = Renderer::new(&memory, &modules, &redaction, &limits);
            let ty = types[random.below(types.len())];
            let place = Place::Memory(base + random.next() % 4096);
            let (value, _) = renderer.variable(ty, &place);
            let text = value.to_string();
            assert!(
                text.len() < limits.nodes * (limits.text_bytes * 6 + 256),
                "round {round}: {}",
                ty.path
            );
        }
    }

    #[test]
    fn numbers_of_any_width() {
        assert_eq!(sign_extend(0xff, 1), -1);
        assert_eq!(sign_extend(0x7f, 1), 127);
        assert_eq!(sign_extend(u128::MAX, 16), -1);
        assert_eq!(sign_extend(5, 0), 0);
        assert!(same_bits(0xffff_ffff_ffff_ffff, 0xff, 1));
        assert!(!same_bits(1, 2, 1));
    }
}
