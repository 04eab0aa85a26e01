//! What unwinding would drop now: the compiler's own word on which values are alive.
//!
//! No debug information says that a variable was moved or dropped. The landing pad of a call
//! does: it drops every value that is alive there, by drop flags where that depends on the
//! path taken. Its instructions are followed here without being run, on the frame's registers
//! and memory, and the addresses that it drops, frees or releases are noted. A variable among
//! them is alive. A variable that is not may have been moved, and is marked.

use super::follower::{Followed, follow};
use super::location::Place;
use super::memory::Memory;
use super::module::Module;
use super::registers::Registers;
use super::ty::{Kind, Type};

/// Wrappers inside wrappers of one value.
const WRAPPERS_MAX: usize = 12;
/// Pointers to nothing are as small as an alignment.
const DANGLING_MAX: u64 = 4096;
/// Pointers of one value that are compared with the noted addresses.
const POINTERS_MAX: usize = 32;

/// What a landing pad would drop.
#[derive(Debug, Default)]
pub(crate) struct Cleanup(Followed);

impl Cleanup {
    /// Follows the landing pad of the call a frame stands at; 0 where there is none.
    pub(crate) fn read(
        pad: u64,
        registers: &Registers,
        modules: &[&'static Module],
        memory: &Memory,
    ) -> Cleanup {
        match pad {
            0 => Cleanup::default(),
            pad => Cleanup(follow(pad, registers, modules, memory)),
        }
    }

    /// What a value owns, and whether it is known to be alive, that is, that all of it would be
    /// dropped.
    pub(crate) fn proof(
        &self,
        ty: &'static Type,
        place: &Place,
        modules: &[&'static Module],
        memory: &Memory,
    ) -> Proof {
        let address = match place {
            Place::Memory(address) => Some(*address),
            Place::Composite(..) => None,
        };
        let mut pointers = Vec::new();
        collect_pointers(ty, place, memory, &mut pointers, WRAPPERS_MAX);
        // Empty collections point at nothing, or at a constant.
        let owned = |pointer: u64| {
            pointer > DANGLING_MAX && !modules.iter().any(|module| module.maps(pointer))
        };
        pointers.retain(|(_, pointer)| owned(*pointer));
        let by_address = self.0.dropped.iter().any(|(at, name)| {
            let offset = address.and_then(|address| at.checked_sub(address));
            offset.is_some_and(|offset| is_whole(ty, offset, name, WRAPPERS_MAX))
        });
        let by_pointers = !pointers.is_empty()
            && pointers.iter().all(|(at, pointer)| {
                self.0.touched.contains(pointer) || at.is_some_and(|at| self.0.loaded.contains(&at))
            });
        Proof {
            address,
            by_address,
            by_pointers,
            pointers: pointers.into_iter().map(|(_, pointer)| pointer).collect(),
        }
    }
}

/// What a value owns and how it is known to be alive, if it is.
#[derive(Debug)]
pub(crate) struct Proof {
    address: Option<u64>,
    /// The value itself would be dropped at its address, not only what it points at.
    by_address: bool,
    /// All that it points at would be freed or released.
    by_pointers: bool,
    pointers: Vec<u64>,
}

impl Proof {
    pub(crate) fn holds(&self) -> bool {
        self.by_address || self.by_pointers
    }

    /// Whether another variable's proof may be about the same value: one was moved into the other.
    ///
    /// Optimised code drops a moved value at either place, whatever the source says.
    pub(crate) fn is_shared_with(&self, other: &Proof, optimised: bool) -> bool {
        let same_place = self.address.is_some() && self.address == other.address;
        let same_pointer = self
            .pointers
            .iter()
            .any(|pointer| other.pointers.contains(pointer));
        if optimised {
            same_place || same_pointer
        } else {
            other.holds() && (same_place || !self.by_address && same_pointer)
        }
    }
}

/// Whether what is dropped at an offset of a value, by the symbol's name, is all that the value owns.
fn is_whole(ty: &'static Type, offset: u64, name: &str, depth: usize) -> bool {
    if offset == 0 && is_name_of(name, ty) {
        return true;
    }
    let mut owning = ty
        .fields()
        .iter()
        .filter(|field| field.ty().is_none_or(Type::owns));
    let (Some(only), None, Some(depth)) = (owning.next(), owning.next(), depth.checked_sub(1))
    else {
        return false;
    };
    let inner = only.ty().zip(offset.checked_sub(only.offset));
    inner.is_some_and(|(ty, offset)| is_whole(ty, offset, name, depth))
}

/// Whether the symbol's `drop_in_place<…>` names this type; type parameters are written
/// differently there, so only the path itself is compared.
fn is_name_of(name: &str, ty: &Type) -> bool {
    let own = name.split('<').next().unwrap_or(name);
    let short = |path: &str| path.rsplit("::").next().unwrap_or(path).to_owned();
    // Arrays, tuples, closures and futures have no path that both sides agree on.
    own.is_empty()
        || own.starts_with(['(', '[', '{'])
        || ty.name.starts_with(['(', '[', '{'])
        || own.contains('{')
        || short(own) == short(&ty.base)
}

/// Pointers of a value that are not references.
fn collect_pointers(
    ty: &'static Type,
    place: &Place,
    memory: &Memory,
    pointers: &mut Vec<(Option<u64>, u64)>,
    depth: usize,
) {
    if depth == 0 || pointers.len() >= POINTERS_MAX || !ty.owns() {
        return;
    }
    match &ty.kind {
        Kind::Pointer(_) => {
            let at = match place {
                Place::Memory(address) => Some(*address),
                Place::Composite(..) => None,
            };
            pointers.extend(
                place
                    .uint(memory, 8)
                    .ok()
                    .map(|pointer| (at, pointer as u64)),
            );
        }
        Kind::Struct(fields) => {
            for field in fields {
                if let Some(ty) = field.ty() {
                    collect_pointers(ty, &place.add(field.offset), memory, pointers, depth - 1);
                }
            }
        }
        Kind::Enum(_, variants) => {
            let active = super::render::active(variants, place, memory).ok();
            if let Some((variant, ty)) =
                active.and_then(|variant| Some((variant, variant.field.ty()?)))
            {
                collect_pointers(
                    ty,
                    &place.add(variant.field.offset),
                    memory,
                    pointers,
                    depth - 1,
                );
            }
        }
        Kind::Union(fields) => {
            if let Some((field, ty)) = fields
                .iter()
                .find_map(|field| Some((field, field.ty().filter(|ty| ty.size > 0)?)))
            {
                collect_pointers(ty, &place.add(field.offset), memory, pointers, depth - 1);
            }
        }
        Kind::Array(Some(element), count) => {
            let element = element.ty();
            for at in 0..(*count).min(4) {
                collect_pointers(
                    element,
                    &place.add(at * element.size),
                    memory,
                    pointers,
                    depth - 1,
                );
            }
        }
        _ => {}
    }
}
