//! One PixArt block: self-attention, attention to the caption, feed-forward. The modulation is the
//! model's plus a table of the block's own.
//!
//! Follows diffusers 0.42.1:
//!
//! * `BasicTransformerBlock` (lines 751-1080):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/attention.py#L751>
//! * `AdaLayerNormSingle` (lines 235-266):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/normalization.py#L235>

use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};

use super::config::TransformerConfig;
use crate::DiffusionError;
use crate::families::hidden_blocks::HiddenBlock;
use crate::layers::{Attention, EncoderStates, FeedForward, ModulationTable, PlainLayerNorm, RowContext};
use crate::ops::linear::GateAndResidual;

/// Shift, scale and gate of the self-attention, then of the feed-forward.
pub(super) const MODULATIONS: usize = 6;

#[derive(Debug)]
pub(super) struct PixArtBlock {
    modulation: ModulationTable<MODULATIONS>,
    attention_norm: PlainLayerNorm,
    attention: Attention,
    caption_attention: Attention,
    feed_forward_norm: PlainLayerNorm,
    feed_forward: FeedForward,
}

impl PixArtBlock {
    pub(super) fn new(config: &TransformerConfig, parameters: Parameters) -> std::result::Result<Self, DiffusionError> {
        let size = config.hidden_size();
        let norm = |name: &str| {
            PlainLayerNorm::load(size, config.norm_eps, config.norm_elementwise_affine, parameters.pp(name))
        };
        let (heads, bias) = (config.num_attention_heads, config.attention_bias);
        Ok(Self {
            modulation: ModulationTable::new(size, &parameters)?,
            attention_norm: norm("norm1")?,
            attention: Attention::to_itself(size, heads, bias, parameters.pp("attn1"))?,
            caption_attention: Attention::to_context(size, size, heads, bias, parameters.pp("attn2"))?,
            feed_forward_norm: norm("norm2")?,
            feed_forward: FeedForward::new(size, config.activation()?, parameters.pp("ff").pp("net"))?,
        })
    }

    /// Shift, scale and gate of the attention, then of the feed-forward: `[rows, hidden]` each. The model's are
    /// `[rows, 6, hidden]`.
    fn modulation(&self, context: &RowContext) -> Result<[Tensor; MODULATIONS]> {
        self.modulation.moved(&context.modulation)
    }
}

impl HiddenBlock for PixArtBlock {
    /// What the self-attention of this block is given: `[rows, tokens, hidden]`.
    fn modulated_input(&self, hidden: &Tensor, context: &RowContext) -> Result<Tensor> {
        let [shift, scale, ..] = self.modulation(context)?;
        self.attention_norm.modulated(hidden, &scale, &shift)
    }

    fn forward(&self, hidden: &Tensor, context: &RowContext) -> Result<Tensor> {
        let [shift_attention, scale_attention, gate_attention, shift_mlp, scale_mlp, gate_mlp] =
            &self.modulation(context)?;
        let x = self.attention_norm.modulated(hidden, scale_attention, shift_attention)?;
        let hidden = self.attention.forward(&x, &x, None, GateAndResidual::new(gate_attention, hidden))?;
        // There is no norm before the attention to the caption: `norm2` is the feed-forward's here.
        let EncoderStates { states, bias } = context.encoder()?;
        let onto = GateAndResidual::residual(&hidden);
        let hidden = self.caption_attention.forward(&hidden, states, bias.as_ref(), onto)?;
        let x = self.feed_forward_norm.modulated(&hidden, scale_mlp, shift_mlp)?;
        self.feed_forward.forward(&x, GateAndResidual::new(gate_mlp, &hidden))
    }
}
