//! Maps whose keys are addresses of this program.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

/// A map by addresses, or by pairs of them.
pub(super) type AddressMap<K, V> = HashMap<K, V, BuildHasherDefault<AddressHasher>>;

/// Spreads addresses over a table. They are the program's own, so hardly anybody chooses them,
/// and every such map is bounded.
#[derive(Debug, Default)]
pub(super) struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, address: u64) {
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        self.0 = (self.0 ^ address).wrapping_mul(SPREAD).rotate_left(32);
    }

    fn write_usize(&mut self, address: usize) {
        self.write_u64(address as u64);
    }
}
