//! All dot products of some rows with some others: a small matrix product in which both matrices are stored
//! row by row.
//!
//! A block of products is summed side by side, a vector register each, so that every value loaded is used
//! several times; the lanes of a register are added up at the end. What a product comes to does not depend
//! on which block it is in.

/// A vector register of f32, or what stands for one.
trait Lanes: Copy {
    /// Values in it.
    const COUNT: usize;

    fn zero() -> Self;

    /// Reads [`Self::COUNT`] values.
    ///
    /// # Safety
    /// They are there, and the CPU has such registers.
    unsafe fn load(values: *const f32) -> Self;

    /// `self + a * b`
    ///
    /// # Safety
    /// The CPU has such registers.
    unsafe fn add_product(self, a: Self, b: Self) -> Self;

    /// The sum of all lanes.
    ///
    /// # Safety
    /// The CPU has such registers.
    unsafe fn total(self) -> f32;
}

/// Rows of both sides, `length` values each, of which rows lie `stride` apart.
#[derive(Clone, Copy)]
pub(crate) struct Sides<'a> {
    pub(crate) left: &'a [f32],
    pub(crate) right: &'a [f32],
    pub(crate) stride: usize,
    pub(crate) length: usize,
    pub(crate) left_rows: usize,
    pub(crate) right_rows: usize,
}

/// Calls `each(left row, right row, product)` for all pairs.
pub(crate) fn dot_products(sides: Sides<'_>, each: impl FnMut(usize, usize, f32)) {
    assert!(sides.length <= sides.stride);
    let fits = |rows: usize, values: &[f32]| rows == 0 || (rows - 1) * sides.stride + sides.length <= values.len();
    assert!(fits(sides.left_rows, sides.left) && fits(sides.right_rows, sides.right), "rows end within the slices");
    dispatch(sides, each);
}

