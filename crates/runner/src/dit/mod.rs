//! DiT: class-conditional diffusion transformers (arXiv 2212.09748), as diffusers'
//! `DiTTransformer2DModel` and `DiTPipeline` lay them out.

mod block;
mod config;
mod embeddings;
#[cfg(test)]
mod goldens;
mod pipeline;
mod step_model;
mod transformer;

pub use pipeline::{CALIBRATION_FILE, DitPipeline, ImageSpec, LoadOptions, RunningImage};
pub(crate) use step_model::DitStepModel;
