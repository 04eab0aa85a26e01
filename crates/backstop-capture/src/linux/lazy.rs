//! Values that are made on first use and kept.

use std::sync::{Mutex, OnceLock, PoisonError};

/// A value made on first use.
///
/// Unlike [`OnceLock::get_or_init`] a maker that panics leaves it empty, and a second
/// thread waits for the first instead of making the value again.
#[derive(Debug, Default)]
pub(crate) struct Lazy<T> {
    value: OnceLock<T>,
    making: Mutex<()>,
}

impl<T> Lazy<T> {
    pub(crate) const fn new() -> Lazy<T> {
        Lazy {
            value: OnceLock::new(),
            making: Mutex::new(()),
        }
    }

    /// The value, if it was made already.
    pub(crate) fn peek(&self) -> Option<&T> {
        self.value.get()
    }

    pub(crate) fn get(&self, make: impl FnOnce() -> T) -> &T {
        if let Some(value) = self.value.get() {
            return value;
        }
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        match self.value.get() {
            Some(value) => value,
            None => {
                let made = make();
                self.value.get_or_init(|| made)
            }
        }
    }
}
