//! The micro-kernel of [`Gemm`](super::Gemm): all dot products of some rows of A with some rows of B.
//!
//! It sums a block of `MR` rows of A times `NR` rows of B at once, each product in a vector register of its own, so that
//! every value loaded is used several times; the lanes of a register are added up at the end. What a product
//! comes to does not depend on which block it is in.

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

/// Rows of A and of B, `depth` values each, of which rows lie `stride` apart.
#[derive(Clone, Copy)]
pub(super) struct Operands<'a> {
    pub(super) a: &'a [f32],
    pub(super) b: &'a [f32],
    pub(super) stride: usize,
    pub(super) depth: usize,
    pub(super) a_rows: usize,
    pub(super) b_rows: usize,
}

/// Calls `each(row of A, row of B, product)` for all pairs.
pub(super) fn multiply(operands: Operands<'_>, each: impl FnMut(usize, usize, f32)) {
    assert!(operands.depth <= operands.stride);
    let fits = |rows: usize, values: &[f32]| rows == 0 || (rows - 1) * operands.stride + operands.depth <= values.len();
    assert!(fits(operands.a_rows, operands.a) && fits(operands.b_rows, operands.b), "rows end within the slices");
    dispatch(operands, each);
}

#[cfg(target_arch = "x86_64")]
fn dispatch(operands: Operands<'_>, each: impl FnMut(usize, usize, f32)) {
    if is_x86_feature_detected!("avx512f") {
        // SAFETY: the CPU has the features the function is compiled for; rows end within the slices.
        unsafe { x86::blocks_avx512(operands, each) }
    } else if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
        // SAFETY: the CPU has the features the function is compiled for; rows end within the slices.
        unsafe { x86::blocks_avx2(operands, each) }
    } else {
        // SAFETY: rows end within the slices.
        unsafe { blocks::<[f32; 4], 2, 2>(operands, each) }
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn dispatch(operands: Operands<'_>, each: impl FnMut(usize, usize, f32)) {
    // SAFETY: rows end within the slices.
    unsafe { blocks::<[f32; 4], 4, 4>(operands, each) }
}

/// Blocks of `MR` times `NR`, and single rows behind the last whole block of either matrix.
///
/// # Safety
/// Rows end within the slices, and the CPU has registers `V`.
#[inline(always)]
unsafe fn blocks<V: Lanes, const MR: usize, const NR: usize>(
    operands: Operands<'_>,
    mut each: impl FnMut(usize, usize, f32),
) {
    let mut a_row = 0;
    while a_row < operands.a_rows {
        let is_block = a_row + MR <= operands.a_rows;
        let mut b_row = 0;
        while b_row < operands.b_rows {
            // SAFETY: the block's rows are rows of the operands.
            unsafe {
                match (is_block, b_row + NR <= operands.b_rows) {
                    (true, true) => micro_kernel::<V, MR, NR>(operands, a_row, b_row, &mut each),
                    (true, false) => micro_kernel::<V, MR, 1>(operands, a_row, b_row, &mut each),
                    (false, true) => micro_kernel::<V, 1, NR>(operands, a_row, b_row, &mut each),
                    (false, false) => micro_kernel::<V, 1, 1>(operands, a_row, b_row, &mut each),
                }
            }
            b_row += if b_row + NR <= operands.b_rows { NR } else { 1 };
        }
        a_row += if is_block { MR } else { 1 };
    }
}

/// One block: `MR` rows of A from `a_row` on times `NR` rows of B from `b_row` on.
///
/// # Safety
/// These rows end within the slices, and the CPU has registers `V`.
#[inline(always)]
#[allow(clippy::needless_range_loop, reason = "iterators would be closures")]
unsafe fn micro_kernel<V: Lanes, const MR: usize, const NR: usize>(
    operands: Operands<'_>,
    a_row: usize,
    b_row: usize,
    each: &mut impl FnMut(usize, usize, f32),
) {
    let Operands { stride, depth, .. } = operands;
    let whole = depth - depth % V::COUNT;
    let mut sums = [[V::zero(); NR]; MR];
    // SAFETY: by the conditions of this function.
    unsafe {
        let (a, b) = (operands.a.as_ptr().add(a_row * stride), operands.b.as_ptr().add(b_row * stride));
        let mut index = 0;
        while index < whole {
            // No closures: they would not be compiled for the registers at hand.
            let mut values = [V::zero(); MR];
            for row in 0..MR {
                values[row] = V::load(a.add(row * stride + index));
            }
            for column in 0..NR {
                let other = V::load(b.add(column * stride + index));
                for row in 0..MR {
                    sums[row][column] = sums[row][column].add_product(values[row], other);
                }
            }
            index += V::COUNT;
        }
        for (row, sums) in sums.iter().enumerate() {
            for (column, sum) in sums.iter().enumerate() {
                let mut product = sum.total();
                for index in whole..depth {
                    product += *a.add(row * stride + index) * *b.add(column * stride + index);
                }
                each(a_row + row, b_row + column, product);
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

    use super::{Lanes, Operands, blocks};

    /// 24 sums, 4 values and one more, of 32 registers.
    ///
    /// # Safety
    /// As [`blocks`].
    #[target_feature(enable = "avx512f")]
    pub(super) unsafe fn blocks_avx512(operands: Operands<'_>, each: impl FnMut(usize, usize, f32)) {
        // SAFETY: by the conditions of this function.
        unsafe { blocks::<__m512, 4, 6>(operands, each) }
    }

    /// 12 sums, 3 values and one more, of 16 registers.
    ///
    /// # Safety
    /// As [`blocks`].
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn blocks_avx2(operands: Operands<'_>, each: impl FnMut(usize, usize, f32)) {
        // SAFETY: by the conditions of this function.
        unsafe { blocks::<__m256, 3, 4>(operands, each) }
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

    fn products(operands: Operands<'_>, run: unsafe fn(Operands<'_>, &mut dyn FnMut(usize, usize, f32))) -> Vec<f32> {
        let mut found = vec![f32::NAN; operands.a_rows * operands.b_rows];
        // SAFETY: the operands of these tests fit their slices, and features are looked for.
        unsafe { run(operands, &mut |a_row, b_row, product| found[a_row * operands.b_rows + b_row] = product) };
        found
    }

    #[test]
    fn every_instruction_set_equals_the_definition() {
        type Run = unsafe fn(Operands<'_>, &mut dyn FnMut(usize, usize, f32));
        let mut runs: Vec<Run> =
            // SAFETY: `products` passes operands that fit, and arrays need no feature.
            vec![|operands, each| multiply(operands, each), |operands, each| unsafe { blocks::<[f32; 4], 2, 2>(operands, each) }];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // SAFETY: `products` passes operands that fit, and the features are there.
            runs.push(|operands, each| unsafe { x86::blocks_avx2(operands, each) });
        }
        for (a_rows, b_rows, depth) in [(1, 1, 1), (4, 6, 16), (5, 7, 37), (3, 13, 130), (0, 2, 3), (9, 2, 0)] {
            let stride = depth + 2;
            let (a, b) = (values(a_rows * stride, 0.1), values(b_rows * stride, 0.7));
            let operands = Operands { a: &a, b: &b, stride, depth, a_rows, b_rows };
            for run in &runs {
                for (index, found) in products(operands, *run).into_iter().enumerate() {
                    let row = |matrix: &[f32], row: usize| matrix[row * stride..][..depth].to_vec();
                    let (x, y) = (row(&a, index / b_rows), row(&b, index % b_rows));
                    let expected: f64 = x.iter().zip(&y).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum();
                    assert!((f64::from(found) - expected).abs() < 1e-5, "{a_rows} {b_rows} {depth}");
                }
            }
        }
    }
}
