//! 3x3 convolution that keeps the picture's size, for pictures stored channel by channel. Some of the picture's rows can be
//! computed without the others.
//!
//! It is the matrix product of [`gemm`](crate::gemm) with the roles changed: strips are kernels, packed once; panels are
//! pixels, whose neighbours are laid out where they are used. [`PIXELS`] pixels of all output channels are one thread's
//! work. For [`CHANNELS`] input channels at a time, the 9 shifted copies of their pixels are laid out (252 KiB,
//! for the second cache), and every strip of kernels, in the first cache, passes over them: a pixel is laid out once for
//! all output channels.

use std::ops::Range;

use rayon::prelude::*;

use crate::buffer::{Aligned, with_scratch};
use crate::gemm::{F32, TileShape, add_tile, interleave};
use crate::parallel::SharedOutput;
use crate::simd::{Isa, Kernel, Simd, dispatch};

/// Side of the kernel.
const SIDE: usize = 3;
/// Neighbours of a pixel, itself included.
const TAPS: usize = SIDE * SIDE;
/// Pixels that are computed together.
const PIXELS: usize = 256;
/// Input channels that are laid out together.
const CHANNELS: usize = 28;

/// Kernels `[output_channels, input_channels, 3, 3]` and biases.
#[derive(Debug)]
pub struct Conv3x3 {
    input_channels: usize,
    bias: Vec<f32>,
    /// `[strip, input channel, tap, output channel of the strip]`
    strips: Aligned<f32>,
}

/// Where a thread writes its own pixels of every output channel.
#[derive(Clone, Copy)]
struct Output {
    values: SharedOutput<f32>,
    /// Of a channel.
    pixels: usize,
}

/// A picture, `[channels, height, width]`.
#[derive(Debug, Clone, Copy)]
pub struct Picture<'a> {
    /// The values.
    pub values: &'a [f32],
    /// Pixels.
    pub height: usize,
    /// Pixels.
    pub width: usize,
}

impl Conv3x3 {
    /// Packs.
    ///
    /// # Panics
    /// If there are not as many kernels as the numbers of channels say; the biases are as many as output channels.
    pub fn new(input_channels: usize, kernels: &[f32], bias: &[f32]) -> Self {
        Self::packed(Isa::current(), input_channels, kernels, bias)
    }

    fn packed(isa: Isa, input_channels: usize, kernels: &[f32], bias: &[f32]) -> Self {
        assert_eq!(kernels.len(), bias.len() * input_channels * TAPS, "length of the kernels");
        let strips = crate::simd::dispatch_on(isa, Pack { depth: input_channels * TAPS, rows: bias.len(), kernels });
        Self { input_channels, bias: bias.to_vec(), strips }
    }

    /// Channels of what [`Self::run`] computes.
    pub fn output_channels(&self) -> usize {
        self.bias.len()
    }

    /// Convolves `rows` of a picture; beyond its edges the picture is 0. `output` is `[output channels, rows, width]`.
    ///
    /// # Panics
    /// If a slice has another length than the sizes say.
    pub fn run(&self, rows: Range<usize>, picture: Picture<'_>, output: &mut [f32]) {
        let Picture { values, height, width } = picture;
        let pixels = rows.len() * width;
        assert!(rows.end <= height, "rows {rows:?} of {height}");
        assert_eq!(values.len(), self.input_channels * height * width, "length of the input");
        assert_eq!(output.len(), self.output_channels() * pixels, "length of the output");
        let output = Output { values: SharedOutput(output.as_mut_ptr()), pixels };
        (0..pixels.div_ceil(PIXELS)).into_par_iter().with_max_len(1).for_each(|index| {
            let part = index * PIXELS..((index + 1) * PIXELS).min(pixels);
            dispatch(Part { conv: self, picture, first: rows.start * width, part, output });
        });
    }
}

struct Pack<'a> {
    depth: usize,
    rows: usize,
    kernels: &'a [f32],
}

impl Kernel for Pack<'_> {
    type Output = Aligned<f32>;

    #[inline(always)]
    fn run<S: Simd>(self, _: S) -> Aligned<f32> {
        let height = TileShape::of::<S>().rows;
        let mut strips = Aligned::zeros(self.rows.next_multiple_of(height) * self.depth);
        interleave(self.kernels, self.depth, (height, 1), |value| value, &mut strips);
        strips
    }
}

/// Some pixels of all output channels.
struct Part<'a> {
    conv: &'a Conv3x3,
    picture: Picture<'a>,
    /// The first pixel of the rows asked for.
    first: usize,
    /// Pixels among these rows.
    part: Range<usize>,
    output: Output,
}

