//! Which kernel of `cuda/attention_*.cu` answers which attention.

use crate::kernel::Kernel;
use crate::limits::Limits;
use crate::value_type::ValueType;

/// A division of the work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TileShape {
    /// Largest size of a head.
    pub(crate) size: usize,
    /// Values of a head that a block answers.
    pub(crate) values: usize,
    /// Queries that a block answers.
    pub(crate) queries: usize,
    /// Threads of a block.
    pub(crate) threads: u32,
    /// What a block takes.
    pub(crate) shared_bytes: usize,
}

impl TileShape {
    /// `AttentionTile` of `cuda/attention_tile.cuh`: size and values of a head; row tiles of a warp, warps, keys, buffers.
    pub(crate) const fn narrow([size, values]: [usize; 2], [row_tiles, warps, keys, buffers]: [usize; 4]) -> Self {
        const VALUE_BYTES: usize = 2;
        const PIECE: usize = 8;
        let queries = 16 * row_tiles * warps;
        let pitch = size + PIECE;
        let buffer = keys * (pitch + values + PIECE);
        let shared_bytes = VALUE_BYTES * (queries * pitch + buffers * buffer);
        Self { size, values, queries, threads: 32 * warps as u32, shared_bytes }
    }

    /// `attend` of `cuda/attention_f32.cu`; heads of any size are answered in parts.
    const fn wide(size: usize, values: usize) -> Self {
        const QUERIES: usize = 64;
        const PITCHES: usize = 36 + 36 + 68;
        Self { size, values, queries: QUERIES, threads: 256, shared_bytes: 4 * QUERIES * (PITCHES + values) }
    }

    /// Blocks for a head.
    pub(super) fn blocks(&self, queries: usize, head_size: usize) -> usize {
        queries.div_ceil(self.queries) * head_size.div_ceil(self.values)
    }
}

/// A kernel, and how it divides the work.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tile {
    pub(crate) kernel: Kernel,
    pub(crate) shape: TileShape,
}

/// Blocks per multiprocessor below which smaller blocks share the work out better.
const ENOUGH_BLOCKS: usize = 2;

impl Tile {
    /// Those that a device can run on heads of a size, best first where there are queries enough.
    pub(crate) fn all(value_type: ValueType, head_size: usize, limits: Limits) -> impl Iterator<Item = &'static Self> {
        let tiles = value_type.of([F32, F16, BF16]);
        let size = tiles.iter().map(|tile| tile.shape.size).find(|size| *size >= head_size);
        let fits = move |shape: &TileShape| Some(shape.size) == size && shape.shared_bytes <= limits.shared_bytes;
        tiles.iter().filter(move |tile| fits(&tile.shape))
    }

    /// The one for a number of heads, of all rows.
    pub(super) fn choose(
        value_type: ValueType,
        head_size: usize,
        (heads, queries): (usize, usize),
        limits: Limits,
    ) -> Option<&'static Self> {
        let wanted = ENOUGH_BLOCKS * limits.processors;
        let mut tiles = Self::all(value_type, head_size, limits);
        tiles.find(|tile| heads * tile.shape.blocks(queries, head_size) >= wanted).or_else(|| {
            // None has blocks enough: the smallest has most.
            Self::all(value_type, head_size, limits).min_by_key(|tile| tile.shape.queries)
        })
    }
}

const ANY: usize = usize::MAX;

const F32: &[Tile] = &[
    Tile { kernel: Kernel::AttentionF32Values32, shape: TileShape::wide(32, 32) },
    Tile { kernel: Kernel::AttentionF32Values64, shape: TileShape::wide(64, 64) },
    Tile { kernel: Kernel::AttentionF32Values80, shape: TileShape::wide(80, 80) },
    Tile { kernel: Kernel::AttentionF32Values128, shape: TileShape::wide(ANY, 128) },
];

/// The tiles of a type; the numbers are those of the instances' names.
macro_rules! tiles {
    ($($kernel:ident $sizes:tt $shape:tt),* $(,)?) => {
        &[$(Tile { kernel: Kernel::$kernel, shape: TileShape::narrow($sizes, $shape) }),*]
    };
}

