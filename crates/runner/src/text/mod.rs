//! Text encoders and their tokenizers, as transformers lays them out beside a diffusers pipeline.

mod added_tokens;
mod clip;
mod clip_text_encoder;
mod clip_tokenizer;
mod encoder_source;
#[cfg(test)]
mod goldens;
mod prompt_limit;
mod residency;
mod sentence_piece;
mod t5;
mod t5_text_encoder;
mod t5_tokenizer;
mod tokenizer;
mod tokenizer_files;

pub(crate) use clip::ClipClass;
pub(crate) use clip_text_encoder::ClipTextEncoder;
pub(crate) use encoder_source::EncoderSource;
pub(crate) use prompt_limit::PromptCut;
pub use prompt_limit::PromptLimit;
pub use residency::Offload;
pub(crate) use residency::Residency;
pub(crate) use t5_text_encoder::{T5States, T5TextEncoder};

/// The tokenizer in a folder whose class is as its encoder's.
#[cfg(test)]
pub(crate) fn tokenizer_of(source: &EncoderSource, component: &str) -> tokenizer::TextTokenizer {
    match source.tokenizer(component, &clip_tokenizer::CLASSES) {
        Ok(files) => clip_tokenizer::load(&files).unwrap(),
        Err(_) => t5_tokenizer::load(&source.tokenizer(component, &t5_tokenizer::CLASSES).unwrap()).unwrap(),
    }
}
