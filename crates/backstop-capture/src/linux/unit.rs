//! One compilation unit: its functions, names, lines and types, each made on first use.
//!
//! A unit that is split off has two halves: the skeleton in the module, which holds
//! addresses and lines, and the unit in the package, which holds everything else.

use std::sync::{Mutex, PoisonError};

use gimli::{AttributeValue, Dwarf, DwarfPackage, UnitOffset, constants as dw};

use super::address_map::AddressMap;
use super::debug_file::{DebugFile, Slice};
use super::function::Function;
use super::lazy::Lazy;
use super::line::Lines;
use super::ty::Type;

/// References from one DIE to another that stands for it; real chains have two or three.
const ORIGINS_MAX: usize = 8;
/// Nesting of DIEs; rustc's deepest are a few hundred inlined calls.
const DEPTH_MAX: isize = 2000;

/// One compilation unit.
#[derive(Debug)]
pub(crate) struct Unit {
    pub(crate) file: &'static DebugFile,
    pub(crate) dwarf: &'static Dwarf<Slice>,
    pub(crate) unit: gimli::Unit<Slice>,
    /// The dwarf and unit that hold the line program, when split off.
    skeleton: Option<(&'static Dwarf<Slice>, gimli::Unit<Slice>)>,
    /// The package lacks this unit: only the skeleton is here.
    pub(crate) package_missing: bool,
    index: Lazy<Index>,
    lines: Lazy<Option<Lines>>,
    functions: Mutex<AddressMap<usize, Option<&'static Function>>>,
    types: Mutex<AddressMap<usize, &'static Type>>,
}

/// A DIE of a unit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Die {
    pub(crate) unit: &'static Unit,
    pub(crate) offset: UnitOffset,
}

impl PartialEq for Die {
    fn eq(&self, other: &Die) -> bool {
        std::ptr::eq(self.unit, other.unit) && self.offset == other.offset
    }
}

#[derive(Debug, Default)]
struct Index {
    functions: Vec<FunctionRange>,
    scopes: Vec<Scope>,
    /// Addresses of vtables and the types they belong to.
    vtables: Vec<(u64, UnitOffset)>,
    has_variables: bool,
}

#[derive(Debug, Clone, Copy)]
struct FunctionRange {
    start: u64,
    end: u64,
    die: UnitOffset,
}

/// A DIE that gives its name to what it contains.
#[derive(Debug, Clone, Copy)]
struct Scope {
    start: usize,
    end: usize,
    parent: Option<usize>,
    name: &'static str,
    is_namespace: bool,
}

impl Unit {
    pub(crate) fn open(
        file: &'static DebugFile,
        dwarf: &'static Dwarf<Slice>,
        package: Option<&DwarfPackage<Slice>>,
        offset: usize,
    ) -> Option<Unit> {
        let header = dwarf.unit_header(gimli::DebugInfoOffset(offset)).ok()?;
        let unit = dwarf.unit(header).ok()?;
        let split = unit.dwo_id.and_then(|id| {
            let dwo = package?.find_cu(id, dwarf).ok()??;
            let header = dwo.units().next().ok()??;
            let mut split = dwo.unit(header).ok()?;
            split.copy_relocated_attributes(&unit);
            let dwo: &'static Dwarf<Slice> = Box::leak(Box::new(dwo));
            Some((dwo, split))
        });
        let package_missing = unit.dwo_id.is_some() && split.is_none();
        let (dwarf, unit, skeleton) = match split {
            Some((dwo, split)) => (dwo, split, Some((dwarf, unit))),
            None => (dwarf, unit, None),
        };
        Some(Unit {
            file,
            dwarf,
            unit,
            skeleton,
            package_missing,
            index: Lazy::new(),
            lines: Lazy::new(),
            functions: Mutex::default(),
            types: Mutex::default(),
        })
    }

