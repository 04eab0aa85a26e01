//! The whole of capture for Linux on x86-64.

mod address_map;
mod call;
mod cleanup;
mod clock;
mod coroutine;
#[cfg(test)]
mod damage;
mod debug_file;
mod exceptions;
mod follower;
mod frames;
mod function;
mod lazy;
mod library;
mod line;
mod location;
mod memory;
mod module;
mod printers;
#[path = "x86_64.rs"]
mod registers;
mod render;
mod standard;
mod ty;
mod unit;
mod unpack;
mod unwind;
mod variables;
mod verdict;
mod web;

use std::sync::{Arc, OnceLock};

use crate::{Doctor, Frame, InApp, Limits, Policy, Values, Variable, VarsMissing};
use frames::Site;
use memory::Memory;
use module::{Loaded, Module};
use unwind::Step;

/// What was taken of one physical frame.
#[derive(Debug, Clone)]
pub(crate) struct Raw {
    pub(crate) address: u64,
    lookup: u64,
    module: &'static Module,
    /// What is known of the address; found when it is first asked for.
    site: OnceLock<Arc<Site>>,
    /// The variables of each logical frame, innermost first; empty where none were asked for.
    vars: Vec<Taken>,
    /// Why there are none at all.
    missing: Option<VarsMissing>,
}

impl Raw {
    fn site(&self) -> &Arc<Site> {
        self.site
            .get_or_init(|| frames::at(self.module, self.lookup))
    }
}

/// The variables of one logical frame.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taken {
    pub(crate) vars: Vec<Variable>,
    pub(crate) missing: Option<VarsMissing>,
}

pub(crate) use registers::Registers;

/// A stack that is being taken.
pub(crate) struct Stack {
    modules: Arc<Loaded>,
    steps: Vec<Step>,
    frames: Vec<Raw>,
}

/// Walks the stack above the point where these were the registers.
pub(crate) fn walk(registers: Registers, limits: &Limits) -> Stack {
    let modules = module::loaded();
    let memory = Memory::new(limits.memory_bytes);
    let steps = unwind::walk(registers, &modules, &memory, limits.frames);
    let frames = steps.iter().map(raw).collect();
    Stack {
        modules,
        steps,
        frames,
    }
}

/// Reads the variables of the frames that policy asks for.
pub(crate) fn read_variables(stack: &mut Stack, policy: &Policy) {
    let memory = Memory::new(policy.limits.memory_bytes);
    variables::take(
        &stack.steps,
        &mut stack.frames,
        &stack.modules,
        &memory,
        policy,
    );
}

impl Stack {
    pub(crate) fn addresses(&self) -> impl Iterator<Item = u64> {
        self.steps.iter().map(|step| step.address)
    }

    /// Gives up all variables for a reason.
    pub(crate) fn drop_variables(&mut self, reason: VarsMissing) {
        for frame in &mut self.frames {
            frame.vars = Vec::new();
            frame.missing = Some(reason);
        }
    }

    pub(crate) fn into_frames(self) -> impl Iterator<Item = Raw> {
        self.frames.into_iter()
    }
}

fn raw(step: &Step) -> Raw {
    Raw {
        address: step.address,
        lookup: step.lookup,
        module: step.module,
        site: OnceLock::new(),
        vars: Vec::new(),
        missing: None,
    }
}

/// Names the frames, innermost first.
pub(crate) fn resolve(raws: &[Raw], values: Values, in_app: &InApp) -> Vec<Frame> {
    let mut frames = Vec::new();
    for raw in raws {
        let site = raw.site();
        for (at, named) in site.frames.iter().enumerate() {
            let mut frame = named.clone();
            frame.address = raw.address;
            frame.in_app = site.is_in_app(at, &frame, in_app);
            frame.vars_missing = raw
                .missing
                .filter(|_| values == Values::All || frame.in_app);
            if let Some(taken) = raw.vars.get(at) {
                frame.vars = taken.vars.clone();
                frame.vars_missing = taken.missing;
            }
            frames.push(frame);
        }
    }
    frames
}

/// Opens the debug information of the program itself and reads what a first capture needs.
pub(crate) fn warm_up() {
    if let Some(debug) = module::loaded().first().and_then(|program| program.debug()) {
        debug.warm_up();
    }
    // This stack has what every stack has: the toolchain's units and the thread's start.
    let stack = walk(Registers::here(), &Limits::default());
    resolve(&stack.frames, Values::InApp, &InApp::default());
}

/// Looks at what this build can show.
pub(crate) fn doctor() -> Doctor {
    frames::doctor()
}