#[cfg(target_arch = "x86_64")]
fn dispatch(sides: Sides<'_>, each: impl FnMut(usize, usize, f32)) {
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the CPU has the features the function is compiled for; rows end within the slices.
        unsafe { x86::all_avx512(sides, each) }
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the CPU has the features the function is compiled for; rows end within the slices.
        unsafe { x86::all_avx2(sides, each) }
    } else {
        // SAFETY: rows end within the slices.
        unsafe { all::<[f32; 4], 2, 2>(sides, each) }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn dispatch(sides: Sides<'_>, each: impl FnMut(usize, usize, f32)) {
    // SAFETY: rows end within the slices.
    unsafe { all::<[f32; 4], 4, 4>(sides, each) }
}

/// Blocks of `LEFT` times `RIGHT`, and single rows behind the last whole block of either side.
///
/// # Safety
/// Rows end within the slices, and the CPU has registers `V`.
#[inline(always)]
unsafe fn all<V: Lanes, const LEFT: usize, const RIGHT: usize>(
    sides: Sides<'_>,
    mut each: impl FnMut(usize, usize, f32),
) {
    let mut left = 0;
    while left < sides.left_rows {
        let is_block = left + LEFT <= sides.left_rows;
        let mut right = 0;
        while right < sides.right_rows {
            // SAFETY: the block's rows are rows of the sides.
            unsafe {
                match (is_block, right + RIGHT <= sides.right_rows) {
                    (true, true) => block::<V, LEFT, RIGHT>(sides, left, right, &mut each),
                    (true, false) => block::<V, LEFT, 1>(sides, left, right, &mut each),
                    (false, true) => block::<V, 1, RIGHT>(sides, left, right, &mut each),
                    (false, false) => block::<V, 1, 1>(sides, left, right, &mut each),
                }
            }
            right += if right + RIGHT <= sides.right_rows { RIGHT } else { 1 };
        }
        left += if is_block { LEFT } else { 1 };
    }
}

/// # Safety
/// `LEFT` and `RIGHT` rows from `left` and `right` on end within the slices, and the CPU has registers `V`.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "iterators would be closures")]
unsafe fn block<V: Lanes, const LEFT: usize, const RIGHT: usize>(
    sides: Sides<'_>,
    left: usize,
    right: usize,
    each: &mut impl FnMut(usize, usize, f32),
) {
    let Sides { stride, length, .. } = sides;
    let whole = length - length % V::COUNT;
    let mut sums = [[V::zero(); RIGHT]; LEFT];
    // SAFETY: by the conditions of this function.
    unsafe {
        let (lefts, rights) = (sides.left.as_ptr().add(left * stride), sides.right.as_ptr().add(right * stride));
        let mut index = 0;
        while index < whole {
            // No closures: they would not be compiled for the registers at hand.
            let mut values = [V::zero(); LEFT];
            for row in 0..LEFT {
                values[row] = V::load(lefts.add(row * stride + index));
            }
            for column in 0..RIGHT {
                let other = V::load(rights.add(column * stride + index));
                for row in 0..LEFT {
                    sums[row][column] = sums[row][column].add_product(values[row], other);
                }
            }
            index += V::COUNT;
        }
        for (row, sums) in sums.iter().enumerate() {
            for (column, sum) in sums.iter().enumerate() {
                let mut product = sum.total();
                for index in whole..length {
                    product += *lefts.add(row * stride + index) * *rights.add(column * stride + index);
                }
                each(left + row, right + column, product);
            }
        }
    }
}

/// For other CPUs; compilers make registers of it.
impl Lanes for [f32; 4] {
    const COUNT: usize = 4;

    #[inline(always)]
    fn zero() -> Self {
        [0.0; 4]
    }

    #[inline(always)]
    unsafe fn load(values: *const f32) -> Self {
        // SAFETY: four values are there.
        unsafe { values.cast::<Self>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn add_product(self, a: Self, b: Self) -> Self {
        std::array::from_fn(|lane| self[lane] + a[lane] * b[lane])
    }

    #[inline(always)]
    unsafe fn total(self) -> f32 {
        (self[0] + self[2]) + (self[1] + self[3])
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256, __m512, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32, _mm_movehl_ps, _mm_shuffle_ps, _mm256_castps256_ps128,
        _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm512_fmadd_ps, _mm512_loadu_ps,
        _mm512_reduce_add_ps,
    };

    use super::{Lanes, Sides, all};

    /// 24 sums, 4 values and one more, of 32 registers.
    ///
    /// # Safety
    /// As [`all`].
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn all_avx512(sides: Sides<'_>, each: impl FnMut(usize, usize, f32)) {
        // SAFETY: by the conditions of this function.
        unsafe { all::<__m512, 4, 6>(sides, each) }
    }

    /// 12 sums, 3 values and one more, of 16 registers.
    ///
    /// # Safety
    /// As [`all`].
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn all_avx2(sides: Sides<'_>, each: impl FnMut(usize, usize, f32)) {
        // SAFETY: by the conditions of this function.
        unsafe { all::<__m256, 3, 4>(sides, each) }
    }

    impl Lanes for __m512 {
        const COUNT: usize = 16;

        #[inline(always)]
        fn zero() -> Self {
            // SAFETY: all bits zero are sixteen zeros.
            unsafe { std::mem::zeroed() }
        }

        #[inline(always)]
        unsafe fn load(values: *const f32) -> Self {
            // SAFETY: by the conditions of this function.
            unsafe { _mm512_loadu_ps(values) }
        }

        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: by the conditions of this function.
            unsafe { _mm512_fmadd_ps(a, b, self) }
        }

        #[inline(always)]
        unsafe fn total(self) -> f32 {
            // SAFETY: by the conditions of this function.
            unsafe { _mm512_reduce_add_ps(self) }
        }
    }

    impl Lanes for __m256 {
        const COUNT: usize = 8;

        #[inline(always)]
        fn zero() -> Self {
            // SAFETY: all bits zero are eight zeros.
            unsafe { std::mem::zeroed() }
        }

        #[inline(always)]
        unsafe fn load(values: *const f32) -> Self {
            // SAFETY: by the conditions of this function.
            unsafe { _mm256_loadu_ps(values) }
        }

        #[inline(always)]
        unsafe fn add_product(self, a: Self, b: Self) -> Self {
            // SAFETY: by the conditions of this function.
            unsafe { _mm256_fmadd_ps(a, b, self) }
        }

        #[inline(always)]
        unsafe fn total(self) -> f32 {
            // SAFETY: by the conditions of this function.
            unsafe {
                let halves = _mm_add_ps(_mm256_castps256_ps128(self), _mm256_extractf128_ps::<1>(self));
                let pairs = _mm_add_ps(halves, _mm_movehl_ps(halves, halves));
                _mm_cvtss_f32(_mm_add_ss(pairs, _mm_shuffle_ps::<1>(pairs, pairs)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(length: usize, seed: f32) -> Vec<f32> {
        (0..length).map(|index| (index as f32 * 0.731 + seed).sin()).collect()
    }

    fn products(sides: Sides<'_>, run: unsafe fn(Sides<'_>, &mut dyn FnMut(usize, usize, f32))) -> Vec<f32> {
        let mut found = vec![f32::NAN; sides.left_rows * sides.right_rows];
        // SAFETY: the sides of these tests fit their slices, and features are looked for.
        unsafe { run(sides, &mut |left, right, product| found[left * sides.right_rows + right] = product) };
        found
    }

    #[test]
    fn every_instruction_set_equals_the_definition() {
        type Run = unsafe fn(Sides<'_>, &mut dyn FnMut(usize, usize, f32));
        let mut runs: Vec<Run> =
            // SAFETY: `products` passes sides that fit, and arrays need no feature.
            vec![|sides, each| dot_products(sides, each), |sides, each| unsafe { all::<[f32; 4], 2, 2>(sides, each) }];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: `products` passes sides that fit, and the features are there.
            runs.push(|sides, each| unsafe { x86::all_avx2(sides, each) });
        }
        for (left_rows, right_rows, length) in [(1, 1, 1), (4, 6, 16), (5, 7, 37), (3, 13, 130), (0, 2, 3), (9, 2, 0)] {
            let stride = length + 2;
            let (left, right) = (values(left_rows * stride, 0.1), values(right_rows * stride, 0.7));
            let sides = Sides { left: &left, right: &right, stride, length, left_rows, right_rows };
            for run in &runs {
                for (index, found) in products(sides, *run).into_iter().enumerate() {
                    let row = |side: &[f32], row: usize| side[row * stride..][..length].to_vec();
                    let (x, y) = (row(&left, index / right_rows), row(&right, index % right_rows));
                    let expected: f64 = x.iter().zip(&y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
                    assert!((f64::from(found) - expected).abs() < 1e-5, "{left_rows} {right_rows} {length}");
                }
            }
        }
    }
}
