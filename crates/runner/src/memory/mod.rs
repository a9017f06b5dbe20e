//! What a model needs of a device's memory, and what the device has.
//!
//! A [`MemoryBudget`] is plain numbers: a device of any size, and what weights, cache state, prompts and the work of a step
//! take there. It says how many rows fit, and which setting is to be changed where none do. Work is estimated from shapes,
//! from above; `crates/runner/tests/memory.rs` compares it with what is allocated.
//!
//! A GPU's budget is kept, and so is one that was asked for: settings that exceed it are refused, and rows that nobody asked
//! for become fewer. The memory of a machine is not: it has other uses, and swap; what exceeds it is a warning.

mod budget;
mod capacity;
mod footprint;

use std::fmt;

pub(crate) use budget::{Limits, LoadedDevice, MemoryBudget, settle};
pub(crate) use capacity::{Capacity, host_bytes};
pub(crate) use footprint::{BucketFootprint, Footprint};

/// What errors and panics of drivers and their libraries say. The types of most are lost on their way through the tensor
/// library.
const OUT_OF_MEMORY: [&str; 2] = ["CUDA_ERROR_OUT_OF_MEMORY", "CUBLAS_STATUS_ALLOC_FAILED"];

/// Whether this is what became of work that a device had no memory for.
pub(crate) fn ran_out(reason: &str) -> bool {
    OUT_OF_MEMORY.iter().any(|sign| reason.contains(sign))
}

/// Bytes as people read them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bytes(pub(crate) u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        match UNITS.into_iter().find(|(_, size)| self.0 >= *size) {
            Some((unit, size)) => write!(f, "{:.1} {unit}", self.0 as f64 / size as f64),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_of_memory_are_known_by_what_drivers_say() {
        assert!(ran_out(r#"DriverError(CUDA_ERROR_OUT_OF_MEMORY, "out of memory")"#));
        assert!(ran_out("a product: CublasError(CUBLAS_STATUS_ALLOC_FAILED)"));
        assert!(!ran_out(r#"DriverError(CUDA_ERROR_ILLEGAL_ADDRESS, "an illegal memory access was encountered")"#));
    }

    #[test]
    fn bytes_have_a_unit() {
        for (bytes, text) in [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB")] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }
}
