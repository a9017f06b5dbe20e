//! The half of a family that understands prompts.

use super::conditioning::Conditioning;
use super::labels::LabelPolicy;
use crate::DiffusionError;

/// Prompts to what a denoiser is conditioned on. One serves all phases of its denoiser.
///
/// What depends on the prompt alone is computed here, once per distinct prompt and device.
pub trait PromptEncoder: Send + Sync {
    /// How the model reads a prompt; fast. The policy is for models that know labels only.
    ///
    /// # Errors
    /// A message for whoever wrote the prompt.
    fn check(&self, prompt: &str, _policy: LabelPolicy) -> Result<CheckedPrompt, String> {
        Ok(CheckedPrompt::as_written(prompt))
    }

    /// What a row with this prompt is conditioned on. Slow: text encoders run.
    ///
    /// # Errors
    /// If the prompt means nothing, or a tensor operation fails.
    fn encode(&self, prompt: &str) -> Result<Conditioning, DiffusionError>;

    /// The same for a negative prompt.
    ///
    /// # Errors
    /// As [`Self::encode`].
    fn encode_negative(&self, prompt: &str) -> Result<Conditioning, DiffusionError> {
        self.encode(prompt)
    }

    /// A negative prompt is encoded in another way than a prompt of the same words.
    fn tells_negative_prompts_apart(&self) -> bool {
        false
    }

    /// The conditioning that guidance steers away from, where the request has none.
    fn unconditional(&self) -> Unconditional {
        Unconditional::FirstFromNegativePrompt
    }
}

/// A prompt as the model takes it.
#[derive(Debug)]
pub struct CheckedPrompt {
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

impl CheckedPrompt {
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
