//! One Sana block: linear attention, attention to the caption, a gated convolution. The modulation is the model's plus a table
//! of the block's own.
//!
//! Follows diffusers 0.42.1, sana_transformer.py: `SanaTransformerBlock` (lines 196-285):
//! <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/models/transformers>

use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};

use super::attention::{CaptionAttention, LinearAttention};
use super::config::TransformerConfig;
use crate::families::hidden_blocks::HiddenBlock;
use crate::layers::{GatedConvolution, ModulationTable, PlainLayerNorm, RowContext};
use crate::ops::linear::GateAndResidual;

/// Shift, scale and gate of the attention, then of the convolution.
pub(super) const MODULATIONS: usize = 6;

#[derive(Debug)]
pub(super) struct SanaBlock {
    modulation: ModulationTable<MODULATIONS>,
    attention_norm: PlainLayerNorm,
    attention: LinearAttention,
    caption_attention: CaptionAttention,
    feed_forward_norm: PlainLayerNorm,
    feed_forward: GatedConvolution,
}

/// A block over tokens that stand in so many lines and columns.
#[derive(Debug)]
pub(super) struct PlacedBlock<'a> {
    pub(super) block: &'a SanaBlock,
    pub(super) grid: (usize, usize),
}

impl SanaBlock {
    pub(super) fn new(config: &TransformerConfig, parameters: &Parameters) -> Result<Self> {
        let (size, eps) = (config.hidden_size(), config.norm_eps);
        Ok(Self {
            modulation: ModulationTable::new(size, parameters)?,
            attention_norm: PlainLayerNorm::new(size, eps),
            attention: LinearAttention::new(config, &parameters.pp("attn1"))?,
            caption_attention: CaptionAttention::new(config, &parameters.pp("attn2"))?,
            feed_forward_norm: PlainLayerNorm::load(size, eps, config.norm_elementwise_affine, parameters.pp("norm2"))?,
            feed_forward: GatedConvolution::new(size, config.feed_forward_width(), &parameters.pp("ff"))?,
        })
    }
}

impl HiddenBlock for PlacedBlock<'_> {
    /// What the attention to the picture is given: `[rows, tokens, hidden]`.
    fn modulated_input(&self, hidden: &Tensor, context: &RowContext) -> Result<Tensor> {
        let [shift, scale, ..] = self.block.modulation.moved(&context.modulation)?;
        self.block.attention_norm.modulated(hidden, &scale, &shift)
    }

    fn forward(&self, hidden: &Tensor, context: &RowContext) -> Result<Tensor> {
        let Self { block, grid } = self;
        let [shift_attention, scale_attention, gate_attention, shift_mlp, scale_mlp, gate_mlp] =
            &block.modulation.moved(&context.modulation)?;
        let x = block.attention_norm.modulated(hidden, scale_attention, shift_attention)?;
        let hidden = block.attention.forward(&x, GateAndResidual::new(gate_attention, hidden))?;
        // There is no norm before the attention to the caption: `norm2` is the convolution's.
        let onto = GateAndResidual::residual(&hidden);
        let hidden = block.caption_attention.forward(&hidden, context.encoder()?, onto)?;
        let x = block.feed_forward_norm.modulated(&hidden, scale_mlp, shift_mlp)?;
        block.feed_forward.forward_onto(&x, *grid, GateAndResidual::new(gate_mlp, &hidden))
    }
}
