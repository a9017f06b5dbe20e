//! The ways tiles of C are summed: in registers of lanes, or by a unit that multiplies tiles.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use super::int8::Int8;
use super::product::PairsOfBf16;
use super::tile::{self, PackedStrip, Product, StripInPlace, Sums, TileShape};
use crate::buffer::Plain;
use crate::simd::{self, Kernel, STEP_BYTES, SUMMED_SIDE, Simd, Tiled, Tiles};

/// How tiles of C are summed.
pub(crate) trait Way: Copy + Send + Sync {
    /// What rows of A are made of.
    type A: Plain;
    /// What panels of B are made of.
    type B: Plain;
    /// Inputs per step.
    const DEPTH: usize;
    /// Inputs of a step that lie side by side in B, for one column after the other.
    const GROUP: usize;
    /// Steps that are summed before the sums are added to a tile in memory.
    const STEPS_AT_ONCE: usize;

    fn shape<S: Simd>() -> TileShape;

    /// Runs a kernel that calls [`Self::add_tile`].
    fn run<S: Simd, K: Kernel>(simd: S, kernel: K) -> K::Output;

    /// The sums of a tile over `steps`: written to `c`, `[tile rows, tile columns]`, or added to what is there. Of the rows of A
    /// only the first `rows`, and perhaps some after them, are computed.
    ///
    /// # Safety
    /// `a` has as many steps of as many rows, `b` points to those of a panel, `c` to a tile of [`Self::shape`].
    unsafe fn add_tile<S: Simd>(
        simd: S,
        a: LeftTile<Self::A>,
        b: *const Self::B,
        steps: usize,
        rows: usize,
        c: *mut f32,
        is_first: bool,
    );
}

/// Rows of A that a tile reads.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LeftTile<A> {
    /// `[step, row, input of the step]`
    Packed(*const A),
    /// `stride` values from one to the next.
    InPlace { first: *const A, stride: usize },
}

impl<P: Product> Way for P {
    type A = P::A;
    type B = P::B;
    const DEPTH: usize = P::DEPTH;
    const GROUP: usize = P::DEPTH;
    const STEPS_AT_ONCE: usize = P::Sums::INPUTS_AT_ONCE / P::DEPTH;

    #[inline(always)]
    fn shape<S: Simd>() -> TileShape {
        const { TileShape::of::<S>() }
    }

    #[inline(always)]
    fn run<S: Simd, K: Kernel>(simd: S, kernel: K) -> K::Output {
        if P::IS_INT8 { simd.run_int8(kernel) } else { simd.run(kernel) }
    }

    #[inline(always)]
    unsafe fn add_tile<S: Simd>(
        simd: S,
        a: LeftTile<P::A>,
        b: *const P::B,
        steps: usize,
        rows: usize,
        c: *mut f32,
        is_first: bool,
    ) {
        // SAFETY: by the conditions of this function.
        unsafe {
            match a {
                LeftTile::Packed(strip) => {
                    tile::add_tile::<S, P>(simd, PackedStrip(strip), b, steps, rows, c, is_first)
                }
                LeftTile::InPlace { first, stride } => {
                    let strip = StripInPlace { first, row: stride, step: P::DEPTH };
                    tile::add_tile::<S, P>(simd, strip, b, steps, rows, c, is_first);
                }
            }
        }
    }
}

/// Products whose values a unit for tiles takes as they are, in groups of four bytes.
pub(crate) trait TiledProduct: Product {
    const VALUES: Tiled;
}

impl TiledProduct for PairsOfBf16 {
    const VALUES: Tiled = Tiled::Bf16;
}

impl TiledProduct for Int8 {
    const VALUES: Tiled = Tiled::Int8;
}

/// By the unit for tiles that the CPU has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct InTiles<P>(PhantomData<P>);

/// Steps that tiles are summed over: those of a panel are 32 KiB.
const TILED_STEPS: usize = 16;

impl<P: TiledProduct> Way for InTiles<P> {
    type A = P::A;
    type B = P::B;
    const DEPTH: usize = STEP_BYTES / size_of::<P::A>();
    const GROUP: usize = P::DEPTH;
    const STEPS_AT_ONCE: usize = TILED_STEPS;

    #[inline(always)]
    fn shape<S: Simd>() -> TileShape {
        let shape = TileShape { rows: SUMMED_SIDE, columns: const { TileShape::of::<S>().columns } };
        debug_assert_eq!(shape.columns, SUMMED_SIDE, "columns of panels");
        shape
    }

    #[inline(always)]
    fn run<S: Simd, K: Kernel>(simd: S, kernel: K) -> K::Output {
        simd.run(kernel)
    }

    #[inline(always)]
    unsafe fn add_tile<S: Simd>(
        simd: S,
        a: LeftTile<P::A>,
        b: *const P::B,
        steps: usize,
        rows: usize,
        c: *mut f32,
        is_first: bool,
    ) {
        let tiles = simd.tiles().expect("chosen where there are some");
        let a = match a {
            LeftTile::Packed(first) => {
                simd::TileRows { first: first.cast(), row: STEP_BYTES, step: SUMMED_SIDE * STEP_BYTES }
            }
            LeftTile::InPlace { first, stride } => {
                simd::TileRows { first: first.cast(), row: stride * size_of::<P::A>(), step: STEP_BYTES }
            }
        };
        // SAFETY: by the conditions of this function; there is room for as many rows of sums.
        unsafe {
            if is_first {
                return tiles.multiply(P::VALUES, a, b.cast(), steps, rows, c);
            }
            let mut sums = MaybeUninit::<[f32; SUMMED_SIDE * SUMMED_SIDE]>::uninit();
            let sums = sums.as_mut_ptr().cast::<f32>();
            tiles.multiply(P::VALUES, a, b.cast(), steps, rows, sums);
            for place in (0..rows * SUMMED_SIDE).step_by(S::COUNT) {
                P::Sums::keep(simd, P::Sums::load(simd, sums.add(place)), c.add(place), false);
            }
        }
    }
}
