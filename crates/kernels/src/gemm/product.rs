//! The ways values are stored and multiplied.

use std::marker::PhantomData;

use super::tile::{FloatProduct, Product, Sums};
use crate::buffer::Plain;
use crate::simd::Simd;

/// Sums in f32: 256 inputs of a panel of 32 columns are 32 KiB in f32, and few enough that sums stay exact.
#[derive(Debug)]
pub(crate) struct InF32;

/// f32 times weights that are f32 once they are loaded.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Widened<W>(PhantomData<W>);

/// f32 times f32.
pub(crate) type F32 = Widened<StoredF32>;
/// f32 times bf16 that lies in pairs of inputs.
pub(super) type WidenedBf16 = Widened<StoredBf16>;
/// f32 times f16.
pub(super) type WidenedF16 = Widened<StoredF16>;

/// How weights are stored in a panel.
pub(crate) trait StoredWeight: Copy + Send + Sync {
    type Value: Plain;
    /// Inputs that lie side by side.
    const DEPTH: usize;

    /// A register's columns of one of these inputs.
    ///
    /// # Safety
    /// `b` points to as many columns' [`Self::DEPTH`] values.
    unsafe fn load<S: Simd>(simd: S, b: *const Self::Value, input: usize) -> S::Lanes;
}

/// As they are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoredF32;

/// In pairs of inputs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoredBf16;

/// IEEE half precision.
#[derive(Debug, Clone, Copy)]
pub(crate) struct StoredF16;

/// Pairs of bf16 times pairs of bf16, summed in f32.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PairsOfBf16;

impl<W: StoredWeight> Product for Widened<W> {
    type A = f32;
    type B = W::Value;
    const DEPTH: usize = W::DEPTH;
    const PARTS: usize = W::DEPTH;
    type Left<S: Simd> = S::Lanes;
    type Right<S: Simd> = S::Lanes;
    type Sums = InF32;

    #[inline(always)]
    unsafe fn spread<S: Simd>(simd: S, a: *const f32, part: usize) -> S::Lanes {
        // SAFETY: by the conditions of this function.
        simd.splat(unsafe { *a.add(part) })
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, b: *const W::Value, part: usize) -> S::Lanes {
        // SAFETY: by the conditions of this function.
        unsafe { W::load(simd, b, part) }
    }

    #[inline(always)]
    fn add<S: Simd>(simd: S, a: S::Lanes, b: S::Lanes, c: S::Lanes) -> S::Lanes {
        simd.mul_add(a, b, c)
    }
}

impl<W: StoredWeight> FloatProduct for Widened<W> {}

impl Sums for InF32 {
    const INPUTS_AT_ONCE: usize = 256;
    type Register<S: Simd> = S::Lanes;

    #[inline(always)]
    fn zero<S: Simd>(simd: S) -> S::Lanes {
        simd.splat(0.0)
    }

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, sums: *const f32) -> S::Lanes {
        // SAFETY: by the conditions of this function.
        unsafe { simd.load(sums) }
    }

    #[inline(always)]
    unsafe fn keep<S: Simd>(simd: S, sum: S::Lanes, tile: *mut f32, is_first: bool) {
        // SAFETY: by the conditions of this function.
        unsafe {
            let before = if is_first { simd.splat(0.0) } else { simd.load(tile) };
            simd.store(simd.add(before, sum), tile);
        }
    }
}

impl StoredWeight for StoredF32 {
    type Value = f32;
    const DEPTH: usize = 1;

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, b: *const f32, _: usize) -> S::Lanes {
        // SAFETY: by the conditions of this function.
        unsafe { simd.load(b) }
    }
}

impl StoredWeight for StoredBf16 {
    type Value = u16;
    const DEPTH: usize = 2;

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, b: *const u16, input: usize) -> S::Lanes {
        // SAFETY: by the conditions of this function. Loading twice spares the register that the other half would take.
        let (early, late) = simd.widen(unsafe { simd.load_pairs(b) });
        if input == 0 { early } else { late }
    }
}

impl StoredWeight for StoredF16 {
    type Value = u16;
    const DEPTH: usize = 1;

    #[inline(always)]
    unsafe fn load<S: Simd>(simd: S, b: *const u16, _: usize) -> S::Lanes {
        // SAFETY: by the conditions of this function.
        unsafe { simd.load_f16(b) }
    }
}

impl Product for PairsOfBf16 {
    type A = u16;
    type B = u16;
    const DEPTH: usize = 2;
    const PARTS: usize = 1;
    type Left<S: Simd> = S::Pairs;
    type Right<S: Simd> = S::Pairs;
    type Sums = InF32;

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

impl FloatProduct for PairsOfBf16 {}
