//! Vector registers: kernels are written once against [`Simd`] and compiled for every instruction set.
//!
//! A kernel is a value with [`Kernel::run`], generic over the registers; [`dispatch`] runs it compiled for the
//! instruction set of [`Isa::current`]. All that is generic is `#[inline(always)]`: a function that is not inlined into
//! the one with the target features would be compiled without them, and slow.

mod isa;
mod portable;
mod tiles;
#[cfg(target_arch = "x86_64")]
mod x86_amx;
#[cfg(target_arch = "x86_64")]
mod x86_avx2;
#[cfg(target_arch = "x86_64")]
mod x86_avx512;

pub use self::isa::{Isa, IsaError};
use self::portable::{Arrays, Portable};
pub(crate) use self::tiles::{STEP_BYTES, SUMMED_SIDE, TileRows, Tiled, Tiles, operations_repeated};
#[cfg(target_arch = "x86_64")]
use self::x86_amx::Amx;

/// Lanes of the widest registers.
pub(crate) const MOST_LANES: usize = 16;

/// The registers of one instruction set. A value of the type stands for the proof that the CPU has them.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// A register of f32.
    type Lanes: Copy;
    /// A register of as many pairs of bf16; each pair is in one lane, the earlier value in its lower half.
    type Pairs: Copy;
    /// A register of as many i32.
    type Ints: Copy;
    /// A register of as many groups of four integers of 8 bits; each group is in one lane, the first in its lowest bits.
    type Quads: Copy;
    /// What multiplies tiles of matrices, for CPUs that have it.
    type Tiles: Tiles;

    /// Values in a register.
    const COUNT: usize;
    /// Rows, and registers of columns, of the tile of sums that [`Gemm`](crate::Gemm) keeps in registers.
    const TILE: (usize, usize);
    /// Sums of products of bf16 are an instruction.
    const HAS_BF16: bool = false;
    /// Sums of products of integers of 8 bits are an instruction of [`Self::add_quad_products`].
    const HAS_INT8: bool = false;

    /// What multiplies tiles, if this CPU has it.
    fn tiles(self) -> Option<Self::Tiles>;

    /// Sums of products of bf16 are faster than those of f32. With a unit for tiles they are not: such CPUs do half as many.
    #[inline(always)]
    fn multiplies_pairs(self) -> bool {
        Self::HAS_BF16 && self.tiles().is_none()
    }

    /// Runs a kernel with sums of products of integers of 8 bits as an instruction, if this CPU has it: few kernels are
    /// compiled for CPUs that have that beside an older instruction set.
    #[inline(always)]
    fn run_int8<K: Kernel>(self, kernel: K) -> K::Output {
        self.run(kernel)
    }

    /// Runs a kernel with these registers: from another thread, or from a closure, which is not compiled for them.
    fn run<K: Kernel>(self, kernel: K) -> K::Output;

    fn splat(self, value: f32) -> Self::Lanes;

    /// Reads [`Self::COUNT`] values.
    ///
    /// # Safety
    /// They are there. So for the other loads and stores.
    unsafe fn load(self, values: *const f32) -> Self::Lanes;

    /// # Safety
    /// As [`Self::load`].
    unsafe fn store(self, lanes: Self::Lanes, values: *mut f32);

    fn add(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    fn sub(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    fn mul(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    fn div(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    /// The larger; `b` if either is NaN.
    fn max(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    /// The smaller; `b` if either is NaN.
    fn min(self, a: Self::Lanes, b: Self::Lanes) -> Self::Lanes;
    /// `a * b + c`, rounded once where the instruction set can.
    fn mul_add(self, a: Self::Lanes, b: Self::Lanes, c: Self::Lanes) -> Self::Lanes;
    /// The nearest integers, and two to their power: `(n, 2^n)`. `x` is between -126.5 and 127.5.
    fn round_and_power(self, x: Self::Lanes) -> (Self::Lanes, Self::Lanes);
    /// The sum of all lanes.
    fn sum(self, lanes: Self::Lanes) -> f32;
    /// Reads [`Self::COUNT`] bf16, widened.
    ///
    /// # Safety
    /// As [`Self::load`].
    unsafe fn load_bf16(self, values: *const u16) -> Self::Lanes;

    /// Rounded to the nearest bf16, ties to even; NaN stays NaN.
    ///
    /// # Safety
    /// As [`Self::load`].
    unsafe fn store_bf16(self, lanes: Self::Lanes, values: *mut u16);

    /// Reads [`Self::COUNT`] f16, widened.
    ///
    /// # Safety
    /// As [`Self::load`].
    unsafe fn load_f16(self, values: *const u16) -> Self::Lanes;

    /// Reads [`Self::COUNT`] pairs.
    ///
    /// # Safety
    /// As [`Self::load`].
    unsafe fn load_pairs(self, values: *const u16) -> Self::Pairs;

    /// One pair in all lanes.
    ///
    /// # Safety
    /// It is there.
    unsafe fn splat_pair(self, values: *const u16) -> Self::Pairs;

    /// Writes [`Self::COUNT`] pairs.
    ///
    /// # Safety
    /// As [`Self::load`].
    unsafe fn store_pairs(self, pairs: Self::Pairs, values: *mut u16);

    /// Pairs of values rounded as by [`Self::store_bf16`].
    #[inline(always)]
    fn pairs_of(self, early: Self::Lanes, late: Self::Lanes) -> Self::Pairs {
        rounded_pairs(self, early, late)
    }

    /// Transposes a square of [`Self::COUNT`] rows of as many values of 32 bits. Rows begin `from.1` and `to.1` values apart.
    ///
    /// # Safety
    /// All rows are there, and those of `to` overlap nothing.
    #[inline(always)]
    unsafe fn transpose(self, from: (*const u32, usize), to: (*mut u32, usize)) {
        for row in 0..Self::COUNT {
            for column in 0..Self::COUNT {
                // SAFETY: by the conditions of this function.
                unsafe {
                    let value = from.0.add(row * from.1 + column).read_unaligned();
                    to.0.add(column * to.1 + row).write_unaligned(value);
                }
            }
        }
    }

    /// The earlier values of all pairs, and the later ones.
    fn widen(self, pairs: Self::Pairs) -> (Self::Lanes, Self::Lanes);

    /// Zeros.
    fn no_ints(self) -> Self::Ints;

    /// Reads [`Self::COUNT`] integers.
    ///
    /// # Safety
    /// As [`Self::load`].
    unsafe fn load_ints(self, values: *const i32) -> Self::Ints;

    /// # Safety
    /// As [`Self::load`].
    unsafe fn store_ints(self, ints: Self::Ints, values: *mut i32);

    /// Wraps around.
    fn add_ints(self, a: Self::Ints, b: Self::Ints) -> Self::Ints;

    /// As f32, rounded to the nearest.
    fn lanes_of(self, ints: Self::Ints) -> Self::Lanes;

    /// Reads [`Self::COUNT`] groups.
    ///
    /// # Safety
    /// As [`Self::load`].
    unsafe fn load_quads(self, values: *const u8) -> Self::Quads;

    /// One group in all lanes.
    ///
    /// # Safety
    /// It is there.
    unsafe fn splat_quad(self, values: *const u8) -> Self::Quads;

    /// The sums of the four products of a group, of which those of `a` have no sign and those of `b` have one, onto `c`.
    fn add_quad_products(self, a: Self::Quads, b: Self::Quads, c: Self::Ints) -> Self::Ints;

    /// Writes the nearest integers, ties to even, of values from -128 to 127, and 128 more; of NaN any.
    ///
    /// # Safety
    /// As [`Self::load`].
    unsafe fn store_offset_bytes(self, lanes: Self::Lanes, values: *mut u8);

    /// The sums of both products of a pair, onto `c`.
    #[inline(always)]
    fn add_pair_products(self, a: Self::Pairs, b: Self::Pairs, c: Self::Lanes) -> Self::Lanes {
        widened_pair_products(self, a, b, c)
    }
}

/// [`Simd::add_pair_products`] where it is no instruction.
#[inline(always)]
fn widened_pair_products<S: Simd>(simd: S, a: S::Pairs, b: S::Pairs, c: S::Lanes) -> S::Lanes {
    let ((a_early, a_late), (b_early, b_late)) = (simd.widen(a), simd.widen(b));
    simd.mul_add(a_early, b_early, simd.mul_add(a_late, b_late, c))
}

/// [`Simd::pairs_of`] where rounding is no instruction.
#[inline(always)]
fn rounded_pairs<S: Simd>(simd: S, early: S::Lanes, late: S::Lanes) -> S::Pairs {
    let (mut narrow, mut pairs) = ([[0u16; MOST_LANES]; 2], [[0u16; 2]; MOST_LANES]);
    // SAFETY: no register has more lanes.
    unsafe {
        simd.store_bf16(early, narrow[0].as_mut_ptr());
        simd.store_bf16(late, narrow[1].as_mut_ptr());
        for (lane, pair) in pairs.iter_mut().enumerate() {
            *pair = [narrow[0][lane], narrow[1][lane]];
        }
        simd.load_pairs(pairs.as_ptr().cast())
    }
}

/// Work that is compiled for every instruction set.
pub(crate) trait Kernel {
    type Output;

    /// Mark it, and what it calls, `#[inline(always)]`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Runs a kernel with the registers of [`Isa::current`].
pub(crate) fn dispatch<K: Kernel>(kernel: K) -> K::Output {
    dispatch_on(Isa::current(), kernel)
}

/// Runs a kernel with the registers of an instruction set that the CPU has.
pub(crate) fn dispatch_on<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    assert!(isa.is_available(), "{isa} is not an instruction set of this CPU");
    match isa {
        // SAFETY: the CPU has the instruction set.
        #[cfg(target_arch = "x86_64")]
        Isa::Amx => unsafe { x86_avx512::run_with_bf16(kernel, Amx::detected()) },
        // SAFETY: the CPU has the instruction set.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Bf16 => unsafe { x86_avx512::run_with_bf16(kernel, None) },
        // SAFETY: the CPU has the instruction set.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { x86_avx512::run(kernel, false) },
        // SAFETY: the CPU has the instruction set.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Vnni => unsafe { x86_avx512::run(kernel, true) },
        // SAFETY: the CPU has the instruction set.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { x86_avx2::run(kernel, false) },
        // SAFETY: the CPU has the instruction set.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2Vnni => unsafe { x86_avx2::run(kernel, true) },
        #[cfg(test)]
        Isa::EmulatedAvx512Bf16 => Arrays::<16, false>.run(kernel),
        #[cfg(test)]
        Isa::EmulatedAmx => Arrays::<16, true>.run(kernel),
        _ => Portable::run(Arrays, kernel),
    }
}

#[cfg(test)]
mod tests;
