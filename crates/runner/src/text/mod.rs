//! Text encoders and their tokenizers, as transformers lays them out beside a diffusers pipeline.

mod sentence_piece;
mod t5;
mod t5_text_encoder;
mod tokenizer;

pub(crate) use t5_text_encoder::T5TextEncoder;
