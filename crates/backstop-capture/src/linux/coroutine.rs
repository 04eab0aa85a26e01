//! Futures that are being polled, decoded from memory.
//!
//! The compiler keeps the variables of an async body that are alive across an `.await` in a
//! struct, one variant for each `.await`, each variable always at the same place. Optimised
//! builds lose most of these variables' locations but hardly ever the struct itself: the
//! poll function's unnamed argument points at it, and the awaiting future contains it.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use gimli::constants as dw;

use super::address_map::AddressMap;
use super::cleanup::{Cleanup, Proof};
use super::exceptions::landing_pad;
use super::frames::SiteLevel;
use super::function::VarDie;
use super::location::{Context, Place, locate};
use super::memory::Memory;
use super::module::Module;
use super::printers::Part;
use super::render::Renderer;
use super::ty::{Field, Kind, Type, Variants};
use super::unit::Die;
use super::unwind::Step;
use super::verdict::Verdict;

/// Levels outside of a body that are searched for a pointer to its future.
const LEVELS_SEARCHED_MAX: usize = 24;
/// Parts of a value that are searched for a future.
const PARTS_MAX: usize = 400;
/// Values inside values that are searched for a future.
const DEPTH_MAX: usize = 16;

/// One function or inlined call, with what is needed to find its variables.
pub(crate) struct Open<'a> {
    pub(crate) site: &'a SiteLevel,
    pub(crate) context: Context<'a>,
    pub(crate) is_async: bool,
    pub(crate) line: Option<u32>,
    /// What unwinding would drop in the physical frame.
    pub(crate) cleanup: Rc<Alive<'a>>,
}

/// What unwinding would drop in a physical frame; found when a variable first asks.
pub(crate) struct Alive<'a> {
    pub(crate) step: &'a Step,
    /// The landing pad of the address; the same for every stack that stands there.
    pub(crate) pad: &'a OnceLock<u64>,
    pub(crate) modules: &'a [&'static Module],
    pub(crate) cleanup: OnceCell<Option<Cleanup>>,
    pub(crate) claims: RefCell<Vec<Claim>>,
}

impl Alive<'_> {
    /// What an owning value has, and whether it is known that it was not moved or dropped.
    pub(crate) fn proof(&self, ty: &'static Type, place: &Place, memory: &Memory) -> Option<Proof> {
        let cleanup = self.cleanup.get_or_init(|| {
            let pad = match self.pad.get() {
                Some(pad) => *pad,
                None => {
                    let unwinding = self.step.unwinding.as_ref()?;
                    let pad = landing_pad(unwinding, self.step.lookup, memory)?;
                    *self.pad.get_or_init(|| pad)
                }
            };
            let registers = &self.step.registers;
            Some(Cleanup::read(pad, registers, self.modules, memory))
        });
        Some(cleanup.as_ref()?.proof(ty, place, self.modules, memory))
    }

    /// Keeps the proof of a variable, to compare those of others with.
    pub(crate) fn claim(&self, name: &str, line: Option<u32>, proof: Proof) {
        self.claims
            .borrow_mut()
            .push((name.to_owned(), line, proof));
    }

    /// Whether a variable owns something.
    pub(crate) fn owns(&self, name: &str, line: Option<u32>) -> bool {
        let claims = self.claims.borrow();
        claims
            .iter()
            .any(|claim| claim.0 == name && claim.1 == line)
    }

    /// Whether the proof of a variable may be about a value that another one has.
    pub(crate) fn is_disputed(&self, name: &str, line: Option<u32>, optimised: bool) -> bool {
        let claims = self.claims.borrow();
        let is_own = |claim: &&Claim| claim.0 == name && claim.1 == line;
        claims.iter().filter(is_own).any(|own| {
            claims
                .iter()
                .filter(|other| !is_own(other))
                .any(|other| own.2.is_shared_with(&other.2, optimised))
        })
    }
}

/// A variable's name, line and proof.
type Claim = (String, Option<u32>, Proof);

/// The future of an async body that is on the stack.
#[derive(Debug, Clone)]
pub(crate) struct Coroutine {
    ty: &'static Type,
    address: u64,
    /// The variant of the `.await` it was last resumed from; `None` in the first poll.
    resumed: Option<&'static Field>,
    declared: Arc<Declarations>,
}

/// A variable that was found in a future.
pub(crate) struct Saved {
    pub(crate) name: &'static str,
    /// Whether the name is one of what is hidden.
    pub(super) hidden: &'static Verdict,
    pub(crate) ty: &'static Type,
    pub(crate) place: Place,
    pub(crate) line: Option<u32>,
    /// The variable is certain to have its value now.
    pub(crate) certain: bool,
}

