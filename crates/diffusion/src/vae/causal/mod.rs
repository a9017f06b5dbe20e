//! The decoder of diffusers' `AutoencoderKLQwenImage`, a VAE of videos that Qwen-Image uses on pictures, which are its first
//! frames. The VAE of Wan 2.1 is the same under another name.
//!
//! Follows diffusers 0.42.1, `AutoencoderKLQwenImage` (lines 673-1056):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/autoencoders/autoencoder_kl_qwenimage.py#L673>

mod attention;
mod config;
mod decoder;
mod norm;
mod resnet;

use afterimage_checkpoint::{ModelFolder, Parameters};
use candle_core::{DType, Device, Result, Tensor};

use self::config::CausalVaeConfig;
use self::decoder::CausalDecoder;
use crate::DiffusionError;
use crate::vae::dtypes::weights_dtype;
use crate::vae::{COMPONENT, UNUSED_WEIGHTS};

/// A decoder and what its latents are scaled and shifted by.
#[derive(Debug)]
pub(super) struct CausalVae {
    config: CausalVaeConfig,
    decoder: CausalDecoder,
}

impl CausalVae {
    pub(super) fn load(
        folder: &ModelFolder,
        config: &str,
        dtype: DType,
        device: &Device,
    ) -> std::result::Result<Self, DiffusionError> {
        let config = CausalVaeConfig::from_json(config)?;
        let weights = folder.weights(COMPONENT)?;
        let dtype = weights_dtype(dtype, device);
        let decoder = CausalDecoder::new(&config, &weights.parameters(dtype, device))?;
        weights.finish(&UNUSED_WEIGHTS)?;
        Ok(Self { config, decoder })
    }

    /// Builds the decoder of a configuration and drops it: it has asked for its parameters.
    pub(super) fn build(config: &str, parameters: &Parameters) -> std::result::Result<(), DiffusionError> {
        CausalDecoder::new(&CausalVaeConfig::from_json(config)?, parameters)?;
        Ok(())
    }

    pub(super) fn scale(&self) -> usize {
        self.config.scale()
    }

    pub(super) fn latent_channels(&self) -> usize {
        self.config.z_dim
    }

    /// Bytes that decoding to so many pixels takes at the worst moment.
    pub(super) fn decode_bytes(&self, pixels: usize) -> usize {
        let (finest, coarser) = self.config.finest_two();
        self.decoder.decode_bytes(pixels, finest, coarser)
    }

    /// `[rows, z_dim, height, width]` as a transformer makes them to `[rows, 3, height * scale, width * scale]`.
    #[allow(clippy::disallowed_methods, reason = "in no step: the picture is being decoded")]
    pub(super) fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        let per_channel = |values: &[f64]| -> Result<Tensor> {
            let values: Vec<f32> = values.iter().map(|value| *value as f32).collect();
            Tensor::new(values, latents.device())?.reshape((1, (), 1, 1))
        };
        let CausalVaeConfig { latents_mean, latents_std, .. } = &self.config;
        let latents = latents.broadcast_mul(&per_channel(latents_std)?)?;
        self.decoder.decode(&latents.broadcast_add(&per_channel(latents_mean)?)?)
    }
}
