//! One DiT block: self-attention and feed-forward, each wrapped in adaLN-Zero.
//!
//! Follows diffusers 0.42.1:
//!
//! * `BasicTransformerBlock` (lines 751-1080):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/attention.py#L751>
//! * `AdaLayerNormZero` (lines 130-170):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/normalization.py#L130>

use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};

use super::config::TransformerConfig;
use super::embeddings::TimestepLabelEmbedding;
use crate::DiffusionError;
use crate::families::hidden_blocks::HiddenBlock;
use crate::layers::{Attention, FeedForward, Linear, PlainLayerNorm, RowContext};
use crate::ops::linear::GateAndResidual;

/// Epsilon of the norm before the attention; fixed in diffusers' `AdaLayerNormZero`.
const ATTENTION_NORM_EPS: f64 = 1e-6;

#[derive(Debug)]
pub(super) struct DitBlock {
    embedding: TimestepLabelEmbedding,
    /// Hidden size to six times that: shift, scale and gate for attention and feed-forward.
    modulation: Linear,
    attention_norm: PlainLayerNorm,
    attention: Attention,
    feed_forward_norm: PlainLayerNorm,
    feed_forward: FeedForward,
}

impl DitBlock {
    pub(super) fn new(config: &TransformerConfig, parameters: Parameters) -> std::result::Result<Self, DiffusionError> {
        let size = config.hidden_size();
        let norm1 = parameters.conditions("norm1");
        Ok(Self {
            embedding: TimestepLabelEmbedding::new(config.num_classes(), size, norm1.pp("emb"))?,
            modulation: Linear::new(size, 6 * size, norm1.pp("linear"))?,
            attention_norm: PlainLayerNorm::new(size, ATTENTION_NORM_EPS),
            attention: Attention::to_itself(
                size,
                config.num_attention_heads,
                config.attention_bias,
                parameters.pp("attn1"),
            )?,
            feed_forward_norm: PlainLayerNorm::load(
                size,
                config.norm_eps,
                config.norm_elementwise_affine,
                parameters.pp("norm3"),
            )?,
            feed_forward: FeedForward::new(size, config.activation()?, parameters.pp("ff").pp("net"))?,
        })
    }

    /// The vector this block makes of timestep and class: `[rows, hidden]`.
    pub(super) fn embed(&self, context: &RowContext) -> Result<Tensor> {
        self.embedding.forward(context)
    }

    /// Shift, scale and gate of the attention, then of the feed-forward: `[rows, hidden]` each.
    fn modulation(&self, context: &RowContext) -> Result<[Tensor; 6]> {
        let modulation = self.modulation.forward(&self.embed(context)?.silu()?)?.chunk(6, 1)?;
        modulation.try_into().map_err(|_| candle_core::Error::Msg("six chunks were asked for".to_owned()))
    }
}

impl HiddenBlock for DitBlock {
    /// What the attention of this block is given: `[rows, tokens, hidden]`.
    fn modulated_input(&self, hidden: &Tensor, context: &RowContext) -> Result<Tensor> {
        let [shift, scale, ..] = self.modulation(context)?;
        self.attention_norm.modulated(hidden, &scale, &shift)
    }

    fn forward(&self, hidden: &Tensor, context: &RowContext) -> Result<Tensor> {
        let [shift_attention, scale_attention, gate_attention, shift_mlp, scale_mlp, gate_mlp] =
            &self.modulation(context)?;
        let x = self.attention_norm.modulated(hidden, scale_attention, shift_attention)?;
        let hidden = self.attention.forward(&x, &x, None, GateAndResidual::new(gate_attention, hidden))?;
        let x = self.feed_forward_norm.modulated(&hidden, scale_mlp, shift_mlp)?;
        self.feed_forward.forward(&x, GateAndResidual::new(gate_mlp, &hidden))
    }
}
