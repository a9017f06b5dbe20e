//! 3x3 convolution that keeps the picture's size, for pictures stored channel by channel. Some of the
//! picture's rows can be computed without the others.
//!
//! Pixels are taken in tiles. For every tile the 9 shifted copies of all input channels are laid out
//! as one matrix, and a matrix product with the kernels gives the tile of all output channels, in its place
//! in the output. Tiles are small enough that the laid-out matrix stays in the cache, and each is
//! one thread's work, so results do not depend on the number of threads.

use std::ops::Range;

use gemm::Parallelism;
use rayon::prelude::*;

/// Side of the kernel.
const SIDE: usize = 3;
/// Pixels per tile: 4 MB of laid-out input at 512 channels.
const TILE: usize = 256;

/// Sizes of a convolution. All slices are f32 and contiguous.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conv3x3 {
    /// Channels of the input, `[input_channels, height, width]`.
    pub input_channels: usize,
    /// Channels of the output, `[output_channels, height, width]`.
    pub output_channels: usize,
    /// Pixels.
    pub height: usize,
    /// Pixels.
    pub width: usize,
}

/// One thread's way to its own pixels of every output channel.
struct Output {
    pointer: *mut f32,
    /// Of a channel.
    pixels: usize,
}

// SAFETY: tiles are disjoint sets of pixels, and a thread writes its tile's only.
unsafe impl Sync for Output {}

impl Conv3x3 {
    /// Convolves `rows` of one picture with `kernels` `[output_channels, input_channels, 3, 3]` and adds
    /// `bias`; beyond its edges the picture is 0. `output` is `[output_channels, rows, width]`.
    ///
    /// # Panics
    /// If a slice has another length than the sizes say.
    pub fn run(self, rows: Range<usize>, input: &[f32], kernels: &[f32], bias: &[f32], output: &mut [f32]) {
        let (first, pixels) = (rows.start * self.width, rows.len() * self.width);
        assert!(rows.end <= self.height, "rows {rows:?} of {}", self.height);
        assert_eq!(input.len(), self.input_channels * self.height * self.width, "length of the input");
        assert_eq!(kernels.len(), self.output_channels * self.depth(), "length of the kernels");
        assert_eq!(bias.len(), self.output_channels, "length of the bias");
        assert_eq!(output.len(), self.output_channels * pixels, "length of the output");
        if pixels == 0 {
            return;
        }
        for (channel, bias) in output.chunks_exact_mut(pixels).zip(bias) {
            channel.fill(*bias);
        }
        let output = Output { pointer: output.as_mut_ptr(), pixels };
        (0..pixels.div_ceil(TILE)).into_par_iter().for_each_init(
            || vec![0f32; self.depth() * TILE],
            |columns, tile| {
                let start = tile * TILE;
                let length = TILE.min(pixels - start);
                self.lay_out(input, first + start, &mut columns[..self.depth() * length], length);
                self.multiply(kernels, columns, length, start, &output);
            },
        );
    }

    /// Rows of the laid-out matrix.
    fn depth(self) -> usize {
        self.input_channels * SIDE * SIDE
    }

    /// Fills `[depth, length]` with the neighbours of the pixels from `start` on.
    fn lay_out(self, input: &[f32], start: usize, columns: &mut [f32], length: usize) {
        for (row, column) in columns.chunks_exact_mut(length).enumerate() {
            let channel = &input[row / (SIDE * SIDE) * self.height * self.width..][..self.height * self.width];
            let (dy, dx) = (row % (SIDE * SIDE) / SIDE, row % SIDE);
            self.shift(channel, start, dy, dx, column);
        }
    }

