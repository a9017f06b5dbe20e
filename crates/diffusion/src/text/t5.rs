//! The encoder of T5 (arXiv 1910.10683) and its 1.1 revision, as transformers' `T5EncoderModel` lays it
//! out.
//!
//! Follows transformers 5.23.0:
//!
//! * `T5EncoderModel` (lines 1072-1135), `T5LayerNorm` (50-72), `T5DenseGatedActDense` (97-123), `T5Attention`
//!   (176-369), `T5Block` (435-509) and `T5Stack` (640-750):
//!   <https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/t5/modeling_t5.py#L1072>
//! * `T5Config` (lines 22-95):
//!   <https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/t5/configuration_t5.py#L22>
//!
//! Departs from it: one text at a time; in f16 the stream is f32 from the first layer on, not from the first `wo` on.
//!
//! Scores are not scaled (1/sqrt(d_kv) is in the initialisation of the weights), positions are learned biases of the
//! scores that all blocks share, and norms neither centre nor shift.

use afterimage_checkpoint::{CheckpointError, Fact, Parameters, component_config};
use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Embedding, Module};
use serde::{Deserialize, Deserializer};

use crate::dimension::{MAX_VOCABULARY, check_dimensions, check_size};
use crate::layers::{Linear, Projections, RmsNorm, TokenTable};
use crate::ops::activation::Activation;
use crate::ops::attention::{Scores, attention};
use crate::ops::linear::GateAndResidual;

/// transformers' name.
pub(super) const CLASS: &str = "T5EncoderModel";
/// Values of `feed_forward_proj`.
const FEED_FORWARDS: &str = "relu, gelu, gated-relu or gated-gelu";
/// Values of `dense_act_fn`.
const ACTIVATIONS: &str = "relu, gelu_new or gelu";
/// The table of tokens, which encoder and decoder share ...
const TOKENS: &str = "shared";
/// ... and its other name, which is the only one in some files.
const ENCODER_TOKENS: &str = "encoder.embed_tokens";

/// What is added to the scores of tokens that are hidden: the softmax makes 0 of it in every dtype.
const PADDING_BIAS: f32 = -10_000.0;

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
    #[serde(deserialize_with = "component_config::norm_epsilon")]
    layer_norm_epsilon: f64,
    /// Implies both of the keys below, which take precedence where they are written.
    feed_forward_proj: String,
    /// The outer `None`: not written.
    #[serde(deserialize_with = "written")]
    dense_act_fn: Option<Option<String>>,
    #[serde(deserialize_with = "written_truth")]
    is_gated_act: Option<bool>,
    architectures: Option<Vec<String>>,
    /// What the keys above say together.
    #[serde(skip)]
    feed_forward: FeedForwardKind,
}

/// How the feed-forward part is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FeedForwardKind {
    activation: Activation,
    /// T5 1.1: the activation of one projection times another.
    is_gated: bool,
}

/// By its name in `dense_act_fn`.
fn activation(name: &str) -> Option<Activation> {
    match name {
        "relu" => Some(Activation::Relu),
        "gelu_new" | "gelu_pytorch_tanh" => Some(Activation::GeluApproximate),
        "gelu" => Some(Activation::Gelu),
        _ => None,
    }
}

/// Tells a key that holds `null` from one that is absent.
fn written<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

fn written_truth<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<bool>, D::Error> {
    component_config::truth(deserializer).map(Some)
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
            dense_act_fn: None,
            is_gated_act: None,
            architectures: None,
            feed_forward: FeedForwardKind { activation: Activation::Relu, is_gated: false },
        }
    }
}

impl T5Config {
    /// `path` is where the text comes from.
    pub(super) fn from_json(path: &str, text: &str) -> std::result::Result<Self, CheckpointError> {
        let mut config: Self = component_config::parse(path, text)?;
        config.feed_forward = config.feed_forward_kind(path)?;
        // Half of the buckets look back, and half of those are exact.
        if config.relative_attention_num_buckets < 4 || !config.relative_attention_num_buckets.is_multiple_of(4) {
            let found = config.relative_attention_num_buckets.to_string();
            let right = "a multiple of 4";
            return Err(component_config::unsupported(path, "relative_attention_num_buckets", &found, right));
        }
        config.check_sizes(path)?;
        Ok(config)
    }

