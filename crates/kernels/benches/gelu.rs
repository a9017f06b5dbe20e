//! GELU over the feed-forward activations of a DiT-XL/2 block (two rows of 256 tokens).

use afterimage_kernels::gelu_tanh;
use divan::Bencher;
use divan::counter::ItemsCount;

/// Rows, tokens and feed-forward width.
const VALUES: usize = 2 * 256 * 4608;

fn main() {
    divan::main();
}

#[divan::bench]
fn gelu(bencher: Bencher<'_, '_>) {
    let mut values: Vec<f32> = (0..VALUES).map(|index| (index as f32 * 0.37).sin() * 4.0).collect();
    bencher.counter(ItemsCount::new(VALUES)).bench_local(|| gelu_tanh(&mut values));
}
