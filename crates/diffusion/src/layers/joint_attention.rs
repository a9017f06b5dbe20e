//! Sequences that attend to each other and keep projections of their own, as text and picture do: each stream
//! makes its heads, and the heads are joined before attention proper.
//!
//! Follows diffusers 0.42.1:
//!
//! * `FluxAttnProcessor` (lines 76-142):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/transformers/transformer_flux.py#L76>
//! * `JointAttnProcessor2_0` (lines 1422-1505):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/attention_processor.py#L1422>

use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};

use super::linear::Linear;
use super::norm::RmsNorm;

/// Epsilon of the norms of queries and keys; fixed in diffusers.
const NORM_EPS: f64 = 1e-6;

/// What the parameters of one stream's projections are called.
pub(crate) struct ProjectionNames {
    /// Query, key and value.
    projections: [&'static str; 3],
    /// Query and key.
    norms: [&'static str; 2],
}

impl ProjectionNames {
    /// The picture's, and those of both streams where they share them.
    pub(crate) const PICTURE: Self = Self { projections: ["to_q", "to_k", "to_v"], norms: ["norm_q", "norm_k"] };
    /// The text's.
    pub(crate) const TEXT: Self =
        Self { projections: ["add_q_proj", "add_k_proj", "add_v_proj"], norms: ["norm_added_q", "norm_added_k"] };
}

/// How the heads are shaped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeadShape {
    pub heads: usize,
    pub head_size: usize,
    /// Queries and keys are normalised, each head by itself (`qk_norm`).
    pub is_normed: bool,
}

/// The three projections of one stream, split into heads.
#[derive(Debug)]
pub(crate) struct HeadProjections {
    query: Linear,
    key: Linear,
    value: Linear,
    norms: Option<(RmsNorm, RmsNorm)>,
    heads: usize,
}

/// `[rows, heads, tokens, head size]` each, contiguous.
pub(crate) struct Heads {
    pub query: Tensor,
    pub key: Tensor,
    pub value: Tensor,
}

impl HeadProjections {
    /// `parameters` is that of the block's `attn`.
    pub(crate) fn new(shape: HeadShape, names: &ProjectionNames, parameters: &Parameters) -> Result<Self> {
        let size = shape.heads * shape.head_size;
        let [query, key, value] = names.projections.map(|name| Linear::new(size, size, parameters.pp(name)));
        let norm = |name: &str| -> Result<RmsNorm> {
            Ok(RmsNorm::new(parameters.pp(name).get(shape.head_size, "weight")?, NORM_EPS))
        };
        let norms = if shape.is_normed { Some((norm(names.norms[0])?, norm(names.norms[1])?)) } else { None };
        Ok(Self { query: query?, key: key?, value: value?, norms, heads: shape.heads })
    }

    /// `x` is `[rows, tokens, hidden]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Heads> {
        let (rows, tokens, _) = x.dims3()?;
        let split =
            |linear: &Linear| linear.forward(x)?.reshape((rows, tokens, self.heads, ()))?.transpose(1, 2)?.contiguous();
        let (query, key, value) = (split(&self.query)?, split(&self.key)?, split(&self.value)?);
        Ok(match &self.norms {
            Some((query_norm, key_norm)) => {
                Heads { query: query_norm.forward(&query)?, key: key_norm.forward(&key)?, value }
            }
            None => Heads { query, key, value },
        })
    }
}

impl Heads {
    /// These tokens, followed by the others.
    pub(crate) fn followed_by(&self, other: &Self) -> Result<Self> {
        let join = |first: &Tensor, second: &Tensor| Tensor::cat(&[first, second], 2)?.contiguous();
        Ok(Self {
            query: join(&self.query, &other.query)?,
            key: join(&self.key, &other.key)?,
            value: join(&self.value, &other.value)?,
        })
    }
}
