//! Intel's unit for tiles, AMX: eight registers of sixteen rows of 64 bytes.
//!
//! Rust has no stable functions for it, so the loop is assembly. Four registers are sums (two by two tiles), two are rows of A
//! and two are columns of B, so a step loads four tiles for four products: a product takes 16 cycles, loading a tile from the
//! first cache 8. Registers are set up and released within one call: between calls the thread has no state that the system
//! would have to save, and no other code can meet ours.
//!
//! Whoever has an [`Amx`] may use it: the CPU has the instructions, the system has given the process leave to have registers
//! this large, and a product came out as it should.

use std::arch::asm;
use std::arch::x86_64::__cpuid_count;
use std::sync::OnceLock;

use super::tiles::{PANEL_ROW_BYTES, SIDE, STEP_BYTES, SUMMED_SIDE, TileArrays, TileRows, Tiled, Tiles};

/// The unit.
#[derive(Debug, Clone, Copy)]
pub(super) struct Amx(());

impl Amx {
    /// The CPU's, if it has one that can be used.
    pub(super) fn detected() -> Option<Self> {
        static DETECTED: OnceLock<Option<Amx>> = OnceLock::new();
        *DETECTED.get_or_init(|| {
            let found = (has_instructions() && is_permitted()).then_some(Self(()));
            found.filter(|amx| [Tiled::Bf16, Tiled::Int8].into_iter().all(|what| amx.is_right(what)))
        })
    }

    /// Small integers, whose products and sums are exact, multiply as they should.
    fn is_right(self, what: Tiled) -> bool {
        const STEPS: usize = 2;
        const ROWS: usize = 19;
        let values = |length: usize| (0..length).map(|index| (index * 7 % 11) as u8);
        let bytes = |length: usize| match what {
            Tiled::Bf16 => values(length / 2).flat_map(|value| half::bf16::from(value).to_le_bytes()).collect(),
            Tiled::Int8 => values(length).collect::<Vec<_>>(),
        };
        let (a, b) = (bytes(ROWS * STEPS * STEP_BYTES), bytes(STEPS * STEP_BYTES * SUMMED_SIDE));
        let rows = TileRows { first: a.as_ptr(), row: STEPS * STEP_BYTES, step: STEP_BYTES };
        let mut sums = [[0f32; ROWS * SUMMED_SIDE]; 2];
        // SAFETY: there are as many steps, rows and sums.
        unsafe {
            self.multiply(what, rows, b.as_ptr(), STEPS, ROWS, sums[0].as_mut_ptr());
            TileArrays.multiply(what, rows, b.as_ptr(), STEPS, ROWS, sums[1].as_mut_ptr());
        }
        sums[0].map(f32::to_bits) == sums[1].map(f32::to_bits)
    }
}

/// The CPU, which has AVX-512, has AMX with bf16 and integers of 8 bits.
fn has_instructions() -> bool {
    const TILES_BF16_INT8: u32 = 1 << 24 | 1 << 22 | 1 << 25;
    __cpuid_count(7, 0).edx & TILES_BF16_INT8 == TILES_BF16_INT8
}

