//! From a text to token ids, whatever the tokenizer.
//!
//! Follows diffusers 0.42.1:
//!
//! * `TextualInversionLoaderMixin.maybe_convert_prompt` (lines 123-148) and `_maybe_convert_prompt` (150-178):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/loaders/textual_inversion.py#L123>
//!
//! and transformers 5.23.0:
//!
//! * `TokenizersBackend.set_truncation_and_padding` (lines 897-970):
//!   <https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/tokenization_utils_tokenizers.py#L897>

use std::ops::Range;

use afterimage_checkpoint::guard::without_panic;
use afterimage_checkpoint::{CheckpointError, component_config};
use tokenizers::{Tokenizer, TruncationDirection};

use super::tokenizer_files::TokenizerFiles;

use crate::DiffusionError;

/// What T5's sentinels start with.
pub(super) const SENTINEL_START: &str = "<extra_id_";

/// Most bytes of a text after its words of textual inversion stand for all of their vectors. Encoders read 512
/// tokens; the words' names are the model's, and could make gigabytes of a line.
const MAX_EXPANDED_BYTES: usize = 1 << 20;

/// A tokenizer without a length of its own.
pub struct TextTokenizer {
    tokenizer: Tokenizer,
    /// Model and file, for errors.
    place: String,
    /// Tokens of an empty text.
    specials: usize,
    padding: u32,
    /// It stands before a text.
    pads_first: bool,
}

/// A text as token ids.
#[derive(Debug, PartialEq, Eq)]
pub struct Tokens {
    /// With special tokens.
    pub ids: Vec<u32>,
    /// Tokens that did not fit.
    pub cut: usize,
}

impl TextTokenizer {
    /// `padding` is the token that fills up texts, `place` names model and file.
    ///
    /// # Errors
    /// What is wrong with the tokenizer.
    pub(super) fn new(mut tokenizer: Tokenizer, padding: &str, place: String) -> Result<Self, String> {
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| error.to_string())?;
        let specials = tokenizer.encode_fast("", true).map_err(|error| error.to_string())?.len();
        let id = tokenizer.token_to_id(padding);
        let padding = id.ok_or_else(|| format!("the padding token `{padding}` is not in the vocabulary"))?;
        Ok(Self { tokenizer, place, specials, padding, pads_first: false })
    }

    /// With padding before a text, where `pads_first`.
    pub(super) fn padding_first(self, pads_first: bool) -> Self {
        Self { pads_first, ..self }
    }

    /// Where a text of so many tokens stands among as many as it is padded to.
    pub(super) fn place_of_text(&self, length: usize, padded: usize) -> Range<usize> {
        if self.pads_first { padded - length..padded } else { 0..length }
    }

    /// The ids of a text with its special tokens, at most `max_tokens` of them.
    ///
    /// # Errors
    /// If the text cannot be tokenised.
    pub fn tokens(&self, text: &str, max_tokens: usize) -> Result<Tokens, DiffusionError> {
        self.guarded(|| {
            let mut words = self.tokenizer.encode_fast(text, false)?;
            let room = max_tokens.saturating_sub(self.specials);
            let cut = words.len().saturating_sub(room);
            words.truncate(room, 0, TruncationDirection::Right);
            let encoding = self.tokenizer.post_process(words, None, true)?;
            Ok(Tokens { ids: encoding.get_ids().to_vec(), cut })
        })
    }

    /// The library believes what the files say: what it trips over is an error that names them.
    fn guarded<T>(&self, operation: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, DiffusionError> {
        let fail =
            |reason: String| DiffusionError::Prompt(format!("{}: cannot tokenise the prompt: {reason}", self.place));
        match without_panic(operation) {
            Ok(result) => result.map_err(|error| fail(error.to_string())),
            Err(panic) => Err(fail(panic)),
        }
    }

    /// The same, padded to `tokens` ids.
    ///
    /// # Errors
    /// As [`Self::tokens`].
    pub(crate) fn padded_tokens(&self, text: &str, tokens: usize) -> Result<Tokens, DiffusionError> {
        let Tokens { mut ids, cut } = self.tokens(text, tokens)?;
        let padding = tokens - ids.len();
        ids.resize(tokens, self.padding);
        if self.pads_first {
            ids.rotate_right(padding);
        }
        Ok(Tokens { ids, cut })
    }

    /// A text in which a word of textual inversion that was trained as several tokens stands for all of
    /// them: `<cat>` becomes `<cat> <cat>_1 <cat>_2`, as in diffusers' `maybe_convert_prompt`.
    ///
    /// # Errors
    /// As [`Self::tokens`].
    pub(super) fn with_all_vectors(&self, text: &str) -> Result<String, DiffusionError> {
        let added = self.tokenizer.get_added_vocabulary().get_vocab();
        let encoding = self.guarded(|| self.tokenizer.encode(text, false))?;
        let mut text = text.to_owned();
        let mut seen: Vec<&String> = Vec::new();
        for token in encoding.get_tokens().iter().filter(|token| added.contains_key(*token)) {
            if seen.contains(&token) {
                continue;
            }
            let further: Vec<_> =
                (1..).map(|number| format!("{token}_{number}")).take_while(|name| added.contains_key(name)).collect();
            if !further.is_empty() {
                let all = format!("{token} {}", further.join(" "));
                let added_bytes = text.matches(token.as_str()).count().saturating_mul(all.len() - token.len());
                if text.len().saturating_add(added_bytes) > MAX_EXPANDED_BYTES {
                    let place = &self.place;
                    return Err(DiffusionError::Prompt(format!(
                        "{place}: the words of the prompt stand for more than {MAX_EXPANDED_BYTES} bytes of text"
                    )));
                }
                text = text.replace(token.as_str(), &all);
                seen.push(token);
            }
        }
        Ok(text)
    }

    /// Refuses an encoder that has no embedding for a token, but for sentinels, which no prompt is made of;
    /// `path` is its configuration's.
    ///
    /// # Errors
    /// Names the token.
    pub(super) fn check_embeddings(&self, path: &str, vocab_size: usize) -> Result<(), CheckpointError> {
        let tokens = self.tokenizer.get_vocab(true);
        let beyond = |(token, id): &(&String, &u32)| **id as usize >= vocab_size && !token.starts_with(SENTINEL_START);
        let Some((token, id)) = tokens.iter().filter(beyond).max_by_key(|(_, id)| **id) else { return Ok(()) };
        let right = format!("at least {}, since the tokenizer gives `{token}` the number {id}", id + 1);
        Err(component_config::unsupported(path, "vocab_size", &vocab_size.to_string(), &right))
    }
}

/// A file of a tokenizer is not what it should be.
pub(super) fn broken(files: &TokenizerFiles<'_>, file: &str, reason: impl ToString) -> CheckpointError {
    CheckpointError::config(files.place(file), reason.to_string())
}
