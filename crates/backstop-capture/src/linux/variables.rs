//! The variables of the frames that policy asks for.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::call::Calls;
use super::clock::Clock;
use super::coroutine::{self, Alive, Coroutine, Open};
use super::frames::Site;
use super::function::{Described, VarDie};
use super::location::{Context, Place, locate};
use super::memory::Memory;
use super::module::Module;
use super::render::Renderer;
use super::ty::Type;
use super::unwind::Step;
use super::{Raw, Taken};
use crate::{Kind, Origin, Policy, State, Value, Values, Variable, VarsMissing};

/// Reads the variables of all frames that policy asks for, innermost first.
pub(super) fn take(
    steps: &[Step],
    raws: &mut [Raw],
    modules: &[&'static Module],
    memory: &Memory,
    policy: &Policy,
) {
    // Opening debug information for the first time is slow and happens once; it is not counted.
    let sites: Vec<Arc<Site>> = raws.iter().map(|raw| Arc::clone(raw.site())).collect();
    let started = Clock::start();
    let mut renderer = Renderer::new(memory, modules, &policy.redaction, &policy.limits);
    let stack = open(steps, raws, &sites, modules, memory);
    let mut budget = Budget {
        started,
        policy,
        frames_left: policy.limits.frames_with_vars,
    };
    for (at, (physical, site)) in stack.physical.iter().zip(&sites).enumerate() {
        for (level, frame) in site.frames.iter().enumerate() {
            let is_wanted =
                || policy.values == Values::All || site.is_in_app(level, frame, &policy.in_app);
            let taken = match physical {
                _ if !is_wanted() => Taken::default(),
                Some(first) => budget.read(&stack, first + level, &mut renderer),
                None => Taken {
                    missing: Some(VarsMissing::NoDebugInfo),
                    ..Taken::default()
                },
            };
            raws[at].vars.push(taken);
        }
    }
}

/// All logical frames of a stack, innermost first, ready to be read.
struct Stack<'a> {
    levels: Vec<Open<'a>>,
    /// For each physical frame its first logical one; `None` without debug information.
    physical: Vec<Option<usize>>,
}

fn open<'a>(
    steps: &'a [Step],
    raws: &[Raw],
    sites: &'a [Arc<Site>],
    modules: &'a [&'static Module],
    memory: &'a Memory,
) -> Stack<'a> {
    let mut stack = Stack {
        levels: Vec::new(),
        physical: Vec::new(),
    };
    for (at_step, ((step, raw), site)) in steps.iter().zip(raws).zip(sites).enumerate() {
        let module = raw.module;
        let address = step.lookup.wrapping_sub(module.bias);
        let Some(code) = &site.code else {
            stack.physical.push(None);
            continue;
        };
        stack.physical.push(Some(stack.levels.len()));
        let cleanup = Rc::new(Alive {
            step,
            pad: &code.pad,
            modules,
            cleanup: OnceCell::new(),
            claims: RefCell::default(),
        });
        for (at, level) in code.levels.iter().enumerate() {
            let frame = site.frames.get(at);
            stack.levels.push(Open {
                site: level,
                context: Context {
                    unit: code.unit,
                    memory,
                    registers: &step.registers,
                    cfa: step.cfa,
                    frame_base: code.function.frame_base,
                    address,
                    bias: module.bias,
                    calls: Calls {
                        steps,
                        at: at_step,
                        memory,
                    },
                    recovered: Cell::new(false),
                },
                is_async: frame.is_some_and(|frame| frame.is_async),
                line: frame.and_then(|frame| frame.line),
                cleanup: Rc::clone(&cleanup),
            });
        }
    }
    stack
}

/// What may still be spent.
struct Budget<'a> {
    started: Clock,
    policy: &'a Policy,
    frames_left: usize,
}

