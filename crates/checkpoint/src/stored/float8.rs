//! fp8: floats of eight bits, and the scales that they are multiplied with.
//!
//! E4M3 without infinities (PyTorch's `float8_e4m3fn`) and E5M2 of "FP8 Formats for Deep Learning" (arXiv 2209.05433).
//! There are 256 of each, so widening one is a look into a table.

use std::fmt;
use std::ops::Range;

/// A format of eight bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Float8 {
    /// 4 bits of exponent, 3 of mantissa: up to 448, no infinities, and one NaN of each sign.
    E4M3,
    /// 5 bits of exponent, 2 of mantissa: the upper half of an f16.
    E5M2,
}

static E4M3_VALUES: [f32; 256] = Float8::E4M3.table();
static E5M2_VALUES: [f32; 256] = Float8::E5M2.table();

impl Float8 {
    /// The number that each byte stands for.
    pub fn values(self) -> &'static [f32; 256] {
        match self {
            Self::E4M3 => &E4M3_VALUES,
            Self::E5M2 => &E5M2_VALUES,
        }
    }

    const fn table(self) -> [f32; 256] {
        let mut values = [0.0; 256];
        let mut byte = 0;
        while byte < 128 {
            let magnitude = self.magnitude(byte as u32);
            values[byte] = magnitude;
            values[byte + 128] = -magnitude;
            byte += 1;
        }
        values
    }

    /// The number of the seven bits after the sign.
    const fn magnitude(self, bits: u32) -> f32 {
        let (mantissa_bits, bias) = match self {
            Self::E4M3 => (3, 7),
            Self::E5M2 => (2, 15),
        };
        let exponent = bits >> mantissa_bits;
        let mantissa = bits & ((1 << mantissa_bits) - 1);
        match self {
            Self::E4M3 if bits == 0x7f => f32::NAN,
            Self::E5M2 if exponent == 0x1f && mantissa == 0 => f32::INFINITY,
            Self::E5M2 if exponent == 0x1f => f32::NAN,
            // Subnormal: the mantissa counts steps of the smallest number.
            _ if exponent == 0 => mantissa as f32 * power_of_two(1 - bias - mantissa_bits),
            _ => power_of_two(exponent as i32 - bias) * (1.0 + mantissa as f32 * power_of_two(-mantissa_bits)),
        }
    }
}

/// 2 to a power that an f32 has.
const fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((exponent + 127) as u32) << 23)
}

impl fmt::Display for Float8 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // As in the headers of safetensors files.
        f.write_str(match self {
            Self::E4M3 => "F8_E4M3",
            Self::E5M2 => "F8_E5M2",
        })
    }
}

/// What the numbers of a tensor are multiplied with.
#[derive(Debug, Clone, PartialEq)]
pub enum Scale {
    /// All with one.
    Tensor(f32),
    /// Each row with its own.
    Rows(Vec<f32>),
}

impl Scale {
    /// Of numbers that are as they are stored.
    pub(crate) const ONE: Self = Self::Tensor(1.0);

    fn of(&self, row: usize) -> f32 {
        match self {
            Self::Tensor(scale) => *scale,
            Self::Rows(scales) => scales[row],
        }
    }

    /// Of some rows alone.
    pub(crate) fn rows(&self, rows: Range<usize>) -> Self {
        match self {
            Self::Tensor(scale) => Self::Tensor(*scale),
            Self::Rows(scales) => Self::Rows(scales[rows].to_vec()),
        }
    }

    /// Of tensors one after the other, of which the rows are given.
    pub(crate) fn joined<'a>(parts: impl Iterator<Item = (&'a Self, usize)> + Clone) -> Self {
        let first = parts.clone().next().map_or(&Self::ONE, |(scale, _)| scale);
        match first {
            Self::Tensor(_) if parts.clone().all(|(scale, _)| scale == first) => first.clone(),
            _ => Self::Rows(parts.flat_map(|(scale, rows)| (0..rows).map(|row| scale.of(row))).collect()),
        }
    }

    /// Multiplies values, rows of the given length.
    pub(crate) fn multiply(&self, values: &mut [f32], row_length: usize) {
        if *self != Self::ONE {
            for (row, values) in values.chunks_exact_mut(row_length.max(1)).enumerate() {
                let scale = self.of(row);
                values.iter_mut().for_each(|value| *value *= scale);
            }
        }
    }
}

