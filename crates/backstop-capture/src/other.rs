//! The stack without variables, for platforms whose debug information is not read.
//!
//! The standard library knows how to walk and name the stack everywhere; its text is
//! the only stable way to what it knows.

use std::backtrace::Backtrace;
use std::sync::Arc;

use crate::{Ability, Doctor, Frame, InApp, Limits, Policy, Values, VarsMissing};

/// Registers are not read here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Registers;

impl Registers {
    #[inline(always)]
    pub(crate) fn here() -> Registers {
        Registers
    }
}

/// One whole stack; its parts are known only after naming.
#[derive(Debug, Clone)]
pub(crate) struct Raw {
    pub(crate) address: u64,
    stack: Option<Arc<Backtrace>>,
}

/// A stack that is being taken.
#[derive(Default)]
pub(crate) struct Stack(Vec<Raw>);

pub(crate) fn walk(_registers: Registers, _limits: &Limits) -> Stack {
    let stack = Arc::new(Backtrace::force_capture());
    // The first one stands for the function that `snapshot` leaves out.
    Stack(vec![
        Raw {
            address: 0,
            stack: None,
        },
        Raw {
            address: 0,
            stack: Some(stack),
        },
    ])
}

pub(crate) fn read_variables(_stack: &mut Stack, _policy: &Policy) {}

impl Stack {
    pub(crate) fn addresses(&self) -> impl Iterator<Item = u64> {
        self.0.iter().map(|raw| raw.address)
    }

    pub(crate) fn drop_variables(&mut self, _reason: VarsMissing) {}

    pub(crate) fn into_frames(self) -> impl Iterator<Item = Raw> {
        self.0.into_iter()
    }
}

pub(crate) fn resolve(raws: &[Raw], values: Values, in_app: &InApp) -> Vec<Frame> {
    let texts = raws
        .iter()
        .filter_map(|raw| Some(raw.stack.as_ref()?.to_string()));
    let mut frames: Vec<Frame> = texts.flat_map(|text| parse(&text)).collect();
    for frame in &mut frames {
        frame.in_app = in_app.decide(frame);
        let wanted = values == Values::All || values == Values::InApp && frame.in_app;
        frame.vars_missing = wanted.then_some(VarsMissing::Platform);
    }
    frames
}

pub(crate) fn warm_up() {
    let _named = Backtrace::force_capture().to_string();
}

pub(crate) fn doctor() -> Doctor {
    Doctor::new(
        Ability::Lines,
        "this platform's debug information is not read",
    )
}

/// The standard library writes paths below the current directory as `./src/cart.rs`.
fn whole_path(path: &str) -> String {
    match (path.strip_prefix("./"), std::env::current_dir()) {
        (Some(rest), Ok(directory)) => directory.join(rest).to_string_lossy().into_owned(),
        _ => path.to_owned(),
    }
}

/// Reads lines of `  3: shop::cart::price` and `             at ./src/cart.rs:7:3`.
fn parse(text: &str) -> Vec<Frame> {
    let mut frames: Vec<Frame> = Vec::new();
    for line in text.lines() {
        let line = line.trim();
        if let Some(place) = line.strip_prefix("at ") {
            let Some(frame) = frames.last_mut() else {
                continue;
            };
            let mut parts = place.rsplitn(3, ':');
            frame.column = parts.next().and_then(|column| column.parse().ok());
            frame.line = parts.next().and_then(|line| line.parse().ok());
            frame.file = parts.next().map(whole_path);
        } else if let Some((_, function)) = line.split_once(": ") {
            let path = function.trim_start_matches('<');
            frames.push(Frame {
                function: Some(function.to_owned()),
                crate_name: path.split("::").next().map(str::to_owned),
                module: path.rsplit_once("::").map(|(module, _)| module.to_owned()),
                ..Frame::default()
            });
        }
    }
    let own = |frame: &Frame| {
        frame
            .crate_name
            .as_deref()
            .is_some_and(|name| name == "backstop_capture" || name == "std")
    };
    let first = frames.iter().position(|frame| !own(frame)).unwrap_or(0);
    frames.split_off(first)
}
