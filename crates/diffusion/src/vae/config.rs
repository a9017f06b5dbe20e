//! `vae/config.json` of an `AutoencoderKL`.
//!
//! Follows diffusers 0.42.1, `AutoencoderKL.__init__` (lines 77-140):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/autoencoders/autoencoder_kl.py#L77>

use afterimage_checkpoint::{CheckpointError, component_config};
use serde::Deserialize;
use serde_json::Value;

use crate::dimension::{MAX_LATENT_CHANNELS, check_dimensions, check_size};

/// The path inside a model folder.
pub(super) const PATH: &str = "vae/config.json";

/// Most stages, each of which but the last doubles the picture; published VAEs have up to six.
pub(super) const MAX_STAGES: usize = 8;

/// The keys the decoder depends on; absent ones take diffusers' defaults.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
pub(super) struct VaeConfig {
    pub(super) out_channels: usize,
    pub(super) up_block_types: Vec<String>,
    pub(super) block_out_channels: Vec<usize>,
    pub(super) layers_per_block: usize,
    pub(super) act_fn: String,
    pub(super) latent_channels: usize,
    pub(super) norm_num_groups: usize,
    /// Latents are divided by this before decoding ...
    pub(super) scaling_factor: f64,
    /// ... and this is added to them, in pipelines that do so.
    pub(super) shift_factor: Option<f64>,
    /// Statistics per channel, which no supported pipeline applies; set in VAEs of other pipelines.
    pub(super) latents_mean: Option<Value>,
    pub(super) latents_std: Option<Value>,
    /// The weights may overflow in half precision.
    #[serde(deserialize_with = "component_config::truth")]
    pub(super) force_upcast: bool,
    #[serde(deserialize_with = "component_config::truth")]
    pub(super) use_post_quant_conv: bool,
    #[serde(deserialize_with = "component_config::truth")]
    pub(super) mid_block_add_attention: bool,
}

/// Kinds of up-sampling stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UpBlockKind {
    /// Residual blocks.
    Plain,
    /// Residual blocks, each followed by self-attention.
    Attention,
}

impl Default for VaeConfig {
    fn default() -> Self {
        Self {
            out_channels: 3,
            up_block_types: vec!["UpDecoderBlock2D".to_owned()],
            block_out_channels: vec![64],
            layers_per_block: 1,
            act_fn: "silu".to_owned(),
            latent_channels: 4,
            norm_num_groups: 32,
            scaling_factor: 0.18215,
            shift_factor: None,
            latents_mean: None,
            latents_std: None,
            force_upcast: true,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
        }
    }
}

impl VaeConfig {
    pub(super) fn from_json(text: &str) -> Result<Self, CheckpointError> {
        component_config::parse::<Self>(PATH, text)?.checked()
    }

    /// The same if such a decoder can be.
    pub(super) fn checked(self) -> Result<Self, CheckpointError> {
        self.check()?;
        Ok(self)
    }

    fn check(&self) -> Result<(), CheckpointError> {
        if self.act_fn != "silu" && self.act_fn != "swish" {
            return Err(unsupported("act_fn", &self.act_fn, "silu"));
        }
        if self.out_channels != 3 {
            return Err(unsupported("out_channels", &self.out_channels.to_string(), "3 (RGB)"));
        }
        let stages = self.block_out_channels.len();
        if stages == 0 || self.up_block_types.len() != stages {
            let found = format!("a list of {}", self.up_block_types.len());
            return Err(unsupported("up_block_types", &found, "as many entries as block_out_channels, at least one"));
        }
        if stages > MAX_STAGES {
            return Err(unsupported(
                "block_out_channels",
                &format!("a list of {stages}"),
                &format!("at most {MAX_STAGES}"),
            ));
        }
        self.block_out_channels.iter().try_for_each(|size| check_dimensions(PATH, &[("block_out_channels", *size)]))?;
        check_dimensions(PATH, &[("layers_per_block", self.layers_per_block)])?;
        check_size(PATH, "latent_channels", self.latent_channels, MAX_LATENT_CHANNELS)?;
        let divides = |channels: &usize| self.norm_num_groups > 0 && channels.is_multiple_of(self.norm_num_groups);
        if let Some(channels) = self.block_out_channels.iter().find(|channels| !divides(channels)) {
            let right = format!("a divisor of {channels} in block_out_channels");
            return Err(unsupported("norm_num_groups", &self.norm_num_groups.to_string(), &right));
        }
        if !(self.scaling_factor.is_finite() && self.scaling_factor != 0.0) {
            return Err(unsupported("scaling_factor", &self.scaling_factor.to_string(), "a number other than 0"));
        }
        for (key, statistics) in [("latents_mean", &self.latents_mean), ("latents_std", &self.latents_std)] {
            if let Some(statistics) = statistics {
                return Err(unsupported(key, &statistics.to_string(), "null"));
            }
        }
        self.up_blocks().map(|_| ())
    }

