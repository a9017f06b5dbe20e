//! `transformer/config.json` of a Sana. Absent keys take the defaults of diffusers' `SanaTransformer2DModel`; the class
//! itself is `model_index.json`'s.
//!
//! Follows diffusers 0.42.1, sana_transformer.py: `SanaTransformer2DModel.__init__` (lines 345-440):
//! <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/models/transformers>

use afterimage_checkpoint::{CheckpointError, component_config};
use serde::Deserialize;

use crate::dimension::{MAX_DIMENSION, check_dimensions, check_positive, check_size};
use crate::families::PatchShape;

/// The path inside a model folder.
const PATH: &str = "transformer/config.json";
/// The one kind of norm of queries and keys that models have.
const QK_NORM: &str = "rms_norm_across_heads";

/// The published kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    /// 1.0 and 1.5, guided away from a negative prompt.
    Guided,
    /// Distilled: told the guidance scale, sampled as a consistency model.
    Sprint,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(super) struct TransformerConfig {
    /// Latent channels.
    pub(super) in_channels: usize,
    out_channels: Option<usize>,
    pub(super) num_attention_heads: usize,
    pub(super) attention_head_dim: usize,
    pub(super) num_layers: usize,
    pub(super) num_cross_attention_heads: usize,
    pub(super) cross_attention_head_dim: usize,
    /// Size of the captions that blocks attend to.
    cross_attention_dim: Option<usize>,
    /// Size of the text encoder's states.
    pub(super) caption_channels: usize,
    mlp_ratio: f64,
    /// Bias of the query, key and value projections of attention to the picture.
    #[serde(deserialize_with = "component_config::truth")]
    pub(super) attention_bias: bool,
    /// Side of the square latents the model was made for.
    pub(super) sample_size: usize,
    pub(super) patch_size: usize,
    /// The norm before the feed-forward has weight and bias.
    #[serde(deserialize_with = "component_config::truth")]
    pub(super) norm_elementwise_affine: bool,
    #[serde(deserialize_with = "component_config::norm_epsilon")]
    pub(super) norm_eps: f64,
    /// What positions are divided by; without it there are none.
    pub(super) interpolation_scale: Option<f64>,
    #[serde(deserialize_with = "component_config::truth")]
    guidance_embeds: bool,
    /// What the guidance scale is multiplied by.
    pub(super) guidance_embeds_scale: f64,
    qk_norm: Option<String>,
    /// What timesteps are multiplied by.
    pub(super) timestep_scale: f64,
}

