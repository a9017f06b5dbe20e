//! HunyuanDiT 1.1 and 1.2 (arXiv 2405.08748): one stream of picture tokens that attends to itself and to a prompt from two
//! encoders, with long skips from the first blocks to the last.
//!
//! Follows diffusers 0.42.1:
//!
//! * hunyuan_transformer_2d.py: `HunyuanDiT2DModel` (lines 201-470):
//!   <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/models/transformers>
//! * pipeline_hunyuandit.py: `HunyuanDiTPipeline` (lines 147-900):
//!   <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/pipelines/hunyuandit>

mod attention;
mod block;
mod blocks;
mod conditions;
mod config;
mod family;
mod positions;
mod text_projection;
mod transformer;

pub(super) use family::{build, load};

#[cfg(test)]
mod goldens;
