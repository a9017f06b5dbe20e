//! A decoder with its tokenizer: from a text to hidden states of chosen layers.
//!
//! Follows diffusers 0.42.1:
//!
//! * `ZImagePipeline._encode_prompt`:
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/pipelines/z_image/pipeline_z_image.py>
//! * `Flux2KleinPipeline._get_qwen3_prompt_embeds`:
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/pipelines/flux2/pipeline_flux2_klein.py>
//! * `SanaPipeline._get_gemma_prompt_embeds`:
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/pipelines/sana/pipeline_sana.py>

use std::ops::Range;

use afterimage_checkpoint::{OwnClass, Parameters, component_config};
use candle_core::Tensor;
use serde_json::Value;

use super::chat_template::ChatTemplate;
use super::decoder::{self, Decoder, DecoderConfig, DecoderKind, Taps};
use super::encoder_source::{EncoderSource, Recipe};
use super::prompt_limit::{PromptCut, PromptLimit};
use super::residency::Resident;
use super::tokenizer::TextTokenizer;
use super::tokenizer_files::TokenizerFiles;
use super::{gemma_tokenizer, mistral_tokenizer, qwen_tokenizer};
use crate::DiffusionError;

/// What a decoder is loaded as.
#[derive(Debug, Clone, Copy)]
pub struct DecoderParts<'a> {
    /// Which it must be.
    pub kind: DecoderKind,
    /// Its folder.
    pub encoder: &'a str,
    /// Its tokenizer's folder.
    pub tokenizer: &'a str,
    /// Which hidden states are read, in transformers' numbers: 0 is the embeddings, -1 the last, which is normed. Several
    /// stand side by side in this order.
    pub hidden_states: &'a [isize],
}

/// A decoder and a tokenizer of a pipeline.
pub struct DecoderTextEncoder {
    decoder: Resident<Decoder>,
    tokenizer: TextTokenizer,
    source: EncoderSource,
    component: String,
    kind: DecoderKind,
    dim: usize,
}

/// What a decoder makes of a text.
pub struct DecoderStates {
    /// `[1, tokens, dim]`
    pub states: Tensor,
    /// Of these so many are the text's; the others are padding.
    pub length: usize,
    /// What did not fit.
    pub cut: Option<PromptCut>,
}

impl DecoderTextEncoder {
    /// Loads the components of these names.
    ///
    /// # Errors
    /// They are of other classes, damaged, or have no such hidden states.
    pub fn load(source: &EncoderSource, parts: &DecoderParts<'_>) -> Result<Self, DiffusionError> {
        let DecoderParts { kind, encoder, .. } = *parts;
        let path = format!("{encoder}/config.json");
        let text = component_config::text(&source.folder, encoder)?;
        let class = own_class(&path, &text)?;
        let own = OwnClass { path: &path, key: "architectures", class: class.as_deref() };
        source.index.class_of(encoder, kind.classes(), &own)?;
        let config = DecoderConfig::from_json(kind, &path, &text)?;
        let taps = Taps::new(parts.hidden_states, config.layers()).ok_or_else(|| DiffusionError::Mismatch {
            model: source.folder.id().to_owned(),
            reason: format!("{encoder} has {} layers; states {:?} are read", config.layers(), parts.hidden_states),
        })?;
        let tokenizer = tokenizer(source, parts)?;
        tokenizer.check_embeddings(&path, config.vocab_size())?;
        Ok(Self {
            dim: config.hidden_size() * taps.count(),
            tokenizer,
            decoder: source.resident(Recipe {
                component: encoder.to_owned(),
                unused: decoder::unread(&taps, config.layers()),
                facts: config.facts(),
                build: move |parameters: &Parameters| Decoder::new(&config, &taps, parameters),
            })?,
            source: source.clone(),
            component: encoder.to_owned(),
            kind,
        })
    }

    /// Layers of the decoder in a component and the size of one hidden state, which can be known before it is loaded.
    ///
    /// # Errors
    /// Its configuration is damaged.
    pub fn layers_and_size(
        source: &EncoderSource,
        kind: DecoderKind,
        encoder: &str,
    ) -> Result<(usize, usize), DiffusionError> {
        let text = component_config::text(&source.folder, encoder)?;
        let config = DecoderConfig::from_json(kind, &format!("{encoder}/config.json"), &text)?;
        Ok((config.layers(), config.hidden_size()))
    }

