//! How alike two errors look, as a hint that two issues may be the same bug.
//!
//! Grouping decides by what identifies a bug; this only suggests, where a function was renamed
//! or moved, or an exception got another type. Two errors are alike if the user's functions on
//! their stacks are the same, in about the same order. A function that many issues of the project
//! pass through says little, a rare one says much, and functions near the failure say more.
//! The time is linear in the functions, of which there are at most [`FUNCTIONS_MAX`].

use backstop_protocol::Event;
use serde::{Deserialize, Serialize};

use super::chain::{Chain, types};
use super::learn::number;
use super::name::Family;
use super::site;
use super::value::cut;

/// Functions of an error that are compared: those nearest to the failure.
pub const FUNCTIONS_MAX: usize = 12;
/// Longer names are cut; what differs only beyond it counts as the same.
const NAME_BYTES_MAX: usize = 120;
/// Two errors that are less alike get no hint. Chosen on the open exam; see `docs/grouping.md`.
pub const LIKENESS_MIN: f64 = 0.75;
/// How much of the likeness the types of the exceptions decide.
const TYPES_SHARE: f64 = 0.2;
/// How fast functions lose weight with their distance from the failure: the power of the rank.
const RANK_POWER: f64 = 0.5;
/// How fast a common function loses weight that stands in another position.
const SHIFT_LOSS: f64 = 0.1;

/// What is compared of an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sketch {
    /// The types of the exceptions, outermost first.
    pub types: String,
    /// The user's functions with their places, the one nearest to the failure first.
    pub functions: Vec<String>,
}

impl Sketch {
    /// Reads the sketch of a normalised event; `None` without the user's code on its stack.
    pub fn of(event: &Event) -> Option<Sketch> {
        let family = Family::of(event.platform.as_deref());
        let chain = Chain::of(family, event);
        let mut functions: Vec<String> = Vec::new();
        // The innermost cause is nearest to the failure.
        let stacks = chain
            .line
            .iter()
            .rev()
            .chain(chain.members.iter().flatten());
        for frames in stacks.filter_map(|exception| exception.stacktrace.as_ref()) {
            for name in site::own_functions(family, &frames.frames) {
                let name = cut(&name, NAME_BYTES_MAX);
                if functions.len() < FUNCTIONS_MAX && !functions.iter().any(|known| known == name) {
                    functions.push(name.to_owned());
                }
            }
        }
        (!functions.is_empty()).then(|| Sketch {
            types: types(&chain.line).join(", caused by "),
            functions,
        })
    }

    /// Returns numbers that stand for the functions.
    pub fn numbers(&self) -> impl Iterator<Item = u64> {
        self.functions.iter().map(|name| number([name.as_str()]))
    }

    /// Says how alike two errors are, from 0 to 1.
    ///
    /// `rarity` weighs the function of a number; see [`rarity`].
    pub fn likeness(&self, other: &Sketch, rarity: impl Fn(u64) -> f64) -> f64 {
        let weigh = |sketch: &Sketch| -> Vec<(u64, f64)> {
            let functions = sketch.numbers().enumerate();
            functions
                .map(|(rank, number)| {
                    let near = (rank as f64 + 1.0).powf(-RANK_POWER);
                    (number, rarity(number) * near)
                })
                .collect()
        };
        let (own, others) = (weigh(self), weigh(other));
        let sum = |weights: &[(u64, f64)]| weights.iter().map(|(_, weight)| weight).sum::<f64>();
        let all = sum(&own) + sum(&others);
        if all <= 0.0 {
            return 0.0;
        }
        let mut common = 0.0;
        for (rank, (function, weight)) in own.iter().enumerate() {
            let same = others.iter().position(|(other, _)| other == function);
            if let Some(at) = same {
                let shift = rank.abs_diff(at) as f64;
                common += (weight + others[at].1) * (-SHIFT_LOSS * shift).exp();
            }
        }
        let same_types = f64::from(self.types == other.types);
        (1.0 - TYPES_SHARE) * common / all + TYPES_SHARE * same_types
    }

    /// Says in words for people what two errors have in common.
    pub fn reason(&self, other: &Sketch) -> String {
        const NAMED_MAX: usize = 3;
        let common: Vec<&str> = self
            .functions
            .iter()
            .filter(|function| other.functions.contains(function))
            .map(String::as_str)
            .collect();
        let mut names = common[..common.len().min(NAMED_MAX)].join(", ");
        if common.len() > NAMED_MAX {
            names.push_str(&format!(" and {} more", common.len() - NAMED_MAX));
        }
        if self.types == other.types {
            format!("{} too, and it came through {names}", self.types)
        } else {
            format!(
                "{} instead of {}, but it came through {names}",
                other.types, self.types
            )
        }
    }
}

/// How much a function says that `issues_with` of the project's `issues` pass through.
pub fn rarity(issues_with: usize, issues: usize) -> f64 {
    ((issues as f64 + 1.0) / (issues_with as f64 + 1.0) + 1.0).ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sketch(types: &str, functions: &[&str]) -> Sketch {
        Sketch {
            types: types.to_owned(),
            functions: functions.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn rare_functions_near_the_failure_say_most() {
        let own = sketch("KeyError", &["total", "checkout", "main"]);
        let common = own.numbers().last();
        let rarity = |number| rarity(if Some(number) == common { 100 } else { 1 }, 100);
        let like =
            |types: &str, functions: &[&str]| own.likeness(&sketch(types, functions), rarity);
        assert!((like("KeyError", &["total", "checkout", "main"]) - 1.0).abs() < 1e-9);
        // Another type, one function renamed, one more on the way.
        assert!(like("PriceError", &["total", "checkout", "main"]) > LIKENESS_MIN);
        assert!(like("KeyError", &["total", "timed", "checkout", "main"]) > LIKENESS_MIN);
        // Only what all have in common.
        assert!(like("KeyError", &["weight", "ship", "main"]) < 0.4);
        assert!(like("KeyError", &[]) < LIKENESS_MIN);
        assert_eq!(
            own.reason(&sketch("PriceError", &["total", "checkout", "main"])),
            "PriceError instead of KeyError, but it came through total, checkout, main"
        );
    }
}
