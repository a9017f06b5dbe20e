//! One layer of a decoder: attention, then a gated feed-forward, each behind a norm.
//!
//! Follows transformers 5.23.0, `Qwen3DecoderLayer` (lines 283-325), `Qwen3MLP` (70-83) and `Gemma2DecoderLayer`:
//! <https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/qwen3/modeling_qwen3.py#L283>

use afterimage_checkpoint::Parameters;
use candle_core::{Result, Tensor};

use super::attention::Attention;
use super::config::DecoderConfig;
use super::kind::DecoderKind;
use super::mask::Mask;
use super::norm::Norm;
use crate::layers::{HalfRotaryPositions, Linear};
use crate::ops::activation::Activation;

#[derive(Debug)]
pub(super) struct Layer {
    attention_norm: Norm,
    attention: Attention,
    feed_forward_norm: Norm,
    feed_forward: FeedForward,
    /// Of what the two parts give, where there are such.
    output_norms: Option<(Norm, Norm)>,
}

impl Layer {
    pub(super) fn new(config: &DecoderConfig, parameters: &Parameters) -> Result<Self> {
        let norm = |name: &str| Norm::load(config, config.hidden_size, &parameters.pp(name));
        let behind_attention = norm("post_attention_layernorm")?;
        let (feed_forward_norm, output_norms) = match config.kind {
            DecoderKind::Gemma2 => {
                let outputs = (behind_attention, norm("post_feedforward_layernorm")?);
                (norm("pre_feedforward_layernorm")?, Some(outputs))
            }
            // The same name for what others have before the feed-forward.
            _ => (behind_attention, None),
        };
        Ok(Self {
            attention_norm: norm("input_layernorm")?,
            attention: Attention::new(config, &parameters.pp("self_attn"))?,
            feed_forward_norm,
            feed_forward: FeedForward::new(config, &parameters.pp("mlp"))?,
            output_norms,
        })
    }

    /// `[rows, tokens, hidden]` to the same.
    pub(super) fn forward(&self, x: &Tensor, positions: &HalfRotaryPositions, mask: &Mask) -> Result<Tensor> {
        let mut attended = self.attention.forward(&self.attention_norm.forward(x)?, positions, mask)?;
        if let Some((norm, _)) = &self.output_norms {
            attended = norm.forward(&attended)?;
        }
        let x = (x + attended)?;
        let mut fed = self.feed_forward.forward(&self.feed_forward_norm.forward(&x)?)?;
        if let Some((_, norm)) = &self.output_norms {
            fed = norm.forward(&fed)?;
        }
        x + fed
    }
}

#[derive(Debug)]
struct FeedForward {
    gate: Linear,
    up: Linear,
    down: Linear,
    activation: Activation,
}

impl FeedForward {
    fn new(config: &DecoderConfig, parameters: &Parameters) -> Result<Self> {
        let (size, inner, bias) = (config.hidden_size, config.intermediate_size, config.feed_forward_bias);
        Ok(Self {
            gate: Linear::load(size, inner, bias, parameters.pp("gate_proj"))?,
            up: Linear::load(size, inner, bias, parameters.pp("up_proj"))?,
            down: Linear::load(inner, size, bias, parameters.pp("down_proj"))?,
            activation: config.activation,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.down.forward(&self.up.forward_gated(x, &self.gate, self.activation)?)
    }
}
