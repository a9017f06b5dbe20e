//! CPU operators that a tensor library leaves slow.
//!
//! Plain slices in and out; no tensors, no models. Every operator is written once, over the registers of an instruction
//! set ([`Isa`]), and compiled for each; the widest one of the CPU is chosen at run time. Results may differ in the last
//! bit between instruction sets (fused multiply-add), and never with the number of threads.

mod activate;
mod attention;
mod buffer;
mod convolution;
mod depthwise;
mod entries;
mod functions;
mod gemm;
mod group_norm;
mod map;
mod memory;
mod norm;
mod parallel;
mod peak;
mod pool;
mod simd;

pub use self::gemm::{Activation, Epilogue, Gate, PackedWeights, PlainWeights, Rows, Value, WeightRows};
pub use attention::{Attention, HeadVectors, ScoreBias};
pub use convolution::{Convolution, ConvolvedRows, Neighbourhood, Picture};
pub use depthwise::{ChannelKernels, ChannelMap, convolve_channels};
pub use entries::{
    KernelType, activate, attend, convolve, layer_norm, multiply, multiply_widened, norm_and_turn, scale_shift_silu,
};
pub use group_norm::{Channels, Sums, group_sums};
pub use memory::{keep_freed_memory, return_freed_memory};
pub use norm::{LayerNorm, Modulation, NormAndTurn, Turn};
pub use peak::{Multiplied, peak_products};
pub use pool::{on_pool, set_threads, side_by_side, threads};
pub use simd::{Isa, IsaError};
