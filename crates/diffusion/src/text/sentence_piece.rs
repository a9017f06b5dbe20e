//! SentencePiece models (`spiece.model`).
//!
//! Follows transformers 5.23.0, `SentencePieceExtractor` (lines 146-196) and `SpmConverter.convert_from_spm` (687-695):
//! <https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/convert_slow_tokenizer.py#L146>
//!
//! The file is a protocol buffer; only what a unigram tokenizer needs of it is read
//! (<https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto>).

use prost::Message;
use tokenizers::AddedToken;
use tokenizers::normalizers::Precompiled;

use super::charsmap;

/// `model_type` of unigram models.
const UNIGRAM: i32 = 1;
/// `type` of control pieces, which are special ...
const CONTROL: i32 = 3;
/// ... and of those that a model's makers asked for.
const USER_DEFINED: i32 = 4;

/// Pieces of words with their scores.
pub(super) struct Pieces {
    pub(super) vocabulary: Vec<(String, f64)>,
    pub(super) normalizer: Option<Precompiled>,
    /// Pieces that are found in a text as they are written.
    pub(super) special: Vec<AddedToken>,
}

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(message, repeated, tag = "1")]
    pieces: Vec<Piece>,
    #[prost(message, optional, tag = "2")]
    trainer: Option<TrainerSpec>,
    #[prost(message, optional, tag = "3")]
    normalizer: Option<NormalizerSpec>,
}

#[derive(Clone, PartialEq, Message)]
struct Piece {
    #[prost(string, optional, tag = "1")]
    piece: Option<String>,
    #[prost(float, optional, tag = "2")]
    score: Option<f32>,
    #[prost(int32, optional, tag = "3")]
    kind: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct TrainerSpec {
    #[prost(int32, optional, tag = "3")]
    model_type: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct NormalizerSpec {
    #[prost(bytes = "vec", optional, tag = "2")]
    precompiled_charsmap: Option<Vec<u8>>,
}

/// The pieces of a file.
///
/// # Errors
/// What is wrong with the file.
pub(super) fn pieces(file: &[u8]) -> Result<Pieces, String> {
    let model = ModelProto::decode(file).map_err(|error| format!("not a SentencePiece model: {error}"))?;
    let trainer = model.trainer.unwrap_or_default();
    if let Some(kind) = trainer.model_type.filter(|kind| *kind != UNIGRAM) {
        return Err(format!("the SentencePiece model is of type {kind}; supported: {UNIGRAM} (unigram)"));
    }
    let charsmap = model.normalizer.and_then(|normalizer| normalizer.precompiled_charsmap);
    let charsmap = charsmap.filter(|charsmap| !charsmap.is_empty());
    let normalizer = charsmap.map(|charsmap| charsmap::normalizer(&charsmap)).transpose()?;
    Ok(Pieces {
        special: model.pieces.iter().filter_map(Piece::special).collect(),
        vocabulary: model.pieces.into_iter().map(Piece::scored).collect(),
        normalizer,
    })
}

impl Piece {
    fn special(&self) -> Option<AddedToken> {
        let kind = self.kind.filter(|kind| [CONTROL, USER_DEFINED].contains(kind))?;
        Some(AddedToken::from(self.piece.as_deref()?, kind == CONTROL).normalized(false))
    }

    fn scored(self) -> (String, f64) {
        (self.piece.unwrap_or_default(), f64::from(self.score.unwrap_or_default()))
    }
}
