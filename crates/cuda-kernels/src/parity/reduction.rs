//! Cases of reductions.

use super::report::Report;
use super::values::{Placed, Random, Values, rounded};
use crate::error::KernelError;
use crate::machine::Machine;
use crate::reduction::{Magnitudes, Reduction};
use crate::value_type::ValueType;

/// Values of the tensors of a launch; those of odd number are differences.
const LENGTHS: [usize; 7] = [1, 7, 8, 2048, 4096, 4101, 20_000];

#[derive(Debug, Clone, Copy)]
struct Case {
    value_type: ValueType,
    offset: usize,
    /// Of the last tensor: some are so long that their parts grow.
    length: usize,
    /// What stands in the middle of the last tensor but one.
    planted: Option<f32>,
}

pub(super) fn check<M: Machine>(machine: &M) -> Report {
    let mut report = Report::new("reduction");
    for value_type in ValueType::ALL {
        for (offset, length, planted) in [
            (0, 530_000, None),
            (1, 9000, None),
            (8, 9000, None),
            (0, 9000, Some(f32::NAN)),
            (0, 9000, Some(f32::NEG_INFINITY)),
        ] {
            let case = Case { value_type, offset, length, planted };
            report.add(&case, run(machine, case));
        }
    }
    report
}

fn run<M: Machine>(machine: &M, Case { value_type, offset, length, planted }: Case) -> Result<f64, KernelError> {
    let mut random = Random::new(offset as u64 + 1);
    let mut tensors = Vec::new();
    for (index, length) in LENGTHS.into_iter().chain([length]).enumerate() {
        let mut values: Vec<_> = (0..length).map(|_| random.value()).collect();
        if let Some(planted) = planted.filter(|_| index + 1 == LENGTHS.len()) {
            values[length / 2] = planted;
        }
        let values = Values::new(value_type, values);
        let placed = values.place(machine, offset)?;
        let subtracted =
            if index % 2 == 1 { Some(random.operand(machine, value_type, (length, 1.0, offset))?) } else { None };
        tensors.push((values.wide, placed, subtracted));
    }
    let magnitudes: Vec<_> = tensors
        .iter()
        .map(|(_, values, subtracted)| Magnitudes {
            values: values.span(),
            subtracted: subtracted.as_ref().map(|subtracted| subtracted.1.span()),
        })
        .collect();
    let together = sums(machine, value_type, &magnitudes)?;
    let mut worst = 0.0f64;
    for (((values, _, subtracted), magnitudes), found) in tensors.iter().zip(&magnitudes).zip(&together) {
        let minus = |index: usize| subtracted.as_ref().map_or(0.0, |subtracted| subtracted.0[index]);
        let differences =
            values.iter().enumerate().map(|(index, value)| rounded(value_type, value - minus(index)).abs());
        let defined: f64 = differences.sum();
        let total: f64 = found.iter().sum();
        let same = total == defined || (total.is_nan() && defined.is_nan());
        let difference = if same { 0.0 } else { (total - defined).abs() / (1e-5 * (1.0 + defined)) };
        // The same bits whatever else is in the launch.
        let alone = sums(machine, value_type, std::slice::from_ref(magnitudes))?.concat();
        let is_equal = alone.iter().zip(found).all(|(alone, found)| alone.to_bits() == found.to_bits());
        worst = if difference.is_nan() || !is_equal { f64::NAN } else { worst.max(difference) };
        if worst.is_nan() {
            return Ok(worst);
        }
    }
    Ok(worst)
}

/// The sums of the parts of each tensor.
fn sums<M: Machine>(
    machine: &M,
    value_type: ValueType,
    tensors: &[Magnitudes<'_>],
) -> Result<Vec<Vec<f64>>, KernelError> {
    let parts: Vec<_> = tensors.iter().map(|tensor| Reduction::parts(tensor.values.length())).collect();
    let output = Placed::output(machine, ValueType::F32, parts.iter().sum(), 0)?;
    machine.launch(&Reduction { value_type, tensors, sums: output.span() }.launch()?)?;
    let mut sums = output.read(machine)?.into_iter();
    Ok(parts.into_iter().map(|parts| sums.by_ref().take(parts).collect()).collect())
}
