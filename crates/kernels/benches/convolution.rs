//! Convolutions of a VAE's decoder: residual blocks of its last two stages at 256x256, and the doubling before the last.
//!
//!     cargo bench -p afterimage-kernels --bench convolution

#![allow(missing_docs, clippy::unwrap_used)]

use afterimage_kernels::{Convolution, ConvolvedRows, KernelType, Neighbourhood, Picture, convolve};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use half::bf16;

fn main() {
    divan::main();
}

#[derive(Debug, Clone, Copy)]
struct Layer {
    seen: Neighbourhood,
    channels: usize,
    side: usize,
}

const LAYERS: [Layer; 4] = [
    Layer { seen: Neighbourhood::Three, channels: 128, side: 256 },
    Layer { seen: Neighbourhood::Three, channels: 256, side: 128 },
    Layer { seen: Neighbourhood::Three, channels: 512, side: 64 },
    Layer { seen: Neighbourhood::ThreeOfDoubled, channels: 256, side: 128 },
];

fn values(length: usize) -> Vec<f32> {
    (0..length).map(|index| (index as f32 * 0.37).sin()).collect()
}

/// Items per second are floating point operations per second, those of a doubled picture folded.
fn run<T: KernelType>(bencher: Bencher<'_, '_>, layer: Layer, convert: fn(f32) -> T, narrow: bool) {
    let Layer { seen, channels, side } = layer;
    let kernels = values(channels * channels * 9);
    let convolution = Convolution::new(seen, channels, &kernels, &vec![0.0; channels], narrow);
    let picture: Vec<T> = values(channels * side * side).into_iter().map(convert).collect();
    let (height, neighbours) = (convolution.scale() * side, if convolution.scale() == 2 { 4 } else { 9 });
    let mut output = vec![0.0; channels * height * height];
    bencher.counter(ItemsCount::new(2 * channels * channels * neighbours * height * height)).bench_local(|| {
        let picture = Picture { values: black_box(&picture[..]), height: side, width: side };
        let rows = ConvolvedRows { values: &mut output, stride: height * height, adds: false };
        convolve(&convolution, 0..height, picture, rows);
    });
}

#[divan::bench(args = LAYERS, sample_count = 10)]
fn f32(bencher: Bencher<'_, '_>, layer: Layer) {
    run(bencher, layer, |value| value, false);
}

#[divan::bench(args = LAYERS, sample_count = 10)]
fn bf16(bencher: Bencher<'_, '_>, layer: Layer) {
    run(bencher, layer, bf16::from_f32, true);
}
