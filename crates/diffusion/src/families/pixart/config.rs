//! `transformer/config.json` of a PixArt model.
//!
//! Follows diffusers 0.42.1, pixart_transformer_2d.py: `PixArtTransformer2DModel.__init__` (lines 84-185):
//! <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/models/transformers>
//!
//! Absent keys take the defaults of diffusers' `PixArtTransformer2DModel`. Repositories published before
//! that class existed name `Transformer2DModel`, of which PixArt was once a variant. The class itself is
//! `model_index.json`'s.

use afterimage_checkpoint::{CheckpointError, component_config};
use serde::Deserialize;

use crate::dimension::check_dimensions;
use crate::families::PatchShape;
use crate::ops::activation::Activation;

/// The path inside a model folder.
const PATH: &str = "transformer/config.json";
/// Side of the latents of models that are conditioned on the picture's size.
const SIZE_CONDITIONED_SAMPLE_SIZE: usize = 128;
/// Side of the latents whose positions are not interpolated.
const POSITION_SAMPLE_SIZE: usize = 64;

#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(super) struct TransformerConfig {
    pub(super) num_attention_heads: usize,
    pub(super) attention_head_dim: usize,
    /// Latent channels.
    pub(super) in_channels: usize,
    /// Twice the latent channels where the model also predicts a variance.
    out_channels: Option<usize>,
    pub(super) num_layers: usize,
    /// Size of the captions that blocks attend to.
    cross_attention_dim: Option<usize>,
    /// Bias of the query, key and value projections.
    #[serde(deserialize_with = "component_config::truth")]
    pub(super) attention_bias: bool,
    /// Side of the square latents the model was made for.
    pub(super) sample_size: usize,
    pub(super) patch_size: usize,
    activation_fn: String,
    /// Asked for only whether it is there.
    num_embeds_ada_norm: Option<usize>,
    norm_type: String,
    /// The norms of a block have weight and bias.
    #[serde(deserialize_with = "component_config::truth")]
    pub(super) norm_elementwise_affine: bool,
    #[serde(deserialize_with = "component_config::norm_epsilon")]
    pub(super) norm_eps: f64,
    interpolation_scale: Option<f64>,
    use_additional_conditions: Option<bool>,
    /// Size of the text encoder's states.
    caption_channels: Option<usize>,
}