impl Kernel for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let shape = const { TileShape::of::<S>() };
        let panels = self.part.len().div_ceil(shape.columns);
        let laid_out = panels * shape.columns * CHANNELS.min(self.conv.input_channels) * TAPS;
        let tiles = self.conv.output_channels().div_ceil(shape.rows) * panels * shape.area();
        with_scratch::<f32, _>(laid_out, |laid_out| {
            // Closures are not compiled for the registers, so what they do is a kernel again.
            with_scratch::<f32, _>(tiles, |tiles| simd.run(PartInScratch { part: self, laid_out, tiles }));
        });
    }
}

struct PartInScratch<'a> {
    part: Part<'a>,
    /// `[panel, input channel, tap, pixel of the panel]`
    laid_out: &'a mut [f32],
    /// `[strip, panel, output channel of the strip, pixel of the panel]`
    tiles: &'a mut [f32],
}

impl Kernel for PartInScratch<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let shape = const { TileShape::of::<S>() };
        let Self { part, laid_out, tiles } = self;
        let (inputs, outputs) = (part.conv.input_channels, part.conv.output_channels());
        let panels = part.part.len().div_ceil(shape.columns);
        if inputs == 0 {
            tiles.fill(0.0);
        }
        for first in (0..inputs).step_by(CHANNELS) {
            let channels = first..(first + CHANNELS).min(inputs);
            let steps = channels.len() * TAPS;
            part.lay_out(channels, shape.columns, &mut laid_out[..panels * shape.columns * steps]);
            for (index, tiles) in tiles.chunks_exact_mut(panels * shape.area()).enumerate() {
                let strip = &part.conv.strips[(index * inputs + first) * TAPS * shape.rows..][..steps * shape.rows];
                let rows = (outputs - index * shape.rows).min(shape.rows);
                let panels = laid_out.chunks_exact(shape.columns * steps);
                for (tile, panel) in tiles.chunks_exact_mut(shape.area()).zip(panels) {
                    let (strip, panel, tile) = (strip.as_ptr(), panel.as_ptr(), tile.as_mut_ptr());
                    // SAFETY: strip and panel have as many steps, and the tile its shape.
                    unsafe { add_tile::<S, F32>(simd, strip, panel, steps, rows, tile, first == 0) };
                }
            }
        }
        part.write(shape, panels, tiles);
    }
}

impl Part<'_> {
    /// Fills `[panel, channel, tap, pixel]` with the neighbours of the pixels.
    #[inline(always)]
    fn lay_out(&self, channels: Range<usize>, width: usize, laid_out: &mut [f32]) {
        let steps = channels.len() * TAPS;
        let area = self.picture.height * self.picture.width;
        let mut line = [0f32; PIXELS];
        let line = &mut line[..self.part.len()];
        for (index, channel) in channels.enumerate() {
            let channel = &self.picture.values[channel * area..][..area];
            for tap in 0..TAPS {
                self.picture.shift(channel, self.first + self.part.start, (tap / SIDE, tap % SIDE), line);
                let places = laid_out.chunks_exact_mut(width * steps);
                for (panel, pixels) in places.zip(line.chunks(width)) {
                    let place = &mut panel[(index * TAPS + tap) * width..][..width];
                    if pixels.len() == width {
                        place.copy_from_slice(pixels);
                    } else {
                        place[..pixels.len()].copy_from_slice(pixels);
                        place[pixels.len()..].fill(0.0);
                    }
                }
            }
        }
    }

    /// Adds the bias to the tiles and writes what of them is in the picture.
    #[inline(always)]
    fn write(&self, shape: TileShape, panels: usize, tiles: &[f32]) {
        for (channel, bias) in self.conv.bias.iter().enumerate() {
            let (strip, row) = (channel / shape.rows, channel % shape.rows);
            for panel in 0..panels {
                let start = panel * shape.columns;
                let length = shape.columns.min(self.part.len() - start);
                let sums = &tiles[(strip * panels + panel) * shape.area() + row * shape.columns..][..length];
                let place = channel * self.output.pixels + self.part.start + start;
                // SAFETY: `run` has checked that the output has as many channels of as many pixels; these are this thread's.
                let output = unsafe { std::slice::from_raw_parts_mut(self.output.values.0.add(place), length) };
                output.iter_mut().zip(sums).for_each(|(output, sum)| *output = sum + bias);
            }
        }
    }
}

