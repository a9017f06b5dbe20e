//! What a family of models adds to the pipeline they all share.
//!
//! The pipeline owns noise, schedulers, guidance, cache state and the VAE. A family turns texts into
//! conditioning, and latents with conditioning into a prediction, through a block list that
//! `afterimage-cache` drives.

use afterimage_cache::{Calibration, Lane};
use candle_core::Tensor;

use super::conditioning::{Conditioning, EncodedText};
use super::guidance::GuidanceKind;
use super::labels::{LabelPolicy, Labels};
use crate::schedulers::FlowSigmas;
use crate::text::PromptLimit;
use crate::{Canvas, DiffusionError};

/// A loaded transformer with what understands its prompts.
pub trait Family: Send + Sync {
    /// How the model reads a prompt; fast. The policy is for models that know labels only.
    ///
    /// # Errors
    /// A message for whoever wrote the prompt.
    fn read_prompt(&self, prompt: &str, _policy: LabelPolicy) -> Result<ReadPrompt, String> {
        Ok(ReadPrompt::as_written(prompt))
    }

    /// What the transformer is conditioned on in a row with this prompt. Slow: text encoders run.
    ///
    /// # Errors
    /// If the prompt means nothing, or a tensor operation fails.
    fn encode(&self, prompt: &str) -> Result<Conditioning, DiffusionError>;

    /// The conditioning that guidance steers away from, where the request has none.
    fn unconditional(&self) -> Unconditional {
        Unconditional::FirstFromNegativePrompt
    }

    /// Bytes of one row's streams for latents of this height and width.
    fn stream_bytes(&self, latent_size: (usize, usize)) -> usize;

    /// Tokens of latents of this height and width.
    fn image_tokens(&self, latent_size: (usize, usize)) -> usize;

    /// Predicts `[rows, out_channels, height, width]`, f32. `lanes` say which rows belong together and
    /// hold their cache state.
    ///
    /// # Errors
    /// If a tensor operation fails, or the conditioning is another family's.
    fn predict(&self, rows: &Rows<'_>, lanes: &mut [Lane<'_>]) -> candle_core::Result<Tensor>;
}

/// A prompt as the model takes it.
#[derive(Debug)]
pub struct ReadPrompt {
    /// What is encoded.
    pub prompt: String,
    /// What is drawn in the place of what was written.
    pub nearest: Option<NearestLabel>,
}

/// A label that is drawn for a prompt which is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NearestLabel {
    /// As it is listed.
    pub label: String,
    /// Its class.
    pub class: u32,
}

impl ReadPrompt {
    /// Taken as it is.
    pub fn as_written(prompt: &str) -> Self {
        Self { prompt: prompt.to_owned(), nearest: None }
    }
}

/// The row without the prompt in a guided image.
#[derive(Debug, Clone)]
pub enum Unconditional {
    /// It follows the row with the prompt, and is always the same.
    Last(Conditioning),
    /// It is that of the negative prompt, which may be empty. In one forward it precedes the row with the
    /// prompt; a forward of its own comes second, unless the cache is configured otherwise.
    FirstFromNegativePrompt,
}

/// One forward's rows.
pub struct Rows<'a> {
    /// `[rows, channels, height, width]`, f32.
    pub latents: &'a Tensor,
    /// One per row.
    pub timesteps: &'a [f32],
    /// One per row: what distilled models are conditioned on.
    pub guidance_scales: &'a [f32],
    /// One per row.
    pub conditioning: &'a [&'a Conditioning],
}

impl Rows<'_> {
    /// A part of all rows' texts, `[1, ..]` each, as one tensor.
    pub fn texts(&self, part: impl Fn(&EncodedText) -> Option<&Tensor>) -> candle_core::Result<Tensor> {
        let mut parts = Vec::with_capacity(self.conditioning.len());
        for conditioning in self.conditioning {
            parts.extend(part(conditioning.text()?));
        }
        Tensor::cat(&parts, 0)
    }
}

/// What a family finds out about itself while it is loaded.
pub struct FamilyFacts {
    /// Names and numbers of blocks of the block lists.
    pub block_lists: Vec<(&'static str, usize)>,
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
    /// Published for models of this kind; a calibration of the model itself takes precedence.
    pub calibration: Option<Calibration>,
    /// What its text encoders read of a prompt.
    pub prompt_limits: Vec<PromptLimit>,
}

/// A family and what the pipeline has to know about it.
pub struct LoadedFamily {
    /// What runs.
    pub family: Box<dyn Family>,
    /// What is known about it.
    pub facts: FamilyFacts,
    /// Sizes served, the default first.
    pub buckets: Vec<Canvas>,
}
