//! Registers of AVX-512, with or without its sums of products of bf16 and of integers of 8 bits.

use std::arch::x86_64::{
    __m256bh, __m256i, __m512, __m512bh, __m512i, _CMP_UNORD_Q, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT,
    _mm_storeu_si128, _mm256_loadu_si256, _mm256_storeu_si256, _mm512_add_epi32, _mm512_add_ps, _mm512_and_si512,
    _mm512_castpd_ps, _mm512_castps_pd, _mm512_castps_si512, _mm512_castsi512_ps, _mm512_cmp_ps_mask,
    _mm512_cvtepi32_epi8, _mm512_cvtepi32_epi16, _mm512_cvtepi32_ps, _mm512_cvtepu16_epi32, _mm512_cvtneps_pbh,
    _mm512_cvtph_ps, _mm512_cvtps_epi32, _mm512_div_ps, _mm512_dpbf16_ps, _mm512_dpbusd_epi32, _mm512_fmadd_ps,
    _mm512_loadu_ps, _mm512_loadu_si512, _mm512_madd_epi16, _mm512_mask_or_epi32, _mm512_max_ps, _mm512_min_ps,
    _mm512_mul_ps, _mm512_or_si512, _mm512_reduce_add_ps, _mm512_roundscale_ps, _mm512_set1_epi16, _mm512_set1_epi32,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_setzero_si512, _mm512_shuffle_f32x4, _mm512_slli_epi16,
    _mm512_slli_epi32, _mm512_srai_epi16, _mm512_srli_epi16, _mm512_srli_epi32, _mm512_storeu_ps, _mm512_storeu_si512,
    _mm512_sub_ps, _mm512_unpackhi_pd, _mm512_unpackhi_ps, _mm512_unpacklo_pd, _mm512_unpacklo_ps,
};

use super::x86_amx::Amx;
use super::{Kernel, Simd, rounded_pairs, widened_pair_products};

/// Sixteen lanes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Avx512<const BF16: bool, const VNNI: bool> {
    /// The CPU has VNNI, too.
    vnni: bool,
    amx: Option<Amx>,
}

/// # Safety
/// The CPU has AVX-512 F, BW, DQ and VL, and perhaps VNNI.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) unsafe fn run<K: Kernel>(kernel: K, vnni: bool) -> K::Output {
    kernel.run(Avx512::<false, false> { vnni, amx: None })
}

/// # Safety
/// The CPU has AVX-512 F, BW, DQ, VL and VNNI.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c")]
unsafe fn run_with_vnni<K: Kernel>(kernel: K) -> K::Output {
    kernel.run(Avx512::<false, true> { vnni: true, amx: None })
}

/// # Safety
/// The CPU has AVX-512 F, BW, DQ, VL, BF16 and VNNI, and perhaps AMX.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx512vnni,avx2,fma,f16c")]
pub(super) unsafe fn run_with_bf16<K: Kernel>(kernel: K, amx: Option<Amx>) -> K::Output {
    kernel.run(Avx512::<true, true> { vnni: true, amx })
}

// SAFETY of all blocks: a value of `Avx512` exists only within the functions above, so the CPU has the instructions;
// pointers are as the trait's conditions say.
#[allow(clippy::undocumented_unsafe_blocks, reason = "one argument for all of them, above")]
impl<const BF16: bool, const VNNI: bool> Simd for Avx512<BF16, VNNI> {
    type Lanes = __m512;
    type Pairs = __m512i;
    type Ints = __m512i;
    type Quads = __m512i;
    type Tiles = Amx;

