//! The single block: text and image as one sequence, attention and feed-forward side by side.
//!
//! Follows diffusers 0.42.1:
//!
//! * `FluxSingleTransformerBlock` (lines 358-412) and `FluxAttnProcessor` (76-142):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/transformers/transformer_flux.py#L358>
//! * `AdaLayerNormZeroSingle` (lines 173-202):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/normalization.py#L173>

use afterimage_cache::Streams;
use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};

use super::config::TransformerConfig;
use crate::layers::{HeadProjections, Linear, NORM_EPS, PlainLayerNorm, ProjectionNames, RowContext, clip_to_f16};
use crate::ops::activation::Activation;
use crate::ops::linear::GateAndResidual;

/// Shift, scale and gate.
const MODULATIONS: usize = 3;
/// Width of the feed-forward relative to the hidden size.
const FEED_FORWARD_FACTOR: usize = 4;

#[derive(Debug)]
pub(super) struct SingleBlock {
    modulation: Linear,
    norm: PlainLayerNorm,
    projections: HeadProjections,
    widen: Linear,
    /// From attention and feed-forward side by side.
    to_out: Linear,
}

impl SingleBlock {
    pub(super) fn new(config: &TransformerConfig, parameters: Parameters) -> Result<Self> {
        let size = config.hidden_size();
        let width = FEED_FORWARD_FACTOR * size;
        Ok(Self {
            modulation: Linear::new(size, MODULATIONS * size, parameters.conditions("norm").pp("linear"))?,
            norm: PlainLayerNorm::new(size, NORM_EPS),
            projections: HeadProjections::new(config.heads(), &ProjectionNames::PICTURE, &parameters.pp("attn"))?,
            widen: Linear::new(size, width, parameters.pp("proj_mlp"))?,
            to_out: Linear::new(size + width, size, parameters.pp("proj_out"))?,
        })
    }

    /// `image` and `text` are `[rows, tokens, hidden]`.
    pub(super) fn forward(&self, image: &Tensor, text: &Tensor, context: &RowContext) -> Result<Streams> {
        let text_tokens = text.dim(1)?;
        let x = Tensor::cat(&[text, image], 1)?;
        let modulation = self.modulation.forward(&context.modulation)?;
        let size = modulation.dim(1)? / MODULATIONS;
        let part = |index: usize| modulation.narrow(1, index * size, size);
        let (shift, scale, gate) = (part(0)?, part(1)?, part(2)?);
        let normed = self.norm.modulated(&x, &scale, &shift)?;
        let heads = self.projections.forward_turned(&normed, context.positions()?)?;
        let attended = heads.attend(context.token_bias())?;
        let widened = self.widen.forward_activated(&normed, Activation::GeluApproximate)?;
        // One projection of both branches side by side, which share a residual and a gate.
        let both = Tensor::cat(&[attended, widened], 2)?;
        let x = clip_to_f16(self.to_out.forward_onto(&both, GateAndResidual::new(&gate, &x))?)?;
        Ok(Streams { hidden: x.narrow(1, text_tokens, image.dim(1)?)?, encoder: Some(x.narrow(1, 0, text_tokens)?) })
    }
}
