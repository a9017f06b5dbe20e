//! Diffusion transformer pipelines and the worker that runs them step by step.
//!
//! A model folder in diffusers layout becomes a pipeline; a request becomes one running image per
//! picture; the worker thread advances running images one denoising step at a time, so requests can
//! be watched and cancelled between steps. Caching is the business of `afterimage-cache`: model files
//! here only expose their block lists.

mod embedded;
mod error;
mod hub;
mod model_folder;
mod random_model;
mod weights;

pub use error::RunnerError;
pub use hub::{HubOptions, resolve};
pub use model_folder::ModelFolder;
pub use random_model::{RandomModelKind, write_random_model};
pub use weights::Weights;