impl Budget<'_> {
    fn is_spent(&self) -> bool {
        self.started.has_passed(self.policy.limits.time)
    }

    fn read(&mut self, stack: &Stack<'_>, at: usize, renderer: &mut Renderer<'_>) -> Taken {
        let level = &stack.levels[at];
        if !level.context.unit.has_variables() {
            return Taken {
                missing: Some(VarsMissing::NoDebugInfo),
                ..Taken::default()
            };
        }
        if self.frames_left == 0 || self.is_spent() {
            return Taken {
                missing: Some(VarsMissing::Limit),
                ..Taken::default()
            };
        }
        self.frames_left -= 1;
        let coroutine = coroutine::find(&stack.levels, at, renderer);
        let mut taken = Taken::default();
        for var in &level.site.vars {
            if taken.vars.len() >= self.policy.limits.vars || self.is_spent() {
                taken.missing = Some(VarsMissing::Limit);
                return taken;
            }
            taken
                .vars
                .extend(read(var, level, coroutine.as_ref(), renderer));
        }
        if let Some(coroutine) = &coroutine {
            let awaiting = at.checked_sub(1).is_some_and(|inner| {
                let inner = &stack.levels[inner];
                inner.is_async || inner.site.is_poll
            });
            for saved in coroutine.saved(level.line, awaiting) {
                add_saved(&mut taken.vars, &saved, coroutine, level, renderer);
            }
        }
        mark_disputed(&mut taken.vars, level);
        merge_moved_in(&mut taken.vars);
        mark_shadowed(&mut taken.vars);
        taken
    }
}

fn read(
    var: &VarDie,
    level: &Open<'_>,
    coroutine: Option<&Coroutine>,
    renderer: &mut Renderer<'_>,
) -> Option<Variable> {
    let &Described {
        name,
        ty,
        line,
        ref hidden,
    } = var.described();
    let name = name.filter(|name| !is_temporary(name))?;
    let kind = match coroutine {
        Some(coroutine) if coroutine.is_argument(name) => Kind::Argument,
        _ if var.is_parameter => Kind::Argument,
        _ => Kind::Local,
    };
    let mut variable = Variable {
        name: name.to_owned(),
        kind,
        type_name: ty.map(|ty| ty.path.clone()).unwrap_or_default(),
        line,
        origin: Origin::None,
        state: State::Unsupported,
        shadowed: false,
        value: Value::Missing(State::Unsupported),
        raw: Vec::new(),
    };
    let Some(ty) = ty else { return Some(variable) };
    if renderer.hides(name, hidden, ty) {
        variable.state = State::Redacted;
        variable.value = Value::Missing(State::Redacted);
        return Some(variable);
    }
    let found = place(var, name, ty, line, level, coroutine);
    let (value, state) = match found {
        Ok((place, origin)) => {
            variable.origin = origin;
            variable.raw = renderer.raw(ty, &place);
            let (value, state) = renderer.variable(ty, &place);
            (
                value,
                state.max(floor(name, line, ty, &place, level, renderer)),
            )
        }
        // A type without a size has one value, wherever it is.
        Err(_) if ty.size == 0 => renderer.variable(ty, &Place::Memory(1)),
        Err(state) => (Value::Missing(state), state),
    };
    variable.value = value;
    variable.state = state;
    if state == State::Redacted {
        variable.raw.clear();
    }
    Some(variable)
}

/// The best state of a value that is otherwise right: owning values may have been moved.
fn floor(
    name: &str,
    line: Option<u32>,
    ty: &'static Type,
    place: &Place,
    level: &Open<'_>,
    renderer: &Renderer<'_>,
) -> State {
    // A raw pointer is a number as long as it is not inside something that frees it.
    if ty.name.starts_with('*') || !ty.owns() {
        return State::Ok;
    }
    match level.cleanup.proof(ty, place, renderer.memory) {
        Some(proof) => {
            let state = if proof.holds() {
                State::Ok
            } else {
                State::MaybeMoved
            };
            level.cleanup.claim(name, line, proof);
            state
        }
        None => State::MaybeMoved,
    }
}

/// Marks variables of which one may have been moved into another.
fn mark_disputed(vars: &mut [Variable], level: &Open<'_>) {
    // Only optimised code moves variables about, or leaves them nowhere.
    let optimised = level.site.is_optimised;
    let unseen: Vec<(String, Option<u32>)> = vars
        .iter()
        .filter(|variable| optimised && variable.kind == Kind::Local)
        .filter(|variable| matches!(variable.value, Value::Missing(_)))
        .map(|variable| (variable.type_name.clone(), variable.line))
        .collect();
    for variable in vars
        .iter_mut()
        .filter(|variable| variable.state < State::MaybeMoved)
    {
        let (name, line) = (&variable.name, variable.line);
        // What is alive may have become the value of a later variable that is not seen, and was
        // left in this one's place.
        let moved_on = unseen
            .iter()
            .any(|(ty, later)| *ty == variable.type_name && *later > line)
            && level.cleanup.owns(name, line);
        if moved_on || level.cleanup.is_disputed(name, line, optimised) {
            variable.state = State::MaybeMoved;
        }
    }
}

