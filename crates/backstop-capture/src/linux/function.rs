//! One function's code as a tree: inlined calls, blocks and their variables.

use std::sync::OnceLock;

use gimli::{AttributeValue, constants as dw};

use super::debug_file::Slice;
use super::ty::Type;
use super::unit::Die;
use super::verdict::Verdict;

/// Inlined calls and blocks within one function; the largest real ones have thousands.
const SCOPES_MAX: usize = 100_000;

/// A function with code of its own.
#[derive(Debug)]
pub(crate) struct Function {
    pub(crate) frame_base: Option<AttributeValue<Slice>>,
    pub(crate) root: Scope,
}

/// A function, an inlined call, or a block.
#[derive(Debug)]
pub(crate) struct Scope {
    pub(crate) die: Die,
    /// Where it was inlined; `None` for blocks and for the function itself.
    pub(crate) call: Option<Call>,
    ranges: Vec<(u64, u64)>,
    pub(crate) vars: Vec<VarDie>,
    children: Vec<Scope>,
}

/// The place of an inlined call, in the caller's unit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) file: u64,
    pub(crate) line: u32,
    pub(crate) column: u32,
}

/// A variable's or parameter's DIE.
#[derive(Debug)]
pub(crate) struct VarDie {
    pub(crate) die: Die,
    described: OnceLock<Box<Described>>,
    pub(crate) is_parameter: bool,
    pub(crate) location: Option<AttributeValue<Slice>>,
    pub(crate) const_value: Option<AttributeValue<Slice>>,
}

/// What is the same wherever a variable is looked at.
#[derive(Debug)]
pub(crate) struct Described {
    pub(crate) name: Option<&'static str>,
    pub(crate) ty: Option<&'static Type>,
    /// The line of the declaration.
    pub(crate) line: Option<u32>,
    /// Whether the name is one of what is hidden.
    pub(super) hidden: Verdict,
}

impl VarDie {
    fn read(die: Die, entry: &gimli::DebuggingInformationEntry<Slice>) -> VarDie {
        VarDie {
            die,
            described: OnceLock::new(),
            is_parameter: entry.tag() == dw::DW_TAG_formal_parameter,
            location: entry.attr_value(dw::DW_AT_location),
            const_value: entry.attr_value(dw::DW_AT_const_value),
        }
    }

    /// Name, type and line; read once.
    pub(crate) fn described(&self) -> &Described {
        self.described.get_or_init(|| {
            Box::new(Described {
                name: self.die.name(),
                ty: self.die.ty(),
                line: declaration(self.die).1,
                hidden: Verdict::default(),
            })
        })
    }

    /// Whether the variable is described as being at the same place all the time, as it is
    /// without optimisation.
    pub(crate) fn is_at_one_place(&self) -> bool {
        self.const_value.is_none() && matches!(self.location, Some(AttributeValue::Exprloc(_)))
    }
}

/// One function or inlined call at an address, and its open blocks.
pub(crate) struct Level<'a> {
    pub(crate) die: Die,
    pub(crate) call: Option<Call>,
    /// The function or call itself first, then blocks from the outside in.
    pub(crate) blocks: Vec<&'a Scope>,
}

impl Function {
    pub(crate) fn read(die: Die) -> Option<Function> {
        let mut reader = Reader { scopes: 0 };
        let (root, frame_base) = reader.read(die)?;
        Some(Function { frame_base, root })
    }

    /// The calls that an address of the file belongs to, outermost first.
    pub(crate) fn levels(&self, address: u64) -> Vec<Level<'_>> {
        let mut levels = vec![Level {
            die: self.root.die,
            call: None,
            blocks: vec![&self.root],
        }];
        let mut scope = &self.root;
        while let Some(child) = scope.children.iter().find(|child| child.has(address)) {
            match child.call {
                Some(call) => levels.push(Level {
                    die: child.die,
                    call: Some(call),
                    blocks: vec![child],
                }),
                None => levels
                    .last_mut()
                    .expect("the root is there")
                    .blocks
                    .push(child),
            }
            scope = child;
        }
        levels
    }
}

impl Scope {
    fn has(&self, address: u64) -> bool {
        self.ranges
            .iter()
            .any(|(start, end)| (*start..*end).contains(&address))
    }
}

struct Reader {
    scopes: usize,
}

