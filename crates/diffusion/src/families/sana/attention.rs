//! The two attentions of a block: a linear one to the picture, one with scores to the caption.
//!
//! Follows diffusers 0.42.1:
//!
//! * sana_transformer.py: `SanaAttnProcessor2_0` (lines 134-193):
//!   <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/models/transformers>
//! * `SanaLinearAttnProcessor2_0` (lines 5341-5390):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/attention_processor.py#L5341>

use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};

use super::config::TransformerConfig;
use crate::layers::{EncoderStates, Linear, Projections, RmsNorm, linear_attention};
use crate::ops::attention::scaled_dot_product;
use crate::ops::linear::GateAndResidual;

/// Epsilon of the norms of queries and keys, the default of diffusers' `Attention`.
const NORM_EPS: f64 = 1e-5;

/// Of the tokens of a picture to themselves.
#[derive(Debug)]
pub(super) struct LinearAttention {
    projections: Projections,
    norms: Option<QueryKeyNorms>,
    to_out: Linear,
    head_size: usize,
}

/// To the tokens of a caption.
#[derive(Debug)]
pub(super) struct CaptionAttention {
    to_q: Linear,
    key_and_value: Projections,
    norms: Option<QueryKeyNorms>,
    to_out: Linear,
    head_size: usize,
}

/// Norms of queries and keys over all heads together.
#[derive(Debug)]
struct QueryKeyNorms {
    query: RmsNorm,
    key: RmsNorm,
}

impl QueryKeyNorms {
    fn load(config: &TransformerConfig, size: usize, parameters: &Parameters) -> Result<Option<Self>> {
        if !config.norms_queries() {
            return Ok(None);
        }
        let weight = |name: &str| parameters.pp(name).get(size, "weight");
        let (query, key) = (weight("norm_q")?, weight("norm_k")?);
        Ok(Some(Self { query: RmsNorm::new(query, NORM_EPS), key: RmsNorm::new(key, NORM_EPS) }))
    }

    /// `[rows, tokens, heads, head size]` each.
    fn apply(&self, query: &Tensor, key: &Tensor) -> Result<(Tensor, Tensor)> {
        let norm = |norm: &RmsNorm, x: &Tensor| norm.forward(&x.contiguous()?.flatten_from(2)?)?.reshape(x.shape());
        Ok((norm(&self.query, query)?, norm(&self.key, key)?))
    }
}

impl LinearAttention {
    pub(super) fn new(config: &TransformerConfig, parameters: &Parameters) -> Result<Self> {
        let size = config.hidden_size();
        let names = ["to_q", "to_k", "to_v"].map(|name| (size, parameters.pp(name)));
        Ok(Self {
            projections: Projections::load(size, names, config.attention_bias)?,
            norms: QueryKeyNorms::load(config, size, parameters)?,
            to_out: Linear::new(size, size, parameters.pp("to_out").pp(0))?,
            head_size: config.attention_head_dim,
        })
    }

    /// `[rows, tokens, hidden]` to the same, through a gate and onto a residual.
    pub(super) fn forward(&self, x: &Tensor, onto: GateAndResidual<'_>) -> Result<Tensor> {
        let [query, key, value] = self.projections.forward_heads(x, self.head_size)?;
        let (query, key) = match &self.norms {
            Some(norms) => norms.apply(&query, &key)?,
            None => (query, key),
        };
        let attended = linear_attention(&query, &key, &value)?.flatten_from(2)?;
        self.to_out.forward_onto(&attended, onto)
    }
}

impl CaptionAttention {
    pub(super) fn new(config: &TransformerConfig, parameters: &Parameters) -> Result<Self> {
        let (size, inner) = (config.hidden_size(), config.cross_attention_size());
        let names = ["to_k", "to_v"].map(|name| (inner, parameters.pp(name)));
        Ok(Self {
            to_q: Linear::new(size, inner, parameters.pp("to_q"))?,
            key_and_value: Projections::load(size, names, true)?,
            norms: QueryKeyNorms::load(config, inner, parameters)?,
            to_out: Linear::new(inner, size, parameters.pp("to_out").pp(0))?,
            head_size: config.cross_attention_head_dim,
        })
    }

    /// `[rows, tokens, hidden]` to the same, onto a residual.
    pub(super) fn forward(&self, x: &Tensor, captions: &EncoderStates, onto: GateAndResidual<'_>) -> Result<Tensor> {
        let (rows, tokens, _) = x.dims3()?;
        let query = self.to_q.forward(x)?.reshape((rows, tokens, (), self.head_size))?;
        let [key, value] = self.key_and_value.forward_heads(&captions.states, self.head_size)?;
        let (query, key) = match &self.norms {
            Some(norms) => norms.apply(&query, &key)?,
            None => (query, key),
        };
        self.to_out.forward_onto(&scaled_dot_product(&query, &key, &value, captions.bias.as_ref())?, onto)
    }
}
