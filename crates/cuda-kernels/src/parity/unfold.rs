//! Cases of the neighbourhoods of convolutions.

use std::ops::Range;

use super::report::Report;
use super::values::{Placed, Random, Values};
use crate::error::KernelError;
use crate::machine::Machine;
use crate::unfold::Unfold;
use crate::value_type::ValueType;

#[derive(Debug, Clone)]
struct Case {
    value_type: ValueType,
    channels: usize,
    height: usize,
    width: usize,
    is_doubled: bool,
    lines: Range<usize>,
    /// Values between two channels that belong to neither.
    between: usize,
}

pub(super) fn check<M: Machine>(machine: &M) -> Report {
    let mut report = Report::new("unfold");
    for value_type in ValueType::ALL {
        for is_doubled in [false, true] {
            for (channels, height, width) in [(1, 1, 1), (3, 5, 7), (2, 6, 8), (5, 3, 32), (1, 40, 24)] {
                let seen = height << u32::from(is_doubled);
                for lines in [0..seen, 0..1, seen - 1..seen, seen / 2..seen] {
                    for between in [0, 3] {
                        let lines = lines.clone();
                        let case = Case { value_type, channels, height, width, is_doubled, lines, between };
                        report.add(&case, run(machine, &case));
                    }
                }
            }
        }
    }
    report
}

fn run<M: Machine>(machine: &M, case: &Case) -> Result<f64, KernelError> {
    let Case { value_type, channels, height, width, is_doubled, ref lines, between } = *case;
    let channel_stride = height * width + between;
    let mut random = Random::new((channels * height * width) as u64);
    let x = Values::random(value_type, channels * channel_stride, 2.0, &mut random);
    let placed = x.place(machine, 0)?;
    let doubling = u32::from(is_doubled);
    let (seen_height, seen_width) = (height << doubling, width << doubling);
    let pixels = lines.len() * seen_width;
    let output = Placed::output(machine, value_type, Unfold::rows(channels) * pixels, 0)?;
    let unfold = Unfold {
        value_type,
        x: placed.span(),
        shape: (channels, height, width),
        channel_stride,
        is_doubled,
        lines: lines.clone(),
        output: output.span(),
    };
    machine.launch(&unfold.launch()?)?;
    let mut defined = Vec::new();
    for channel in 0..channels {
        for (down, across) in (0..9).map(|tap| (tap / 3, tap % 3)) {
            for (line, column) in lines.clone().flat_map(|line| (0..seen_width).map(move |column| (line, column))) {
                // One more than the place that is meant.
                let (y, x_place) = (line + down, column + across);
                let is_inside = (1..=seen_height).contains(&y) && (1..=seen_width).contains(&x_place);
                let place = || channel * channel_stride + ((y - 1) >> doubling) * width + ((x_place - 1) >> doubling);
                defined.push(if is_inside { x.wide[place()] } else { 0.0 });
            }
        }
    }
    let extra = (0..Unfold::EXTRA_ROWS).flat_map(|row| std::iter::repeat_n(if row == 0 { 1.0 } else { 0.0 }, pixels));
    defined.extend(extra);
    output.difference(machine, &defined, 1.0)
}
