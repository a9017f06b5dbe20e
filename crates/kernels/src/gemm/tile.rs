//! The micro-kernel: a tile of C, as many sums as fit the registers, over some of the inputs.
//!
//! Per input, a column of A (one value per row of the tile, side by side in a strip) is multiplied with a row of B (one
//! value per column of the tile, side by side in a panel): every value of A is spread over a register once, every
//! register of B is loaded once, and each is used for a whole row or column of sums. With R registers, `rows * vectors`
//! of them sums, one product needs `(rows + vectors) / (rows * vectors)` loads; CPUs load two registers while they
//! multiply two, so anything below 1 keeps the multipliers busy:
//!
//! | instruction set | registers | tile | sums | loads per product |
//! |---|---|---|---|---|
//! | AVX-512 | 32 of 16 | 12 x 2 | 24 | 0.58 |
//! | AVX2 | 16 of 8 | 6 x 2 | 12 | 0.67 |
//! | NEON | 32 of 4 | 6 x 2 pairs | 24 | 0.5 |
//! | SSE2 | 16 of 4 | 4 x 1 pair | 8 | 0.75 |

use super::strips::StripValue;
use crate::buffer::Plain;
use crate::simd::Simd;

/// How tiles are shaped for an instruction set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TileShape {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

impl TileShape {
    pub(crate) const fn of<S: Simd>() -> Self {
        Self { rows: S::TILE.0, columns: S::TILE.1 * S::COUNT }
    }

    pub(crate) const fn area(self) -> usize {
        self.rows * self.columns
    }
}

/// How values of A and B are stored and multiplied.
pub(crate) trait Product: Copy + Send + Sync {
    /// What strips of A are made of.
    type A: StripValue;
    /// What panels of B are made of.
    type B: Plain;
    /// Inputs per step: values of one row of A, or column of B, that lie side by side.
    const DEPTH: usize;
    /// Parts of a step, each with registers of its own.
    const PARTS: usize;

    type Left<S: Simd>: Copy;
    type Right<S: Simd>: Copy;

    /// One row's values of a step in all lanes.
    ///
    /// # Safety
    /// `a` points to [`Self::DEPTH`] values.
    unsafe fn spread<S: Simd>(simd: S, a: *const Self::A, part: usize) -> Self::Left<S>;

    /// A register's columns of a step.
    ///
    /// # Safety
    /// `b` points to as many columns' [`Self::DEPTH`] values.
    unsafe fn load<S: Simd>(simd: S, b: *const Self::B, part: usize) -> Self::Right<S>;

    /// `a * b + c`
    fn add<S: Simd>(simd: S, a: Self::Left<S>, b: Self::Right<S>, c: S::Lanes) -> S::Lanes;
}

/// The sums of a tile over `steps`: written to `c`, `[tile rows, tile columns]`, or added to what is there. Of the rows of
/// the strip only the first `rows`, and perhaps some after them, are computed.
///
/// # Safety
/// `a` points to `steps` steps of a strip, `b` to those of a panel, `c` to a tile, all of `TileShape::of::<S>()`.
#[inline(always)]
pub(crate) unsafe fn add_tile<S: Simd, P: Product>(
    simd: S,
    a: *const P::A,
    b: *const P::B,
    steps: usize,
    rows: usize,
    c: *mut f32,
    is_first: bool,
) {
    let shape = const { TileShape::of::<S>() };
    // SAFETY: by the conditions of this function; no arm computes more rows than the shape has.
    unsafe {
        match (shape.rows, S::TILE.1, rows) {
            (_, 1, 1) => sums::<S, P, 4, 1, 1>(simd, a, b, steps, c, is_first),
            (_, 1, _) => sums::<S, P, 4, 4, 1>(simd, a, b, steps, c, is_first),
            (6, _, 1) => sums::<S, P, 6, 1, 2>(simd, a, b, steps, c, is_first),
            (6, _, 2) => sums::<S, P, 6, 2, 2>(simd, a, b, steps, c, is_first),
            (6, _, 3 | 4) => sums::<S, P, 6, 4, 2>(simd, a, b, steps, c, is_first),
            (6, ..) => sums::<S, P, 6, 6, 2>(simd, a, b, steps, c, is_first),
            (_, _, 1) => sums::<S, P, 12, 1, 2>(simd, a, b, steps, c, is_first),
            (_, _, 2) => sums::<S, P, 12, 2, 2>(simd, a, b, steps, c, is_first),
            (_, _, 3 | 4) => sums::<S, P, 12, 4, 2>(simd, a, b, steps, c, is_first),
            (_, _, 5..=8) => sums::<S, P, 12, 8, 2>(simd, a, b, steps, c, is_first),
            _ => sums::<S, P, 12, 12, 2>(simd, a, b, steps, c, is_first),
        }
    }
}

/// The first `ROWS` rows of a tile of `VECTORS` registers of columns, of a strip of `STRIP` rows.
///
/// # Safety
/// As [`add_tile`].
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "iterators would be closures, compiled for other registers")]
unsafe fn sums<S: Simd, P: Product, const STRIP: usize, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    a: *const P::A,
    b: *const P::B,
    steps: usize,
    c: *mut f32,
    is_first: bool,
) {
    let mut sums = [[simd.splat(0.0); VECTORS]; ROWS];
    // SAFETY: by the conditions of this function.
    unsafe {
        let (mut a, mut b) = (a, b);
        for _ in 0..steps {
            for part in 0..P::PARTS {
                let mut right = [P::load(simd, b, part); VECTORS];
                for vector in 1..VECTORS {
                    right[vector] = P::load(simd, b.add(vector * S::COUNT * P::DEPTH), part);
                }
                for row in 0..ROWS {
                    let left = P::spread(simd, a.add(row * P::DEPTH), part);
                    for vector in 0..VECTORS {
                        sums[row][vector] = P::add(simd, left, right[vector], sums[row][vector]);
                    }
                }
            }
            a = a.add(STRIP * P::DEPTH);
            b = b.add(VECTORS * S::COUNT * P::DEPTH);
        }
        for row in 0..ROWS {
            for vector in 0..VECTORS {
                let c = c.add((row * VECTORS + vector) * S::COUNT);
                let before = if is_first { simd.splat(0.0) } else { simd.load(c) };
                simd.store(simd.add(before, sums[row][vector]), c);
            }
        }
    }
}
