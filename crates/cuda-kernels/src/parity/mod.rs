//! Cases of every kernel, compared with definitions in f64: odd shapes, all types, edges of lengths, operands in any place.
//!
//! They run on every [`Machine`]: on the emulation with `cargo test`, and on a GPU with
//! `cargo run -p afterimage-cuda-kernels --features cuda --example parity`.

mod layer_norm;
mod report;
mod values;

pub use report::Report;

use crate::machine::Machine;

/// Runs all cases, and calls `done` after those of each kernel.
pub fn run<M: Machine>(machine: &M, mut done: impl FnMut(&Report)) {
    done(&layer_norm::check(machine));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulation::Emulation;

    /// The cases of one kernel on the emulation.
    #[track_caller]
    fn passes(check: fn(&Emulation) -> Report) {
        let report = check(&Emulation::default());
        println!("{report}");
        assert!(report.failure().is_none(), "{report}");
    }

    #[test]
    fn layer_norms() {
        passes(layer_norm::check);
    }
}
