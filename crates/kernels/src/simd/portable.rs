//! Registers of the portable build: arrays, of which compilers make what the CPU has. With more lanes they stand in for
//! wider registers in tests, so that all but the instructions themselves is tested on CPUs without them.

use half::{bf16, f16};

use super::tiles::TileArrays;
use super::{Kernel, Simd};

/// As many lanes, with or without products of tiles.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrays<const COUNT: usize, const TILES: bool>;

/// Eight lanes: two registers of SSE2 or NEON.
pub(crate) type Portable = Arrays<8, false>;

#[inline(always)]
fn each<const COUNT: usize>(lane: impl Fn(usize) -> f32) -> [f32; COUNT] {
    std::array::from_fn(lane)
}

impl<const COUNT: usize, const TILES: bool> Simd for Arrays<COUNT, TILES> {
    type Lanes = [f32; COUNT];
    type Pairs = [[u16; 2]; COUNT];
    type Ints = [i32; COUNT];
    type Quads = [[u8; 4]; COUNT];
    type Tiles = TileArrays;

    const COUNT: usize = COUNT;
    const TILE: (usize, usize) = match COUNT {
        16 => (12, 2),
        _ if cfg!(target_arch = "aarch64") => (6, 2),
        _ => (4, 1),
    };
    const HAS_BF16: bool = COUNT == 16;
    const HAS_INT8: bool = COUNT == 16;

    fn run<K: Kernel>(self, kernel: K) -> K::Output {
        kernel.run(self)
    }

    #[inline(always)]
    fn tiles(self) -> Option<TileArrays> {
        TILES.then_some(TileArrays)
    }

    #[inline(always)]
    fn splat(self, value: f32) -> Self::Lanes {
        [value; COUNT]
    }

