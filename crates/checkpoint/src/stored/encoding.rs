//! How the elements of a stored tensor are written.

use std::fmt;

use ::safetensors::Dtype;
use candle_core::quantized::GgmlDType;

use super::float8::Float8;

/// Numbers one by one, those of 8 bits apart from the others; or ggml's blocks of some tens of numbers with common scales.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Plain(Dtype),
    Float8(Float8),
    Blocks(GgmlDType),
}

impl From<Dtype> for Encoding {
    fn from(dtype: Dtype) -> Self {
        match dtype {
            Dtype::F8_E4M3 => Self::Float8(Float8::E4M3),
            Dtype::F8_E5M2 => Self::Float8(Float8::E5M2),
            other => Self::Plain(other),
        }
    }
}

impl Encoding {
    /// Bytes of this many elements; blocks are taken to be whole.
    pub(crate) fn bytes(self, elements: usize) -> usize {
        match self {
            Self::Plain(dtype) => elements * dtype.bitsize() / 8,
            Self::Float8(_) => elements,
            Self::Blocks(dtype) => elements / dtype.block_size() * dtype.type_size(),
        }
    }
}

impl fmt::Display for Encoding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plain(dtype) => dtype.fmt(f),
            Self::Float8(format) => format.fmt(f),
            Self::Blocks(dtype) => write!(f, "{dtype:?}"),
        }
    }
}
