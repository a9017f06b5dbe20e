//! The decoder of diffusers' `AutoencoderDC`, the VAE of Sana, with up to 32 pixels per latent in each direction: Chen et al.,
//! "Deep Compression Autoencoder", arXiv 2410.10733.
//!
//! Follows diffusers 0.42.1, `AutoencoderDC` (lines 376-790):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/autoencoders/autoencoder_dc.py#L376>

mod config;
mod decoder;
mod norm;
mod residual_block;
mod upsampling;
mod vision_block;

use afterimage_checkpoint::{ModelFolder, Parameters};
use candle_core::{DType, Device, Result, Tensor};

use self::config::DeepCompressionConfig;
use self::decoder::DeepCompressionDecoder;
use crate::DiffusionError;
use crate::vae::dtypes::weights_dtype;
use crate::vae::{COMPONENT, UNUSED_WEIGHTS};

/// A decoder and what its latents are scaled by.
#[derive(Debug)]
pub(super) struct DeepCompressionVae {
    config: DeepCompressionConfig,
    decoder: DeepCompressionDecoder,
}

impl DeepCompressionVae {
    pub(super) fn load(
        folder: &ModelFolder,
        config: &str,
        dtype: DType,
        device: &Device,
    ) -> std::result::Result<Self, DiffusionError> {
        let config = DeepCompressionConfig::from_json(config)?;
        let weights = folder.weights(COMPONENT)?;
        let dtype = weights_dtype(dtype, device);
        let decoder = DeepCompressionDecoder::new(&config, &weights.parameters(dtype, device))?;
        weights.finish(&UNUSED_WEIGHTS)?;
        Ok(Self { config, decoder })
    }

    /// Builds the decoder of a configuration and drops it: it has asked for its parameters.
    pub(super) fn build(config: &str, parameters: &Parameters) -> std::result::Result<(), DiffusionError> {
        DeepCompressionDecoder::new(&DeepCompressionConfig::from_json(config)?, parameters)?;
        Ok(())
    }

    pub(super) fn scale(&self) -> usize {
        self.config.scale()
    }

    pub(super) fn latent_channels(&self) -> usize {
        self.config.latent_channels
    }

    /// Bytes that decoding to so many pixels takes at the worst moment.
    pub(super) fn decode_bytes(&self, pixels: usize) -> usize {
        let (finest, coarser) = self.config.finest_two();
        self.decoder.decode_bytes(pixels, finest, coarser)
    }

    /// `[rows, latent channels, height, width]` as a transformer makes them to
    /// `[rows, 3, height * scale, width * scale]`.
    pub(super) fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        self.decoder.decode(&latents.affine(1.0 / self.config.scaling_factor, 0.0)?)
    }
}
