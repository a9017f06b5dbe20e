//! The gemm of linear layers with weights in f32 and bf16 and activations in both, quantised to int8, and that of the crate `gemm`, which
//! candle calls, in f32; beside what the multipliers of the same threads give when nothing has to be loaded.
//!
//!     cargo bench -p afterimage-kernels --bench gemm

#![allow(missing_docs, clippy::unwrap_used)]

use afterimage_kernels::{
    Epilogue, KernelType, Multiplied, PackedWeights, PlainWeights, Rows, multiply, peak_products,
};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use half::bf16;

fn main() {
    divan::main();
}

#[derive(Debug, Clone, Copy)]
struct Sizes {
    rows: usize,
    inputs: usize,
    outputs: usize,
}

const fn sizes(rows: usize, inputs: usize, outputs: usize) -> Sizes {
    Sizes { rows, inputs, outputs }
}

/// Two rows are embedded timesteps; the others tokens: of the embedded model at 64x64, and of DiT-XL/2 and FLUX.1 at
/// 256x256, under guidance.
const SIZES: [Sizes; 7] = [
    sizes(2, 3072, 9216),
    sizes(128, 192, 576),
    sizes(128, 768, 192),
    sizes(512, 1152, 1152),
    sizes(512, 1152, 4608),
    sizes(512, 4608, 1152),
    sizes(768, 3072, 3072),
];

fn values(length: usize) -> Vec<f32> {
    (0..length).map(|index| (index as f32 * 0.37).sin()).collect()
}

/// Items per second are floating point operations per second.
fn operations(size: Sizes) -> ItemsCount {
    ItemsCount::new(2 * size.rows * size.inputs * size.outputs)
}

fn run<T: KernelType>(bencher: Bencher<'_, '_>, size: Sizes, convert: fn(f32) -> T, weights: PlainWeights<'_>) {
    multiply_by(bencher, size, convert, &PackedWeights::new(size.outputs, size.inputs, weights));
}

fn multiply_by<T: KernelType>(bencher: Bencher<'_, '_>, size: Sizes, convert: fn(f32) -> T, weights: &PackedWeights) {
    let Sizes { rows, inputs, .. } = size;
    let x: Vec<T> = values(rows * inputs).into_iter().map(convert).collect();
    let epilogue = Epilogue::default();
    bencher
        .counter(operations(size))
        .bench_local(|| multiply(Rows { values: black_box(&x), rows }, weights, &epilogue));
}

fn narrow(size: Sizes) -> Vec<bf16> {
    values(size.outputs * size.inputs).into_iter().map(bf16::from_f32).collect()
}

#[divan::bench(args = SIZES, sample_count = 20)]
fn ours_f32(bencher: Bencher<'_, '_>, size: Sizes) {
    run(bencher, size, |value| value, PlainWeights::F32(&values(size.outputs * size.inputs)));
}

#[divan::bench(args = SIZES, sample_count = 20)]
fn ours_f32_over_bf16(bencher: Bencher<'_, '_>, size: Sizes) {
    run(bencher, size, |value| value, PlainWeights::Bf16(&narrow(size)));
}

#[divan::bench(args = SIZES, sample_count = 20)]
fn ours_bf16(bencher: Bencher<'_, '_>, size: Sizes) {
    run(bencher, size, bf16::from_f32, PlainWeights::Bf16(&narrow(size)));
}

#[divan::bench(args = SIZES, sample_count = 20)]
fn ours_int8(bencher: Bencher<'_, '_>, size: Sizes) {
    let weights = narrow(size);
    let Ok(weights) = PackedWeights::quantized(&PlainWeights::Bf16(&weights), (size.outputs, size.inputs));
    multiply_by(bencher, size, bf16::from_f32, &weights);
}

#[divan::bench(sample_count = 20, args = [Multiplied::F32, Multiplied::Bf16, Multiplied::Int8])]
fn peak(bencher: Bencher<'_, '_>, what: Multiplied) {
    let operations = peak_products(what);
    bencher.counter(ItemsCount::new(operations)).bench_local(|| peak_products(black_box(what)));
}

#[divan::bench(args = SIZES, sample_count = 20)]
fn candle_f32(bencher: Bencher<'_, '_>, size: Sizes) {
    let Sizes { rows, inputs, outputs } = size;
    let (x, weights) = (values(rows * inputs), values(outputs * inputs));
    let mut output = vec![0f32; rows * outputs];
    let threads = gemm::Parallelism::Rayon(std::thread::available_parallelism().unwrap().get());
    bencher.counter(operations(size)).bench_local(|| {
        // SAFETY: the strides are those of contiguous [rows, outputs], [rows, inputs], [outputs, inputs].
        unsafe {
            gemm::gemm(
                rows,
                outputs,
                inputs,
                output.as_mut_ptr(),
                1,
                outputs as isize,
                false,
                black_box(x.as_ptr()),
                1,
                inputs as isize,
                weights.as_ptr(),
                inputs as isize,
                1,
                0f32,
                1f32,
                false,
                false,
                false,
                threads,
            );
        }
    });
}
