//! Weight matrices as the micro-kernel wants them: packed once, or widened a few rows at a time.

use std::convert::Infallible;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use rayon::prelude::*;

use super::Widen;
use super::int8::{Int8Panels, PackInt8};
use super::tile::TileShape;
use crate::buffer::{Aligned, Plain};
use crate::simd::{Kernel, STEP_BYTES, SUMMED_SIDE, Simd, dispatch};

/// Weights `[outputs, inputs]` whose rows are stored in a way of their own and can be had as f32.
pub trait WeightRows: Sync {
    /// Why rows cannot be had.
    type Error: Send;

    /// Writes the given rows, one after the other.
    ///
    /// # Errors
    /// What is stored cannot be read as numbers.
    fn widen(&self, rows: Range<usize>, values: &mut [f32]) -> Result<(), Self::Error>;
}

/// Calls `work` with a way to have rows that remembers why some could not be had; `work` answers nothing in that case.
pub(crate) fn widening<B: WeightRows + ?Sized, R>(
    rows: &B,
    work: impl FnOnce(&Widen<'_>) -> Option<R>,
) -> Result<R, B::Error> {
    let failure = Mutex::new(None);
    let widen = |range: Range<usize>, values: &mut [f32]| match rows.widen(range, values) {
        Ok(()) => true,
        Err(error) => {
            *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
            false
        }
    };
    let done = work(&widen);
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(done.expect("nothing failed")),
    }
}

impl WeightRows for PlainWeights<'_> {
    type Error = Infallible;

    /// Of the matrix whose rows are as long as `values` says.
    fn widen(&self, rows: Range<usize>, values: &mut [f32]) -> Result<(), Infallible> {
        let inputs = values.len() / rows.len().max(1);
        let range = rows.start * inputs..rows.end * inputs;
        match self {
            Self::F32(weights) => values.copy_from_slice(&weights[range]),
            Self::Bf16(weights) => weights[range].convert_to_f32_slice(values),
            Self::F16(weights) => weights[range].convert_to_f32_slice(values),
        }
        Ok(())
    }
}

/// A weight matrix in panels: the columns of a tile of C, which are rows of the matrix, side by side for every input.
/// Rows that are missing in the last panel are zeros, as is the input that an odd number lacks in pairs.
#[derive(Debug)]
pub struct PackedWeights {
    pub(super) outputs: usize,
    pub(super) inputs: usize,
    pub(super) panels: Panels,
}

#[derive(Debug)]
pub(super) enum Panels {
    /// `[panel, input, column]`
    F32(Aligned<f32>),
    /// `[panel, input, column]`
    F16(Aligned<u16>),
    /// `[panel, pair of inputs, column, input of the pair]`
    Bf16(Aligned<u16>),
    /// Integers of 8 bits.
    Int8(Int8Panels),
}

