//! Names and lines of the logical frames at an address.

use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::address_map::AddressMap;
use super::function::{self, Function, Level, VarDie};
use super::module::Module;
use super::unit::{Die, Unit};
use crate::policy::is_users_path;
use crate::{Frame, InApp, Package, Role};

/// Addresses whose frames are kept; a program fails at few different places.
const SITES_MAX: usize = 1 << 16;

/// A module's address and one in its code: another library may be loaded at the same place later.
type SiteKey = (usize, u64);

static SITES: Mutex<Option<AddressMap<SiteKey, Arc<Site>>>> = Mutex::new(None);

/// All that is known of an address before a stack stands there.
pub(crate) struct Site {
    /// The frames, innermost first, without variables.
    pub(crate) frames: Vec<Frame>,
    /// What [`InApp::by_path`] says of each.
    by_path: Vec<bool>,
    /// Where their variables are described; `None` without debug information.
    pub(crate) code: Option<SiteCode>,
}

/// The code at an address.
pub(crate) struct SiteCode {
    pub(crate) unit: &'static Unit,
    pub(crate) function: &'static Function,
    /// One for each frame, innermost first.
    pub(crate) levels: Vec<SiteLevel>,
    /// Where unwinding from here enters; 0 where it passes through.
    pub(crate) pad: OnceLock<u64>,
}

/// One function or inlined call at an address.
pub(crate) struct SiteLevel {
    pub(crate) die: Die,
    /// The variables whose blocks are open, from the outside in.
    pub(crate) vars: Vec<&'static VarDie>,
    /// Some variable is not described as being at one place all the time.
    pub(crate) is_optimised: bool,
    /// The function's name says that it polls a future.
    pub(crate) is_poll: bool,
}

impl Site {
    /// Whether policy takes the frame at a place here for the user's code.
    pub(crate) fn is_in_app(&self, at: usize, frame: &Frame, in_app: &InApp) -> bool {
        match self.by_path.get(at) {
            Some(by_path) if in_app.is_by_path() => *by_path,
            _ => in_app.decide(frame),
        }
    }
}

impl fmt::Debug for Site {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.frames.fmt(f)
    }
}

/// What is known of an address of the process; found out once.
pub(crate) fn at(module: &'static Module, lookup: u64) -> Arc<Site> {
    let key = (std::ptr::from_ref(module).addr(), lookup);
    let known = SITES
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .as_ref()
        .and_then(|sites| sites.get(&key).cloned());
    known.unwrap_or_else(|| {
        let site = Arc::new(site(module, lookup));
        let mut sites = SITES.lock().unwrap_or_else(PoisonError::into_inner);
        let sites = sites.get_or_insert_default();
        if sites.len() >= SITES_MAX {
            sites.clear();
        }
        sites.insert(key, Arc::clone(&site));
        site
    })
}

fn site(module: &'static Module, lookup: u64) -> Site {
    let frames = find(module, lookup);
    let address = lookup.wrapping_sub(module.bias);
    let unit = module.debug().and_then(|debug| debug.unit_at(address));
    let found = unit.and_then(|unit| Some((unit, unit.function_at(address)?)));
    let code = found.map(|(unit, function)| {
        let mut levels = function.levels(address);
        levels.reverse();
        let is_poll = |at: usize| {
            let name = frames.get(at).and_then(|frame| frame.function.as_deref());
            name.is_some_and(|name| name.ends_with("::poll"))
        };
        let level = |(at, level): (usize, Level<'static>)| {
            let vars: Vec<_> = level.blocks.iter().flat_map(|block| &block.vars).collect();
            SiteLevel {
                die: level.die,
                is_optimised: vars.iter().any(|var| !var.is_at_one_place()),
                vars,
                is_poll: is_poll(at),
            }
        };
        SiteCode {
            unit,
            function,
            levels: levels.into_iter().enumerate().map(level).collect(),
            pad: OnceLock::new(),
        }
    });
    Site {
        by_path: frames.iter().map(is_users_path).collect(),
        frames,
        code,
    }
}

