//! Registers of AVX2 with FMA and F16C.

use std::arch::x86_64::{
    __m256, __m256i, _CMP_UNORD_Q, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _mm_add_ps, _mm_add_ss, _mm_cvtss_f32,
    _mm_loadu_si128, _mm_movehl_ps, _mm_packus_epi16, _mm_shuffle_ps, _mm_storel_epi64, _mm_storeu_si128,
    _mm256_add_epi32, _mm256_add_ps, _mm256_and_si256, _mm256_blendv_epi8, _mm256_castpd_ps, _mm256_castps_pd,
    _mm256_castps_si256, _mm256_castps256_ps128, _mm256_castsi256_ps, _mm256_castsi256_si128, _mm256_cmp_ps,
    _mm256_cvtepi32_ps, _mm256_cvtepu16_epi32, _mm256_cvtph_ps, _mm256_cvtps_epi32, _mm256_div_ps,
    _mm256_dpbusd_avx_epi32, _mm256_extractf128_ps, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_loadu_si256,
    _mm256_madd_epi16, _mm256_max_ps, _mm256_min_ps, _mm256_mul_ps, _mm256_or_si256, _mm256_packus_epi32,
    _mm256_permute2f128_ps, _mm256_permute4x64_epi64, _mm256_round_ps, _mm256_set1_epi16, _mm256_set1_epi32,
    _mm256_set1_ps, _mm256_setzero_ps, _mm256_setzero_si256, _mm256_slli_epi16, _mm256_slli_epi32, _mm256_srai_epi16,
    _mm256_srli_epi16, _mm256_srli_epi32, _mm256_storeu_ps, _mm256_storeu_si256, _mm256_sub_ps, _mm256_unpackhi_pd,
    _mm256_unpackhi_ps, _mm256_unpacklo_pd, _mm256_unpacklo_ps,
};

use super::tiles::TileArrays;
use super::{Kernel, Simd};

/// Eight lanes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Avx2<const VNNI: bool> {
    /// The CPU has VNNI, too.
    vnni: bool,
}

/// # Safety
/// The CPU has AVX2, FMA and F16C, and perhaps VNNI.
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn run<K: Kernel>(kernel: K, vnni: bool) -> K::Output {
    kernel.run(Avx2::<false> { vnni })
}

/// # Safety
/// The CPU has AVX2, FMA, F16C and VNNI.
#[inline(never)]
#[target_feature(enable = "avx2,fma,f16c,avxvnni")]
unsafe fn run_with_vnni<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx2::<true> { vnni: true })
}

// SAFETY of all blocks: a value of `Avx2` exists only within the functions above, so the CPU has the instructions; pointers are as
// the trait's conditions say.
#[allow(clippy::undocumented_unsafe_blocks, reason = "one argument for all of them, above")]
impl<const VNNI: bool> Simd for Avx2<VNNI> {
    type Lanes = __m256;
    type Pairs = __m256i;
    type Ints = __m256i;
    type Quads = __m256i;
    type Tiles = TileArrays;

