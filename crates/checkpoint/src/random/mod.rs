//! Weights with random values, of exactly the tensors that a model asks for.
//!
//! [`Parameters::recording`](crate::Parameters::recording) notes what a model's code asks for while the model is built; its
//! [`Recorder`] gives that as [`RandomTensors`], which are written as safetensors or GGUF. Nothing is in memory but one
//! tensor at a time, and no model is known here.

mod gguf;
mod recorder;
mod safetensors;
mod tensors;
#[cfg(test)]
mod tests;
mod values;

pub use recorder::Recorder;
pub(crate) use recorder::{RecordedWeights, no_memory};
pub use tensors::RandomTensors;
