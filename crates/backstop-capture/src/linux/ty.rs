//! Types, as far as a value's bytes can be understood by them.

use std::sync::OnceLock;

use gimli::{AttributeValue, constants as dw};

use super::debug_file::Slice;
use super::lazy::Lazy;
use super::printers::VecShape;
use super::unit::Die;
use super::verdict::Verdict;

/// Fields of one struct, or variants of one enum, that are read.
const MEMBERS_MAX: usize = 4096;
/// Aliases of aliases that are followed.
const ALIASES_MAX: usize = 8;
/// Arrays inside arrays, aliases included, whose size is found.
const ARRAYS_MAX: usize = 16;
/// Types inside types that are searched for something owned.
const OWNED_DEPTH_MAX: usize = 24;

/// One type.
#[derive(Debug)]
pub(crate) struct Type {
    /// The name without its path, with type parameters: `Vec<u8, alloc::alloc::Global>`.
    pub(crate) name: &'static str,
    /// The whole path: `alloc::vec::Vec<u8, alloc::alloc::Global>`.
    pub(crate) path: String,
    /// The path without type parameters: `alloc::vec::Vec`.
    pub(crate) base: String,
    pub(crate) size: u64,
    pub(crate) kind: Kind,
    parameters: Vec<(&'static str, Reference)>,
    owns: Lazy<bool>,
    /// Where a `Vec` has its parts, if this is one or has one inside.
    pub(super) vec: OnceLock<Option<VecShape>>,
    /// Whether values of the type are hidden.
    pub(super) hidden: Verdict,
}

/// The shape of a type.
#[derive(Debug)]
pub(crate) enum Kind {
    Bool,
    Char,
    Signed,
    Unsigned,
    Float,
    /// A thin pointer or reference.
    Pointer(Option<Reference>),
    Struct(Vec<Field>),
    /// A type with variants; the fields outside of the variants come first.
    Enum(Vec<Field>, Variants),
    Union(Vec<Field>),
    Array(Option<Reference>, u64),
    /// Names for numbers.
    Enumeration(Vec<(i128, &'static str)>),
    Function,
    Unknown,
}

#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) offset: u64,
    pub(crate) line: Option<u32>,
    /// Whether the name is one of what is hidden.
    pub(super) hidden: Verdict,
    reference: Option<Reference>,
}

/// Variants and how they are told apart.
#[derive(Debug, Default)]
pub(crate) struct Variants {
    pub(crate) discriminant: Option<Field>,
    pub(crate) list: Vec<Variant>,
}

#[derive(Debug)]
pub(crate) struct Variant {
    /// The discriminant's bits; `None` for the variant that takes all other values.
    pub(crate) value: Option<u128>,
    pub(crate) field: Field,
}

/// A type that is looked up when it is needed, and kept.
#[derive(Debug)]
pub(crate) struct Reference {
    die: Die,
    ty: Lazy<&'static Type>,
}

impl Reference {
    fn new(die: Die) -> Reference {
        Reference {
            die,
            ty: Lazy::new(),
        }
    }

    pub(crate) fn ty(&self) -> &'static Type {
        self.ty.get(|| self.die.unit.type_at(self.die.offset))
    }
}

impl Field {
    pub(crate) fn ty(&self) -> Option<&'static Type> {
        self.reference.as_ref().map(Reference::ty)
    }
}

impl Type {
    pub(crate) fn read(die: Die) -> Type {
        Type::read_aliased(die).unwrap_or_else(|| Type::unknown(""))
    }

    fn unknown(name: &'static str) -> Type {
        Type {
            name,
            path: name.to_owned(),
            base: name.to_owned(),
            size: 0,
            kind: Kind::Unknown,
            parameters: Vec::new(),
            owns: Lazy::new(),
            vec: OnceLock::new(),
            hidden: Verdict::default(),
        }
    }

    fn read_aliased(die: Die) -> Option<Type> {
        let mut die = die;
        let mut name = None;
        for _ in 0..ALIASES_MAX {
            let entry = die.entry()?;
            name = name.or_else(|| die.unit.string(entry.attr_value(dw::DW_AT_name)?));
            match entry.tag() {
                // C's names and qualifiers for another type.
                dw::DW_TAG_typedef
                | dw::DW_TAG_const_type
                | dw::DW_TAG_volatile_type
                | dw::DW_TAG_restrict_type => {
                    let Some(target) = entry.attr_value(dw::DW_AT_type) else {
                        return Some(Type::unknown(name.unwrap_or("void")));
                    };
                    die = die.follow(target)?;
                }
                _ => return Some(Type::read_entry(die, &entry, name.unwrap_or(""))),
            }
        }
        None
    }

