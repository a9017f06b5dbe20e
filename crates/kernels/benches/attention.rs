//! Attention of DiT-XL/2 at 256x256 under guidance, of the embedded model, of FLUX.1 at 512x512, and of a VAE's middle, with
//! whose head no panel of queries fits the first cache.
//!
//!     cargo bench -p afterimage-kernels --bench attention

#![allow(missing_docs, clippy::unwrap_used)]

use afterimage_kernels::{Attention, HeadVectors, KernelType, attend};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use half::bf16;

fn main() {
    divan::main();
}

#[derive(Debug, Clone, Copy)]
struct Sizes {
    rows: usize,
    tokens: usize,
    heads: usize,
    head_size: usize,
}

const SIZES: [Sizes; 4] = [
    Sizes { rows: 2, tokens: 256, heads: 16, head_size: 72 },
    Sizes { rows: 2, tokens: 64, heads: 6, head_size: 32 },
    Sizes { rows: 1, tokens: 1536, heads: 24, head_size: 128 },
    Sizes { rows: 1, tokens: 1024, heads: 1, head_size: 512 },
];

/// Items per second are floating point operations per second.
fn run<T: KernelType>(bencher: Bencher<'_, '_>, sizes: Sizes, convert: fn(f32) -> T, zero: T) {
    let Sizes { rows, tokens, heads, head_size } = sizes;
    // Queries, keys and values of a token side by side, as one projection leaves them.
    let width = heads * head_size;
    let values: Vec<T> = (0..rows * tokens * 3 * width).map(|index| convert((index as f32 * 0.37).sin())).collect();
    let mut output = vec![zero; rows * tokens * width];
    let operations = 4 * rows * heads * tokens * tokens * head_size;
    bencher.counter(ItemsCount::new(operations)).bench_local(|| {
        let values = black_box(&values[..]);
        let part = |part: usize| HeadVectors {
            values: &values[part * width..],
            row: tokens * 3 * width,
            token: 3 * width,
            head: head_size,
        };
        let attention = Attention {
            rows,
            heads,
            queries: tokens,
            keys: tokens,
            head_size,
            scale: 1.0 / (head_size as f32).sqrt(),
            query: part(0),
            key: part(1),
            value: part(2),
            bias: None,
        };
        attend(&attention, &mut output);
    });
}

#[divan::bench(args = SIZES, sample_count = 20)]
fn f32(bencher: Bencher<'_, '_>, sizes: Sizes) {
    run(bencher, sizes, |value| value, 0.0f32);
}

#[divan::bench(args = SIZES, sample_count = 20)]
fn bf16(bencher: Bencher<'_, '_>, sizes: Sizes) {
    run(bencher, sizes, bf16::from_f32, bf16::ZERO);
}
