//! The ways values are stored and multiplied.

use super::tile::Product;
use crate::simd::Simd;

/// f32 times f32.
#[derive(Debug, Clone, Copy)]
pub(crate) struct F32;

/// f32 times bf16 that lies in pairs of inputs, widened.
#[derive(Debug, Clone, Copy)]
pub(super) struct WidenedBf16;

/// Pairs of bf16 times pairs of bf16, summed in f32.
#[derive(Debug, Clone, Copy)]
pub(super) struct PairsOfBf16;

/// f32 times f16, widened.
#[derive(Debug, Clone, Copy)]
pub(super) struct WidenedF16;

impl Product for F32 {
    type A = f32;
    type B = f32;
    const DEPTH: usize = 1;
    const PARTS: usize = 1;
    type Left<S: Simd> = S::Lanes;
    type Right<S: Simd> = S::Lanes;

    #[inline(always)]
    unsafe fn spread<S: Simd>(simd: S, a: *const f32, _: usize) -> S::Lanes {
        // SAFETY: by the conditions of this function.
        simd.splat(unsafe { *a })
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, b: *const f32, _: usize) -> S::Lanes {
        // SAFETY: by the conditions of this function.
        unsafe { simd.load(b) }
    }

    #[inline(always)]
    fn add<S: Simd>(simd: S, a: S::Lanes, b: S::Lanes, c: S::Lanes) -> S::Lanes {
        simd.mul_add(a, b, c)
    }
}

impl Product for WidenedBf16 {
    type A = f32;
    type B = u16;
    const DEPTH: usize = 2;
    const PARTS: usize = 2;
    type Left<S: Simd> = S::Lanes;
    type Right<S: Simd> = S::Lanes;

    #[inline(always)]
    unsafe fn spread<S: Simd>(simd: S, a: *const f32, part: usize) -> S::Lanes {
        // SAFETY: by the conditions of this function.
        simd.splat(unsafe { *a.add(part) })
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, b: *const u16, part: usize) -> S::Lanes {
        // SAFETY: by the conditions of this function. Loading twice spares the register that the other half would take.
        let (early, late) = simd.widen(unsafe { simd.load_pairs(b) });
        if part == 0 { early } else { late }
    }

    #[inline(always)]
    fn add<S: Simd>(simd: S, a: S::Lanes, b: S::Lanes, c: S::Lanes) -> S::Lanes {
        simd.mul_add(a, b, c)
    }
}

impl Product for PairsOfBf16 {
    type A = u16;
    type B = u16;
    const DEPTH: usize = 2;
    const PARTS: usize = 1;
    type Left<S: Simd> = S::Pairs;
    type Right<S: Simd> = S::Pairs;

    #[inline(always)]
    unsafe fn spread<S: Simd>(simd: S, a: *const u16, _: usize) -> S::Pairs {
        // SAFETY: by the conditions of this function.
        unsafe { simd.splat_pair(a) }
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, b: *const u16, _: usize) -> S::Pairs {
        // SAFETY: by the conditions of this function.
        unsafe { simd.load_pairs(b) }
    }

    #[inline(always)]
    fn add<S: Simd>(simd: S, a: S::Pairs, b: S::Pairs, c: S::Lanes) -> S::Lanes {
        simd.add_pair_products(a, b, c)
    }
}

impl Product for WidenedF16 {
    type A = f32;
    type B = u16;
    const DEPTH: usize = 1;
    const PARTS: usize = 1;
    type Left<S: Simd> = S::Lanes;
    type Right<S: Simd> = S::Lanes;

    #[inline(always)]
    unsafe fn spread<S: Simd>(simd: S, a: *const f32, _: usize) -> S::Lanes {
        // SAFETY: by the conditions of this function.
        simd.splat(unsafe { *a })
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, b: *const u16, _: usize) -> S::Lanes {
        // SAFETY: by the conditions of this function.
        unsafe { simd.load_f16(b) }
    }

    #[inline(always)]
    fn add<S: Simd>(simd: S, a: S::Lanes, b: S::Lanes, c: S::Lanes) -> S::Lanes {
        simd.mul_add(a, b, c)
    }
}