    #[inline(always)]
    unsafe fn load(self, values: *const f32) -> Self::Lanes {
        // SAFETY: by the conditions of this function.
        unsafe { values.cast::<Self::Lanes>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store(self, lanes: Self::Lanes, values: *mut f32) {
        // SAFETY: by the conditions of this function.
        unsafe { values.cast::<Self::Lanes>().write_unaligned(lanes) }
    }

    #[inline(always)]
    fn add(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        each(|lane| a[lane] + b[lane])
    }

    #[inline(always)]
    fn sub(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        each(|lane| a[lane] - b[lane])
    }

    #[inline(always)]
    fn mul(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        each(|lane| a[lane] * b[lane])
    }

    #[inline(always)]
    fn div(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        each(|lane| a[lane] / b[lane])
    }

    #[inline(always)]
    fn max(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        each(|lane| if a[lane] > b[lane] { a[lane] } else { b[lane] })
    }

    #[inline(always)]
    fn min(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes {
        each(|lane| if a[lane] < b[lane] { a[lane] } else { b[lane] })
    }

    #[inline(always)]
    fn mul_add(self, a: Self::Lanes, b: Self::Lanes, c: Self::Lanes) -> Self::Lanes {
        // `f32::mul_add` is a call into a library where the instruction set has none.
        if cfg!(any(target_feature = "fma", target_arch = "aarch64")) {
            each(|lane| a[lane].mul_add(b[lane], c[lane]))
        } else {
            each(|lane| a[lane] * b[lane] + c[lane])
        }
    }

    #[inline(always)]
    fn round_and_power(self, x: Self::Lanes) -> (Self::Lanes, Self::Lanes) {
        /// Adding and subtracting 1.5 * 2^23 rounds to an integer.
        const ROUNDER: f32 = 12_582_912.0;
        let rounded: Self::Lanes = each(|lane| (x[lane] + ROUNDER) - ROUNDER);
        // The exponent field of a float, built directly; NaN is cast to 0.
        (rounded, each(|lane| f32::from_bits(((rounded[lane] as i32 + 127) as u32) << 23)))
    }

    #[inline(always)]
    fn sum(self, lanes: Self::Lanes) -> f32 {
        let mut lanes = lanes;
        let mut count = COUNT;
        while count > 1 {
            count /= 2;
            for lane in 0..count {
                lanes[lane] += lanes[lane + count];
            }
        }
        lanes[0]
    }

    #[inline(always)]
    unsafe fn load_bf16(self, values: *const u16) -> Self::Lanes {
        // SAFETY: by the conditions of this function.
        let values = unsafe { values.cast::<[u16; COUNT]>().read_unaligned() };
        each(|lane| f32::from_bits(u32::from(values[lane]) << 16))
    }

    #[inline(always)]
    unsafe fn store_bf16(self, lanes: Self::Lanes, values: *mut u16) {
        let narrow: [u16; COUNT] = std::array::from_fn(|lane| bf16::from_f32(lanes[lane]).to_bits());
        // SAFETY: by the conditions of this function.
        unsafe { values.cast::<[u16; COUNT]>().write_unaligned(narrow) }
    }

    #[inline(always)]
    unsafe fn load_f16(self, values: *const u16) -> Self::Lanes {
        // SAFETY: by the conditions of this function.
        let values = unsafe { values.cast::<[u16; COUNT]>().read_unaligned() };
        each(|lane| f16::from_bits(values[lane]).to_f32())
    }

    #[inline(always)]
    unsafe fn load_pairs(self, values: *const u16) -> Self::Pairs {
        // SAFETY: by the conditions of this function.
        unsafe { values.cast::<Self::Pairs>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn splat_pair(self, values: *const u16) -> Self::Pairs {
        // SAFETY: by the conditions of this function.
        [unsafe { values.cast::<[u16; 2]>().read_unaligned() }; COUNT]
    }

    #[inline(always)]
    unsafe fn store_pairs(self, pairs: Self::Pairs, values: *mut u16) {
        // SAFETY: by the conditions of this function.
        unsafe { values.cast::<Self::Pairs>().write_unaligned(pairs) }
    }

    #[inline(always)]
    fn no_ints(self) -> Self::Ints {
        [0; COUNT]
    }

    #[inline(always)]
    unsafe fn load_ints(self, values: *const i32) -> Self::Ints {
        // SAFETY: by the conditions of this function.
        unsafe { values.cast::<Self::Ints>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store_ints(self, ints: Self::Ints, values: *mut i32) {
        // SAFETY: by the conditions of this function.
        unsafe { values.cast::<Self::Ints>().write_unaligned(ints) }
    }

    #[inline(always)]
    fn add_ints(self, a: Self::Ints, b: Self::Ints) -> Self::Ints {
        std::array::from_fn(|lane| a[lane].wrapping_add(b[lane]))
    }

    #[inline(always)]
    fn lanes_of(self, ints: Self::Ints) -> Self::Lanes {
        each(|lane| ints[lane] as f32)
    }

    #[inline(always)]
    unsafe fn load_quads(self, values: *const u8) -> Self::Quads {
        // SAFETY: by the conditions of this function.
        unsafe { values.cast::<Self::Quads>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn splat_quad(self, values: *const u8) -> Self::Quads {
        // SAFETY: by the conditions of this function.
        [unsafe { values.cast::<[u8; 4]>().read_unaligned() }; COUNT]
    }

    #[inline(always)]
    fn add_quad_products(self, a: Self::Quads, b: Self::Quads, c: Self::Ints) -> Self::Ints {
        std::array::from_fn(|lane| {
            let product = |index: usize| i32::from(a[lane][index]) * i32::from(b[lane][index] as i8);
            c[lane].wrapping_add(product(0) + product(1) + product(2) + product(3))
        })
    }

    #[inline(always)]
    unsafe fn store_offset_bytes(self, lanes: Self::Lanes, values: *mut u8) {
        let bytes: [u8; COUNT] = std::array::from_fn(|lane| (lanes[lane].round_ties_even() + 128.0) as u8);
        // SAFETY: by the conditions of this function.
        unsafe { values.cast::<[u8; COUNT]>().write_unaligned(bytes) }
    }

    #[inline(always)]
    fn widen(self, pairs: Self::Pairs) -> (Self::Lanes, Self::Lanes) {
        let half = |index: usize| each(|lane| f32::from_bits(u32::from(pairs[lane][index]) << 16));
        (half(0), half(1))
    }
}
