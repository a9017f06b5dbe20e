//! Cases of widened fp8. Nothing is left to rounding: values are those of the definition, to the last bit.

use super::report::Report;
use super::values::{Placed, Random, Values, rounded};
use crate::error::KernelError;
use crate::float8::{Float8Format, Float8Scale, WidenFloat8};
use crate::launch::Span;
use crate::machine::{Machine, MemoryOf};
use crate::value_type::ValueType;

#[derive(Debug, Clone, Copy)]
struct Case {
    value_type: ValueType,
    format: Float8Format,
    rows: usize,
    columns: usize,
    has_scales: bool,
    /// Of numbers and of the output.
    offsets: (usize, usize),
}

pub(super) fn check<M: Machine>(machine: &M) -> Report {
    let mut report = Report::new("widened fp8");
    for value_type in ValueType::ALL {
        for format in [Float8Format::E4M3, Float8Format::E5M2] {
            for has_scales in [false, true] {
                for (rows, columns) in
                    [(0, 8), (3, 0), (1, 1), (1, 256), (16, 16), (33, 8), (7, 5), (2, 1027), (5, 4104)]
                {
                    for offsets in [(0, 0), (3, 0), (0, 1)] {
                        let case = Case { value_type, format, rows, columns, has_scales, offsets };
                        report.add(&case, run(machine, case));
                    }
                }
            }
        }
    }
    report
}

fn run<M: Machine>(machine: &M, case: Case) -> Result<f64, KernelError> {
    let Case { value_type, format, rows, columns, has_scales, offsets } = case;
    let mut random = Random::new((31 * rows + columns) as u64);
    // All codes one after the other, those of subnormal numbers, infinities and what is no number among them.
    let bytes: Vec<u8> = (0..offsets.0 + rows * columns).map(|place| place as u8).collect();
    let numbers = machine.upload(&bytes)?;
    // SAFETY: the memory is as long and lives as long, and a case launches one kernel, and waits for it.
    let span = unsafe { Span::new(numbers.address() + offsets.0 as u64, rows * columns) };
    let scale = 0.037;
    let scales = Values::random(ValueType::F32, rows, 3.0, &mut random);
    let placed = scales.place(machine, 0)?;
    let output = Placed::output(machine, value_type, rows * columns, offsets.1)?;
    let widen = WidenFloat8 {
        value_type,
        format,
        rows,
        columns,
        numbers: span,
        scale: if has_scales { Float8Scale::Rows(placed.span()) } else { Float8Scale::One(scale) },
        output: output.span(),
    };
    machine.launch(&widen.launch()?)?;
    let found = output.read(machine)?;
    let is_as_defined = found.iter().zip(&bytes[offsets.0..]).enumerate().all(|(place, (found, byte))| {
        let scale = if has_scales { scales.wide[place / columns] } else { f64::from(scale) };
        let defined = rounded(value_type, f64::from((number_of(format, *byte) * scale) as f32));
        *found == defined || (found.is_nan() && defined.is_nan())
    });
    Ok(if is_as_defined && found.len() == rows * columns { 0.0 } else { f64::INFINITY })
}

/// What a byte stands for, by the formats' definition (arXiv 2209.05433, table 1).
fn number_of(format: Float8Format, byte: u8) -> f64 {
    let (mantissa_bits, bias, largest) = match format {
        Float8Format::E4M3 => (3, 7, 0x7e),
        Float8Format::E5M2 => (2, 15, 0x7b),
    };
    let magnitude = byte & 0x7f;
    let (exponent, mantissa) =
        (i32::from(magnitude >> mantissa_bits), f64::from(magnitude & ((1 << mantissa_bits) - 1)));
    let steps = f64::from(1u8 << mantissa_bits);
    let value = match exponent {
        _ if magnitude > largest && format == Float8Format::E5M2 && mantissa == 0.0 => f64::INFINITY,
        _ if magnitude > largest => f64::NAN,
        0 => mantissa / steps * 2f64.powi(1 - bias),
        _ => (1.0 + mantissa / steps) * 2f64.powi(exponent - bias),
    };
    if byte >= 0x80 { -value } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_has_the_published_values() {
        let of = |format| move |byte| number_of(format, byte);
        assert_eq!(
            [0x7e, 0x08, 0x07, 0x01, 0xb8].map(of(Float8Format::E4M3)),
            [448.0, 2f64.powi(-6), 0.875 * 2f64.powi(-6), 2f64.powi(-9), -1.0]
        );
        assert_eq!(
            [0x7b, 0x04, 0x03, 0x01, 0xfc].map(of(Float8Format::E5M2)),
            [57344.0, 2f64.powi(-14), 0.75 * 2f64.powi(-14), 2f64.powi(-16), f64::NEG_INFINITY]
        );
        assert!([0x7f, 0xff].map(of(Float8Format::E4M3)).iter().all(|value| value.is_nan()));
        assert!([0x7d, 0x7f, 0xfe].map(of(Float8Format::E5M2)).iter().all(|value| value.is_nan()));
    }
}