    /// What GGUF files say as well, by llama.cpp's names.
    pub(super) fn facts(&self) -> Vec<Fact> {
        let counts = [
            ("block_count", "num_layers", self.num_layers),
            ("embedding_length", "d_model", self.d_model),
            ("feed_forward_length", "d_ff", self.d_ff),
            ("attention.head_count", "num_heads", self.num_heads),
            ("attention.key_length", "d_kv", self.d_kv),
            ("attention.relative_buckets_count", "relative_attention_num_buckets", self.relative_attention_num_buckets),
        ];
        let counts = counts.into_iter().map(|(entry, key, value)| Fact { entry, key, value: value as f64 });
        let (entry, value) = ("attention.layer_norm_epsilon", self.layer_norm_epsilon);
        counts.chain([Fact { entry, key: "layer_norm_epsilon", value }]).collect()
    }

    fn check_sizes(&self, path: &str) -> std::result::Result<(), CheckpointError> {
        let sizes = [
            ("d_model", self.d_model),
            ("d_kv", self.d_kv),
            ("d_ff", self.d_ff),
            ("num_layers", self.num_layers),
            ("num_heads", self.num_heads),
            ("relative_attention_num_buckets", self.relative_attention_num_buckets),
            ("relative_attention_max_distance", self.relative_attention_max_distance),
        ];
        check_dimensions(path, &sizes)?;
        check_size(path, "vocab_size", self.vocab_size, MAX_VOCABULARY)?;
        // Buckets beyond the exact ones are spread over the distances up to it.
        let exact = self.relative_attention_num_buckets / 4;
        if self.relative_attention_max_distance <= exact {
            let found = self.relative_attention_max_distance.to_string();
            let right = format!("more than {exact}, a quarter of relative_attention_num_buckets");
            return Err(component_config::unsupported(path, "relative_attention_max_distance", &found, &right));
        }
        Ok(())
    }

    /// Size of a token's state.
    pub(super) fn dim(&self) -> usize {
        self.d_model
    }

    /// Rows of the table of tokens.
    pub(super) fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The class that the configuration names. An encoder-decoder's serves as its encoder.
    pub(super) fn architecture(&self) -> Option<&str> {
        let class = self.architectures.as_ref()?.first()?;
        if class.starts_with("T5") { Some(CLASS) } else { Some(class) }
    }

    /// As transformers derives it, `path` being where the keys come from.
    fn feed_forward_kind(&self, path: &str) -> std::result::Result<FeedForwardKind, CheckpointError> {
        let unsupported =
            |key: &str, found: &str, right: &str| Err(component_config::unsupported(path, key, found, right));
        let projection = self.feed_forward_proj.as_str();
        // "gated-gelu" has always meant the tanh approximation, "gelu" alone means the exact function.
        let (is_gated, name) = match projection.split_once('-') {
            Some(("gated", "gelu")) => (true, "gelu_new"),
            Some(("gated", name)) if !name.contains('-') => (true, name),
            Some(_) => return unsupported("feed_forward_proj", projection, FEED_FORWARDS),
            None => (false, projection),
        };
        let is_gated = self.is_gated_act.unwrap_or(is_gated);
        match (&self.dense_act_fn, activation(name)) {
            (None, Some(activation)) => Ok(FeedForwardKind { activation, is_gated }),
            (None, None) => unsupported("feed_forward_proj", projection, FEED_FORWARDS),
            (Some(name), _) => match name.as_deref().and_then(activation) {
                Some(activation) => Ok(FeedForwardKind { activation, is_gated }),
                None => unsupported("dense_act_fn", name.as_deref().unwrap_or("null"), ACTIVATIONS),
            },
        }
    }

