//! Model folders with random weights of exactly the configuration of a published model.
//!
//! Speed and memory do not depend on what the weights say, so benchmarks of the real sizes need no
//! download. The pictures are noise. The same seed gives the same files on every machine.
//!
//! A kind is configurations: which tensors a model has is what it asks for while it is built (`Recorder` of
//! `afterimage_checkpoint`). Only what published files hold beyond that is listed here.

mod bert;
mod causal_vae;
mod clip;
mod deep_vae;
mod dit;
mod flux;
mod flux2;
mod gemma;
mod hunyuan;
mod mistral;
mod pixart;
mod qwen3;
mod qwen_image;
mod qwen_vl;
mod recipe;
mod sana;
mod schedulers;
mod sd3;
mod t5;
mod tokenizers;
mod vae;
mod z_image;

use std::fs;
use std::path::Path;
use std::str::FromStr;

use crate::DiffusionError;
use crate::precision::Precision;
use bert::BertConfig;
use causal_vae::CausalVaeConfig;
use clip::ClipConfig;
use deep_vae::DeepVaeConfig;
use dit::DitConfig;
use flux::FluxConfig;
use flux2::Flux2Config;
use gemma::GemmaConfig;
use hunyuan::HunyuanConfig;
use mistral::MistralConfig;
use pixart::PixArtConfig;
use qwen_image::QwenImageConfig;
use qwen_vl::QwenVlConfig;
use qwen3::Qwen3Config;
use recipe::Recipe;
use sana::SanaConfig;
use sd3::Sd3Config;
use t5::T5Config;
use vae::VaeConfig;
use z_image::ZImageConfig;

/// Classes of the published DiT models: ImageNet's.
const IMAGENET_CLASSES: usize = 1000;

/// A configuration that [`write_random_model`] knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RandomModelKind {
    /// `facebook/DiT-XL-2-256`: 750 million parameters as diffusers stores them, 256x256 pictures.
    DitXl2At256,
    /// `facebook/DiT-XL-2-512`: the same at 512x512.
    DitXl2At512,
    /// `PixArt-alpha/PixArt-Sigma-XL-2-1024-MS` with its T5-XXL encoder.
    PixArtSigma,
    /// `stabilityai/stable-diffusion-3-medium-diffusers` with all of its text encoders.
    Sd3Medium,
    /// `black-forest-labs/FLUX.1-dev`, its transformer of 12 billion parameters as a GGUF file in Q4_K.
    FluxDev,
    /// `black-forest-labs/FLUX.1-schnell`, likewise.
    FluxSchnell,
    /// `black-forest-labs/FLUX.2-dev`, its transformer of 32 billion parameters as a GGUF file in Q4_K, and of its text
    /// encoder what reads.
    Flux2Dev,
    /// `black-forest-labs/FLUX.2-klein-4B` with its Qwen3 encoder.
    Flux2Klein4b,
    /// `black-forest-labs/FLUX.2-klein-9B`, likewise.
    Flux2Klein9b,
    /// `Tongyi-MAI/Z-Image-Turbo`, its transformer of 6 billion parameters as a GGUF file in Q4_K.
    ZImageTurbo,
    /// `Tongyi-MAI/Z-Image`, not quantised.
    ZImage,
    /// `Tencent-Hunyuan/HunyuanDiT-v1.2-Diffusers` with both of its text encoders.
    HunyuanDit,
    /// `Qwen/Qwen-Image`, its transformer of 20 billion parameters as a GGUF file in Q4_K, and of its text encoder what
    /// reads.
    QwenImage,
    /// `Efficient-Large-Model/SANA1.5_1.6B_1024px_diffusers` with its Gemma 2 encoder.
    Sana15,
    /// `Efficient-Large-Model/Sana_Sprint_1.6B_1024px_diffusers`, likewise.
    SanaSprint,
    /// A DiT of 4 layers with 32 channels and a VAE of two levels, 16x16 pictures: for tests.
    TinyDit,
    /// The same DiT before the VAE of `DitXl2At256`: decoding at its real size, without gigabytes beside it.
    TinyDitSdVae,
}