fn find(module: &'static Module, lookup: u64) -> Vec<Frame> {
    let address = lookup.wrapping_sub(module.bias);
    let image = Some(module.path.to_string_lossy().into_owned());
    let mut frames = Vec::new();
    if let Some(debug) = module.debug() {
        let symbol = debug.symbol_at(address);
        let unit = debug.unit_at(address);
        frames = unit
            .map(|unit| by_debug_information(unit, address, symbol))
            .unwrap_or_default();
        if frames.is_empty() {
            let mut frame = Frame {
                symbol: symbol.map(str::to_owned),
                ..Frame::default()
            };
            set_names_by_symbol(&mut frame);
            if let Some(unit) = unit {
                set_line(&mut frame, unit, address);
            }
            frames.push(frame);
        }
    }
    if frames.is_empty() {
        frames.push(Frame::default());
    }
    for frame in &mut frames {
        frame.image.clone_from(&image);
        frame.package = frame.file.as_deref().and_then(package_of);
        frame.role = role_of(frame);
    }
    frames
}

pub(super) fn by_debug_information(
    unit: &'static Unit,
    address: u64,
    symbol: Option<&str>,
) -> Vec<Frame> {
    let Some(function) = unit.function_at(address) else {
        return Vec::new();
    };
    let levels = function.levels(address);
    let mut frames: Vec<Frame> = levels.iter().map(|level| frame_of(level, unit)).collect();
    // Each frame stands where the next inner one was called.
    for at in 1..levels.len() {
        if let Some(call) = levels[at].call {
            frames[at - 1].file = unit
                .lines()
                .and_then(|lines| lines.file(call.file))
                .map(str::to_owned);
            frames[at - 1].line = Some(call.line).filter(|line| *line > 0);
            frames[at - 1].column = Some(call.column).filter(|column| *column > 0);
        }
    }
    if let Some(innermost) = frames.last_mut() {
        set_line(innermost, unit, address);
    }
    // Line tables alone leave the outermost name without a path; the symbol has it.
    if let Some(outermost) = frames.first_mut().filter(|frame| frame.module.is_none())
        && let Some(symbol) = symbol
    {
        outermost.symbol = Some(symbol.to_owned());
        set_names_by_symbol(outermost);
    }
    frames.reverse();
    frames
}

fn set_line(frame: &mut Frame, unit: &'static Unit, address: u64) {
    let Some(lines) = unit.lines() else { return };
    let Some(row) = lines.at(address) else { return };
    frame.file = lines.file(row.file).map(str::to_owned);
    frame.line = Some(row.line).filter(|line| *line > 0);
    frame.column = Some(row.column).filter(|column| *column > 0);
}

fn frame_of(level: &Level<'_>, unit: &'static Unit) -> Frame {
    let mut frame = Frame {
        inlined: level.call.is_some(),
        ..Frame::default()
    };
    let symbol = level.die.linkage_name();
    frame.symbol = symbol.map(str::to_owned);
    let origin = level.die.origin();
    let (_, line) = function::declaration(origin);
    frame.function_line = line;
    set_names(&mut frame, origin);
    let _ = unit;
    frame
}

/// Sets the readable name, module and crate from the DIE's place among namespaces.
fn set_names(frame: &mut Frame, die: Die) {
    let Some(name) = die.name() else {
        set_names_by_symbol(frame);
        return;
    };
    let path = die.unit.path(die.offset);
    let mut modules: Vec<&str> = path.iter().map(|(name, _)| *name).collect();
    frame.is_async = name.starts_with("{async_");
    // Bodies of closures and futures lie in a namespace named after their function.
    let is_body = name.starts_with('{');
    let mut parts = modules.clone();
    parts.push(name);
    let readable = readable_path(frame, &parts);
    if is_body {
        while let Some(last) = modules.pop() {
            if !last.starts_with('{') {
                break;
            }
        }
    }
    let end = modules
        .iter()
        .position(|module| module.starts_with('{') || module.contains('<'));
    modules.truncate(end.unwrap_or(modules.len()));
    if modules.is_empty() {
        frame.function = Some(readable);
        return;
    }
    frame.crate_name = modules.first().map(|name| (*name).to_owned());
    frame.module = Some(modules.join("::"));
    frame.function = Some(readable);
}

