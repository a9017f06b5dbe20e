//! The norms of decoders.
//!
//! Follows transformers 5.23.0, `Qwen3RMSNorm` (lines 49-67) and `Gemma2RMSNorm`:
//! <https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/qwen3/modeling_qwen3.py#L49>

use afterimage_checkpoint::Parameters;
use candle_core::{DType, Result, Tensor};

use super::config::DecoderConfig;
use super::kind::DecoderKind;
use crate::layers::RmsNorm;

#[derive(Debug)]
pub(super) enum Norm {
    Plain(RmsNorm),
    /// Weights are counted from one, and applied before rounding back.
    AboveOne(RmsNorm),
}

impl Norm {
    pub(super) fn load(config: &DecoderConfig, size: usize, parameters: &Parameters) -> Result<Self> {
        let weight = parameters.get(size, "weight")?;
        Ok(match config.kind {
            DecoderKind::Gemma2 => Self::AboveOne(RmsNorm::new((weight.to_dtype(DType::F32)? + 1.0)?, config.norm_eps)),
            _ => Self::Plain(RmsNorm::new(weight, config.norm_eps)),
        })
    }

    /// Over the last dimension.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Plain(norm) => norm.forward(x),
            Self::AboveOne(norm) => norm.forward(&x.to_dtype(DType::F32)?)?.to_dtype(x.dtype()),
        }
    }
}
