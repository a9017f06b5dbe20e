//! DiT: class-conditional diffusion transformers (arXiv 2212.09748), as diffusers'
//! `DiTTransformer2DModel` and `DiTPipeline` lay them out.
//!
//! Follows diffusers 0.42.1:
//!
//! * dit_transformer_2d.py: `DiTTransformer2DModel` (lines 31-226):
//!   <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/models/transformers>
//! * `DiTPipeline` (lines 38-251):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/pipelines/dit/pipeline_dit.py#L38>

mod block;
mod config;
mod embeddings;
mod family;
#[cfg(test)]
mod goldens;
mod modulations;
mod transformer;

pub(super) use family::{build, load};
