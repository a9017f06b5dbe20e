//! Convolutions that keep channels apart, over maps whose channels stand side by side.

use rayon::prelude::*;

use crate::simd::{Kernel, Simd, dispatch};

/// Channels that stay in the nearest cache with all of their kernels.
const TILE: usize = 256;

/// A map `[height, width, channels]`, which is 0 beyond its edges.
#[derive(Debug, Clone, Copy)]
pub struct ChannelMap<'a> {
    /// All of its values.
    pub values: &'a [f32],
    /// Lines.
    pub height: usize,
    /// Pixels of a line.
    pub width: usize,
}

/// A kernel for each channel.
#[derive(Debug, Clone, Copy)]
pub struct ChannelKernels<'a> {
    /// `[side * side, channels]`
    pub weights: &'a [f32],
    /// Odd.
    pub side: usize,
    /// One per channel.
    pub bias: Option<&'a [f32]>,
}

/// Convolves every channel by its own kernel; `output` is as large as the map.
///
/// # Panics
/// If kernels, biases, map and output do not have the same channels.
pub fn convolve_channels(kernels: ChannelKernels<'_>, map: ChannelMap<'_>, output: &mut [f32]) {
    let channels = kernels.weights.len() / (kernels.side * kernels.side);
    assert_eq!(kernels.weights.len(), channels * kernels.side * kernels.side, "kernels of {channels} channels");
    assert_eq!(kernels.bias.map_or(channels, <[f32]>::len), channels, "biases");
    assert_eq!(map.values.len(), channels * map.height * map.width, "values of the map");
    assert_eq!(output.len(), map.values.len(), "values of the output");
    if output.is_empty() {
        return;
    }
    output.par_chunks_exact_mut(map.width * channels).enumerate().for_each(|(line, output)| {
        dispatch(Line { kernels, map, channels, line, output });
    });
}

/// A line of the output.
struct Line<'a> {
    kernels: ChannelKernels<'a>,
    map: ChannelMap<'a>,
    channels: usize,
    line: usize,
    output: &'a mut [f32],
}

impl Kernel for Line<'_> {
    type Output = ();

    /// Ordinary code, compiled for the widest registers.
    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        let Self { kernels: ChannelKernels { weights, side, bias }, map, channels, line, output } = self;
        for first in (0..channels).step_by(TILE) {
            let tile = TILE.min(channels - first);
            for (column, pixel) in output.chunks_exact_mut(channels).enumerate() {
                let sums = &mut pixel[first..first + tile];
                match bias {
                    Some(bias) => sums.copy_from_slice(&bias[first..first + tile]),
                    None => sums.fill(0.0),
                }
                for place in 0..side * side {
                    // Wraps around beyond the first line or column.
                    let seen_line = (line + place / side).wrapping_sub(side / 2);
                    let seen_column = (column + place % side).wrapping_sub(side / 2);
                    if seen_line < map.height && seen_column < map.width {
                        let start = (seen_line * map.width + seen_column) * channels + first;
                        add_products(
                            sums,
                            &map.values[start..start + tile],
                            &weights[place * channels + first..][..tile],
                        );
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn add_products(sums: &mut [f32], values: &[f32], weights: &[f32]) {
    for ((sum, value), weight) in sums.iter_mut().zip(values).zip(weights) {
        *sum += value * weight;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_channel_meets_its_own_kernel() {
        let (height, width, channels) = (3, 4, TILE + 3);
        let values = |count: usize| (0..count).map(|index| (index as f32 * 0.731).sin()).collect::<Vec<_>>();
        let (map, bias) = (values(height * width * channels), values(channels));
        for side in [1, 3, 5] {
            let weights = values(side * side * channels);
            for bias in [None, Some(&bias[..])] {
                let mut output = vec![7.0; map.len()];
                let kernels = ChannelKernels { weights: &weights, side, bias };
                convolve_channels(kernels, ChannelMap { values: &map, height, width }, &mut output);
                for (index, found) in output.iter().enumerate() {
                    let (pixel, channel) = (index / channels, index % channels);
                    let mut sum = bias.map_or(0.0, |bias| bias[channel]);
                    for place in 0..side * side {
                        let line = (pixel / width + place / side) as isize - (side / 2) as isize;
                        let column = (pixel % width + place % side) as isize - (side / 2) as isize;
                        if (0..height as isize).contains(&line) && (0..width as isize).contains(&column) {
                            let seen = (line * width as isize + column) as usize;
                            sum += map[seen * channels + channel] * weights[place * channels + channel];
                        }
                    }
                    assert!((found - sum).abs() < 1e-5, "{side}: {found} for {sum}");
                }
            }
        }
    }
}
