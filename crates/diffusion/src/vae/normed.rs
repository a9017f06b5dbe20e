//! FLUX.2's VAE: the decoder of most families, for latents in squares of four that are normalised by statistics of their
//! own. A square is what a transformer takes for a latent.
//!
//! Follows diffusers 0.42.1:
//!
//! * `AutoencoderKLFlux2` (lines 39-497):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/autoencoders/autoencoder_kl_flux2.py#L39>
//! * `Flux2KleinPipeline._unpatchify_latents` and the end of `__call__` (lines 898-909):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/pipelines/flux2/pipeline_flux2_klein.py#L898>
//!
//! Departs from it: statistics stay f32, which the pipeline rounds to the dtype of the latents.

use afterimage_checkpoint::{CheckpointError, ModelFolder, Parameters, component_config};
use candle_core::{DType, Device, Result, Tensor};
use serde::Deserialize;

use super::COMPONENT;
use super::config::{PATH, VaeConfig};
use super::decoder::VaeDecoder;
use super::dtypes::weights_dtype;
use crate::DiffusionError;
use crate::layers::unpatchify_channels_first;

/// Tensors that decoding does not need.
const UNUSED_WEIGHTS: [&str; 3] = ["encoder.", "quant_conv.", "bn.num_batches_tracked"];
/// Side of a square; fixed in diffusers' pipeline.
const SIDE: usize = 2;

/// The keys of its `config.json` that the decoder depends on and that are not `AutoencoderKL`'s, or have other defaults;
/// `sample_size` is about tiles only.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct NormedVaeConfig {
    out_channels: usize,
    up_block_types: Vec<String>,
    block_out_channels: Vec<usize>,
    /// Of the decoder, where they are others than the encoder's.
    decoder_block_out_channels: Option<Vec<usize>>,
    layers_per_block: usize,
    act_fn: String,
    latent_channels: usize,
    norm_num_groups: usize,
    #[serde(deserialize_with = "component_config::truth")]
    use_post_quant_conv: bool,
    #[serde(deserialize_with = "component_config::truth")]
    mid_block_add_attention: bool,
    #[serde(deserialize_with = "component_config::norm_epsilon")]
    batch_norm_eps: f64,
    patch_size: [usize; 2],
}

impl Default for NormedVaeConfig {
    fn default() -> Self {
        Self {
            out_channels: 3,
            up_block_types: vec!["UpDecoderBlock2D".to_owned(); 4],
            block_out_channels: vec![128, 256, 512, 512],
            decoder_block_out_channels: None,
            layers_per_block: 2,
            act_fn: "silu".to_owned(),
            latent_channels: 32,
            norm_num_groups: 32,
            use_post_quant_conv: true,
            mid_block_add_attention: true,
            batch_norm_eps: 1e-4,
            patch_size: [SIDE; 2],
        }
    }
}

impl NormedVaeConfig {
    fn from_json(text: &str) -> std::result::Result<Self, CheckpointError> {
        let config: Self = component_config::parse(PATH, text)?;
        let unsupported =
            |key: &str, found: &str, right: &str| Err(component_config::unsupported(PATH, key, found, right));
        if config.patch_size != [SIDE; 2] {
            return unsupported("patch_size", &format!("{:?}", config.patch_size), "[2, 2]");
        }
        match &config.decoder_block_out_channels {
            Some(channels) if !channels.is_empty() && channels.len() != config.block_out_channels.len() => {
                let right = "as many entries as block_out_channels";
                unsupported("decoder_block_out_channels", &format!("a list of {}", channels.len()), right)
            }
            _ => Ok(config),
        }
    }

    /// The decoder's part, in the words of other VAEs.
    fn decoder(&self) -> std::result::Result<VaeConfig, CheckpointError> {
        let own = self.decoder_block_out_channels.as_ref().filter(|channels| !channels.is_empty());
        VaeConfig {
            out_channels: self.out_channels,
            up_block_types: self.up_block_types.clone(),
            block_out_channels: own.unwrap_or(&self.block_out_channels).clone(),
            layers_per_block: self.layers_per_block,
            act_fn: self.act_fn.clone(),
            latent_channels: self.latent_channels,
            norm_num_groups: self.norm_num_groups,
            use_post_quant_conv: self.use_post_quant_conv,
            mid_block_add_attention: self.mid_block_add_attention,
            ..VaeConfig::default()
        }
        .checked()
    }
}