/// Where a variable is, by its location or by its place in the future.
fn place(
    var: &VarDie,
    name: &str,
    ty: &'static Type,
    line: Option<u32>,
    level: &Open<'_>,
    coroutine: Option<&Coroutine>,
) -> Result<(Place, Origin), State> {
    let located = locate(var, ty.size, &level.context);
    match (located, coroutine) {
        (Ok(located), Some(coroutine)) if coroutine.contains(&located.place) => {
            Ok((located.place, Origin::Coroutine))
        }
        (Ok(located), Some(coroutine)) => {
            // A stack slot belongs to this poll; what was put there before the body was last
            // suspended is gone, unless the line is reached again.
            let resumed = coroutine.resumed_line();
            let is_stale = matches!(located.place, Place::Memory(_))
                && resumed.is_some_and(|resumed| {
                    line.is_some_and(|declared| declared < resumed)
                        && level.line.is_some_and(|now| now >= resumed)
                });
            if is_stale {
                Err(State::Stale)
            } else {
                Ok((located.place, located.origin))
            }
        }
        (Ok(located), None) => Ok((located.place, located.origin)),
        // The scope is open by its address range, so the variable has its value.
        (Err(state), Some(coroutine)) => coroutine
            .slot_of(name, ty)
            .map(|place| (place, Origin::Coroutine))
            .ok_or(state),
        (Err(state), _) => Err(state),
    }
}

/// Adds a variable that only the future knows, or fills in one that has no value yet.
fn add_saved(
    vars: &mut Vec<Variable>,
    saved: &coroutine::Saved,
    coroutine: &Coroutine,
    level: &Open<'_>,
    renderer: &mut Renderer<'_>,
) {
    if is_temporary(saved.name) {
        return;
    }
    let known = vars
        .iter()
        .rposition(|variable| variable.name == saved.name);
    if known.is_some_and(|known| {
        !matches!(vars[known].state, State::OptimizedOut | State::RegisterLost)
    }) {
        return;
    }
    let (value, state) = if renderer.hides(saved.name, saved.hidden, saved.ty) {
        (Value::Missing(State::Redacted), State::Redacted)
    } else {
        let (value, state) = renderer.variable(saved.ty, &saved.place);
        let floor = if saved.certain {
            floor(
                saved.name,
                saved.line,
                saved.ty,
                &saved.place,
                level,
                renderer,
            )
        } else {
            State::MaybeMoved
        };
        (value, state.max(floor))
    };
    let kind = if coroutine.is_argument(saved.name) {
        Kind::Argument
    } else {
        Kind::Local
    };
    let variable = Variable {
        name: saved.name.to_owned(),
        kind,
        type_name: saved.ty.path.clone(),
        line: saved.line,
        origin: Origin::Coroutine,
        state,
        shadowed: false,
        value,
        raw: match state {
            State::Redacted => Vec::new(),
            _ => renderer.raw(saved.ty, &saved.place),
        },
    };
    match known {
        Some(known) => vars[known] = variable,
        None => vars.push(variable),
    }
}

/// An async body declares each argument twice: as passed, and moved in. One is enough.
fn merge_moved_in(vars: &mut Vec<Variable>) {
    let mut at = 0;
    while at < vars.len() {
        let again = vars[at + 1..].iter().any(|later| {
            let earlier = &vars[at];
            later.name == earlier.name
                && later.line == earlier.line
                && later.type_name == earlier.type_name
                && later.kind == Kind::Argument
        });
        if again {
            vars.remove(at);
        } else {
            at += 1;
        }
    }
}

/// Names that the compiler makes up.
fn is_temporary(name: &str) -> bool {
    name.is_empty()
        || name == "_"
        || name.starts_with("__")
        || matches!(name, "_task_context" | "residual")
}

fn mark_shadowed(vars: &mut [Variable]) {
    for at in 0..vars.len() {
        let (earlier, later) = vars.split_at_mut(at);
        for variable in earlier
            .iter_mut()
            .filter(|variable| variable.name == later[0].name)
        {
            variable.shadowed = true;
        }
    }
}
