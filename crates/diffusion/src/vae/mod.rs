//! Decoders of VAEs: latents to pixels.
//!
//! Follows diffusers 0.42.1, `AutoencoderKL` (lines 36-479):
//! <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/autoencoders/autoencoder_kl.py#L36>
//!
//! Departs from it: weights with `force_upcast` are computed in f32, where the pipelines of these families decode in the
//! dtype they were loaded in; so are all on a CPU, but for products of bf16 on one that multiplies it; pictures are decoded one by
//! one, as with `use_slicing`.
//!
//! `AutoencoderKL` serves most families: four latent channels with convolutions around the latents (DiT,
//! PixArt), or sixteen without them, whose latents are shifted as well as scaled (SD3, FLUX). Qwen-Image has a VAE of
//! videos, which is in [`causal`]. FLUX.2 normalises squares of latents, in [`normed`]. Sana has latents of 32 x 32 pixels, in
//! [`deep_compression`].

mod attention;
mod causal;
mod config;
mod decoder;
mod deep_compression;
mod dtypes;
mod feature_map;
#[cfg(test)]
mod goldens;
mod group_norm;
mod input;
mod normed;
mod resnet;
mod stripes;

use afterimage_checkpoint::{ModelFolder, ModelIndex, OwnClass, Parameters, component_config};
use candle_core::{DType, Device, Result, Tensor};
use serde_json::Value;

use self::causal::CausalVae;
use self::config::VaeConfig;
use self::decoder::VaeDecoder;
use self::deep_compression::DeepCompressionVae;
use self::dtypes::weights_dtype;
use self::normed::NormedVae;
use crate::{Canvas, DiffusionError, LatentShape};

/// Tensors of a VAE that decoding does not need.
const UNUSED_WEIGHTS: [&str; 2] = ["encoder.", "quant_conv."];

/// The folder of a model's VAE.
const COMPONENT: &str = "vae";
const CLASS_KEY: &str = "_class_name";
const KL_CLASS: &str = "AutoencoderKL";
const CAUSAL_CLASS: &str = "AutoencoderKLQwenImage";
const NORMED_CLASS: &str = "AutoencoderKLFlux2";
const DEEP_CLASS: &str = "AutoencoderDC";

/// What VAE a pipeline has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VaeClass {
    /// `AutoencoderKL`
    Kl {
        /// The pipeline shifts latents before they are decoded.
        adds_shift: bool,
    },
    /// `AutoencoderKLQwenImage`
    QwenImage,
    /// `AutoencoderKLFlux2`
    Flux2,
    /// `AutoencoderDC`
    DeepCompression,
}

/// A decoder and what its latents are scaled and shifted by.
#[derive(Debug)]
pub struct Vae(Kind);

#[derive(Debug)]
enum Kind {
    Kl(Box<KlVae>),
    Causal(Box<CausalVae>),
    Normed(Box<NormedVae>),
    DeepCompression(Box<DeepCompressionVae>),
}

#[derive(Debug)]
struct KlVae {
    config: VaeConfig,
    shift: f64,
    decoder: VaeDecoder,
}

impl Vae {
    /// Loads the decoder of a model folder, in `dtype` unless `force_upcast` says f32, or f32 is as fast on this CPU.
    ///
    /// # Errors
    /// The model's VAE is of another class, or a configuration key or a tensor is not what it needs.
    pub fn load(
        folder: &ModelFolder,
        index: &ModelIndex,
        class: VaeClass,
        dtype: DType,
        device: &Device,
    ) -> std::result::Result<Self, DiffusionError> {
        let text = component_config::text(folder, COMPONENT)?;
        let keys = component_config::object(config::PATH, &text)?;
        let own = keys.get(CLASS_KEY).and_then(Value::as_str);
        index.class_of(COMPONENT, &[class.name()], &OwnClass { path: config::PATH, key: CLASS_KEY, class: own })?;
        Ok(Self(match class {
            VaeClass::Kl { adds_shift } => Kind::Kl(Box::new(KlVae::load(folder, &text, adds_shift, dtype, device)?)),
            VaeClass::QwenImage => Kind::Causal(Box::new(CausalVae::load(folder, &text, dtype, device)?)),
            VaeClass::Flux2 => Kind::Normed(Box::new(NormedVae::load(folder, &text, dtype, device)?)),
            VaeClass::DeepCompression => {
                Kind::DeepCompression(Box::new(DeepCompressionVae::load(folder, &text, dtype, device)?))
            }
        }))
    }

