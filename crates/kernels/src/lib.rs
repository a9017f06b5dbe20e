//! CPU operators that a tensor library leaves slow.
//!
//! Plain slices in and out; no tensors, no models. Every operator is written once as ordinary Rust
//! that the compiler vectorises, and compiled again for the wider instruction sets it may find at
//! run time. Results may differ in the last bit between instruction sets (fused multiply-add), and
//! never with the number of threads.

mod conv3x3;
mod exponential;
mod gelu;
mod gemm;
mod group_norm;
mod memory;
mod parallel;

pub use self::gemm::{Gemm, WeightRows};
pub use conv3x3::Conv3x3;
pub use gelu::gelu_tanh;
pub use group_norm::{Sums, group_sums, scale_shift_silu};
pub use memory::return_freed_memory;
