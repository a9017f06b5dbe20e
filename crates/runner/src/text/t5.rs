//! The encoder of T5 (arXiv 1910.10683) and its 1.1 revision, as transformers' `T5EncoderModel` lays it
//! out.
//!
//! Scores are not scaled, positions are learned biases of the scores that all blocks share, and norms
//! neither centre nor shift.

use candle_core::{D, Device, Result, Tensor};
use candle_nn::{Embedding, Module};
use serde::Deserialize;

use crate::activation::gelu_tanh;
use crate::component_config;
use crate::error::RunnerError;
use crate::layers::{Linear, RmsNorm};
use crate::weights::Parameters;

/// `config.json` of the encoder; absent keys take transformers' defaults.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(super) struct T5Config {
    vocab_size: usize,
    d_model: usize,
    /// Size of a head.
    d_kv: usize,
    d_ff: usize,
    num_layers: usize,
    num_heads: usize,
    relative_attention_num_buckets: usize,
    relative_attention_max_distance: usize,
    layer_norm_epsilon: f64,
    feed_forward_proj: String,
}

/// How the feed-forward part is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FeedForwardKind {
    /// T5 1.0
    Relu,
    /// T5 1.1: GELU (tanh) of one projection times another.
    GatedGelu,
}

impl Default for T5Config {
    fn default() -> Self {
        Self {
            vocab_size: 32128,
            d_model: 512,
            d_kv: 64,
            d_ff: 2048,
            num_layers: 6,
            num_heads: 8,
            relative_attention_num_buckets: 32,
            relative_attention_max_distance: 128,
            layer_norm_epsilon: 1e-6,
            feed_forward_proj: "relu".to_owned(),
        }
    }
}

impl T5Config {
    /// `path` is where the text comes from.
    pub(super) fn from_json(path: &str, text: &str) -> std::result::Result<Self, RunnerError> {
        let config: Self = component_config::parse(path, text)?;
        if config.feed_forward_kind().is_none() {
            let right = "relu or gated-gelu";
            return Err(component_config::unsupported(path, "feed_forward_proj", &config.feed_forward_proj, right));
        }
        // Half of the buckets look back, and half of those are exact.
        if config.relative_attention_num_buckets < 4 || !config.relative_attention_num_buckets.is_multiple_of(4) {
            let found = config.relative_attention_num_buckets.to_string();
            let right = "a multiple of 4";
            return Err(component_config::unsupported(path, "relative_attention_num_buckets", &found, right));
        }
        Ok(config)
    }

    /// Size of a token's state.
    pub(super) fn dim(&self) -> usize {
        self.d_model
    }

    fn feed_forward_kind(&self) -> Option<FeedForwardKind> {
        match self.feed_forward_proj.as_str() {
            "relu" => Some(FeedForwardKind::Relu),
            "gated-gelu" => Some(FeedForwardKind::GatedGelu),
            _ => None,
        }
    }

    /// The bucket of a key `offset` tokens behind (or, negative, before) its query.
    fn bucket(&self, offset: i64) -> u32 {
        let half = self.relative_attention_num_buckets / 2;
        let exact = half / 2;
        let side = if offset > 0 { half } else { 0 };
        let distance = offset.unsigned_abs() as usize;
        if distance < exact {
            return (side + distance) as u32;
        }
        // In f32, as PyTorch computes it.
        let range = (self.relative_attention_max_distance as f64 / exact as f64).ln() as f32;
        let further = (distance as f32 / exact as f32).ln() / range * (half - exact) as f32;
        (side + (exact + further as usize).min(half - 1)) as u32
    }
}

/// The encoder.
#[derive(Debug)]
pub(super) struct T5Encoder {
    tokens: Embedding,
    position_bias: Embedding,
    blocks: Vec<Block>,
    norm: RmsNorm,
    config: T5Config,
    device: Device,
}

impl T5Encoder {
    /// Tensors of published files that the encoder has no use for: copies of the embeddings.
    pub(super) const UNUSED_WEIGHTS: &[&str] =
        &["encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight"];

    pub(super) fn new(config: &T5Config, parameters: &Parameters) -> Result<Self> {
        let encoder = parameters.pp("encoder");
        let blocks = encoder.pp("block");
        let bias = blocks.pp(0).pp("layer").pp(0).pp("SelfAttention").pp("relative_attention_bias");
        Ok(Self {
            tokens: embedding(config.vocab_size, config.d_model, &parameters.pp("shared"))?,
            position_bias: embedding(config.relative_attention_num_buckets, config.num_heads, &bias)?,
            blocks: (0..config.num_layers).map(|index| Block::new(config, &blocks.pp(index))).collect::<Result<_>>()?,
            norm: norm(config, &encoder.pp("final_layer_norm"))?,
            config: config.clone(),
            device: parameters.device().clone(),
        })
    }

