//! Stable Diffusion 3 and 3.5: text and picture are two streams of tokens with weights of their own that
//! attend to each other (Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image
//! Synthesis", arXiv 2403.03206).

mod attention;
mod block;
mod config;
mod family;
mod transformer;

pub(super) use family::Sd3;

#[cfg(test)]
mod goldens;