impl Reader {
    fn read(&mut self, die: Die) -> Option<(Scope, Option<AttributeValue<Slice>>)> {
        let unit = &die.unit.unit;
        let mut entries = unit.entries_raw(Some(die.offset)).ok()?;
        let mut entry = gimli::DebuggingInformationEntry::null();
        let mut open: Vec<(isize, Scope)> = Vec::new();
        let mut frame_base = None;
        // DIEs inside a nested type or function are not ours.
        let mut skip_below: Option<isize> = None;
        while !entries.is_empty() {
            let depth = entries.next_depth();
            if !open.is_empty() && depth <= 0 {
                break;
            }
            while open.len() > 1
                && open
                    .last()
                    .is_some_and(|(open_depth, _)| *open_depth >= depth)
            {
                close(&mut open);
            }
            if !entries.read_entry(&mut entry).ok()? {
                continue;
            }
            if skip_below.is_some_and(|below| depth > below) {
                continue;
            }
            skip_below = None;
            let here = die.unit.die(entry.offset());
            match entry.tag() {
                dw::DW_TAG_subprogram if open.is_empty() => {
                    frame_base = entry.attr_value(dw::DW_AT_frame_base);
                    open.push((depth, Scope::new(here, None, Vec::new())));
                }
                dw::DW_TAG_inlined_subroutine | dw::DW_TAG_lexical_block => {
                    self.scopes += 1;
                    if self.scopes > SCOPES_MAX {
                        break;
                    }
                    let is_call = entry.tag() == dw::DW_TAG_inlined_subroutine;
                    let call = is_call.then(|| read_call(&entry));
                    open.push((depth, Scope::new(here, call, read_ranges(die, &entry))));
                }
                dw::DW_TAG_variable | dw::DW_TAG_formal_parameter => {
                    let (_, scope) = open.last_mut()?;
                    scope.vars.push(VarDie::read(here, &entry));
                }
                _ if open.is_empty() => return None,
                _ => skip_below = Some(depth),
            }
        }
        while open.len() > 1 {
            close(&mut open);
        }
        let (_, mut root) = open.pop()?;
        root.add_lost();
        Some((root, frame_base))
    }
}

fn close(open: &mut Vec<(isize, Scope)>) {
    if let Some((_, mut child)) = open.pop() {
        if child.call.is_some() {
            child.add_lost();
        }
        if let Some((_, parent)) = open.last_mut() {
            parent.children.push(child);
        }
    }
}

impl Scope {
    fn new(die: Die, call: Option<Call>, ranges: Vec<(u64, u64)>) -> Scope {
        Scope {
            die,
            call,
            ranges,
            vars: Vec::new(),
            children: Vec::new(),
        }
    }

    /// Adds parameters and outermost variables that the compiler dropped from this
    /// instance, so that they can be shown as optimised out instead of not at all.
    fn add_lost(&mut self) {
        let origin = self.die.origin();
        if origin == self.die {
            return;
        }
        let known: Vec<Die> = self.vars.iter().map(|var| var.die.origin()).collect();
        let lost: Vec<VarDie> = children(origin)
            .into_iter()
            .filter(|var| !known.contains(&var.die) && !self.mentions(var.die))
            .collect();
        self.vars.extend(lost);
    }

    fn mentions(&self, origin: Die) -> bool {
        self.children
            .iter()
            .filter(|child| child.call.is_none())
            .any(|block| {
                block.vars.iter().any(|var| var.die.origin() == origin) || block.mentions(origin)
            })
    }
}

/// Variables and parameters directly below a DIE.
fn children(parent: Die) -> Vec<VarDie> {
    let mut vars = Vec::new();
    let Ok(mut tree) = parent.unit.unit.entries_tree(Some(parent.offset)) else {
        return vars;
    };
    let Ok(root) = tree.root() else { return vars };
    let mut children = root.children();
    while let Ok(Some(child)) = children.next() {
        let entry = child.entry();
        if matches!(
            entry.tag(),
            dw::DW_TAG_variable | dw::DW_TAG_formal_parameter
        ) {
            // Where the variable is elsewhere says nothing here.
            vars.push(VarDie {
                location: None,
                ..VarDie::read(parent.unit.die(entry.offset()), entry)
            });
        }
    }
    vars
}

fn read_call(entry: &gimli::DebuggingInformationEntry<Slice>) -> Call {
    let number = |name| {
        entry
            .attr_value(name)
            .and_then(|value| value.udata_value())
            .unwrap_or(0)
    };
    let file = match entry.attr_value(dw::DW_AT_call_file) {
        Some(AttributeValue::FileIndex(file)) => file,
        other => other.and_then(|value| value.udata_value()).unwrap_or(0),
    };
    Call {
        file,
        line: u32::try_from(number(dw::DW_AT_call_line)).unwrap_or(0),
        column: u32::try_from(number(dw::DW_AT_call_column)).unwrap_or(0),
    }
}

fn read_ranges(die: Die, entry: &gimli::DebuggingInformationEntry<Slice>) -> Vec<(u64, u64)> {
    let unit = die.unit;
    match unit.dwarf.die_ranges(&unit.unit, entry) {
        Ok(ranges) => ranges
            .map_while(Result::ok)
            .map(|range| (range.begin, range.end))
            .collect(),
        Err(_) => Vec::new(),
    }
}

/// The file index of a DIE's declaration, for the line table of its unit.
pub(crate) fn declaration(die: Die) -> (Option<u64>, Option<u32>) {
    let file = die
        .attribute(dw::DW_AT_decl_file)
        .and_then(|(_, value)| match value {
            AttributeValue::FileIndex(file) => Some(file),
            other => other.udata_value(),
        });
    let line = die
        .uint(dw::DW_AT_decl_line)
        .and_then(|line| u32::try_from(line).ok());
    (file, line)
}
