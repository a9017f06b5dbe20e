//! The text model of CLIP (arXiv 2103.00020), as transformers' `CLIPTextModel` and
//! `CLIPTextModelWithProjection` lay it out.
//!
//! Follows transformers 5.23.0:
//!
//! * `CLIPTextModel` (lines 480-577), `CLIPTextModelWithProjection` (825-886), `CLIPTextEmbeddings` (221-256),
//!   `CLIPAttention` (280-335), `CLIPMLP` (338-350) and `CLIPEncoderLayer` (353-383):
//!   <https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/clip/modeling_clip.py#L480>
//! * `CLIPTextConfig` (lines 25-72):
//!   <https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/clip/configuration_clip.py#L25>
//!
//! Departs from it: a text without its end token is refused, where transformers pools its first token.
//!
//! A token attends to itself and those before it, padding included; there is no other mask. Layers are pre-norm, and
//! a final norm follows the last one.

use afterimage_checkpoint::{CheckpointError, Parameters, component_config};
use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Embedding, Module};
use serde::Deserialize;

use crate::dimension::{MAX_VOCABULARY, check_dimensions, check_size};
use crate::layers::{Linear, PlainLayerNorm, Projections};
use crate::ops::activation::Activation;
use crate::ops::attention::scaled_dot_product;
use crate::ops::linear::GateAndResidual;

/// Configurations of 2021 and 2022 carry this in place of the end token's id.
const EOS_TOKEN_ID_THEN: u32 = 2;
/// Most tokens of a text; published models have up to 248.
const MAX_POSITIONS: usize = 4096;
/// Values of `hidden_act`.
const ACTIVATIONS: &str = "quick_gelu or gelu";
/// Of the projection, which only one of the classes has.
pub(super) const PROJECTION: &str = "text_projection";

/// The class of a text model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClipClass {
    /// `CLIPTextModel`
    Plain,
    /// `CLIPTextModelWithProjection`: the pooled output is projected.
    WithProjection,
}

impl ClipClass {
    /// By transformers' name.
    pub(super) fn named(name: &str) -> Option<Self> {
        [Self::Plain, Self::WithProjection].into_iter().find(|class| class.as_str() == name)
    }

    /// transformers' name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "CLIPTextModel",
            Self::WithProjection => "CLIPTextModelWithProjection",
        }
    }
}

/// `config.json` of the text model; absent keys take transformers' defaults.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(super) struct ClipTextConfig {
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    max_position_embeddings: usize,
    hidden_act: String,
    #[serde(deserialize_with = "component_config::norm_epsilon")]
    layer_norm_eps: f64,
    projection_dim: Option<usize>,
    eos_token_id: u32,
    architectures: Option<Vec<String>>,
}

impl Default for ClipTextConfig {
    fn default() -> Self {
        Self {
            vocab_size: 49408,
            hidden_size: 512,
            intermediate_size: 2048,
            num_hidden_layers: 12,
            num_attention_heads: 8,
            max_position_embeddings: 77,
            hidden_act: "quick_gelu".to_owned(),
            layer_norm_eps: 1e-5,
            projection_dim: Some(512),
            eos_token_id: 49407,
            architectures: None,
        }
    }
}

impl ClipTextConfig {
    /// `path` is where the text comes from.
    pub(super) fn from_json(path: &str, text: &str) -> std::result::Result<Self, CheckpointError> {
        let config: Self = component_config::parse(path, text)?;
        if activation(&config.hidden_act).is_none() {
            return Err(component_config::unsupported(path, "hidden_act", &config.hidden_act, ACTIVATIONS));
        }
        let (heads, size) = (config.num_attention_heads, config.hidden_size);
        if heads == 0 || !size.is_multiple_of(heads) {
            let right = format!("a divisor of hidden_size {size}");
            return Err(component_config::unsupported(path, "num_attention_heads", &heads.to_string(), &right));
        }
        if config.num_hidden_layers == 0 {
            return Err(component_config::unsupported(path, "num_hidden_layers", "0", "a positive number"));
        }
        let sizes = [
            ("hidden_size", size),
            ("intermediate_size", config.intermediate_size),
            ("num_hidden_layers", config.num_hidden_layers),
            ("projection_dim", config.projection_dim.unwrap_or(1)),
        ];
        check_dimensions(path, &sizes)?;
        check_size(path, "vocab_size", config.vocab_size, MAX_VOCABULARY)?;
        // Attention takes memory by the square of it.
        check_size(path, "max_position_embeddings", config.max_position_embeddings, MAX_POSITIONS)?;
        Ok(config)
    }