    fn read_entry(
        die: Die,
        entry: &gimli::DebuggingInformationEntry<Slice>,
        name: &'static str,
    ) -> Type {
        let size = entry
            .attr_value(dw::DW_AT_byte_size)
            .and_then(|size| size.udata_value());
        let mut path = String::new();
        for (scope, _) in die.unit.path(die.offset) {
            path.push_str(scope);
            path.push_str("::");
        }
        let base = format!("{path}{}", name.split('<').next().unwrap_or(name));
        path.push_str(name);
        let members = Members::read(die).unwrap_or_default();
        let target = || {
            entry
                .attr_value(dw::DW_AT_type)
                .and_then(|ty| die.follow(ty))
                .map(Reference::new)
        };
        let kind = match entry.tag() {
            dw::DW_TAG_base_type => base_kind(entry),
            dw::DW_TAG_pointer_type | dw::DW_TAG_reference_type => Kind::Pointer(target()),
            dw::DW_TAG_structure_type | dw::DW_TAG_class_type => match members.variants {
                Some(variants) => Kind::Enum(members.fields, variants),
                None => Kind::Struct(members.fields),
            },
            dw::DW_TAG_union_type => Kind::Union(members.fields),
            dw::DW_TAG_array_type => Kind::Array(target(), members.count.unwrap_or(0)),
            dw::DW_TAG_enumeration_type => Kind::Enumeration(members.enumerators),
            dw::DW_TAG_subroutine_type => Kind::Function,
            _ => Kind::Unknown,
        };
        let size = match size {
            Some(size) => size,
            None => size_of(die, ARRAYS_MAX),
        };
        Type {
            name,
            path,
            base,
            size,
            kind,
            parameters: members.parameters,
            owns: Lazy::new(),
            vec: OnceLock::new(),
            hidden: Verdict::default(),
        }
    }

    /// The type parameter of a name, as `T` of `Vec<T>`.
    pub(crate) fn parameter(&self, name: &str) -> Option<&'static Type> {
        let (_, reference) = self
            .parameters
            .iter()
            .find(|(parameter, _)| *parameter == name)?;
        Some(reference.ty())
    }

    /// Whether a value may own memory or something else that ends when it is moved or dropped.
    ///
    /// References own nothing. What is not known is taken to own.
    pub(crate) fn owns(&self) -> bool {
        *self.owns.get(|| self.owns_within(OWNED_DEPTH_MAX))
    }

    fn owns_within(&self, depth: usize) -> bool {
        let Some(depth) = depth.checked_sub(1) else {
            return true;
        };
        let owns = |field: &Field| field.ty().is_none_or(|ty| ty.owns_within(depth));
        match &self.kind {
            Kind::Bool
            | Kind::Char
            | Kind::Signed
            | Kind::Unsigned
            | Kind::Float
            | Kind::Enumeration(_) => false,
            Kind::Pointer(target) => {
                let is_function = target
                    .as_ref()
                    .is_some_and(|target| matches!(target.ty().kind, Kind::Function));
                !is_function && !self.name.starts_with('&')
            }
            _ if self.name.starts_with('&') => false,
            Kind::Array(element, _) => element
                .as_ref()
                .is_none_or(|element| element.ty().owns_within(depth)),
            Kind::Struct(fields) | Kind::Union(fields) => fields.iter().any(owns),
            Kind::Enum(fields, variants) => {
                fields.iter().any(owns) || variants.list.iter().any(|variant| owns(&variant.field))
            }
            Kind::Function | Kind::Unknown => true,
        }
    }

    /// The fields of a struct, or those of an enum that all variants share.
    pub(crate) fn fields(&self) -> &[Field] {
        match &self.kind {
            Kind::Struct(fields) | Kind::Union(fields) | Kind::Enum(fields, _) => fields,
            _ => &[],
        }
    }

    /// The last part of the path without type parameters: `Vec`.
    pub(crate) fn short(&self) -> &str {
        self.name.split('<').next().unwrap_or(self.name)
    }
}

/// The size of a type, for which nothing else of it is read: a damaged array may be its own element.
fn size_of(die: Die, left: usize) -> u64 {
    let size = || {
        let left = left.checked_sub(1)?;
        let entry = die.entry()?;
        if let Some(size) = entry.attr_value(dw::DW_AT_byte_size) {
            return size.udata_value();
        }
        let of_target = || {
            Some(size_of(
                die.follow(entry.attr_value(dw::DW_AT_type)?)?,
                left,
            ))
        };
        match entry.tag() {
            dw::DW_TAG_pointer_type | dw::DW_TAG_reference_type => Some(8),
            dw::DW_TAG_array_type => {
                let count = Members::read(die).and_then(|members| members.count)?;
                Some(of_target()?.saturating_mul(count))
            }
            dw::DW_TAG_typedef
            | dw::DW_TAG_const_type
            | dw::DW_TAG_volatile_type
            | dw::DW_TAG_restrict_type => of_target(),
            _ => None,
        }
    };
    size().unwrap_or(0)
}

