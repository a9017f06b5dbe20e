//! `transformer/config.json` of a Qwen-Image model; absent keys take the defaults of diffusers'
//! `QwenImageTransformer2DModel`; the class itself is `model_index.json`'s.
//!
//! Follows diffusers 0.42.1, `QwenImageTransformer2DModel.__init__` (lines 813-864):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/transformers/transformer_qwenimage.py#L813>

use afterimage_checkpoint::{CheckpointError, component_config};
use serde::Deserialize;

use crate::dimension::{MAX_LATENT_CHANNELS, check_axes, check_dimensions, check_size};
use crate::layers::HeadShape;

/// The path inside a model folder.
const PATH: &str = "transformer/config.json";
/// Side of the square of latents that makes a token; fixed in diffusers' pipeline.
pub(super) const PACK_SIDE: usize = 2;
/// Coordinates of a token: frame, row and column.
pub(super) const AXES: usize = 3;

/// `zero_cond_t` is about pictures that a prompt comes with: without them it changes nothing.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(super) struct TransformerConfig {
    patch_size: usize,
    /// Values of a token.
    pub(super) in_channels: usize,
    out_channels: Option<usize>,
    pub(super) num_layers: usize,
    attention_head_dim: usize,
    num_attention_heads: usize,
    /// Size of the text encoder's states.
    pub(super) joint_attention_dim: usize,
    #[serde(deserialize_with = "component_config::truth")]
    guidance_embeds: bool,
    /// Channels of a head that each axis turns.
    pub(super) axes_dims_rope: [usize; AXES],
    #[serde(deserialize_with = "component_config::truth")]
    use_additional_t_cond: bool,
    /// A picture is the frame before the first.
    #[serde(deserialize_with = "component_config::truth")]
    pub(super) use_layer3d_rope: bool,
}

impl Default for TransformerConfig {
    fn default() -> Self {
        Self {
            patch_size: 2,
            in_channels: 64,
            out_channels: Some(16),
            num_layers: 60,
            attention_head_dim: 128,
            num_attention_heads: 24,
            joint_attention_dim: 3584,
            guidance_embeds: false,
            axes_dims_rope: [16, 56, 56],
            use_additional_t_cond: false,
            use_layer3d_rope: false,
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
        // Of both the pipeline gives the transformer nothing, or something that its code does not take.
        for (key, is_on) in
            [("guidance_embeds", self.guidance_embeds), ("use_additional_t_cond", self.use_additional_t_cond)]
        {
            if is_on {
                return Err(unsupported(key, "true", "false"));
            }
        }
        let sizes = [
            ("patch_size", self.patch_size),
            ("num_layers", self.num_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("attention_head_dim", self.attention_head_dim),
            ("joint_attention_dim", self.joint_attention_dim),
        ];
        check_dimensions(PATH, &sizes)?;
        check_dimensions(PATH, &[("num_attention_heads * attention_head_dim", self.hidden_size())])?;
        self.check_channels()?;
        check_axes(PATH, &self.axes_dims_rope, self.attention_head_dim)
    }

    /// As many values of a token come out as go in: `patch_size` and `out_channels` say nothing else.
    fn check_channels(&self) -> Result<(), CheckpointError> {
        let packed = PACK_SIDE * PACK_SIDE;
        check_size(PATH, "in_channels", self.in_channels, packed * MAX_LATENT_CHANNELS)?;
        if !self.in_channels.is_multiple_of(packed) {
            return Err(unsupported("in_channels", &self.in_channels.to_string(), &format!("a multiple of {packed}")));
        }
        let channels = self.out_channels.filter(|channels| *channels != 0).unwrap_or(self.in_channels);
        if self.patch_size.saturating_mul(self.patch_size).saturating_mul(channels) != self.in_channels {
            let right = format!("in_channels {} / (patch_size {} * patch_size)", self.in_channels, self.patch_size);
            return Err(unsupported("out_channels", &channels.to_string(), &right));
        }
        Ok(())
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
    fn the_published_configuration_is_read() {
        let published = r#"{"_class_name": "QwenImageTransformer2DModel", "attention_head_dim": 128,
            "axes_dims_rope": [16, 56, 56], "guidance_embeds": false, "in_channels": 64, "joint_attention_dim": 3584,
            "num_attention_heads": 24, "num_layers": 60, "out_channels": 16, "patch_size": 2,
            "pooled_projection_dim": 768, "zero_cond_t": true}"#;
        let config = TransformerConfig::from_json(published).unwrap();
        assert_eq!((config.hidden_size(), config.latent_channels(), config.num_layers), (3072, 16, 60));
        assert!(!TransformerConfig::from_json("{}").unwrap().use_layer3d_rope);
    }

    #[test]
    fn out_channels_may_be_absent_where_patches_are_single_tokens() {
        for keys in [
            r#"{"patch_size": 1, "out_channels": null, "guidance_embeds": null}"#,
            r#"{"patch_size": 1, "out_channels": 64}"#,
            r#"{"patch_size": 1, "out_channels": 0}"#,
        ] {
            TransformerConfig::from_json(keys).unwrap();
        }
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (change, key) in [
            (r#""guidance_embeds": true"#, "guidance_embeds"),
            (r#""use_additional_t_cond": true"#, "use_additional_t_cond"),
            (r#""patch_size": 1"#, "out_channels"),
            (r#""patch_size": 0"#, "patch_size"),
            (r#""out_channels": 32"#, "out_channels"),
            (r#""out_channels": null"#, "out_channels"),
            (r#""in_channels": 6"#, "in_channels"),
            (r#""num_attention_heads": 65536"#, "num_attention_heads * attention_head_dim"),
            (r#""num_layers": 0"#, "num_layers"),
            (r#""axes_dims_rope": [16, 112]"#, "axes_dims_rope"),
            (r#""axes_dims_rope": [16, 56, 55]"#, "axes_dims_rope"),
            (r#""axes_dims_rope": [15, 57, 56]"#, "axes_dims_rope"),
            (r#""use_layer3d_rope": "no""#, "use_layer3d_rope"),
        ] {
            let message = TransformerConfig::from_json(&format!("{{{change}}}")).unwrap_err().to_string();
            assert!(message.contains(&format!("`{key}`")), "{message}");
        }
    }
}
