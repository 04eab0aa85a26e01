//! The variables of the frames that policy asks for.

use std::time::Instant;

use super::function::{Level, VarDie, declaration};
use super::location::{Context, locate};
use super::memory::Memory;
use super::module::Module;
use super::render::Renderer;
use super::unwind::Step;
use super::{Raw, Taken, frames};
use crate::{Kind, Origin, Policy, State, Value, Values, Variable, VarsMissing};

/// Reads the variables of all frames that policy asks for, innermost first.
pub(super) fn take(
    steps: &[Step],
    raws: &mut [Raw],
    modules: &[&'static Module],
    memory: &Memory,
    policy: &Policy,
) {
    let mut renderer = Renderer::new(memory, modules, &policy.redaction, &policy.limits);
    let mut frames_left = policy.limits.frames_with_vars;
    // Opening debug information for the first time is slow and happens once; it is not counted.
    let sites: Vec<_> = raws
        .iter()
        .map(|raw| {
            raw.module
                .map(|module| (module, frames::at(module, raw.lookup)))
        })
        .collect();
    let started = Instant::now();
    for ((step, raw), site) in steps.iter().zip(raws).zip(sites) {
        let Some((module, site)) = site else { continue };
        let wanted: Vec<bool> = site
            .iter()
            .map(|frame| policy.values == Values::All || policy.in_app.decide(frame))
            .collect();
        if !wanted.contains(&true) {
            continue;
        }
        let address = step.lookup.wrapping_sub(module.bias);
        let Some(unit) = module.debug().and_then(|debug| debug.unit_at(address)) else {
            raw.vars = vec![
                Taken {
                    missing: Some(VarsMissing::NoDebugInfo),
                    ..Taken::default()
                };
                site.len()
            ];
            continue;
        };
        let Some(function) = unit.function_at(address) else {
            raw.vars = vec![
                Taken {
                    missing: Some(VarsMissing::NoDebugInfo),
                    ..Taken::default()
                };
                site.len()
            ];
            continue;
        };
        let mut levels = function.levels(address);
        levels.reverse();
        for (level, wanted) in levels.iter().zip(wanted) {
            let mut taken = Taken::default();
            if wanted && (frames_left == 0 || started.elapsed() > policy.limits.time) {
                taken.missing = Some(VarsMissing::Limit);
            } else if wanted {
                frames_left -= 1;
                let context = Context {
                    unit,
                    memory,
                    registers: &step.registers,
                    cfa: step.cfa,
                    frame_base: function.frame_base,
                    address,
                    bias: module.bias,
                };
                taken = of_level(level, &context, &mut renderer, policy, started);
            }
            raw.vars.push(taken);
        }
    }
}

fn of_level(
    level: &Level<'_>,
    context: &Context<'_>,
    renderer: &mut Renderer<'_>,
    policy: &Policy,
    started: Instant,
) -> Taken {
    if !context.unit.has_variables() {
        return Taken {
            missing: Some(VarsMissing::NoDebugInfo),
            ..Taken::default()
        };
    }
    let mut taken = Taken::default();
    for var in level.blocks.iter().flat_map(|block| &block.vars) {
        if taken.vars.len() >= policy.limits.vars || started.elapsed() > policy.limits.time {
            taken.missing = Some(VarsMissing::Limit);
            break;
        }
        if let Some(variable) = read(var, context, renderer) {
            taken.vars.push(variable);
        }
    }
    mark_shadowed(&mut taken.vars);
    taken
}

fn read(var: &VarDie, context: &Context<'_>, renderer: &mut Renderer<'_>) -> Option<Variable> {
    let name = var.die.name()?;
    if is_temporary(name) {
        return None;
    }
    let ty = var.die.ty();
    let (_, line) = declaration(var.die);
    let mut variable = Variable {
        name: name.to_owned(),
        kind: if var.is_parameter {
            Kind::Argument
        } else {
            Kind::Local
        },
        type_name: ty.map(|ty| ty.path.clone()).unwrap_or_default(),
        line,
        origin: Origin::None,
        state: State::Unsupported,
        shadowed: false,
        value: Value::Missing(State::Unsupported),
    };
    let Some(ty) = ty else { return Some(variable) };
    let (value, state) = if renderer.hides(name, ty) {
        (Value::Missing(State::Redacted), State::Redacted)
    } else {
        match locate(var, ty.size, context) {
            Ok(located) => {
                variable.origin = located.origin;
                renderer.variable(ty, &located.place)
            }
            // A type without a size has one value, wherever it is.
            Err(_) if ty.size == 0 => renderer.variable(ty, &super::location::Place::Memory(1)),
            Err(state) => (Value::Missing(state), state),
        }
    };
    variable.value = value;
    variable.state = state;
    Some(variable)
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