    /// The function whose code holds an address of the file.
    pub(crate) fn function_at(&'static self, address: u64) -> Option<&'static Function> {
        let functions = &self.index().functions;
        let after = functions.partition_point(|function| function.start <= address);
        // Ranges do not overlap, except where the linker folded two functions into one.
        let range = functions.get(after.checked_sub(1)?)?;
        if address >= range.end {
            return None;
        }
        let known = self
            .functions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&range.die.0)
            .copied();
        known.unwrap_or_else(|| {
            let function =
                Function::read(self.die(range.die)).map(|function| &*Box::leak(Box::new(function)));
            let mut functions = self
                .functions
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *functions.entry(range.die.0).or_insert(function)
        })
    }

    /// The type that a vtable at an address of the file belongs to.
    pub(crate) fn vtable_type(&'static self, address: u64) -> Option<Die> {
        let (_, vtable) = self.index().vtables.iter().find(|(at, _)| *at == address)?;
        let entry = self.unit.entry(*vtable).ok()?;
        let containing = entry.attr_value(dw::DW_AT_containing_type)?;
        self.die(*vtable).follow(containing)
    }

    /// Whether the unit describes variables at all.
    pub(crate) fn has_variables(&'static self) -> bool {
        self.index().has_variables
    }

    /// Whether the unit was compiled from a dependency's or the toolchain's source.
    pub(crate) fn is_foreign(&self) -> bool {
        let text = |slice: Option<Slice>| {
            String::from_utf8_lossy(slice.map_or(&[], |slice| slice.slice())).into_owned()
        };
        // A skeleton has the directory, the split unit the name.
        let dir = self
            .skeleton
            .as_ref()
            .map_or(self.unit.comp_dir, |(_, unit)| unit.comp_dir);
        let (name, dir) = (text(self.unit.name), text(dir));
        let foreign = |path: &str| {
            path.starts_with("/rustc/")
                || path.contains("/registry/src/")
                || path.contains("/git/checkouts/")
        };
        !name.contains(".rs") || foreign(&name) || foreign(&dir)
    }

    pub(crate) fn lines(&'static self) -> Option<&'static Lines> {
        self.lines
            .get(|| match &self.skeleton {
                Some((dwarf, unit)) => Lines::read(dwarf, unit),
                None => Lines::read(self.dwarf, &self.unit),
            })
            .as_ref()
    }

    pub(crate) fn die(&'static self, offset: UnitOffset) -> Die {
        Die { unit: self, offset }
    }

    /// The type at an offset; made once.
    pub(crate) fn type_at(&'static self, offset: UnitOffset) -> &'static Type {
        let known = self
            .types
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&offset.0)
            .copied();
        known.unwrap_or_else(|| {
            let ty: &'static Type = Box::leak(Box::new(Type::read(self.die(offset))));
            let mut types = self.types.lock().unwrap_or_else(PoisonError::into_inner);
            types.entry(offset.0).or_insert(ty)
        })
    }

    /// Names of the scopes around a DIE, outermost first, and whether each is a namespace.
    pub(crate) fn path(&'static self, offset: UnitOffset) -> Vec<(&'static str, bool)> {
        let scopes = &self.index().scopes;
        let after = scopes.partition_point(|scope| scope.start < offset.0);
        let mut at = after.checked_sub(1);
        // The nearest scope that begins before may already have ended; its parents have not all.
        while let Some(scope) = at.map(|at| scopes[at]) {
            if offset.0 < scope.end {
                break;
            }
            at = scope.parent;
        }
        let mut path = Vec::new();
        while let Some(scope) = at.map(|at| scopes[at]) {
            path.push((scope.name, scope.is_namespace));
            at = scope.parent;
        }
        path.reverse();
        path
    }

    pub(crate) fn string(&self, value: AttributeValue<Slice>) -> Option<&'static str> {
        let slice = self.dwarf.attr_string(&self.unit, value).ok()?;
        std::str::from_utf8(slice.slice()).ok()
    }

    /// An address in each function.
    #[cfg(test)]
    pub(crate) fn functions_for_tests(&'static self) -> Vec<u64> {
        self.index()
            .functions
            .iter()
            .map(|function| function.start)
            .collect()
    }

