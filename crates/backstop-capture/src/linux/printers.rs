//! Values of types whose fields say less than their text: collections, cells, times.
//!
//! A printer is chosen by the type's path and then finds what it needs by shape: a field
//! by its name wherever it lies inside wrappers, a pointer by being the first one. Where
//! the shape is not as expected the printer gives up and the fields are shown instead.

use std::time::Duration;

use super::location::Place;
use super::render::{LEN_MAX, Renderer, Result};
use super::ty::{Field, Kind, Type};
use crate::{State, Value};

/// Wrappers inside wrappers that are searched for a field.
const WRAPPERS_MAX: usize = 12;
/// Control bytes of a hash table that are scanned for one value.
const CONTROL_BYTES_MAX: u64 = 1 << 16;
/// Height of a B-tree: eleven keys a node make this more than memory can hold.
const HEIGHT_MAX: u64 = 24;

/// A part of a value.
#[derive(Debug, Clone)]
pub(super) struct Part {
    pub(super) ty: &'static Type,
    pub(super) place: Place,
}

impl Part {
    pub(super) fn field(&self, name: &str) -> Option<Part> {
        let field = self.ty.fields().iter().find(|field| field.name == name)?;
        self.of(field)
    }

    pub(super) fn of(&self, field: &Field) -> Option<Part> {
        Some(Part {
            ty: field.ty()?,
            place: self.place.add(field.offset),
        })
    }

    pub(super) fn parts(&self) -> impl Iterator<Item = Part> {
        self.ty.fields().iter().filter_map(|field| self.of(field))
    }

    /// The nearest field of a name, inside wrappers.
    pub(super) fn find(&self, name: &str) -> Option<Part> {
        self.search(WRAPPERS_MAX, &|part, field| {
            field == name && part.ty.size > 0
        })
    }

    /// The nearest field whose type has a path.
    pub(super) fn find_type(&self, base: &str) -> Option<Part> {
        self.search(WRAPPERS_MAX, &|part, _| part.ty.base == base)
    }

    fn search(&self, depth: usize, wanted: &dyn Fn(&Part, &str) -> bool) -> Option<Part> {
        if depth == 0 {
            return None;
        }
        let fields = self.ty.fields();
        let direct = fields
            .iter()
            .find_map(|field| self.of(field).filter(|part| wanted(part, field.name)));
        direct.or_else(|| self.parts().find_map(|part| part.search(depth - 1, wanted)))
    }

    /// The first thin pointer inside wrappers.
    pub(super) fn pointer(&self) -> Option<Part> {
        let mut part = self.clone();
        for _ in 0..WRAPPERS_MAX {
            if matches!(part.ty.kind, Kind::Pointer(_)) {
                return Some(part);
            }
            let next = part.parts().find(|part| part.ty.size >= 8);
            part = next?;
        }
        None
    }

    /// What is left when wrappers of a single field that has a size are taken off.
    pub(super) fn innermost(&self) -> Part {
        let mut part = self.clone();
        for _ in 0..WRAPPERS_MAX {
            let sized: Vec<Part> = part
                .parts()
                .filter(|part| part.ty.size > 0)
                .take(2)
                .collect();
            match <[Part; 1]>::try_from(sized) {
                Ok([only]) => part = only,
                Err(_) => break,
            }
        }
        part
    }

    pub(super) fn target(&self) -> Option<&'static Type> {
        match &self.ty.kind {
            Kind::Pointer(Some(target)) => Some(target.ty()),
            _ => None,
        }
    }
}

/// Where the parts of a `Vec` are, counted from the start of a value that is one or has one inside.
#[derive(Debug)]
pub(super) struct VecShape {
    pointer: u64,
    len: u64,
    capacity: u64,
    has_sized_elements: bool,
}

