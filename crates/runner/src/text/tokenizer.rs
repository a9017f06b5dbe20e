//! Tokenizers in the forms that published repositories keep them in.

use tokenizers::Tokenizer;

use super::sentence_piece;
use crate::error::RunnerError;
use crate::model_folder::ModelFolder;

/// The file of the tokenizers library.
const TOKENIZER_JSON: &str = "tokenizer.json";
/// A SentencePiece model.
const SENTENCE_PIECE: &str = "spiece.model";

/// A tokenizer without padding and without a length of its own.
pub(crate) struct TextTokenizer {
    tokenizer: Tokenizer,
    /// Tokens of an empty text.
    specials: usize,
}

/// A text as token ids.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Tokens {
    pub(crate) ids: Vec<u32>,
    /// Tokens that did not fit.
    pub(crate) cut: usize,
}

impl TextTokenizer {
    /// That of a T5 encoder: `tokenizer.json`, or else `spiece.model`.
    pub(crate) fn t5(folder: &ModelFolder, component: &str) -> Result<Self, RunnerError> {
        let fail =
            |file: &str, reason: &str| RunnerError::Model(format!("{}: {component}/{file}: {reason}", folder.id()));
        let json = format!("{component}/{TOKENIZER_JSON}");
        let spm = format!("{component}/{SENTENCE_PIECE}");
        if folder.contains(&json) {
            let tokenizer = folder.text(&json)?.parse::<Tokenizer>();
            return Self::new(tokenizer.map_err(|error| fail(TOKENIZER_JSON, &error.to_string()))?);
        }
        if folder.contains(&spm) {
            let tokenizer = sentence_piece::t5_tokenizer(&folder.bytes(&spm)?);
            return Self::new(tokenizer.map_err(|error| fail(SENTENCE_PIECE, &error))?);
        }
        Err(fail(TOKENIZER_JSON, "there is neither this file nor spiece.model"))
    }

    fn new(mut tokenizer: Tokenizer) -> Result<Self, RunnerError> {
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|error| RunnerError::Model(error.to_string()))?;
        let specials = tokenizer.encode_fast("", true).map_err(|error| RunnerError::Model(error.to_string()))?.len();
        Ok(Self { tokenizer, specials })
    }

    /// The ids of a text with its special tokens, at most `max_tokens` of them.
    ///
    /// # Errors
    /// If the text cannot be tokenised.
    pub(crate) fn tokens(&self, text: &str, max_tokens: usize) -> Result<Tokens, RunnerError> {
        let fail = |error: tokenizers::Error| RunnerError::Model(format!("cannot tokenise the prompt: {error}"));
        let words = self.tokenizer.encode_fast(text, false).map_err(fail)?;
        let room = max_tokens.saturating_sub(self.specials);
        let cut = words.len().saturating_sub(room);
        let mut words = words;
        words.truncate(room, 0, tokenizers::TruncationDirection::Right);
        let encoding = self.tokenizer.post_process(words, None, true).map_err(fail)?;
        Ok(Tokens { ids: encoding.get_ids().to_vec(), cut })
    }
}
