//! Sana: text-to-image transformers with linear attention over latents of 32 x 32 pixels and a language model for prompts,
//! 1.0 (arXiv 2410.10629), 1.5 (arXiv 2501.18427) and Sprint (arXiv 2503.09641), which was distilled to a few steps. As diffusers'
//! `SanaTransformer2DModel`, `SanaPipeline` and `SanaSprintPipeline` lay them out.
//!
//! Follows diffusers 0.42.1:
//!
//! * sana_transformer.py: `SanaTransformer2DModel` (lines 288-598):
//!   <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/models/transformers>
//! * pipeline_sana.py: `SanaPipeline` (lines 190-1013), and pipeline_sana_sprint.py: `SanaSprintPipeline` (lines 140-870):
//!   <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/pipelines/sana>

mod arc;
mod attention;
mod block;
mod config;
mod family;
#[cfg(test)]
mod goldens;
mod time_embedding;
mod transformer;

pub(super) use config::Variant;
pub(super) use family::{build, load};
