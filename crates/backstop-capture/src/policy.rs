//! What a capture takes, and from which frames.

use std::fmt;
use std::sync::Arc;

use crate::{Frame, Limits, Redaction};

/// What a capture takes.
///
/// The default takes the values of in-app frames, redacts what looks secret and
/// keeps the [default limits](Limits).
///
/// # Example
///
/// ```
/// use backstop_capture::{InApp, Policy, Values};
///
/// let policy = Policy {
///     values: Values::InApp,
///     in_app: InApp::new(|frame| frame.crate_name.as_deref() == Some("shop")),
///     ..Policy::default()
/// };
/// # let _ = backstop_capture::snapshot(&policy);
/// ```
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Whose variables are read.
    pub values: Values,
    /// Which frames belong to the user's code.
    pub in_app: InApp,
    /// What is never copied out of memory.
    pub redaction: Redaction,
    /// How long, how deep, how many.
    pub limits: Limits,
}

/// Whose variables a capture reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[non_exhaustive]
pub enum Values {
    /// Nothing at all is captured, not even addresses.
    Off,
    /// Return addresses only: names and lines can be found later.
    Addresses,
    /// Variables of frames that are in-app.
    #[default]
    InApp,
    /// Variables of every frame that has debug information.
    All,
}

/// Decides which frames belong to the user's code.
///
/// The default is [`InApp::by_path`].
#[derive(Clone)]
pub struct InApp(Option<Decision>);

/// `None` in its place stands for [`is_users_path`].
type Decision = Arc<dyn Fn(&Frame) -> bool + Send + Sync>;

impl InApp {
    /// Decides with a function; it sees the frame without its variables.
    ///
    /// The function runs on the failing thread and must neither panic nor wait.
    pub fn new(decide: impl Fn(&Frame) -> bool + Send + Sync + 'static) -> InApp {
        InApp(Some(Arc::new(decide)))
    }

    /// Decides by the place of the source file: not in-app is what comes from a
    /// package registry, a git checkout of Cargo, the toolchain, the system, or
    /// the capturing crates themselves, and what has no file at all.
    pub fn by_path() -> InApp {
        InApp(None)
    }

    /// Says whether the frame belongs to the user's code.
    pub fn decide(&self, frame: &Frame) -> bool {
        match &self.0 {
            Some(decide) => decide(frame),
            None => is_users_path(frame),
        }
    }

    /// Whether the decision is by the place of the source file, and so always the same.
    #[cfg(all(target_os = "linux", target_arch = "x86_64"))]
    pub(crate) fn is_by_path(&self) -> bool {
        self.0.is_none()
    }
}

impl Default for InApp {
    fn default() -> InApp {
        InApp::by_path()
    }
}

impl fmt::Debug for InApp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InApp(..)")
    }
}

/// Parts of paths that never lie in the user's own source tree.
const FOREIGN_PATHS: [&str; 8] = [
    "/rustc/",
    "/.cargo/registry/",
    "/registry/src/",
    "/.cargo/git/",
    "/git/checkouts/",
    "/lib/rustlib/",
    "/rust/deps/",
    "/.rustup/",
];

/// Crates that take the capture; their frames explain nothing about the failure.
const OWN_CRATES: [&str; 2] = ["backstop", "backstop_capture"];

/// The decision of [`InApp::by_path`].
pub(crate) fn is_users_path(frame: &Frame) -> bool {
    let Some(file) = frame.file.as_deref() else {
        return false;
    };
    let own = frame
        .crate_name
        .as_deref()
        .is_some_and(|name| OWN_CRATES.contains(&name));
    let system = ["/usr/", "./", "library/", "../sysdeps"]
        .iter()
        .any(|prefix| file.starts_with(prefix));
    !own && !system
        && file.ends_with(".rs")
        && !FOREIGN_PATHS.iter().any(|part| file.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_decide() {
        let check = |file: &str, crate_name: &str, expected: bool| {
            let frame = Frame {
                file: Some(file.to_owned()),
                crate_name: Some(crate_name.to_owned()),
                ..Frame::default()
            };
            assert_eq!(InApp::default().decide(&frame), expected, "{file}");
        };
        check("/home/ann/shop/src/main.rs", "shop", true);
        check("/build/crates/shop/src/cart.rs", "shop", true);
        check("/rustc/59807616e/library/core/src/option.rs", "core", false);
        check(
            "/root/.cargo/registry/src/index/axum-0.8.9/src/lib.rs",
            "axum",
            false,
        );
        check("/home/ann/.cargo/git/checkouts/x/1/src/lib.rs", "x", false);
        check(
            "/home/ann/backstop/crates/backstop/src/error.rs",
            "backstop",
            false,
        );
        check("./csu/libc-start.c", "", false);
        assert!(!InApp::default().decide(&Frame::default()));
    }
}
