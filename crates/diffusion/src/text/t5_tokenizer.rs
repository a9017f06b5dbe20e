//! T5's tokenizer: pieces of words with their scores, in `tokenizer.json` or else in `spiece.model`.
//!
//! Follows transformers 5.23.0:
//!
//! * `T5Tokenizer` (lines 30-156):
//!   <https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/t5/tokenization_t5.py#L30>
//! * `T5Converter` (lines 1335-1360):
//!   <https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/convert_slow_tokenizer.py#L1335>
//!
//! How a text is split is the same for every T5, and so is built here, as transformers does, whatever
//! `tokenizer.json` says.

use afterimage_checkpoint::CheckpointError;
use afterimage_checkpoint::guard::without_panic;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Map, Value};
use tokenizers::Tokenizer;
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::Precompiled;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::processors::template::TemplateProcessing;

use super::added_tokens::AddedTokens;
use super::charsmap;
use super::sentence_piece::{self, Pieces};
use super::tokenizer::{self, SENTINEL_START, TextTokenizer};
use super::tokenizer_files::{TOKENIZER_JSON, TokenizerFiles, check_count};

/// transformers' names.
pub(super) const CLASSES: [&str; 2] = ["T5Tokenizer", "T5TokenizerFast"];

/// A SentencePiece model.
const SENTENCE_PIECE: &str = "spiece.model";
/// Stands for a space inside pieces.
const SPACE: char = '\u{2581}';
/// What ends every T5 text.
const END: &str = "</s>";
/// The place of the unknown token, fixed in transformers.
const UNKNOWN: usize = 2;
/// Special tokens of a folder that does not name them.
const SPECIAL_TOKENS: [(&str, &str); 3] = [("eos_token", END), ("unk_token", "<unk>"), ("pad_token", "<pad>")];
/// Sentinels that follow T5's pieces in the vocabulary; prompts have no use for them, but may contain them.
const SENTINELS: usize = 100;
/// Most bytes of all pieces: T5 has 0.25 MB, the library's tree of them takes up to 300 times as much.
const MAX_PIECE_BYTES: usize = 3 << 20;
/// Of one piece: T5's have up to 48. The tree has a node for each, inside the one before, and is dropped by recursion.
const MAX_BYTES_OF_A_PIECE: usize = 512;
/// Published models have up to 300.
const MAX_SENTINELS: usize = 1000;

/// The tokenizer in a folder.
pub(super) fn load(files: &TokenizerFiles<'_>) -> Result<TextTokenizer, CheckpointError> {
    files.check_padding_side()?;
    let spm = files.path(SENTENCE_PIECE);
    let (file, pieces) = if let Some(json) = &files.tokenizer {
        (TOKENIZER_JSON, pieces_of_json(json))
    } else if files.folder.contains(&spm) {
        (SENTENCE_PIECE, sentence_piece::pieces(&files.folder.bytes(&spm)?))
    } else {
        (TOKENIZER_JSON, Err(format!("there is neither this file nor {SENTENCE_PIECE}")))
    };
    of_pieces(files, file, pieces)
}

/// That of the bytes of a SentencePiece model.
#[cfg(any(test, fuzzing))]
pub(super) fn load_pieces(files: &TokenizerFiles<'_>, spm: &[u8]) -> Result<TextTokenizer, CheckpointError> {
    of_pieces(files, SENTENCE_PIECE, sentence_piece::pieces(spm))
}

/// The tokenizer of the pieces in a file.
fn of_pieces(
    files: &TokenizerFiles<'_>,
    file: &str,
    pieces: Result<Pieces, String>,
) -> Result<TextTokenizer, CheckpointError> {
    let broken = |reason: String| tokenizer::broken(files, file, reason);
    let sentinels = files.whole_number("extra_ids", SENTINELS, MAX_SENTINELS)?;
    let mut added = AddedTokens::read(files, &SPECIAL_TOKENS)?;
    let mut pieces = pieces.map_err(broken)?;
    if file == SENTENCE_PIECE {
        check_count(&files.path(file), "control and user-defined pieces", pieces.special.len())?;
        added.replace_additional(pieces.special.clone());
        pieces = with_sentinels(pieces, sentinels);
    }
    added.complete_additional(SENTINEL_START, (0..sentinels).map(sentinel));
    let finished = || {
        let mut tokenizer = build(pieces, &added)?;
        tokenizer.set_encode_special_tokens(files.splits_special_tokens());
        TextTokenizer::new(tokenizer, added.named("pad_token"), files.place(file))
    };
    without_panic(finished).flatten().map_err(broken)
}

