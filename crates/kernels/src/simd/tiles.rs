//! Units that multiply tiles of matrices: sixteen rows by sixteen columns of sums with one instruction.

use half::bf16;

/// Rows and columns of a tile of sums. Tiles of values have as many rows, of as many groups of four bytes: pairs of bf16, or
/// four integers of 8 bits.
pub(super) const SIDE: usize = 16;
const GROUP_BYTES: usize = 4;
/// Rows, and columns, of what is summed at once: two by two tiles, so that each tile of values is used twice.
pub(crate) const SUMMED_SIDE: usize = 2 * SIDE;
/// Bytes of a row of values in one step.
pub(crate) const STEP_BYTES: usize = SIDE * GROUP_BYTES;
/// Bytes from one row of groups to the next in a panel of [`SUMMED_SIDE`] columns, and from one row of sums to the next.
pub(super) const PANEL_ROW_BYTES: usize = SUMMED_SIDE * GROUP_BYTES;

/// What is multiplied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tiled {
    /// Pairs of bf16, summed in f32: of a step first the earlier ones of all pairs, and the later ones.
    Bf16,
    /// Integers of 8 bits, without a sign times with one, summed in i32.
    Int8,
}

/// Where rows of A lie, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TileRows {
    pub(crate) first: *const u8,
    /// From one row to the next.
    pub(crate) row: usize,
    /// From one step of a row to the next.
    pub(crate) step: usize,
}

/// A unit that multiplies tiles. A value of the type stands for the proof that it can be used.
pub(crate) trait Tiles: Copy + Send + Sync + 'static {
    /// The sums of `rows` rows (of at most [`SUMMED_SIDE`]) and [`SUMMED_SIDE`] columns over `steps` of [`STEP_BYTES`]
    /// bytes: `b` is `[step, group, column, four bytes]`, `c` `[row, column]`.
    ///
    /// # Safety
    /// `a` has as many steps of as many rows, of which there is one at least, `b` as many steps, and `c` as many rows.
    unsafe fn multiply(self, what: Tiled, a: TileRows, b: *const u8, steps: usize, rows: usize, c: *mut f32);

    /// Multiplies two by two whole tiles without loading any, `times`.
    fn repeat(self, what: Tiled, times: usize);
}

/// Operations of one of the times of [`Tiles::repeat`].
pub(crate) fn operations_repeated(what: Tiled) -> usize {
    let inputs = match what {
        Tiled::Bf16 => STEP_BYTES / size_of::<bf16>(),
        Tiled::Int8 => STEP_BYTES,
    };
    2 * SUMMED_SIDE * SUMMED_SIDE * inputs
}

/// The same in ordinary Rust, which tests run where there is no such unit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TileArrays;

impl Tiles for TileArrays {
    unsafe fn multiply(self, what: Tiled, a: TileRows, b: *const u8, steps: usize, rows: usize, c: *mut f32) {
        for (row, column) in (0..rows).flat_map(|row| (0..SUMMED_SIDE).map(move |column| (row, column))) {
            // SAFETY: by the conditions of the trait; a group is four bytes of anything.
            unsafe {
                let group = |step: usize, group: usize| {
                    let a = a.first.add(row * a.row + step * a.step + group * GROUP_BYTES);
                    let b = b.add(((step * SIDE + group) * SUMMED_SIDE + column) * GROUP_BYTES);
                    (a.cast::<[u8; GROUP_BYTES]>().read(), b.cast::<[u8; GROUP_BYTES]>().read())
                };
                let place = c.add(row * SUMMED_SIDE + column);
                match what {
                    // From 0 on, as registers are: a sum of nothing would be -0.
                    Tiled::Bf16 => {
                        let sum = |sum, step| sum + bf16_step(|index| group(step, index));
                        place.write((0..steps).fold(0.0, sum));
                    }
                    Tiled::Int8 => {
                        place.cast::<i32>().write((0..steps).map(|step| int8_step(|index| group(step, index))).sum());
                    }
                }
            }
        }
    }

    fn repeat(self, _: Tiled, _: usize) {}
}

type Groups = ([u8; GROUP_BYTES], [u8; GROUP_BYTES]);

/// The sum of a step's products: of the earlier values of pairs, and of the later ones.
pub(super) fn bf16_step(groups: impl Fn(usize) -> Groups) -> f32 {
    let mut sums = [0f32; 2];
    for (a, b) in (0..SIDE).map(groups) {
        for (half, sum) in sums.iter_mut().enumerate() {
            let value = |bytes: [u8; GROUP_BYTES]| bf16::from_le_bytes([bytes[2 * half], bytes[2 * half + 1]]).to_f32();
            *sum = value(a).mul_add(value(b), *sum);
        }
    }
    sums[0] + sums[1]
}

/// The sum of a step's products.
pub(super) fn int8_step(groups: impl Fn(usize) -> Groups) -> i32 {
    let products = |(a, b): Groups| (0..GROUP_BYTES).map(move |index| i32::from(a[index]) * i32::from(b[index] as i8));
    (0..SIDE).map(groups).flat_map(products).sum()
}
