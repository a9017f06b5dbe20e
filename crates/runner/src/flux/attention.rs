//! Queries, keys and values of FLUX: normed per head, text before image, then turned by position.

use candle_core::{Result, Tensor};

use super::config::TransformerConfig;
use crate::layers::{Linear, RmsNorm, RotaryPositions, scaled_dot_product};
use crate::weights::Parameters;

/// Epsilon of the norms of queries and keys; fixed in diffusers.
const NORM_EPS: f64 = 1e-6;

/// The three projections of one stream.
#[derive(Debug)]
pub(super) struct Projections {
    query: Linear,
    key: Linear,
    value: Linear,
    query_norm: RmsNorm,
    key_norm: RmsNorm,
    heads: usize,
}

/// Names of the parameters of one stream.
pub(super) struct ProjectionNames {
    /// Of query, key and value.
    linear: [&'static str; 3],
    /// Of query and key.
    norm: [&'static str; 2],
}

impl ProjectionNames {
    /// The image's, or those of both streams together.
    pub(super) const IMAGE: Self = Self { linear: ["to_q", "to_k", "to_v"], norm: ["norm_q", "norm_k"] };
    /// The text's, in blocks that have some for each.
    pub(super) const TEXT: Self =
        Self { linear: ["add_q_proj", "add_k_proj", "add_v_proj"], norm: ["norm_added_q", "norm_added_k"] };
}

/// Queries, keys and values, `[rows, heads, tokens, head size]` each and contiguous.
pub(super) struct Projected {
    query: Tensor,
    key: Tensor,
    value: Tensor,
}

impl Projections {
    pub(super) fn new(config: &TransformerConfig, names: &ProjectionNames, parameters: &Parameters) -> Result<Self> {
        let size = config.hidden_size();
        let linear = |name: &str| Linear::new(size, size, parameters.pp(name));
        let norm = |name: &str| -> Result<RmsNorm> {
            Ok(RmsNorm::new(parameters.pp(name).get(config.attention_head_dim, "weight")?, NORM_EPS))
        };
        let [query, key, value] = names.linear;
        let [query_norm, key_norm] = names.norm;
        Ok(Self {
            query: linear(query)?,
            key: linear(key)?,
            value: linear(value)?,
            query_norm: norm(query_norm)?,
            key_norm: norm(key_norm)?,
            heads: config.num_attention_heads,
        })
    }

    /// `x` is `[rows, tokens, hidden]`.
    pub(super) fn forward(&self, x: &Tensor) -> Result<Projected> {
        let (rows, tokens, size) = x.dims3()?;
        // [rows, tokens, hidden] -> [rows, heads, tokens, head size]
        let split = |linear: &Linear| {
            let heads = (rows, tokens, self.heads, size / self.heads);
            linear.forward(x)?.reshape(heads)?.transpose(1, 2)?.contiguous()
        };
        Ok(Projected {
            query: self.query_norm.forward(&split(&self.query)?)?,
            key: self.key_norm.forward(&split(&self.key)?)?,
            value: split(&self.value)?,
        })
    }
}

impl Projected {
    /// These tokens and behind them the others.
    pub(super) fn followed_by(&self, other: &Self) -> Result<Self> {
        let join = |first: &Tensor, second: &Tensor| Tensor::cat(&[first, second], 2)?.contiguous();
        Ok(Self {
            query: join(&self.query, &other.query)?,
            key: join(&self.key, &other.key)?,
            value: join(&self.value, &other.value)?,
        })
    }

    /// Every token's attention to all: `[rows, tokens, hidden]`.
    pub(super) fn attend(&self, positions: &RotaryPositions) -> Result<Tensor> {
        let (query, key) = (positions.rotate(&self.query)?, positions.rotate(&self.key)?);
        scaled_dot_product(&query, &key, &self.value, None)
    }
}
