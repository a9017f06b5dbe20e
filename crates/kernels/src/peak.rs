//! What the multipliers give when nothing has to be loaded: the bound that benches put beside their figures.

use rayon::prelude::*;

use crate::buffer::Aligned;
use crate::simd::{Kernel, Simd, Tiled, Tiles, dispatch, operations_repeated};

/// Multiplications of registers per sum: some milliseconds, so that a thread that has to wake up first does its share.
const STEPS: usize = 2_000_000;
/// Sums that do not wait for each other.
const SUMS: usize = 12;

/// What is multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Multiplied {
    /// f32.
    F32,
    /// Pairs of bf16, where sums of their products are an instruction; else f32.
    Bf16,
    /// Groups of four integers of 8 bits, where sums of their products are an instruction; else f32.
    Int8,
}

/// Multiplies and adds on all threads, out of registers. Answers how many operations that were.
pub fn peak_products(what: Multiplied) -> u64 {
    let threads = rayon::current_num_threads();
    (0..threads).into_par_iter().with_max_len(1).map(|_| dispatch(Peak { what })).sum()
}

/// Sums that go on for [`STEPS`]. A closure would be compiled for other registers.
macro_rules! repeat {
    ($zero:expr, |$sum:ident| $next:expr) => {
        let mut sums = [$zero; SUMS];
        for _ in 0..STEPS {
            for sum in &mut sums {
                let $sum = *sum;
                *sum = $next;
            }
        }
        std::hint::black_box(&sums);
    };
}

struct Peak {
    what: Multiplied,
}

impl Kernel for Peak {
    type Output = u64;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> u64 {
        match (self.what, simd.tiles()) {
            (Multiplied::Bf16, Some(tiles)) => repeat_tiles(tiles, Tiled::Bf16),
            (Multiplied::Int8, Some(tiles)) => repeat_tiles(tiles, Tiled::Int8),
            (Multiplied::Int8, None) => simd.run_int8(InRegisters { what: self.what }),
            (what, _) => simd.run(InRegisters { what }),
        }
    }
}

/// Tiles that are multiplied.
const TILES: usize = 200_000;

#[inline(always)]
fn repeat_tiles(tiles: impl Tiles, what: Tiled) -> u64 {
    tiles.repeat(what, TILES);
    (TILES * operations_repeated(what)) as u64
}

struct InRegisters {
    what: Multiplied,
}

impl Kernel for InRegisters {
    type Output = u64;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> u64 {
        let values = Aligned::<u16>::zeros(2 * S::COUNT);
        let factor = simd.splat(std::hint::black_box(0.5));
        let at_once = match self.what {
            Multiplied::Bf16 if S::HAS_BF16 => {
                // SAFETY: there are as many pairs.
                let pairs = unsafe { simd.load_pairs(values.as_ptr()) };
                repeat!(simd.splat(0.0), |sum| simd.add_pair_products(pairs, pairs, sum));
                2
            }
            Multiplied::Int8 if S::HAS_INT8 => {
                // SAFETY: there are as many groups.
                let quads = unsafe { simd.load_quads(values.as_ptr().cast()) };
                repeat!(simd.no_ints(), |sum| simd.add_quad_products(quads, quads, sum));
                4
            }
            _ => {
                repeat!(simd.splat(0.0), |sum| simd.mul_add(sum, factor, factor));
                1
            }
        };
        (STEPS * SUMS * S::COUNT * 2 * at_once) as u64
    }
}
