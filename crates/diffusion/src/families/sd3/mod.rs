//! Stable Diffusion 3 and 3.5: text and picture are two streams of tokens with weights of their own that
//! attend to each other (Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image
//! Synthesis", arXiv 2403.03206).
//!
//! Follows diffusers 0.42.1:
//!
//! * `SD3Transformer2DModel` (lines 79-347):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/models/transformers/transformer_sd3.py#L79>
//! * pipeline_stable_diffusion_3.py: `StableDiffusion3Pipeline` (lines 148-1152):
//!   <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/pipelines/stable_diffusion_3>

mod attention;
mod block;
mod config;
mod family;
mod transformer;

pub(super) use family::{build, load};

#[cfg(test)]
mod goldens;
