//! DiT: class-conditional diffusion transformers (arXiv 2212.09748), as diffusers'
//! `DiTTransformer2DModel` and `DiTPipeline` lay them out.

mod block;
mod config;
mod embeddings;
mod family;
#[cfg(test)]
mod goldens;
mod transformer;

pub(super) use family::Dit;