    const COUNT: usize = 8;
    const TILE: (usize, usize) = (6, 2);
    const HAS_INT8: bool = VNNI;

    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        unsafe { run(kernel, self.vnni) }
    }

    #[inline(always)]
    fn run_int8<K: Kernel>(self, kernel: K) -> K::Output {
        if self.vnni { unsafe { run_with_vnni(kernel) } } else { self.run(kernel) }
    }

    #[inline(always)]
    fn tiles(self) -> Option<TileArrays> {
        None
    }

    #[inline(always)]
    fn splat(self, value: f32) -> __m256 {
        unsafe { _mm256_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(self, values: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(values) }
    }

    #[inline(always)]
    unsafe fn store(self, lanes: __m256, values: *mut f32) {
        unsafe { _mm256_storeu_ps(values, lanes) }
    }

    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_div_ps(a, b) }
    }

    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_min_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn round_and_power(self, x: __m256) -> (__m256, __m256) {
        unsafe {
            let rounded = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x);
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(rounded), _mm256_set1_epi32(127));
            (rounded, _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent)))
        }
    }

    #[inline(always)]
    fn sum(self, lanes: __m256) -> f32 {
        unsafe {
            let halves = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps::<1>(lanes));
            let pairs = _mm_add_ps(halves, _mm_movehl_ps(halves, halves));
            _mm_cvtss_f32(_mm_add_ss(pairs, _mm_shuffle_ps::<1>(pairs, pairs)))
        }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, values: *const u16) -> __m256 {
        unsafe {
            let narrow = _mm256_cvtepu16_epi32(_mm_loadu_si128(values.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(narrow))
        }
    }

    #[inline(always)]
    unsafe fn store_bf16(self, lanes: __m256, values: *mut u16) {
        unsafe {
            let bits = _mm256_castps_si256(lanes);
            // Half of the last kept bit, less one where that is even: ties go to even.
            let last = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let rounded = _mm256_add_epi32(bits, _mm256_add_epi32(last, _mm256_set1_epi32(0x7FFF)));
            // Rounding up could turn NaN into infinity; a quiet bit cannot.
            let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
            let is_nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(lanes, lanes));
            let high = _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, is_nan));
            let packed = _mm256_permute4x64_epi64::<0b1000>(_mm256_packus_epi32(high, high));
            _mm_storeu_si128(values.cast(), _mm256_castsi256_si128(packed));
        }
    }

    #[inline(always)]
    unsafe fn load_f16(self, values: *const u16) -> __m256 {
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(values.cast())) }
    }

    #[inline(always)]
    unsafe fn load_pairs(self, values: *const u16) -> __m256i {
        unsafe { _mm256_loadu_si256(values.cast()) }
    }

    #[inline(always)]
    unsafe fn splat_pair(self, values: *const u16) -> __m256i {
        unsafe { _mm256_set1_epi32(values.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn store_pairs(self, pairs: __m256i, values: *mut u16) {
        unsafe { _mm256_storeu_si256(values.cast(), pairs) }
    }

    #[inline(always)]
    unsafe fn transpose(self, from: (*const u32, usize), to: (*mut u32, usize)) {
        unsafe {
            let mut rows = [_mm256_setzero_ps(); 8];
            for (index, row) in rows.iter_mut().enumerate() {
                *row = _mm256_loadu_ps(from.0.add(index * from.1).cast());
            }
            let columns = transposed_quarters(rows);
            for index in 0..4 {
                // A quarter of four rows and columns in each half of a register.
                let (upper, lower) = (columns[index], columns[4 + index]);
                let place = |column: usize| to.0.add(column * to.1).cast::<f32>();
                _mm256_storeu_ps(place(index), _mm256_permute2f128_ps::<0x20>(upper, lower));
                _mm256_storeu_ps(place(4 + index), _mm256_permute2f128_ps::<0x31>(upper, lower));
            }
        }
    }

    #[inline(always)]
    fn no_ints(self) -> __m256i {
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    unsafe fn load_ints(self, values: *const i32) -> __m256i {
        unsafe { _mm256_loadu_si256(values.cast()) }
    }

    #[inline(always)]
    unsafe fn store_ints(self, ints: __m256i, values: *mut i32) {
        unsafe { _mm256_storeu_si256(values.cast(), ints) }
    }

    #[inline(always)]
    fn add_ints(self, a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_add_epi32(a, b) }
    }

    #[inline(always)]
    fn lanes_of(self, ints: __m256i) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(ints) }
    }

    #[inline(always)]
    unsafe fn load_quads(self, values: *const u8) -> __m256i {
        unsafe { _mm256_loadu_si256(values.cast()) }
    }

    #[inline(always)]
    unsafe fn splat_quad(self, values: *const u8) -> __m256i {
        unsafe { _mm256_set1_epi32(values.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    fn add_quad_products(self, a: __m256i, b: __m256i, c: __m256i) -> __m256i {
        unsafe {
            if VNNI {
                return _mm256_dpbusd_avx_epi32(c, a, b);
            }
            // Widened to 16 bits, every other number at a time: the instruction for 8 bits saturates.
            let even = _mm256_set1_epi16(0xFF);
            let (a_even, a_odd) = (_mm256_and_si256(a, even), _mm256_srli_epi16::<8>(a));
            let (b_even, b_odd) = (_mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(b)), _mm256_srai_epi16::<8>(b));
            let sums = _mm256_add_epi32(_mm256_madd_epi16(a_even, b_even), _mm256_madd_epi16(a_odd, b_odd));
            _mm256_add_epi32(c, sums)
        }
    }

    #[inline(always)]
    unsafe fn store_offset_bytes(self, lanes: __m256, values: *mut u8) {
        unsafe {
            let ints = _mm256_add_epi32(_mm256_cvtps_epi32(lanes), _mm256_set1_epi32(128));
            // Both halves of 128 bits are packed by themselves.
            let shorts = _mm256_packus_epi32(ints, ints);
            let bytes = _mm256_castsi256_si128(_mm256_permute4x64_epi64::<0b1000>(shorts));
            _mm_storel_epi64(values.cast(), _mm_packus_epi16(bytes, bytes));
        }
    }

    #[inline(always)]
    fn widen(self, pairs: __m256i) -> (__m256, __m256) {
        unsafe {
            let late = _mm256_and_si256(pairs, _mm256_set1_epi32(0xFFFF_0000_u32 as i32));
            (_mm256_castsi256_ps(_mm256_slli_epi32::<16>(pairs)), _mm256_castsi256_ps(late))
        }
    }
}

/// Of each four rows, the squares of four columns in each half of the registers, transposed.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn transposed_quarters(rows: [__m256; 8]) -> [__m256; 8] {
    let mut columns = rows;
    for (rows, columns) in rows.chunks_exact(4).zip(columns.chunks_exact_mut(4)) {
        // SAFETY: by the conditions of this function.
        unsafe {
            let pairs = |a: __m256, b: __m256| {
                let (a, b) = (_mm256_castps_pd(a), _mm256_castps_pd(b));
                (_mm256_castpd_ps(_mm256_unpacklo_pd(a, b)), _mm256_castpd_ps(_mm256_unpackhi_pd(a, b)))
            };
            let (early, late) = (
                (_mm256_unpacklo_ps(rows[0], rows[1]), _mm256_unpacklo_ps(rows[2], rows[3])),
                (_mm256_unpackhi_ps(rows[0], rows[1]), _mm256_unpackhi_ps(rows[2], rows[3])),
            );
            (columns[0], columns[1]) = pairs(early.0, early.1);
            (columns[2], columns[3]) = pairs(late.0, late.1);
        }
    }
    columns
}
