//! BERT (arXiv 1810.04805) as transformers' `BertModel` lays it out, without its pooler.
//!
//! Follows transformers 5.23.0:
//!
//! * `BertModel` (lines 600-720), `BertEmbeddings` (53-109), `BertSelfAttention` (142-212), `BertSelfOutput` (294-305),
//!   `BertIntermediate` (340-353), `BertOutput` (356-367) and `BertLayer` (370-438):
//!   <https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/bert/modeling_bert.py#L600>
//! * `BertConfig` (lines 24-64):
//!   <https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/bert/configuration_bert.py#L24>
//!
//! Departs from it: one text at a time and without padding, to which no token attends.
//!
//! All tokens of a text attend to each other; norms follow what they norm and its residual.

use afterimage_checkpoint::{CheckpointError, Parameters, component_config};
use candle_core::{Device, Result, Tensor};
use candle_nn::{Embedding, Module};
use serde::Deserialize;

use crate::dimension::{MAX_VOCABULARY, check_dimensions, check_size};
use crate::layers::{Linear, PlainLayerNorm, Projections};
use crate::ops::activation::Activation;
use crate::ops::attention::scaled_dot_product;
use crate::ops::linear::GateAndResidual;

/// transformers' name.
pub(super) const CLASS: &str = "BertModel";
/// Values of `hidden_act`.
const ACTIVATIONS: &str = "gelu, gelu_new, quick_gelu, relu or silu";

/// `config.json` of the model; absent keys take transformers' defaults.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(super) struct BertConfig {
    vocab_size: usize,
    hidden_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    intermediate_size: usize,
    hidden_act: String,
    max_position_embeddings: usize,
    type_vocab_size: usize,
    #[serde(deserialize_with = "component_config::norm_epsilon")]
    layer_norm_eps: f64,
    #[serde(deserialize_with = "component_config::truth")]
    is_decoder: bool,
    #[serde(deserialize_with = "component_config::truth")]
    add_cross_attention: bool,
    architectures: Option<Vec<String>>,
}

impl Default for BertConfig {
    fn default() -> Self {
        Self {
            vocab_size: 30522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: "gelu".to_owned(),
            max_position_embeddings: 512,
            type_vocab_size: 2,
            layer_norm_eps: 1e-12,
            is_decoder: false,
            add_cross_attention: false,
            architectures: None,
        }
    }
}

impl BertConfig {
    /// `path` is where the text comes from.
    pub(super) fn from_json(path: &str, text: &str) -> std::result::Result<Self, CheckpointError> {
        let config: Self = component_config::parse(path, text)?;
        let unsupported =
            |key: &str, found: &str, right: &str| Err(component_config::unsupported(path, key, found, right));
        if activation(&config.hidden_act).is_none() {
            return unsupported("hidden_act", &config.hidden_act, ACTIVATIONS);
        }
        for (key, is_on) in [("is_decoder", config.is_decoder), ("add_cross_attention", config.add_cross_attention)] {
            if is_on {
                return unsupported(key, "true", "false");
            }
        }
        let (heads, size) = (config.num_attention_heads, config.hidden_size);
        if heads == 0 || !size.is_multiple_of(heads) {
            return unsupported("num_attention_heads", &heads.to_string(), &format!("a divisor of hidden_size {size}"));
        }
        let sizes = [
            ("hidden_size", size),
            ("intermediate_size", config.intermediate_size),
            ("num_hidden_layers", config.num_hidden_layers),
            ("max_position_embeddings", config.max_position_embeddings),
            ("type_vocab_size", config.type_vocab_size),
        ];
        check_dimensions(path, &sizes)?;
        check_size(path, "vocab_size", config.vocab_size, MAX_VOCABULARY)?;
        Ok(config)
    }

    /// Refuses a model that has no positions for so many tokens.
    pub(super) fn check_positions(&self, path: &str, tokens: usize) -> std::result::Result<(), CheckpointError> {
        let positions = self.max_position_embeddings;
        if positions >= tokens {
            return Ok(());
        }
        let right = format!("at least {tokens}, the tokens of every text");
        Err(component_config::unsupported(path, "max_position_embeddings", &positions.to_string(), &right))
    }

    /// Size of a token's state.
    pub(super) fn dim(&self) -> usize {
        self.hidden_size
    }

    /// Rows of the table of tokens.
    pub(super) fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The class that the configuration names; one with a head on top serves as the model below it.
    pub(super) fn architecture(&self) -> Option<&str> {
        let class = self.architectures.as_ref()?.first()?;
        if class.starts_with("Bert") { Some(CLASS) } else { Some(class) }
    }
}

/// By its name in `hidden_act`.
fn activation(name: &str) -> Option<Activation> {
    match name {
        "gelu" => Some(Activation::Gelu),
        "gelu_new" | "gelu_pytorch_tanh" => Some(Activation::GeluApproximate),
        "quick_gelu" => Some(Activation::QuickGelu),
        "relu" => Some(Activation::Relu),
        "silu" | "swish" => Some(Activation::Silu),
        _ => None,
    }
}

/// The model.
#[derive(Debug)]
pub(super) struct BertModel {
    words: Embedding,
    positions: Tensor,
    /// That of the first sentence, the only one that texts have.
    kind: Tensor,
    norm: PlainLayerNorm,
    layers: Vec<Layer>,
    device: Device,
}