    fn index(&'static self) -> &'static Index {
        self.index.get(|| self.read_index().unwrap_or_default())
    }

    /// Walks all DIEs of the unit once.
    fn read_index(&'static self) -> gimli::Result<Index> {
        let mut index = Index::default();
        let mut open: Vec<(isize, usize)> = Vec::new();
        let mut entries = self.unit.entries_raw(None)?;
        while !entries.is_empty() {
            let (offset, depth) = (entries.next_offset(), entries.next_depth());
            while let Some((_, scope)) = open.pop_if(|(scope_depth, _)| *scope_depth >= depth) {
                index.scopes[scope].end = offset.0;
            }
            if depth > DEPTH_MAX {
                break;
            }
            let Some(abbreviation) = entries.read_abbreviation()? else {
                continue;
            };
            let tag = abbreviation.tag();
            let names = matches!(
                tag,
                dw::DW_TAG_namespace
                    | dw::DW_TAG_structure_type
                    | dw::DW_TAG_union_type
                    | dw::DW_TAG_enumeration_type
                    | dw::DW_TAG_subprogram
            ) && abbreviation.has_children();
            let may_be_vtable = tag == dw::DW_TAG_variable && depth == 1;
            let is_variable =
                matches!(tag, dw::DW_TAG_variable | dw::DW_TAG_formal_parameter) && depth > 1;
            index.has_variables |= is_variable;
            if !names && !may_be_vtable && tag != dw::DW_TAG_subprogram {
                entries.skip_attributes(abbreviation.attributes())?;
                continue;
            }
            let mut attributes = Attributes::default();
            for specification in abbreviation.attributes() {
                attributes.note(entries.read_attribute(*specification)?);
            }
            if tag == dw::DW_TAG_subprogram {
                self.note_function(&attributes, offset, &mut index.functions);
            } else if may_be_vtable {
                self.note_vtable(&attributes, &mut index.vtables);
            }
            if names {
                let name = attributes
                    .name
                    .and_then(|name| self.string(name))
                    .unwrap_or("");
                let parent = open.last().map(|(_, scope)| *scope);
                open.push((depth, index.scopes.len()));
                index.scopes.push(Scope {
                    start: offset.0,
                    end: usize::MAX,
                    parent,
                    name,
                    is_namespace: tag == dw::DW_TAG_namespace,
                });
            }
        }
        index
            .functions
            .sort_by_key(|function| (function.start, function.end));
        Ok(index)
    }

    fn note_function(
        &self,
        attributes: &Attributes,
        die: UnitOffset,
        functions: &mut Vec<FunctionRange>,
    ) {
        let low = attributes
            .low_pc
            .and_then(|low| self.dwarf.attr_address(&self.unit, low).ok()?);
        let mut push = |start: u64, end: u64| {
            if start != 0 && start < end {
                functions.push(FunctionRange { start, end, die });
            }
        };
        if let Some(ranges) = attributes
            .ranges
            .and_then(|ranges| self.dwarf.attr_ranges(&self.unit, ranges).ok()?)
        {
            for range in ranges.map_while(Result::ok) {
                push(range.begin, range.end);
            }
        } else if let (Some(low), Some(high)) = (low, attributes.high_pc) {
            let end = match high {
                AttributeValue::Addr(end) => Some(end),
                high => high.udata_value().map(|len| low.saturating_add(len)),
            };
            push(low, end.unwrap_or(low));
        }
    }

    fn note_vtable(&'static self, attributes: &Attributes, vtables: &mut Vec<(u64, UnitOffset)>) {
        let is_vtable = attributes
            .name
            .and_then(|name| self.string(name))
            .is_some_and(|name| name.ends_with("::{vtable}"));
        let Some(AttributeValue::Exprloc(expression)) = attributes.location.filter(|_| is_vtable)
        else {
            return;
        };
        let address = match expression.operations(self.unit.encoding()).next() {
            Ok(Some(gimli::Operation::Address { address })) => Some(address),
            Ok(Some(gimli::Operation::AddressIndex { index })) => {
                self.dwarf.address(&self.unit, index).ok()
            }
            _ => None,
        };
        if let (Some(address), Some(AttributeValue::UnitRef(ty))) = (address, attributes.ty) {
            vtables.push((address, ty));
        }
    }
}

/// The attributes that the index looks at.
#[derive(Default)]
struct Attributes {
    name: Option<AttributeValue<Slice>>,
    low_pc: Option<AttributeValue<Slice>>,
    high_pc: Option<AttributeValue<Slice>>,
    ranges: Option<AttributeValue<Slice>>,
    location: Option<AttributeValue<Slice>>,
    ty: Option<AttributeValue<Slice>>,
}

impl Attributes {
    fn note(&mut self, attribute: gimli::Attribute<Slice>) {
        let slot = match attribute.name() {
            dw::DW_AT_name => &mut self.name,
            dw::DW_AT_low_pc => &mut self.low_pc,
            dw::DW_AT_high_pc => &mut self.high_pc,
            dw::DW_AT_ranges => &mut self.ranges,
            dw::DW_AT_location => &mut self.location,
            dw::DW_AT_type => &mut self.ty,
            _ => return,
        };
        *slot = Some(attribute.value());
    }
}

impl Die {
    pub(crate) fn entry(self) -> Option<gimli::DebuggingInformationEntry<Slice>> {
        self.unit.unit.entry(self.offset).ok()
    }

