//! Products of linear layers: the kernel with weights in f32 and bf16, and a whole product by gemm, as
//! candle makes it, with weights in f32.
//!
//!     cargo bench -p afterimage-kernels --bench row_product

#![allow(missing_docs, clippy::unwrap_used)]

use std::convert::Infallible;
use std::ops::Range;

use afterimage_kernels::{RowProduct, WeightRows};
use divan::counter::ItemsCount;
use divan::{Bencher, black_box};

fn main() {
    divan::main();
}

/// Two rows are embedded timesteps; the others tokens: of DiT-XL/2 and of FLUX.1 at 256x256.
const SIZES: [RowProduct; 4] = [
    RowProduct { rows: 2, inputs: 3072, outputs: 9216 },
    RowProduct { rows: 512, inputs: 1152, outputs: 4608 },
    RowProduct { rows: 768, inputs: 3072, outputs: 3072 },
    RowProduct { rows: 768, inputs: 12288, outputs: 3072 },
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
fn operations(product: RowProduct) -> ItemsCount {
    ItemsCount::new(2 * product.rows * product.inputs * product.outputs)
}

#[divan::bench(args = SIZES, sample_count = 10)]
fn rows_f32(bencher: Bencher<'_, '_>, product: RowProduct) {
    let (x, weights) = (values(product.rows * product.inputs), values(product.outputs * product.inputs));
    let mut output = vec![0f32; product.rows * product.outputs];
    let weights = F32(&weights, product.inputs);
    bencher.counter(operations(product)).bench_local(|| product.run(black_box(&x), &weights, &mut output).unwrap());
}

#[divan::bench(args = SIZES, sample_count = 10)]
fn rows_bf16(bencher: Bencher<'_, '_>, product: RowProduct) {
    let x = values(product.rows * product.inputs);
    let weights: Vec<u16> =
        values(product.outputs * product.inputs).iter().map(|v| (v.to_bits() >> 16) as u16).collect();
    let mut output = vec![0f32; product.rows * product.outputs];
    let weights = Bf16(&weights, product.inputs);
    bencher.counter(operations(product)).bench_local(|| product.run(black_box(&x), &weights, &mut output).unwrap());
}

#[divan::bench(args = SIZES, sample_count = 10)]
fn whole_f32(bencher: Bencher<'_, '_>, product: RowProduct) {
    let RowProduct { rows, inputs, outputs } = product;
    let (x, weights) = (values(rows * inputs), values(outputs * inputs));
    let mut output = vec![0f32; rows * outputs];
    let threads = gemm::Parallelism::Rayon(std::thread::available_parallelism().unwrap().get());
    bencher.counter(operations(product)).bench_local(|| {
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