/// Rows of fp8 numbers.
#[derive(Debug)]
pub struct Float8Rows {
    format: Float8,
    bytes: Vec<u8>,
    scale: Scale,
    columns: usize,
}

impl Float8Rows {
    /// Of numbers row by row, and a scale of as many rows.
    pub fn new(format: Float8, bytes: Vec<u8>, scale: Scale, columns: usize) -> Self {
        Self { format, bytes, scale, columns }
    }

    /// What the numbers are.
    pub fn format(&self) -> Float8 {
        self.format
    }

    /// A byte for each number, row by row.
    pub fn numbers(&self) -> &[u8] {
        &self.bytes
    }

    /// What they are multiplied with.
    pub fn scale(&self) -> &Scale {
        &self.scale
    }

    /// Numbers in a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Bytes that numbers and scales take.
    pub fn bytes(&self) -> usize {
        let scales = match &self.scale {
            Scale::Tensor(scale) => size_of_val(scale),
            Scale::Rows(scales) => size_of_val::<[f32]>(scales),
        };
        self.bytes.len() + scales
    }

    /// Writes some rows, one after the other.
    pub fn widen(&self, rows: Range<usize>, values: &mut [f32]) {
        let table = self.format.values();
        let columns = self.columns.max(1);
        let stored = self.bytes[rows.start * self.columns..].chunks_exact(columns);
        for ((row, values), stored) in rows.zip(values.chunks_exact_mut(columns)).zip(stored) {
            let scale = self.scale.of(row);
            values.iter_mut().zip(stored).for_each(|(value, byte)| *value = table[usize::from(*byte)] * scale);
        }
    }
}

#[cfg(test)]
mod tests {
    use half::f16;

    use super::*;

    #[test]
    fn e5m2_is_the_upper_half_of_f16() {
        for (byte, value) in Float8::E5M2.values().iter().enumerate() {
            let expected = f16::from_bits((byte as u16) << 8).to_f32();
            assert!(value.to_bits() == expected.to_bits() || value.is_nan() && expected.is_nan(), "{byte:#04x}");
        }
    }

    #[test]
    fn e4m3_has_one_nan_of_each_sign_and_nothing_beyond_448() {
        let values = Float8::E4M3.values();
        let of = |byte: usize| values[byte];
        assert_eq!([of(0x01), of(0x07), of(0x08), of(0x38)], [0.001953125, 0.013671875, 0.015625, 1.0]);
        assert_eq!([of(0x7e), of(0xfe), of(0xb8)], [448.0, -448.0, -1.0]);
        assert!(of(0x80) == 0.0 && of(0x80).is_sign_negative());
        let nans: Vec<_> = (0..256).filter(|byte| of(*byte).is_nan()).collect();
        assert_eq!(nans, [0x7f, 0xff]);
        assert!(values.iter().all(|value| !value.is_infinite()));
        assert!(values[..0x7f].is_sorted(), "larger bytes are larger numbers");
    }

    #[test]
    fn rows_have_scales_of_their_own() {
        // 1, 2, -1 and 0.5 in E4M3.
        let bytes = vec![0x38, 0x40, 0xb8, 0x30];
        let rows = Float8Rows::new(Float8::E4M3, bytes, Scale::Rows(vec![3.0, 0.5]), 2);
        let mut values = [0.0; 4];
        rows.widen(0..2, &mut values);
        assert_eq!(values, [3.0, 6.0, -0.5, 0.25]);
        rows.widen(1..2, &mut values[..2]);
        assert_eq!(values[..2], [-0.5, 0.25]);
        assert_eq!(rows.bytes(), 4 + 8);
    }

    #[test]
    fn scales_of_parts_are_joined() {
        let (one, rows) = (Scale::Tensor(2.0), Scale::Rows(vec![3.0, 4.0]));
        let joined = |parts: &[(&Scale, usize)]| Scale::joined(parts.iter().copied());
        assert_eq!(joined(&[(&one, 5), (&one, 1)]), one);
        assert_eq!(joined(&[(&rows, 2), (&one, 2)]), Scale::Rows(vec![3.0, 4.0, 2.0, 2.0]));
        assert_eq!(rows.rows(1..2), Scale::Rows(vec![4.0]));
    }
}