impl VecShape {
    fn of(ty: &'static Type) -> Option<VecShape> {
        const VEC: &str = "alloc::vec::Vec";
        let whole = Part {
            ty,
            place: Place::Memory(0),
        };
        let vec = if ty.base == VEC {
            whole
        } else {
            whole.find_type(VEC)?
        };
        let offset = |part: Part| match part.place {
            Place::Memory(offset) => Some(offset),
            Place::Composite(..) => None,
        };
        Some(VecShape {
            pointer: offset(vec.find("ptr")?.pointer()?)?,
            len: offset(vec.field("len")?)?,
            capacity: offset(vec.find("cap")?.innermost())?,
            has_sized_elements: vec.ty.parameter("T").is_none_or(|ty| ty.size > 0),
        })
    }
}

/// For a type whose last field is an unsized text (`Path`, `OsStr`, `str`): where the text begins.
pub(super) fn unsized_text(ty: &'static Type) -> Option<u64> {
    const TEXTS: [&str; 5] = [
        "std::path::Path",
        "std::ffi::os_str::OsStr",
        "std::sys::os_str::bytes::Slice",
        "str",
        "core::str",
    ];
    TEXTS.contains(&ty.base.as_str()).then_some(0)
}

impl Renderer<'_> {
    /// Renders a type that is known by its path; `None` for all others.
    pub(super) fn known(&mut self, ty: &'static Type, place: &Place) -> Option<Result<Value>> {
        let part = Part {
            ty,
            place: place.clone(),
        };
        let base = ty.base.as_str();
        if let Kind::Enum(_, variants) = &ty.kind {
            return self.known_enum(&part, variants);
        }
        if !matches!(ty.kind, Kind::Struct(_) | Kind::Union(_)) {
            return None;
        }
        let is_fat = matches!(
            ty.fields(),
            [first, second] if matches!((first.name, second.name), ("data_ptr", "length") | ("pointer", "vtable"))
        );
        match base {
            _ if is_fat => None,
            "alloc::vec::Vec" => self.vec(&part),
            "alloc::string::String" => self.vec_text(&part, true),
            // What `Box<dyn Error>` makes of a text; private, so found by its last name alone.
            _ if base.starts_with("alloc::boxed::") && base.ends_with("::StringError") => {
                self.wrapped(&part)
            }
            "std::ffi::os_str::OsString" | "std::path::PathBuf" => self.vec_text(&part, false),
            "alloc::collections::vec_deque::VecDeque" => self.vec_deque(&part),
            "std::collections::hash::map::HashMap" | "hashbrown::map::HashMap" => {
                self.hash(&part, true)
            }
            "std::collections::hash::set::HashSet" | "hashbrown::set::HashSet" => {
                self.hash(&part, false)
            }
            "alloc::collections::btree::map::BTreeMap" => self.btree(&part, true),
            "alloc::collections::btree::set::BTreeSet" => {
                let map = part.field("map")?;
                self.btree(&map, false)
            }
            "alloc::collections::binary_heap::BinaryHeap" => {
                let data = part.field("data")?;
                self.vec(&data)
            }
            "alloc::rc::Rc" => self.counted(&part, "value"),
            "alloc::sync::Arc" => self.counted(&part, "data"),
            "alloc::rc::Weak" | "alloc::sync::Weak" => Some(Ok(Value::Symbol("(Weak)".to_owned()))),
            "core::cell::UnsafeCell"
            | "core::mem::manually_drop::ManuallyDrop"
            | "core::mem::maybe_uninit::MaybeUninit"
            | "core::mem::maybe_dangling::MaybeDangling"
            | "core::pin::Pin"
            | "core::pin::unsafe_pinned::UnsafePinned"
            | "alloc::boxed::Box"
            | "core::num::niche_types::UsizeNoHighBit"
            | "core::sync::exclusive::Exclusive" => self.wrapped(&part),
            "core::ptr::non_null::NonNull" | "core::ptr::unique::Unique" => {
                let address = part.pointer()?.place.uint(self.memory, 8);
                Some(address.map(|address| Value::Pointer(address as u64)))
            }
            "core::marker::PhantomData" => Some(Ok(Value::Symbol(ty.name.to_owned()))),
            "core::num::nonzero::NonZero" => self.non_zero(&part),
            "core::cell::Cell" => self.cell(&part),
            "core::cell::RefCell" => self.ref_cell(&part),
            "core::cell::Ref" | "core::cell::RefMut" => {
                let value = part.field("value")?;
                self.through_pointer(&value)
            }
            "core::cell::once::OnceCell" | "std::sync::once_lock::OnceLock" => self.once(&part),
            "std::sync::poison::mutex::Mutex"
            | "std::sync::poison::rwlock::RwLock"
            | "std::sync::mutex::Mutex"
            | "std::sync::rwlock::RwLock" => self.lock(&part),
            "core::time::Duration" => self.duration(&part),
            "core::ops::range::Range" => self.range(&part, ".."),
            "core::ops::range::RangeInclusive" => self.range(&part, "..="),
            "core::net::ip_addr::Ipv4Addr" => self.bytes_text(&part, |bytes: [u8; 4]| {
                std::net::Ipv4Addr::from(bytes).to_string()
            }),
            "core::net::ip_addr::Ipv6Addr" => self.bytes_text(&part, |bytes: [u8; 16]| {
                std::net::Ipv6Addr::from(bytes).to_string()
            }),
            _ if base.starts_with("core::sync::atomic::Atomic") => {
                let inner = part.innermost();
                Some(self.atomic(&inner, base))
            }
            _ => self
                .known_library(&part)
                .or_else(|| self.known_standard(&part))
                .or_else(|| self.known_web(&part)),
        }
    }

    fn vec(&mut self, vec: &Part) -> Option<Result<Value>> {
        let element = vec.ty.parameter("T")?;
        let (address, len) = match self.vec_place(vec)? {
            Ok(place) => place,
            Err(state) => return Some(Err(state)),
        };
        Some(self.list_at(element, address, len))
    }

    fn vec_text(&mut self, text: &Part, utf8: bool) -> Option<Result<Value>> {
        Some(self.vec_place(text)?.and_then(|(address, len)| {
            if utf8 {
                self.text(address, len)
            } else {
                self.lossy_text(address, len)
            }
        }))
    }

    /// The address and length of a `Vec`, or of the one inside, if they can be those of one.
    pub(super) fn vec_place(&self, vec: &Part) -> Option<Result<(u64, u64)>> {
        let shape = vec.ty.vec.get_or_init(|| VecShape::of(vec.ty));
        let shape = shape.as_ref()?;
        let word = |at| Ok(vec.place.add(at).uint(self.memory, 8)? as u64);
        let read = || {
            let (address, len) = (word(shape.pointer)?, word(shape.len)?);
            let capacity = word(shape.capacity)?;
            if address == 0 || len > LEN_MAX || (shape.has_sized_elements && len > capacity) {
                return Err(State::Invalid);
            }
            Ok((address, len))
        };
        Some(read())
    }

    fn vec_deque(&mut self, deque: &Part) -> Option<Result<Value>> {
        let element = deque.ty.parameter("T")?;
        let (head, len) = (deque.field("head")?, deque.field("len")?);
        let pointer = deque.find("ptr")?.pointer()?;
        let capacity = deque.find("cap")?.innermost();
        Some((|| {
            let head = head.place.uint(self.memory, 8)? as u64;
            let len = len.place.uint(self.memory, 8)? as u64;
            let address = pointer.place.uint(self.memory, 8)? as u64;
            let capacity = match element.size {
                0 => u64::MAX,
                _ => capacity.place.uint(self.memory, 8)? as u64,
            };
            if address == 0 || len > capacity || head > capacity || capacity == 0 && len > 0 {
                return Err(State::Invalid);
            }
            let items = self.elements(element, len, |at| {
                let slot = (u128::from(head) + u128::from(at)) % u128::from(capacity.max(1));
                Place::Memory(address.wrapping_add((slot as u64).wrapping_mul(element.size)))
            });
            Ok(Value::List { items, len })
        })())
    }

    /// A `hashbrown` table: control bytes upwards from a pointer, buckets downwards.
    fn hash(&mut self, map: &Part, is_map: bool) -> Option<Result<Value>> {
        let table = map.find_type("hashbrown::raw::RawTable")?;
        let bucket = table.ty.parameter("T")?;
        let (mask, items) = (table.find("bucket_mask")?, table.find("items")?);
        let control = table.find("ctrl")?.pointer()?;
        Some((|| {
            let mask = mask.place.uint(self.memory, 8)? as u64;
            let len = items.place.uint(self.memory, 8)? as u64;
            let control = control.place.uint(self.memory, 8)? as u64;
            if control == 0
                || !mask.wrapping_add(1).is_power_of_two()
                || len > mask.saturating_add(1)
            {
                return Err(State::Invalid);
            }
            let slots = self.full_slots(control, mask, len)?;
            let place = |slot: u64| {
                Place::Memory(control.wrapping_sub((slot + 1).wrapping_mul(bucket.size)))
            };
            if (slots.len() as u64) < len {
                self.cut();
            }
            if !is_map {
                let item = bucket.fields().iter().find(|field| field.name == "__0");
                let item = item.and_then(Field::ty).ok_or(State::Unsupported)?;
                let items = self.elements(item, slots.len() as u64, |at| place(slots[at as usize]));
                return Ok(Value::Set { items, len });
            }
            let mut entries = Vec::new();
            for slot in slots {
                let pair = Part {
                    ty: bucket,
                    place: place(slot),
                };
                let (Some(key), Some(value)) = (pair.field("__0"), pair.field("__1")) else {
                    return Err(State::Unsupported);
                };
                entries.push(self.entry(&(key.ty, key.place), &(value.ty, value.place)));
            }
            Ok(Value::Map { entries, len })
        })())
    }

    /// The first slots in use, as many as the limits allow.
    fn full_slots(&mut self, control: u64, mask: u64, len: u64) -> Result<Vec<u64>> {
        let wanted = len.min(self.limits.items as u64) as usize;
        let scanned = mask.saturating_add(1).min(CONTROL_BYTES_MAX);
        let mut slots = Vec::new();
        let mut group = [0; 64];
        let mut at = 0;
        while at < scanned && slots.len() < wanted {
            let chunk = (scanned - at).min(group.len() as u64) as usize;
            Place::Memory(control.wrapping_add(at)).read(self.memory, &mut group[..chunk])?;
            // The top bit marks empty and deleted slots.
            let full = group[..chunk]
                .iter()
                .enumerate()
                .filter(|(_, byte)| **byte < 0x80);
            slots.extend(full.map(|(offset, _)| at + offset as u64));
            at += chunk as u64;
        }
        if slots.len() < wanted && scanned == mask.saturating_add(1) {
            return Err(State::Invalid);
        }
        slots.truncate(wanted);
        Ok(slots)
    }

    fn btree(&mut self, map: &Part, is_map: bool) -> Option<Result<Value>> {
        let length = map.field("length")?;
        let root = map.field("root")?;
        let (key, value) = (map.ty.parameter("K")?, map.ty.parameter("V")?);
        Some((|| {
            let len = length.place.uint(self.memory, 8)? as u64;
            let mut pairs = Vec::new();
            if len > LEN_MAX {
                return Err(State::Invalid);
            }
            if len > 0 {
                let node = self.option(&root)?.ok_or(State::Invalid)?;
                let (height, pointer) = (
                    node.find("height"),
                    node.find("node").and_then(|node| node.pointer()),
                );
                let (Some(height), Some(pointer)) = (height, pointer) else {
                    return Err(State::Unsupported);
                };
                let leaf = pointer.target().ok_or(State::Unsupported)?;
                let height = height.place.uint(self.memory, 8)? as u64;
                let address = pointer.place.uint(self.memory, 8)? as u64;
                let wanted = len.min(self.limits.items as u64) as usize;
                self.btree_node(leaf, address, height, wanted, key, value, &mut pairs)?;
                if pairs.len() < wanted {
                    return Err(State::Invalid);
                }
            }
            if (pairs.len() as u64) < len {
                self.cut();
            }
            if is_map {
                let entries = pairs
                    .into_iter()
                    .map(|(k, v)| self.entry(&(key, k), &(value, v)))
                    .collect();
                return Ok(Value::Map { entries, len });
            }
            let items = self.elements(key, pairs.len() as u64, |at| pairs[at as usize].0.clone());
            Ok(Value::Set { items, len })
        })())
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one recursion over the parts of a node"
    )]
    fn btree_node(
        &mut self,
        leaf: &'static Type,
        address: u64,
        height: u64,
        wanted: usize,
        key: &'static Type,
        value: &'static Type,
        pairs: &mut Vec<(Place, Place)>,
    ) -> Result<()> {
        if height > HEIGHT_MAX || address == 0 {
            return Err(State::Invalid);
        }
        let node = Part {
            ty: leaf,
            place: Place::Memory(address),
        };
        let part = |name| node.field(name).ok_or(State::Unsupported);
        let (len, keys, values) = (part("len")?, part("keys")?, part("vals")?);
        let len = len.place.uint(self.memory, len.ty.size.min(8))? as u64;
        let Kind::Array(_, capacity) = &keys.ty.kind else {
            return Err(State::Unsupported);
        };
        if len > *capacity {
            return Err(State::Invalid);
        }
        let edges = if height > 0 {
            Some(self.btree_edges(&node)?)
        } else {
            None
        };
        for at in 0..=len {
            if pairs.len() >= wanted {
                break;
            }
            if let Some(edges) = edges {
                let child = Place::Memory(edges.wrapping_add(at * 8)).uint(self.memory, 8)? as u64;
                self.btree_node(leaf, child, height - 1, wanted, key, value, pairs)?;
            }
            if at < len && pairs.len() < wanted {
                pairs.push((
                    keys.place.add(at * key.size),
                    values.place.add(at * value.size),
                ));
            }
        }
        Ok(())
    }

    /// Where the children of an inner node are; its type is named by a leaf's pointer to its parent.
    fn btree_edges(&self, leaf: &Part) -> Result<u64> {
        let parent = leaf.field("parent").ok_or(State::Unsupported)?;
        let inner = pointer_type_within(parent.ty, WRAPPERS_MAX).ok_or(State::Unsupported)?;
        let edges = inner
            .fields()
            .iter()
            .find(|field| field.name == "edges")
            .ok_or(State::Unsupported)?;
        match leaf.place {
            Place::Memory(address) => Ok(address.wrapping_add(edges.offset)),
            Place::Composite(..) => Err(State::Unsupported),
        }
    }

    /// The content of an `Option`.
    fn option(&self, option: &Part) -> Result<Option<Part>> {
        let Kind::Enum(_, variants) = &option.ty.kind else {
            return Err(State::Unsupported);
        };
        let variant = self.active(variants, &option.place)?;
        if variant.field.name != "Some" {
            return Ok(None);
        }
        let some = option.of(&variant.field).and_then(|some| some.field("__0"));
        some.map(Some).ok_or(State::Unsupported)
    }

    /// `Rc` and `Arc`, of sized values, slices, texts and trait objects.
    fn counted(&mut self, counted: &Part, name: &str) -> Option<Result<Value>> {
        let pointer = counted.field("ptr")?;
        if let Some(thin) = pointer.pointer().filter(|_| counted.ty.size == 8) {
            let inner = thin.target()?;
            let data = inner.fields().iter().find(|field| field.name == name)?;
            let content = data.ty()?;
            return Some((|| {
                let address = thin.place.uint(self.memory, 8)? as u64;
                self.counted_alive(inner, address)?;
                self.follow(content, address.wrapping_add(data.offset))
            })());
        }
        let fat = pointer
            .innermost_struct_with("data_ptr")
            .map(|fat| (fat, "length"));
        let (fat, second) =
            fat.or_else(|| Some((pointer.innermost_struct_with("pointer")?, "vtable")))?;
        let first = if second == "length" {
            "data_ptr"
        } else {
            "pointer"
        };
        let (data, extra) = (fat.field(first)?, fat.field(second)?);
        let inner = data.target();
        let is_text = counted.ty.name.contains("<str");
        Some((|| {
            let address = data.place.uint(self.memory, 8)? as u64;
            let extra = extra.place.uint(self.memory, 8)? as u64;
            if second == "vtable" {
                let concrete = self.concrete(extra).ok_or(State::Unsupported)?;
                let align = Place::Memory(extra.wrapping_add(16)).uint(self.memory, 8)? as u64;
                if !align.is_power_of_two() {
                    return Err(State::Invalid);
                }
                // Two counters come first, then the value at its own alignment.
                let offset = 16_u64.next_multiple_of(align.min(1 << 20));
                return self.follow(concrete, address.wrapping_add(offset));
            }
            let data =
                inner.and_then(|inner| inner.fields().iter().find(|field| field.name == name));
            let offset = data.map_or(16, |data| data.offset);
            if is_text {
                return self.text(address.wrapping_add(offset), extra);
            }
            let element = data.and_then(Field::ty).and_then(|ty| match &ty.kind {
                Kind::Array(Some(element), _) => Some(element.ty()),
                // A field without a size, `[T]`, is described as its first element.
                _ if counted.ty.name.contains("<[") => Some(ty),
                _ => None,
            });
            if let Some(kind) = counted.ty.parameter("T").and_then(unsized_text) {
                return self.lossy_text(address.wrapping_add(offset + kind), extra);
            }
            self.list_at(
                element.ok_or(State::Unsupported)?,
                address.wrapping_add(offset),
                extra,
            )
        })())
    }

    /// A count of zero means that the value was dropped.
    fn counted_alive(&self, inner: &'static Type, address: u64) -> Result<()> {
        if address == 0 {
            return Err(State::Invalid);
        }
        let inner = Part {
            ty: inner,
            place: Place::Memory(address),
        };
        let Some(strong) = inner.field("strong") else {
            return Ok(());
        };
        match strong.innermost().place.uint(self.memory, 8)? as u64 {
            0 => Err(State::Invalid),
            count if count > LEN_MAX => Err(State::Invalid),
            _ => Ok(()),
        }
    }

    fn wrapped(&mut self, wrapper: &Part) -> Option<Result<Value>> {
        let fields = wrapper.ty.fields();
        let field = fields
            .iter()
            .filter(|field| field.name != "uninit")
            .find(|field| field.ty().is_some_and(|ty| ty.size > 0))
            .or_else(|| fields.iter().find(|field| field.name != "uninit"))?;
        let part = wrapper.of(field)?;
        Some(self.transparent(part.ty, &part.place))
    }

    pub(super) fn through_pointer(&mut self, part: &Part) -> Option<Result<Value>> {
        let pointer = part.pointer()?;
        let target = pointer.target()?;
        Some(
            pointer
                .place
                .uint(self.memory, 8)
                .and_then(|address| self.follow(target, address as u64)),
        )
    }

    fn non_zero(&mut self, number: &Part) -> Option<Result<Value>> {
        let inner = number.innermost();
        Some(match self.transparent(inner.ty, &inner.place) {
            Ok(Value::Unsigned(0) | Value::Signed(0)) => Err(State::Invalid),
            value => value,
        })
    }

    fn cell(&mut self, cell: &Part) -> Option<Result<Value>> {
        let value = cell.field("value")?;
        let value = self.value(value.ty, &value.place);
        Some(Ok(Value::Struct {
            name: "Cell".to_owned(),
            fields: vec![("value".to_owned(), value)],
        }))
    }

    fn ref_cell(&mut self, cell: &Part) -> Option<Result<Value>> {
        let (borrow, value) = (cell.field("borrow")?.innermost(), cell.field("value")?);
        Some(borrow.place.uint(self.memory, 8).map(|borrow| {
            let value = match borrow as i64 {
                // Being changed right now, perhaps half-way.
                ..0 => Value::Symbol("<borrowed>".to_owned()),
                _ => self.value(value.ty, &value.place),
            };
            Value::Struct {
                name: "RefCell".to_owned(),
                fields: vec![("value".to_owned(), value)],
            }
        }))
    }

    fn once(&mut self, once: &Part) -> Option<Result<Value>> {
        let name = once.ty.short().to_owned();
        let empty = Value::Symbol("<uninit>".to_owned());
        if let Some(state) = once.field("once") {
            const COMPLETE: u128 = 0; // `std`'s futex-based `Once`, the only one on Linux.
            let (state, value) = (state.innermost(), once.field("value")?);
            return Some(
                state
                    .place
                    .uint(self.memory, state.ty.size.min(8))
                    .map(|state| {
                        let item = if state == COMPLETE {
                            self.value(value.ty, &value.place)
                        } else {
                            empty
                        };
                        Value::Tuple {
                            name,
                            items: vec![item],
                        }
                    }),
            );
        }
        let option = once.find_type("core::option::Option")?;
        Some(self.option(&option).map(|content| {
            let item = content.map_or(empty, |content| self.value(content.ty, &content.place));
            Value::Tuple {
                name,
                items: vec![item],
            }
        }))
    }

    fn lock(&mut self, lock: &Part) -> Option<Result<Value>> {
        let data = lock.field("data")?;
        let poisoned = lock.field("poison").map(|flag| flag.innermost());
        let data = self.value(data.ty, &data.place);
        let mut fields = vec![("data".to_owned(), data)];
        if let Some(poisoned) = poisoned {
            let poisoned = match poisoned.place.uint(self.memory, 1) {
                Ok(flag) => Value::Bool(flag != 0),
                Err(state) => self.missing(state),
            };
            fields.push(("poisoned".to_owned(), poisoned));
        }
        Some(Ok(Value::Struct {
            name: lock.ty.short().to_owned(),
            fields,
        }))
    }

    fn duration(&mut self, duration: &Part) -> Option<Result<Value>> {
        let (secs, nanos) = (
            duration.field("secs")?.innermost(),
            duration.field("nanos")?.innermost(),
        );
        Some((|| {
            let secs = secs.place.uint(self.memory, 8)? as u64;
            let nanos = nanos.place.uint(self.memory, 4)? as u32;
            if nanos >= 1_000_000_000 {
                return Err(State::Invalid);
            }
            Ok(Value::Formatted(format!(
                "{:?}",
                Duration::new(secs, nanos)
            )))
        })())
    }

    fn range(&mut self, range: &Part, dots: &str) -> Option<Result<Value>> {
        let (start, end) = (range.field("start")?, range.field("end")?);
        let start = self.value(start.ty, &start.place);
        let end = self.value(end.ty, &end.place);
        Some(Ok(Value::Formatted(format!("{start}{dots}{end}"))))
    }

    pub(super) fn bytes_text<const N: usize>(
        &mut self,
        part: &Part,
        text: impl Fn([u8; N]) -> String,
    ) -> Option<Result<Value>> {
        let mut bytes = [0; N];
        let read = part.innermost().place.read(self.memory, &mut bytes);
        Some(read.map(|()| Value::Formatted(text(bytes))))
    }

    fn atomic(&mut self, inner: &Part, base: &str) -> Result<Value> {
        if base.ends_with("AtomicBool") {
            return Ok(Value::Bool(inner.place.uint(self.memory, 1)? != 0));
        }
        self.transparent(inner.ty, &inner.place)
    }
}

impl Part {
    /// The struct inside wrappers that has a field of this name.
    fn innermost_struct_with(&self, name: &str) -> Option<Part> {
        let mut part = self.clone();
        for _ in 0..WRAPPERS_MAX {
            // A fat pointer's own fields, not a wrapper's field that happens to have the name.
            if part.ty.fields().len() == 2 && part.field(name).is_some() {
                return Some(part);
            }
            let next = part.parts().find(|part| part.ty.size >= 16);
            part = next?;
        }
        None
    }
}

/// The target of the first pointer inside wrappers and options, by type alone.
pub(super) fn pointer_type_within(ty: &'static Type, depth: usize) -> Option<&'static Type> {
    if depth == 0 {
        return None;
    }
    match &ty.kind {
        Kind::Pointer(target) => target.as_ref().map(super::ty::Reference::ty),
        Kind::Struct(fields) => fields
            .iter()
            .find_map(|field| pointer_type_within(field.ty()?, depth - 1)),
        Kind::Enum(_, variants) => variants
            .list
            .iter()
            .find_map(|variant| pointer_type_within(variant.field.ty()?, depth - 1)),
        _ => None,
    }
}