    /// Pixels per latent in each direction.
    pub fn scale(&self) -> usize {
        match &self.0 {
            Kind::Kl(vae) => vae.config.scale(),
            Kind::Causal(vae) => vae.scale(),
            Kind::Normed(vae) => vae.scale(),
            Kind::DeepCompression(vae) => vae.scale(),
        }
    }

    /// The shape of the latents that are decoded to this canvas.
    pub fn latent_shape(&self, canvas: Canvas) -> LatentShape {
        LatentShape::picture(self.latent_channels(), canvas.height / self.scale(), canvas.width / self.scale())
    }

    /// Channels of the latents.
    pub fn latent_channels(&self) -> usize {
        match &self.0 {
            Kind::Kl(vae) => vae.config.latent_channels,
            Kind::Causal(vae) => vae.latent_channels(),
            Kind::Normed(vae) => vae.latent_channels(),
            Kind::DeepCompression(vae) => vae.latent_channels(),
        }
    }

    /// Bytes that decoding one picture takes at the worst moment, beside the weights.
    pub fn decode_bytes(&self, canvas: Canvas) -> usize {
        let pixels = canvas.width * canvas.height;
        match &self.0 {
            Kind::Kl(vae) => vae.decoder.decode_bytes(pixels),
            Kind::Causal(vae) => vae.decode_bytes(pixels),
            Kind::Normed(vae) => vae.decode_bytes(pixels),
            Kind::DeepCompression(vae) => vae.decode_bytes(pixels),
        }
    }

    /// `[rows, latent_channels, height, width]` as a transformer makes them to
    /// `[rows, 3, height * scale, width * scale]` in f32, roughly from -1 to 1.
    pub fn decode(&self, latents: &Tensor) -> Result<Tensor> {
        match &self.0 {
            Kind::Kl(vae) => vae.decoder.decode(&latents.affine(1.0 / vae.config.scaling_factor, vae.shift)?),
            Kind::Causal(vae) => vae.decode(latents),
            Kind::Normed(vae) => vae.decode(latents),
            Kind::DeepCompression(vae) => vae.decode(latents),
        }
    }
}

impl VaeClass {
    fn name(self) -> &'static str {
        match self {
            Self::Kl { .. } => KL_CLASS,
            Self::QwenImage => CAUSAL_CLASS,
            Self::Flux2 => NORMED_CLASS,
            Self::DeepCompression => DEEP_CLASS,
        }
    }
}

impl KlVae {
    fn load(
        folder: &ModelFolder,
        config: &str,
        adds_shift: bool,
        dtype: DType,
        device: &Device,
    ) -> std::result::Result<Self, DiffusionError> {
        let config = VaeConfig::from_json(config)?;
        // Other pipelines ignore the key.
        let shift = if adds_shift { config.shift_factor()? } else { 0.0 };
        let weights = folder.weights(COMPONENT)?;
        let dtype = if config.force_upcast { DType::F32 } else { weights_dtype(dtype, device) };
        let decoder = VaeDecoder::new(&config, &weights.parameters(dtype, device))?;
        weights.finish(&UNUSED_WEIGHTS)?;
        Ok(Self { config, shift, decoder })
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
    match class {
        KL_CLASS => VaeDecoder::new(&VaeConfig::from_json(config)?, parameters).map(|_| true),
        CAUSAL_CLASS => CausalVae::build(config, parameters).map(|()| true),
        DEEP_CLASS => DeepCompressionVae::build(config, parameters).map(|()| true),
        NORMED_CLASS => NormedVae::new(config, parameters, parameters).map(|_| true),
        _ => Ok(false),
    }
}
