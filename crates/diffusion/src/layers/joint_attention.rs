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

use super::linear::Projections;
use super::norm::RmsNorm;
use super::rope::RotaryPositions;
use crate::ops::attention::scaled_dot_product;
use crate::ops::heads::PlannedHeads;

/// Epsilon of the norms of queries and keys in most models; fixed in diffusers there.
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
    projections: Projections,
    /// Of queries and keys, where these are normed.
    norms: [Option<RmsNorm>; 2],
    head_size: usize,
}

/// `[rows, tokens, heads, head size]` each.
pub(crate) struct Heads {
    pub query: Tensor,
    pub key: Tensor,
    pub value: Tensor,
}

impl HeadProjections {
    /// With biases. `parameters` is that of the block's `attn`.
    pub(crate) fn new(shape: HeadShape, names: &ProjectionNames, parameters: &Parameters) -> Result<Self> {
        Self::load(shape, names, true, NORM_EPS, parameters)
    }

    /// With biases, where `bias`; `eps` is that of the norms.
    pub(crate) fn load(
        shape: HeadShape,
        names: &ProjectionNames,
        bias: bool,
        eps: f64,
        parameters: &Parameters,
    ) -> Result<Self> {
        let size = shape.heads * shape.head_size;
        let projections = names.projections.map(|name| (size, parameters.pp(name)));
        let norm = |name: &str| -> Result<Option<RmsNorm>> {
            let weight = || parameters.pp(name).get(shape.head_size, "weight");
            shape.is_normed.then(|| Ok(RmsNorm::new(weight()?, eps))).transpose()
        };
        let [of_query, of_key] = names.norms;
        let norms = [norm(of_query)?, norm(of_key)?];
        Ok(Self { projections: Projections::load(size, projections, bias)?, norms, head_size: shape.head_size })
    }

    /// `x` is `[rows, tokens, hidden]`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Heads> {
        self.planned(x, None)?.made()
    }

    /// The same, with queries and keys turned: `positions` are those of these tokens.
    pub(crate) fn forward_turned(&self, x: &Tensor, positions: &RotaryPositions) -> Result<Heads> {
        self.planned(x, Some(positions))?.made()
    }

    /// The same, to be joined with others before norms and turns.
    pub(crate) fn planned(&self, x: &Tensor, positions: Option<&RotaryPositions>) -> Result<PlannedStream> {
        let [query, key, value] = self.projections.forward_heads(x, self.head_size)?;
        let turn = positions.map(RotaryPositions::tables).map(|(cosines, sines)| (cosines.clone(), sines.clone()));
        let planned = |heads: Tensor, norm: &Option<RmsNorm>| {
            let norm = norm.as_ref().map(RmsNorm::parameters).map(|(weight, eps)| (weight.clone(), eps));
            PlannedHeads { heads, norm, turn: turn.clone() }
        };
        let [of_query, of_key] = &self.norms;
        Ok(PlannedStream {
            query: planned(query, of_query),
            key: planned(key, of_key),
            value: PlannedHeads { heads: value, norm: None, turn: None },
        })
    }
}

/// Heads of one stream, before norms and turns.
pub(crate) struct PlannedStream {
    pub query: PlannedHeads,
    pub key: PlannedHeads,
    pub value: PlannedHeads,
}

impl PlannedStream {
    fn made(&self) -> Result<Heads> {
        Ok(Heads { query: self.query.made()?, key: self.key.made()?, value: self.value.made()? })
    }

    /// Those of both streams, these tokens first.
    pub(crate) fn followed_by(&self, other: &Self) -> Result<Heads> {
        Ok(Heads {
            query: self.query.followed_by(&other.query)?,
            key: self.key.followed_by(&other.key)?,
            value: self.value.followed_by(&other.value)?,
        })
    }
}

impl Heads {
    /// Every token's attention to all: `[rows, tokens, hidden]`; `bias`, `[rows, 1, 1, tokens]`, is added to the scores.
    pub(crate) fn attend(&self, bias: Option<&Tensor>) -> Result<Tensor> {
        scaled_dot_product(&self.query, &self.key, &self.value, bias)
    }
}
