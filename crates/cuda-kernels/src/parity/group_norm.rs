//! Cases of both halves of group norms.

use super::functions::activated;
use super::report::Report;
use super::values::{Placed, Random, Values};
use crate::activation::Activation;
use crate::error::KernelError;
use crate::group_norm::{GroupMoments, ScaleShift};
use crate::machine::Machine;
use crate::value_type::ValueType;

const GROUPS: usize = 3;
const CHANNELS: usize = 3;

#[derive(Debug, Clone, Copy)]
struct Moments {
    value_type: ValueType,
    length: usize,
    offset: usize,
}

pub(super) fn check_moments<M: Machine>(machine: &M) -> Report {
    let mut report = Report::new("group_moments");
    for value_type in ValueType::ALL {
        for (length, offset) in
            [(1, 0), (7, 0), (40, 0), (8192, 0), (8193, 0), (8200, 0), (20_000, 0), (320, 1), (320, 8)]
        {
            let case = Moments { value_type, length, offset };
            report.add(&case, run_moments(machine, case));
        }
    }
    report
}

fn run_moments<M: Machine>(machine: &M, Moments { value_type, length, offset }: Moments) -> Result<f64, KernelError> {
    let mut random = Random::new(length as u64);
    // Away from 0, where squares of the values themselves would lose digits.
    let x = Values::new(value_type, (0..GROUPS * length).map(|_| random.value() + 8.0));
    let placed = x.place(machine, offset)?;
    let parts = GroupMoments::parts(length);
    let moments = Placed::output(machine, ValueType::F32, GROUPS * parts.len() * 2, 0)?;
    let launch =
        GroupMoments { value_type, groups: GROUPS, length, x: placed.span(), moments: moments.span() }.launch()?;
    machine.launch(&launch)?;
    let mut defined = Vec::new();
    for group in x.wide.chunks(length) {
        let mut rest = group;
        for part in parts.clone() {
            let (values, others) = rest.split_at(part);
            let mean = values.iter().sum::<f64>() / part as f64;
            defined.extend([mean, values.iter().map(|value| (value - mean).powi(2)).sum()]);
            rest = others;
        }
    }
    moments.difference(machine, &defined, 1.0)
}

#[derive(Debug, Clone, Copy)]
struct Channels {
    value_type: ValueType,
    pixels: usize,
    /// Values between two channels.
    between: usize,
    activation: Option<Activation>,
    offset: usize,
}

pub(super) fn check_scale_shift<M: Machine>(machine: &M) -> Report {
    let mut report = Report::new("scale_shift");
    for value_type in ValueType::ALL {
        for pixels in [1, 7, 64, 1000, 4096] {
            for (between, activation) in
                [(0, None), (0, Some(Activation::Silu)), (8, Some(Activation::Silu)), (3, None)]
            {
                let case = Channels { value_type, pixels, between, activation, offset: 0 };
                report.add(&case, run_scale_shift(machine, case));
            }
        }
        for offset in [1, 8] {
            let case = Channels { value_type, pixels: 80, between: 16, activation: None, offset };
            report.add(&case, run_scale_shift(machine, case));
        }
    }
    report
}

fn run_scale_shift<M: Machine>(machine: &M, case: Channels) -> Result<f64, KernelError> {
    let Channels { value_type, pixels, between, activation, offset } = case;
    let stride = pixels + between;
    let mut random = Random::new(pixels as u64);
    let x = random.operand(machine, value_type, (CHANNELS * stride, 3.0, offset))?;
    let scale = random.operand(machine, ValueType::F32, (CHANNELS, 2.0, 0))?;
    let shift = random.operand(machine, ValueType::F32, (CHANNELS, 1.0, 0))?;
    let output = Placed::output(machine, value_type, CHANNELS * pixels, offset)?;
    let change = ScaleShift {
        value_type,
        channels: CHANNELS,
        pixels,
        x: x.1.span(),
        stride,
        scale: scale.1.span(),
        shift: shift.1.span(),
        activation,
        output: output.span(),
    };
    machine.launch(&change.launch()?)?;
    let defined = (0..CHANNELS * pixels).map(|place| {
        let (channel, pixel) = (place / pixels, place % pixels);
        activated(activation, scale.0[channel] * x.0[channel * stride + pixel] + shift.0[channel])
    });
    output.difference(machine, &defined.collect::<Vec<_>>(), 1.0)
}
