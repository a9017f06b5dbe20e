//! `transformer/config.json` of a FLUX.2 model; absent keys take the defaults of diffusers'
//! `Flux2Transformer2DModel`; the class itself is `model_index.json`'s.
//!
//! Follows diffusers 0.42.1, `Flux2Transformer2DModel.__init__` (lines 1142-1224):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/transformers/transformer_flux2.py#L1142>

use afterimage_checkpoint::{CheckpointError, component_config};
use serde::Deserialize;

use crate::dimension::{MAX_DIMENSION, MAX_LATENT_CHANNELS, check_axes, check_dimensions, check_positive, check_size};
use crate::layers::HeadShape;

/// The path inside a model folder.
const PATH: &str = "transformer/config.json";
/// Coordinates of a token: picture, row, column and place in the text.
pub(super) const AXES: usize = 4;
/// Latents in a token, fixed in diffusers' pipeline: the VAE hands them out in squares.
const LATENTS_OF_A_TOKEN: usize = 4;

#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(super) struct TransformerConfig {
    patch_size: usize,
    /// Values of a token.
    pub(super) in_channels: usize,
    out_channels: Option<usize>,
    /// Blocks with weights for image and text each.
    pub(super) num_layers: usize,
    /// Blocks with weights for both together.
    pub(super) num_single_layers: usize,
    attention_head_dim: usize,
    num_attention_heads: usize,
    /// Size of the text encoder's states, those of all layers that are read side by side.
    pub(super) joint_attention_dim: usize,
    /// Channels of the sinusoids of timesteps.
    pub(super) timestep_guidance_channels: usize,
    /// Width of feed-forwards relative to the hidden size.
    mlp_ratio: f64,
    /// Channels of a head that each axis turns.
    pub(super) axes_dims_rope: [usize; AXES],
    /// The model may be conditioned on the guidance scale, of which klein's pipeline tells it none.
    #[serde(deserialize_with = "component_config::truth")]
    pub(super) guidance_embeds: bool,
    /// Longest period of the angles.
    pub(super) rope_theta: f64,
    /// Of all norms.
    #[serde(deserialize_with = "component_config::norm_epsilon")]
    pub(super) eps: f64,
}

impl Default for TransformerConfig {
    fn default() -> Self {
        Self {
            patch_size: 1,
            in_channels: 128,
            out_channels: None,
            num_layers: 8,
            num_single_layers: 48,
            attention_head_dim: 128,
            num_attention_heads: 48,
            joint_attention_dim: 15360,
            timestep_guidance_channels: 256,
            mlp_ratio: 3.0,
            axes_dims_rope: [32; AXES],
            guidance_embeds: true,
            rope_theta: 2000.0,
            eps: 1e-6,
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
        if self.patch_size != 1 {
            return Err(unsupported("patch_size", &self.patch_size.to_string(), "1"));
        }
        let sizes = [
            ("num_layers", self.num_layers),
            ("num_single_layers", self.num_single_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("attention_head_dim", self.attention_head_dim),
            ("joint_attention_dim", self.joint_attention_dim),
            ("timestep_guidance_channels", self.timestep_guidance_channels),
        ];
        check_dimensions(PATH, &sizes)?;
        check_dimensions(PATH, &[("num_attention_heads * attention_head_dim", self.hidden_size())])?;
        self.check_channels()?;
        if !self.timestep_guidance_channels.is_multiple_of(2) {
            let found = self.timestep_guidance_channels.to_string();
            return Err(unsupported("timestep_guidance_channels", &found, "an even number"));
        }
        check_axes(PATH, &self.axes_dims_rope, self.attention_head_dim)?;
        check_positive(PATH, &[("mlp_ratio", self.mlp_ratio), ("rope_theta", self.rope_theta)])?;
        check_size(PATH, "mlp_ratio * hidden size", self.inner_size(), MAX_DIMENSION)
    }

    /// As many values of a token come out as go in.
    fn check_channels(&self) -> Result<(), CheckpointError> {
        check_size(PATH, "in_channels", self.in_channels, MAX_LATENT_CHANNELS)?;
        if !self.in_channels.is_multiple_of(LATENTS_OF_A_TOKEN) {
            let right = format!("a multiple of {LATENTS_OF_A_TOKEN}");
            return Err(unsupported("in_channels", &self.in_channels.to_string(), &right));
        }
        match self.out_channels.filter(|channels| *channels != 0 && *channels != self.in_channels) {
            Some(channels) => {
                let right = format!("in_channels {}", self.in_channels);
                Err(unsupported("out_channels", &channels.to_string(), &right))
            }
            None => Ok(()),
        }
    }

    pub(super) fn hidden_size(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    /// Width of feed-forwards.
    pub(super) fn inner_size(&self) -> usize {
        (self.hidden_size() as f64 * self.mlp_ratio) as usize
    }

    pub(super) fn heads(&self) -> HeadShape {
        HeadShape { heads: self.num_attention_heads, head_size: self.attention_head_dim, is_normed: true }
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
        let klein = r#"{"_class_name": "Flux2Transformer2DModel", "attention_head_dim": 128,
            "axes_dims_rope": [32, 32, 32, 32], "eps": 1e-06, "guidance_embeds": false, "in_channels": 128,
            "joint_attention_dim": 7680, "mlp_ratio": 3.0, "num_attention_heads": 24, "num_layers": 5,
            "num_single_layers": 20, "out_channels": null, "patch_size": 1, "rope_theta": 2000,
            "timestep_guidance_channels": 256}"#;
        let klein = TransformerConfig::from_json(klein).unwrap();
        assert!(!klein.guidance_embeds && TransformerConfig::from_json("{}").unwrap().guidance_embeds);
        assert_eq!((klein.hidden_size(), klein.inner_size(), klein.num_single_layers), (3072, 9216, 20));
        let default = TransformerConfig::from_json("{}").unwrap();
        assert_eq!((default.hidden_size(), default.joint_attention_dim, default.num_layers), (6144, 15360, 8));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (change, key) in [
            (r#""patch_size": 2"#, "patch_size"),
            (r#""in_channels": 6"#, "in_channels"),
            (r#""in_channels": 4096"#, "in_channels"),
            (r#""out_channels": 64"#, "out_channels"),
            (r#""num_attention_heads": 65536"#, "num_attention_heads * attention_head_dim"),
            (r#""num_single_layers": 0"#, "num_single_layers"),
            (r#""timestep_guidance_channels": 255"#, "timestep_guidance_channels"),
            (r#""axes_dims_rope": [32, 32, 64]"#, "axes_dims_rope"),
            (r#""axes_dims_rope": [32, 32, 32, 30]"#, "axes_dims_rope"),
            (r#""axes_dims_rope": [31, 33, 32, 32]"#, "axes_dims_rope"),
            (r#""mlp_ratio": 1000"#, "mlp_ratio"),
            (r#""rope_theta": 0"#, "rope_theta"),
            (r#""eps": null"#, "eps"),
        ] {
            let message = TransformerConfig::from_json(&format!("{{{change}}}")).unwrap_err().to_string();
            assert!(message.contains(&format!("`{key}")), "{message}");
        }
    }
}