    /// The DIE that an attribute refers to, in this unit or another.
    pub(crate) fn follow(self, value: AttributeValue<Slice>) -> Option<Die> {
        match value {
            AttributeValue::UnitRef(offset) => Some(self.unit.die(offset)),
            AttributeValue::DebugInfoRef(offset) => {
                // Within a package a reference cannot leave the unit.
                let own = offset.to_unit_offset(&self.unit.unit.header);
                if let Some(offset) = own {
                    return Some(self.unit.die(offset));
                }
                let unit = self.unit.file.unit_around(offset.0)?;
                Some(unit.die(offset.to_unit_offset(&unit.unit.header)?))
            }
            _ => None,
        }
    }

    /// Looks for an attribute here and in the DIEs that this one stands for.
    pub(crate) fn attribute(self, name: gimli::DwAt) -> Option<(Die, AttributeValue<Slice>)> {
        let mut die = self;
        for _ in 0..ORIGINS_MAX {
            let entry = die.entry()?;
            if let Some(value) = entry.attr_value(name) {
                return Some((die, value));
            }
            let origin = entry
                .attr_value(dw::DW_AT_abstract_origin)
                .or_else(|| entry.attr_value(dw::DW_AT_specification))?;
            die = die.follow(origin)?;
        }
        None
    }

    /// The DIE at the end of the chain of origins and specifications.
    pub(crate) fn origin(self) -> Die {
        let mut die = self;
        for _ in 0..ORIGINS_MAX {
            let next = die.entry().and_then(|entry| {
                let value = entry
                    .attr_value(dw::DW_AT_abstract_origin)
                    .or_else(|| entry.attr_value(dw::DW_AT_specification))?;
                die.follow(value)
            });
            match next {
                Some(next) => die = next,
                None => break,
            }
        }
        die
    }

    pub(crate) fn name(self) -> Option<&'static str> {
        let (die, value) = self.attribute(dw::DW_AT_name)?;
        die.unit.string(value)
    }

    pub(crate) fn linkage_name(self) -> Option<&'static str> {
        let (die, value) = self
            .attribute(dw::DW_AT_linkage_name)
            .or_else(|| self.attribute(dw::DW_AT_MIPS_linkage_name))?;
        die.unit.string(value)
    }

    pub(crate) fn uint(self, name: gimli::DwAt) -> Option<u64> {
        self.attribute(name)?.1.udata_value()
    }

    /// The type that the DIE's `DW_AT_type` names.
    pub(crate) fn ty(self) -> Option<&'static Type> {
        let (die, value) = self.attribute(dw::DW_AT_type)?;
        let ty = die.follow(value)?;
        Some(ty.unit.type_at(ty.offset))
    }
}
