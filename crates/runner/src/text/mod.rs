//! Text encoders and their tokenizers, as transformers lays them out beside a diffusers pipeline.

mod clip;
mod clip_text_encoder;
mod clip_tokenizer;
#[cfg(test)]
mod goldens;
mod sentence_piece;
mod t5;
mod t5_text_encoder;
mod t5_tokenizer;
mod tokenizer;

#[allow(unused_imports, reason = "the families that read it come next")]
pub(crate) use clip_text_encoder::{ClipStates, ClipTextEncoder};
pub(crate) use t5_text_encoder::{T5States, T5TextEncoder};