    /// The pixels from `start` on of a channel shifted by `dy - 1` and `dx - 1`, line by line.
    fn shift(self, channel: &[f32], start: usize, dy: usize, dx: usize, column: &mut [f32]) {
        let mut done = 0;
        while done < column.len() {
            let (y, x) = ((start + done) / self.width, (start + done) % self.width);
            let length = (self.width - x).min(column.len() - done);
            let target = &mut column[done..done + length];
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

    /// Adds the product to what the output holds.
    fn multiply(self, kernels: &[f32], columns: &[f32], length: usize, start: usize, output: &Output) {
        let depth = self.depth();
        debug_assert!(start + length <= output.pixels && columns.len() >= depth * length);
        // SAFETY: the strides stay inside the slices: the product is [output_channels, length], its
        // rows `pixels` apart in the output, which `run` has filled; `run` has checked the lengths. No other thread touches
        // these pixels.
        unsafe {
            gemm::gemm(
                self.output_channels,
                length,
                depth,
                output.pointer.add(start),
                1,
                output.pixels as isize,
                true,
                kernels.as_ptr(),
                1,
                depth as isize,
                columns.as_ptr(),
                1,
                length as isize,
                1f32,
                1f32,
                false,
                false,
                false,
                Parallelism::None,
            );
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
    fn plain(conv: Conv3x3, input: &[f32], kernels: &[f32], bias: &[f32]) -> Vec<f64> {
        let Conv3x3 { input_channels, output_channels, height, width } = conv;
        let mut output = Vec::new();
        for out in 0..output_channels {
            for pixel in 0..height * width {
                let (y, x) = (pixel / width, pixel % width);
                let mut sum = f64::from(bias[out]);
                for tap in 0..input_channels * 9 {
                    let (channel, dy, dx) = (tap / 9, tap % 9 / 3, tap % 3);
                    let (row, column) = ((y + dy).wrapping_sub(1), (x + dx).wrapping_sub(1));
                    if row < height && column < width {
                        let value = input[(channel * height + row) * width + column];
                        sum += f64::from(value) * f64::from(kernels[out * input_channels * 9 + tap]);
                    }
                }
                output.push(sum);
            }
        }
        output
    }

    #[test]
    fn equals_the_definition_for_odd_and_tiny_sizes() {
        for (input_channels, output_channels, height, width) in
            [(1, 1, 1, 1), (2, 3, 1, 5), (3, 2, 7, 1), (4, 5, 3, 3), (2, 4, 2, 300), (5, 3, 33, 17), (3, 6, 40, 40)]
        {
            let conv = Conv3x3 { input_channels, output_channels, height, width };
            let input = values(input_channels * height * width, 0.1);
            let kernels = values(output_channels * input_channels * 9, 0.7);
            let mut output = vec![f32::NAN; output_channels * height * width];
            let bias = values(output_channels, 0.3);
            conv.run(0..height, &input, &kernels, &bias, &mut output);
            for (found, expected) in output.iter().zip(plain(conv, &input, &kernels, &bias)) {
                assert!((f64::from(*found) - expected).abs() < 1e-5, "{conv:?}: {found} for {expected}");
            }
        }
    }

    #[test]
    fn some_rows_are_the_same_as_in_the_whole() {
        let conv = Conv3x3 { input_channels: 3, output_channels: 4, height: 21, width: 30 };
        let (input, kernels, bias) = (values(3 * 21 * 30, 0.1), values(4 * 3 * 9, 0.7), values(4, 0.3));
        let run = |rows: Range<usize>| {
            let mut output = vec![f32::NAN; 4 * rows.len() * 30];
            conv.run(rows, &input, &kernels, &bias, &mut output);
            output
        };
        let whole = run(0..21);
        for rows in [0..1, 0..21, 5..17, 20..21, 7..7] {
            for (channel, part) in run(rows.clone()).chunks_exact((30 * rows.len()).max(1)).enumerate() {
                let expected = &whole[(channel * 21 + rows.start) * 30..][..30 * rows.len()];
                for (found, expected) in part.iter().zip(expected) {
                    assert!((found - expected).abs() < 1e-6, "{rows:?}: {found} for {expected}");
                }
            }
        }
    }
}
