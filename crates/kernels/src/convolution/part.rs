//! One thread's work: [`PIXELS`] pixels of all output channels.
//!
//! For some input channels at a time, the shifted copies of their pixels are laid out (at most [`STEPS`] values for each
//! pixel, 252 KiB in f32, for the second cache), and every strip of kernels, in the first cache, passes over them: a pixel is
//! laid out once for all output channels.

use std::ops::Range;

use super::{Phase, Picture, Strips};
use crate::buffer::with_scratch;
use crate::gemm::{F32, InTiles, LeftTile, PairsOfBf16, StripValue, Value, Way};
use crate::parallel::SharedOutput;
use crate::simd::{Kernel, Simd};

/// Pixels that are computed together.
pub(super) const PIXELS: usize = 256;
/// Values of a pixel that are laid out together: 28 channels of 9 neighbours, or 62 of 4.
const STEPS: usize = 252;

/// Where a phase's pixels go.
#[derive(Clone)]
pub(super) struct Output {
    /// `[channels, rows, width]`
    pub(super) values: SharedOutput<f32>,
    /// From one channel to the next.
    pub(super) stride: usize,
    /// Pixels are added to what is there.
    pub(super) adds: bool,
    pub(super) rows: Range<usize>,
    pub(super) width: usize,
    /// Rows, and columns, from one pixel of the phase to the next.
    pub(super) scale: usize,
    /// Row and column of the phase's first pixel.
    pub(super) first: (usize, usize),
}

/// Some pixels of all output channels.
pub(super) struct Part<'a, T> {
    pub(super) phase: &'a Phase,
    pub(super) inputs: usize,
    pub(super) bias: &'a [f32],
    pub(super) picture: Picture<'a, T>,
    /// Of the picture, line by line; at most [`PIXELS`].
    pub(super) pixels: Range<usize>,
    pub(super) output: Output,
}

impl<T: Value> Kernel for Part<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match &self.phase.strips {
            Strips::F32(strips) => self.multiply::<S, F32>(simd, strips),
            Strips::Bf16(strips) => self.multiply::<S, PairsOfBf16>(simd, strips),
            Strips::TiledBf16(strips) => self.multiply::<S, InTiles<PairsOfBf16>>(simd, strips),
        }
    }
}

impl<T: Value> Part<'_, T> {
    #[inline(always)]
    fn multiply<S: Simd, P: Way<A: StripValue, B = <P as Way>::A>>(&self, simd: S, strips: &[P::A]) {
        let shape = P::shape::<S>();
        let panels = self.pixels.len().div_ceil(shape.columns);
        let laid_out = panels * shape.columns * self.steps_together::<P>() * P::DEPTH;
        let tiles = self.bias.len().div_ceil(shape.rows) * panels * shape.area();
        with_scratch::<P::A, _>(laid_out, |laid_out| {
            // Closures are not compiled for the registers, so what they do is a kernel again.
            with_scratch::<f32, _>(tiles, |tiles| {
                simd.run(PartInScratch::<T, P> { part: self, strips, laid_out, tiles });
            });
        });
    }

    /// Channels that are laid out together.
    #[inline(always)]
    fn channels_together<P: Way>(&self) -> usize {
        let steps = (STEPS / self.phase.taps.len() / P::DEPTH).max(1);
        (steps * P::DEPTH).min(self.inputs.next_multiple_of(P::DEPTH))
    }

    #[inline(always)]
    fn steps_together<P: Way>(&self) -> usize {
        self.channels_together::<P>() / P::DEPTH * self.phase.taps.len()
    }
}

struct PartInScratch<'a, T, P: Way> {
    part: &'a Part<'a, T>,
    strips: &'a [P::A],
    /// `[panel, step of input channels, tap, group of the step's, pixel of the panel, input channel of the group]`
    laid_out: &'a mut [P::A],
    /// `[strip, panel, output channel of the strip, pixel of the panel]`
    tiles: &'a mut [f32],
}

impl<T: Value, P: Way<A: StripValue, B = <P as Way>::A>> Kernel for PartInScratch<'_, T, P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let shape = P::shape::<S>();
        let Self { part, strips, laid_out, tiles } = self;
        let (inputs, outputs, taps) = (part.inputs, part.bias.len(), part.phase.taps.len());
        let panels = part.pixels.len().div_ceil(shape.columns);
        if inputs == 0 {
            tiles.fill(0.0);
        }
        let strip_steps = inputs.div_ceil(P::DEPTH) * taps;
        for first in (0..inputs).step_by(part.channels_together::<P>().max(1)) {
            let channels = first..(first + part.channels_together::<P>()).min(inputs);
            let (before, steps) = (first / P::DEPTH * taps, channels.len().div_ceil(P::DEPTH) * taps);
            let panel_length = shape.columns * steps * P::DEPTH;
            part.lay_out::<P>(channels, shape.columns, &mut laid_out[..panels * panel_length]);
            for (index, tiles) in tiles.chunks_exact_mut(panels * shape.area()).enumerate() {
                let strip = &strips[(index * strip_steps + before) * shape.rows * P::DEPTH..];
                let strip = &strip[..steps * shape.rows * P::DEPTH];
                let rows = (outputs - index * shape.rows).min(shape.rows);
                for (tile, panel) in tiles.chunks_exact_mut(shape.area()).zip(laid_out.chunks_exact(panel_length)) {
                    let (strip, panel, tile) = (LeftTile::Packed(strip.as_ptr()), panel.as_ptr(), tile.as_mut_ptr());
                    // SAFETY: strip and panel have as many steps, and the tile its shape.
                    unsafe { P::add_tile(simd, strip, panel, steps, rows, tile, first == 0) };
                }
            }
        }
        for (channel, bias) in part.bias.iter().enumerate() {
            let tiles = &tiles[channel / shape.rows * panels * shape.area()..][..panels * shape.area()];
            for (panel, tile) in tiles.chunks_exact(shape.area()).enumerate() {
                let start = panel * shape.columns;
                let sums =
                    &tile[channel % shape.rows * shape.columns..][..shape.columns.min(part.pixels.len() - start)];
                part.write(channel, *bias, start, sums);
            }
        }
    }
}

