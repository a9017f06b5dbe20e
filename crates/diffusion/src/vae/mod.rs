//! The decoder of diffusers' `AutoencoderKL`: latents to pixels.
//!
//! Follows diffusers 0.42.1, `AutoencoderKL` (lines 36-479):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/autoencoders/autoencoder_kl.py#L36>
//!
//! Departs from it: weights with `force_upcast`, and all on a CPU, are computed in f32, where the pipelines of these
//! families decode in the dtype they were loaded in; pictures are decoded one by one, as with `use_slicing`.
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

use afterimage_checkpoint::{ModelFolder, ModelIndex, OwnClass, Parameters, component_config};
use candle_core::{DType, Device, Result, Tensor};

use self::config::VaeConfig;
use self::decoder::VaeDecoder;
use crate::{Canvas, DiffusionError, LatentShape};

/// Tensors of an `AutoencoderKL` that decoding does not need.
const UNUSED_WEIGHTS: [&str; 2] = ["encoder.", "quant_conv."];

/// The folder of a model's VAE.
const COMPONENT: &str = "vae";
const CLASS: &str = "AutoencoderKL";

/// A decoder and what its latents are scaled and shifted by.
#[derive(Debug)]
pub struct Vae {
    config: VaeConfig,
    shift: f64,
    decoder: VaeDecoder,
}

impl Vae {
    /// Loads the decoder of a model folder, in `dtype` unless `force_upcast` says f32; on a CPU, where f32 is
    /// as fast, in f32. `adds_shift`: the pipeline shifts latents.
    pub fn load(
        folder: &ModelFolder,
        index: &ModelIndex,
        adds_shift: bool,
        dtype: DType,
        device: &Device,
    ) -> std::result::Result<Self, DiffusionError> {
        let config = VaeConfig::from_json(&component_config::text(folder, COMPONENT)?)?;
        let own = OwnClass { path: config::PATH, key: "_class_name", class: config.class_name() };
        index.class_of(COMPONENT, &[CLASS], &own)?;
        // Other pipelines ignore the key.
        let shift = if adds_shift { config.shift_factor()? } else { 0.0 };
        let weights = folder.weights(COMPONENT)?;
        // A choice for the model as a whole, not of an operator: convolutions take most of the time, and their kernel of
        // the CPU computes in f32.
        let dtype = if config.force_upcast || device.is_cpu() { DType::F32 } else { dtype };
        let decoder = VaeDecoder::new(&config, &weights.parameters(dtype, device))?;
        weights.finish(&UNUSED_WEIGHTS)?;
        Ok(Self { config, shift, decoder })
    }

    /// Pixels per latent in each direction.
    pub fn scale(&self) -> usize {
        self.config.scale()
    }

    /// The shape of the latents that are decoded to this canvas.
    pub fn latent_shape(&self, canvas: Canvas) -> LatentShape {
        LatentShape::picture(self.latent_channels(), canvas.height / self.scale(), canvas.width / self.scale())
    }

    /// Channels of the latents.
    pub fn latent_channels(&self) -> usize {
        self.config.latent_channels
    }

    /// `[rows, latent_channels, height, width]` as a transformer makes them to
    /// `[rows, 3, height * scale, width * scale]` in f32, roughly from -1 to 1.
    pub fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        self.decoder.decode(&latents.affine(1.0 / self.config.scaling_factor, self.shift)?)
    }
}

/// Builds the decoder of a VAE of this class and configuration and drops it: it has asked for its parameters. False if
/// there is none of the class.
///
/// # Errors
/// The configuration cannot be served.
pub(crate) fn build_decoder(
    class: &str,
    config: &str,
    parameters: &Parameters,
) -> std::result::Result<bool, DiffusionError> {
    if class == CLASS {
        VaeDecoder::new(&VaeConfig::from_json(config)?, parameters)?;
    }
    Ok(class == CLASS)
}