impl Coroutine {
    pub(crate) fn contains(&self, place: &Place) -> bool {
        matches!(place, Place::Memory(address) if (self.address..self.address.saturating_add(self.ty.size)).contains(address))
    }

    /// The line of the `.await` that the body was last resumed from.
    pub(crate) fn resumed_line(&self) -> Option<u32> {
        self.resumed.and_then(|variant| variant.line)
    }

    /// Whether a name is one of the arguments of an `async fn`, or a capture of a block.
    pub(crate) fn is_argument(&self, name: &str) -> bool {
        let arguments = self.variants().and_then(|variants| variants.list.first());
        let arguments = arguments.and_then(|variant| variant.field.ty());
        arguments.is_some_and(|ty| ty.fields().iter().any(|field| field.name == name))
    }

    fn variants(&self) -> Option<&'static Variants> {
        variants_of(self.ty)
    }

    /// Where a variable is kept, if it is, and if no other one has its name.
    pub(crate) fn slot_of(&self, name: &str, ty: &Type) -> Option<Place> {
        self.declared.get(name).filter(|lines| lines.len() == 1)?;
        self.slot(name, ty)
    }

    /// The one place at which variables of this name and type are kept, if they are.
    fn slot(&self, name: &str, ty: &Type) -> Option<Place> {
        let mut slot = None;
        for field in self.saved_fields().filter(|field| field.name == name) {
            let same = field
                .ty()
                .is_some_and(|kept| kept.path == ty.path && kept.size == ty.size);
            if !same || slot.is_some_and(|offset| offset != field.offset) {
                return None;
            }
            slot = Some(field.offset);
        }
        slot.map(|offset| Place::Memory(self.address.wrapping_add(offset)))
    }

    fn saved_fields(&self) -> impl Iterator<Item = &'static Field> {
        let suspended = self
            .variants()
            .into_iter()
            .flat_map(|variants| &variants.list)
            .filter(is_suspended);
        suspended.flat_map(|variant| variant.field.ty().map_or(&[] as &[Field], |ty| ty.fields()))
    }

    /// No other variable is ever kept in these bytes, so they are this one's last value.
    fn is_exclusive(&self, name: &str, offset: u64, size: u64) -> bool {
        self.saved_fields().all(|field| {
            let end = field
                .offset
                .saturating_add(field.ty().map_or(u64::MAX, |ty| ty.size));
            field.name == name || end <= offset || offset.saturating_add(size) <= field.offset
        })
    }

    /// Variables beyond those that the debug information places, at a line of the body.
    ///
    /// `awaiting` says that the body is inside the poll of what it awaits on that line.
    pub(crate) fn saved(&self, line: Option<u32>, awaiting: bool) -> Vec<Saved> {
        let mut saved: Vec<Saved> = Vec::new();
        let at_await = awaiting.then(|| self.awaits_at(line)).flatten();
        let alive = at_await.or(self.resumed);
        let arguments = self.variants().and_then(|variants| variants.list.first());
        let fields = [alive, arguments.map(|variant| &variant.field)];
        for (is_argument, variant) in [false, true].into_iter().zip(fields) {
            for field in variant
                .and_then(Field::ty)
                .map_or(&[] as &[Field], |ty| ty.fields())
            {
                let Some(ty) = field.ty().filter(|_| !field.name.is_empty()) else {
                    continue;
                };
                if saved.iter().any(|known| known.name == field.name) {
                    continue;
                }
                let Some(place) = self.slot(field.name, ty) else {
                    continue;
                };
                let Place::Memory(address) = place else {
                    continue;
                };
                let lines = self
                    .declared
                    .get(field.name)
                    .map_or(&[] as &[u32], Vec::as_slice);
                let [declared_line] = lines else { continue };
                let before = line.is_some_and(|line| *declared_line <= line);
                if !before {
                    continue;
                }
                let exclusive =
                    self.is_exclusive(field.name, address.wrapping_sub(self.address), ty.size);
                if !exclusive && at_await.is_none() {
                    continue;
                }
                // At the `.await` the compiler itself says what is alive; an argument is kept
                // from the start; anything else may have ended since.
                let certain = (at_await.is_some() && !is_argument)
                    || (is_argument && exclusive)
                    || !ty.owns();
                saved.push(Saved {
                    name: field.name,
                    hidden: &field.hidden,
                    ty,
                    place,
                    line: Some(*declared_line),
                    certain,
                });
            }
        }
        saved
    }

    /// The variant of the only `.await` on a line.
    fn awaits_at(&self, line: Option<u32>) -> Option<&'static Field> {
        let mut found = None;
        for variant in self.variants()?.list.iter().filter(is_suspended) {
            if variant.field.line == line
                && line.is_some()
                && found.replace(&variant.field).is_some()
            {
                return None;
            }
        }
        found
    }
}

