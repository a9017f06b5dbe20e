//! PixArt: text-to-image transformers with cross-attention and one shared modulation (adaLN-single),
//! alpha (arXiv 2310.00426) and Sigma (arXiv 2403.04692), as diffusers' `PixArtTransformer2DModel`,
//! `PixArtAlphaPipeline` and `PixArtSigmaPipeline` lay them out.
//!
//! Follows diffusers 0.42.1:
//!
//! * pixart_transformer_2d.py: `PixArtTransformer2DModel` (lines 32-362):
//!   <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/models/transformers>
//! * pipeline_pixart_alpha.py: `PixArtAlphaPipeline` (lines 241-984):
//!   <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/pipelines/pixart_alpha>
//! * pipeline_pixart_sigma.py: `PixArtSigmaPipeline` (lines 185-910):
//!   <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/pipelines/pixart_alpha>

mod block;
mod config;
mod family;
#[cfg(test)]
mod goldens;
mod transformer;

pub(super) use family::{Variant, build, load};
