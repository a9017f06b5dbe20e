//! `transformer/config.json` of a Stable Diffusion 3 model. Absent keys take the defaults of diffusers'
//! `SD3Transformer2DModel`; the class itself is `model_index.json`'s.
//!
//! Follows diffusers 0.42.1, `SD3Transformer2DModel.__init__` (lines 119-172):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/transformers/transformer_sd3.py#L119>

use afterimage_checkpoint::{CheckpointError, component_config};
use serde::Deserialize;

use crate::dimension::check_dimensions;
use crate::families::PatchShape;
use crate::layers::HeadShape;

/// The path inside a model folder.
const PATH: &str = "transformer/config.json";

#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(super) struct TransformerConfig {
    /// Side of the square latents the model was made for.
    pub(super) sample_size: usize,
    pub(super) patch_size: usize,
    /// Latent channels.
    pub(super) in_channels: usize,
    out_channels: Option<usize>,
    pub(super) num_layers: usize,
    pub(super) attention_head_dim: usize,
    pub(super) num_attention_heads: usize,
    /// Size of the text encoders' states.
    pub(super) joint_attention_dim: usize,
    caption_projection_dim: usize,
    /// Size of the prompt's one vector.
    pub(super) pooled_projection_dim: usize,
    /// Side of the stored grid of positions.
    pub(super) pos_embed_max_size: usize,
    /// Blocks in which the picture also attends to itself alone.
    dual_attention_layers: Vec<usize>,
    qk_norm: Option<String>,
}

impl Default for TransformerConfig {
    fn default() -> Self {
        Self {
            sample_size: 128,
            patch_size: 2,
            in_channels: 16,
            out_channels: Some(16),
            num_layers: 18,
            attention_head_dim: 64,
            num_attention_heads: 18,
            joint_attention_dim: 4096,
            caption_projection_dim: 1152,
            pooled_projection_dim: 2048,
            pos_embed_max_size: 96,
            dual_attention_layers: Vec::new(),
            qk_norm: None,
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
        let unsupported =
            |key: &str, found: &str, right: &str| Err(component_config::unsupported(PATH, key, found, right));
        let shape = PatchShape {
            num_attention_heads: self.num_attention_heads,
            attention_head_dim: self.attention_head_dim,
            in_channels: self.in_channels,
            out_channels: self.out_channels(),
            num_layers: self.num_layers,
            patch_size: self.patch_size,
            sample_size: self.sample_size,
            hidden_multiple: 1,
        };
        shape.check(PATH)?;
        let sizes = [
            ("joint_attention_dim", self.joint_attention_dim),
            ("pooled_projection_dim", self.pooled_projection_dim),
            ("pos_embed_max_size", self.pos_embed_max_size),
        ];
        check_dimensions(PATH, &sizes)?;
        if self.caption_projection_dim != self.hidden_size() {
            let right = format!("{}, the size of the blocks' streams", self.hidden_size());
            return unsupported("caption_projection_dim", &self.caption_projection_dim.to_string(), &right);
        }
        if let Some(norm) = self.qk_norm.as_deref().filter(|norm| *norm != "rms_norm") {
            return unsupported("qk_norm", norm, "null or rms_norm");
        }
        if let Some(layer) = self.dual_attention_layers.iter().find(|layer| **layer >= self.num_layers) {
            let right = format!("layers below num_layers {}", self.num_layers);
            return unsupported("dual_attention_layers", &layer.to_string(), &right);
        }
        let grid = self.sample_size / self.patch_size;
        if self.pos_embed_max_size < grid {
            let right = format!("at least sample_size / patch_size, {grid}");
            return unsupported("pos_embed_max_size", &self.pos_embed_max_size.to_string(), &right);
        }
        Ok(())
    }

    pub(super) fn heads(&self) -> HeadShape {
        HeadShape {
            heads: self.num_attention_heads,
            head_size: self.attention_head_dim,
            is_normed: self.norms_queries(),
        }
    }

    pub(super) fn hidden_size(&self) -> usize {
        self.num_attention_heads * self.attention_head_dim
    }

    pub(super) fn out_channels(&self) -> usize {
        self.out_channels.unwrap_or(self.in_channels)
    }

    /// Queries and keys are normalised before attention.
    fn norms_queries(&self) -> bool {
        self.qk_norm.is_some()
    }

    /// The picture also attends to itself alone in this block.
    pub(super) fn is_dual(&self, layer: usize) -> bool {
        self.dual_attention_layers.contains(&layer)
    }

    /// The block that gives no text stream, because nothing reads it.
    pub(super) fn last_layer(&self) -> usize {
        self.num_layers - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_configurations_are_read() {
        let medium = r#"{"_class_name": "SD3Transformer2DModel", "attention_head_dim": 64, "caption_projection_dim": 1536,
            "num_attention_heads": 24, "num_layers": 24, "pos_embed_max_size": 192}"#;
        let medium = TransformerConfig::from_json(medium).unwrap();
        assert_eq!((medium.hidden_size(), medium.out_channels(), medium.last_layer()), (1536, 16, 23));
        assert!(!medium.norms_queries() && !medium.is_dual(0));
        let medium = r#"{"caption_projection_dim": 1536, "num_attention_heads": 24, "num_layers": 24,
            "pos_embed_max_size": 384, "qk_norm": "rms_norm", "dual_attention_layers": [0, 1, 2]}"#;
        let medium = TransformerConfig::from_json(medium).unwrap();
        assert!(medium.norms_queries() && medium.is_dual(2) && !medium.is_dual(3));
    }

    #[test]
    fn null_is_absent_where_diffusers_asks_for_none() {
        let config = TransformerConfig::from_json(r#"{"out_channels": null, "qk_norm": null}"#).unwrap();
        assert_eq!((config.out_channels(), config.norms_queries()), (16, false));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (change, key) in [
            (r#""caption_projection_dim": 768"#, "caption_projection_dim"),
            (r#""qk_norm": "layer_norm""#, "qk_norm"),
            (r#""dual_attention_layers": [18]"#, "dual_attention_layers"),
            (r#""pos_embed_max_size": 32"#, "pos_embed_max_size"),
            (r#""num_layers": 0"#, "num_layers"),
            (r#""pos_embed_max_size": 4294967296"#, "pos_embed_max_size"),
            (r#""dual_attention_layers": null"#, "dual_attention_layers"),
            (r#""pos_embed_max_size": null"#, "pos_embed_max_size"),
            (r#""joint_attention_dim": null"#, "joint_attention_dim"),
        ] {
            let message = TransformerConfig::from_json(&format!("{{{change}}}")).unwrap_err().to_string();
            assert!(message.contains(&format!("`{key}`")), "{message}");
        }
    }
}
