//! `vae/config.json` of an `AutoencoderKLQwenImage`.
//!
//! Follows diffusers 0.42.1, `AutoencoderKLQwenImage.__init__` (lines 679-750):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/autoencoders/autoencoder_kl_qwenimage.py#L679>

use afterimage_checkpoint::{CheckpointError, component_config};
use serde::Deserialize;

use crate::dimension::{MAX_LATENT_CHANNELS, check_dimensions, check_size};
use crate::vae::config::{MAX_STAGES, PATH};

/// The latents' statistics in the class's defaults, which are those of Wan 2.1.
const LATENTS_MEAN: [f64; 16] = [
    -0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715, 0.5517, -0.3632, -0.1922,
    -0.9497, 0.2503, -0.2921,
];
const LATENTS_STD: [f64; 16] = [
    2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253,
    2.8251, 1.9160,
];

/// The keys the decoder depends on; absent ones take diffusers' defaults. `attn_scales` is about the encoder alone.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(in crate::vae) struct CausalVaeConfig {
    base_dim: usize,
    pub(super) z_dim: usize,
    /// Channels per stage relative to `base_dim`, from full resolution down.
    dim_mult: Vec<usize>,
    pub(super) num_res_blocks: usize,
    /// Which stages halve the number of frames, from full resolution down.
    temperal_downsample: Vec<bool>,
    /// Of pictures, out as well as in.
    pub(super) input_channels: usize,
    /// Of latents, by channel: what a transformer makes is multiplied by `latents_std`, and `latents_mean` is added.
    pub(super) latents_mean: Vec<f64>,
    pub(super) latents_std: Vec<f64>,
}

/// A stage of the decoder: residual blocks, then a doubling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stage {
    pub(super) input: usize,
    pub(super) output: usize,
    /// Doubles width and height, and halves the channels.
    pub(super) doubles: bool,
    /// Doubles the frames behind the first as well.
    pub(super) doubles_frames: bool,
}

impl Default for CausalVaeConfig {
    fn default() -> Self {
        Self {
            base_dim: 96,
            z_dim: 16,
            dim_mult: vec![1, 2, 4, 4],
            num_res_blocks: 2,
            temperal_downsample: vec![false, true, true],
            input_channels: 3,
            latents_mean: LATENTS_MEAN.to_vec(),
            latents_std: LATENTS_STD.to_vec(),
        }
    }
}

impl CausalVaeConfig {
    pub(super) fn from_json(text: &str) -> Result<Self, CheckpointError> {
        let config: Self = component_config::parse(PATH, text)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), CheckpointError> {
        if self.input_channels != 3 {
            return Err(unsupported("input_channels", &self.input_channels.to_string(), "3 (RGB)"));
        }
        check_size(PATH, "z_dim", self.z_dim, MAX_LATENT_CHANNELS)?;
        check_dimensions(PATH, &[("base_dim", self.base_dim), ("num_res_blocks", self.num_res_blocks)])?;
        let stages = self.dim_mult.len();
        if !(1..=MAX_STAGES).contains(&stages) {
            let right = format!("1 to {MAX_STAGES} numbers");
            return Err(unsupported("dim_mult", &format!("a list of {stages}"), &right));
        }
        for factor in &self.dim_mult {
            check_dimensions(
                PATH,
                &[("dim_mult", *factor), ("dim_mult * base_dim", factor.saturating_mul(self.base_dim))],
            )?;
        }
        if self.temperal_downsample.len() + 1 != stages {
            let found = format!("a list of {}", self.temperal_downsample.len());
            return Err(unsupported("temperal_downsample", &found, "one entry less than dim_mult"));
        }
        for (key, statistics) in [("latents_mean", &self.latents_mean), ("latents_std", &self.latents_std)] {
            if statistics.len() != self.z_dim || !statistics.iter().all(|value| value.is_finite()) {
                let right = format!("a number for each of z_dim {} channels", self.z_dim);
                return Err(unsupported(key, &format!("a list of {}", statistics.len()), &right));
            }
        }
        Ok(())
    }

    /// Channels at the latents' resolution.
    pub(super) fn coarsest(&self) -> usize {
        self.dim_mult[self.dim_mult.len() - 1] * self.base_dim
    }

    /// Channels before the last convolution.
    pub(super) fn finest(&self) -> usize {
        self.dim_mult[0] * self.base_dim
    }

    /// Channels of the last two stages, the finest first.
    pub(super) fn finest_two(&self) -> (usize, usize) {
        let channels = |level: usize| self.dim_mult.get(level).map(|factor| factor * self.base_dim);
        (self.finest(), channels(1).unwrap_or(self.finest()))
    }

    /// From the coarsest on.
    pub(super) fn stages(&self) -> Vec<Stage> {
        let mut input = self.coarsest();
        let stage = |level: usize| {
            let output = self.dim_mult[level] * self.base_dim;
            let doubles = level > 0;
            let stage =
                Stage { input, output, doubles, doubles_frames: doubles && self.temperal_downsample[level - 1] };
            input = output / 2;
            stage
        };
        (0..self.dim_mult.len()).rev().map(stage).collect()
    }

    /// Pixels per latent in each direction.
    pub(super) fn scale(&self) -> usize {
        1 << (self.dim_mult.len() - 1)
    }
}

fn unsupported(key: &str, found: &str, right: &str) -> CheckpointError {
    component_config::unsupported(PATH, key, found, right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_configuration_is_the_default() {
        let published = r#"{"_class_name": "AutoencoderKLQwenImage", "attn_scales": [], "base_dim": 96, "clip_output": false,
            "dim_mult": [1, 2, 4, 4], "dropout": 0.0, "num_res_blocks": 2, "temperal_downsample": [false, true, true],
            "z_dim": 16}"#;
        let config = CausalVaeConfig::from_json(published).unwrap();
        assert_eq!((config.scale(), config.coarsest(), config.finest()), (8, 384, 96));
        let stage = |input, output, doubles, doubles_frames| Stage { input, output, doubles, doubles_frames };
        let stages = [
            stage(384, 384, true, true),
            stage(192, 384, true, true),
            stage(192, 192, true, false),
            stage(96, 96, false, false),
        ];
        assert_eq!(config.stages(), stages);
        assert_eq!((config.latents_mean[15], config.latents_std[0]), (-0.2921, 2.8184));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (json, key) in [
            (r#"{"input_channels": 4}"#, "input_channels"),
            (r#"{"z_dim": 1099511627776}"#, "z_dim"),
            (r#"{"z_dim": 4}"#, "latents_mean"),
            (r#"{"latents_std": [1.0]}"#, "latents_std"),
            (r#"{"latents_std": null}"#, "latents_std"),
            (r#"{"dim_mult": []}"#, "dim_mult"),
            (r#"{"dim_mult": [1, 0, 4, 4]}"#, "dim_mult"),
            (r#"{"dim_mult": [1, 2, 4, 4000]}"#, "dim_mult * base_dim"),
            (r#"{"dim_mult": [1, 2, 4]}"#, "temperal_downsample"),
            (r#"{"temperal_downsample": [true]}"#, "temperal_downsample"),
            (r#"{"num_res_blocks": 0}"#, "num_res_blocks"),
            (r#"{"base_dim": "96"}"#, "base_dim"),
        ] {
            let message = CausalVaeConfig::from_json(json).unwrap_err().to_string();
            assert!(message.contains(&format!("`{key}`")) && message.contains(PATH), "{json}: {message}");
        }
    }
}
