//! Times attention on a GPU in tiles of many shapes, so that `attention/tile.rs` can be set by measurement.
//!
//! `cuda/tuning/attention_variants.cu` has the kernels; they are in no product.

use std::fmt;
use std::sync::Arc;

use cudarc::driver::sys::CUevent_flags::CU_EVENT_DEFAULT;
use cudarc::driver::{CudaContext, CudaModule, CudaSlice, CudaStream};
use cudarc::nvrtc::Ptx;
use half::bf16;

use crate::attention::{Attention, HeadVectors, Tile, TileShape};
use crate::device::{self, Operands, failed};
use crate::error::KernelError;
use crate::kernel::Kernel;
use crate::value_type::ValueType;

/// Timings of which the median is taken.
const SAMPLES: usize = 50;
/// How long a sample should take at least, so that its ends do not count.
const SAMPLE_MICROSECONDS: f32 = 200.0;

/// Row tiles of a warp, warps, keys and buffers, by the size of heads.
const VARIANTS: [(usize, &[[usize; 4]]); 3] = [
    (64, &[[1, 4, 64, 1], [1, 4, 64, 2], [1, 4, 128, 1], [1, 8, 64, 1], [2, 4, 64, 1], [2, 4, 64, 2], [2, 4, 128, 1]]),
    (
        80,
        &[
            [1, 2, 64, 1],
            [1, 2, 64, 2],
            [1, 4, 32, 2],
            [1, 4, 64, 1],
            [1, 4, 64, 2],
            [1, 4, 128, 1],
            [1, 8, 64, 1],
            [2, 2, 64, 1],
            [2, 4, 32, 2],
            [2, 4, 64, 1],
            [2, 4, 64, 2],
        ],
    ),
    (
        128,
        &[
            [1, 4, 32, 2],
            [1, 4, 64, 1],
            [1, 4, 64, 2],
            [1, 8, 64, 1],
            [1, 8, 64, 2],
            [2, 4, 32, 1],
            [2, 4, 32, 2],
            [2, 4, 64, 1],
            [2, 4, 64, 2],
            [2, 8, 64, 1],
        ],
    ),
];

/// Self-attention of a model.
#[derive(Debug, Clone, Copy)]
pub struct AttentionSize {
    name: &'static str,
    rows: usize,
    tokens: usize,
    heads: usize,
    head_size: usize,
}

/// What is timed.
pub const SIZES: [AttentionSize; 4] = [
    AttentionSize { name: "DiT-XL/2 256", rows: 2, tokens: 256, heads: 16, head_size: 72 },
    AttentionSize { name: "PixArt 1024", rows: 2, tokens: 4096, heads: 16, head_size: 72 },
    AttentionSize { name: "SD3 1024", rows: 2, tokens: 4096 + 333, heads: 24, head_size: 64 },
    AttentionSize { name: "FLUX 1024", rows: 1, tokens: 4096 + 512, heads: 24, head_size: 128 },
];

/// One tile on one size.
#[derive(Debug)]
pub struct Timing {
    size: AttentionSize,
    kernel: String,
    is_chosen: bool,
    /// Of one launch, the median.
    microseconds: f32,
    /// From what the chosen tile answers, at most.
    difference: f32,
}

impl fmt::Display for Timing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let AttentionSize { name, rows, tokens, heads, head_size } = self.size;
        let products = 4.0 * (rows * heads * head_size) as f64 * (tokens as f64).powi(2);
        let teraflops = products / f64::from(self.microseconds) * 1e-6;
        let chosen = if self.is_chosen { "chosen" } else { "" };
        let Self { kernel, microseconds, difference, .. } = self;
        write!(f, "{name:<13} {kernel:<32} {microseconds:>9.2} us {teraflops:>6.1} TFLOP/s  ")?;
        write!(f, "difference {difference:.5}  {chosen}")
    }
}

/// Times all tiles on all sizes, and calls `done` for each.
///
/// # Errors
/// If there is no such device, or a kernel fails there.
pub fn time_attention(number: usize, mut done: impl FnMut(&Timing)) -> Result<(), KernelError> {
    let context = CudaContext::new(number).map_err(failed("opening the device"))?;
    let image = include_bytes!(concat!(env!("OUT_DIR"), "/attention_variants.fatbin"));
    let module = context.load_module(Ptx::from_binary(image.to_vec())).map_err(failed("loading kernels"))?;
    let stream = context.default_stream();
    for size in SIZES {
        let mut bench = Bench::new(&stream, size)?;
        for (padded, shapes) in VARIANTS {
            if padded == size.head_size.next_multiple_of(16) {
                for shape in shapes {
                    done(&bench.time(&module, padded, *shape)?);
                }
            }
        }
    }
    Ok(())
}

