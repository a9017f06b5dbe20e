//! One DiT block: self-attention and feed-forward, each wrapped in adaLN-Zero.

use candle_core::{D, Result, Tensor};
use candle_nn::{Linear, Module, VarBuilder};

use super::config::{Activation, TransformerConfig};
use super::embeddings::{Conditioning, PlainLayerNorm, TimestepLabelEmbedding, modulate};
use crate::activation::gelu_tanh;
use crate::error::RunnerError;

/// Epsilon of the norm before the attention; fixed in diffusers' `AdaLayerNormZero`.
const ATTENTION_NORM_EPS: f64 = 1e-6;
/// Width of the feed-forward relative to the hidden size.
const FEED_FORWARD_FACTOR: usize = 4;

#[derive(Debug)]
pub(super) struct DitBlock {
    embedding: TimestepLabelEmbedding,
    /// Hidden size to six times that: shift, scale and gate for attention and feed-forward.
    modulation: Linear,
    attention_norm: PlainLayerNorm,
    attention: SelfAttention,
    feed_forward_norm: PlainLayerNorm,
    feed_forward: FeedForward,
}

impl DitBlock {
    pub(super) fn new(config: &TransformerConfig, vb: VarBuilder<'_>) -> std::result::Result<Self, RunnerError> {
        let size = config.hidden_size();
        let norm1 = vb.pp("norm1");
        Ok(Self {
            embedding: TimestepLabelEmbedding::new(config.num_classes(), size, norm1.pp("emb"))?,
            modulation: candle_nn::linear(size, 6 * size, norm1.pp("linear"))?,
            attention_norm: PlainLayerNorm::new(size, ATTENTION_NORM_EPS, &vb)?,
            attention: SelfAttention::new(config, vb.pp("attn1"))?,
            feed_forward_norm: PlainLayerNorm::load(
                size,
                config.norm_eps,
                config.norm_elementwise_affine,
                vb.pp("norm3"),
            )?,
            feed_forward: FeedForward::new(size, config.activation()?, vb.pp("ff").pp("net"))?,
        })
    }

    /// The vector this block makes of timestep and class: `[rows, hidden]`.
    pub(super) fn embed(&self, conditioning: &Conditioning) -> Result<Tensor> {
        self.embedding.forward(conditioning)
    }

    /// What the attention of this block is given: `[rows, tokens, hidden]`.
    pub(super) fn modulated_input(&self, hidden: &Tensor, conditioning: &Conditioning) -> Result<Tensor> {
        let [shift, scale, ..] = self.modulation(conditioning)?;
        modulate(&self.attention_norm.forward(hidden)?, &scale, &shift)
    }

    /// `hidden` is `[rows, tokens, hidden]`.
    pub(super) fn forward(&self, hidden: &Tensor, conditioning: &Conditioning) -> Result<Tensor> {
        let [shift_attention, scale_attention, gate_attention, shift_mlp, scale_mlp, gate_mlp] =
            &self.modulation(conditioning)?;
        let x = modulate(&self.attention_norm.forward(hidden)?, scale_attention, shift_attention)?;
        let x = self.attention.forward(&x)?.broadcast_mul(&gate_attention.unsqueeze(1)?)?;
        let hidden = (x + hidden)?;
        let x = modulate(&self.feed_forward_norm.forward(&hidden)?, scale_mlp, shift_mlp)?;
        let x = self.feed_forward.forward(&x)?.broadcast_mul(&gate_mlp.unsqueeze(1)?)?;
        x + hidden
    }

    /// Shift, scale and gate of the attention, then of the feed-forward: `[rows, hidden]` each.
    fn modulation(&self, conditioning: &Conditioning) -> Result<[Tensor; 6]> {
        let modulation = self.modulation.forward(&self.embed(conditioning)?.silu()?)?.chunk(6, 1)?;
        modulation.try_into().map_err(|_| candle_core::Error::Msg("six chunks were asked for".to_owned()))
    }
}

#[derive(Debug)]
struct SelfAttention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: usize,
}

impl SelfAttention {
    fn new(config: &TransformerConfig, vb: VarBuilder<'_>) -> Result<Self> {
        let size = config.hidden_size();
        let projection = |name: &str| candle_nn::linear_b(size, size, config.attention_bias, vb.pp(name));
        Ok(Self {
            to_q: projection("to_q")?,
            to_k: projection("to_k")?,
            to_v: projection("to_v")?,
            to_out: candle_nn::linear(size, size, vb.pp("to_out").pp(0))?,
            heads: config.num_attention_heads,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (rows, tokens, size) = x.dims3()?;
        let head_size = size / self.heads;
        // [rows, tokens, size] -> [rows, heads, tokens, head_size]
        let split = |linear: &Linear| {
            linear.forward(x)?.reshape((rows, tokens, self.heads, head_size))?.transpose(1, 2)?.contiguous()
        };
        let query = (split(&self.to_q)? * (head_size as f64).powf(-0.5))?;
        let scores = query.matmul(&split(&self.to_k)?.transpose(D::Minus2, D::Minus1)?)?;
        let attended = candle_nn::ops::softmax_last_dim(&scores)?.matmul(&split(&self.to_v)?)?;
        self.to_out.forward(&attended.transpose(1, 2)?.reshape((rows, tokens, size))?)
    }
}

#[derive(Debug)]
struct FeedForward {
    widen: Linear,
    narrow: Linear,
    activation: Activation,
}

impl FeedForward {
    fn new(size: usize, activation: Activation, vb: VarBuilder<'_>) -> Result<Self> {
        let width = FEED_FORWARD_FACTOR * size;
        Ok(Self {
            widen: candle_nn::linear(size, width, vb.pp(0).pp("proj"))?,
            narrow: candle_nn::linear(width, size, vb.pp(2))?,
            activation,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = self.widen.forward(x)?;
        let x = match self.activation {
            Activation::GeluApproximate => gelu_tanh(x)?,
            Activation::Gelu => x.gelu_erf()?,
        };
        self.narrow.forward(&x)
    }
}
