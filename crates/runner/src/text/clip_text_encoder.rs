//! A CLIP text model with its tokenizer: from a text to one vector per token and one for the whole.

use candle_core::Tensor;

use super::clip::{ClipOutput, ClipTextConfig, ClipTextModel};
use super::clip_tokenizer;
use super::encoder_source::{EncoderSource, Recipe};
use super::prompt_limit::{PromptCut, PromptLimit};
use super::residency::Resident;
use super::tokenizer::TextTokenizer;
use crate::error::RunnerError;
use crate::weights::Parameters;

/// `CLIPTextModel` or `CLIPTextModelWithProjection` and `CLIPTokenizer` of a pipeline.
pub(crate) struct ClipTextEncoder {
    model: Resident<ClipTextModel>,
    tokenizer: TextTokenizer,
    source: EncoderSource,
    limit: PromptLimit,
    dim: usize,
    pooled_dim: usize,
}

/// What CLIP makes of a text.
pub(crate) struct ClipStates {
    /// `[1, max_tokens, dim]`: states after the last layer but one, without the final norm, padding included.
    pub(crate) penultimate: Tensor,
    /// `[1, pooled_dim]`: the last layer's state of the first end token behind the final norm, projected where
    /// the model's class says so.
    pub(crate) pooled: Tensor,
    /// What did not fit.
    pub(crate) cut: Option<PromptCut>,
}

impl ClipTextEncoder {
    /// Loads the components of these names.
    pub(crate) fn load(source: &EncoderSource, encoder: &str, tokenizer: &str) -> Result<Self, RunnerError> {
        let folder = &source.folder;
        let path = format!("{encoder}/config.json");
        let config = ClipTextConfig::from_json(&path, &folder.text(&path)?)?;
        let max_tokens = clip_tokenizer::max_tokens(folder, tokenizer)?.unwrap_or(usize::MAX);
        let tokenizer = clip_tokenizer::load(folder, tokenizer)?;
        config.check_end(&path, &tokenizer.tokens("", config.max_tokens())?.ids)?;
        Ok(Self {
            tokenizer,
            limit: PromptLimit {
                encoder: "CLIP",
                component: encoder.to_owned(),
                max_tokens: max_tokens.min(config.max_tokens()),
            },
            dim: config.dim(),
            pooled_dim: config.pooled_dim(),
            model: source.resident(Recipe {
                component: encoder.to_owned(),
                build: move |parameters: &Parameters| ClipTextModel::new(&config, parameters),
                unused: ClipTextModel::UNUSED_WEIGHTS,
            })?,
            source: source.clone(),
        })
    }

    /// Size of a token's state.
    pub(crate) fn dim(&self) -> usize {
        self.dim
    }

    /// Size of the pooled output.
    pub(crate) fn pooled_dim(&self) -> usize {
        self.pooled_dim
    }

    /// Tokens of every text: shorter ones are padded, longer ones cut.
    pub(crate) fn limit(&self) -> &PromptLimit {
        &self.limit
    }

    #[cfg(test)]
    pub(super) fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// The states of a text.
    pub(crate) fn encode(&self, text: &str) -> Result<ClipStates, RunnerError> {
        let tokens = self.tokenizer.padded_tokens(text, self.limit.max_tokens)?;
        let ClipOutput { penultimate, pooled } = self.model.with(|model| Ok(model.forward(&tokens.ids)?))?;
        let (penultimate, pooled) = (self.source.hand_over(&penultimate)?, self.source.hand_over(&pooled)?);
        Ok(ClipStates { penultimate, pooled, cut: self.limit.cut(tokens.cut) })
    }
}
