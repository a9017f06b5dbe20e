//! CUDA operators where a tensor library launches many small ones.
//!
//! A kernel is CUDA C++ in `cuda/`, one file a family. Beside it stands its operator in Rust ([`LayerNorm`] and others): what it
//! takes, checked, and how it is launched ([`Launch`]). Two machines run launches: a GPU (feature `cuda`), and an
//! emulation (feature `emulation`) that compiles the same files as C++ and checks every access to memory. The cases of
//! [`parity`] compare both with definitions in f64. No tensors, no models.

mod activation;
mod attention;
mod combination;
#[cfg(feature = "cuda")]
pub mod device;
#[cfg(feature = "emulation")]
pub mod emulation;
mod epilogue;
mod error;
mod float8;
mod group_norm;
mod kernel;
mod launch;
mod layer_norm;
mod limits;
mod machine;
mod norm_and_turn;
pub mod parity;
mod reduction;
#[cfg(feature = "tuning")]
pub mod tuning;
mod unfold;
mod value_type;

pub use activation::Activation;
pub use attention::{Attention, AttentionParameters, HeadVectors, ScoreBias};
pub use combination::{Combination, CombinationParameters, WeightedTerm};
pub use epilogue::{Epilogue, Gate};
pub use error::KernelError;
pub use float8::{Float8Format, Float8Scale, WidenFloat8};
pub use group_norm::{GroupMoments, ScaleShift};
pub use kernel::{Family, Kernel};
pub use launch::{Launch, Parameters, Span};
pub use layer_norm::{LayerNorm, Modulation};
pub use limits::Limits;
pub use machine::{Machine, MemoryOf};
pub use norm_and_turn::{NormAndTurn, Pairs, Rows, Turn};
pub use reduction::{Magnitudes, Reduction};
pub use unfold::Unfold;
pub use value_type::ValueType;
