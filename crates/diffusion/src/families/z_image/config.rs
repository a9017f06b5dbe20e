//! `transformer/config.json` of a Z-Image model; absent keys take the defaults of diffusers' `ZImageTransformer2DModel`.
//!
//! Follows diffusers 0.42.1, `ZImageTransformer2DModel.__init__` (lines 357-483):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/transformers/transformer_z_image.py#L357>
//!
//! `n_kv_heads` is recorded there and has no effect. `siglip_feat_dim` is for pictures that are looked at, which no prompt is.

use afterimage_checkpoint::{CheckpointError, component_config};
use serde::Deserialize;

use crate::dimension::{MAX_DIMENSION, MAX_LATENT_CHANNELS, check_dimensions, check_positive, check_size};

/// The path inside a model folder.
pub(super) const PATH: &str = "transformer/config.json";
/// Side of a patch, and its frames; the pipeline leaves them at diffusers' defaults.
pub(super) const PATCH_SIZE: usize = 2;
const PATCH_FRAMES: usize = 1;
/// Coordinates of a token: place in the caption, row, column.
pub(super) const AXES: usize = 3;
/// Most places on an axis, and most angles of all of them: published models have 1536 and 24,576.
const MAX_PLACES: usize = 1 << 16;
const MAX_ANGLES: usize = 1 << 22;
/// Most values of a timestep that modulations are made from; fixed in diffusers.
const MAX_CONDITION_SIZE: usize = 256;

#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(super) struct TransformerConfig {
    all_patch_size: Vec<usize>,
    all_f_patch_size: Vec<usize>,
    /// Latent channels.
    pub(super) in_channels: usize,
    pub(super) dim: usize,
    pub(super) n_layers: usize,
    /// Blocks of the picture alone, and as many of the caption.
    pub(super) n_refiner_layers: usize,
    pub(super) n_heads: usize,
    #[serde(deserialize_with = "component_config::norm_epsilon")]
    pub(super) norm_eps: f64,
    /// Queries and keys are normalised, each head by itself.
    #[serde(deserialize_with = "component_config::truth")]
    pub(super) qk_norm: bool,
    /// Size of the text encoder's states.
    pub(super) cap_feat_dim: usize,
    pub(super) rope_theta: f64,
    /// What times from 0 to 1 are multiplied by.
    pub(super) t_scale: f64,
    /// Channels of a head that each axis turns.
    pub(super) axes_dims: [usize; AXES],
    /// Places on each axis.
    pub(super) axes_lens: [usize; AXES],
}