/// `shop::{impl#2}::total` says less than the symbol's `shop::Cart::total`.
fn readable_path(frame: &Frame, parts: &[&str]) -> String {
    let from_symbol = parts
        .iter()
        .any(|part| part.starts_with("{impl#"))
        .then(|| frame.symbol.as_deref().map(demangle))
        .flatten();
    let mut path = without_arguments(&from_symbol.unwrap_or_else(|| parts.join("::")));
    if frame.is_async {
        for end in ["::{{closure}}", "::{closure#0}"] {
            if let Some(shorter) = path.strip_suffix(end) {
                path = shorter.to_owned();
                return path;
            }
        }
        if let Some(at) = path.rfind("::{async_") {
            path.truncate(at);
        }
    }
    path
}

/// Takes type arguments off a path: `Core<T>::poll` is the same function for every `T`.
///
/// What a path begins with stays: `<T as Trait>::name` is a place and not an argument.
fn without_arguments(path: &str) -> String {
    let mut short = String::with_capacity(path.len());
    let mut depth = 0;
    let mut previous = ' ';
    for c in path.chars() {
        match c {
            '<' if depth > 0 || previous.is_alphanumeric() || matches!(previous, '_' | '}') => {
                depth += 1;
            }
            // The arrow of a function type closes nothing.
            '>' if depth > 0 && previous != '-' => depth -= 1,
            _ if depth == 0 => short.push(c),
            _ => {}
        }
        previous = c;
    }
    short
}

fn demangle(symbol: &str) -> String {
    format!("{:#}", rustc_demangle::demangle(symbol))
}

fn set_names_by_symbol(frame: &mut Frame) {
    let Some(symbol) = frame.symbol.as_deref() else {
        return;
    };
    let name = demangle(symbol);
    let is_rust = name != symbol;
    if is_rust {
        let plain = name.trim_start_matches('<').trim_start_matches('&');
        let end = plain.find(['<', '>', ' ', '{']).unwrap_or(plain.len());
        let path = plain[..end].trim_end_matches(':');
        let parts: Vec<&str> = path.split("::").collect();
        frame.crate_name = parts
            .first()
            .filter(|part| !part.is_empty())
            .map(|part| (*part).to_owned());
        // A type's name begins with a capital; what is before it is the module.
        let end = parts
            .iter()
            .position(|part| part.starts_with(char::is_uppercase))
            .unwrap_or(parts.len().saturating_sub(1));
        frame.module = Some(parts[..end].join("::")).filter(|module| !module.is_empty());
    }
    frame.function = Some(if is_rust {
        without_arguments(&name)
    } else {
        name
    });
}

/// `…/registry/src/<index>/<name>-<version>/…` and `…/git/checkouts/<name>-<hash>/<commit>/…`.
fn package_of(file: &str) -> Option<Package> {
    let (_, rest) = file.split_once("/registry/src/")?;
    let dir = rest.split('/').nth(1)?;
    let at = dir
        .match_indices('-')
        .find(|(at, _)| {
            let major = dir[at + 1..].split_once('.').map_or("", |(major, _)| major);
            !major.is_empty() && major.bytes().all(|byte| byte.is_ascii_digit())
        })?
        .0;
    Some(Package {
        name: dir[..at].to_owned(),
        version: dir[at + 1..].to_owned(),
    })
}

