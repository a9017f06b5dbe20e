//! The file formats weights come in, and the names that other programs give tensors.
//!
//! A format turns a file into named [`StoredTensor`](crate::stored::tensor::StoredTensor)s; it reads headers only.

pub(crate) mod gguf;
pub(crate) mod llama_cpp;
pub(crate) mod lora;
pub(crate) mod original;
pub(crate) mod pickle;
pub(crate) mod prefix;
pub(crate) mod safetensors;
pub(crate) mod scales;
pub(crate) mod whole;

use std::collections::BTreeMap;

use crate::stored::arrangement::Arrangement;
use crate::stored::entry::Entry;

/// The tensors of a component under the names of diffusers or transformers.
#[derive(Debug, Default)]
pub(crate) struct Component {
    pub entries: Vec<(String, Entry)>,
    /// Of those that are stored in another form, by name.
    pub arrangements: BTreeMap<String, Arrangement>,
}
