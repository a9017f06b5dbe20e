//! Convolutions of pictures that are stored channel by channel: of single pixels, of 3x3, and of 3x3 behind the doubling of
//! every pixel. Some of the result's rows can be computed without the others, and added to what is there. The result is f32
//! whatever the picture is stored in.
//!
//! They are the matrix product of [`gemm`](crate::gemm) with the roles changed: strips are kernels, packed once; panels
//! are pixels, whose neighbours are laid out where they are used (`part.rs`).
//!
//! A doubled picture is never made. Of its pixels, those with the same parity of row and column see the picture in the same way:
//! the three rows that a kernel covers are copies of two rows of the picture, and so are the columns. So each of four
//! phases is a convolution of 2x2 whose kernels are sums of the given ones, 16 multiplications for four pixels
//! and not 36.

mod part;
mod picture;

use std::ops::Range;

use half::bf16;
use half::slice::HalfBitsSliceExt;
use rayon::prelude::*;

pub use self::picture::{ConvolvedRows, Picture};

use self::part::{Output, PIXELS, Part};
use crate::buffer::{Aligned, with_scratch};
use crate::gemm::{F32, InTiles, PairsOfBf16, StripValue, Value, Way, interleave};
use crate::map::map;
use crate::parallel::{SharedOutput, units_per_part};
use crate::simd::{Isa, Kernel, Simd, dispatch_on};

/// What a pixel of the result sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Neighbourhood {
    /// The pixel: kernels `[outputs, inputs, 1, 1]`.
    Pixel,
    /// It and its neighbours; beyond its edges the picture is 0. Kernels `[outputs, inputs, 3, 3]`.
    Three,
    /// The same in the picture with every pixel four times.
    ThreeOfDoubled,
}

/// Kernels and biases of a convolution, packed.
#[derive(Debug)]
pub struct Convolution {
    neighbourhood: Neighbourhood,
    inputs: usize,
    bias: Vec<f32>,
    phases: Vec<Phase>,
    isa: Isa,
}

/// The pixels of the result that see the picture in the same way.
#[derive(Debug)]
struct Phase {
    /// Row and column of the first of them.
    first: (usize, usize),
    /// Which neighbours they see: row and column, of which 1 is the pixel's own.
    taps: Vec<(usize, usize)>,
    strips: Strips,
}

/// `[strip, group of input channels, tap, output channel of the strip, input channel of the group]`
#[derive(Debug)]
enum Strips {
    /// Groups of one channel.
    F32(Aligned<f32>),
    /// Groups of two channels.
    Bf16(Aligned<u16>),
    /// Groups of 32 channels, as a unit for tiles reads them.
    TiledBf16(Aligned<u16>),
}

/// In one direction: a neighbour, and the places of the given kernel that fall on it.
type Tap = (usize, Range<usize>);

impl Neighbourhood {
    /// Of the given kernels.
    const fn side(self) -> usize {
        match self {
            Self::Pixel => 1,
            Self::Three | Self::ThreeOfDoubled => 3,
        }
    }

    /// Pixels of the result for one of the picture, in each direction.
    const fn scale(self) -> usize {
        match self {
            Self::Pixel | Self::Three => 1,
            Self::ThreeOfDoubled => 2,
        }
    }

    /// What a row of the result (or a column) sees whose place among the copies of a pixel is `copy`.
    fn taps(self, copy: usize) -> Vec<Tap> {
        match (self, copy) {
            (Self::Pixel, _) => vec![(1, 0..1)],
            (Self::Three, _) => vec![(0, 0..1), (1, 1..2), (2, 2..3)],
            (Self::ThreeOfDoubled, 0) => vec![(0, 0..1), (1, 1..3)],
            (Self::ThreeOfDoubled, _) => vec![(1, 0..2), (2, 2..3)],
        }
    }
}

impl Convolution {
    /// Packs, for pictures that are bf16 (`narrow`) or f32. Where the CPU multiplies bf16 faster, kernels for bf16 are
    /// rounded to it.
    ///
    /// # Panics
    /// If there are not as many kernels as the numbers of channels say; the biases are as many as output channels.
    pub fn new(neighbourhood: Neighbourhood, inputs: usize, kernels: &[f32], bias: &[f32], narrow: bool) -> Self {
        Self::packed(Isa::current(), neighbourhood, inputs, (kernels, bias), narrow)
    }

    fn packed(
        isa: Isa,
        neighbourhood: Neighbourhood,
        inputs: usize,
        (kernels, bias): (&[f32], &[f32]),
        narrow: bool,
    ) -> Self {
        let side = neighbourhood.side();
        assert_eq!(kernels.len(), bias.len() * inputs * side * side, "length of the kernels");
        let scale = neighbourhood.scale();
        let phases = (0..scale * scale).map(|index| {
            let first = (index / scale, index % scale);
            let (rows, columns) = (neighbourhood.taps(first.0), neighbourhood.taps(first.1));
            let pack = Pack { kernels, inputs, outputs: bias.len(), side, rows: &rows, columns: &columns, narrow };
            let taps = rows.iter().flat_map(|row| columns.iter().map(|column| (row.0, column.0))).collect();
            Phase { first, taps, strips: dispatch_on(isa, pack) }
        });
        Self { neighbourhood, inputs, bias: bias.to_vec(), phases: phases.collect(), isa }
    }

    /// Channels of the result.
    pub fn output_channels(&self) -> usize {
        self.bias.len()
    }

    /// Pixels of the result for one of the picture, in each direction.
    pub fn scale(&self) -> usize {
        self.neighbourhood.scale()
    }