    /// The bucket of a key `offset` tokens after (or, negative, before) its query.
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
    tokens: TokenTable,
    position_bias: Embedding,
    blocks: Vec<Block>,
    norm: RmsNorm,
    config: T5Config,
    dtype: DType,
    device: Device,
}

impl T5Encoder {
    /// Tensors of published files that the encoder has no use for: a decoder's, the tokens under another name, and what
    /// ComfyUI keeps in every text encoder's file.
    pub(super) const UNUSED_WEIGHTS: &[&str] =
        &["encoder.embed_tokens.weight", "decoder.", "lm_head.weight", "logit_scale", "spiece_model"];

    pub(super) fn new(config: &T5Config, parameters: &Parameters) -> Result<Self> {
        let encoder = parameters.pp("encoder");
        let blocks = encoder.pp("block");
        // Only the first block has the table.
        let bias = blocks.pp(0).pp("layer").pp(0).pp("SelfAttention").pp("relative_attention_bias");
        Ok(Self {
            tokens: tokens(config, parameters)?,
            position_bias: embedding(config.relative_attention_num_buckets, config.num_heads, &bias)?,
            blocks: (0..config.num_layers).map(|index| Block::new(config, &blocks.pp(index))).collect::<Result<_>>()?,
            norm: norm(config, &encoder.pp("final_layer_norm"))?,
            config: config.clone(),
            dtype: parameters.dtype(),
            device: parameters.device().clone(),
        })
    }

    /// Ids of a text to `[1, tokens, dim]`. No token attends to those from `visible` on.
    #[allow(clippy::disallowed_methods, reason = "in no step: a prompt is being encoded")]
    pub(super) fn forward(&self, ids: &[u32], visible: usize) -> Result<Tensor> {
        let tokens = ids.len();
        let mut bias = self.position_bias(tokens)?;
        if visible < tokens {
            let hidden: Vec<f32> = (0..tokens).map(|key| if key < visible { 0.0 } else { PADDING_BIAS }).collect();
            bias = bias.broadcast_add(&Tensor::new(hidden, &self.device)?.to_dtype(bias.dtype())?)?;
        }
        let mut x = self.tokens.rows(ids)?.to_dtype(stream_dtype(self.dtype))?.unsqueeze(0)?;
        for block in &self.blocks {
            x = block.forward(&x, &bias)?;
        }
        self.norm.forward(&x)?.to_dtype(self.dtype)
    }

    /// `[1, heads, tokens, tokens]`
    #[allow(clippy::disallowed_methods, reason = "in no step: a prompt is being encoded")]
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
    projections: Projections,
    to_out: Linear,
    head_size: usize,
    feed_forward_norm: RmsNorm,
    feed_forward: FeedForward,
}

impl Block {
    fn new(config: &T5Config, parameters: &Parameters) -> Result<Self> {
        let (size, inner) = (config.d_model, config.num_heads * config.d_kv);
        let layers = parameters.pp("layer");
        let attention = layers.pp(0).pp("SelfAttention");
        let projections = ["q", "k", "v"].map(|name| (inner, attention.pp(name)));
        Ok(Self {
            attention_norm: norm(config, &layers.pp(0).pp("layer_norm"))?,
            projections: Projections::load(size, projections, false)?,
            to_out: Linear::load(inner, size, false, attention.pp("o"))?,
            head_size: config.d_kv,
            feed_forward_norm: norm(config, &layers.pp(1).pp("layer_norm"))?,
            feed_forward: FeedForward::new(config, &layers.pp(1).pp("DenseReluDense"))?,
        })
    }

    fn forward(&self, x: &Tensor, position_bias: &Tensor) -> Result<Tensor> {
        let dtype = position_bias.dtype();
        let x = self.attend(&self.attention_norm.forward(x)?.to_dtype(dtype)?, position_bias, x)?;
        self.feed_forward.forward(&self.feed_forward_norm.forward(&x)?.to_dtype(dtype)?, &x)
    }

