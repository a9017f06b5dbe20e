//! From a text to token ids, whatever the tokenizer.

use tokenizers::{Tokenizer, TruncationDirection};

use crate::error::RunnerError;
use crate::model_folder::ModelFolder;

/// The file of the tokenizers library.
pub(super) const TOKENIZER_JSON: &str = "tokenizer.json";

/// A tokenizer without a length of its own.
pub(crate) struct TextTokenizer {
    tokenizer: Tokenizer,
    /// Tokens of an empty text.
    specials: usize,
    padding: u32,
}

/// A text as token ids.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub(crate) ids: Vec<u32>,
    /// Tokens that did not fit.
    pub(crate) cut: usize,
}

impl TextTokenizer {
    /// `padding` is the token that fills up texts.
    ///
    /// # Errors
    /// What is wrong with the tokenizer.
    pub(super) fn new(mut tokenizer: Tokenizer, padding: &str) -> Result<Self, String> {
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| error.to_string())?;
        let specials = tokenizer.encode_fast("", true).map_err(|error| error.to_string())?.len();
        let id = tokenizer.token_to_id(padding);
        let padding = id.ok_or_else(|| format!("the padding token `{padding}` is not in the vocabulary"))?;
        Ok(Self { tokenizer, specials, padding })
    }

    /// The ids of a text with its special tokens, at most `max_tokens` of them.
    ///
    /// # Errors
    /// If the text cannot be tokenised.
    pub(crate) fn tokens(&self, text: &str, max_tokens: usize) -> Result<Tokens, RunnerError> {
        let fail = |error: tokenizers::Error| RunnerError::Model(format!("cannot tokenise the prompt: {error}"));
        let mut words = self.tokenizer.encode_fast(text, false).map_err(fail)?;
        let room = max_tokens.saturating_sub(self.specials);
        let cut = words.len().saturating_sub(room);
        words.truncate(room, 0, TruncationDirection::Right);
        let encoding = self.tokenizer.post_process(words, None, true).map_err(fail)?;
        Ok(Tokens { ids: encoding.get_ids().to_vec(), cut })
    }

    /// The same, padded to `tokens` ids.
    ///
    /// # Errors
    /// As [`Self::tokens`].
    pub(crate) fn padded_tokens(&self, text: &str, tokens: usize) -> Result<Tokens, RunnerError> {
        let Tokens { mut ids, cut } = self.tokens(text, tokens)?;
        ids.resize(tokens, self.padding);
        Ok(Tokens { ids, cut })
    }
}

/// A file of a tokenizer is not what it should be.
pub(super) fn broken(folder: &ModelFolder, component: &str, file: &str, reason: impl ToString) -> RunnerError {
    RunnerError::Model(format!("{}: {component}/{file}: {}", folder.id(), reason.to_string()))
}
