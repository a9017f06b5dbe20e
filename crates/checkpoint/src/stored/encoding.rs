//! How the elements of a stored tensor are written.

use std::fmt;

use ::safetensors::Dtype;
use candle_core::quantized::GgmlDType;

/// Numbers one by one, or ggml's blocks of some tens of numbers with common scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Plain(Dtype),
    Blocks(GgmlDType),
}

impl Encoding {
    /// Bytes of this many elements; blocks are taken to be whole.
    pub(crate) fn bytes(self, elements: usize) -> usize {
        match self {
            Self::Plain(dtype) => elements * dtype.bitsize() / 8,
            Self::Blocks(dtype) => elements / dtype.block_size() * dtype.type_size(),
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(dtype) => dtype.fmt(f),
            Self::Blocks(dtype) => write!(f, "{dtype:?}"),
        }
    }
}