    /// The attention of `x` to itself, added to `residual`.
    fn attend(&self, x: &Tensor, position_bias: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let [query, key, value] = self.projections.forward_heads(x, self.head_size)?;
        let attended = attention(&query, &key, &value, Scores::unscaled(Some(position_bias)))?;
        if residual.dtype() != attended.dtype() {
            return self.to_out.forward(&attended)?.to_dtype(residual.dtype())? + residual;
        }
        self.to_out.forward_onto(&attended, GateAndResidual::residual(residual))
    }
}

#[derive(Debug)]
struct FeedForward {
    activation: Activation,
    /// What is activated.
    activated: Linear,
    /// What that is multiplied with.
    factor: Option<Linear>,
    narrow: Linear,
}

impl FeedForward {
    fn new(config: &T5Config, parameters: &Parameters) -> Result<Self> {
        let widen = |name: &str| Linear::load(config.d_model, config.d_ff, false, parameters.pp(name));
        let FeedForwardKind { activation, is_gated } = config.feed_forward;
        let (activated, factor) = if is_gated { (widen("wi_0")?, Some(widen("wi_1")?)) } else { (widen("wi")?, None) };
        let wide = parameters.in_dtype(stream_dtype(parameters.dtype()));
        let narrow = Linear::load(config.d_ff, config.d_model, false, wide.pp("wo"))?;
        Ok(Self { activation, activated, factor, narrow })
    }

    /// Added to `residual`.
    fn forward(&self, x: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let inner = match &self.factor {
            Some(factor) => factor.forward_gated(x, &self.activated, self.activation)?,
            None => self.activated.forward_activated(x, self.activation)?,
        };
        self.narrow.forward_onto(&inner.to_dtype(residual.dtype())?, GateAndResidual::residual(residual))
    }
}

/// What passes by the layers, and what a feed-forward adds to it: both are larger than f16 reaches in published encoders.
/// transformers keeps `wo` in f32 for that, after which the sum is f32 as well.
fn stream_dtype(dtype: DType) -> DType {
    if dtype == DType::F16 { DType::F32 } else { dtype }
}

/// The table of tokens under whichever of its names; under both it must be the same.
#[allow(clippy::disallowed_methods, reason = "in no forward: the weights are being loaded")]
fn tokens(config: &T5Config, parameters: &Parameters) -> Result<TokenTable> {
    let [shared, own] = [TOKENS, ENCODER_TOKENS].map(|name| parameters.pp(name));
    let table = |parameters: &Parameters| TokenTable::load(config.vocab_size, config.d_model, parameters);
    if !own.contains("weight") {
        return table(&shared);
    }
    if shared.contains("weight") {
        let values = |parameters: &Parameters| parameters.get((config.vocab_size, config.d_model), "weight");
        let differing = values(&own)?.ne(&values(&shared)?)?;
        if differing.max_all()?.to_scalar::<u8>()? != 0 {
            candle_core::bail!(
                "{TOKENS}.weight and {ENCODER_TOKENS}.weight differ; they are two names of one table, so that only one \
                 of them may be there, or both with the same values"
            );
        }
    }
    table(&own)
}

fn norm(config: &T5Config, parameters: &Parameters) -> Result<RmsNorm> {
    Ok(RmsNorm::new(parameters.get(config.d_model, "weight")?, config.layer_norm_epsilon))
}

