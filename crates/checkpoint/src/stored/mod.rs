//! Tensors as files store them: where their bytes are, how elements are encoded, and how they are read.
//!
//! The formats say which tensors a file holds; nothing here knows a format or a model.

pub(crate) mod arrangement;
pub(crate) mod encoding;
pub(crate) mod entry;
pub(crate) mod float8;
pub(crate) mod matrix;
pub(crate) mod source;
pub(crate) mod tensor;