fn base_kind(entry: &gimli::DebuggingInformationEntry<Slice>) -> Kind {
    match entry.attr_value(dw::DW_AT_encoding) {
        Some(AttributeValue::Encoding(encoding)) => match encoding {
            dw::DW_ATE_boolean => Kind::Bool,
            dw::DW_ATE_UTF => Kind::Char,
            dw::DW_ATE_signed | dw::DW_ATE_signed_char => Kind::Signed,
            dw::DW_ATE_unsigned | dw::DW_ATE_unsigned_char => Kind::Unsigned,
            dw::DW_ATE_float => Kind::Float,
            _ => Kind::Unknown,
        },
        _ => Kind::Unknown,
    }
}

#[derive(Default)]
struct Members {
    fields: Vec<Field>,
    variants: Option<Variants>,
    enumerators: Vec<(i128, &'static str)>,
    parameters: Vec<(&'static str, Reference)>,
    count: Option<u64>,
}

impl Members {
    fn read(die: Die) -> Option<Members> {
        let mut members = Members::default();
        let mut tree = die.unit.unit.entries_tree(Some(die.offset)).ok()?;
        let mut children = tree.root().ok()?.children();
        let mut left = MEMBERS_MAX;
        while let Ok(Some(child)) = children.next() {
            left = left.checked_sub(1)?;
            let entry = child.entry();
            match entry.tag() {
                dw::DW_TAG_member => members.fields.push(read_field(die, entry)),
                dw::DW_TAG_template_type_parameter => {
                    let name = entry
                        .attr_value(dw::DW_AT_name)
                        .and_then(|name| die.unit.string(name));
                    let ty = entry
                        .attr_value(dw::DW_AT_type)
                        .and_then(|ty| die.follow(ty));
                    if let (Some(name), Some(ty)) = (name, ty) {
                        members.parameters.push((name, Reference::new(ty)));
                    }
                }
                dw::DW_TAG_enumerator => {
                    let name = entry
                        .attr_value(dw::DW_AT_name)
                        .and_then(|name| die.unit.string(name));
                    let value = entry.attr_value(dw::DW_AT_const_value).and_then(number);
                    if let (Some(name), Some(value)) = (name, value) {
                        members.enumerators.push((value, name));
                    }
                }
                dw::DW_TAG_subrange_type => {
                    members.count = entry
                        .attr_value(dw::DW_AT_count)
                        .and_then(|count| count.udata_value())
                        .or_else(|| {
                            Some(
                                entry
                                    .attr_value(dw::DW_AT_upper_bound)?
                                    .udata_value()?
                                    .saturating_add(1),
                            )
                        });
                }
                dw::DW_TAG_variant_part => members.variants = Some(read_variants(die, child)),
                _ => {}
            }
        }
        Some(members)
    }
}

fn read_field(die: Die, entry: &gimli::DebuggingInformationEntry<Slice>) -> Field {
    let name = entry
        .attr_value(dw::DW_AT_name)
        .and_then(|name| die.unit.string(name));
    let uint = |name| entry.attr_value(name).and_then(|value| value.udata_value());
    Field {
        name: name.unwrap_or(""),
        offset: uint(dw::DW_AT_data_member_location).unwrap_or(0),
        line: uint(dw::DW_AT_decl_line).and_then(|line| u32::try_from(line).ok()),
        hidden: Verdict::default(),
        reference: entry
            .attr_value(dw::DW_AT_type)
            .and_then(|ty| die.follow(ty))
            .map(Reference::new),
    }
}

fn read_variants(die: Die, node: gimli::EntriesTreeNode<'_, '_, Slice>) -> Variants {
    let discriminant = node
        .entry()
        .attr_value(dw::DW_AT_discr)
        .and_then(|discriminant| die.follow(discriminant))
        .and_then(|discriminant| Some(read_field(discriminant, &discriminant.entry()?)));
    let mut variants = Variants {
        discriminant,
        list: Vec::new(),
    };
    let mut children = node.children();
    while let Ok(Some(child)) = children.next() {
        if child.entry().tag() != dw::DW_TAG_variant || variants.list.len() >= MEMBERS_MAX {
            continue;
        }
        let value = child
            .entry()
            .attr_value(dw::DW_AT_discr_value)
            .and_then(number);
        let mut members = child.children();
        while let Ok(Some(member)) = members.next() {
            if member.entry().tag() == dw::DW_TAG_member {
                let field = read_field(die, member.entry());
                variants.list.push(Variant {
                    value: value.map(|value| value as u128),
                    field,
                });
                break;
            }
        }
    }
    variants
}

/// A number of any form; blocks hold numbers of more than eight bytes.
fn number(value: AttributeValue<Slice>) -> Option<i128> {
    match value {
        AttributeValue::Block(block) => {
            let mut bytes = [0; 16];
            bytes
                .get_mut(..block.slice().len())?
                .copy_from_slice(block.slice());
            Some(i128::from_le_bytes(bytes))
        }
        AttributeValue::Sdata(value) => Some(i128::from(value)),
        other => other
            .udata_value()
            .map(i128::from)
            .or_else(|| other.sdata_value().map(i128::from)),
    }
}