    /// `[1, tokens]` of ids to `[1, tokens, dim]`.
    pub(super) fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let bias = self.position_bias(ids.dim(1)?)?;
        let mut x = self.tokens.forward(ids)?;
        for block in &self.blocks {
            x = block.forward(&x, &bias)?;
        }
        self.norm.forward(&x)
    }

    /// `[1, heads, tokens, tokens]`
    fn position_bias(&self, tokens: usize) -> Result<Tensor> {
        let offsets = (0..tokens as i64).flat_map(|query| (0..tokens as i64).map(move |key| key - query));
        let buckets: Vec<_> = offsets.map(|offset| self.config.bucket(offset)).collect();
        let buckets = Tensor::from_vec(buckets, (tokens, tokens), &self.device)?;
        self.position_bias.forward(&buckets)?.permute((2, 0, 1))?.unsqueeze(0)?.contiguous()
    }
}

#[derive(Debug)]
struct Block {
    attention_norm: RmsNorm,
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: usize,
    feed_forward_norm: RmsNorm,
    feed_forward: FeedForward,
}

impl Block {
    fn new(config: &T5Config, parameters: &Parameters) -> Result<Self> {
        let (size, inner) = (config.d_model, config.num_heads * config.d_kv);
        let layers = parameters.pp("layer");
        let attention = layers.pp(0).pp("SelfAttention");
        let projection = |name: &str| Linear::load(size, inner, false, attention.pp(name));
        Ok(Self {
            attention_norm: norm(config, &layers.pp(0).pp("layer_norm"))?,
            to_q: projection("q")?,
            to_k: projection("k")?,
            to_v: projection("v")?,
            to_out: Linear::load(inner, size, false, attention.pp("o"))?,
            heads: config.num_heads,
            feed_forward_norm: norm(config, &layers.pp(1).pp("layer_norm"))?,
            feed_forward: FeedForward::new(config, &layers.pp(1).pp("DenseReluDense"))?,
        })
    }

    fn forward(&self, x: &Tensor, position_bias: &Tensor) -> Result<Tensor> {
        let x = (self.attend(&self.attention_norm.forward(x)?, position_bias)? + x)?;
        self.feed_forward.forward(&self.feed_forward_norm.forward(&x)?)? + x
    }

    fn attend(&self, x: &Tensor, position_bias: &Tensor) -> Result<Tensor> {
        let (rows, tokens, _) = x.dims3()?;
        let split =
            |linear: &Linear| linear.forward(x)?.reshape((rows, tokens, self.heads, ()))?.transpose(1, 2)?.contiguous();
        let scores = split(&self.to_q)?.matmul(&split(&self.to_k)?.transpose(D::Minus2, D::Minus1)?)?;
        let weights = candle_nn::ops::softmax_last_dim(&scores.broadcast_add(position_bias)?)?;
        let attended = weights.matmul(&split(&self.to_v)?)?;
        self.to_out.forward(&attended.transpose(1, 2)?.reshape((rows, tokens, ()))?)
    }
}

#[derive(Debug)]
enum FeedForward {
    Relu { widen: Linear, narrow: Linear },
    GatedGelu { gate: Linear, widen: Linear, narrow: Linear },
}

impl FeedForward {
    fn new(config: &T5Config, parameters: &Parameters) -> Result<Self> {
        let widen = |name: &str| Linear::load(config.d_model, config.d_ff, false, parameters.pp(name));
        let narrow = Linear::load(config.d_ff, config.d_model, false, parameters.pp("wo"))?;
        match config.feed_forward_kind() {
            Some(FeedForwardKind::GatedGelu) => {
                Ok(Self::GatedGelu { gate: widen("wi_0")?, widen: widen("wi_1")?, narrow })
            }
            Some(FeedForwardKind::Relu) | None => Ok(Self::Relu { widen: widen("wi")?, narrow }),
        }
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Relu { widen, narrow } => narrow.forward(&widen.forward(x)?.relu()?),
            Self::GatedGelu { gate, widen, narrow } => {
                narrow.forward(&(gelu_tanh(gate.forward(x)?)? * widen.forward(x)?)?)
            }
        }
    }
}

fn norm(config: &T5Config, parameters: &Parameters) -> Result<RmsNorm> {
    Ok(RmsNorm::new(parameters.get(config.d_model, "weight")?, config.layer_norm_epsilon))
}

fn embedding(tokens: usize, size: usize, parameters: &Parameters) -> Result<Embedding> {
    Ok(Embedding::new(parameters.get((tokens, size), "weight")?, size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_tokens_have_buckets_of_their_own_and_far_ones_share() {
        let config = T5Config::default();
        let buckets = [0, -1, -7, -8, -15, -16, -127, -1000, 1, 7, 8, 16, 1000].map(|offset| config.bucket(offset));
        assert_eq!(buckets, [0, 1, 7, 8, 9, 10, 15, 15, 17, 23, 24, 26, 31]);
    }

    #[test]
    fn an_activation_nobody_knows_is_named() {
        let error = T5Config::from_json("text_encoder/config.json", r#"{"feed_forward_proj": "gated-silu"}"#);
        assert!(error.unwrap_err().to_string().contains("`feed_forward_proj` is gated-silu"));
    }
}
