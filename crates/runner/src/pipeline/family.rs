//! What a family of models adds to the pipeline they all share.
//!
//! The pipeline owns noise, schedulers, guidance, cache sessions and the VAE. A family turns texts into
//! conditioning, and latents with conditioning into a prediction, through a block list that
//! `afterimage-cache` drives.

use afterimage_cache::Lane;
use candle_core::Tensor;

use crate::conditioning::{Conditioning, EncodedText};
use crate::error::RunnerError;
use crate::labels::LabelPolicy;
use crate::request::RequestWarning;

/// A loaded transformer with what understands its prompts.
pub(crate) trait Family: Send + Sync {
    /// What the model takes a prompt for; quick. The policy is for models that know labels only.
    ///
    /// # Errors
    /// A message for whoever wrote the prompt.
    fn read_prompt(&self, prompt: &str, _policy: LabelPolicy) -> Result<ReadPrompt, String> {
        Ok(ReadPrompt::as_written(prompt))
    }

    /// What the transformer is told about a row with this prompt. Takes its time.
    ///
    /// # Errors
    /// If the prompt means nothing, or a tensor operation fails.
    fn encode(&self, prompt: &str) -> Result<Conditioning, RunnerError>;

    /// What the row of a guided image is told that is steered away from, where its request does not say.
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
pub(crate) struct ReadPrompt {
    /// What is encoded.
    pub(crate) prompt: String,
    /// Why that is not what was written.
    pub(crate) warning: Option<RequestWarning>,
}

impl ReadPrompt {
    /// Taken as it is.
    pub(crate) fn as_written(prompt: &str) -> Self {
        Self { prompt: prompt.to_owned(), warning: None }
    }
}

/// The row without the prompt in a guided image.
#[derive(Debug, Clone)]
pub(crate) enum Unconditional {
    /// It follows the row with the prompt, and is always the same.
    Last(Conditioning),
    /// It is that of the negative prompt, which may be empty. In one forward it precedes the row with the
    /// prompt; a forward of its own comes second, unless the cache is told otherwise.
    FirstFromNegativePrompt,
}

/// One forward's rows.
pub(crate) struct Rows<'a> {
    /// `[rows, channels, height, width]`, f32.
    pub(crate) latents: &'a Tensor,
    /// One per row.
    pub(crate) timesteps: &'a [f32],
    /// One per row: what distilled models are told.
    pub(crate) guidance_scales: &'a [f32],
    /// One per row.
    pub(crate) conditioning: &'a [&'a Conditioning],
}

impl Rows<'_> {
    /// A part of all rows' texts, `[1, ..]` each, as one tensor.
    pub(crate) fn texts(&self, part: impl Fn(&EncodedText) -> Option<&Tensor>) -> candle_core::Result<Tensor> {
        let mut parts = Vec::with_capacity(self.conditioning.len());
        for conditioning in self.conditioning {
            parts.extend(part(conditioning.text()?));
        }
        Tensor::cat(&parts, 0)
    }
}
