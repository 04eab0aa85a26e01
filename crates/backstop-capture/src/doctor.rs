//! What this build can show, and what to change to see more.

use std::fmt;

/// What a capture can show, least first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Ability {
    /// Addresses only.
    Addresses,
    /// Function names.
    Names,
    /// Function names, files and lines.
    Lines,
    /// Everything, with variables.
    Variables,
}

/// What this build can show; one line as text.
///
/// # Example
///
/// ```
/// println!("{}", backstop_capture::doctor());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Doctor {
    /// The best that a capture can show.
    pub ability: Ability,
    /// What was found.
    pub finding: String,
    /// What to change to see more.
    pub advice: Option<&'static str>,
}

impl Doctor {
    pub(crate) fn new(ability: Ability, finding: &str) -> Doctor {
        let advice = match ability {
            Ability::Variables => cfg!(panic = "abort").then_some(
                "with `panic = \"abort\"` nothing says which owning values are alive, so all of \
                 them are marked as perhaps moved",
            ),
            _ if cfg!(not(all(target_os = "linux", target_arch = "x86_64"))) => {
                Some("variables are read on x86-64 Linux only")
            }
            _ if finding.contains(".dwp") => Some("put the .dwp file beside the program"),
            _ => Some(
                "set `debug = \"full\"` and `split-debuginfo = \"packed\"` under [profile.release] in Cargo.toml \
                 (and `strip = false`), and keep the .dwp file beside the program",
            ),
        };
        Doctor {
            ability,
            finding: finding.to_owned(),
            advice,
        }
    }
}

impl fmt::Display for Doctor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ability = match self.ability {
            Ability::Addresses => "addresses only",
            Ability::Names => "function names, no lines and no variables",
            Ability::Lines => "stack and lines, no variables",
            Ability::Variables => "stack, lines and variables",
        };
        write!(f, "capture: {ability} ({})", self.finding)?;
        match self.advice {
            Some(advice) => write!(f, "; to see more, {advice}"),
            None => Ok(()),
        }
    }
}
