//! Cases of epilogues.

use super::functions::activated;
use super::report::Report;
use super::values::{Placed, Random};
use crate::activation::Activation;
use crate::epilogue::{Epilogue, Gate};
use crate::error::KernelError;
use crate::machine::Machine;
use crate::value_type::ValueType;

#[derive(Debug, Clone, Copy)]
struct Case {
    value_type: ValueType,
    rows: usize,
    outputs: usize,
    /// What lies between two rows of x.
    between: usize,
    has_bias: bool,
    activation: Option<Activation>,
    /// Rows that share factors, what lies between those, and whether the activation is theirs.
    gate: Option<(usize, usize, bool)>,
    has_residual: bool,
    in_place: bool,
    offset: usize,
}

pub(super) fn check<M: Machine>(machine: &M) -> Report {
    let mut report = Report::new("epilogue");
    for value_type in ValueType::ALL {
        let plain = Case {
            value_type,
            rows: 5,
            outputs: 64,
            between: 0,
            has_bias: true,
            activation: None,
            gate: None,
            has_residual: false,
            in_place: true,
            offset: 0,
        };
        let gated = Case { gate: Some((2, 8, false)), has_residual: true, ..plain };
        let mut cases = Vec::new();
        for activation in Activation::ALL.map(Some) {
            cases.push(Case { activation, rows: 3, outputs: 1000, ..plain });
            cases.push(Case { activation, has_bias: false, rows: 1, outputs: 2049, ..plain });
            cases.push(Case { activation, gate: Some((1, 24, true)), in_place: false, between: 40, ..plain });
        }
        for outputs in [1, 3, 8, 12, 72, 1152, 3072] {
            cases.push(Case { outputs, ..gated });
            cases.push(Case { outputs, gate: Some((3, 5, false)), ..gated });
            cases.push(Case { outputs, gate: None, activation: Some(Activation::Silu), ..gated });
            cases.push(Case { outputs, has_bias: false, has_residual: false, in_place: false, ..gated });
        }
        cases.extend([0, 1, 300].map(|rows| Case { rows, ..gated }));
        cases.extend([1, 3, 8].map(|offset| Case { offset, ..gated }));
        for case in cases {
            report.add(&case, run(machine, case));
        }
        for outputs in [1, 8, 20, 24, 256] {
            report.add(&(value_type, outputs), run_of_one_product(machine, value_type, outputs));
        }
    }
    report
}

/// Values and their activated factors side by side in one product, behind others.
fn run_of_one_product<M: Machine>(machine: &M, value_type: ValueType, outputs: usize) -> Result<f64, KernelError> {
    let (rows, stride) = (5, 4 * outputs);
    let product = Random::new(outputs as u64).operand(machine, value_type, (rows * stride, 4.0, 0))?;
    let part = |index: usize| product.1.span().after(index * outputs, value_type);
    let output = Placed::output(machine, value_type, rows * outputs, 0)?;
    let epilogue = Epilogue {
        value_type,
        rows,
        outputs,
        x: part(3),
        x_stride: stride,
        bias: None,
        activation: Some(Activation::Silu),
        gate: Some(Gate { values: part(1), stride, tokens: 1, is_activated: true }),
        residual: None,
        output: output.span(),
    };
    machine.launch(&epilogue.launch()?)?;
    let defined = (0..rows * outputs).map(|place| {
        let row = &product.0[place / outputs * stride..][..stride];
        let (factor, value) = (row[outputs + place % outputs], row[3 * outputs + place % outputs]);
        activated(Some(Activation::Silu), factor) * value
    });
    output.difference(machine, &defined.collect::<Vec<_>>(), 1.0)
}

fn run<M: Machine>(machine: &M, case: Case) -> Result<f64, KernelError> {
    let Case { value_type, rows, outputs, between, offset, .. } = case;
    let mut random = Random::new(outputs as u64);
    let mut operand = |count, spread| random.operand(machine, value_type, (count, spread, offset));
    let x_stride = outputs + between;
    let (tokens, between_gates, is_activated) = case.gate.unwrap_or((1, 0, false));
    let stride = outputs + between_gates;
    let x = operand(rows * x_stride, 6.0)?;
    let [bias, residual] = [operand(outputs, 1.0)?, operand(rows * outputs, 2.0)?];
    let gate = operand(rows.div_ceil(tokens) * stride, 4.0)?;
    let apart = if case.in_place { None } else { Some(Placed::output(machine, value_type, rows * outputs, offset)?) };
    let output = apart.as_ref().unwrap_or(&x.1);
    let epilogue = Epilogue {
        value_type,
        rows,
        outputs,
        x: x.1.span(),
        x_stride,
        bias: case.has_bias.then_some(bias.1.span()),
        activation: case.activation,
        gate: case.gate.map(|_| Gate { values: gate.1.span(), stride, tokens, is_activated }),
        residual: case.has_residual.then_some(residual.1.span()),
        output: output.span(),
    };
    machine.launch(&epilogue.launch()?)?;
    let defined = (0..rows * outputs).map(|place| {
        let (row, column) = (place / outputs, place % outputs);
        let mut value = x.0[row * x_stride + column] + if case.has_bias { bias.0[column] } else { 0.0 };
        let (of_x, of_gate) = if is_activated { (None, case.activation) } else { (case.activation, None) };
        value = activated(of_x, value);
        if case.gate.is_some() {
            value *= activated(of_gate, gate.0[row / tokens * stride + column]);
        }
        let residual = if case.has_residual { residual.0[place] } else { 0.0 };
        (value + residual, value.abs() + residual.abs())
    });
    output.difference_of_terms(machine, &defined.collect::<Vec<_>>(), 1.0)
}