impl Default for TransformerConfig {
    fn default() -> Self {
        Self {
            all_patch_size: vec![PATCH_SIZE],
            all_f_patch_size: vec![PATCH_FRAMES],
            in_channels: 16,
            dim: 3840,
            n_layers: 30,
            n_refiner_layers: 2,
            n_heads: 30,
            norm_eps: 1e-5,
            qk_norm: true,
            cap_feat_dim: 2560,
            rope_theta: 256.0,
            t_scale: 1000.0,
            axes_dims: [32, 48, 48],
            axes_lens: [1024, 512, 512],
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
        let mut patches = self.all_patch_size.iter().zip(&self.all_f_patch_size);
        if !patches.any(|patch| patch == (&PATCH_SIZE, &PATCH_FRAMES)) {
            let found = format!("{:?} with {:?} frames", self.all_patch_size, self.all_f_patch_size);
            return Err(unsupported("all_patch_size", &found, "a list with 2 (of 1 frame)"));
        }
        let sizes = [
            ("dim", self.dim),
            ("n_layers", self.n_layers),
            ("n_heads", self.n_heads),
            ("cap_feat_dim", self.cap_feat_dim),
        ];
        check_dimensions(PATH, &sizes)?;
        check_size(PATH, "n_refiner_layers + 1", self.n_refiner_layers.saturating_add(1), MAX_DIMENSION)?;
        check_size(PATH, "in_channels", self.in_channels, MAX_LATENT_CHANNELS)?;
        self.axes_lens.iter().try_for_each(|places| check_size(PATH, "axes_lens", *places, MAX_PLACES))?;
        for (places, channels) in self.axes_lens.iter().zip(&self.axes_dims) {
            check_size(PATH, "axes_lens * axes_dims", places.saturating_mul(*channels), MAX_ANGLES)?;
        }
        let axes = &self.axes_dims;
        let sum = axes.iter().fold(0usize, |sum, axis| sum.saturating_add(*axis));
        if self.dim != sum.saturating_mul(self.n_heads) || axes.iter().any(|axis| !axis.is_multiple_of(2)) {
            let right = format!("even numbers that add up to dim / n_heads, {} / {}", self.dim, self.n_heads);
            return Err(unsupported("axes_dims", &format!("{axes:?}"), &right));
        }
        check_positive(PATH, &[("rope_theta", self.rope_theta), ("t_scale", self.t_scale)])
    }

    pub(super) fn head_size(&self) -> usize {
        self.dim / self.n_heads
    }

    /// Width of the feed-forward.
    pub(super) fn inner_size(&self) -> usize {
        (self.dim as f64 / 3.0 * 8.0) as usize
    }

    /// Values of a timestep that modulations are made from.
    pub(super) fn condition_size(&self) -> usize {
        self.dim.min(MAX_CONDITION_SIZE)
    }

    /// The name of the layers that belong to the patch size.
    pub(super) fn patch_name() -> String {
        format!("{PATCH_SIZE}-{PATCH_FRAMES}")
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
        let turbo = r#"{"_class_name": "ZImageTransformer2DModel", "_diffusers_version": "0.36.0.dev0",
            "all_f_patch_size": [1], "all_patch_size": [2], "axes_dims": [32, 48, 48], "axes_lens": [1536, 512, 512],
            "cap_feat_dim": 2560, "dim": 3840, "in_channels": 16, "n_heads": 30, "n_kv_heads": 30, "n_layers": 30,
            "n_refiner_layers": 2, "norm_eps": 1e-05, "qk_norm": true, "rope_theta": 256.0, "siglip_feat_dim": null,
            "t_scale": 1000.0}"#;
        let turbo = TransformerConfig::from_json(turbo).unwrap();
        assert_eq!((turbo.head_size(), turbo.inner_size(), turbo.condition_size()), (128, 10240, 256));
        assert_eq!((turbo.axes_lens, TransformerConfig::patch_name().as_str()), ([1536, 512, 512], "2-1"));
        assert_eq!(TransformerConfig::from_json("{}").unwrap().axes_lens, [1024, 512, 512]);
        let odd = r#"{"dim": 32, "n_heads": 2, "axes_dims": [8, 4, 4], "qk_norm": null}"#;
        let odd = TransformerConfig::from_json(odd).unwrap();
        assert_eq!((odd.inner_size(), odd.condition_size(), odd.qk_norm), (85, 32, false));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (change, key) in [
            (r#""all_patch_size": [4]"#, "all_patch_size"),
            (r#""all_f_patch_size": [2]"#, "all_patch_size"),
            (r#""axes_dims": [32, 48, 46]"#, "axes_dims"),
            (r#""axes_dims": [31, 49, 48]"#, "axes_dims"),
            (r#""n_heads": 0"#, "n_heads"),
            (r#""n_heads": 32"#, "axes_dims"),
            (r#""n_layers": null"#, "n_layers"),
            (r#""in_channels": 4096"#, "in_channels"),
            (r#""axes_lens": [1024, 512, 4294967296]"#, "axes_lens"),
            (r#""axes_lens": [65536, 512, 512], "axes_dims": [16384, 48, 48]"#, "axes_lens * axes_dims"),
            (r#""rope_theta": 0"#, "rope_theta"),
        ] {
            let message = TransformerConfig::from_json(&format!("{{{change}}}")).unwrap_err().to_string();
            assert!(message.contains(&format!("`{key}`")), "{message}");
        }
    }
}
