//! How the elements of a stored tensor are written.

use std::fmt;

use ::safetensors::Dtype;
use candle_core::DType;
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

    /// Bytes that so many elements of a matrix take beside these while a product in `dtype` is taken, where all of them are
    /// widened together: blocks are so by way of f32.
    pub(crate) fn widened_bytes(self, elements: usize, dtype: DType) -> u64 {
        let bytes = match self {
            Self::Plain(_) => 0,
            Self::Blocks(_) if dtype != DType::F32 => dtype.size_in_bytes() + DType::F32.size_in_bytes(),
            Self::Float8(_) | Self::Blocks(_) => dtype.size_in_bytes(),
        };
        elements as u64 * bytes as u64
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_narrower_than_products_is_widened() {
        let (float8, blocks) = (Encoding::from(Dtype::F8_E4M3), Encoding::Blocks(GgmlDType::Q4K));
        for (encoding, dtype, expected) in [
            (Encoding::from(Dtype::BF16), DType::F32, 0),
            (float8, DType::BF16, 200),
            (float8, DType::F32, 400),
            (blocks, DType::BF16, 600),
            (blocks, DType::F32, 400),
        ] {
            assert_eq!(encoding.widened_bytes(100, dtype), expected, "{encoding} for {dtype:?}");
        }
    }
}
