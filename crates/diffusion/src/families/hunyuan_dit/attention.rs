//! Attention of the picture to itself and to the prompt: queries and keys are normalised and, where they are the
//! picture's, turned by their positions.
//!
//! Follows diffusers 0.42.1, `HunyuanAttnProcessor2_0` (lines 3124-3219):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/attention_processor.py#L3124>

use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};

use super::config::TransformerConfig;
use crate::layers::{Linear, PlainLayerNorm, Projections, RotaryPositions};
use crate::ops::attention::scaled_dot_product;
use crate::ops::linear::GateAndResidual;

/// Epsilon of the norms of queries and keys; fixed in diffusers.
const NORM_EPS: f64 = 1e-6;

/// What all attentions have.
#[derive(Debug)]
struct Heads {
    query_norm: PlainLayerNorm,
    key_norm: PlainLayerNorm,
    to_out: Linear,
    head_size: usize,
}

/// Of the picture to itself.
#[derive(Debug)]
pub(super) struct SelfAttention {
    projections: Projections,
    heads: Heads,
}

/// Of the picture to the prompt.
#[derive(Debug)]
pub(super) struct TextAttention {
    query: Linear,
    key_and_value: Projections,
    heads: Heads,
}

impl Heads {
    fn new(config: &TransformerConfig, parameters: &Parameters) -> Result<Self> {
        let (size, head_size) = (config.hidden_size(), config.head_size());
        let norm = |name: &str| PlainLayerNorm::load(head_size, NORM_EPS, true, parameters.pp(name));
        Ok(Self {
            query_norm: norm("norm_q")?,
            key_norm: norm("norm_k")?,
            to_out: Linear::new(size, size, parameters.pp("to_out").pp(0))?,
            head_size,
        })
    }

    /// Of normalised queries and keys, onto a residual.
    fn attend(&self, query: &Tensor, key: &Tensor, value: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.to_out.forward_onto(&scaled_dot_product(query, key, value, None)?, GateAndResidual::residual(residual))
    }
}

impl SelfAttention {
    pub(super) fn new(config: &TransformerConfig, parameters: &Parameters) -> Result<Self> {
        let size = config.hidden_size();
        let projections = ["to_q", "to_k", "to_v"].map(|name| (size, parameters.pp(name)));
        Ok(Self { projections: Projections::load(size, projections, true)?, heads: Heads::new(config, parameters)? })
    }

    /// `x` and `residual` are `[rows, tokens, hidden]`.
    pub(super) fn forward(&self, x: &Tensor, positions: &RotaryPositions, residual: &Tensor) -> Result<Tensor> {
        let [query, key, value] = self.projections.forward_heads(x, self.heads.head_size)?;
        let query = positions.rotate(&self.heads.query_norm.forward(&query)?)?;
        let key = positions.rotate(&self.heads.key_norm.forward(&key)?)?;
        self.heads.attend(&query, &key, &value, residual)
    }
}

impl TextAttention {
    pub(super) fn new(config: &TransformerConfig, parameters: &Parameters) -> Result<Self> {
        let size = config.hidden_size();
        let names = ["to_k", "to_v"].map(|name| (size, parameters.pp(name)));
        Ok(Self {
            query: Linear::new(size, size, parameters.pp("to_q"))?,
            key_and_value: Projections::load(config.cross_attention_dim, names, true)?,
            heads: Heads::new(config, parameters)?,
        })
    }

    /// `x` and `residual` are `[rows, tokens, hidden]`, `text` is `[rows, text tokens, size]`.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        text: &Tensor,
        positions: &RotaryPositions,
        residual: &Tensor,
    ) -> Result<Tensor> {
        let (rows, tokens, _) = x.dims3()?;
        let query = self.query.forward(x)?.reshape((rows, tokens, (), self.heads.head_size))?;
        let query = positions.rotate(&self.heads.query_norm.forward(&query)?)?;
        let [key, value] = self.key_and_value.forward_heads(text, self.heads.head_size)?;
        self.heads.attend(&query, &self.heads.key_norm.forward(&key)?, &value, residual)
    }
}
