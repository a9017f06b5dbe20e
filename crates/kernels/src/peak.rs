//! What the multipliers give when nothing has to be loaded: the bound that benches put beside their figures.

use rayon::prelude::*;

use crate::buffer::{Aligned, with_scratch};
use crate::simd::{Kernel, Simd, dispatch};

/// Multiplications of registers per sum: some milliseconds, so that a thread that has to wake up first does its share.
const STEPS: usize = 2_000_000;
/// Sums that do not wait for each other.
const SUMS: usize = 12;

/// Multiplies and adds on all threads, in f32 or as sums of products of bf16, out of registers. Answers how many floating
/// point operations that were.
pub fn peak_products(bf16: bool) -> u64 {
    let threads = rayon::current_num_threads();
    (0..threads).into_par_iter().with_max_len(1).map(|_| dispatch(Peak { bf16 })).sum()
}

struct Peak {
    bf16: bool,
}

impl Kernel for Peak {
    type Output = u64;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> u64 {
        let values = Aligned::<u16>::zeros(2 * S::COUNT);
        let mut sums = [simd.splat(0.0); SUMS];
        // SAFETY: there are as many pairs.
        let pairs = unsafe { simd.load_pairs(values.as_ptr()) };
        let factor = simd.splat(std::hint::black_box(0.5));
        let pairs_at_once = if self.bf16 && S::HAS_BF16 { 2 } else { 1 };
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = if pairs_at_once == 2 {
                    simd.add_pair_products(pairs, pairs, *sum)
                } else {
                    simd.mul_add(*sum, factor, factor)
                };
            }
        }
        with_scratch::<f32, _>(S::COUNT, |place| {
            for sum in sums {
                // SAFETY: there is room for a register.
                unsafe { simd.store(sum, place.as_mut_ptr()) };
                std::hint::black_box(&mut *place);
            }
        });
        (STEPS * SUMS * S::COUNT * 2 * pairs_at_once) as u64
    }
}
