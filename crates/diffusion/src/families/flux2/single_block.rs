//! The single block: text and image as one sequence, attention and feed-forward side by side, with one projection before
//! both and one behind.
//!
//! Follows diffusers 0.42.1, `Flux2SingleTransformerBlock` (lines 807-873) and `Flux2ParallelSelfAttnProcessor` (572-630):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/transformers/transformer_flux2.py#L807>

use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};

use super::config::TransformerConfig;
use super::feed_forward::gated;
use super::modulation::{Modulation, Purpose};
use crate::layers::{HeadShape, Heads, Linear, PlainLayerNorm, RmsNorm, RowContext, clip_to_f16};

#[derive(Debug)]
pub(super) struct SingleBlock {
    norm: PlainLayerNorm,
    /// To query, key, value, and gate and value of the feed-forward.
    projection: Linear,
    query_norm: RmsNorm,
    key_norm: RmsNorm,
    to_out: Linear,
    heads: HeadShape,
    inner_size: usize,
}

impl SingleBlock {
    pub(super) fn new(config: &TransformerConfig, parameters: &Parameters) -> Result<Self> {
        let (size, inner_size, heads) = (config.hidden_size(), config.inner_size(), config.heads());
        let attention = parameters.pp("attn");
        let norm = |name: &str| -> Result<RmsNorm> {
            Ok(RmsNorm::new(attention.pp(name).get(heads.head_size, "weight")?, config.eps))
        };
        Ok(Self {
            norm: PlainLayerNorm::new(size, config.eps),
            projection: Linear::load(size, 3 * size + 2 * inner_size, false, attention.pp("to_qkv_mlp_proj"))?,
            query_norm: norm("norm_q")?,
            key_norm: norm("norm_k")?,
            to_out: Linear::load(size + inner_size, size, false, attention.pp("to_out"))?,
            heads,
            inner_size,
        })
    }

    /// `x` is text and image, `[rows, tokens, hidden]`.
    pub(super) fn forward(&self, x: &Tensor, context: &RowContext) -> Result<Tensor> {
        let (rows, tokens, size) = x.dims3()?;
        let modulation = Modulation::of(Purpose::SingleBlock, context)?;
        let projected = self.projection.forward(&modulation.input(&self.norm, x)?)?;
        let HeadShape { heads, head_size, .. } = self.heads;
        let part = |index: usize| projected.narrow(2, index * size, size)?.reshape((rows, tokens, heads, head_size));
        let positions = context.positions()?;
        let heads = Heads {
            query: positions.norm_and_rotate(&part(0)?, Some(&self.query_norm))?,
            key: positions.norm_and_rotate(&part(1)?, Some(&self.key_norm))?,
            value: part(2)?,
        };
        let both =
            Tensor::cat(&[heads.attend(context.token_bias())?, gated(&projected, 3 * size, self.inner_size)?], 2)?;
        clip_to_f16(self.to_out.forward_onto(&both, modulation.onto(x))?)
    }
}
