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

use super::left::StripValue;
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
    type A: Plain;
    /// What panels of B are made of.
    type B: Plain;
    /// Inputs per step: values of one row of A, or column of B, that lie side by side.
    const DEPTH: usize;
    /// Parts of a step, each with registers of its own.
    const PARTS: usize;
    /// Values are integers of 8 bits.
    const IS_INT8: bool = false;

    type Left<S: Simd>: Copy;
    type Right<S: Simd>: Copy;
    /// What products are summed in.
    type Sums: Sums;

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
    fn add<S: Simd>(simd: S, a: Self::Left<S>, b: Self::Right<S>, c: Sum<S, Self>) -> Sum<S, Self>;
}

/// A register of sums.
pub(crate) type Sum<S, P> = <<P as Product>::Sums as Sums>::Register<S>;

/// What products are summed in.
pub(crate) trait Sums {
    /// Inputs whose products are summed in registers, before the sums are added to a tile in memory.
    const INPUTS_AT_ONCE: usize;

    type Register<S: Simd>: Copy;

    fn zero<S: Simd>(simd: S) -> Self::Register<S>;

    /// Reads a register of sums.
    ///
    /// # Safety
    /// `sums` points to as many values.
    unsafe fn load<S: Simd>(simd: S, sums: *const f32) -> Self::Register<S>;

    /// Writes a register of sums to a tile, or adds it to what is there. Sums of integers keep their bits in a tile of f32.
    ///
    /// # Safety
    /// `tile` points to as many values.
    unsafe fn keep<S: Simd>(simd: S, sum: Self::Register<S>, tile: *mut f32, is_first: bool);
}

/// One whose sums are f32 and whose values are numbers as they are, so that strips can be made of activations one by one.
pub(crate) trait FloatProduct: Product<A: StripValue> {}

/// Rows of A that a tile reads.
pub(crate) trait Strip<P: Product>: Copy {
    /// Reads the first `ROWS` of a strip of `HEIGHT`, of which there are `count`.
    ///
    /// # Safety
    /// `count` is not 0, and the rows are there.
    unsafe fn cursor<const HEIGHT: usize, const ROWS: usize>(self, count: usize) -> impl Cursor<P>;
}

/// Stands at a step of some rows.
pub(crate) trait Cursor<P: Product>: Copy {
    /// A row's values of the step.
    ///
    /// # Safety
    /// The step is one of the strip's, and the row one of the cursor's.
    unsafe fn row(self, row: usize) -> *const P::A;

    /// Goes on to the next step.
    ///
    /// # Safety
    /// The step is one of the strip's.
    unsafe fn advance(&mut self);
}

/// Rows that were packed: `[step, row, input of the step]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PackedStrip<P: Product>(pub(crate) *const P::A);

#[derive(Debug, Clone, Copy)]
struct PackedCursor<P: Product, const HEIGHT: usize>(*const P::A);

impl<P: Product> Strip<P> for PackedStrip<P> {
    #[inline(always)]
    unsafe fn cursor<const HEIGHT: usize, const ROWS: usize>(self, _: usize) -> impl Cursor<P> {
        PackedCursor::<P, HEIGHT>(self.0)
    }
}

impl<P: Product, const HEIGHT: usize> Cursor<P> for PackedCursor<P, HEIGHT> {
    #[inline(always)]
    unsafe fn row(self, row: usize) -> *const P::A {
        // SAFETY: by the conditions of this function.
        unsafe { self.0.add(row * P::DEPTH) }
    }

    #[inline(always)]
    unsafe fn advance(&mut self) {
        // SAFETY: by the conditions of this function.
        self.0 = unsafe { self.0.add(HEIGHT * P::DEPTH) };
    }
}

/// Rows where they lie: `row` values from one to the next, and `step` from the first value of a step to that of the next. The
/// inputs of a step lie side by side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StripInPlace<P: Product> {
    pub(crate) first: *const P::A,
    pub(crate) row: usize,
    pub(crate) step: usize,
}

#[derive(Debug, Clone, Copy)]
struct InPlaceCursor<P: Product, const ROWS: usize> {
    rows: [*const P::A; ROWS],
    step: usize,
    place: usize,
}

