//! The decoder of diffusers' `AutoencoderKL`: latents to pixels.

mod attention;
mod config;
mod decoder;
mod resnet;

pub(crate) use config::VaeConfig;
pub(crate) use decoder::VaeDecoder;
