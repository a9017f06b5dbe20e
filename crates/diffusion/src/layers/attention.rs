//! Attention of one sequence to itself or to another.
//!
//! Follows diffusers 0.42.1, `AttnProcessor2_0` (lines 2696-2787):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/attention_processor.py#L2696>

use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};

use super::linear::Linear;
use crate::ops::attention::scaled_dot_product;
use crate::ops::linear::GateAndResidual;

/// Multi-head attention under diffusers' names: `to_q`, `to_k`, `to_v`, `to_out.0`.
#[derive(Debug)]
pub(crate) struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: usize,
}

impl Attention {
    /// From tokens of `size` to tokens of `context_size`; `bias` is that of the three projections.
    pub(crate) fn new(
        size: usize,
        context_size: usize,
        heads: usize,
        bias: bool,
        parameters: Parameters,
    ) -> Result<Self> {
        let projection = |from: usize, name: &str| Linear::load(from, size, bias, parameters.pp(name));
        Ok(Self {
            to_q: projection(size, "to_q")?,
            to_k: projection(context_size, "to_k")?,
            to_v: projection(context_size, "to_v")?,
            to_out: Linear::new(size, size, parameters.pp("to_out").pp(0))?,
            heads,
        })
    }

    /// `x` is `[rows, tokens, size]`, `context` `[rows, context tokens, context size]`; `score_bias`
    /// `[rows, 1, 1, context tokens]` is added to the scores, so that padding is not attended to. What is attended to goes
    /// through a gate and onto a residual.
    pub(crate) fn forward(
        &self,
        x: &Tensor,
        context: &Tensor,
        score_bias: Option<&Tensor>,
        onto: GateAndResidual<'_>,
    ) -> Result<Tensor> {
        let (rows, _, size) = x.dims3()?;
        let head_size = size / self.heads;
        // [rows, tokens, size] -> [rows, heads, tokens, head_size]
        let split = |linear: &Linear, from: &Tensor| {
            linear.forward(from)?.reshape((rows, (), self.heads, head_size))?.transpose(1, 2)?.contiguous()
        };
        let (query, key, value) = (split(&self.to_q, x)?, split(&self.to_k, context)?, split(&self.to_v, context)?);
        self.to_out.forward_onto(&scaled_dot_product(&query, &key, &value, score_bias)?, onto)
    }
}
