//! Diffusion transformer pipelines and the worker that runs them step by step.
//!
//! A model folder in diffusers layout becomes a pipeline; a request becomes one running image per
//! picture; the worker thread advances running images one denoising step at a time, so requests can
//! be watched and cancelled between steps. Caching is the business of `afterimage-cache`: model files
//! here only expose their block lists.

mod error;
mod lenient_json;
mod noise;
pub mod schedulers;

pub use error::RunnerError;
pub use noise::{NoiseGenerator, randn};