#[derive(Debug)]
pub(super) struct NormedVae {
    config: VaeConfig,
    /// `[1, channels of a square, 1, 1]`, f32: what latents were divided by, and what was subtracted before.
    deviation: Tensor,
    mean: Tensor,
    decoder: VaeDecoder,
}

impl NormedVae {
    pub(super) fn load(
        folder: &ModelFolder,
        config: &str,
        dtype: DType,
        device: &Device,
    ) -> std::result::Result<Self, DiffusionError> {
        let weights = folder.weights(COMPONENT)?;
        let dtype = weights_dtype(dtype, device);
        let statistics = weights.parameters(DType::F32, device);
        let vae = Self::new(config, &weights.parameters(dtype, device), &statistics)?;
        weights.finish(&UNUSED_WEIGHTS)?;
        Ok(vae)
    }

    /// `statistics` are the same parameters in f32.
    pub(super) fn new(
        config: &str,
        parameters: &Parameters,
        statistics: &Parameters,
    ) -> std::result::Result<Self, DiffusionError> {
        let own = NormedVaeConfig::from_json(config)?;
        let config = own.decoder()?;
        let channels = SIDE * SIDE * config.latent_channels;
        let statistics = statistics.pp("bn");
        let of_channels = |tensor: Tensor| tensor.reshape((1, channels, 1, 1));
        let variance = statistics.get(channels, "running_var")?;
        Ok(Self {
            deviation: of_channels((variance + own.batch_norm_eps)?.sqrt()?)?,
            mean: of_channels(statistics.get(channels, "running_mean")?)?,
            decoder: VaeDecoder::new(&config, parameters)?,
            config,
        })
    }

    /// Pixels per square in each direction.
    pub(super) fn scale(&self) -> usize {
        SIDE * self.config.scale()
    }

    /// Channels of a square.
    pub(super) fn latent_channels(&self) -> usize {
        SIDE * SIDE * self.config.latent_channels
    }

    /// Bytes that decoding to so many pixels takes at the worst moment.
    pub(super) fn decode_bytes(&self, pixels: usize) -> usize {
        self.decoder.decode_bytes(pixels)
    }

    /// `[rows, channels of a square, height, width]` to `[rows, 3, height * scale, width * scale]`.
    pub(super) fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        let (_, _, height, width) = latents.dims4()?;
        let squares = latents.broadcast_mul(&self.deviation)?.broadcast_add(&self.mean)?;
        let squares = squares.flatten_from(2)?.transpose(1, 2)?.contiguous()?;
        self.decoder.decode(&unpatchify_channels_first(&squares, (height, width), SIDE)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_configurations_are_read() {
        let published = r#"{"_class_name": "AutoencoderKLFlux2", "act_fn": "silu", "batch_norm_eps": 0.0001,
            "batch_norm_momentum": 0.1, "block_out_channels": [128, 256, 512, 512], "force_upcast": true,
            "latent_channels": 32, "layers_per_block": 2, "mid_block_add_attention": true, "norm_num_groups": 32,
            "patch_size": [2, 2], "sample_size": 1024, "use_post_quant_conv": true, "use_quant_conv": true}"#;
        let config = NormedVaeConfig::from_json(published).unwrap().decoder().unwrap();
        assert_eq!((config.scale(), config.latent_channels, config.layers_per_block), (8, 32, 2));
        let small = r#"{"decoder_block_out_channels": [96, 192, 384, 384]}"#;
        let config = NormedVaeConfig::from_json(small).unwrap().decoder().unwrap();
        assert_eq!((config.scale(), config.block_out_channels[0]), (8, 96));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        for (json, key) in [
            (r#"{"patch_size": [4, 4]}"#, "patch_size"),
            (r#"{"batch_norm_eps": -1}"#, "batch_norm_eps"),
            (r#"{"decoder_block_out_channels": [96]}"#, "decoder_block_out_channels"),
            (r#"{"block_out_channels": [32]}"#, "up_block_types"),
            (r#"{"latent_channels": 0}"#, "latent_channels"),
        ] {
            let found = NormedVaeConfig::from_json(json).and_then(|config| config.decoder());
            let message = found.unwrap_err().to_string();
            assert!(message.contains(key) && message.contains(PATH), "{json}: {message}");
        }
    }
}