impl BertModel {
    /// Tensors of published files that the model has no use for.
    pub(super) const UNUSED_WEIGHTS: &[&str] =
        &["pooler.", "bert.pooler.", "cls.", "embeddings.position_ids", "bert.embeddings.position_ids"];

    /// `parameters` is that of the file.
    pub(super) fn new(config: &BertConfig, parameters: &Parameters) -> Result<Self> {
        // Models with a head have the prefix.
        let prefixed = parameters.pp("bert");
        let has_prefix = prefixed.contains("embeddings.word_embeddings.weight");
        let model = if has_prefix { prefixed } else { parameters.clone() };
        let (embeddings, layers) = (model.pp("embeddings"), model.pp("encoder").pp("layer"));
        let size = config.hidden_size;
        let table = |rows: usize, name: &str| embeddings.pp(name).get((rows, size), "weight");
        Ok(Self {
            words: Embedding::new(table(config.vocab_size, "word_embeddings")?, size),
            positions: table(config.max_position_embeddings, "position_embeddings")?,
            kind: table(config.type_vocab_size, "token_type_embeddings")?.narrow(0, 0, 1)?,
            norm: norm(config, embeddings.pp("LayerNorm"))?,
            layers: (0..config.num_hidden_layers)
                .map(|index| Layer::new(config, &layers.pp(index)))
                .collect::<Result<_>>()?,
            device: parameters.device().clone(),
        })
    }

    /// The states of a text of these ids after the last layer: `[1, tokens, dim]`.
    #[allow(clippy::disallowed_methods, reason = "in no step: a prompt is being encoded")]
    pub(super) fn forward(&self, ids: &[u32]) -> Result<Tensor> {
        let words = self.words.forward(&Tensor::new(ids, &self.device)?.unsqueeze(0)?)?;
        let embedded = words.broadcast_add(&self.kind)?.broadcast_add(&self.positions.narrow(0, 0, ids.len())?)?;
        let mut x = self.norm.forward(&embedded)?;
        for layer in &self.layers {
            x = layer.forward(&x)?;
        }
        Ok(x)
    }
}

#[derive(Debug)]
struct Layer {
    projections: Projections,
    to_out: Linear,
    head_size: usize,
    attention_norm: PlainLayerNorm,
    widen: Linear,
    narrow: Linear,
    activation: Activation,
    feed_forward_norm: PlainLayerNorm,
}

impl Layer {
    fn new(config: &BertConfig, parameters: &Parameters) -> Result<Self> {
        let (size, wide) = (config.hidden_size, config.intermediate_size);
        let attention = parameters.pp("attention");
        let projections = ["query", "key", "value"].map(|name| (size, attention.pp("self").pp(name)));
        let (attended, output) = (attention.pp("output"), parameters.pp("output"));
        Ok(Self {
            projections: Projections::load(size, projections, true)?,
            to_out: Linear::new(size, size, attended.pp("dense"))?,
            head_size: size / config.num_attention_heads,
            attention_norm: norm(config, attended.pp("LayerNorm"))?,
            widen: Linear::new(size, wide, parameters.pp("intermediate").pp("dense"))?,
            narrow: Linear::new(wide, size, output.pp("dense"))?,
            activation: activation(&config.hidden_act).unwrap_or(Activation::Gelu),
            feed_forward_norm: norm(config, output.pp("LayerNorm"))?,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let [query, key, value] = self.projections.forward_heads(x, self.head_size)?;
        let attended = scaled_dot_product(&query, &key, &value, None)?;
        let x = self.attention_norm.forward(&self.to_out.forward_onto(&attended, GateAndResidual::residual(x))?)?;
        let wide = self.widen.forward_activated(&x, self.activation)?;
        self.feed_forward_norm.forward(&self.narrow.forward_onto(&wide, GateAndResidual::residual(&x))?)
    }
}

fn norm(config: &BertConfig, parameters: Parameters) -> Result<PlainLayerNorm> {
    PlainLayerNorm::load(config.hidden_size, config.layer_norm_eps, true, parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_served_is_named() {
        for (json, message) in [
            (r#"{"hidden_act": "mish"}"#, "`hidden_act` is mish; supported: gelu, gelu_new"),
            (r#"{"num_attention_heads": 7}"#, "`num_attention_heads` is 7; supported: a divisor of hidden_size 768"),
            (r#"{"is_decoder": true}"#, "`is_decoder` is true; supported: false"),
            (r#"{"num_hidden_layers": 0}"#, "`num_hidden_layers` is 0"),
            (r#"{"vocab_size": null}"#, "`vocab_size` is null; supported: a whole number"),
        ] {
            let error = BertConfig::from_json("text_encoder/config.json", json).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
        let short = BertConfig::from_json("config.json", r#"{"max_position_embeddings": 64}"#).unwrap();
        let error = short.check_positions("config.json", 77).unwrap_err().to_string();
        assert!(error.contains("`max_position_embeddings` is 64; supported: at least 77"), "{error}");
    }

    #[test]
    fn a_model_with_a_head_serves_as_the_model_below_it() {
        let class = |json: &str| BertConfig::from_json("config.json", json).unwrap().architecture().map(str::to_owned);
        assert_eq!(class("{}"), None);
        assert_eq!(class(r#"{"architectures": ["BertForMaskedLM"]}"#).as_deref(), Some(CLASS));
        assert_eq!(class(r#"{"architectures": ["RobertaModel"]}"#).as_deref(), Some("RobertaModel"));
    }
}
