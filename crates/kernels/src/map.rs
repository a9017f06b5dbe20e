//! Functions of all values of a vector, register by register.
//!
//! They are given as closures, which must be small enough to be inlined: a closure is not compiled for the registers.

use std::mem::MaybeUninit;

use crate::gemm::Value;
use crate::simd::Simd;

/// The sum of a function of all values.
#[inline(always)]
pub(crate) fn sum<S: Simd, T: Value>(
    simd: S,
    values: &[T],
    lanes: impl Fn(S, S::Lanes) -> S::Lanes,
    one: impl Fn(f32) -> f32,
) -> f32 {
    // Sums that do not wait for each other.
    let mut sums = [simd.splat(0.0); 4];
    let mut chunks = values.chunks_exact(4 * S::COUNT);
    for chunk in &mut chunks {
        for (index, sum) in sums.iter_mut().enumerate() {
            // SAFETY: the chunk has four registers of values.
            let value = unsafe { T::load(simd, chunk.as_ptr().add(index * S::COUNT)) };
            *sum = simd.add(*sum, lanes(simd, value));
        }
    }
    let mut rest = chunks.remainder().chunks_exact(S::COUNT);
    for chunk in &mut rest {
        // SAFETY: the chunk has a register of values.
        sums[0] = simd.add(sums[0], lanes(simd, unsafe { T::load(simd, chunk.as_ptr()) }));
    }
    let total = simd.sum(simd.add(simd.add(sums[0], sums[1]), simd.add(sums[2], sums[3])));
    rest.remainder().iter().fold(total, |total, value| total + one(value.widen()))
}

/// Which values of a vector are in a register: all lanes, or the first few at the end of the vector.
#[derive(Clone, Copy)]
pub(crate) struct At {
    start: usize,
    count: usize,
}

impl At {
    /// The registers of a vector of so many values.
    #[inline(always)]
    pub(crate) fn all<S: Simd>(length: usize) -> impl Iterator<Item = Self> {
        (0..length).step_by(S::COUNT).map(move |start| Self { start, count: S::COUNT.min(length - start) })
    }

    /// Those of any vector of the same size.
    #[inline(always)]
    pub(crate) fn load<S: Simd, T: Value>(self, simd: S, values: &[T]) -> S::Lanes {
        let values = &values[self.start..][..self.count];
        // SAFETY: there are as many values.
        unsafe {
            if self.count == S::COUNT {
                T::load(simd, values.as_ptr())
            } else {
                T::load_some(simd, values.as_ptr(), self.count)
            }
        }
    }

    /// Writes them.
    #[inline(always)]
    pub(crate) fn store<S: Simd, T: Value>(self, simd: S, lanes: S::Lanes, values: &mut [T]) {
        // SAFETY: values that there are may be written like those that there are not yet.
        self.store_first(simd, lanes, unsafe { &mut *(std::ptr::from_mut(values) as *mut [MaybeUninit<T>]) });
    }

    /// Writes them where there are no values yet.
    #[inline(always)]
    pub(crate) fn store_first<S: Simd, T: Value>(self, simd: S, lanes: S::Lanes, values: &mut [MaybeUninit<T>]) {
        let place = values[self.start..][..self.count].as_mut_ptr().cast();
        // SAFETY: there is room for as many values.
        unsafe {
            if self.count == S::COUNT {
                T::store(simd, lanes, place);
            } else {
                T::store_some(simd, lanes, place, self.count);
            }
        }
    }
}

/// Writes a function of all values.
#[inline(always)]
pub(crate) fn map<S: Simd, T: Value, O: Value>(
    simd: S,
    x: &[T],
    output: &mut [O],
    function: impl Fn(S, S::Lanes, At) -> S::Lanes,
) {
    assert_eq!(x.len(), output.len(), "length of the output");
    for at in At::all::<S>(x.len()) {
        at.store(simd, function(simd, at.load(simd, x), at), output);
    }
}
