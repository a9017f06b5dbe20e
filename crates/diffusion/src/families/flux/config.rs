//! `transformer/config.json` of a FLUX model; absent keys take the defaults of diffusers'
//! `FluxTransformer2DModel`; the class itself is `model_index.json`'s.
//!
//! Follows diffusers 0.42.1, `FluxTransformer2DModel.__init__` (lines 612-668):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/transformers/transformer_flux.py#L612>

use afterimage_checkpoint::{CheckpointError, component_config};
use serde::Deserialize;

use crate::dimension::{MAX_LATENT_CHANNELS, check_axes, check_dimensions, check_size};
use crate::layers::HeadShape;

/// The path inside a model folder.
const PATH: &str = "transformer/config.json";
/// Side of the square of latents that makes a token; fixed in diffusers' pipeline.
pub(super) const PACK_SIDE: usize = 2;
/// Coordinates of a token: one that is always 0, row and column. FLUX.1 Kontext marks its reference picture
/// with the first.
pub(super) const AXES: usize = 3;

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
    pub(super) attention_head_dim: usize,
    pub(super) num_attention_heads: usize,
    /// Size of the T5 encoder's states.
    pub(super) joint_attention_dim: usize,
    /// Size of CLIP's pooled output.
    pub(super) pooled_projection_dim: usize,
    /// The model is conditioned on the guidance scale.
    #[serde(deserialize_with = "component_config::truth")]
    pub(super) guidance_embeds: bool,
    /// Channels of a head that each axis turns.
    pub(super) axes_dims_rope: [usize; AXES],
}

impl Default for TransformerConfig {
    fn default() -> Self {
        Self {
            patch_size: 1,
            in_channels: 64,
            out_channels: None,
            num_layers: 19,
            num_single_layers: 38,
            attention_head_dim: 128,
            num_attention_heads: 24,
            joint_attention_dim: 4096,
            pooled_projection_dim: 768,
            guidance_embeds: false,
            axes_dims_rope: [16, 56, 56],
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
            ("pooled_projection_dim", self.pooled_projection_dim),
        ];
        check_dimensions(PATH, &sizes)?;
        check_dimensions(PATH, &[("num_attention_heads * attention_head_dim", self.hidden_size())])?;
        let packed = PACK_SIDE * PACK_SIDE;
        check_size(PATH, "in_channels", self.in_channels, packed * MAX_LATENT_CHANNELS)?;
        if self.in_channels == 0 || !self.in_channels.is_multiple_of(packed) {
            return Err(unsupported("in_channels", &self.in_channels.to_string(), &format!("a multiple of {packed}")));
        }
        // Models that are conditioned on a picture (Fill, Canny, Depth) take more channels than they predict.
        if self.out_channels.is_some_and(|channels| channels != 0 && channels != self.in_channels) {
            let found = self.out_channels.unwrap_or_default().to_string();
            return Err(unsupported("out_channels", &found, &format!("in_channels {}", self.in_channels)));
        }
        check_axes(PATH, &self.axes_dims_rope, self.attention_head_dim)
    }

    pub(super) fn hidden_size(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    pub(super) fn heads(&self) -> HeadShape {
        HeadShape { heads: self.num_attention_heads, head_size: self.attention_head_dim, is_normed: true }
    }

    pub(super) fn latent_channels(&self) -> usize {
        self.in_channels / (PACK_SIDE * PACK_SIDE)
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
        let dev = r#"{"_class_name": "FluxTransformer2DModel", "attention_head_dim": 128, "guidance_embeds": true,
            "in_channels": 64, "joint_attention_dim": 4096, "num_attention_heads": 24, "num_layers": 19,
            "num_single_layers": 38, "patch_size": 1, "pooled_projection_dim": 768}"#;
        let dev = TransformerConfig::from_json(dev).unwrap();
        assert!(dev.guidance_embeds);
        assert_eq!((dev.hidden_size(), dev.latent_channels(), dev.axes_dims_rope), (3072, 16, [16, 56, 56]));
        assert!(!TransformerConfig::from_json("{}").unwrap().guidance_embeds);
    }

    #[test]
    fn null_is_off_or_absent_as_in_diffusers() {
        for keys in [r#"{"guidance_embeds": null, "out_channels": null}"#, r#"{"out_channels": 0}"#] {
            assert!(!TransformerConfig::from_json(keys).unwrap().guidance_embeds);
        }
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (change, key) in [
            (r#""patch_size": 2"#, "patch_size"),
            (r#""in_channels": 6"#, "in_channels"),
            (r#""in_channels": 18446744073709551612"#, "in_channels"),
            (r#""axes_dims_rope": [9223372036854775808, 9223372036854775808, 128]"#, "axes_dims_rope"),
            (r#""num_attention_heads": 65536"#, "num_attention_heads * attention_head_dim"),
            (r#""in_channels": 384, "out_channels": 64"#, "out_channels"),
            (r#""num_single_layers": 0"#, "num_single_layers"),
            (r#""num_single_layers": null"#, "num_single_layers"),
            (r#""axes_dims_rope": null"#, "axes_dims_rope"),
            (r#""axes_dims_rope": [16, 112]"#, "axes_dims_rope"),
            (r#""guidance_embeds": "no""#, "guidance_embeds"),
            (r#""axes_dims_rope": [16, 56, 55]"#, "axes_dims_rope"),
            (r#""axes_dims_rope": [15, 57, 56]"#, "axes_dims_rope"),
        ] {
            let message = TransformerConfig::from_json(&format!("{{{change}}}")).unwrap_err().to_string();
            assert!(message.contains(&format!("`{key}`")), "{message}");
        }
    }
}
