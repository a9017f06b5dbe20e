//! PixArt: text-to-image transformers with cross-attention and one shared modulation (adaLN-single),
//! alpha (arXiv 2310.00426) and Sigma (arXiv 2403.04692), as diffusers' `PixArtTransformer2DModel`,
//! `PixArtAlphaPipeline` and `PixArtSigmaPipeline` lay them out.

mod block;
mod config;
mod family;
#[cfg(test)]
mod goldens;
mod transformer;

pub(super) use family::{PixArt, Variant};
