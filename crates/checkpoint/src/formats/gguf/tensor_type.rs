//! The types of ggml's tensors, by their numbers in files.

use std::fmt;

use ::safetensors::Dtype;
use candle_core::quantized::GgmlDType;

use crate::stored::encoding::Encoding;

/// A type as a file numbers it.
#[derive(Debug, Clone, Copy)]
pub(super) struct TensorType(pub(super) u32);

/// ggml's names, `enum ggml_type` in ggml.h; types that were removed keep their numbers.
const NAMES: [&str; 41] = [
    "F32",
    "F16",
    "Q4_0",
    "Q4_1",
    "Q4_2",
    "Q4_3",
    "Q5_0",
    "Q5_1",
    "Q8_0",
    "Q8_1",
    "Q2_K",
    "Q3_K",
    "Q4_K",
    "Q5_K",
    "Q6_K",
    "Q8_K",
    "IQ2_XXS",
    "IQ2_XS",
    "IQ3_XXS",
    "IQ1_S",
    "IQ4_NL",
    "IQ3_S",
    "IQ2_S",
    "IQ4_XS",
    "I8",
    "I16",
    "I32",
    "I64",
    "F64",
    "IQ1_M",
    "BF16",
    "Q4_0_4_4",
    "Q4_0_4_8",
    "Q4_0_8_8",
    "TQ1_0",
    "TQ2_0",
    "IQ4_NL_4_4",
    "IQ4_NL_4_8",
    "IQ4_NL_8_8",
    "MXFP4",
    "NVFP4",
];

impl TensorType {
    /// `None` for what is not read: types that models are not published in, and those candle has no code for.
    pub(super) fn encoding(self) -> Option<Encoding> {
        Some(match self.0 {
            0 => Encoding::Plain(Dtype::F32),
            1 => Encoding::Plain(Dtype::F16),
            2 => Encoding::Blocks(GgmlDType::Q4_0),
            3 => Encoding::Blocks(GgmlDType::Q4_1),
            6 => Encoding::Blocks(GgmlDType::Q5_0),
            7 => Encoding::Blocks(GgmlDType::Q5_1),
            8 => Encoding::Blocks(GgmlDType::Q8_0),
            10 => Encoding::Blocks(GgmlDType::Q2K),
            11 => Encoding::Blocks(GgmlDType::Q3K),
            12 => Encoding::Blocks(GgmlDType::Q4K),
            13 => Encoding::Blocks(GgmlDType::Q5K),
            14 => Encoding::Blocks(GgmlDType::Q6K),
            28 => Encoding::Plain(Dtype::F64),
            30 => Encoding::Plain(Dtype::BF16),
            _ => return None,
        })
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(self.0 as usize) {
            Some(name) => write!(f, "{name} (number {})", self.0),
            None => write!(f, "number {}, which ggml does not know", self.0),
        }
    }
}