    /// Tokens of the longest text.
    pub(super) fn max_tokens(&self) -> usize {
        self.max_position_embeddings
    }

    /// Size of a token's state.
    pub(super) fn dim(&self) -> usize {
        self.hidden_size
    }

    /// Rows of the table of tokens.
    pub(super) fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The class that the configuration names; `model_index.json` takes precedence.
    pub(super) fn architecture(&self) -> Option<&str> {
        self.architectures.as_ref()?.first().map(String::as_str)
    }

    /// Size of the pooled output, if it is projected.
    pub(super) fn projection_dim(
        &self,
        path: &str,
        class: ClipClass,
    ) -> std::result::Result<Option<usize>, CheckpointError> {
        match (class, self.projection_dim) {
            (ClipClass::Plain, _) => Ok(None),
            (ClipClass::WithProjection, Some(dim)) => Ok(Some(dim)),
            (ClipClass::WithProjection, None) => {
                let right = format!("a whole number, which {} needs", class.as_str());
                Err(component_config::unsupported(path, "projection_dim", "null", &right))
            }
        }
    }

    /// Refuses an end token that texts do not have; `ids` are any text's.
    pub(super) fn check_end(&self, path: &str, ids: &[u32]) -> std::result::Result<(), CheckpointError> {
        if self.end(ids).is_ok() {
            return Ok(());
        }
        let found = self.eos_token_id.to_string();
        let right = ids.iter().max().map_or_else(|| "a token".to_owned(), u32::to_string);
        Err(component_config::unsupported(
            path,
            "eos_token_id",
            &found,
            &format!("{right}, with which the texts of the tokenizer end"),
        ))
    }

    /// Where the text of these tokens ends: at the first end token.
    fn end(&self, ids: &[u32]) -> Result<usize> {
        // The end token has the largest id of all, so that it can be found without being known.
        let end = match self.eos_token_id {
            EOS_TOKEN_ID_THEN => ids.iter().max().copied(),
            id => Some(id),
        };
        match ids.iter().position(|id| Some(*id) == end) {
            Some(position) => Ok(position),
            None => candle_core::bail!("a text of CLIP has no end token ({})", self.eos_token_id),
        }
    }
}

/// What the model makes of one text.
pub(super) struct ClipOutput {
    /// `[1, tokens, dim]`: after the last layer but one, `hidden_states[-2]` in transformers. The final norm is not in
    /// it: that belongs to the output of the last layer.
    pub(super) penultimate: Tensor,
    /// `[1, pooled dim]`
    pub(super) pooled: Tensor,
}

/// The text model.
#[derive(Debug)]
pub(super) struct ClipTextModel {
    tokens: Embedding,
    positions: Tensor,
    layers: Vec<Layer>,
    norm: PlainLayerNorm,
    projection: Option<Linear>,
    config: ClipTextConfig,
    device: Device,
}

impl ClipTextModel {
    /// Tensors of published files that the model has no use for: the numbers 0 to 76, and the projection
    /// where the class has none.
    pub(super) const UNUSED_WEIGHTS: &[&str] =
        &["text_model.embeddings.position_ids", "embeddings.position_ids", "text_projection.weight"];