/// Asks Linux to let this process use the registers.
#[cfg(target_os = "linux")]
fn is_permitted() -> bool {
    use std::ffi::c_long;
    unsafe extern "C" {
        fn syscall(number: c_long, ...) -> c_long;
    }
    const ARCH_PRCTL: c_long = 158;
    const REQUEST_PERMISSION: c_long = 0x1023;
    const TILE_DATA: c_long = 18;
    // SAFETY: the call takes these two numbers and touches no memory of ours; a system that does not know it answers an error.
    unsafe { syscall(ARCH_PRCTL, REQUEST_PERMISSION, TILE_DATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn is_permitted() -> bool {
    false
}

/// Bytes of the groups of a step in a panel, and of the upper half of the sums.
const HALF_BYTES: usize = SIDE * PANEL_ROW_BYTES;

/// How the registers are shaped, as `ldtilecfg` reads it.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

impl Shapes {
    /// Sums of 0 to 15 in registers 0 and 1, of the other rows in 2 and 3; A in 4 and 5; B in 6 and 7. Rows that are missing
    /// are neither read nor written.
    fn of(rows: usize) -> Self {
        let mut shapes = Self { palette: 1, start_row: 0, reserved: [0; 14], row_bytes: [0; 16], rows: [0; 16] };
        let upper = rows.min(SIDE);
        let counts = [upper, upper, rows - upper, rows - upper, upper, rows - upper, SIDE, SIDE];
        for (register, count) in counts.into_iter().enumerate().filter(|(_, count)| *count > 0) {
            shapes.row_bytes[register] = STEP_BYTES as u16;
            shapes.rows[register] = count as u8;
        }
        shapes
    }
}

/// More rows than one tile has.
macro_rules! sum_four_tiles {
    ($product:literal, $shapes:expr, $a:expr, $b:expr, $steps:expr, $c:expr) => {
        asm!(
            "ldtilecfg [{shapes}]",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "test {steps}, {steps}",
            "jz 3f",
            "2:",
            "tileloadd tmm6, [{b} + {line}*1]",
            "tileloadd tmm4, [{upper} + {row}*1]",
            "tileloadd tmm7, [{b} + {line}*1 + 64]",
            "tileloadd tmm5, [{lower} + {row}*1]",
            concat!($product, " tmm0, tmm4, tmm6"),
            concat!($product, " tmm1, tmm4, tmm7"),
            concat!($product, " tmm2, tmm5, tmm6"),
            concat!($product, " tmm3, tmm5, tmm7"),
            "add {upper}, {step}",
            "add {lower}, {step}",
            "add {b}, {half}",
            "dec {steps}",
            "jnz 2b",
            "3:",
            "tilestored [{c} + {line}*1], tmm0",
            "tilestored [{c} + {line}*1 + 64], tmm1",
            "tilestored [{c} + {line}*1 + {half}], tmm2",
            "tilestored [{c} + {line}*1 + {half} + 64], tmm3",
            "tilerelease",
            shapes = in(reg) $shapes,
            upper = inout(reg) $a.first => _,
            lower = inout(reg) $a.first.wrapping_add(SIDE * $a.row) => _,
            row = in(reg) $a.row,
            step = in(reg) $a.step,
            b = inout(reg) $b => _,
            steps = inout(reg) $steps => _,
            c = in(reg) $c,
            line = in(reg) PANEL_ROW_BYTES,
            half = const HALF_BYTES,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

/// At most as many rows as one tile has.
macro_rules! sum_two_tiles {
    ($product:literal, $shapes:expr, $a:expr, $b:expr, $steps:expr, $c:expr) => {
        asm!(
            "ldtilecfg [{shapes}]",
            "tilezero tmm0",
            "tilezero tmm1",
            "test {steps}, {steps}",
            "jz 3f",
            "2:",
            "tileloadd tmm4, [{a} + {row}*1]",
            "tileloadd tmm6, [{b} + {line}*1]",
            "tileloadd tmm7, [{b} + {line}*1 + 64]",
            concat!($product, " tmm0, tmm4, tmm6"),
            concat!($product, " tmm1, tmm4, tmm7"),
            "add {a}, {step}",
            "add {b}, {half}",
            "dec {steps}",
            "jnz 2b",
            "3:",
            "tilestored [{c} + {line}*1], tmm0",
            "tilestored [{c} + {line}*1 + 64], tmm1",
            "tilerelease",
            shapes = in(reg) $shapes,
            a = inout(reg) $a.first => _,
            row = in(reg) $a.row,
            step = in(reg) $a.step,
            b = inout(reg) $b => _,
            steps = inout(reg) $steps => _,
            c = in(reg) $c,
            line = in(reg) PANEL_ROW_BYTES,
            half = const HALF_BYTES,
            out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

/// Four products of registers that hold zeros.
macro_rules! repeat_products {
    ($product:literal, $shapes:expr, $times:expr) => {
        asm!(
            "ldtilecfg [{shapes}]",
            "test {times}, {times}",
            "jz 3f",
            "2:",
            concat!($product, " tmm0, tmm4, tmm6"),
            concat!($product, " tmm1, tmm4, tmm7"),
            concat!($product, " tmm2, tmm5, tmm6"),
            concat!($product, " tmm3, tmm5, tmm7"),
            "dec {times}",
            "jnz 2b",
            "3:",
            "tilerelease",
            shapes = in(reg) $shapes,
            times = inout(reg) $times => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        )
    };
}

impl Tiles for Amx {
    #[inline(never)]
    unsafe fn multiply(self, what: Tiled, a: TileRows, b: *const u8, steps: usize, rows: usize, c: *mut f32) {
        let shapes = Shapes::of(rows);
        let shapes = &raw const shapes;
        // SAFETY: a value of `Amx` stands for the instructions. They read as many steps of the rows that `shapes` has, and of B,
        // and write as many rows of C; all of that is there by the conditions of the trait.
        unsafe {
            match (what, rows > SIDE) {
                (Tiled::Bf16, true) => sum_four_tiles!("tdpbf16ps", shapes, a, b, steps, c),
                (Tiled::Bf16, false) => sum_two_tiles!("tdpbf16ps", shapes, a, b, steps, c),
                (Tiled::Int8, true) => sum_four_tiles!("tdpbusd", shapes, a, b, steps, c),
                (Tiled::Int8, false) => sum_two_tiles!("tdpbusd", shapes, a, b, steps, c),
            }
        }
    }

    #[inline(never)]
    fn repeat(self, what: Tiled, times: usize) {
        let shapes = Shapes::of(SUMMED_SIDE);
        // SAFETY: a value of `Amx` stands for the instructions, which touch registers alone.
        unsafe {
            match what {
                Tiled::Bf16 => repeat_products!("tdpbf16ps", &raw const shapes, times),
                Tiled::Int8 => repeat_products!("tdpbusd", &raw const shapes, times),
            }
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests;