const F16: &[Tile] = tiles![
    AttentionF16Size32 [32, 32] [1, 4, 64, 2],
    AttentionF16Size64 [64, 64] [2, 4, 64, 2],
    AttentionF16Size64Short [64, 64] [1, 4, 64, 2],
    AttentionF16Size80 [80, 80] [2, 4, 64, 2],
    AttentionF16Size80Short [80, 80] [1, 4, 64, 2],
    AttentionF16Size96 [96, 96] [2, 4, 64, 2],
    AttentionF16Size96Short [96, 96] [1, 4, 64, 2],
    AttentionF16Size128 [128, 128] [2, 4, 64, 2],
    AttentionF16Size128Short [128, 128] [1, 4, 64, 2],
    AttentionF16Size160 [160, 160] [1, 4, 32, 2],
    AttentionF16Size256 [256, 256] [1, 4, 32, 1],
    AttentionF16Size512 [512, 256] [1, 4, 32, 1],
    AttentionF16Size512Short [512, 256] [1, 2, 32, 1],
];

const BF16: &[Tile] = tiles![
    AttentionBf16Size32 [32, 32] [1, 4, 64, 2],
    AttentionBf16Size64 [64, 64] [2, 4, 64, 2],
    AttentionBf16Size64Short [64, 64] [1, 4, 64, 2],
    AttentionBf16Size80 [80, 80] [2, 4, 64, 2],
    AttentionBf16Size80Short [80, 80] [1, 4, 64, 2],
    AttentionBf16Size96 [96, 96] [2, 4, 64, 2],
    AttentionBf16Size96Short [96, 96] [1, 4, 64, 2],
    AttentionBf16Size128 [128, 128] [2, 4, 64, 2],
    AttentionBf16Size128Short [128, 128] [1, 4, 64, 2],
    AttentionBf16Size160 [160, 160] [1, 4, 32, 2],
    AttentionBf16Size256 [256, 256] [1, 4, 32, 1],
    AttentionBf16Size512 [512, 256] [1, 4, 32, 1],
    AttentionBf16Size512Short [512, 256] [1, 2, 32, 1],
];

#[cfg(test)]
mod tests {
    use super::*;

    const H100: Limits = Limits { shared_bytes: 227 * 1024, processors: 132 };
    /// Compute capability 89.
    const SMALL: Limits = Limits { shared_bytes: 99 * 1024, processors: 128 };

    fn chosen(head_size: usize, heads: usize, queries: usize, limits: Limits) -> Kernel {
        Tile::choose(ValueType::Bf16, head_size, (heads, queries), limits).unwrap().kernel
    }

    #[test]
    fn long_sequences_get_tall_tiles_and_short_ones_many_blocks() {
        assert_eq!(chosen(128, 24, 4608, H100), Kernel::AttentionBf16Size128);
        assert_eq!(chosen(72, 32, 256, H100), Kernel::AttentionBf16Size80Short);
        assert_eq!(chosen(1, 1, 1, H100), Kernel::AttentionBf16Size32);
        assert_eq!(chosen(512, 1, 16_384, H100), Kernel::AttentionBf16Size512);
    }

    #[test]
    fn numbers_are_those_of_the_names() {
        for (tile, value_type) in
            F16.iter().zip(std::iter::repeat("f16")).chain(BF16.iter().zip(std::iter::repeat("bf16")))
        {
            let name = tile.kernel.name();
            let numbers = name.strip_prefix(&format!("attention_{value_type}_")).unwrap();
            let numbers: Vec<usize> = numbers.split('_').map(|number| number.parse().unwrap()).collect();
            let [size, row_tiles, warps, keys, buffers] = numbers[..] else { panic!("{name}") };
            let named = TileShape::narrow([size, size.min(256)], [row_tiles, warps, keys, buffers]);
            assert_eq!(format!("{:?}", tile.shape), format!("{named:?}"), "{name}");
        }
    }

    #[test]
    fn there_is_a_tile_for_every_size_on_every_device() {
        for (value_type, head_size) in ValueType::ALL.into_iter().flat_map(|of| (1..=512).map(move |size| (of, size))) {
            assert!(Tile::choose(value_type, head_size, (1, 1), SMALL).is_some(), "{value_type:?} {head_size}");
        }
        assert!(Tile::choose(ValueType::F32, 1000, (1, 1), SMALL).is_some());
        assert!(Tile::choose(ValueType::F16, 513, (1, 1), H100).is_none());
        assert_eq!(chosen(512, 1, 1 << 20, SMALL), Kernel::AttentionBf16Size512Short);
        assert_eq!(chosen(128, 24, 4608, SMALL), Kernel::AttentionBf16Size128Short);
    }
}
