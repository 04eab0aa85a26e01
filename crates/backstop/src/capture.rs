//! Whether and how the stack is taken where an error is made.
//!
//! Taking return addresses costs some ten microseconds, reading variables some milliseconds.
//! So addresses are taken of every error that may become a report, and variables of one error
//! per place and pause; in debug mode of every one.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::Location;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use backstop_capture::{Policy, Snapshot, Values};

/// How long the variables of one place are not read again.
const PAUSE: Duration = Duration::from_secs(5);

/// How many places are told apart at a time, in sets of [`WAYS`].
const PLACES: usize = 512;
const WAYS: usize = 8;

static SEEN: [Seen; PLACES] = [const { Seen::nothing() }; PLACES];

/// A place whose variables were read.
struct Seen {
    /// The place's number; 0 is none.
    place: AtomicU64,
    /// When they were read, in milliseconds since [`start`], plus one; 0 is never.
    last: AtomicU64,
}

impl Seen {
    const fn nothing() -> Seen {
        Seen {
            place: AtomicU64::new(0),
            last: AtomicU64::new(0),
        }
    }
}

/// Debug mode: variables of every error.
static ALWAYS: AtomicBool = AtomicBool::new(false);

/// Somebody looks at stacks: a client, a reporter of an app, or the debugger.
static WANTED: AtomicBool = AtomicBool::new(false);

/// Reads the variables of every error from now on, and opens the debug information.
pub(crate) fn always_read_variables() {
    WANTED.store(true, Ordering::Relaxed);
    ALWAYS.store(true, Ordering::Relaxed);
}

/// Tells whether anybody looks at stacks; without a reader none is taken.
pub(crate) fn is_wanted() -> bool {
    WANTED.load(Ordering::Relaxed)
}

/// Takes stacks from now on, and opens the program's debug information on a thread of its own,
/// once, so that the first error does not have to.
pub(crate) fn warm_up() {
    WANTED.store(true, Ordering::Relaxed);
    static STARTED: OnceLock<()> = OnceLock::new();
    STARTED.get_or_init(|| {
        // Without the thread the first error is slower, nothing else.
        let _started = std::thread::Builder::new()
            .name("backstop-warm-up".to_owned())
            .spawn(backstop_capture::warm_up);
    });
}

/// Takes the stack of the caller, which fails at `place`.
#[inline(never)]
pub(crate) fn take(place: &Location<'_>) -> Snapshot {
    let values = match ALWAYS.load(Ordering::Relaxed) || is_due(place, start().elapsed()) {
        true => Values::InApp,
        false => Values::Addresses,
    };
    static POLICIES: OnceLock<[Policy; 2]> = OnceLock::new();
    let [addresses, variables] = POLICIES.get_or_init(|| {
        [Values::Addresses, Values::InApp].map(|values| Policy {
            values,
            ..Policy::default()
        })
    });
    backstop_capture::snapshot(match values {
        Values::Addresses => addresses,
        _ => variables,
    })
}

fn start() -> Instant {
    static START: OnceLock<Instant> = OnceLock::new();
    *START.get_or_init(Instant::now)
}

/// Says whether the pause of a place is over, and begins a new one if it is.
fn is_due(place: &Location<'_>, now: Duration) -> bool {
    let mut hasher = DefaultHasher::new();
    (place.file(), place.line(), place.column()).hash(&mut hasher);
    is_due_at(hasher.finish() | 1, now)
}

fn is_due_at(place: u64, now: Duration) -> bool {
    let set = usize::try_from((place >> 1) % (PLACES / WAYS) as u64).unwrap_or(0);
    let ways = &SEEN[set * WAYS..][..WAYS];
    let now = u64::try_from(now.as_millis()).unwrap_or(u64::MAX - 1) + 1;
    let pause = u64::try_from(PAUSE.as_millis()).unwrap_or(u64::MAX);
    let take = |seen: &Seen| {
        let last = seen.last.load(Ordering::Relaxed);
        let is_over = last == 0 || now >= last.saturating_add(pause);
        // Of two threads that come at once, one reads.
        is_over
            && seen
                .last
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    };
    let known = |seen: &&Seen| seen.place.load(Ordering::Relaxed) == place;
    if let Some(own) = ways.iter().find(known) {
        return take(own);
    }
    // A new place takes the room of one whose pause is over. More than fit fail within a pause only
    // where all is on fire; then the later ones have their stack without variables.
    let free = ways.iter().find(|seen| take(seen));
    if let Some(free) = free {
        free.place.store(place, Ordering::Relaxed);
    }
    free.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_of_a_place_are_read_once_in_a_pause() {
        let place = Location::caller();
        let at = Duration::from_secs(100);
        assert!(is_due(place, at));
        assert!(!is_due(place, at + PAUSE / 2));
        assert!(is_due(place, at + PAUSE));
        assert!(!is_due(place, at + PAUSE));
    }

    #[test]
    fn places_do_not_take_each_others_turn() {
        // Numbers that meet in one set, whatever its size.
        let places = |count: u64| (1..=count).map(|n| n * 2 * PLACES as u64 + 7);
        let due =
            |count: u64, at: Duration| places(count).filter(move |place| is_due_at(*place, at));
        let at = Duration::from_secs(200);
        assert_eq!(due(9, at).count(), 8, "as many as fit, and not one more");
        assert_eq!(due(8, at + PAUSE / 2).count(), 0);
        assert_eq!(due(9, at + PAUSE).count(), 8);
    }

    #[test]
    fn the_stack_begins_in_the_program() {
        let snapshot = take(Location::caller());
        let frames = snapshot.resolve();
        let names: Vec<_> = frames
            .iter()
            .filter_map(|frame| frame.function.as_deref())
            .collect();
        assert!(
            names
                .iter()
                .any(|name| name.contains("the_stack_begins_in_the_program")),
            "{names:?}"
        );
    }
}
