//! Cases of layer norms.

use super::report::Report;
use super::values::{Placed, Random};
use crate::error::KernelError;
use crate::layer_norm::{LayerNorm, Modulation};
use crate::machine::Machine;
use crate::value_type::ValueType;

const EPS: f32 = 1e-6;

#[derive(Debug, Clone, Copy)]
struct Case {
    value_type: ValueType,
    rows: usize,
    size: usize,
    is_affine: bool,
    /// Rows that share a modulation, and what lies between two of them beside their size.
    modulation: Option<(usize, usize)>,
    /// Values that operands are away from an aligned place.
    offset: usize,
}

pub(super) fn check<M: Machine>(machine: &M) -> Report {
    let mut report = Report::new("layer_norm");
    for value_type in ValueType::ALL {
        // Those of models, and edges: of an access, of a warp, of what a block holds.
        for size in [1, 5, 8, 31, 64, 257, 768, 1152, 1536, 2432, 3072, 4096, 8192, 8200] {
            for (is_affine, modulation) in
                [(false, None), (true, None), (false, Some((2, 0))), (false, Some((3, 8))), (true, Some((1, 5)))]
            {
                let case = Case { value_type, rows: 5, size, is_affine, modulation, offset: 0 };
                report.add(&case, run(machine, case));
            }
        }
        for (rows, offset) in [(0, 0), (1, 0), (4, 1), (4, 3), (4, 8)] {
            let case = Case { value_type, rows, size: 96, is_affine: true, modulation: Some((2, 8)), offset };
            report.add(&case, run(machine, case));
        }
    }
    report
}

fn run<M: Machine>(machine: &M, case: Case) -> Result<f64, KernelError> {
    let Case { value_type, rows, size, is_affine, modulation, offset } = case;
    let mut random = Random::new(size as u64);
    let mut operand = |count, spread| random.operand(machine, value_type, (count, spread, offset));
    let x = operand(rows * size, 2.0)?;
    let [weight, bias] = [operand(size, 1.0)?, operand(size, 1.0)?];
    let (tokens, between) = modulation.unwrap_or((1, 0));
    let stride = size + between;
    let [scale, shift] = [operand(rows.div_ceil(tokens) * stride, 1.0)?, operand(rows.div_ceil(tokens) * stride, 1.0)?];
    let output = Placed::output(machine, value_type, rows * size, offset)?;
    let norm = LayerNorm {
        value_type,
        rows,
        size,
        eps: EPS,
        x: x.1.span(),
        affine: is_affine.then_some((weight.1.span(), bias.1.span())),
        modulation: modulation.map(|_| Modulation { scale: scale.1.span(), shift: shift.1.span(), stride, tokens }),
        output: output.span(),
    };
    machine.launch(&norm.launch()?)?;
    let mut defined = Vec::new();
    for (row, x) in x.0.chunks(size).enumerate() {
        let mean = x.iter().sum::<f64>() / size as f64;
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / size as f64;
        for (index, x) in x.iter().enumerate() {
            let mut value = (x - mean) / (variance + f64::from(EPS)).sqrt();
            if is_affine {
                value = value * weight.0[index] + bias.0[index];
            }
            if modulation.is_some() {
                let place = row / tokens * stride + index;
                value = value * (1.0 + scale.0[place]) + shift.0[place];
            }
            defined.push(value);
        }
    }
    output.difference(machine, &defined, 1.0)
}
