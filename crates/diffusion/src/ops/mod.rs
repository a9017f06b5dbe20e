//! Operators that are computed in different ways on different devices, one per file.
//!
//! Layers and models call these; what a device is good at is decided here and nowhere else.

pub(crate) mod activation;
pub(crate) mod convolution;
pub(crate) mod linear;
