//! Group norm (arXiv 1803.08494) and the SiLU after it, in two halves: what a part of a feature map
//! contributes to the statistics of its groups, and the norm with known statistics. A feature map can thus be
//! normalised stripe by stripe with the statistics of the whole.

use std::mem::MaybeUninit;

use rayon::prelude::*;

use crate::functions::Functions;
use crate::gemm::Value;
use crate::map::At;
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

/// Some pixels of every channel of a feature map.
#[derive(Debug, Clone, Copy)]
pub struct Channels<'a> {
    /// The values, from the first channel's first of these pixels on.
    pub values: &'a [f32],
    /// From one channel to the next.
    pub stride: usize,
    /// How many channels.
    pub count: usize,
    /// Of each channel.
    pub pixels: usize,
}

impl<'a> Channels<'a> {
    /// # Panics
    /// If the values end before the last channel's pixels, or channels overlap.
    fn check(&self) {
        let Self { values, stride, count, pixels } = *self;
        let length = count.saturating_sub(1) * stride + pixels;
        assert!(count == 0 || pixels <= stride && length <= values.len(), "length of the channels");
    }

    fn channel(&self, index: usize) -> &'a [f32] {
        &self.values[index * self.stride..][..self.pixels]
    }
}

/// The sums of each of `groups` groups of channels.
///
/// # Panics
/// If the groups are not equal, the values end before the last channel's pixels, or channels overlap.
pub fn group_sums(map: Channels<'_>, groups: usize) -> Vec<Sums> {
    map.check();
    let Channels { values, stride, count, pixels } = map;
    assert!(groups > 0 && count.is_multiple_of(groups), "{count} channels in {groups} groups");
    let channels = count / groups;
    let of_group = |group: usize| {
        let first = group * channels;
        if pixels == stride {
            return dispatch(SumsOf(&values[first * stride..][..channels * pixels]));
        }
        let parts = (first..first + channels).map(|channel| dispatch(SumsOf(map.channel(channel))));
        parts.fold(Sums::default(), |a, b| Sums { values: a.values + b.values, squares: a.squares + b.squares })
    };
    (0..groups).into_par_iter().map(of_group).collect()
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

/// As [`scale_shift_silu`](crate::scale_shift_silu); writes all of `output`.
pub(crate) fn scale_shift_silu<T: Value>(
    map: Channels<'_>,
    scale: &[f32],
    shift: &[f32],
    output: &mut [MaybeUninit<T>],
) {
    map.check();
    assert!(scale.len() == map.count && shift.len() == map.count, "scales and shifts");
    assert_eq!(output.len(), map.count * map.pixels, "length of the output");
    output.par_chunks_exact_mut(map.pixels.max(1)).enumerate().for_each(|(channel, output)| {
        dispatch(MoveAndActivate { input: map.channel(channel), output, scale: scale[channel], shift: shift[channel] });
    });
}

/// The pixels of one channel.
struct MoveAndActivate<'a, T> {
    input: &'a [f32],
    output: &'a mut [MaybeUninit<T>],
    scale: f32,
    shift: f32,
}

impl<T: Value> Kernel for MoveAndActivate<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let (scale, shift) = (simd.splat(self.scale), simd.splat(self.shift));
        assert_eq!(self.input.len(), self.output.len(), "pixels of a channel");
        for at in At::all::<S>(self.input.len()) {
            let y = simd.mul_add(at.load(simd, self.input), scale, shift);
            at.store_first(simd, simd.silu_of(y, y), self.output);
        }
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::simd::{Isa, dispatch_on};

    fn values(length: usize) -> Vec<f32> {
        (0..length).map(|index| (index as f32 * 0.731).sin() * 20.0).collect()
    }

    #[test]
    fn sums_are_those_of_each_group() {
        let values = values(6 * 37);
        for (first, pixels) in [(0, 37), (5, 23), (0, 1)] {
            let map = Channels { values: &values[first..], stride: 37, count: 6, pixels };
            for (group, found) in group_sums(map, 3).into_iter().enumerate() {
                let of_channel = |channel: usize| &values[channel * 37 + first..][..pixels];
                let group = (2 * group..2 * group + 2).flat_map(of_channel).map(|value| f64::from(*value));
                assert!((found.values - group.clone().sum::<f64>()).abs() < 1e-9);
                assert!((found.squares - group.map(|value| value * value).sum::<f64>()).abs() < 1e-9);
            }
        }
        let empty = Channels { values: &[], stride: 0, count: 4, pixels: 0 };
        assert_eq!(group_sums(empty, 2), [Sums::default(); 2]);
    }

    #[test]
    fn channels_are_moved_and_activated() {
        let (scale, shift) = ([2.0, -0.5], [0.25, 1.0]);
        let values = values(2 * 100);
        for isa in Isa::tested() {
            let mut output = vec![MaybeUninit::new(f32::NAN); 200];
            for (channel, (input, output)) in values.chunks(100).zip(output.chunks_mut(100)).enumerate() {
                dispatch_on(isa, MoveAndActivate { input, output, scale: scale[channel], shift: shift[channel] });
            }
            // SAFETY: all of them were written, with NaN at least.
            let output = output.into_iter().map(|value| unsafe { value.assume_init() });
            for (index, (value, found)) in values.iter().zip(output).enumerate() {
                let y = f64::from(*value) * f64::from(scale[index / 100]) + f64::from(shift[index / 100]);
                let expected = y / (1.0 + (-y).exp());
                // Rounding of y moves the exponential by that much of itself.
                assert!((f64::from(found) - expected).abs() <= 1e-5 * (1.0 + expected.abs()), "{found}, {expected}");
            }
        }
        let empty = Channels { values: &[], stride: 0, count: 2, pixels: 0 };
        assert!(crate::scale_shift_silu::<f32>(empty, &scale, &shift).is_empty());
    }

    #[test]
    fn some_pixels_of_every_channel_are_taken() {
        let values = values(3 * 50);
        let map = Channels { values: &values[7..], stride: 50, count: 3, pixels: 20 };
        let output = crate::scale_shift_silu::<f32>(map, &[1.0; 3], &[0.0; 3]);
        let narrow = crate::scale_shift_silu::<bf16>(map, &[1.0; 3], &[0.0; 3]);
        assert_eq!((output.len(), narrow.len()), (60, 60));
        for (index, (found, narrow)) in output.iter().zip(narrow).enumerate() {
            let x = values[7 + index / 20 * 50 + index % 20];
            assert!((found - x / (1.0 + (-x).exp())).abs() < 1e-5, "{index}: {found} for {x}");
            assert_eq!(narrow, bf16::from_f32(*found));
        }
    }

    #[test]
    fn nan_stays_nan() {
        let map = Channels { values: &[f32::NAN, 1.0], stride: 2, count: 1, pixels: 2 };
        let output = crate::scale_shift_silu::<f32>(map, &[1.0], &[0.0]);
        assert!(output[0].is_nan() && output[1] > 0.73);
    }
}