    /// `projection_dim`: size of the projected output. `parameters` is that of the file.
    pub(super) fn new(config: &ClipTextConfig, projection_dim: Option<usize>, parameters: &Parameters) -> Result<Self> {
        // Transformers 5 saves a model without projection without the prefix.
        let prefixed = parameters.pp("text_model");
        let model = if prefixed.contains("final_layer_norm.weight") { prefixed } else { parameters.clone() };
        let embeddings = model.pp("embeddings");
        let (size, eps) = (config.hidden_size, config.layer_norm_eps);
        let tokens = embeddings.pp("token_embedding").get((config.vocab_size, size), "weight")?;
        let layers = model.pp("encoder").pp("layers");
        let projection = |dim| Linear::load(size, dim, false, parameters.pp(PROJECTION));
        Ok(Self {
            tokens: Embedding::new(tokens, size),
            positions: embeddings.pp("position_embedding").get((config.max_position_embeddings, size), "weight")?,
            layers: (0..config.num_hidden_layers)
                .map(|index| Layer::new(config, &layers.pp(index)))
                .collect::<Result<_>>()?,
            norm: PlainLayerNorm::load(size, eps, true, model.pp("final_layer_norm"))?,
            projection: projection_dim.map(projection).transpose()?,
            config: config.clone(),
            device: parameters.device().clone(),
        })
    }

    /// The states of a text of these ids, which hold an end token.
    #[allow(clippy::disallowed_methods, reason = "in no step: a prompt is being encoded")]
    pub(super) fn forward(&self, ids: &[u32]) -> Result<ClipOutput> {
        let end = self.config.end(ids)?;
        let embedded = self.tokens.forward(&Tensor::new(ids, &self.device)?.unsqueeze(0)?)?;
        let mut x = embedded.broadcast_add(&self.positions.narrow(0, 0, ids.len())?)?;
        let mask = causal_mask(ids.len(), x.dtype(), &self.device)?;
        let mut penultimate = x.clone();
        for layer in &self.layers {
            penultimate = x;
            x = layer.forward(&penultimate, &mask)?;
        }
        // The norm treats every token alone, so only the end token's state needs it.
        let pooled = self.norm.forward(&x.narrow(1, end, 1)?)?.squeeze(1)?;
        let pooled = match &self.projection {
            Some(projection) => projection.forward(&pooled)?,
            None => pooled,
        };
        Ok(ClipOutput { penultimate, pooled })
    }
}

/// `[tokens, tokens]`: what is added to scores, so that a query attends to no later token.
#[allow(clippy::disallowed_methods, reason = "in no step: a prompt is being encoded")]
fn causal_mask(tokens: usize, dtype: DType, device: &Device) -> Result<Tensor> {
    // Infinity is safe here: a query always attends to itself.
    let score = |query, key| if key > query { f32::NEG_INFINITY } else { 0.0 };
    let scores = (0..tokens).flat_map(|query| (0..tokens).map(move |key| score(query, key))).collect();
    Tensor::from_vec(scores, (tokens, tokens), device)?.to_dtype(dtype)
}

#[derive(Debug)]
struct Layer {
    attention_norm: PlainLayerNorm,
    projections: Projections,
    to_out: Linear,
    head_size: usize,
    feed_forward_norm: PlainLayerNorm,
    widen: Linear,
    narrow: Linear,
    activation: Activation,
}

impl Layer {
    fn new(config: &ClipTextConfig, parameters: &Parameters) -> Result<Self> {
        let (size, wide) = (config.hidden_size, config.intermediate_size);
        let norm = |name: &str| PlainLayerNorm::load(size, config.layer_norm_eps, true, parameters.pp(name));
        let attention = parameters.pp("self_attn");
        let projections = ["q_proj", "k_proj", "v_proj"].map(|name| (size, attention.pp(name)));
        let feed_forward = parameters.pp("mlp");
        Ok(Self {
            attention_norm: norm("layer_norm1")?,
            projections: Projections::load(size, projections, true)?,
            to_out: Linear::new(size, size, attention.pp("out_proj"))?,
            head_size: size / config.num_attention_heads,
            feed_forward_norm: norm("layer_norm2")?,
            widen: Linear::new(size, wide, feed_forward.pp("fc1"))?,
            narrow: Linear::new(wide, size, feed_forward.pp("fc2"))?,
            activation: activation(&config.hidden_act).unwrap_or(Activation::QuickGelu),
        })
    }

