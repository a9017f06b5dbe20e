//! What a family of models gives to whoever makes pictures with it.
//!
//! A family is two things: a [`PromptEncoder`] turns texts into conditioning, and a [`Denoiser`] turns latents with
//! conditioning into a prediction. Noise, schedulers, guidance, cache state and the VAE are none of its business.

use afterimage_cache::ModelFit;

use super::denoiser::Denoiser;
use super::guidance::GuidanceKind;
use super::labels::Labels;
use super::prompt_encoder::PromptEncoder;
use crate::Canvas;
use crate::schedulers::FlowSigmas;
use crate::text::PromptLimit;

/// What a family finds out about itself while it is loaded.
pub struct FamilyFacts {
    /// Channels of the latents.
    pub latent_channels: usize,
    /// Channels of the prediction: as many, or twice that where the model also predicts a variance.
    pub out_channels: usize,
    /// Where the noise levels of flow matching come from.
    pub flow_sigmas: FlowSigmas,
    /// Denoising steps of a request that does not say.
    pub default_steps: usize,
    /// Guidance scale of a request that does not say.
    pub default_guidance_scale: f64,
    /// Class labels; none where prompts are free text.
    pub labels: Labels,
    /// How it can be steered towards prompts.
    pub guidance: GuidanceKind,
    /// Published for models of this kind; what was fitted to the model itself takes precedence.
    pub fit: Option<ModelFit>,
    /// What its text encoders read of a prompt.
    pub prompt_limits: Vec<PromptLimit>,
}

/// A family and what the pipeline has to know about it.
pub struct LoadedFamily {
    /// What understands prompts.
    pub prompts: Box<dyn PromptEncoder>,
    /// What predicts.
    pub denoiser: Denoiser,
    /// What is known about them.
    pub facts: FamilyFacts,
    /// Sizes served, the default first.
    pub buckets: Vec<Canvas>,
}
