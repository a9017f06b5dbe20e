//! The types of activations.

use half::bf16;
use half::slice::HalfFloatSliceExt;

use crate::simd::{MOST_LANES, Simd};

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for half::bf16 {}
}

/// A type that activations are stored in; they are computed in f32.
pub trait Value: sealed::Sealed + Copy + Send + Sync + 'static {
    #[doc(hidden)]
    const IS_BF16: bool;

    #[doc(hidden)]
    const ZERO: Self;

    /// As f32, exactly.
    #[doc(hidden)]
    fn widen(self) -> f32;

    /// Rounded from f32.
    #[doc(hidden)]
    fn of(value: f32) -> Self;

    /// As bf16, rounded.
    #[doc(hidden)]
    fn bf16_bits(self) -> u16;

    /// The same values, where they are stored as f32.
    #[doc(hidden)]
    fn as_f32(values: &[Self]) -> Option<&[f32]>;

    /// The same values, where they are stored as bf16.
    #[doc(hidden)]
    fn as_bf16_bits(values: &[Self]) -> Option<&[u16]>;

    /// # Safety
    /// `values` points to a register's count of them. So for the others.
    #[doc(hidden)]
    #[allow(private_bounds, private_interfaces, reason = "sealed")]
    unsafe fn load<S: Simd>(simd: S, values: *const Self) -> S::Lanes;

    /// # Safety
    /// As [`Self::load`].
    #[doc(hidden)]
    #[allow(private_bounds, private_interfaces, reason = "sealed")]
    unsafe fn store<S: Simd>(simd: S, lanes: S::Lanes, values: *mut Self);

    /// Lanes as they are after being stored.
    #[doc(hidden)]
    #[allow(private_bounds, private_interfaces, reason = "sealed")]
    fn rounded<S: Simd>(simd: S, lanes: S::Lanes) -> S::Lanes;

    /// Reads `count` values, fewer than a register has; the other lanes are 0.
    ///
    /// # Safety
    /// As [`Self::load`], for `count`.
    #[doc(hidden)]
    #[inline(always)]
    #[allow(private_bounds, private_interfaces, reason = "sealed")]
    unsafe fn load_some<S: Simd>(simd: S, values: *const Self, count: usize) -> S::Lanes {
        let mut buffer = [0f32; MOST_LANES];
        // SAFETY: by the conditions of this function.
        unsafe {
            for (index, value) in buffer.iter_mut().enumerate().take(count) {
                *value = (*values.add(index)).widen();
            }
            simd.load(buffer.as_ptr())
        }
    }

    /// Writes the first `count` lanes, fewer than a register has.
    ///
    /// # Safety
    /// As [`Self::store`], for `count`.
    #[doc(hidden)]
    #[inline(always)]
    #[allow(private_bounds, private_interfaces, reason = "sealed")]
    unsafe fn store_some<S: Simd>(simd: S, lanes: S::Lanes, values: *mut Self, count: usize) {
        let mut buffer = [const { std::mem::MaybeUninit::<Self>::uninit() }; MOST_LANES];
        // SAFETY: the buffer has room for a register; by the conditions of this function.
        unsafe {
            Self::store(simd, lanes, buffer.as_mut_ptr().cast());
            std::ptr::copy_nonoverlapping(buffer.as_ptr().cast(), values, count.min(MOST_LANES));
        }
    }
}

impl Value for f32 {
    const IS_BF16: bool = false;
    const ZERO: Self = 0.0;

    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    fn of(value: f32) -> Self {
        value
    }

    fn bf16_bits(self) -> u16 {
        bf16::from_f32(self).to_bits()
    }

    fn as_f32(values: &[Self]) -> Option<&[f32]> {
        Some(values)
    }

    fn as_bf16_bits(_: &[Self]) -> Option<&[u16]> {
        None
    }

    #[inline(always)]
    #[allow(private_bounds, private_interfaces, reason = "sealed")]
    fn rounded<S: Simd>(_: S, lanes: S::Lanes) -> S::Lanes {
        lanes
    }

    #[inline(always)]
    #[allow(private_bounds, private_interfaces, reason = "sealed")]
    unsafe fn load<S: Simd>(simd: S, values: *const Self) -> S::Lanes {
        // SAFETY: by the conditions of this function.
        unsafe { simd.load(values) }
    }

    #[inline(always)]
    #[allow(private_bounds, private_interfaces, reason = "sealed")]
    unsafe fn store<S: Simd>(simd: S, lanes: S::Lanes, values: *mut Self) {
        // SAFETY: by the conditions of this function.
        unsafe { simd.store(lanes, values) }
    }
}

impl Value for bf16 {
    const IS_BF16: bool = true;
    const ZERO: Self = bf16::ZERO;

    #[inline(always)]
    fn widen(self) -> f32 {
        // half's own conversion tests for NaN, which keeps the compiler from making vector code of it.
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }

    fn of(value: f32) -> Self {
        bf16::from_f32(value)
    }

    #[inline(always)]
    fn bf16_bits(self) -> u16 {
        self.to_bits()
    }

    fn as_f32(_: &[Self]) -> Option<&[f32]> {
        None
    }

    fn as_bf16_bits(values: &[Self]) -> Option<&[u16]> {
        Some(values.reinterpret_cast())
    }

    #[inline(always)]
    #[allow(private_bounds, private_interfaces, reason = "sealed")]
    fn rounded<S: Simd>(simd: S, lanes: S::Lanes) -> S::Lanes {
        let mut buffer = [0u16; MOST_LANES];
        // SAFETY: the buffer has room for a register.
        unsafe {
            simd.store_bf16(lanes, buffer.as_mut_ptr());
            simd.load_bf16(buffer.as_ptr())
        }
    }

    #[inline(always)]
    #[allow(private_bounds, private_interfaces, reason = "sealed")]
    unsafe fn load<S: Simd>(simd: S, values: *const Self) -> S::Lanes {
        // SAFETY: by the conditions of this function; the type is 16 bits of anything.
        unsafe { simd.load_bf16(values.cast()) }
    }

    #[inline(always)]
    #[allow(private_bounds, private_interfaces, reason = "sealed")]
    unsafe fn store<S: Simd>(simd: S, lanes: S::Lanes, values: *mut Self) {
        // SAFETY: by the conditions of this function; the type is 16 bits of anything.
        unsafe { simd.store_bf16(lanes, values.cast()) }
    }
}
