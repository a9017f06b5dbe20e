//! Root mean square norm, and rotary positions.

use std::marker::PhantomData;

use crate::error::KernelError;
use crate::kernel::Kernel;
use crate::launch::{Launch, Parameters, Span, are_wide, at_least, count, threads_for};
use crate::value_type::ValueType;

const OPERATOR: &str = "norm and turn";
const WARP: usize = 32;
/// Accesses of a lane to a head, as in the kernels.
const HELD: usize = 2;
/// Accesses of a thread to a long row, as in the kernels.
const HELD_OF_ROW: usize = 4;
/// As in the kernels.
const THREADS: u32 = 128;
/// As in the kernels.
const ROW_THREADS: u32 = 256;

/// `x / sqrt(mean of squares + eps) * weight` of every vector, and then the turn of its pairs of values.
#[derive(Debug, Clone, Copy)]
pub struct NormAndTurn<'a> {
    /// Of all values but the angles.
    pub value_type: ValueType,
    /// Number of tokens.
    pub tokens: usize,
    /// Vectors of a token, which lie side by side: heads.
    pub vectors: usize,
    /// Values of a vector.
    pub size: usize,
    /// Tokens begin `stride` values apart.
    pub x: Span<'a>,
    /// From one token to the next.
    pub stride: usize,
    /// Weight, `[size]`, and epsilon.
    pub norm: Option<(Span<'a>, f32)>,
    /// Angles.
    pub turn: Option<Turn<'a>>,
    /// `[tokens, vectors, size]`, with room between rows where others lie there.
    pub output: Span<'a>,
    /// `None` if nothing lies between rows of the output.
    pub rows: Option<Rows>,
}

/// Rows of tokens that are written between those of others.
#[derive(Debug, Clone, Copy)]
pub struct Rows {
    /// Tokens of a row.
    pub tokens: usize,
    /// Tokens of others between two rows.
    pub between: usize,
}

/// Angles of the tokens of a row; all rows have the same.
#[derive(Debug, Clone, Copy)]
pub struct Turn<'a> {
    /// f32, `[tokens of a row, size / 2]`.
    pub cosines: Span<'a>,
    /// f32, `[tokens of a row, size / 2]`.
    pub sines: Span<'a>,
    /// Tokens of a row.
    pub tokens: usize,
    /// What is turned.
    pub pairs: Pairs,
}

/// Which values of a vector are a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairs {
    /// Neighbours.
    Neighbours,
    /// One of the first half, and the one of the second at the same place.
    Halves,
}

/// `NormAndTurn` of `cuda/norm_and_turn.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct NormAndTurnParameters {
    x: u64,
    weight: u64,
    cosines: u64,
    sines: u64,
    output: u64,
    total: u32,
    vectors: u32,
    size: u32,
    stride: u32,
    angles: u32,
    halves: u32,
    lanes: u32,
    row: u32,
    between: u32,
    eps: f32,
}

// SAFETY: the fields are those of the kernel's structure.
unsafe impl Parameters for NormAndTurnParameters {}

impl<'a> NormAndTurn<'a> {
    /// How it is launched.
    ///
    /// # Errors
    /// If operands do not fit each other.
    pub fn launch(&self) -> Result<Launch<'a, NormAndTurnParameters>, KernelError> {
        let Self { value_type, tokens, vectors, size, x, stride, norm, turn, output, rows } = *self;
        if turn.is_some() && !size.is_multiple_of(2) {
            let supported = "an even number";
            return Err(KernelError::Size { operator: OPERATOR, quantity: "a turned vector", found: size, supported });
        }
        let total = tokens * vectors;
        let angles = turn.map_or(1, |turn| turn.tokens.max(1));
        let (cosines, sines) = turn.map(|turn| (turn.cosines, turn.sines)).unzip();
        let rows = rows.unwrap_or(Rows { tokens, between: 0 });
        let row_tokens = rows.tokens.max(1);
        let skipped = tokens.saturating_sub(1) / row_tokens * rows.between * vectors;
        let read = if tokens == 0 { 0 } else { (tokens - 1) * stride + vectors * size };
        let mut parameters = NormAndTurnParameters {
            x: at_least(Some(x), read, OPERATOR, "x")?,
            weight: at_least(norm.map(|norm| norm.0), size, OPERATOR, "weight")?,
            cosines: at_least(cosines, angles * size / 2, OPERATOR, "cosines")?,
            sines: at_least(sines, angles * size / 2, OPERATOR, "sines")?,
            output: at_least(Some(output), (total + skipped) * size, OPERATOR, "output")?,
            total: count(total, OPERATOR, "vectors")?,
            vectors: count(vectors.max(1), OPERATOR, "a token")?,
            size: count(size, OPERATOR, "a vector")?,
            stride: count(stride, OPERATOR, "stride")?,
            angles: count(angles, OPERATOR, "angles")?,
            halves: turn.is_some_and(|turn| turn.pairs == Pairs::Halves).into(),
            lanes: WARP as u32,
            row: count((row_tokens * vectors).max(1), OPERATOR, "a row")?,
            between: count(rows.between * vectors, OPERATOR, "what lies between rows")?,
            eps: norm.map_or(0.0, |norm| norm.1),
        };
        let (kernels, threads) = self.kernels();
        let accesses = size / value_type.widest();
        let is_of_heads = kernels[0] == Kernel::NormAndTurnF32;
        if is_of_heads {
            parameters.lanes = accesses.next_power_of_two().min(WARP) as u32;
        }
        let blocks = if kernels[0] == Kernel::RmsNormF32 {
            parameters.total
        } else {
            count(total * parameters.lanes as usize, OPERATOR, "threads")?.div_ceil(THREADS)
        };
        Ok(Launch {
            kernel: value_type.of(kernels),
            blocks: [blocks, u32::from(size > 0), 1],
            threads,
            shared_bytes: 0,
            parameters,
            operands: PhantomData,
        })
    }

    /// Those for operands of this size and place, and their threads.
    fn kernels(&self) -> ([Kernel; 3], u32) {
        let Self { value_type, size, x, stride, norm, turn, output, .. } = *self;
        let widest = value_type.widest();
        let (cosines, sines) = turn.map(|turn| (turn.cosines, turn.sines)).unzip();
        let halves_are_wide =
            turn.is_none_or(|turn| turn.pairs == Pairs::Neighbours || (size / 2).is_multiple_of(widest));
        let is_wide = are_wide(&[Some(x), norm.map(|norm| norm.0), cosines, sines, Some(output)], size, value_type)
            && stride.is_multiple_of(widest)
            && halves_are_wide;
        if is_wide && size <= HELD * widest * WARP {
            return ([Kernel::NormAndTurnF32, Kernel::NormAndTurnF16, Kernel::NormAndTurnBf16], THREADS);
        }
        if is_wide && turn.is_none() && size <= HELD_OF_ROW * widest * ROW_THREADS as usize {
            let threads = threads_for(size, 2 * widest, ROW_THREADS);
            return ([Kernel::RmsNormF32, Kernel::RmsNormF16, Kernel::RmsNormBf16], threads);
        }
        ([Kernel::NormAndTurnAnyF32, Kernel::NormAndTurnAnyF16, Kernel::NormAndTurnAnyBf16], THREADS)
    }
}
