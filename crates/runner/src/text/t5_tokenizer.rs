//! T5's tokenizer in the files that published repositories keep it in: `tokenizer.json`, or else
//! `spiece.model`.

use tokenizers::Tokenizer;

use super::sentence_piece;
use super::tokenizer::{self, TOKENIZER_JSON, TextTokenizer};
use crate::error::RunnerError;
use crate::model_folder::ModelFolder;

/// A SentencePiece model.
const SENTENCE_PIECE: &str = "spiece.model";
/// Fills up texts.
const PADDING: &str = "<pad>";

/// The tokenizer in the folder `component`.
pub(super) fn load(folder: &ModelFolder, component: &str) -> Result<TextTokenizer, RunnerError> {
    let json = format!("{component}/{TOKENIZER_JSON}");
    let spm = format!("{component}/{SENTENCE_PIECE}");
    let (file, tokenizer) = if folder.contains(&json) {
        let tokenizer = folder.text(&json)?.parse::<Tokenizer>().map_err(|error| error.to_string());
        (TOKENIZER_JSON, tokenizer)
    } else if folder.contains(&spm) {
        (SENTENCE_PIECE, sentence_piece::t5_tokenizer(&folder.bytes(&spm)?))
    } else {
        (TOKENIZER_JSON, Err(format!("there is neither this file nor {SENTENCE_PIECE}")))
    };
    tokenizer
        .and_then(|tokenizer| TextTokenizer::new(tokenizer, PADDING))
        .map_err(|reason| tokenizer::broken(folder, component, file, reason))
}