impl Default for TransformerConfig {
    fn default() -> Self {
        Self {
            num_attention_heads: 16,
            attention_head_dim: 72,
            in_channels: 4,
            out_channels: Some(8),
            num_layers: 28,
            cross_attention_dim: Some(1152),
            attention_bias: true,
            sample_size: 128,
            patch_size: 2,
            activation_fn: "gelu-approximate".to_owned(),
            num_embeds_ada_norm: Some(1000),
            norm_type: "ada_norm_single".to_owned(),
            norm_elementwise_affine: false,
            norm_eps: 1e-6,
            interpolation_scale: None,
            use_additional_conditions: None,
            caption_channels: None,
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
        if self.norm_type != "ada_norm_single" {
            return Err(unsupported("norm_type", &self.norm_type, "ada_norm_single"));
        }
        if self.num_embeds_ada_norm.is_none() {
            return Err(unsupported("num_embeds_ada_norm", "null", "a whole number"));
        }
        if self.caption_channels.is_none() {
            return Err(unsupported("caption_channels", "null", "the size of the text encoder's states"));
        }
        let shape = PatchShape {
            num_attention_heads: self.num_attention_heads,
            attention_head_dim: self.attention_head_dim,
            in_channels: self.in_channels,
            out_channels: self.out_channels(),
            num_layers: self.num_layers,
            patch_size: self.patch_size,
            sample_size: self.sample_size,
            hidden_multiple: if self.knows_the_size() { 12 } else { 4 },
        };
        // Before anything is made of these sizes.
        shape.check(PATH)?;
        check_dimensions(PATH, &[("caption_channels", self.caption_channels())])?;
        let size = self.hidden_size();
        if self.cross_attention_dim != Some(size) {
            let found = self.cross_attention_dim.map_or("null".to_owned(), |dim| dim.to_string());
            let right = format!("{size}, the size that captions are projected to");
            return Err(unsupported("cross_attention_dim", &found, &right));
        }
        if !(self.interpolation_scale() > 0.0 && self.interpolation_scale().is_finite()) {
            let found = self.interpolation_scale().to_string();
            return Err(unsupported("interpolation_scale", &found, "a positive number"));
        }
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

    /// Size of the text encoder's states.
    pub(super) fn caption_channels(&self) -> usize {
        self.caption_channels.unwrap_or(0)
    }

    /// What positions are divided by.
    pub(super) fn interpolation_scale(&self) -> f64 {
        self.interpolation_scale.unwrap_or((self.sample_size / POSITION_SAMPLE_SIZE).max(1) as f64)
    }

    /// The model is conditioned on the picture's size and aspect ratio.
    pub(super) fn knows_the_size(&self) -> bool {
        self.use_additional_conditions.unwrap_or(self.sample_size == SIZE_CONDITIONED_SAMPLE_SIZE)
    }
}

fn unsupported(key: &str, found: &str, right: &str) -> CheckpointError {
    component_config::unsupported(PATH, key, found, right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_configurations_are_read() {
        let alpha = r#"{"_class_name": "Transformer2DModel", "caption_channels": 4096, "cross_attention_dim": 1152,
            "norm_type": "ada_norm_single", "out_channels": 8, "sample_size": 128}"#;
        let alpha = TransformerConfig::from_json(alpha).unwrap();
        assert!(alpha.knows_the_size());
        assert_eq!((alpha.hidden_size(), alpha.out_channels(), alpha.interpolation_scale()), (1152, 8, 2.0));
        let sigma = r#"{"_class_name": "PixArtTransformer2DModel", "caption_channels": 4096, "sample_size": 128,
            "interpolation_scale": 2, "use_additional_conditions": false}"#;
        assert!(!TransformerConfig::from_json(sigma).unwrap().knows_the_size());
        let small = r#"{"caption_channels": 4096, "sample_size": 32}"#;
        let small = TransformerConfig::from_json(small).unwrap();
        assert_eq!((small.knows_the_size(), small.interpolation_scale()), (false, 1.0));
    }

    #[test]
    fn null_is_off_or_absent_as_in_diffusers() {
        let keys = r#"{"caption_channels": 16, "attention_bias": null, "norm_elementwise_affine": null,
            "out_channels": null, "interpolation_scale": null, "use_additional_conditions": null}"#;
        let config = TransformerConfig::from_json(keys).unwrap();
        assert_eq!((config.attention_bias, config.norm_elementwise_affine, config.out_channels()), (false, false, 4));
        assert_eq!((config.interpolation_scale(), config.knows_the_size()), (2.0, true));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (change, key) in [
            (r#""norm_type": "ada_norm_zero""#, "norm_type"),
            (r#""caption_channels": null"#, "caption_channels"),
            (r#""cross_attention_dim": 768"#, "cross_attention_dim"),
            (r#""activation_fn": "geglu""#, "activation_fn"),
            (r#""patch_size": 0"#, "patch_size"),
            (r#""num_attention_heads": 9223372036854775808"#, "num_attention_heads"),
            (r#""patch_size": null"#, "patch_size"),
            (r#""num_embeds_ada_norm": null"#, "num_embeds_ada_norm"),
            (r#""norm_eps": null"#, "norm_eps"),
            (r#""cross_attention_dim": null"#, "cross_attention_dim"),
            (r#""out_channels": 5"#, "out_channels"),
            (r#""interpolation_scale": -1"#, "interpolation_scale"),
        ] {
            let rest = if change.contains("caption_channels") { "" } else { r#", "caption_channels": 16"# };
            let message = TransformerConfig::from_json(&format!("{{{change}{rest}}}")).unwrap_err().to_string();
            assert!(message.contains(&format!("`{key}`")), "{message}");
        }
    }
}