    const COUNT: usize = 16;
    const TILE: (usize, usize) = (12, 2);
    const HAS_BF16: bool = BF16;
    const HAS_INT8: bool = VNNI;

    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        if BF16 { unsafe { run_with_bf16(kernel, self.amx) } } else { unsafe { run(kernel, self.vnni) } }
    }

    #[inline(always)]
    fn run_int8<K: Kernel>(self, kernel: K) -> K::Output {
        if !BF16 && self.vnni { unsafe { run_with_vnni(kernel) } } else { self.run(kernel) }
    }

    #[inline(always)]
    fn tiles(self) -> Option<Amx> {
        if BF16 { self.amx } else { None }
    }

    #[inline(always)]
    fn splat(self, value: f32) -> __m512 {
        unsafe { _mm512_set1_ps(value) }
    }

    #[inline(always)]
    unsafe fn load(self, values: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(values) }
    }

    #[inline(always)]
    unsafe fn store(self, lanes: __m512, values: *mut f32) {
        unsafe { _mm512_storeu_ps(values, lanes) }
    }

    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }

    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }

    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }

    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_div_ps(a, b) }
    }

    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_max_ps(a, b) }
    }

    #[inline(always)]
    fn min(self, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_min_ps(a, b) }
    }

    #[inline(always)]
    fn mul_add(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }

    #[inline(always)]
    fn round_and_power(self, x: __m512) -> (__m512, __m512) {
        unsafe {
            let rounded = _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x);
            let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(rounded), _mm512_set1_epi32(127));
            (rounded, _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent)))
        }
    }

    #[inline(always)]
    fn sum(self, lanes: __m512) -> f32 {
        unsafe { _mm512_reduce_add_ps(lanes) }
    }

    #[inline(always)]
    unsafe fn load_bf16(self, values: *const u16) -> __m512 {
        unsafe {
            let narrow = _mm512_cvtepu16_epi32(_mm256_loadu_si256(values.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(narrow))
        }
    }

    #[inline(always)]
    unsafe fn store_bf16(self, lanes: __m512, values: *mut u16) {
        if BF16 {
            // Subnormal numbers become 0, as they are for sums of products.
            unsafe {
                let narrow = std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(lanes));
                return _mm256_storeu_si256(values.cast(), narrow);
            }
        }
        unsafe {
            let bits = _mm512_castps_si512(lanes);
            // Half of the last kept bit, less one where that is even: ties go to even.
            let last = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let rounded = _mm512_add_epi32(bits, _mm512_add_epi32(last, _mm512_set1_epi32(0x7FFF)));
            // Rounding up could turn NaN into infinity; a quiet bit cannot.
            let is_nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(lanes, lanes);
            let kept = _mm512_mask_or_epi32(rounded, is_nan, bits, _mm512_set1_epi32(0x0040_0000));
            _mm256_storeu_si256(values.cast(), _mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(kept)));
        }
    }

    #[inline(always)]
    unsafe fn load_f16(self, values: *const u16) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(values.cast())) }
    }

    #[inline(always)]
    unsafe fn load_pairs(self, values: *const u16) -> __m512i {
        unsafe { _mm512_loadu_si512(values.cast()) }
    }

    #[inline(always)]
    unsafe fn splat_pair(self, values: *const u16) -> __m512i {
        unsafe { _mm512_set1_epi32(values.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn store_pairs(self, pairs: __m512i, values: *mut u16) {
        unsafe { _mm512_storeu_si512(values.cast(), pairs) }
    }

    #[inline(always)]
    fn pairs_of(self, early: __m512, late: __m512) -> __m512i {
        unsafe {
            if BF16 {
                let narrow =
                    |lanes| _mm512_cvtepu16_epi32(std::mem::transmute::<__m256bh, __m256i>(_mm512_cvtneps_pbh(lanes)));
                return _mm512_or_si512(narrow(early), _mm512_slli_epi32::<16>(narrow(late)));
            }
        }
        rounded_pairs(self, early, late)
    }

    #[inline(always)]
    unsafe fn transpose(self, from: (*const u32, usize), to: (*mut u32, usize)) {
        unsafe {
            let mut rows = [_mm512_setzero_ps(); 16];
            for (index, row) in rows.iter_mut().enumerate() {
                *row = _mm512_loadu_ps(from.0.add(index * from.1).cast());
            }
            let columns = transposed_quarters(rows);
            for index in 0..4 {
                // Four columns in the quarters of each register; the four registers are the rows.
                let of = |rows: usize| columns[4 * rows + index];
                let (even, odd) = (
                    (_mm512_shuffle_f32x4::<0x88>(of(0), of(1)), _mm512_shuffle_f32x4::<0x88>(of(2), of(3))),
                    (_mm512_shuffle_f32x4::<0xDD>(of(0), of(1)), _mm512_shuffle_f32x4::<0xDD>(of(2), of(3))),
                );
                let place = |quarter: usize| to.0.add((4 * quarter + index) * to.1).cast::<f32>();
                _mm512_storeu_ps(place(0), _mm512_shuffle_f32x4::<0x88>(even.0, even.1));
                _mm512_storeu_ps(place(1), _mm512_shuffle_f32x4::<0x88>(odd.0, odd.1));
                _mm512_storeu_ps(place(2), _mm512_shuffle_f32x4::<0xDD>(even.0, even.1));
                _mm512_storeu_ps(place(3), _mm512_shuffle_f32x4::<0xDD>(odd.0, odd.1));
            }
        }
    }

    #[inline(always)]
    fn no_ints(self) -> __m512i {
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn load_ints(self, values: *const i32) -> __m512i {
        unsafe { _mm512_loadu_si512(values.cast()) }
    }

    #[inline(always)]
    unsafe fn store_ints(self, ints: __m512i, values: *mut i32) {
        unsafe { _mm512_storeu_si512(values.cast(), ints) }
    }

    #[inline(always)]
    fn add_ints(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_add_epi32(a, b) }
    }

    #[inline(always)]
    fn lanes_of(self, ints: __m512i) -> __m512 {
        unsafe { _mm512_cvtepi32_ps(ints) }
    }

    #[inline(always)]
    unsafe fn load_quads(self, values: *const u8) -> __m512i {
        unsafe { _mm512_loadu_si512(values.cast()) }
    }

    #[inline(always)]
    unsafe fn splat_quad(self, values: *const u8) -> __m512i {
        unsafe { _mm512_set1_epi32(values.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    fn add_quad_products(self, a: __m512i, b: __m512i, c: __m512i) -> __m512i {
        unsafe {
            if VNNI {
                return _mm512_dpbusd_epi32(c, a, b);
            }
            // Widened to 16 bits, every other number at a time: the instruction for 8 bits saturates.
            let even = _mm512_set1_epi16(0xFF);
            let (a_even, a_odd) = (_mm512_and_si512(a, even), _mm512_srli_epi16::<8>(a));
            let (b_even, b_odd) = (_mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(b)), _mm512_srai_epi16::<8>(b));
            let sums = _mm512_add_epi32(_mm512_madd_epi16(a_even, b_even), _mm512_madd_epi16(a_odd, b_odd));
            _mm512_add_epi32(c, sums)
        }
    }

    #[inline(always)]
    unsafe fn store_offset_bytes(self, lanes: __m512, values: *mut u8) {
        unsafe {
            let ints = _mm512_add_epi32(_mm512_cvtps_epi32(lanes), _mm512_set1_epi32(128));
            _mm_storeu_si128(values.cast(), _mm512_cvtepi32_epi8(ints));
        }
    }

    #[inline(always)]
    fn widen(self, pairs: __m512i) -> (__m512, __m512) {
        unsafe {
            let late = _mm512_and_si512(pairs, _mm512_set1_epi32(0xFFFF_0000_u32 as i32));
            (_mm512_castsi512_ps(_mm512_slli_epi32::<16>(pairs)), _mm512_castsi512_ps(late))
        }
    }

    #[inline(always)]
    fn add_pair_products(self, a: __m512i, b: __m512i, c: __m512) -> __m512 {
        if BF16 {
            // Both types are 64 bytes of any value.
            return unsafe {
                _mm512_dpbf16_ps(
                    c,
                    std::mem::transmute::<__m512i, __m512bh>(a),
                    std::mem::transmute::<__m512i, __m512bh>(b),
                )
            };
        }
        widened_pair_products(self, a, b, c)
    }
}

/// Of each four rows, the squares of four columns in each quarter of the registers, transposed.
///
/// # Safety
/// The CPU has AVX-512 F.
#[inline(always)]
unsafe fn transposed_quarters(rows: [__m512; 16]) -> [__m512; 16] {
    let mut columns = rows;
    for (rows, columns) in rows.chunks_exact(4).zip(columns.chunks_exact_mut(4)) {
        // SAFETY: by the conditions of this function.
        unsafe {
            let pairs = |a: __m512, b: __m512| {
                let (a, b) = (_mm512_castps_pd(a), _mm512_castps_pd(b));
                (_mm512_castpd_ps(_mm512_unpacklo_pd(a, b)), _mm512_castpd_ps(_mm512_unpackhi_pd(a, b)))
            };
            let (early, late) = (
                (_mm512_unpacklo_ps(rows[0], rows[1]), _mm512_unpacklo_ps(rows[2], rows[3])),
                (_mm512_unpackhi_ps(rows[0], rows[1]), _mm512_unpackhi_ps(rows[2], rows[3])),
            );
            (columns[0], columns[1]) = pairs(early.0, early.1);
            (columns[2], columns[3]) = pairs(late.0, late.1);
        }
    }
    columns
}
