//! Cases of every kernel, compared with definitions in f64: odd shapes, all types, edges of lengths, operands in any place.
//!
//! They run on every [`Machine`]: on the emulation with `cargo test`, and on a GPU with
//! `cargo run -p afterimage-cuda-kernels --features cuda --example parity`.

mod attention;
mod combination;
mod epilogue;
mod float8;
mod functions;
mod group_norm;
mod layer_norm;
mod norm_and_turn;
mod reduction;
mod report;
mod unfold;
mod values;

pub use report::Report;

use crate::machine::Machine;
use crate::value_type::ValueType;

/// Runs all cases, and calls `done` after those of each kernel.
pub fn run<M: Machine>(machine: &M, mut done: impl FnMut(&Report)) {
    for value_type in ValueType::ALL {
        done(&attention::check(machine, value_type));
    }
    done(&layer_norm::check(machine));
    done(&epilogue::check(machine));
    done(&norm_and_turn::check(machine));
    done(&group_norm::check_moments(machine));
    done(&group_norm::check_scale_shift(machine));
    done(&reduction::check(machine));
    done(&unfold::check(machine));
    done(&combination::check(machine));
    done(&float8::check(machine));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emulation::Emulation;

    /// The cases of one kernel on the emulation.
    #[track_caller]
    fn passes(check: impl Fn(&Emulation) -> Report) {
        let report = check(&Emulation::default());
        println!("{report}");
        assert!(report.failure().is_none(), "{report}");
    }

    #[test]
    fn attention_in_f32() {
        passes(|machine| attention::check(machine, ValueType::F32));
    }

    #[test]
    fn attention_in_f16() {
        passes(|machine| attention::check(machine, ValueType::F16));
    }

    #[test]
    fn attention_in_bf16() {
        passes(|machine| attention::check(machine, ValueType::Bf16));
    }

    #[test]
    fn layer_norms() {
        passes(layer_norm::check);
    }

    #[test]
    fn epilogues() {
        passes(epilogue::check);
    }

    #[test]
    fn norms_and_turns() {
        passes(norm_and_turn::check);
    }

    #[test]
    fn group_norms() {
        passes(group_norm::check_moments);
        passes(group_norm::check_scale_shift);
    }

    #[test]
    fn reductions() {
        passes(reduction::check);
    }

    #[test]
    fn combinations() {
        passes(combination::check);
    }

    #[test]
    fn widened_fp8() {
        passes(float8::check);
    }

    #[test]
    fn unfolded_pictures() {
        passes(unfold::check);
    }
}