fn role_of(frame: &Frame) -> Role {
    const FAILURE: [&str; 8] = [
        "core::panicking",
        "std::panicking",
        "std::panic",
        "alloc::raw_vec::handle_error",
        "rust_begin_unwind",
        "__rust_end_short_backtrace",
        "backstop_capture",
        "core::option::unwrap_failed",
    ];
    const RUNTIME_CRATES: [&str; 10] = [
        "tokio",
        "async_std",
        "smol",
        "async_executor",
        "futures_executor",
        "futures_util",
        "hyper",
        "hyper_util",
        "tower",
        "tower_http",
    ];
    const RUNTIME: [&str; 8] = [
        "std::rt",
        "std::sys",
        "std::thread",
        "core::ops::function",
        "std::panicking::try",
        "std::panicking::catch_unwind",
        "__rust_begin_short_backtrace",
        "core::future",
    ];
    let function = frame.function.as_deref().unwrap_or("");
    let begins = |list: &[&str]| {
        list.iter()
            .any(|prefix| function.trim_start_matches('<').starts_with(prefix))
    };
    let names = [
        "_start",
        "main",
        "__libc_start_main",
        "__libc_start_call_main",
        "start_thread",
        "clone3",
        "clone",
    ];
    if function.starts_with("std::panicking::try") || function.contains("catch_unwind") {
        Role::Runtime
    } else if begins(&FAILURE) {
        Role::Failure
    } else if begins(&RUNTIME)
        || frame
            .crate_name
            .as_deref()
            .is_some_and(|name| RUNTIME_CRATES.contains(&name))
        || names.contains(&function)
    {
        Role::Runtime
    } else {
        Role::Plain
    }
}

pub(super) fn doctor() -> crate::Doctor {
    use super::debug_file::Found;
    use crate::Ability;

    let modules = super::module::loaded();
    let Some(program) = modules.first() else {
        return crate::Doctor::new(Ability::Addresses, "the loader lists no program");
    };
    let Some(debug) = program.debug() else {
        return crate::Doctor::new(Ability::Addresses, "the program's file cannot be read");
    };
    // The caller of this crate is user code as good as any; `main` is in every program.
    let place = match &debug.found {
        Found::Inside => "in the program".to_owned(),
        Found::Separate(path) => format!("in {}", path.display()),
        Found::Nothing => {
            let ability = if debug.symbol_at_any() {
                Ability::Names
            } else {
                Ability::Addresses
            };
            return crate::Doctor::new(ability, "the program was built without debug information");
        }
    };
    match debug.best_unit() {
        (true, _) => crate::Doctor::new(Ability::Variables, &format!("debug information {place}")),
        (false, true) => crate::Doctor::new(
            Ability::Lines,
            &format!("debug information {place}, but its .dwp package is missing"),
        ),
        (false, false) => crate::Doctor::new(
            Ability::Lines,
            &format!("debug information {place} has lines only"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages() {
        let package = |path: &str| {
            package_of(path).map(|package| format!("{} {}", package.name, package.version))
        };
        let root = "/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f";
        assert_eq!(
            package(&format!("{root}/axum-0.8.9/src/lib.rs")).as_deref(),
            Some("axum 0.8.9")
        );
        assert_eq!(
            package(&format!("{root}/md-5-0.10.6/src/lib.rs")).as_deref(),
            Some("md-5 0.10.6")
        );
        assert_eq!(
            package(&format!("{root}/x-1.0.0-rc.1/a.rs")).as_deref(),
            Some("x 1.0.0-rc.1")
        );
        assert_eq!(package("/home/ann/shop/src/main.rs"), None);
    }

    #[test]
    fn arguments_are_left_out() {
        for (path, short) in [
            ("a::Core<b::C<d>, e>::poll<f>", "a::Core::poll"),
            ("<a::B<c> as d::E<f>>::g", "<a::B as d::E>::g"),
            ("a::b<fn(c) -> d<e>>::f", "a::b::f"),
            ("a::{closure#0}<b>", "a::{closure#0}"),
        ] {
            assert_eq!(without_arguments(path), short);
        }
    }

    #[test]
    fn names_by_symbol() {
        let check = |symbol: &str, function: &str, module: Option<&str>| {
            let mut frame = Frame {
                symbol: Some(symbol.to_owned()),
                ..Frame::default()
            };
            set_names_by_symbol(&mut frame);
            assert_eq!(
                (frame.function.as_deref(), frame.module.as_deref()),
                (Some(function), module)
            );
        };
        check(
            "_ZN4shop4cart5price17h4eb17fa7c803a162E",
            "shop::cart::price",
            Some("shop::cart"),
        );
        check("main", "main", None);
    }
}
