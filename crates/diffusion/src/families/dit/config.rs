//! `transformer/config.json` of a DiT.
//!
//! Follows diffusers 0.42.1, `DiTTransformer2DModel.__init__` (lines 71-146):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/transformers/dit_transformer_2d.py#L71>
//!
//! Absent keys take the defaults of diffusers' `DiTTransformer2DModel`. Published repositories name
//! the class `Transformer2DModel`, of which DiT was once a variant; the keys of other variants are
//! ignored. The class itself is `model_index.json`'s.

use afterimage_checkpoint::{CheckpointError, component_config};
use serde::Deserialize;

use crate::dimension::check_dimensions;
use crate::families::PatchShape;
use crate::ops::activation::Activation;

/// The path inside a model folder.
const PATH: &str = "transformer/config.json";

/// The class that stands for "no class" under guidance; fixed in diffusers' `DiTPipeline`.
pub(super) const NULL_CLASS: u32 = 1000;

#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(super) struct TransformerConfig {
    pub(super) num_attention_heads: usize,
    pub(super) attention_head_dim: usize,
    /// Latent channels.
    pub(super) in_channels: usize,
    /// Twice the latent channels where the model also predicts a variance.
    pub(super) out_channels: Option<usize>,
    pub(super) num_layers: usize,
    /// Bias of the query, key and value projections.
    #[serde(deserialize_with = "component_config::truth")]
    pub(super) attention_bias: bool,
    /// Side of the square latents the model was made for.
    pub(super) sample_size: usize,
    pub(super) patch_size: usize,
    activation_fn: String,
    num_embeds_ada_norm: Option<usize>,
    norm_type: String,
    /// The norm before the feed-forward has weight and bias.
    #[serde(deserialize_with = "component_config::truth")]
    pub(super) norm_elementwise_affine: bool,
    /// Epsilon of the norm before the feed-forward; the other norms have a fixed one.
    #[serde(deserialize_with = "component_config::norm_epsilon")]
    pub(super) norm_eps: f64,
}

impl Default for TransformerConfig {
    fn default() -> Self {
        Self {
            num_attention_heads: 16,
            attention_head_dim: 72,
            in_channels: 4,
            out_channels: None,
            num_layers: 28,
            attention_bias: true,
            sample_size: 32,
            patch_size: 2,
            activation_fn: "gelu-approximate".to_owned(),
            num_embeds_ada_norm: Some(1000),
            norm_type: "ada_norm_zero".to_owned(),
            norm_elementwise_affine: false,
            norm_eps: 1e-5,
        }
    }
}

impl TransformerConfig {
    pub(super) fn from_json(text: &str) -> Result<Self, CheckpointError> {
        let config: Self = component_config::parse(PATH, text)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), CheckpointError> {
        if self.norm_type != "ada_norm_zero" {
            return Err(unsupported("norm_type", &self.norm_type, "ada_norm_zero"));
        }
        let Some(classes) = self.num_embeds_ada_norm else {
            return Err(unsupported("num_embeds_ada_norm", "null", "the number of classes"));
        };
        check_dimensions(PATH, &[("num_embeds_ada_norm", classes)])?;
        let shape = PatchShape {
            num_attention_heads: self.num_attention_heads,
            attention_head_dim: self.attention_head_dim,
            in_channels: self.in_channels,
            out_channels: self.out_channels(),
            num_layers: self.num_layers,
            patch_size: self.patch_size,
            sample_size: self.sample_size,
            hidden_multiple: 4,
        };
        shape.check(PATH)?;
        self.activation().map(|_| ())
    }

    pub(super) fn activation(&self) -> Result<Activation, CheckpointError> {
        Activation::named(&self.activation_fn)
            .ok_or_else(|| unsupported("activation_fn", &self.activation_fn, Activation::NAMES))
    }

    pub(super) fn hidden_size(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    pub(super) fn out_channels(&self) -> usize {
        self.out_channels.unwrap_or(self.in_channels)
    }

    /// Classes that can be asked for; the embedding table has one more row, for "no class".
    pub(super) fn num_classes(&self) -> usize {
        self.num_embeds_ada_norm.unwrap_or(0)
    }
}

fn unsupported(key: &str, found: &str, right: &str) -> CheckpointError {
    component_config::unsupported(PATH, key, found, right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_configuration_of_the_old_class_is_read() {
        let config = TransformerConfig::from_json(
            r#"{"_class_name": "Transformer2DModel", "cross_attention_dim": null, "norm_type": "ada_norm_zero",
                "num_embeds_ada_norm": 1000, "out_channels": 8, "sample_size": 64, "use_linear_projection": false}"#,
        )
        .unwrap();
        assert_eq!((config.hidden_size(), config.out_channels(), config.sample_size), (1152, 8, 64));
    }

    #[test]
    fn null_is_off_or_absent_as_in_diffusers() {
        let keys = r#"{"attention_bias": null, "norm_elementwise_affine": null, "out_channels": null}"#;
        let config = TransformerConfig::from_json(keys).unwrap();
        assert_eq!((config.attention_bias, config.norm_elementwise_affine, config.out_channels()), (false, false, 4));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (json, key) in [
            (r#"{"norm_type": "layer_norm"}"#, "norm_type"),
            (r#"{"activation_fn": "geglu"}"#, "activation_fn"),
            (r#"{"patch_size": 0}"#, "patch_size"),
            (r#"{"sample_size": 33}"#, "sample_size"),
            (r#"{"out_channels": 5}"#, "out_channels"),
            (r#"{"num_layers": "many"}"#, "num_layers"),
            (r#"{"num_layers": null}"#, "num_layers"),
            (r#"{"num_embeds_ada_norm": null}"#, "num_embeds_ada_norm"),
            (r#"{"num_embeds_ada_norm": 18446744073709551615}"#, "num_embeds_ada_norm"),
            (r#"{"sample_size": 65536}"#, "sample_size"),
            (r#"{"sample_size": 9223372036854775808}"#, "sample_size"),
            (r#"{"out_channels": 18446744073709551615}"#, "out_channels"),
            (r#"{"norm_type": null}"#, "norm_type"),
            (r#"{"norm_eps": null}"#, "norm_eps"),
        ] {
            let message = TransformerConfig::from_json(json).unwrap_err().to_string();
            assert!(message.contains(key) && message.contains(PATH), "{json}: {message}");
        }
    }
}
