//! A T5 encoder with its tokenizer: from a text to one vector per token.
//!
//! Follows diffusers 0.42.1:
//!
//! * pipeline_stable_diffusion_3.py: `StableDiffusion3Pipeline._get_t5_prompt_embeds` (lines 233-287):
//!   <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/pipelines/stable_diffusion_3>
//! * `FluxPipeline._get_t5_prompt_embeds` (lines 217-265):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/pipelines/flux/pipeline_flux.py#L217>
//! * pipeline_pixart_sigma.py: `PixArtSigmaPipeline.encode_prompt` (lines 247-380):
//!   <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/pipelines/pixart_alpha>

use afterimage_checkpoint::{OwnClass, Parameters, component_config};
use candle_core::Tensor;

use super::encoder_source::{EncoderSource, Recipe};
use super::prompt_limit::{PromptCut, PromptLimit};
use super::residency::Resident;
use super::t5::{self, T5Config, T5Encoder};
use super::t5_tokenizer;
use super::tokenizer::{TextTokenizer, Tokens};
use crate::DiffusionError;

/// `T5EncoderModel` and `T5Tokenizer` of a pipeline.
pub struct T5TextEncoder {
    encoder: Resident<T5Encoder>,
    tokenizer: TextTokenizer,
    source: EncoderSource,
    component: String,
    dim: usize,
}

/// What T5 makes of a text.
pub struct T5States {
    /// `[1, tokens, dim]`
    pub states: Tensor,
    /// The text's own tokens, which come first.
    pub words: usize,
    /// What did not fit.
    pub cut: Option<PromptCut>,
}

impl T5TextEncoder {
    /// Loads the components of these names.
    pub fn load(source: &EncoderSource, encoder: &str, tokenizer: &str) -> Result<Self, DiffusionError> {
        let path = format!("{encoder}/config.json");
        let config = T5Config::from_json(&path, &component_config::text(&source.folder, encoder)?)?;
        let own = OwnClass { path: &path, key: "architectures", class: config.architecture() };
        source.index.class_of(encoder, &[t5::CLASS], &own)?;
        let tokenizer = t5_tokenizer::load(&source.tokenizer(tokenizer, &t5_tokenizer::CLASSES)?)?;
        tokenizer.check_embeddings(&path, config.vocab_size())?;
        Ok(Self {
            dim: config.dim(),
            tokenizer,
            encoder: source.resident(Recipe {
                component: encoder.to_owned(),
                facts: config.facts(),
                build: move |parameters: &Parameters| T5Encoder::new(&config, parameters),
                unused: T5Encoder::UNUSED_WEIGHTS.iter().map(|name| (*name).to_owned()).collect(),
            })?,
            source: source.clone(),
            component: encoder.to_owned(),
        })
    }

    /// Size of the vectors.
    pub fn dim(&self) -> usize {
        self.dim
    }

    #[cfg(test)]
    pub(crate) fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// As [`TextTokenizer::with_all_vectors`].
    ///
    /// # Errors
    /// If the text cannot be tokenised.
    pub fn with_all_vectors(&self, text: &str) -> Result<String, DiffusionError> {
        self.tokenizer.with_all_vectors(text)
    }

    /// The states of a text, at most `max_tokens` with the one that ends it.
    ///
    /// Padding is left to the caller: tokens do not attend to it, so their states are those of a padded
    /// text under its mask.
    pub fn encode(&self, text: &str, max_tokens: usize) -> Result<T5States, DiffusionError> {
        let tokens = self.tokenizer.tokens(text, max_tokens)?;
        self.states(tokens, max_tokens, max_tokens)
    }

    /// The states of a text padded to `tokens`, which attend to the padding: a padded text without a mask.
    pub fn encode_padded(&self, text: &str, tokens: usize) -> Result<T5States, DiffusionError> {
        self.states(self.tokenizer.padded_tokens(text, tokens)?, tokens, tokens)
    }

    /// The states of a text padded to `tokens`, and of the padding, none of which attend to the padding: a padded text
    /// under its mask.
    pub fn encode_padded_under_mask(&self, text: &str, tokens: usize) -> Result<T5States, DiffusionError> {
        let words = self.tokenizer.tokens(text, tokens)?.ids.len();
        let padded = self.tokenizer.padded_tokens(text, tokens)?;
        Ok(T5States { words, ..self.states(padded, words, tokens)? })
    }

    /// What is said of texts that are cut at `max_tokens`.
    pub fn limit(&self, max_tokens: usize) -> PromptLimit {
        PromptLimit { encoder: "T5", component: self.component.clone(), max_tokens }
    }

    /// Of tokens of which the first `visible` are attended to.
    fn states(&self, tokens: Tokens, visible: usize, max_tokens: usize) -> Result<T5States, DiffusionError> {
        let words = tokens.ids.len();
        let states = self.encoder.with(|encoder| Ok(encoder.forward(&tokens.ids, visible)?))?;
        let cut = self.limit(max_tokens).cut(tokens.cut);
        Ok(T5States { states: self.source.hand_over(&states)?, words, cut })
    }
}
