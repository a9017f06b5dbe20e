//! The decoder of diffusers' `AutoencoderKL`: latents to pixels.
//!
//! One class serves all families: four latent channels with convolutions around the latents (DiT,
//! PixArt), or sixteen without them, whose latents are shifted as well as scaled (SD3, FLUX).

mod attention;
mod config;
mod decoder;
mod feature_map;
#[cfg(test)]
mod goldens;
mod group_norm;
mod input;
mod resnet;
mod stripes;

use candle_core::{DType, Device, Result, Tensor};

use self::config::VaeConfig;
use self::decoder::VaeDecoder;
use crate::error::RunnerError;
use crate::model_folder::ModelFolder;

/// Tensors of an `AutoencoderKL` that decoding does not need.
const UNUSED_WEIGHTS: [&str; 2] = ["encoder.", "quant_conv."];

/// A decoder and what its latents are scaled by.
#[derive(Debug)]
pub(crate) struct Vae {
    config: VaeConfig,
    decoder: VaeDecoder,
}

impl Vae {
    /// Loads the decoder of a model folder, in `dtype` if its weights are good in that; on a CPU, where f32 is
    /// as fast, in f32.
    pub(crate) fn load(folder: &ModelFolder, dtype: DType, device: &Device) -> std::result::Result<Self, RunnerError> {
        let config = VaeConfig::from_json(&folder.text(config::PATH)?)?;
        let weights = folder.weights("vae")?;
        let dtype = if config.force_upcast || device.is_cpu() { DType::F32 } else { dtype };
        let decoder = VaeDecoder::new(&config, weights.var_builder(dtype, device))?;
        weights.finish(&UNUSED_WEIGHTS)?;
        Ok(Self { config, decoder })
    }

    /// Pixels per latent in each direction.
    pub(crate) fn scale(&self) -> usize {
        self.config.scale()
    }

    pub(crate) fn latent_channels(&self) -> usize {
        self.config.latent_channels
    }

    /// `[rows, latent_channels, height, width]` as a transformer makes them to
    /// `[rows, 3, height * scale, width * scale]` in f32, roughly from -1 to 1.
    pub(crate) fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        self.decoder.decode(&latents.affine(1.0 / self.config.scaling_factor, self.config.shift_factor())?)
    }
}