impl<P: Product> Strip<P> for StripInPlace<P> {
    #[inline(always)]
    unsafe fn cursor<const HEIGHT: usize, const ROWS: usize>(self, count: usize) -> impl Cursor<P> {
        let mut rows = [self.first; ROWS];
        for (index, row) in rows.iter_mut().enumerate() {
            // A row that is missing is the last once more; nobody reads its sums.
            // SAFETY: by the conditions of this function.
            *row = unsafe { self.first.add(index.min(count - 1) * self.row) };
        }
        InPlaceCursor::<P, ROWS> { rows, step: self.step, place: 0 }
    }
}

impl<P: Product, const ROWS: usize> Cursor<P> for InPlaceCursor<P, ROWS> {
    #[inline(always)]
    unsafe fn row(self, row: usize) -> *const P::A {
        // SAFETY: by the conditions of this function.
        unsafe { self.rows[row].add(self.place) }
    }

    #[inline(always)]
    unsafe fn advance(&mut self) {
        self.place += self.step;
    }
}

/// The sums of a tile over `steps`: written to `c`, `[tile rows, tile columns]`, or added to what is there. Of the rows of
/// the strip only the first `rows`, and perhaps some after them, are computed.
///
/// # Safety
/// `a` has `steps` steps of a strip, `b` points to those of a panel, `c` to a tile, all of `TileShape::of::<S>()`.
#[inline(always)]
pub(crate) unsafe fn add_tile<S: Simd, P: Product>(
    simd: S,
    a: impl Strip<P>,
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
            (_, 1, 1) => sums::<S, P, 1, 1>(simd, a.cursor::<4, 1>(rows), b, steps, c, is_first),
            (_, 1, _) => sums::<S, P, 4, 1>(simd, a.cursor::<4, 4>(rows), b, steps, c, is_first),
            (6, _, 1) => sums::<S, P, 1, 2>(simd, a.cursor::<6, 1>(rows), b, steps, c, is_first),
            (6, _, 2) => sums::<S, P, 2, 2>(simd, a.cursor::<6, 2>(rows), b, steps, c, is_first),
            (6, _, 3 | 4) => sums::<S, P, 4, 2>(simd, a.cursor::<6, 4>(rows), b, steps, c, is_first),
            (6, ..) => sums::<S, P, 6, 2>(simd, a.cursor::<6, 6>(rows), b, steps, c, is_first),
            (_, _, 1) => sums::<S, P, 1, 2>(simd, a.cursor::<12, 1>(rows), b, steps, c, is_first),
            (_, _, 2) => sums::<S, P, 2, 2>(simd, a.cursor::<12, 2>(rows), b, steps, c, is_first),
            (_, _, 3 | 4) => sums::<S, P, 4, 2>(simd, a.cursor::<12, 4>(rows), b, steps, c, is_first),
            (_, _, 5..=8) => sums::<S, P, 8, 2>(simd, a.cursor::<12, 8>(rows), b, steps, c, is_first),
            _ => sums::<S, P, 12, 2>(simd, a.cursor::<12, 12>(rows), b, steps, c, is_first),
        }
    }
}

/// The first `ROWS` rows of a tile of `VECTORS` registers of columns.
///
/// # Safety
/// As [`add_tile`].
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "iterators would be closures, compiled for other registers")]
unsafe fn sums<S: Simd, P: Product, const ROWS: usize, const VECTORS: usize>(
    simd: S,
    a: impl Cursor<P>,
    b: *const P::B,
    steps: usize,
    c: *mut f32,
    is_first: bool,
) {
    let mut sums = [[P::Sums::zero(simd); VECTORS]; ROWS];
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
                    let left = P::spread(simd, a.row(row), part);
                    for vector in 0..VECTORS {
                        sums[row][vector] = P::add(simd, left, right[vector], sums[row][vector]);
                    }
                }
            }
            a.advance();
            b = b.add(VECTORS * S::COUNT * P::DEPTH);
        }
        for row in 0..ROWS {
            for vector in 0..VECTORS {
                P::Sums::keep(simd, sums[row][vector], c.add((row * VECTORS + vector) * S::COUNT), is_first);
            }
        }
    }
}
