//! What fuzzers call, and what the tests replay: each reads bytes of strangers as the program does.
//!
//! Whatever comes, the outcome is a value or an error. `fuzz/` has the targets and their seeds.

use std::slice;
use std::sync::Arc;

use candle_core::{DType, Device};

use crate::formats::gguf::GgufFacts;
use crate::formats::{gguf, llama_cpp, original, pickle, safetensors, scales};
use crate::hub;
use crate::stored::entry::Entry;
use crate::stored::source::Source;
use crate::stored::tensor::StoredTensor;
use crate::weights::Weights;

/// A weight file, tensors included.
pub fn safetensors(bytes: &[u8]) {
    let source = Source::memory("fuzz.safetensors", bytes.to_vec());
    let Ok(tensors) = safetensors::tensors(&source) else { return };
    if let Ok(tensors) = scales::applied(tensors, "", slice::from_ref(&source)) {
        let _ = original::entries(tensors.clone(), "FluxTransformer2DModel", None);
        read_all(source, tensors);
    }
}

/// A GGUF file, tensors included, under its own names and those of the families.
pub fn gguf(bytes: &[u8]) {
    let source = Source::memory("fuzz.gguf", bytes.to_vec());
    if !gguf::is_gguf(&source).unwrap_or(false) {
        return;
    }
    let Ok(file) = gguf::open(&source) else { return };
    for class in ["FluxTransformer2DModel", "SD3Transformer2DModel"] {
        let _ = original::entries(file.tensors.clone(), class, file.facts.architecture.as_deref());
    }
    if let Ok(encoder) = llama_cpp::text_encoder(file.tensors.clone(), &file.facts, "") {
        let source = Source::memory("fuzz.gguf", bytes.to_vec());
        Weights::of_component(source, encoder, GgufFacts::default()).iter().for_each(read);
    }
    read_all(source, file.tensors);
}

/// A PyTorch file, or the pickle alone, whose checksum a fuzzer does not guess.
pub fn pickle(bytes: &[u8]) {
    let source = Source::memory("fuzz.bin", bytes.to_vec());
    if let Ok(tensors) = pickle::tensors(&source) {
        read_all(source, tensors);
    }
    pickle::read_alone(bytes);
}

fn read_all(source: Source, tensors: Vec<(String, StoredTensor)>) {
    let whole = tensors.into_iter().map(|(name, tensor)| (name, Entry::whole(tensor))).collect();
    Weights::of_source(source, whole).iter().for_each(read);
}

fn read(weights: &Arc<Weights>) {
    let builder = weights.var_builder(DType::F32, &Device::Cpu);
    let parameters = weights.parameters(DType::F32, &Device::Cpu);
    for name in weights.names() {
        let _ = builder.get_unchecked(name);
        if let Some([rows, columns]) = weights.shape(name) {
            let _ = parameters.matrix(*rows, *columns, name);
        }
    }
    let _ = weights.finish(&[]);
}

/// What a hub says of a repository: parts between zeros are the list of files, `model_index.json`, the index of a
/// component's weights, and where it redirects to.
pub fn hub_answer(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.split('\0');
    let mut part = || parts.next().unwrap_or_default();
    let (answer, index, shards, location) = (part(), part(), part(), part());
    for path in hub::fuzz::needed_paths(answer, index, shards, location) {
        let inside = path.split('/').all(|name| !["", ".", ".."].contains(&name));
        assert!(inside && path.split('/').count() <= 2, "{path:?} leads out of its folder");
    }
}

#[cfg(test)]
mod tests {
    include!("../../../fuzz/replay.rs");

    #[test]
    fn seeds_are_read() {
        replay("safetensors", super::safetensors);
        replay("gguf", super::gguf);
        replay("pickle", super::pickle);
        replay("hub_answer", super::hub_answer);
    }
}