/// Rows of weights, as they are stored: `[outputs, inputs]`, contiguous.
#[derive(Debug, Clone, Copy)]
pub enum PlainWeights<'a> {
    /// 32 bits.
    F32(&'a [f32]),
    /// 16 bits with the exponent of f32.
    Bf16(&'a [bf16]),
    /// IEEE half precision.
    F16(&'a [f16]),
}

impl PackedWeights {
    /// Packs, in the precision the weights have.
    ///
    /// # Panics
    /// If there are not `outputs * inputs` values.
    pub fn new(outputs: usize, inputs: usize, weights: PlainWeights<'_>) -> Self {
        let length = match weights {
            PlainWeights::F32(values) => values.len(),
            PlainWeights::Bf16(values) => values.len(),
            PlainWeights::F16(values) => values.len(),
        };
        assert_eq!(length, outputs * inputs, "length of the weights");
        Self { outputs, inputs, panels: dispatch(Pack { outputs, inputs, weights }) }
    }

    /// Quantises `[outputs, inputs]` to integers of 8 bits, each output by a factor of its own.
    ///
    /// # Errors
    /// What `rows` answers.
    ///
    /// # Panics
    /// If there are more inputs than sums of 32 bits can take, 131072.
    pub fn quantized<B: WeightRows + ?Sized>(rows: &B, (outputs, inputs): (usize, usize)) -> Result<Self, B::Error> {
        let panels = widening(rows, |rows| dispatch(PackInt8 { outputs, inputs, rows }))?;
        Ok(Self { outputs, inputs, panels: Panels::Int8(panels) })
    }

    /// Rows.
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Columns.
    pub fn inputs(&self) -> usize {
        self.inputs
    }

    /// What it occupies.
    pub fn bytes(&self) -> usize {
        match &self.panels {
            Panels::F32(values) => size_of_val::<[f32]>(values),
            Panels::F16(values) | Panels::Bf16(values) => size_of_val::<[u16]>(values),
            Panels::Int8(panels) => panels.bytes(),
        }
    }
}

pub(super) struct Pack<'a> {
    pub(super) outputs: usize,
    pub(super) inputs: usize,
    pub(super) weights: PlainWeights<'a>,
}

impl Kernel for Pack<'_> {
    type Output = Panels;

    fn run<S: Simd>(self, simd: S) -> Panels {
        let Self { outputs, inputs, weights } = self;
        let columns = TileShape::of::<S>().columns;
        match weights {
            PlainWeights::F32(values) => {
                let mut panels = Aligned::zeros(outputs.div_ceil(columns) * columns * inputs);
                interleave(values, inputs, (columns, 1), |value| value, &mut panels);
                Panels::F32(panels)
            }
            PlainWeights::F16(values) => {
                let mut panels = Aligned::zeros(outputs.div_ceil(columns) * columns * inputs);
                interleave(values, inputs, (columns, 1), f16::to_bits, &mut panels);
                Panels::F16(panels)
            }
            PlainWeights::Bf16(values) => {
                let padded = padded_inputs::<S, u16>(simd, inputs, 2);
                let mut panels = Aligned::zeros(outputs.div_ceil(columns) * columns * padded);
                interleave(values, inputs, (columns, 2), bf16::to_bits, &mut panels);
                Panels::Bf16(panels)
            }
        }
    }
}

/// Inputs of a panel whose steps have `depth` of them: where tiles are multiplied, whole steps of those.
pub(super) fn padded_inputs<S: Simd, V>(simd: S, inputs: usize, depth: usize) -> usize {
    inputs.next_multiple_of(if simd.tiles().is_some() { STEP_BYTES / size_of::<V>() } else { depth })
}

/// Values below which starting other threads to interleave them costs more than it saves.
const LEAST_TO_SHARE: usize = 32 * 1024;

/// Puts the rows of `[.., inputs]` side by side, `width` at a time: `[group of rows, step, row of the group, input of the
/// step]`, steps of `depth` inputs. Groups share `packed` evenly. Rows that are missing in the last group are left as they are;
/// inputs that are missing in the last steps are 0. On all threads, unless it is little.
pub(crate) fn interleave<T: Copy + Sync, P: Plain>(
    values: &[T],
    inputs: usize,
    (width, depth): (usize, usize),
    convert: impl Fn(T) -> P + Copy + Sync,
    packed: &mut [P],
) {
    let rows = width * inputs;
    if rows == 0 || values.is_empty() {
        return;
    }
    let group = packed.len() / values.len().div_ceil(rows);
    if values.len() < LEAST_TO_SHARE {
        let groups = packed.chunks_exact_mut(group).zip(values.chunks(rows));
        groups.for_each(|(group, rows)| interleave_rows(rows, inputs, (width, depth), convert, group));
    } else {
        let groups = packed.par_chunks_exact_mut(group).zip(values.par_chunks(rows));
        groups.for_each(|(group, rows)| interleave_rows(rows, inputs, (width, depth), convert, group));
    }
}