/// Operands of a size.
struct Bench<'a> {
    stream: &'a Arc<CudaStream>,
    size: AttentionSize,
    /// `[rows, tokens, 3 * heads * head size]`, as a fused product leaves them.
    projected: CudaSlice<bf16>,
    output: CudaSlice<bf16>,
    /// What the chosen tile answers, and its kernel.
    expected: (Vec<bf16>, Kernel),
}

impl<'a> Bench<'a> {
    fn new(stream: &'a Arc<CudaStream>, size: AttentionSize) -> Result<Self, KernelError> {
        let values = size.rows * size.tokens * size.heads * size.head_size;
        // Numbers of some spread: power, and with it the clock, depends on them.
        let numbers = (0..3 * values).map(|index| bf16::from_f32((index as f32 * 0.731).sin() * 2.0));
        let projected = stream.clone_htod(&numbers.collect::<Vec<_>>()).map_err(failed("copying to the device"))?;
        let output = device::allocate(stream, values)?;
        let mut bench = Self { stream, size, projected, output, expected: (Vec::new(), Kernel::ALL[0]) };
        let limits = device::limits(stream)?;
        let kernel = bench.on_operands(|attention, operands| {
            let launch = attention.launch(limits)?;
            operands.launch(&launch)?;
            Ok(launch.kernel)
        })?;
        bench.expected = (bench.answer()?, kernel);
        Ok(bench)
    }

    fn time(&mut self, module: &Arc<CudaModule>, padded: usize, shape: [usize; 4]) -> Result<Timing, KernelError> {
        let [row_tiles, warps, keys, buffers] = shape;
        let name = format!("attention_bf16_{padded}_{row_tiles}_{warps}_{keys}_{buffers}");
        let function = module.load_function(&name).map_err(failed("finding a kernel"))?;
        let tile = Tile { kernel: self.expected.1, shape: TileShape::narrow([padded, padded], shape) };
        device::allow_shared(&function, tile.shape.shared_bytes as i32)?;
        let stream = self.stream;
        let microseconds = self.on_operands(|attention, _| {
            let launch = attention.launch_with(&tile)?;
            let repeated = |times: usize| repeated(stream, times, || device::run(stream, &function, &launch));
            median(repeated)
        })?;
        let answer = self.answer()?;
        let differences = answer.iter().zip(&self.expected.0).map(|(found, of)| (found.to_f32() - of.to_f32()).abs());
        let difference = differences.fold(0.0, |most, next| if next <= most { most } else { next });
        let is_chosen = name == self.expected.1.name();
        Ok(Timing { size: self.size, kernel: name, is_chosen, microseconds, difference })
    }

    fn on_operands<R>(
        &mut self,
        work: impl FnOnce(Attention<'_>, Operands<'_>) -> Result<R, KernelError>,
    ) -> Result<R, KernelError> {
        let AttentionSize { rows, tokens, heads, head_size, .. } = self.size;
        let mut operands = Operands::new(self.stream);
        let token = 3 * heads * head_size;
        let mut part = |number: usize| -> Result<_, KernelError> {
            let values = operands.read(&self.projected, number * heads * head_size)?;
            Ok(HeadVectors { values, row: tokens * token, token, head: head_size })
        };
        let (query, key, value) = (part(0)?, part(1)?, part(2)?);
        let attention = Attention {
            value_type: ValueType::Bf16,
            rows,
            heads,
            queries: tokens,
            keys: tokens,
            head_size,
            scale: (head_size as f32).powf(-0.5),
            soft_cap: None,
            query,
            key,
            value,
            bias: None,
            output: operands.write(&mut self.output, 0)?,
        };
        work(attention, operands)
    }

    /// What is in the output, which is forgotten.
    fn answer(&mut self) -> Result<Vec<bf16>, KernelError> {
        let answer = self.stream.clone_dtoh(&self.output).map_err(failed("copying from the device"))?;
        self.stream.memset_zeros(&mut self.output).map_err(failed("clearing memory"))?;
        Ok(answer)
    }
}

/// Microseconds of one of `times` launches.
fn repeated(
    stream: &CudaStream,
    times: usize,
    launch: impl Fn() -> Result<(), KernelError>,
) -> Result<f32, KernelError> {
    let mark = || stream.record_event(Some(CU_EVENT_DEFAULT)).map_err(failed("recording an event"));
    let start = mark()?;
    for _ in 0..times {
        launch()?;
    }
    let milliseconds = start.elapsed_ms(&mark()?).map_err(failed("reading a time"))?;
    Ok(milliseconds * 1000.0 / times as f32)
}

/// Of samples that are long enough.
fn median(sample: impl Fn(usize) -> Result<f32, KernelError>) -> Result<f32, KernelError> {
    sample(3)?;
    let times = (SAMPLE_MICROSECONDS / sample(3)?).ceil().max(1.0) as usize;
    let mut samples = (0..SAMPLES).map(|_| sample(times)).collect::<Result<Vec<_>, _>>()?;
    samples.sort_by(f32::total_cmp);
    Ok(samples[SAMPLES / 2])
}