fn is_suspended(variant: &&super::ty::Variant) -> bool {
    variant
        .field
        .ty()
        .is_some_and(|ty| ty.name.starts_with("Suspend"))
}

fn variants_of(ty: &'static Type) -> Option<&'static Variants> {
    match &ty.kind {
        Kind::Enum(_, variants)
            if ty.name.starts_with("{async_") || ty.name.starts_with("{coroutine") =>
        {
            Some(variants)
        }
        _ => None,
    }
}

/// Finds the future of the async body at `at`; levels are innermost first.
pub(crate) fn find(levels: &[Open<'_>], at: usize, renderer: &Renderer<'_>) -> Option<Coroutine> {
    let body = levels.get(at).filter(|level| level.is_async)?;
    let parameter = body
        .site
        .vars
        .iter()
        .find(|var| var.is_parameter && var.described().name.is_none())?;
    let pinned = parameter.described().ty?;
    let wanted = pointee(pinned)?;
    variants_of(wanted)?;
    let direct = pointer_at(parameter, pinned, &body.context, renderer);
    let found = direct
        .and_then(|address| running(wanted, address, renderer))
        .or_else(|| find_outside(levels, at, wanted, renderer))?;
    Some(Coroutine {
        ty: found.ty,
        address: found.address,
        resumed: found.resumed,
        declared: declarations(body.site.die),
    })
}

/// A future found at an address, unless its state is not that of one that is being polled.
fn running(ty: &'static Type, address: u64, renderer: &Renderer<'_>) -> Option<Found> {
    let place = Place::Memory(address);
    let variant = renderer.active(variants_of(ty)?, &place).ok()?;
    let content = variant.field.ty()?;
    let resumed = match content.name {
        "Unresumed" => None,
        name if name.starts_with("Suspend") => Some(&variant.field),
        _ => return None,
    };
    Some(Found {
        ty,
        address,
        resumed,
    })
}

/// A future's place and state.
struct Found {
    ty: &'static Type,
    address: u64,
    resumed: Option<&'static Field>,
}

fn find_outside(
    levels: &[Open<'_>],
    at: usize,
    wanted: &'static Type,
    renderer: &Renderer<'_>,
) -> Option<Found> {
    for outer in at + 1..levels.len().min(at + 1 + LEVELS_SEARCHED_MAX) {
        let level = &levels[outer];
        for var in &level.site.vars {
            let Some(ty) = var.described().ty else {
                continue;
            };
            let Some(target) =
                pointee(ty).filter(|target| target.path.contains(wanted.path.as_str()))
            else {
                continue;
            };
            let Some(address) = pointer_at(var, ty, &level.context, renderer) else {
                continue;
            };
            let part = Part {
                ty: target,
                place: Place::Memory(address),
            };
            if let Some(found) = Search::new(wanted, renderer).only(&part) {
                return running(wanted, found, renderer);
            }
        }
        if level.is_async {
            let parent = find(levels, outer, renderer)?;
            let part = Part {
                ty: parent.ty,
                place: Place::Memory(parent.address),
            };
            let found = Search::new(wanted, renderer).only(&part)?;
            return running(wanted, found, renderer);
        }
    }
    None
}

/// What a reference, a pinned reference or a box points at.
fn pointee(ty: &'static Type) -> Option<&'static Type> {
    let mut ty = ty;
    for _ in 0..4 {
        match &ty.kind {
            Kind::Pointer(Some(target)) => return Some(target.ty()),
            Kind::Struct(fields) => {
                ty = fields
                    .iter()
                    .filter_map(Field::ty)
                    .find(|ty| ty.size == 8)?;
            }
            _ => return None,
        }
    }
    None
}

fn pointer_at(
    var: &VarDie,
    ty: &'static Type,
    context: &Context<'_>,
    renderer: &Renderer<'_>,
) -> Option<u64> {
    if ty.size != 8 {
        return None;
    }
    let located = locate(var, ty.size, context).ok()?;
    let address = located.place.uint(renderer.memory, 8).ok()? as u64;
    (address != 0).then_some(address)
}

/// Looks for a future of a type inside another value.
struct Search<'a, 'r> {
    wanted: &'static Type,
    renderer: &'a Renderer<'r>,
    parts_left: usize,
    found: Vec<u64>,
}

impl<'a, 'r> Search<'a, 'r> {
    fn new(wanted: &'static Type, renderer: &'a Renderer<'r>) -> Search<'a, 'r> {
        Search {
            wanted,
            renderer,
            parts_left: PARTS_MAX,
            found: Vec::new(),
        }
    }

    /// The address of the future, if there is exactly one.
    fn only(mut self, part: &Part) -> Option<u64> {
        self.walk(part, DEPTH_MAX);
        match self.found.as_slice() {
            [only] => Some(*only),
            _ => None,
        }
    }

    fn walk(&mut self, part: &Part, depth: usize) {
        let Place::Memory(address) = part.place else {
            return;
        };
        if self.parts_left == 0 || depth == 0 {
            return;
        }
        self.parts_left -= 1;
        if part.ty.path == self.wanted.path && part.ty.size == self.wanted.size {
            if !self.found.contains(&address) {
                self.found.push(address);
            }
            return;
        }
        match &part.ty.kind {
            Kind::Struct(fields) if fields.len() == 2 && fields[1].name == "vtable" => {
                self.walk_object(part, depth);
            }
            Kind::Struct(_) => part.parts().for_each(|inner| self.walk(&inner, depth - 1)),
            Kind::Enum(_, variants) if variants_of(part.ty).is_some() => {
                // Which `.await` it stands at is not written before it first suspends.
                let awaited = variants
                    .list
                    .iter()
                    .filter(is_suspended)
                    .filter_map(|variant| part.of(&variant.field));
                for content in awaited.collect::<Vec<_>>() {
                    for field in content
                        .ty
                        .fields()
                        .iter()
                        .filter(|field| field.name == "__awaitee")
                    {
                        if let Some(inner) =
                            content.of(field).filter(|inner| self.may_hold(inner.ty))
                        {
                            self.walk(&inner, depth - 1);
                        }
                    }
                }
            }
            Kind::Enum(_, variants) => {
                let active = self.renderer.active(variants, &part.place).ok();
                if let Some(content) = active.and_then(|variant| part.of(&variant.field)) {
                    self.walk(&content, depth - 1);
                }
            }
            Kind::Pointer(Some(target)) if self.may_hold(target.ty()) => {
                if let Ok(address) = part.place.uint(self.renderer.memory, 8) {
                    self.walk(
                        &Part {
                            ty: target.ty(),
                            place: Place::Memory(address as u64),
                        },
                        depth - 1,
                    );
                }
            }
            _ => {}
        }
    }

    fn walk_object(&mut self, part: &Part, depth: usize) {
        let word = |at| {
            part.place
                .add(at)
                .uint(self.renderer.memory, 8)
                .ok()
                .map(|word| word as u64)
        };
        let (Some(address), Some(vtable)) = (
            word(part.ty.fields()[0].offset),
            word(part.ty.fields()[1].offset),
        ) else {
            return;
        };
        if let Some(concrete) = self.renderer.concrete(vtable) {
            self.walk(
                &Part {
                    ty: concrete,
                    place: Place::Memory(address),
                },
                depth - 1,
            );
        }
    }

    fn may_hold(&self, ty: &Type) -> bool {
        ty.path.contains(self.wanted.path.as_str())
            || ty.path.contains("dyn ")
            || ty.name.starts_with("{async_")
    }
}

/// A unit's address and an offset in it.
type BodyKey = (usize, usize);
pub(super) type Declarations = HashMap<&'static str, Vec<u32>>;

/// The lines on which each name is declared in a body; an argument's own and moved-in
/// declarations stand on one line.
fn declarations(body: Die) -> Arc<Declarations> {
    let body = body.origin();
    static KNOWN: Mutex<Option<AddressMap<BodyKey, Arc<Declarations>>>> = Mutex::new(None);
    let key = (std::ptr::from_ref(body.unit).addr(), body.offset.0);
    let known = KNOWN
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .get_or_insert_default()
        .get(&key)
        .cloned();
    known.unwrap_or_else(|| {
        let declared = Arc::new(read_declarations(body).unwrap_or_default());
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .get_or_insert_default()
            .insert(key, Arc::clone(&declared));
        declared
    })
}

pub(super) fn read_declarations(body: Die) -> Option<Declarations> {
    let mut declared = Declarations::new();
    let mut entries = body.unit.unit.entries_raw(Some(body.offset)).ok()?;
    let mut entry = gimli::DebuggingInformationEntry::null();
    let mut skip_below: Option<isize> = None;
    let mut first = true;
    while !entries.is_empty() {
        let depth = entries.next_depth();
        if !first && depth <= 0 {
            break;
        }
        first = false;
        if !entries.read_entry(&mut entry).ok()? || skip_below.is_some_and(|below| depth > below) {
            continue;
        }
        skip_below = None;
        match entry.tag() {
            dw::DW_TAG_variable => {
                let die = body.unit.die(entry.offset());
                let (_, line) = super::function::declaration(die);
                if let (Some(name), Some(line)) = (die.name(), line) {
                    let lines = declared.entry(name).or_default();
                    if !lines.contains(&line) {
                        lines.push(line);
                    }
                }
            }
            dw::DW_TAG_subprogram | dw::DW_TAG_lexical_block => {}
            _ => skip_below = Some(depth),
        }
    }
    Some(declared)
}