    /// What is added to latents before decoding, for a pipeline that does so.
    pub(super) fn shift_factor(&self) -> Result<f64, CheckpointError> {
        match self.shift_factor {
            Some(shift) if shift.is_finite() => Ok(shift),
            other => {
                let found = other.map_or("null".to_owned(), |shift| shift.to_string());
                Err(unsupported("shift_factor", &found, "a finite number, which this pipeline adds to latents"))
            }
        }
    }

    /// The up-sampling stages, coarsest first.
    pub(super) fn up_blocks(&self) -> Result<Vec<UpBlockKind>, CheckpointError> {
        let kind = |name: &String| match name.as_str() {
            "UpDecoderBlock2D" => Ok(UpBlockKind::Plain),
            "AttnUpDecoderBlock2D" => Ok(UpBlockKind::Attention),
            other => Err(unsupported("up_block_types", other, "UpDecoderBlock2D or AttnUpDecoderBlock2D")),
        };
        self.up_block_types.iter().map(kind).collect()
    }

    /// Pixels per latent in each direction: every stage but the last doubles.
    pub(super) fn scale(&self) -> usize {
        1 << (self.block_out_channels.len() - 1)
    }
}

fn unsupported(key: &str, found: &str, right: &str) -> CheckpointError {
    component_config::unsupported(PATH, key, found, right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_supported_is_named() {
        let types = vec!["UpDecoderBlock2D"; 70];
        let many_stages = serde_json::json!({"block_out_channels": vec![32; 70], "up_block_types": types}).to_string();
        for (json, key) in [
            (r#"{"act_fn": "mish"}"#, "act_fn"),
            (r#"{"up_block_types": ["SkipUpBlock2D"]}"#, "up_block_types"),
            (r#"{"block_out_channels": [32, 64]}"#, "up_block_types"),
            (r#"{"block_out_channels": [20]}"#, "norm_num_groups"),
            (r#"{"block_out_channels": [9223372036854775808]}"#, "block_out_channels"),
            (r#"{"latent_channels": 1099511627776}"#, "latent_channels"),
            (&many_stages, "block_out_channels"),
            (r#"{"scaling_factor": 0}"#, "scaling_factor"),
            (r#"{"scaling_factor": null}"#, "scaling_factor"),
            (r#"{"norm_num_groups": null}"#, "norm_num_groups"),
            (r#"{"block_out_channels": [32, null]}"#, "block_out_channels[1]"),
            (r#"{"use_post_quant_conv": "no"}"#, "use_post_quant_conv"),
            (r#"{"latents_mean": [0.1]}"#, "latents_mean"),
            (r#"{"latents_std": [1.0]}"#, "latents_std"),
        ] {
            let message = VaeConfig::from_json(json).unwrap_err().to_string();
            assert!(message.contains(key) && message.contains(PATH), "{json}: {message}");
        }
    }

    #[test]
    fn null_is_off_as_in_diffusers() {
        let keys = r#"{"use_post_quant_conv": null, "mid_block_add_attention": null, "force_upcast": null}"#;
        let config = VaeConfig::from_json(keys).unwrap();
        assert!(!config.use_post_quant_conv && !config.mid_block_add_attention && !config.force_upcast);
    }

    #[test]
    fn a_pipeline_that_adds_a_shift_needs_one() {
        assert_eq!(VaeConfig::from_json(r#"{"shift_factor": 0.5}"#).unwrap().shift_factor().unwrap(), 0.5);
        for json in ["{}", r#"{"shift_factor": null}"#] {
            let error = VaeConfig::from_json(json).unwrap().shift_factor().unwrap_err().to_string();
            assert!(
                error.starts_with("vae/config.json: `shift_factor` is null; supported: a finite number"),
                "{error}"
            );
        }
    }

    #[test]
    fn stages_double_the_picture_but_for_the_last() {
        let json = r#"{"block_out_channels": [32, 64, 96],
            "up_block_types": ["UpDecoderBlock2D", "UpDecoderBlock2D", "AttnUpDecoderBlock2D"]}"#;
        assert_eq!(VaeConfig::from_json(json).unwrap().scale(), 4);
    }
}
