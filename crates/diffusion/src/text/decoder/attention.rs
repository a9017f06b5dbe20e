//! A decoder's attention of tokens to themselves and those before them.
//!
//! Follows transformers 5.23.0, `Qwen3Attention` (lines 200-280) and `Gemma2Attention`:
//! <https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/qwen3/modeling_qwen3.py#L200>

use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};

use super::config::DecoderConfig;
use super::kind::DecoderKind;
use super::mask::Mask;
use super::norm::Norm;
use crate::layers::{HalfRotaryPositions, Linear, Projections};
use crate::ops::attention::{Scores, attention};

#[derive(Debug)]
pub(super) struct Attention {
    projections: Projections,
    /// Of queries and keys, each head by itself.
    norms: Option<(Norm, Norm)>,
    to_out: Linear,
    head_size: usize,
    /// Heads of queries per head of keys and values.
    sharing: usize,
    scale: f64,
    soft_cap: Option<f64>,
}

impl Attention {
    pub(super) fn new(config: &DecoderConfig, parameters: &Parameters) -> Result<Self> {
        let (size, head_size) = (config.hidden_size, config.head_size);
        let (inner, shared) = (config.heads * head_size, config.key_value_heads * head_size);
        let projections = [(inner, "q_proj"), (shared, "k_proj"), (shared, "v_proj")];
        let projections = projections.map(|(outputs, name)| (outputs, parameters.pp(name)));
        let norm = |name: &str| Norm::load(config, head_size, &parameters.pp(name));
        Ok(Self {
            projections: Projections::load(size, projections, config.projection_bias)?,
            norms: match config.kind {
                DecoderKind::Qwen3 => Some((norm("q_norm")?, norm("k_norm")?)),
                _ => None,
            },
            to_out: Linear::load(inner, size, config.output_bias, parameters.pp("o_proj"))?,
            head_size,
            sharing: config.heads / config.key_value_heads,
            scale: config.scale,
            soft_cap: config.soft_cap,
        })
    }

    /// `[rows, tokens, hidden]` to the same.
    pub(super) fn forward(&self, x: &Tensor, positions: &HalfRotaryPositions, mask: &Mask) -> Result<Tensor> {
        let [mut query, mut key, value] = self.projections.forward_heads(x, self.head_size)?;
        if let Some((query_norm, key_norm)) = &self.norms {
            (query, key) = (query_norm.forward(&query)?, key_norm.forward(&key)?);
        }
        let (query, key) = (positions.rotate(&query)?, positions.rotate(&key)?);
        let scores = Scores { scale: Some(self.scale), soft_cap: self.soft_cap, bias: Some(&mask.bias) };
        let mut attended = attention(&query, &self.shared(&key)?, &self.shared(&value)?, scores)?;
        if let Some(sees_any) = &mask.sees_any {
            attended = attended.broadcast_mul(&sees_any.to_dtype(attended.dtype())?)?;
        }
        self.to_out.forward(&attended)
    }

    /// Every head as often as there are heads of queries that share it.
    fn shared(&self, heads: &Tensor) -> Result<Tensor> {
        if self.sharing == 1 {
            return Ok(heads.clone());
        }
        let (rows, tokens, count, size) = heads.dims4()?;
        let repeated = heads.unsqueeze(3)?.broadcast_as((rows, tokens, count, self.sharing, size))?;
        repeated.contiguous()?.reshape((rows, tokens, count * self.sharing, size))
    }
}