    /// Kernels are bf16, as the CPU multiplies it: a picture is read fastest in bf16.
    pub fn is_narrow(&self) -> bool {
        self.phases.iter().any(|phase| !matches!(phase.strips, Strips::F32(_)))
    }

    /// `rows` of the result.
    pub(crate) fn run<T: Value>(&self, rows: Range<usize>, picture: Picture<'_, T>, output: ConvolvedRows<'_>) {
        let Picture { values, height, width } = picture;
        match T::as_f32(values).filter(|_| self.is_narrow()) {
            // Rounded once, and not once for every neighbour that sees a pixel.
            Some(values) => with_bf16(self.isa, values, |values| {
                self.multiply(rows, Picture { values, height, width }, output);
            }),
            None => self.multiply(rows, picture, output),
        }
    }

    fn multiply<T: Value>(&self, rows: Range<usize>, picture: Picture<'_, T>, output: ConvolvedRows<'_>) {
        let (scale, Picture { values, height, width }) = (self.scale(), picture);
        assert!(rows.end <= scale * height, "rows {rows:?} of {}", scale * height);
        assert_eq!(values.len(), self.inputs * height * width, "length of the input");
        let ConvolvedRows { values, stride, adds } = output;
        let (channels, pixels) = (self.output_channels(), rows.len() * scale * width);
        let length = channels.saturating_sub(1) * stride + pixels;
        assert!(channels == 0 || pixels <= stride && length <= values.len(), "length of the output");
        let values = SharedOutput(values.as_mut_ptr());
        let parts: Vec<_> = self
            .phases
            .iter()
            .flat_map(|phase| {
                let lines = phase.lines(scale, &rows);
                let pixels = lines.len() * width;
                let (rows, width) = (rows.clone(), scale * width);
                let output = Output { values, stride, adds, rows, width, scale, first: phase.first };
                (0..pixels).step_by(PIXELS).map(move |start| {
                    let first = lines.start * picture.width;
                    let pixels = first + start..first + (start + PIXELS).min(pixels);
                    Part { phase, inputs: self.inputs, bias: &self.bias, picture, pixels, output: output.clone() }
                })
            })
            .collect();
        parts.into_par_iter().with_max_len(1).for_each(|part| dispatch_on(self.isa, part));
    }
}

impl Phase {
    /// The rows of the picture whose results are among `rows`.
    fn lines(&self, scale: usize, rows: &Range<usize>) -> Range<usize> {
        let first = scale - 1 - self.first.0;
        (rows.start + first) / scale..(rows.end + first) / scale
    }
}

/// Calls `work` with the values rounded to bf16.
fn with_bf16<R>(isa: Isa, values: &[f32], work: impl FnOnce(&[bf16]) -> R) -> R {
    with_scratch::<u16, _>(values.len(), |scratch| {
        let narrow: &mut [bf16] = scratch.reinterpret_cast_mut();
        let part = units_per_part(values.len(), 1);
        let parts = values.par_chunks(part).zip(narrow.par_chunks_mut(part));
        parts.for_each(|(values, narrow)| dispatch_on(isa, Round { values, narrow }));
        work(narrow)
    })
}

struct Round<'a> {
    values: &'a [f32],
    narrow: &'a mut [bf16],
}

impl Kernel for Round<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        map(simd, self.values, self.narrow, |_, value, _| value);
    }
}

/// Kernels of a phase.
struct Pack<'a> {
    kernels: &'a [f32],
    inputs: usize,
    outputs: usize,
    side: usize,
    rows: &'a [Tap],
    columns: &'a [Tap],
    narrow: bool,
}

impl Kernel for Pack<'_> {
    type Output = Strips;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Strips {
        if self.narrow && simd.tiles().is_some() {
            Strips::TiledBf16(self.strips::<S, InTiles<PairsOfBf16>>())
        } else if self.narrow && S::HAS_BF16 {
            Strips::Bf16(self.strips::<S, PairsOfBf16>())
        } else {
            Strips::F32(self.strips::<S, F32>())
        }
    }
}

impl Pack<'_> {
    fn strips<S: Simd, P: Way<A: StripValue>>(&self) -> Aligned<P::A> {
        let height = P::shape::<S>().rows;
        let (depth, ordered) = self.ordered(P::DEPTH);
        let mut strips = Aligned::zeros(self.outputs.next_multiple_of(height) * depth);
        interleave(&ordered, depth, (height, P::DEPTH), P::A::of, &mut strips);
        strips
    }

    /// `[output channel, group of input channels, tap, input channel of the group]`, and the values of an output channel.
    fn ordered(&self, group: usize) -> (usize, Vec<f32>) {
        let depth = self.inputs.next_multiple_of(group) * self.rows.len() * self.columns.len();
        let mut ordered = Vec::with_capacity(self.outputs * depth);
        let area = self.side * self.side;
        for output in 0..self.outputs {
            for first in (0..self.inputs).step_by(group) {
                for (row, column) in
                    self.rows.iter().flat_map(|row| self.columns.iter().map(move |column| (row, column)))
                {
                    for channel in first..first + group {
                        let kernel =
                            self.kernels[output * self.inputs * area..].get(channel * area..).unwrap_or_default();
                        ordered.push(if channel < self.inputs { self.sum(kernel, &row.1, &column.1) } else { 0.0 });
                    }
                }
            }
        }
        (depth, ordered)
    }

    fn sum(&self, kernel: &[f32], rows: &Range<usize>, columns: &Range<usize>) -> f32 {
        rows.clone().flat_map(|row| columns.clone().map(move |column| kernel[row * self.side + column])).sum()
    }
}

#[cfg(test)]
mod tests;
