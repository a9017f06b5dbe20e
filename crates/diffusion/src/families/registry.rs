//! The families that can be loaded, as data.

use afterimage_checkpoint::{ModelIndex, Parameters};

use super::family::LoadedFamily;
use super::parts::FamilyParts;
use super::pixart::Variant;
use super::{dit, flux, flux2, hunyuan_dit, pixart, qwen_image, sana, sd3, z_image};
use crate::DiffusionError;
use crate::vae::VaeClass;

/// A family as `model_index.json` names it.
#[derive(Debug)]
pub struct FamilyEntry {
    /// diffusers' class of the pipeline.
    pub pipeline: &'static str,
    /// Classes that the transformer may be registered as.
    pub transformers: &'static [&'static str],
    /// What its latents are decoded with.
    pub vae: VaeClass,
    /// Loads it.
    pub load: fn(&FamilyParts<'_>) -> Result<LoadedFamily, DiffusionError>,
    /// Builds the transformer of a configuration for pictures of no size and drops it: it has asked for its parameters.
    pub(crate) build: fn(&str, Parameters) -> Result<(), DiffusionError>,
}

/// All families. Older repositories name `Transformer2DModel`, of which DiT and PixArt were once variants.
pub(crate) static FAMILIES: [FamilyEntry; 12] = [
    FamilyEntry {
        pipeline: "DiTPipeline",
        transformers: &["DiTTransformer2DModel", "Transformer2DModel"],
        vae: VaeClass::Kl { adds_shift: false },
        load: dit::load,
        build: dit::build,
    },
    FamilyEntry {
        pipeline: "PixArtAlphaPipeline",
        transformers: &["PixArtTransformer2DModel", "Transformer2DModel"],
        vae: VaeClass::Kl { adds_shift: false },
        load: |parts| pixart::load(parts, Variant::Alpha),
        build: pixart::build,
    },
    FamilyEntry {
        pipeline: "PixArtSigmaPipeline",
        transformers: &["PixArtTransformer2DModel", "Transformer2DModel"],
        vae: VaeClass::Kl { adds_shift: false },
        load: |parts| pixart::load(parts, Variant::Sigma),
        build: pixart::build,
    },
    FamilyEntry {
        pipeline: "StableDiffusion3Pipeline",
        transformers: &["SD3Transformer2DModel"],
        vae: VaeClass::Kl { adds_shift: true },
        load: sd3::load,
        build: sd3::build,
    },
    FamilyEntry {
        pipeline: "FluxPipeline",
        transformers: &["FluxTransformer2DModel"],
        vae: VaeClass::Kl { adds_shift: true },
        load: flux::load,
        build: flux::build,
    },
    FamilyEntry {
        pipeline: "ZImagePipeline",
        transformers: &["ZImageTransformer2DModel"],
        vae: VaeClass::Kl { adds_shift: true },
        load: z_image::load,
        build: z_image::build,
    },
    FamilyEntry {
        pipeline: "HunyuanDiTPipeline",
        transformers: &["HunyuanDiT2DModel"],
        vae: VaeClass::Kl { adds_shift: false },
        load: hunyuan_dit::load,
        build: hunyuan_dit::build,
    },
    FamilyEntry {
        pipeline: "QwenImagePipeline",
        transformers: &["QwenImageTransformer2DModel"],
        vae: VaeClass::QwenImage,
        load: qwen_image::load,
        build: qwen_image::build,
    },
    FamilyEntry {
        pipeline: "Flux2KleinPipeline",
        transformers: &["Flux2Transformer2DModel"],
        vae: VaeClass::Flux2,
        load: |parts| flux2::load(parts, flux2::Variant::Klein),
        build: flux2::build,
    },
    FamilyEntry {
        pipeline: "Flux2Pipeline",
        transformers: &["Flux2Transformer2DModel"],
        vae: VaeClass::Flux2,
        load: |parts| flux2::load(parts, flux2::Variant::Dev),
        build: flux2::build,
    },
    FamilyEntry {
        pipeline: "SanaPipeline",
        transformers: &["SanaTransformer2DModel"],
        vae: VaeClass::DeepCompression,
        load: |parts| sana::load(parts, sana::Variant::Guided),
        build: sana::build,
    },
    FamilyEntry {
        pipeline: "SanaSprintPipeline",
        transformers: &["SanaTransformer2DModel"],
        vae: VaeClass::DeepCompression,
        load: |parts| sana::load(parts, sana::Variant::Sprint),
        build: sana::build,
    },
];

/// The family of a model.
///
/// # Errors
/// There is none for the classes of its pipeline and its transformer.
pub fn entry_of(index: &ModelIndex) -> Result<&'static FamilyEntry, DiffusionError> {
    let Some(entry) = FAMILIES.iter().find(|entry| entry.pipeline == index.class_name()) else {
        return Err(index.refuse_pipeline(&FAMILIES.each_ref().map(|entry| entry.pipeline)).into());
    };
    index.check_transformer(entry.transformers)?;
    Ok(entry)
}

/// Builds the transformer of this class and configuration and drops it: it has asked for its parameters. False if no
/// family has the class.
///
/// # Errors
/// The configuration cannot be served.
pub(crate) fn build_transformer(class: &str, config: &str, parameters: Parameters) -> Result<bool, DiffusionError> {
    match FAMILIES.iter().find(|entry| entry.transformers.contains(&class)) {
        Some(entry) => (entry.build)(config, parameters).map(|()| true),
        None => Ok(false),
    }
}