impl RandomModelKind {
    /// All kinds.
    pub const ALL: [Self; 17] = [
        Self::DitXl2At256,
        Self::DitXl2At512,
        Self::PixArtSigma,
        Self::Sd3Medium,
        Self::FluxDev,
        Self::FluxSchnell,
        Self::Flux2Dev,
        Self::Flux2Klein4b,
        Self::Flux2Klein9b,
        Self::ZImageTurbo,
        Self::ZImage,
        Self::HunyuanDit,
        Self::QwenImage,
        Self::Sana15,
        Self::SanaSprint,
        Self::TinyDit,
        Self::TinyDitSdVae,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::DitXl2At256 => "dit-xl-2-256",
            Self::DitXl2At512 => "dit-xl-2-512",
            Self::PixArtSigma => "pixart-sigma",
            Self::Sd3Medium => "sd3-medium",
            Self::FluxDev => "flux-dev",
            Self::FluxSchnell => "flux-schnell",
            Self::Flux2Dev => "flux2-dev",
            Self::Flux2Klein4b => "flux2-klein-4b",
            Self::Flux2Klein9b => "flux2-klein-9b",
            Self::ZImageTurbo => "z-image-turbo",
            Self::ZImage => "z-image",
            Self::HunyuanDit => "hunyuan-dit",
            Self::QwenImage => "qwen-image",
            Self::Sana15 => "sana-1.5",
            Self::SanaSprint => "sana-sprint",
            Self::TinyDit => "tiny-dit",
            Self::TinyDitSdVae => "tiny-dit-sd-vae",
        }
    }

    fn recipe(self) -> Recipe {
        let flux = |has_guidance| {
            FluxConfig::flux_1(has_guidance).model(&ClipConfig::large(false), &T5Config::xxl(), &VaeConfig::flux())
        };
        match self {
            Self::DitXl2At256 => DitConfig::xl_2(32).model(&VaeConfig::sd_vae_ft(), IMAGENET_CLASSES),
            Self::DitXl2At512 => DitConfig::xl_2(64).model(&VaeConfig::sd_vae_ft(), IMAGENET_CLASSES),
            Self::PixArtSigma => PixArtConfig::sigma_xl().model(&T5Config::xxl(), &VaeConfig::sdxl()),
            Self::Sd3Medium => {
                let clips = [&ClipConfig::large(true), &ClipConfig::big_g()];
                Sd3Config::medium().model(clips, &T5Config::xxl(), &VaeConfig::sd3())
            }
            Self::FluxDev => flux(true),
            Self::FluxSchnell => flux(false),
            Self::Flux2Dev => Flux2Config::dev().dev_model(&MistralConfig::small_24b(), &VaeConfig::flux2()),
            Self::Flux2Klein4b => Flux2Config::klein_4b().klein_model(&Qwen3Config::with_4b(), &VaeConfig::flux2()),
            Self::Flux2Klein9b => Flux2Config::klein_9b().klein_model(&Qwen3Config::with_8b(), &VaeConfig::flux2()),
            Self::ZImageTurbo => ZImageConfig::turbo().model(&Qwen3Config::with_4b(), &VaeConfig::flux()),
            Self::ZImage => ZImageConfig::base().model(&Qwen3Config::with_4b(), &VaeConfig::flux()),
            Self::HunyuanDit => {
                HunyuanConfig::version_1_2().model(&BertConfig::hunyuan(), &T5Config::mt5_xl(), &VaeConfig::sdxl())
            }
            Self::QwenImage => {
                QwenImageConfig::published().model(&QwenVlConfig::instruct_7b(), &CausalVaeConfig::qwen_image())
            }
            Self::Sana15 => SanaConfig::version_1_5().model(&GemmaConfig::with_2b(), &DeepVaeConfig::sana()),
            Self::SanaSprint => SanaConfig::sprint().model(&GemmaConfig::with_2b(), &DeepVaeConfig::sana()),
            Self::TinyDit => DitConfig::tiny().model(&VaeConfig::tiny(), 10),
            Self::TinyDitSdVae => DitConfig::tiny().model(&VaeConfig::sd_vae_ft(), 10),
        }
    }
}

impl FromStr for RandomModelKind {
    type Err = DiffusionError;

    fn from_str(name: &str) -> Result<Self, DiffusionError> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            DiffusionError::RandomModel(format!("no random model `{name}`; there are {known}"))
        })
    }
}

/// Writes a diffusers model folder with random weights of this precision (but for quantised ones) into
/// `out`, which must be empty or absent. Tensors are made and written one by one.
///
/// # Errors
/// `out` holds something already or cannot be written.
pub fn write_random_model(
    kind: RandomModelKind,
    out: &Path,
    seed: u64,
    precision: Precision,
) -> Result<(), DiffusionError> {
    if fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(DiffusionError::RandomModel(format!(
            "{}: a random model is only written into an empty or new folder",
            out.display()
        )));
    }
    kind.recipe().write(out, seed, precision.stored())
}

#[cfg(test)]
mod tests;
