//! Attention of one sequence to itself or to another.
//!
//! Follows diffusers 0.42.1, `AttnProcessor2_0` (lines 2696-2787):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/attention_processor.py#L2696>

use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};

use super::linear::{Linear, Projections};
use crate::ops::attention::scaled_dot_product;
use crate::ops::linear::GateAndResidual;

/// Multi-head attention under diffusers' names: `to_q`, `to_k`, `to_v`, `to_out.0`.
#[derive(Debug)]
pub(crate) struct Attention {
    projections: AttentionProjections,
    to_out: Linear,
    heads: usize,
}

/// What queries, and keys and values, are made from.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "a block has one, and with GPUs' tensors both are large")]
enum AttentionProjections {
    /// The same tokens.
    Own(Projections),
    /// Two sequences.
    Other { query: Linear, key_and_value: Projections },
}

impl Attention {
    /// Of tokens of `size` to themselves; `bias` is that of the three projections.
    pub(crate) fn to_itself(size: usize, heads: usize, bias: bool, parameters: Parameters) -> Result<Self> {
        let names = ["to_q", "to_k", "to_v"].map(|name| (size, parameters.pp(name)));
        Self::new(AttentionProjections::Own(Projections::load(size, names, bias)?), size, heads, parameters)
    }

    /// Of tokens of `size` to tokens of `context_size`; `bias` is that of the three projections.
    pub(crate) fn to_context(
        size: usize,
        context_size: usize,
        heads: usize,
        bias: bool,
        parameters: Parameters,
    ) -> Result<Self> {
        let names = ["to_k", "to_v"].map(|name| (size, parameters.pp(name)));
        let projections = AttentionProjections::Other {
            query: Linear::load(size, size, bias, parameters.pp("to_q"))?,
            key_and_value: Projections::load(context_size, names, bias)?,
        };
        Self::new(projections, size, heads, parameters)
    }

    fn new(projections: AttentionProjections, size: usize, heads: usize, parameters: Parameters) -> Result<Self> {
        Ok(Self { projections, to_out: Linear::new(size, size, parameters.pp("to_out").pp(0))?, heads })
    }

    /// `x` is `[rows, tokens, size]`, `context` `[rows, context tokens, context size]`, which is `x` where tokens attend to
    /// themselves; `score_bias` `[rows, 1, 1, context tokens]` is added to the scores, so that padding is not attended to.
    /// What is attended to goes through a gate and onto a residual.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        context: &Tensor,
        score_bias: Option<&Tensor>,
        onto: GateAndResidual<'_>,
    ) -> Result<Tensor> {
        let (rows, tokens, size) = x.dims3()?;
        let head_size = size / self.heads;
        let [query, key, value] = match &self.projections {
            AttentionProjections::Own(projections) => projections.forward_heads(x, head_size)?,
            AttentionProjections::Other { query, key_and_value } => {
                let [key, value] = key_and_value.forward_heads(context, head_size)?;
                [query.forward(x)?.reshape((rows, tokens, self.heads, head_size))?, key, value]
            }
        };
        self.to_out.forward_onto(&scaled_dot_product(&query, &key, &value, score_bias)?, onto)
    }
}
