//! Values of the standard library whose text is not that of their fields: errors, lazy values,
//! guards, open ranges.

use super::printers::{Part, pointer_type_within};
use super::render::{Renderer, Result};
use super::ty::{Kind, Type, Variants};
use crate::{State, Value};

/// Wrappers between a list and the pointer to its nodes.
const WRAPPERS_MAX: usize = 12;

impl Renderer<'_> {
    /// Renders a type of the standard library that is known by its path; `None` for all others.
    pub(super) fn known_standard(&mut self, part: &Part) -> Option<Result<Value>> {
        match part.ty.base.as_str() {
            "std::io::error::Error" => self.io_error(part),
            "std::sync::lazy_lock::LazyLock" => self.lazy_lock(part),
            "core::cell::lazy::LazyCell" => self.lazy_cell(part),
            "std::sync::poison::mutex::MutexGuard"
            | "std::sync::poison::rwlock::RwLockWriteGuard" => self.guarded(part),
            "std::sync::poison::rwlock::RwLockReadGuard" => {
                let data = part.field("data")?;
                self.through_pointer(&data)
            }
            "alloc::collections::linked_list::LinkedList" => self.linked_list(part),
            "alloc::ffi::c_str::CString" => self.c_string(part),
            "core::ops::range::RangeFrom" => self.bound(part, "start", ["", ".."]),
            "core::ops::range::RangeTo" => self.bound(part, "end", ["..", ""]),
            "core::ops::range::RangeToInclusive" => self.bound(part, "end", ["..=", ""]),
            "core::ops::range::RangeFull" => Some(Ok(Value::Symbol("..".to_owned()))),
            _ => None,
        }
    }

    /// One word that holds a number or a pointer; its two lowest bits say which.
    ///
    /// Layout: `library/std/src/io/error/repr_bitpacked.rs` of the toolchain.
    fn io_error(&mut self, part: &Part) -> Option<Result<Value>> {
        const MESSAGE: u64 = 0;
        const CUSTOM: u64 = 1;
        const SYSTEM: u64 = 2;
        const TAGS: u64 = 3;
        let repr = part.field("repr")?;
        let word = repr.pointer()?;
        // What the word can stand for is told by the marker beside it alone.
        let marker = repr.find_type("core::marker::PhantomData")?;
        let meanings = marker.ty.parameter("T")?;
        let Kind::Enum(_, variants) = &meanings.kind else {
            return None;
        };
        let word = match word.place.uint(self.memory, 8) {
            Ok(word) => word as u64,
            Err(state) => return Some(Err(state)),
        };
        let number = (word >> 32) as u32;
        Some(match word & TAGS {
            SYSTEM => {
                let error = std::io::Error::from_raw_os_error(number.cast_signed());
                Ok(Value::Formatted(format!("{error:?}")))
            }
            CUSTOM => self.follow(pointee(content_of(variants, "Custom")?)?, word & !TAGS),
            MESSAGE => {
                let message = pointee(content_of(variants, "SimpleMessage")?)?;
                self.follow(message, word).map(|value| match value {
                    Value::Struct { fields, .. } => Value::Struct {
                        name: "Error".to_owned(),
                        fields,
                    },
                    value => value,
                })
            }
            _ => {
                let Kind::Enumeration(names) = &content_of(variants, "Simple")?.kind else {
                    return None;
                };
                let name = names.iter().find(|(kind, _)| *kind == i128::from(number));
                name.ok_or(State::Invalid).map(|(_, name)| Value::Tuple {
                    name: "Kind".to_owned(),
                    items: vec![Value::Symbol((*name).to_owned())],
                })
            }
        })
    }

    fn lazy_lock(&mut self, lazy: &Part) -> Option<Result<Value>> {
        // `std`'s futex-based `Once`, the only one on Linux.
        const COMPLETE: u128 = 0;
        const POISONED: u128 = 2;
        let (once, data) = (lazy.field("once")?.innermost(), lazy.field("data")?);
        // A cell around a union.
        let value = data.field("value")?.field("value")?;
        let state = once.place.uint(self.memory, once.ty.size.min(8));
        Some(state.map(|state| match state {
            COMPLETE => {
                let value = self.value(value.ty, &value.place);
                lazy_text(lazy.ty, value)
            }
            POISONED => lazy_text(lazy.ty, Value::Symbol("<poisoned>".to_owned())),
            _ => lazy_text(lazy.ty, Value::Symbol("<uninit>".to_owned())),
        }))
    }

    fn lazy_cell(&mut self, lazy: &Part) -> Option<Result<Value>> {
        let state = lazy.find_type("core::cell::lazy::State")?;
        let Kind::Enum(_, variants) = &state.ty.kind else {
            return None;
        };
        let variant = match self.active(variants, &state.place) {
            Ok(variant) => variant,
            Err(state) => return Some(Err(state)),
        };
        let value = match variant.field.name {
            "Init" => {
                let content = state.of(&variant.field)?.field("__0")?;
                self.value(content.ty, &content.place)
            }
            "Poisoned" => Value::Symbol("<poisoned>".to_owned()),
            _ => Value::Symbol("<uninit>".to_owned()),
        };
        Some(Ok(lazy_text(lazy.ty, value)))
    }

    /// What the lock that a guard holds protects.
    fn guarded(&mut self, guard: &Part) -> Option<Result<Value>> {
        let lock = guard.field("lock")?.pointer()?;
        let target = lock.target()?;
        let data = target.fields().iter().find(|field| field.name == "data")?;
        let content = data.ty()?;
        let address = lock.place.uint(self.memory, 8);
        Some(
            address.and_then(|address| {
                self.follow(content, (address as u64).wrapping_add(data.offset))
            }),
        )
    }

    fn linked_list(&mut self, list: &Part) -> Option<Result<Value>> {
        let (head, len) = (list.field("head")?, list.field("len")?);
        let node = pointer_type_within(head.ty, WRAPPERS_MAX)?;
        let named = |name| node.fields().iter().find(|field| field.name == name);
        let (next, element) = (named("next")?, named("element")?);
        let content = element.ty()?;
        let read = || {
            let len = len.place.uint(self.memory, 8)? as u64;
            let mut nodes = Vec::new();
            let mut place = head.place.clone();
            // A list that is no list any more may go round in a circle.
            let most = self.limits.items.min(self.nodes_left) as u64;
            while (nodes.len() as u64) < len.min(most) {
                // An option of a pointer is the pointer, or 0.
                let address = place.uint(self.memory, 8)? as u64;
                if address == 0 {
                    return Err(State::Invalid);
                }
                let node = super::location::Place::Memory(address);
                nodes.push(node.add(element.offset));
                place = node.add(next.offset);
            }
            Ok((nodes, len))
        };
        Some(read().map(|(nodes, len)| {
            if (nodes.len() as u64) < len {
                self.cut();
            }
            let items = self.elements(content, nodes.len() as u64, |at| nodes[at as usize].clone());
            Value::List { items, len }
        }))
    }

    /// The text without the zero that ends it.
    fn c_string(&mut self, text: &Part) -> Option<Result<Value>> {
        let (data, len) = (text.find("data_ptr")?, text.find("length")?);
        let read = || {
            let address = data.place.uint(self.memory, 8)? as u64;
            let len = len.place.uint(self.memory, 8)? as u64;
            Ok((address, len.checked_sub(1).ok_or(State::Invalid)?))
        };
        Some(read().and_then(|(address, len)| self.lossy_text(address, len)))
    }

    fn bound(&mut self, range: &Part, field: &str, around: [&str; 2]) -> Option<Result<Value>> {
        let bound = range.field(field)?;
        let value = self.value(bound.ty, &bound.place);
        let [before, after] = around;
        Some(Ok(Value::Formatted(format!("{before}{value}{after}"))))
    }
}

fn lazy_text(ty: &Type, value: Value) -> Value {
    Value::Tuple {
        name: ty.short().to_owned(),
        items: vec![value],
    }
}

/// The type of the only field of a variant.
fn content_of(variants: &'static Variants, name: &str) -> Option<&'static Type> {
    let variant = variants
        .list
        .iter()
        .find(|variant| variant.field.name == name)?;
    let content = variant.field.ty()?.fields().first()?;
    content.ty()
}

/// What a reference or a box points at.
fn pointee(ty: &'static Type) -> Option<&'static Type> {
    pointer_type_within(ty, WRAPPERS_MAX)
}
