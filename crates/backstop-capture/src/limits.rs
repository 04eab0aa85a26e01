//! How long, how deep, how many.

use std::time::Duration;

/// Bounds of one capture.
///
/// Every value has a default that suits production; a limit that is reached
/// leaves a mark in the result and never an error.
///
/// # Example
///
/// ```
/// let limits = backstop_capture::Limits {
///     items: 100,
///     ..Default::default()
/// };
/// assert_eq!(limits.depth, 6);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Physical frames that are walked; deeper stacks are recursion, whose middle says nothing.
    pub frames: usize,
    /// Frames whose variables are read, innermost first.
    pub frames_with_vars: usize,
    /// Variables of one frame.
    pub vars: usize,
    /// Levels of a value.
    pub depth: usize,
    /// Elements of a list, set or map, and fields of a struct.
    pub items: usize,
    /// Bytes of one text.
    pub text_bytes: usize,
    /// Values, of all levels, that one variable may show.
    pub nodes: usize,
    /// Memory, in bytes, that one capture may read.
    pub memory_bytes: usize,
    /// The thread's CPU time after which no further variable is begun.
    ///
    /// Opening the debug information for the first time is not counted:
    /// [`warm_up`](crate::warm_up) pays for it at start.
    pub time: Duration,
    /// Captures with values of one and the same stack in one second; more have addresses only.
    pub per_place_per_second: u32,
    /// Bytes of each value that are kept as they lie in memory, to compare with a debugger.
    ///
    /// They are not redacted beyond what is hidden by name and type; 0, the default, keeps none.
    pub raw_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            frames: 256,
            frames_with_vars: 48,
            vars: 64,
            depth: 6,
            items: 32,
            text_bytes: 1024,
            nodes: 400,
            memory_bytes: 8 << 20,
            time: Duration::from_millis(50),
            per_place_per_second: 20,
            raw_bytes: 0,
        }
    }
}
