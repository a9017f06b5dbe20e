//! The file formats weights come in, and the names that other programs give tensors.
//!
//! A format turns a file into named [`StoredTensor`](crate::stored::tensor::StoredTensor)s; it reads headers only.

pub(crate) mod gguf;
pub(crate) mod lora;
pub(crate) mod original;
pub(crate) mod pickle;
pub(crate) mod prefix;
pub(crate) mod safetensors;
pub(crate) mod scales;
