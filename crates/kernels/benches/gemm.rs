//! The gemm of linear layers with weights in f32 and bf16, and that of the crate `gemm`, which candle calls, with
//! weights in f32.
//!
//!     cargo bench -p afterimage-kernels --bench gemm

#![allow(missing_docs, clippy::unwrap_used)]

use std::convert::Infallible;
use std::ops::Range;

use afterimage_kernels::{Gemm, WeightRows};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};

fn main() {
    divan::main();
}

/// Two rows are embedded timesteps; the others tokens: of DiT-XL/2 and of FLUX.1 at 256x256.
const SIZES: [Gemm; 4] = [
    Gemm { rows: 2, inputs: 3072, outputs: 9216 },
    Gemm { rows: 512, inputs: 1152, outputs: 4608 },
    Gemm { rows: 768, inputs: 3072, outputs: 3072 },
    Gemm { rows: 768, inputs: 12288, outputs: 3072 },
];

struct F32<'a>(&'a [f32], usize);

impl WeightRows for F32<'_> {
    type Error = Infallible;

    fn rows<'a>(&'a self, rows: Range<usize>, _: &'a mut Vec<f32>) -> Result<&'a [f32], Infallible> {
        Ok(&self.0[rows.start * self.1..rows.end * self.1])
    }
}

struct Bf16<'a>(&'a [u16], usize);

impl WeightRows for Bf16<'_> {
    type Error = Infallible;

    fn rows<'a>(&'a self, rows: Range<usize>, scratch: &'a mut Vec<f32>) -> Result<&'a [f32], Infallible> {
        let stored = &self.0[rows.start * self.1..rows.end * self.1];
        scratch.resize(stored.len(), 0.0);
        scratch.iter_mut().zip(stored).for_each(|(wide, stored)| *wide = f32::from_bits(u32::from(*stored) << 16));
        Ok(scratch)
    }
}

fn values(length: usize) -> Vec<f32> {
    (0..length).map(|index| (index as f32 * 0.37).sin()).collect()
}

/// Items per second are floating point operations per second.
fn operations(size: Gemm) -> ItemsCount {
    ItemsCount::new(2 * size.rows * size.inputs * size.outputs)
}

#[divan::bench(args = SIZES, sample_count = 10)]
fn ours_f32(bencher: Bencher<'_, '_>, size: Gemm) {
    let (x, weights) = (values(size.rows * size.inputs), values(size.outputs * size.inputs));
    let mut output = vec![0f32; size.rows * size.outputs];
    let weights = F32(&weights, size.inputs);
    bencher.counter(operations(size)).bench_local(|| size.run(black_box(&x), &weights, &mut output).unwrap());
}

#[divan::bench(args = SIZES, sample_count = 10)]
fn ours_bf16(bencher: Bencher<'_, '_>, size: Gemm) {
    let x = values(size.rows * size.inputs);
    let weights: Vec<u16> = values(size.outputs * size.inputs).iter().map(|v| (v.to_bits() >> 16) as u16).collect();
    let mut output = vec![0f32; size.rows * size.outputs];
    let weights = Bf16(&weights, size.inputs);
    bencher.counter(operations(size)).bench_local(|| size.run(black_box(&x), &weights, &mut output).unwrap());
}

#[divan::bench(args = SIZES, sample_count = 10)]
fn candle_f32(bencher: Bencher<'_, '_>, size: Gemm) {
    let Gemm { rows, inputs, outputs } = size;
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
