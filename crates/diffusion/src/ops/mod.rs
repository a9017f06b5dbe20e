//! Operators that devices compute in different ways, one per file.
//!
//! Layers and models call these; what a device is good at is decided here and nowhere else. A file holds the
//! operator, an arm for each device that has a kernel of this project, candle's own operators for the others, and in
//! its tests the definition that arms are compared with.

pub(crate) mod activation;
pub(crate) mod attention;
pub(crate) mod convolution;
mod cpu;
mod cuda;
#[cfg(test)]
mod definition;
pub(crate) mod depthwise;
mod epilogue;
mod float8;
pub(crate) mod gated_parts;
pub(crate) mod group_norm;
pub(crate) mod heads;
pub(crate) mod layer_norm;
pub(crate) mod linear;
pub(crate) mod matrix;
mod norm_and_turn;
pub(crate) mod rms_norm;
pub(crate) mod rotary;
pub(crate) mod strided;
#[cfg(feature = "cuda")]
mod unfold;