fn embedding(tokens: usize, size: usize, parameters: &Parameters) -> Result<Embedding> {
    Ok(Embedding::new(parameters.get((tokens, size), "weight")?, size))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use afterimage_checkpoint::Weights;

    use super::*;
    use crate::golden_fixture::Fixture;

    /// Of f16, relative to the largest value.
    const TOLERANCE: f32 = 1e-2;

    #[test]
    fn what_f16_cannot_hold_passes_by_the_layers() {
        let fixture = Fixture::open("sd3").folder;
        let config = T5Config::from_json("config.json", &fixture.text("text_encoder_3/config.json").unwrap()).unwrap();
        let weights = fixture.path().unwrap().join("text_encoder_3/model.safetensors");
        let weights = candle_core::safetensors::load(weights, &Device::Cpu).unwrap();
        // What feed-forwards add becomes a million times as much; the layers behind norm it away.
        let large = weights.into_iter().map(|(name, tensor)| {
            let factor = if name.ends_with("wo.weight") { 1e6 } else { 1.0 };
            (name, (tensor * factor).unwrap())
        });
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("model.safetensors");
        candle_core::safetensors::save(&large.collect::<HashMap<_, _>>(), file).unwrap();
        let weights = Weights::open(place.path()).unwrap();
        let states = |dtype: DType| {
            let encoder = T5Encoder::new(&config, &weights.parameters(dtype, &Device::Cpu)).unwrap();
            let states = encoder.forward(&[5, 9, 200, 1], 3).unwrap();
            assert_eq!(states.dtype(), dtype);
            states.to_dtype(DType::F32).unwrap()
        };
        let (narrow, wide) = (states(DType::F16), states(DType::F32));
        let largest = |tensor: &Tensor| tensor.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        let difference = largest(&(&narrow - &wide).unwrap()) / largest(&wide);
        assert!(difference < TOLERANCE, "{difference} off");
    }

    #[test]
    fn near_tokens_have_buckets_of_their_own_and_far_ones_share() {
        let config = T5Config::default();
        let buckets = [0, -1, -7, -8, -15, -16, -127, -1000, 1, 7, 8, 16, 1000].map(|offset| config.bucket(offset));
        assert_eq!(buckets, [0, 1, 7, 8, 9, 10, 15, 15, 17, 23, 24, 26, 31]);
    }

    #[test]
    fn an_activation_nobody_knows_is_named() {
        for (json, message) in [
            (r#"{"feed_forward_proj": "gated-silu"}"#, "`feed_forward_proj` is gated-silu; supported: relu, gelu, "),
            (r#"{"feed_forward_proj": "double-relu"}"#, "`feed_forward_proj` is double-relu; supported: "),
            (r#"{"feed_forward_proj": null}"#, "`feed_forward_proj` is null; supported: text in quotes"),
            (r#"{"dense_act_fn": "silu"}"#, "`dense_act_fn` is silu; supported: relu, gelu_new or gelu"),
            (r#"{"dense_act_fn": null}"#, "`dense_act_fn` is null; supported: relu, gelu_new or gelu"),
            (r#"{"d_kv": null}"#, "`d_kv` is null; supported: a whole number"),
        ] {
            let error = T5Config::from_json("text_encoder/config.json", json).unwrap_err().to_string();
            assert!(error.starts_with("text_encoder/config.json: ") && error.contains(message), "{error}");
        }
    }

    #[test]
    fn derived_keys_go_before_the_one_they_are_derived_from() {
        let kind = |json: &str| {
            let config = T5Config::from_json("text_encoder/config.json", json).unwrap();
            (config.feed_forward.activation, config.feed_forward.is_gated)
        };
        assert_eq!(kind("{}"), (Activation::Relu, false));
        assert_eq!(kind(r#"{"feed_forward_proj": "gated-gelu"}"#), (Activation::GeluApproximate, true));
        assert_eq!(kind(r#"{"feed_forward_proj": "gelu"}"#), (Activation::Gelu, false));
        assert_eq!(kind(r#"{"dense_act_fn": "gelu_new", "is_gated_act": true}"#), (Activation::GeluApproximate, true));
        assert_eq!(kind(r#"{"is_gated_act": true}"#), (Activation::Relu, true));
        let all = r#"{"feed_forward_proj": "gated-silu", "dense_act_fn": "relu", "is_gated_act": null}"#;
        assert_eq!(kind(all), (Activation::Relu, false));
    }
}