impl Default for TransformerConfig {
    fn default() -> Self {
        Self {
            in_channels: 32,
            out_channels: Some(32),
            num_attention_heads: 70,
            attention_head_dim: 32,
            num_layers: 20,
            num_cross_attention_heads: 20,
            cross_attention_head_dim: 112,
            cross_attention_dim: Some(2240),
            caption_channels: 2304,
            mlp_ratio: 2.5,
            attention_bias: false,
            sample_size: 32,
            patch_size: 1,
            norm_elementwise_affine: false,
            norm_eps: 1e-6,
            interpolation_scale: None,
            guidance_embeds: false,
            guidance_embeds_scale: 0.1,
            qk_norm: None,
            timestep_scale: 1.0,
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
        let shape = PatchShape {
            num_attention_heads: self.num_attention_heads,
            attention_head_dim: self.attention_head_dim,
            in_channels: self.in_channels,
            out_channels: self.out_channels(),
            num_layers: self.num_layers,
            patch_size: self.patch_size,
            sample_size: self.sample_size,
            hidden_multiple: if self.interpolation_scale.is_some() { 4 } else { 1 },
        };
        // Before anything is made of these sizes.
        shape.check(PATH)?;
        check_dimensions(
            PATH,
            &[
                ("num_cross_attention_heads", self.num_cross_attention_heads),
                ("cross_attention_head_dim", self.cross_attention_head_dim),
                ("caption_channels", self.caption_channels),
            ],
        )?;
        let inner = "num_cross_attention_heads * cross_attention_head_dim";
        check_size(PATH, inner, self.cross_attention_size(), MAX_DIMENSION)?;
        let size = self.hidden_size();
        if self.cross_attention_dim != Some(size) {
            let found = self.cross_attention_dim.map_or("null".to_owned(), |dim| dim.to_string());
            let right = format!("{size}, the size that captions are projected to");
            return Err(unsupported("cross_attention_dim", &found, &right));
        }
        check_positive(PATH, &[("mlp_ratio", self.mlp_ratio), ("timestep_scale", self.timestep_scale)])?;
        check_size(
            PATH,
            "mlp_ratio * num_attention_heads * attention_head_dim",
            self.feed_forward_width(),
            MAX_DIMENSION,
        )?;
        if let Some(scale) = self.interpolation_scale {
            check_positive(PATH, &[("interpolation_scale", scale)])?;
        }
        match self.qk_norm.as_deref() {
            None | Some(QK_NORM) => Ok(()),
            Some(other) => Err(unsupported("qk_norm", other, &format!("null or {QK_NORM}"))),
        }
    }

    /// Refuses a transformer of the other pipeline.
    pub(super) fn check_variant(&self, variant: Variant) -> Result<(), CheckpointError> {
        let is_sprint = variant == Variant::Sprint;
        if self.guidance_embeds != is_sprint {
            let right = format!("{is_sprint} in this pipeline");
            return Err(unsupported("guidance_embeds", &self.guidance_embeds.to_string(), &right));
        }
        if is_sprint && self.out_channels() != self.in_channels {
            let right = format!("in_channels {}", self.in_channels);
            return Err(unsupported("out_channels", &self.out_channels().to_string(), &right));
        }
        Ok(())
    }

    /// Whether it is told the guidance scale, which only that kind is.
    pub(super) fn variant(&self) -> Variant {
        if self.guidance_embeds { Variant::Sprint } else { Variant::Guided }
    }

    pub(super) fn hidden_size(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    /// Channels of all heads that attend to captions.
    pub(super) fn cross_attention_size(&self) -> usize {
        self.num_cross_attention_heads.saturating_mul(self.cross_attention_head_dim)
    }

    pub(super) fn feed_forward_width(&self) -> usize {
        (self.mlp_ratio * self.hidden_size() as f64) as usize
    }

    pub(super) fn out_channels(&self) -> usize {
        // 0 is as good as absent to Python.
        self.out_channels.filter(|channels| *channels > 0).unwrap_or(self.in_channels)
    }

    /// Queries and keys are normed.
    pub(super) fn norms_queries(&self) -> bool {
        self.qk_norm.is_some()
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
        let first = TransformerConfig::from_json(r#"{"_class_name": "SanaTransformer2DModel"}"#).unwrap();
        assert_eq!((first.hidden_size(), first.feed_forward_width(), first.norms_queries()), (2240, 5600, false));
        let small = r#"{"num_attention_heads": 36, "num_cross_attention_heads": 16, "cross_attention_head_dim": 72,
            "cross_attention_dim": 1152, "num_layers": 28, "qk_norm": "rms_norm_across_heads", "guidance_embeds": true,
            "out_channels": null, "attention_bias": null}"#;
        let small = TransformerConfig::from_json(small).unwrap();
        assert_eq!((small.hidden_size(), small.out_channels(), small.norms_queries()), (1152, 32, true));
        assert_eq!((small.variant(), small.attention_bias), (Variant::Sprint, false));
        assert!(small.check_variant(Variant::Guided).unwrap_err().to_string().contains("`guidance_embeds`"));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (change, key) in [
            (r#""cross_attention_dim": 768"#, "cross_attention_dim"),
            (r#""cross_attention_dim": null"#, "cross_attention_dim"),
            (r#""num_cross_attention_heads": null"#, "num_cross_attention_heads"),
            (r#""cross_attention_head_dim": 0"#, "cross_attention_head_dim"),
            (r#""caption_channels": 0"#, "caption_channels"),
            (r#""patch_size": 0"#, "patch_size"),
            (r#""num_attention_heads": 9223372036854775808"#, "num_attention_heads"),
            (r#""norm_eps": null"#, "norm_eps"),
            (r#""out_channels": 5"#, "out_channels"),
            (r#""mlp_ratio": -1"#, "mlp_ratio"),
            (r#""timestep_scale": 0"#, "timestep_scale"),
            (r#""interpolation_scale": 0"#, "interpolation_scale"),
            (r#""qk_norm": "layer_norm""#, "qk_norm"),
        ] {
            let message = TransformerConfig::from_json(&format!("{{{change}}}")).unwrap_err().to_string();
            assert!(message.contains(&format!("`{key}`")), "{message}");
        }
    }
}
