//! What a family is loaded from, and checks that several need.
//!
//! Follows diffusers 0.42.1:
//!
//! * `FluxPipeline.check_inputs` (lines 438-505):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/pipelines/flux/pipeline_flux.py#L438>
//! * pipeline_stable_diffusion_3.py: `StableDiffusion3Pipeline.check_inputs` (lines 537-631):
//!   <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/pipelines/stable_diffusion_3>
//!
//! Departs from it: a size that is no multiple of a patch is refused, where the pipeline of FLUX makes the next smaller
//! one.

use std::sync::Arc;

use afterimage_checkpoint::{ModelFolder, ModelIndex, Parameters, Quantization, Weights};
use candle_core::{DType, Device};

use crate::text::EncoderSource;
use crate::vae::Vae;
use crate::{Canvas, DiffusionError, LatentShape, WantedCanvas};

/// Most tokens of a prompt, as in diffusers' pipelines.
const MAX_SEQUENCE_LENGTH: usize = 512;

/// What a family is loaded from.
pub struct FamilyParts<'a> {
    /// Its files.
    pub folder: &'a ModelFolder,
    /// Its `model_index.json`.
    pub index: &'a ModelIndex,
    /// Sizes asked for; empty: the model's own.
    pub buckets: &'a [WantedCanvas],
    /// Most pixels of a size; a larger one is refused before anything is made for it.
    pub max_pixels: usize,
    /// What its latents are decoded with.
    pub vae: &'a Vae,
    /// Tokens of a prompt asked for, in the last text encoder.
    pub max_sequence_length: Option<usize>,
    /// Precision of weights and activations.
    pub dtype: DType,
    /// What is made of the matrices of the transformer's blocks; on the CPU only.
    pub quantization: Quantization,
    /// Where they live.
    pub device: &'a Device,
    /// What its text encoders are loaded from.
    pub text_encoders: EncoderSource,
}

impl FamilyParts<'_> {
    /// The transformer's.
    pub(super) fn transformer_parameters(&self, weights: &Arc<Weights>) -> Parameters {
        weights.parameters(self.dtype, self.device).quantized(self.quantization)
    }

    /// Of the latents of these sizes.
    pub fn latent_shapes(&self, sizes: &[Canvas]) -> Vec<LatentShape> {
        sizes.iter().map(|canvas| self.vae.latent_shape(*canvas)).collect()
    }

    /// Refuses what an encoder gives in another size than the transformer takes; `what` ends in "has" or "have".
    ///
    /// # Errors
    /// Names both sizes.
    pub fn check_size(&self, what: &str, found: usize, right: usize) -> Result<(), DiffusionError> {
        if found == right {
            return Ok(());
        }
        Err(DiffusionError::Mismatch {
            model: self.folder.id().to_owned(),
            reason: format!("{what} size {found}, the transformer takes {right}"),
        })
    }

    /// Tokens of a prompt in the last text encoder of a family whose pipeline has this default.
    ///
    /// # Errors
    /// The number asked for is not possible.
    pub fn text_tokens(&self, default: usize) -> Result<usize, DiffusionError> {
        self.text_tokens_up_to(MAX_SEQUENCE_LENGTH, default)
    }

    /// The same where the pipeline takes up to `most`.
    ///
    /// # Errors
    /// The number asked for is not possible.
    pub fn text_tokens_up_to(&self, most: usize, default: usize) -> Result<usize, DiffusionError> {
        let tokens = self.max_sequence_length.unwrap_or(default);
        if (1..=most).contains(&tokens) {
            return Ok(tokens);
        }
        Err(DiffusionError::Option {
            option: "max_sequence_length",
            reason: format!("is {tokens}; a prompt has 1 to {most} tokens"),
        })
    }
}

/// Checks that a model with this patch size can make these sizes; without any, its own.
///
/// # Errors
/// One of them cannot be made.
pub fn check_buckets(
    parts: &FamilyParts<'_>,
    sample_size: usize,
    patch_size: usize,
) -> Result<Vec<Canvas>, DiffusionError> {
    let own = || {
        let side = sample_size * parts.vae.scale();
        vec![Canvas::picture(side, side)]
    };
    let multiple = patch_size * parts.vae.scale();
    let mut buckets = if parts.buckets.is_empty() { own() } else { Vec::new() };
    for wanted in parts.buckets {
        let canvas = wanted.in_multiples_of(multiple);
        if !buckets.contains(&canvas) {
            buckets.push(canvas);
        }
    }
    let is_too_large = |size: &&Canvas| size.width.saturating_mul(size.height) > parts.max_pixels;
    if let Some(canvas) = buckets.iter().find(is_too_large) {
        return Err(DiffusionError::TooManyPixels { canvas: *canvas, max_pixels: parts.max_pixels });
    }
    let misfits = |size: &&Canvas| !size.width.is_multiple_of(multiple) || !size.height.is_multiple_of(multiple);
    if let Some(canvas) = buckets.iter().find(misfits) {
        return Err(DiffusionError::Bucket {
            canvas: *canvas,
            reason: format!("width and height must be multiples of {multiple} for this model"),
        });
    }
    Ok(buckets)
}
