//! Redaction's word on a name or a type, kept with it.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::Redaction;

/// Different rules of one program; beyond them nothing is kept.
const RULES_MAX: usize = 64;

static RULES: Mutex<Vec<Redaction>> = Mutex::new(Vec::new());

/// Rules of redaction that were met before.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rules(Option<u32>);

impl Rules {
    pub(super) fn of(redaction: &Redaction) -> Rules {
        let mut rules = RULES.lock().unwrap_or_else(PoisonError::into_inner);
        let known = rules.iter().position(|known| known == redaction);
        let at = known.or_else(|| {
            let at = rules.len();
            (at < RULES_MAX).then(|| rules.push(redaction.clone()))?;
            Some(at)
        });
        // 0 is for what no rule has been asked about.
        Rules(at.map(|at| at as u32 + 1))
    }
}

/// What the rules that asked last say.
#[derive(Debug, Default)]
pub(super) struct Verdict(AtomicU32);

impl Verdict {
    /// Whether something is hidden; `decide` is asked once for the same rules.
    pub(super) fn get(&self, rules: Rules, decide: impl FnOnce() -> bool) -> bool {
        let Rules(Some(rules)) = rules else {
            return decide();
        };
        // Rules and verdict are one number, so no other thread's rules are believed.
        let known = self.0.load(Ordering::Relaxed);
        if known >> 1 == rules {
            return known & 1 == 1;
        }
        let hidden = decide();
        self.0
            .store(rules << 1 | u32::from(hidden), Ordering::Relaxed);
        hidden
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_rules_have_their_own_verdict() {
        let (strict, none) = (
            Rules::of(&Redaction::default()),
            Rules::of(&Redaction::none()),
        );
        let verdict = Verdict::default();
        assert!(verdict.get(strict, || true));
        assert!(verdict.get(strict, || unreachable!("it is known")));
        assert!(!verdict.get(none, || false));
        assert!(verdict.get(Rules::of(&Redaction::default()), || true));
        assert!(verdict.get(strict, || unreachable!("equal rules are the same")));
        assert!(!verdict.get(Rules(None), || false));
    }
}
