//! Text encoders and their tokenizers, as transformers lays them out beside a diffusers pipeline.

mod added_tokens;
mod bert;
mod bert_text_encoder;
mod bert_tokenizer;
mod byte_pairs;
mod charsmap;
mod chat_template;
mod clip;
mod clip_text_encoder;
mod clip_tokenizer;
mod decoder;
#[cfg(test)]
mod decoder_goldens;
mod decoder_text_encoder;
mod encoder_source;
mod ends;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod gemma_tokenizer;
#[cfg(test)]
mod gguf_tests;
#[cfg(test)]
mod goldens;
#[cfg(test)]
mod hostile;
mod mistral_tokenizer;
mod prompt_limit;
mod qwen_tokenizer;
mod residency;
mod sentence_piece;
mod t5;
mod t5_text_encoder;
mod t5_tokenizer;
mod tokenizer;
mod tokenizer_files;

use afterimage_checkpoint::Parameters;

use self::bert::{BertConfig, BertModel};
use self::clip::{ClipTextConfig, ClipTextModel};
use self::decoder::{Decoder, DecoderConfig, Taps};
use self::t5::{T5Config, T5Encoder};
use crate::DiffusionError;

pub use bert_text_encoder::{BertStates, BertTextEncoder};
pub use chat_template::ChatTemplate;
pub use clip::ClipClass;
pub use clip_text_encoder::ClipTextEncoder;
pub use decoder::DecoderKind;
pub use decoder_text_encoder::{DecoderParts, DecoderStates, DecoderTextEncoder};
pub use encoder_source::EncoderSource;
pub use prompt_limit::{PromptCut, PromptLimit};
pub use residency::{Offload, Residency, Stay};
pub use t5_text_encoder::{T5States, T5TextEncoder};
pub use tokenizer::{TextTokenizer, Tokens};

/// The tokenizer of a component alone, such as `tokenizer_2`; of its classes the one that `model_index.json` names.
///
/// # Errors
/// It has another class, or one of its files is damaged.
pub fn tokenizer_of(source: &EncoderSource, component: &str) -> Result<TextTokenizer, DiffusionError> {
    if let Ok(files) = source.tokenizer(component, &clip_tokenizer::CLASSES) {
        return Ok(clip_tokenizer::load(&files)?);
    }
    if let Ok(files) = source.tokenizer(component, &qwen_tokenizer::CLASSES) {
        return Ok(qwen_tokenizer::load(&files)?);
    }
    if let Ok(files) = source.tokenizer(component, &gemma_tokenizer::CLASSES) {
        return Ok(gemma_tokenizer::load(&files)?);
    }
    if let Ok(files) = source.tokenizer(component, &bert_tokenizer::CLASSES) {
        return Ok(bert_tokenizer::load(&files)?);
    }
    Ok(t5_tokenizer::load(&source.tokenizer(component, &t5_tokenizer::CLASSES)?)?)
}

/// Builds the text encoder of this class and configuration and drops it: it has asked for its parameters. False if there
/// is none of the class.
///
/// # Errors
/// The configuration cannot be served.
pub(crate) fn build_encoder(class: &str, config: &str, parameters: &Parameters) -> Result<bool, DiffusionError> {
    const PATH: &str = "config.json";

    if class == t5::CLASS {
        T5Encoder::new(&T5Config::from_json(PATH, config)?, parameters)?;
        return Ok(true);
    }
    if let Some(kind) = DecoderKind::ALL.into_iter().find(|kind| kind.classes().contains(&class)) {
        let config = DecoderConfig::from_json(kind, PATH, config)?;
        Decoder::new(&config, &Taps::all(config.layers()), parameters)?;
        return Ok(true);
    }
    if class == bert::CLASS {
        BertModel::new(&BertConfig::from_json(PATH, config)?, parameters)?;
        return Ok(true);
    }
    let Some(class) = ClipClass::named(class) else { return Ok(false) };
    let config = ClipTextConfig::from_json(PATH, config)?;
    ClipTextModel::new(&config, config.projection_dim(PATH, class)?, parameters)?;
    Ok(true)
}
