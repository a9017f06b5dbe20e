//! Group norm (arXiv 1803.08494) and the SiLU after it, in two halves: what a part of a feature map
//! contributes to the statistics of its groups, and the norm with known statistics. A feature map can thus be
//! normalised stripe by stripe with the statistics of the whole.

use rayon::prelude::*;

use crate::functions::Functions;
use crate::map::map;
use crate::simd::{Kernel, Simd, dispatch};

/// Sums are kept in as many lanes, so that the compiler can vectorise them.
const LANES: usize = 16;

/// Sums over some values, in f64: they are added up over a whole feature map.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Sums {
    /// Of the values.
    pub values: f64,
    /// Of their squares.
    pub squares: f64,
}

/// The sums of each of `groups` equal parts of `values`.
///
/// # Panics
/// If the parts are not equal.
pub fn group_sums(values: &[f32], groups: usize) -> Vec<Sums> {
    assert!(groups > 0 && values.len().is_multiple_of(groups), "{} values in {groups} groups", values.len());
    match values.len() / groups {
        0 => vec![Sums::default(); groups],
        length => values.par_chunks_exact(length).map(|values| dispatch(SumsOf(values))).collect(),
    }
}

/// Ordinary code, compiled for the widest registers.
struct SumsOf<'a>(&'a [f32]);

impl Kernel for SumsOf<'_> {
    type Output = Sums;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Sums {
        sums(self.0)
    }
}

#[inline(always)]
fn sums(values: &[f32]) -> Sums {
    let (mut sum, mut squares) = ([0f64; LANES], [0f64; LANES]);
    let mut chunks = values.chunks_exact(LANES);
    for chunk in &mut chunks {
        for lane in 0..LANES {
            let value = f64::from(chunk[lane]);
            sum[lane] += value;
            squares[lane] += value * value;
        }
    }
    for (lane, value) in chunks.remainder().iter().enumerate() {
        let value = f64::from(*value);
        sum[lane] += value;
        squares[lane] += value * value;
    }
    Sums { values: sum.iter().sum(), squares: squares.iter().sum() }
}

/// The norm of some pixels of every channel `c`, and SiLU: `y / (1 + exp(-y))` of
/// `y = scale[c] * x + shift[c]`. Channel `c` of the input begins at `c * stride`; `output` is
/// `[channels, pixels]`.
///
/// # Panics
/// If there are not as many shifts as scales, the output is not equal parts of as many channels, or the
/// input ends before the last channel's pixels.
pub fn scale_shift_silu(input: &[f32], stride: usize, scale: &[f32], shift: &[f32], output: &mut [f32]) {
    assert_eq!(scale.len(), shift.len(), "scales and shifts");
    assert!(output.len().is_multiple_of(scale.len().max(1)), "{} values of {} channels", output.len(), scale.len());
    let pixels = output.len() / scale.len().max(1);
    if pixels == 0 {
        return;
    }
    output.par_chunks_exact_mut(pixels).enumerate().for_each(|(channel, output)| {
        let input = &input[channel * stride..][..pixels];
        dispatch(MoveAndActivate { input, output, scale: scale[channel], shift: shift[channel] });
    });
}

/// The pixels of one channel.
struct MoveAndActivate<'a> {
    input: &'a [f32],
    output: &'a mut [f32],
    scale: f32,
    shift: f32,
}

impl Kernel for MoveAndActivate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (scale, shift) = (simd.splat(self.scale), simd.splat(self.shift));
        map(simd, self.input, self.output, |simd, x, _| {
            let y = simd.mul_add(x, scale, shift);
            simd.silu_of(y, y)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::{Isa, dispatch_on};

    fn values(length: usize) -> Vec<f32> {
        (0..length).map(|index| (index as f32 * 0.731).sin() * 20.0).collect()
    }

    #[test]
    fn sums_are_those_of_each_group() {
        let values = values(3 * 37);
        for (group, found) in group_sums(&values, 3).into_iter().enumerate() {
            let group: Vec<f64> = values[group * 37..][..37].iter().map(|value| f64::from(*value)).collect();
            assert!((found.values - group.iter().sum::<f64>()).abs() < 1e-9);
            assert!((found.squares - group.iter().map(|value| value * value).sum::<f64>()).abs() < 1e-9);
        }
        assert_eq!(group_sums(&[], 2), [Sums::default(); 2]);
    }

    #[test]
    fn channels_are_moved_and_activated() {
        let (scale, shift) = ([2.0, -0.5], [0.25, 1.0]);
        let values = values(2 * 100);
        for isa in Isa::tested() {
            let mut output = vec![f32::NAN; 200];
            for (channel, (input, output)) in values.chunks(100).zip(output.chunks_mut(100)).enumerate() {
                dispatch_on(isa, MoveAndActivate { input, output, scale: scale[channel], shift: shift[channel] });
            }
            for (index, (value, found)) in values.iter().zip(output).enumerate() {
                let y = f64::from(*value) * f64::from(scale[index / 100]) + f64::from(shift[index / 100]);
                let expected = y / (1.0 + (-y).exp());
                // Rounding of y moves the exponential by that much of itself.
                assert!((f64::from(found) - expected).abs() <= 1e-5 * (1.0 + expected.abs()), "{found}, {expected}");
            }
        }
        scale_shift_silu(&[], 0, &scale, &shift, &mut []);
    }

    #[test]
    fn some_pixels_of_every_channel_are_taken() {
        let (values, mut output) = (values(3 * 50), [f32::NAN; 3 * 20]);
        scale_shift_silu(&values[7..], 50, &[1.0; 3], &[0.0; 3], &mut output);
        for (index, found) in output.iter().enumerate() {
            let x = values[7 + index / 20 * 50 + index % 20];
            assert!((found - x / (1.0 + (-x).exp())).abs() < 1e-5, "{index}: {found} for {x}");
        }
    }

    #[test]
    fn nan_stays_nan() {
        let mut output = [0.0; 2];
        scale_shift_silu(&[f32::NAN, 1.0], 2, &[1.0], &[0.0], &mut output);
        assert!(output[0].is_nan() && output[1] > 0.73);
    }
}