impl<T: Value> Part<'_, T> {
    /// Fills `[panel, step of channels, tap, group of the step's, pixel, channel of the group]` with the neighbours of the pixels.
    #[inline(always)]
    fn lay_out<P: Way<A: StripValue>>(&self, channels: Range<usize>, width: usize, laid_out: &mut [P::A]) {
        let taps = self.phase.taps.len();
        let panel_length = width * channels.len().div_ceil(P::DEPTH) * taps * P::DEPTH;
        let area = self.picture.height * self.picture.width;
        let mut lines = [[T::ZERO; PIXELS]; 2];
        let groups = channels.len().div_ceil(P::DEPTH) * (P::DEPTH / P::GROUP);
        for (group, first) in (channels.start..).step_by(P::GROUP).enumerate().take(groups) {
            let (step, group) = (group * P::GROUP / P::DEPTH, group % (P::DEPTH / P::GROUP));
            for (tap, shift) in self.phase.taps.iter().enumerate() {
                for (channel, line) in (first..first + P::GROUP).zip(&mut lines) {
                    let line = &mut line[..self.pixels.len()];
                    if channel < channels.end {
                        let channel = &self.picture.values[channel * area..][..area];
                        self.picture.shift(channel, self.pixels.start, *shift, line);
                    } else {
                        line.fill(T::ZERO);
                    }
                }
                let place = ((step * taps + tap) * P::DEPTH + group * P::GROUP) * width;
                for (panel, start) in laid_out.chunks_exact_mut(panel_length).zip((0..).step_by(width)) {
                    let count = width.min(self.pixels.len() - start);
                    let place = &mut panel[place..][..width * P::GROUP];
                    side_by_side::<T, P>(&lines, start..start + count, &mut place[..count * P::GROUP]);
                    place[count * P::GROUP..].fill(P::A::default());
                }
            }
        }
    }

    /// Writes the sums of pixels from `start` on, counted from the part's first, with their bias.
    #[inline(always)]
    fn write(&self, channel: usize, bias: f32, start: usize, sums: &[f32]) {
        let Output { values, stride, adds, rows, width, scale, first } = &self.output;
        let mut done = 0;
        while done < sums.len() {
            let pixel = self.pixels.start + start + done;
            let (y, x) = (pixel / self.picture.width, pixel % self.picture.width);
            let length = (self.picture.width - x).min(sums.len() - done);
            let row = scale * y + first.0 - rows.start;
            let line = &sums[done..done + length];
            // SAFETY: `run` has checked that the output has as many channels of as many rows; the part's pixels are in
            // them, and are written by no other part.
            unsafe {
                let place = values.0.add(channel * stride + row * width + scale * x + first.1);
                // Only where the step is known are stores of several values made.
                match (scale, adds) {
                    (1, false) => write_line::<1, false>(line, bias, place),
                    (1, true) => write_line::<1, true>(line, bias, place),
                    (_, false) => write_line::<2, false>(line, bias, place),
                    (_, true) => write_line::<2, true>(line, bias, place),
                }
            }
            done += length;
        }
    }
}

/// Every `STEP`th value from `place` on; added to what is there, or not.
///
/// # Safety
/// There are as many values as sums, and nothing else reads or writes them.
#[inline(always)]
unsafe fn write_line<const STEP: usize, const ADDS: bool>(sums: &[f32], bias: f32, place: *mut f32) {
    for (index, sum) in sums.iter().enumerate() {
        // SAFETY: by the conditions of this function.
        unsafe {
            let place = place.add(STEP * index);
            *place = if ADDS { *place + (sum + bias) } else { sum + bias };
        }
    }
}

/// `[pixel, channel]` of a group of channels.
#[inline(always)]
fn side_by_side<T: Value, P: Way<A: StripValue>>(lines: &[[T; PIXELS]; 2], pixels: Range<usize>, place: &mut [P::A]) {
    let [early, late] = lines;
    if P::GROUP == 1 {
        place.iter_mut().zip(&early[pixels]).for_each(|(place, value)| *place = P::A::of(*value));
    } else {
        let values = early[pixels.clone()].iter().zip(&late[pixels]);
        for (place, (early, late)) in place.chunks_exact_mut(2).zip(values) {
            place[0] = P::A::of(*early);
            place[1] = P::A::of(*late);
        }
    }
}