/// Inputs of a step of tiles of bf16.
const TILED_BF16: usize = STEP_BYTES / size_of::<bf16>();

pub(super) fn interleave_rows<T: Copy, P: Plain>(
    rows: &[T],
    inputs: usize,
    (width, depth): (usize, usize),
    convert: impl Fn(T) -> P,
    group: &mut [P],
) {
    match (depth, width) {
        (1, 4) => interleave_group::<4, 1, _, _>(rows, inputs, convert, group),
        (1, 6) => interleave_group::<6, 1, _, _>(rows, inputs, convert, group),
        (1, 8) => interleave_group::<8, 1, _, _>(rows, inputs, convert, group),
        (1, 12) => interleave_group::<12, 1, _, _>(rows, inputs, convert, group),
        (1, 16) => interleave_group::<16, 1, _, _>(rows, inputs, convert, group),
        (1, 32) => interleave_group::<32, 1, _, _>(rows, inputs, convert, group),
        (TILED_BF16, SUMMED_SIDE) => interleave_group::<SUMMED_SIDE, TILED_BF16, _, _>(rows, inputs, convert, group),
        (4, 8) => interleave_group::<8, 4, _, _>(rows, inputs, convert, group),
        (4, 16) => interleave_group::<16, 4, _, _>(rows, inputs, convert, group),
        (4, 32) => interleave_group::<32, 4, _, _>(rows, inputs, convert, group),
        (2, 4) => interleave_group::<4, 2, _, _>(rows, inputs, convert, group),
        (2, 6) => interleave_group::<6, 2, _, _>(rows, inputs, convert, group),
        (2, 8) => interleave_group::<8, 2, _, _>(rows, inputs, convert, group),
        (2, 12) => interleave_group::<12, 2, _, _>(rows, inputs, convert, group),
        (2, 16) => interleave_group::<16, 2, _, _>(rows, inputs, convert, group),
        (2, 32) => interleave_group::<32, 2, _, _>(rows, inputs, convert, group),
        _ => unreachable!("tiles have no other shapes"),
    }
}

/// One group. All its rows are read side by side, so that what is written is written in order.
fn interleave_group<const WIDTH: usize, const DEPTH: usize, T: Copy, P: Plain>(
    values: &[T],
    inputs: usize,
    convert: impl Fn(T) -> P,
    packed: &mut [P],
) {
    let count = values.len() / inputs;
    // A row that is missing is a copy of the first, and not written.
    let rows: [&[T]; WIDTH] =
        std::array::from_fn(|row| &values[if row < count { row * inputs } else { 0 }..][..inputs]);
    for (index, step) in packed.chunks_exact_mut(WIDTH * DEPTH).enumerate() {
        let depth = DEPTH.min(inputs.saturating_sub(index * DEPTH));
        if depth == DEPTH && count == WIDTH {
            for row in 0..WIDTH {
                for input in 0..DEPTH {
                    step[row * DEPTH + input] = convert(rows[row][index * DEPTH + input]);
                }
            }
        } else {
            for (row, values) in rows.iter().enumerate().take(count) {
                let place = &mut step[row * DEPTH..][..DEPTH];
                place[depth..].fill(P::default());
                let values = values.get(index * DEPTH..).unwrap_or_default();
                place.iter_mut().zip(values).for_each(|(packed, value)| *packed = convert(*value));
            }
        }
    }
}

/// The panels of a few rows that are widened where they are used: `[panel, input, column]` from `rows`
/// `[rows of the panels, inputs]`.
pub(super) fn pack_widened(rows: &[f32], inputs: usize, columns: usize, panels: &mut [f32]) {
    if !rows.len().is_multiple_of(columns * inputs.max(1)) {
        panels.fill(0.0);
    }
    let groups = panels.chunks_exact_mut((columns * inputs).max(1)).zip(rows.chunks((columns * inputs).max(1)));
    groups.for_each(|(panel, rows)| interleave_rows(rows, inputs, (columns, 1), |value| value, panel));
}
