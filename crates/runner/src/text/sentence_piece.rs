//! SentencePiece models (`spiece.model`) as tokenizers.
//!
//! The file is a protocol buffer; only what a unigram tokenizer needs of it is read
//! (<https://github.com/google/sentencepiece/blob/master/src/sentencepiece_model.proto>).

use prost::Message;
use tokenizers::models::unigram::Unigram;
use tokenizers::normalizers::Precompiled;
use tokenizers::pre_tokenizers::metaspace::{Metaspace, PrependScheme};
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::whitespace::WhitespaceSplit;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Tokenizer};

/// `model_type` of unigram models.
const UNIGRAM: i32 = 1;
/// Stands for a space inside pieces.
const SPACE: char = '\u{2581}';
/// What ends every T5 text.
const END: &str = "</s>";
/// Sentinels that T5 keeps behind its pieces; prompts do not use them, but they may be written there.
const SENTINELS: usize = 100;
/// `type` of control pieces.
const CONTROL: i32 = 3;

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
    #[prost(int32, optional, tag = "40")]
    unk_id: Option<i32>,
}

#[derive(Clone, PartialEq, Message)]
struct NormalizerSpec {
    #[prost(bytes = "vec", optional, tag = "2")]
    precompiled_charsmap: Option<Vec<u8>>,
}

/// T5's tokenizer over the pieces of a file.
///
/// # Errors
/// What is wrong with the file.
pub(super) fn t5_tokenizer(file: &[u8]) -> Result<Tokenizer, String> {
    let model = ModelProto::decode(file).map_err(|error| format!("not a SentencePiece model: {error}"))?;
    let trainer = model.trainer.unwrap_or_default();
    if let Some(kind) = trainer.model_type.filter(|kind| *kind != UNIGRAM) {
        return Err(format!("the SentencePiece model is of type {kind}; supported: {UNIGRAM} (unigram)"));
    }
    let controls = model.pieces.iter().filter(|piece| piece.kind == Some(CONTROL)).cloned();
    let mut specials: Vec<_> = controls.filter_map(|piece| piece.piece).collect();
    let mut vocabulary: Vec<(String, f64)> = model
        .pieces
        .into_iter()
        .map(|piece| (piece.piece.unwrap_or_default(), f64::from(piece.score.unwrap_or_default())))
        .collect();
    let sentinels: Vec<_> = (0..SENTINELS).rev().map(|index| format!("<extra_id_{index}>")).collect();
    vocabulary.extend(sentinels.iter().map(|sentinel| (sentinel.clone(), 0.0)));
    specials.extend(sentinels);
    let end = vocabulary.iter().position(|(piece, _)| piece == END).ok_or("it has no piece </s>")? as u32;
    let unknown = usize::try_from(trainer.unk_id.unwrap_or_default()).map_err(|error| error.to_string())?;
    let unigram = Unigram::from(vocabulary, Some(unknown), false).map_err(|error| error.to_string())?;

    let mut tokenizer = Tokenizer::new(unigram);
    let charsmap = model.normalizer.and_then(|normalizer| normalizer.precompiled_charsmap);
    if let Some(charsmap) = charsmap.filter(|charsmap| !charsmap.is_empty()) {
        let normalizer = Precompiled::from(&charsmap).map_err(|error| error.to_string())?;
        tokenizer.with_normalizer(Some(normalizer)).map_err(|error| error.to_string())?;
    }
    let words = Metaspace::new(SPACE, PrependScheme::Always, true);
    tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![WhitespaceSplit.into(), words.into()])));
    let template = TemplateProcessing::builder()
        .try_single(vec!["$A", END])
        .map_err(|error| error.to_string())?
        .special_tokens(vec![(END, end)])
        .build();
    tokenizer.with_post_processor(Some(template.map_err(|error| error.to_string())?));
    let specials: Vec<_> = specials.into_iter().map(|special| AddedToken::from(special, true)).collect();
    tokenizer.add_special_tokens(specials).map_err(|error| error.to_string())?;
    Ok(tokenizer)
}
