//! Cases of combinations.

use super::report::Report;
use super::values::{Placed, Random};
use crate::combination::{Combination, WeightedTerm};
use crate::error::KernelError;
use crate::machine::Machine;
use crate::value_type::ValueType;

/// Weights of as many terms; of those at odd places something is subtracted.
const WEIGHTS: [f32; Combination::MOST_TERMS] = [1.0, -0.75, 3.5, 1e-3, 0.0, -41.0];

#[derive(Debug, Clone, Copy)]
struct Case {
    value_type: ValueType,
    length: usize,
    terms: usize,
    /// Of the first operand, and of all others.
    offsets: (usize, usize),
}

pub(super) fn check<M: Machine>(machine: &M) -> Report {
    let mut report = Report::new("combination");
    for value_type in ValueType::ALL {
        let mut cases = Vec::new();
        for length in [0, 1, 7, 8, 255, 4096, 4104, 65_537] {
            for (terms, offsets) in [(1, (0, 0)), (2, (0, 0)), (3, (8, 0)), (6, (0, 1)), (2, (3, 3))] {
                cases.push(Case { value_type, length, terms, offsets });
            }
        }
        cases.extend([4, 5].map(|terms| Case { value_type, length: 1000, terms, offsets: (0, 8) }));
        for case in cases {
            report.add(&case, run(machine, case));
        }
    }
    report
}

fn run<M: Machine>(machine: &M, case: Case) -> Result<f64, KernelError> {
    let Case { value_type, length, terms, offsets } = case;
    let mut random = Random::new(length as u64 + 31 * terms as u64);
    let mut operand = |index: usize| {
        let offset = if index == 0 { offsets.0 } else { offsets.1 };
        random.operand(machine, value_type, (length, 2.0, offset))
    };
    let operands: Vec<_> = (0..2 * terms).map(&mut operand).collect::<Result<_, _>>()?;
    let pairs = || WEIGHTS.into_iter().zip(operands.chunks_exact(2)).enumerate();
    let weighted: Vec<_> = pairs()
        .map(|(index, (weight, pair))| WeightedTerm {
            weight,
            values: pair[0].1.span(),
            subtracted: (index % 2 == 1).then(|| pair[1].1.span()),
        })
        .collect();
    let output = Placed::output(machine, value_type, length, offsets.1)?;
    let combination = Combination { value_type, length, terms: &weighted, output: output.span() };
    machine.launch(&combination.launch()?)?;
    let found = output.read(machine)?;
    let mut defined = Vec::with_capacity(length);
    for (place, found) in found.iter().enumerate() {
        let (mut sum, mut magnitude, mut narrow) = (0.0, 0.0, 0.0f32);
        for (index, (weight, pair)) in pairs() {
            let subtracted = if index % 2 == 1 { pair[1].0[place] } else { 0.0 };
            let term = f64::from(weight) * (pair[0].0[place] - subtracted);
            sum += term;
            magnitude += term.abs();
            // One operator after the other.
            let rounded = (pair[0].0[place] as f32 - subtracted as f32) * weight;
            narrow = if index == 0 { rounded } else { narrow + rounded };
        }
        if value_type == ValueType::F32 && *found != f64::from(narrow) {
            return Ok(f64::NAN);
        }
        defined.push((sum, magnitude));
    }
    output.difference_of_terms(machine, &defined, 1.0)
}
