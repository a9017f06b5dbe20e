//! One HunyuanDiT block: the skip it is given, self-attention, attention to the prompt, feed-forward. The timestep only
//! shifts the first norm, and nothing is gated.
//!
//! Follows diffusers 0.42.1, hunyuan_transformer_2d.py: `AdaLayerNormShift` (lines 34-52) and `HunyuanDiTBlock` (55-198):
//! <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/models/transformers>

use afterimage_checkpoint::Parameters;
use candle_core::{D, Result, Tensor};

use super::attention::{SelfAttention, TextAttention};
use super::config::TransformerConfig;
use crate::DiffusionError;
use crate::layers::{FeedForward, Linear, PlainLayerNorm, RowContext};
use crate::ops::linear::GateAndResidual;

/// Epsilon of the norms of a block; fixed in diffusers.
const NORM_EPS: f64 = 1e-6;

#[derive(Debug)]
pub(super) struct HunyuanBlock {
    /// In the second half: what becomes of the hidden stream and the skip, side by side.
    skip: Option<(PlainLayerNorm, Linear)>,
    attention_norm: PlainLayerNorm,
    attention_shift: Linear,
    attention: SelfAttention,
    text_norm: PlainLayerNorm,
    text_attention: TextAttention,
    feed_forward_norm: PlainLayerNorm,
    feed_forward: FeedForward,
}

impl HunyuanBlock {
    pub(super) fn new(
        config: &TransformerConfig,
        takes_skip: bool,
        parameters: Parameters,
    ) -> std::result::Result<Self, DiffusionError> {
        let size = config.hidden_size();
        let norm = |size: usize, parameters: Parameters| PlainLayerNorm::load(size, NORM_EPS, true, parameters);
        let skip = || -> Result<_> {
            let linear = Linear::new(2 * size, size, parameters.pp("skip_linear"))?;
            Ok((norm(2 * size, parameters.pp("skip_norm"))?, linear))
        };
        let shifted = parameters.conditions("norm1");
        let feed_forward = parameters.pp("ff").pp("net");
        Ok(Self {
            skip: takes_skip.then(skip).transpose()?,
            attention_norm: norm(size, shifted.pp("norm"))?,
            attention_shift: Linear::new(size, size, shifted.pp("linear"))?,
            attention: SelfAttention::new(config, &parameters.pp("attn1"))?,
            text_norm: norm(size, parameters.pp("norm2"))?,
            text_attention: TextAttention::new(config, &parameters.pp("attn2"))?,
            feed_forward_norm: norm(size, parameters.pp("norm3"))?,
            feed_forward: FeedForward::with_width(
                size,
                config.feed_forward_size(),
                config.activation()?,
                feed_forward,
            )?,
        })
    }

    /// What the self-attention of this block is given, if it takes no skip: `[rows, tokens, hidden]`.
    pub(super) fn modulated_input(&self, hidden: &Tensor, context: &RowContext) -> Result<Tensor> {
        let shift = self.attention_shift.forward(&context.modulation)?;
        self.attention_norm.modulated(hidden, &shift.zeros_like()?, &shift)
    }

    /// `hidden` and the skip are `[rows, tokens, hidden]`; there is one exactly where the block was made to take one.
    pub(super) fn forward(&self, hidden: &Tensor, skip: Option<&Tensor>, context: &RowContext) -> Result<Tensor> {
        let joined = match (&self.skip, skip) {
            (Some((norm, linear)), Some(skip)) => {
                Some(linear.forward(&norm.forward(&Tensor::cat(&[hidden, skip], D::Minus1)?)?)?)
            }
            (None, None) => None,
            _ => candle_core::bail!("a block was given a skip that it has no use for, or none where it needs one"),
        };
        let hidden = joined.as_ref().unwrap_or(hidden);
        let positions = context.positions()?;
        let x = self.modulated_input(hidden, context)?;
        let hidden = self.attention.forward(&x, positions, hidden)?;
        let x = self.text_norm.forward(&hidden)?;
        let hidden = self.text_attention.forward(&x, &context.encoder()?.states, positions, &hidden)?;
        let x = self.feed_forward_norm.forward(&hidden)?;
        self.feed_forward.forward(&x, GateAndResidual::residual(&hidden))
    }
}