    fn forward(&self, x: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let x = self.attend(&self.attention_norm.forward(x)?, mask, x)?;
        let wide = self.widen.forward_activated(&self.feed_forward_norm.forward(&x)?, self.activation)?;
        self.narrow.forward_onto(&wide, GateAndResidual::residual(&x))
    }

    /// The attention of `x` to itself, added to `residual`.
    fn attend(&self, x: &Tensor, mask: &Tensor, residual: &Tensor) -> Result<Tensor> {
        let [query, key, value] = self.projections.forward_heads(x, self.head_size)?;
        let attended = scaled_dot_product(&query, &key, &value, Some(mask))?;
        self.to_out.forward_onto(&attended, GateAndResidual::residual(residual))
    }
}

/// By its name in `hidden_act`.
fn activation(name: &str) -> Option<Activation> {
    match name {
        "quick_gelu" => Some(Activation::QuickGelu),
        "gelu" => Some(Activation::Gelu),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(json: &str) -> ClipTextConfig {
        ClipTextConfig::from_json("text_encoder/config.json", json).unwrap()
    }

    #[test]
    fn a_text_ends_at_its_first_end_token() {
        let then = config(r#"{"eos_token_id": 2}"#);
        assert_eq!(then.end(&[812, 2, 5, 813, 813, 813]).unwrap(), 3);
        let now = config(r#"{"eos_token_id": 813}"#);
        assert_eq!(now.end(&[812, 5, 813, 900, 813]).unwrap(), 2);
        assert!(now.end(&[812, 5]).unwrap_err().to_string().contains("no end token (813)"));
        let error = now.check_end("text_encoder/config.json", &[812, 814, 0]).unwrap_err().to_string();
        assert!(error.starts_with("text_encoder/config.json: `eos_token_id` is 813; supported: 814"), "{error}");
        now.check_end("text_encoder/config.json", &[812, 813]).unwrap();
    }

    #[test]
    fn the_class_says_whether_the_pooled_output_is_projected() {
        let path = "text_encoder/config.json";
        let projected = config(r#"{"projection_dim": 16, "architectures": null}"#);
        assert_eq!(projected.architecture(), None);
        assert_eq!(projected.projection_dim(path, ClipClass::WithProjection).unwrap(), Some(16));
        assert_eq!(projected.projection_dim(path, ClipClass::Plain).unwrap(), None);
        let plain = config(r#"{"projection_dim": null, "architectures": ["CLIPTextModel"]}"#);
        assert_eq!(plain.architecture(), Some("CLIPTextModel"));
        assert_eq!(plain.projection_dim(path, ClipClass::Plain).unwrap(), None);
        let error = plain.projection_dim(path, ClipClass::WithProjection).unwrap_err().to_string();
        assert!(error.starts_with("text_encoder/config.json: `projection_dim` is null; supported: a whole"), "{error}");
    }

    #[test]
    fn what_cannot_be_served_is_named() {
        for (json, message) in [
            (r#"{"hidden_act": "relu"}"#, "`hidden_act` is relu; supported: quick_gelu or gelu"),
            (r#"{"num_attention_heads": 7}"#, "`num_attention_heads` is 7; supported: a divisor of hidden_size 512"),
            (r#"{"num_hidden_layers": 0}"#, "`num_hidden_layers` is 0"),
            (r#"{"hidden_size": null}"#, "`hidden_size` is null; supported: a whole number"),
            (r#"{"layer_norm_eps": null}"#, "`layer_norm_eps` is null; supported: a number"),
            (r#"{"eos_token_id": null}"#, "`eos_token_id` is null; supported: a whole number"),
        ] {
            let error = ClipTextConfig::from_json("text_encoder/config.json", json).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }
}