fn sentinel(number: usize) -> String {
    format!("{SENTINEL_START}{number}>")
}

/// A SentencePiece model does not hold the sentinels.
fn with_sentinels(mut pieces: Pieces, count: usize) -> Pieces {
    pieces.vocabulary.extend((0..count).rev().map(|number| (sentinel(number), 0.0)));
    pieces
}

/// The pieces of [`TOKENIZER_JSON`].
fn pieces_of_json(json: &Map<String, Value>) -> Result<Pieces, String> {
    let part = |key: &str| json.get("model").and_then(|model| model.get(key));
    if part("type").is_some_and(|kind| !kind.is_null() && *kind != "Unigram") {
        return Err("`model.type` is something else; supported: Unigram".to_owned());
    }
    let piece = |piece: &Value| Some((piece.get(0)?.as_str()?.to_owned(), piece.get(1)?.as_f64()?));
    let vocabulary = part("vocab").and_then(Value::as_array).and_then(|pieces| pieces.iter().map(piece).collect());
    Ok(Pieces {
        vocabulary: vocabulary.ok_or("`model.vocab` is no list of pieces with their scores")?,
        normalizer: json.get("normalizer").map(precompiled).transpose()?.flatten(),
        special: Vec::new(),
    })
}

/// The one kind of normalizer that is taken over, alone or in a sequence.
fn precompiled(normalizer: &Value) -> Result<Option<Precompiled>, String> {
    let several = normalizer.get("normalizers").unwrap_or(normalizer).as_array();
    let mut normalizers = several.map_or(std::slice::from_ref(normalizer), Vec::as_slice).iter();
    match normalizers.find(|normalizer| normalizer.get("type").is_some_and(|kind| kind == "Precompiled")) {
        Some(found) => {
            let charsmap = found.get("precompiled_charsmap").and_then(Value::as_str);
            let charsmap = charsmap.ok_or("`normalizer.precompiled_charsmap` is no text in base64")?;
            let bytes =
                BASE64.decode(charsmap).map_err(|error| format!("`normalizer.precompiled_charsmap`: {error}"))?;
            charsmap::normalizer(&bytes).map(Some)
        }
        None => Ok(None),
    }
}

fn build(pieces: Pieces, added: &AddedTokens) -> Result<Tokenizer, String> {
    let bytes = pieces.vocabulary.iter().fold(0usize, |sum, (piece, _)| sum.saturating_add(piece.len()));
    if bytes > MAX_PIECE_BYTES {
        return Err(format!("its pieces have {bytes} bytes together; at most {MAX_PIECE_BYTES} are read"));
    }
    if let Some((piece, _)) = pieces.vocabulary.iter().find(|(piece, _)| piece.len() > MAX_BYTES_OF_A_PIECE) {
        return Err(format!("it has a piece of {} bytes; at most {MAX_BYTES_OF_A_PIECE} are read", piece.len()));
    }
    let eos = added.named("eos_token").to_owned();
    if !pieces.vocabulary.iter().any(|(piece, _)| *piece == eos) && !added.lists(&eos) {
        return Err(format!("it has no piece {eos}"));
    }
    let unigram = Unigram::from(pieces.vocabulary, Some(UNKNOWN), false).map_err(|error| error.to_string())?;
    let mut tokenizer = Tokenizer::new(unigram);
    if let Some(normalizer) = pieces.normalizer {
        tokenizer.with_normalizer(Some(normalizer)).map_err(|error| error.to_string())?;
    }
    let words = Metaspace::new(SPACE, PrependScheme::Always, true);
    tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![WhitespaceSplit.into(), words.into()])));
    added.add_to(&mut tokenizer)?;
    let end = tokenizer.token_to_id(&eos).unwrap_or_default();
    let template = TemplateProcessing::builder()
        .try_single(vec!["$A", END])
        .map_err(|error| error.to_string())?
        .special_tokens(vec![(END, end)])
        .build();
    tokenizer.with_post_processor(Some(template.map_err(|error| error.to_string())?));
    Ok(tokenizer)
}