    /// Size of a token's vector: of all hidden states that are read together.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// What texts become tokens with.
    pub fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// What is said of texts that are cut at `max_tokens`.
    pub fn limit(&self, max_tokens: usize) -> PromptLimit {
        PromptLimit { encoder: self.kind.name(), component: self.component.clone(), max_tokens }
    }

    /// The states of a text, at most `max_tokens`, without padding, on which no token before it depends.
    pub fn encode(&self, text: &str, max_tokens: usize) -> Result<DecoderStates, DiffusionError> {
        let tokens = self.tokenizer.tokens(text, max_tokens)?;
        let text = 0..tokens.ids.len();
        self.states(tokens.ids, text, self.limit(max_tokens).cut(tokens.cut))
    }

    /// The states of a prompt in a template, at most `max_tokens` with it. What is cut of the template behind the prompt is no
    /// loss; `limit` is what is said of the rest.
    ///
    /// # Errors
    /// If the text cannot be tokenised, or a tensor operation fails.
    pub fn encode_in(
        &self,
        template: &ChatTemplate,
        prompt: &str,
        max_tokens: usize,
        limit: &PromptLimit,
    ) -> Result<DecoderStates, DiffusionError> {
        let tokens = self.tokenizer.tokens(&template.apply(prompt), max_tokens)?;
        let behind = self.tokenizer.tokens(template.behind, usize::MAX)?.ids.len();
        let text = 0..tokens.ids.len();
        self.states(tokens.ids, text, limit.cut(tokens.cut.saturating_sub(behind)))
    }

    /// The states of a text that is padded to `tokens`, at its end or its beginning as its tokenizer does it. Padding is not
    /// attended to; behind a text it attends to that, before one to nothing.
    pub fn encode_padded(&self, text: &str, tokens: usize) -> Result<DecoderStates, DiffusionError> {
        let padded = self.tokenizer.padded_tokens(text, tokens)?;
        let length = self.tokenizer.tokens(text, tokens)?.ids.len();
        let text = self.tokenizer.place_of_text(length, tokens);
        self.states(padded.ids, text, self.limit(tokens).cut(padded.cut))
    }

    fn states(
        &self,
        ids: Vec<u32>,
        text: Range<usize>,
        cut: Option<PromptCut>,
    ) -> Result<DecoderStates, DiffusionError> {
        let states = self.decoder.with(|decoder| Ok(decoder.forward(&ids, std::slice::from_ref(&text))?))?;
        Ok(DecoderStates { states: self.source.hand_over(&states)?, length: text.len(), cut })
    }
}

/// The class that the configuration names.
fn own_class(path: &str, text: &str) -> Result<Option<String>, DiffusionError> {
    let keys = component_config::object(path, text)?;
    Ok(keys.get("architectures").and_then(|classes| classes.get(0)).and_then(Value::as_str).map(str::to_owned))
}

fn tokenizer(source: &EncoderSource, parts: &DecoderParts<'_>) -> Result<TextTokenizer, DiffusionError> {
    let class = source.index.component(parts.tokenizer).map(str::to_owned);
    let class = match class {
        Some(class) => Some(class),
        None => TokenizerFiles::open(&source.folder, parts.tokenizer)?.class().map(str::to_owned),
    };
    let is_mistral = class.is_some_and(|class| mistral_tokenizer::CLASSES.contains(&class.as_str()));
    Ok(match parts.kind {
        DecoderKind::Mistral if is_mistral => {
            mistral_tokenizer::load(&source.tokenizer(parts.tokenizer, &mistral_tokenizer::CLASSES)?)?
        }
        DecoderKind::Gemma2 => gemma_tokenizer::load(&source.tokenizer(parts.tokenizer, &gemma_tokenizer::CLASSES)?)?,
        _ => qwen_tokenizer::load(&source.tokenizer(parts.tokenizer, &qwen_tokenizer::CLASSES)?)?,
    })
}
