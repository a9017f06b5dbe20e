//! One DiT block: self-attention and feed-forward, each wrapped in adaLN-Zero.
//!
//! Follows diffusers 0.42.1, `BasicTransformerBlock` (lines 751-1080):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/attention.py#L751>

use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};

use super::config::TransformerConfig;
use super::modulations::of_block;
use crate::DiffusionError;
use crate::families::hidden_blocks::HiddenBlock;
use crate::layers::{Attention, FeedForward, PlainLayerNorm, RowContext};
use crate::ops::linear::GateAndResidual;

/// Epsilon of the norm before the attention; fixed in diffusers' `AdaLayerNormZero`.
const ATTENTION_NORM_EPS: f64 = 1e-6;

#[derive(Debug)]
pub(super) struct DitBlock {
    index: usize,
    attention_norm: PlainLayerNorm,
    attention: Attention,
    feed_forward_norm: PlainLayerNorm,
    feed_forward: FeedForward,
}

impl DitBlock {
    pub(super) fn new(
        index: usize,
        config: &TransformerConfig,
        parameters: Parameters,
    ) -> std::result::Result<Self, DiffusionError> {
        let size = config.hidden_size();
        Ok(Self {
            index,
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

    /// Shift, scale and gate of the attention, then of the feed-forward: `[rows, hidden]` each.
    fn modulation(&self, context: &RowContext) -> Result<[Tensor; 6]> {
        of_block(&context.modulation, self.index, self.attention_norm.size())
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
