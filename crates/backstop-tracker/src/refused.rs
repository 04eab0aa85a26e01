//! A line in the log for every request that is refused, and not more lines than anybody can read.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::{Method, StatusCode, Uri};

/// A broken client can be refused thousands of times a second; its first lines say everything.
const LINES_PER_SECOND_MAX: u32 = 10;

/// Longer paths are nobody's endpoint.
const PATH_CHARS_MAX: usize = 200;

static LINES: Mutex<Option<Second>> = Mutex::new(None);

struct Second {
    began: Instant,
    lines: u32,
    left_out: u64,
}

/// Notes that a request was refused; the query is left out, because it may hold a key.
pub(crate) fn note(method: &Method, uri: &Uri, status: StatusCode, detail: &str) {
    let Some(left_out) = may_write() else { return };
    let path: String = shown(uri.path()).chars().take(PATH_CHARS_MAX).collect();
    let status = status.as_u16();
    tracing::warn!(%method, path = path.escape_debug().to_string(), status, detail, left_out, "refused");
}

/// Leaves out what follows `/sign-in/`: it is a secret that signs somebody in.
fn shown(path: &str) -> std::borrow::Cow<'_, str> {
    const BEFORE: &str = "/sign-in/";
    match path.to_ascii_lowercase().find(BEFORE) {
        Some(at) if path.len() > at + BEFORE.len() => {
            format!("{}…", &path[..at + BEFORE.len()]).into()
        }
        _ => path.into(),
    }
}

/// Returns how many lines were left out since the last one, or `None` to leave out this one too.
fn may_write() -> Option<u64> {
    let mut second = LINES.lock().unwrap_or_else(PoisonError::into_inner);
    let now = Instant::now();
    let second = second.get_or_insert(Second {
        began: now,
        lines: 0,
        left_out: 0,
    });
    if now.duration_since(second.began) >= Duration::from_secs(1) {
        *second = Second {
            began: now,
            lines: 0,
            left_out: second.left_out,
        };
    }
    if second.lines >= LINES_PER_SECOND_MAX {
        second.left_out += 1;
        return None;
    }
    second.lines += 1;
    Some(std::mem::take(&mut second.left_out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_secret_of_a_sign_in_link_is_not_shown() {
        for (path, expected) in [
            ("/sign-in/0123abcd", "/sign-in/…"),
            ("/errors/sign-in/0123abcd/more", "/errors/sign-in/…"),
            ("/Sign-In//0123abcd/", "/Sign-In/…"),
            ("/sign-in/", "/sign-in/"),
            ("/issues/é/", "/issues/é/"),
        ] {
            assert_eq!(shown(path), expected);
        }
    }
}