impl Picture<'_> {
    /// The pixels from `start` on of a channel shifted by `dy - 1` and `dx - 1`, line by line.
    #[inline(always)]
    fn shift(&self, channel: &[f32], start: usize, (dy, dx): (usize, usize), shifted: &mut [f32]) {
        let mut done = 0;
        while done < shifted.len() {
            let (y, x) = ((start + done) / self.width, (start + done) % self.width);
            let length = (self.width - x).min(shifted.len() - done);
            let target = &mut shifted[done..done + length];
            done += length;
            // Row y + dy - 1 of the picture; one row of zeros lies before and after it.
            let Some(source) = (y + dy).checked_sub(1).filter(|row| *row < self.height) else {
                target.fill(0.0);
                continue;
            };
            let source = &channel[source * self.width..][..self.width];
            // The first pixel of a line has no left neighbour, the last no right one.
            let first = usize::from(x + dx == 0);
            target[..first].fill(0.0);
            let available = (self.width + 1 - (x + dx)).min(length);
            target[first..available].copy_from_slice(&source[x + dx + first - 1..][..available - first]);
            target[available..].fill(0.0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(length: usize, seed: f32) -> Vec<f32> {
        (0..length).map(|index| (index as f32 * 0.731 + seed).sin()).collect()
    }

    /// The definition, in f64.
    fn plain([inputs, outputs, height, width]: [usize; 4], input: &[f32], kernels: &[f32], bias: &[f32]) -> Vec<f64> {
        let mut output = Vec::new();
        for out in 0..outputs {
            for pixel in 0..height * width {
                let (y, x) = (pixel / width, pixel % width);
                let mut sum = f64::from(bias[out]);
                for tap in 0..inputs * TAPS {
                    let (channel, dy, dx) = (tap / TAPS, tap % TAPS / SIDE, tap % SIDE);
                    let (row, column) = ((y + dy).wrapping_sub(1), (x + dx).wrapping_sub(1));
                    if row < height && column < width {
                        let value = input[(channel * height + row) * width + column];
                        sum += f64::from(value) * f64::from(kernels[out * inputs * TAPS + tap]);
                    }
                }
                output.push(sum);
            }
        }
        output
    }

    #[test]
    fn equals_the_definition_for_odd_and_tiny_sizes() {
        let sizes = [
            [1, 1, 1, 1],
            [2, 3, 1, 5],
            [3, 2, 7, 1],
            [4, 5, 3, 3],
            [2, 4, 2, 300],
            [5, 3, 33, 17],
            [3, 14, 40, 40],
            [30, 13, 9, 31],
            [57, 1, 4, 8],
        ];
        for (size, isa) in sizes.into_iter().flat_map(|size| Isa::tested().map(move |isa| (size, isa))) {
            let [inputs, outputs, height, width] = size;
            let input = values(inputs * height * width, 0.1);
            let (kernels, bias) = (values(outputs * inputs * TAPS, 0.7), values(outputs, 0.3));
            let conv = Conv3x3::packed(isa, inputs, &kernels, &bias);
            let pixels = height * width;
            let mut output = vec![f32::NAN; outputs * pixels];
            let place = Output { values: SharedOutput(output.as_mut_ptr()), pixels };
            for start in (0..pixels).step_by(PIXELS) {
                let picture = Picture { values: &input, height, width };
                let part = start..(start + PIXELS).min(pixels);
                crate::simd::dispatch_on(isa, Part { conv: &conv, picture, first: 0, part, output: place });
            }
            for (found, expected) in output.iter().zip(plain(size, &input, &kernels, &bias)) {
                assert!((f64::from(*found) - expected).abs() < 2e-5, "{isa}, {size:?}: {found} for {expected}");
            }
        }
    }

    #[test]
    fn some_rows_are_the_same_as_in_the_whole() {
        let (input, kernels, bias) = (values(3 * 21 * 30, 0.1), values(4 * 3 * TAPS, 0.7), values(4, 0.3));
        let conv = Conv3x3::new(3, &kernels, &bias);
        let run = |rows: Range<usize>| {
            let mut output = vec![f32::NAN; 4 * rows.len() * 30];
            conv.run(rows, Picture { values: &input, height: 21, width: 30 }, &mut output);
            output
        };
        let whole = run(0..21);
        for rows in [0..1, 0..21, 5..17, 20..21, 7..7] {
            for (channel, part) in run(rows.clone()).chunks_exact((30 * rows.len()).max(1)).enumerate() {
                assert_eq!(part, &whole[(channel * 21 + rows.start) * 30..][..30 * rows.len()], "{rows:?}");
            }
        }
    }
}
