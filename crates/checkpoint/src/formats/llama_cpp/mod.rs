//! Text encoders in GGUF files, under the names that llama.cpp gives tensors.
//!
//! Names and entries are those of `gguf-py/gguf/constants.py` and `tensor_mapping.py`, changes of values those of
//! `convert_hf_to_gguf.py`: <https://github.com/ggml-org/llama.cpp>. Weights of Gemma's norms are stored with the one that
//! they are counted from, and where llama.cpp turns neighbours instead of halves, rows of queries and keys stand in pairs.
//! Both are undone when a tensor is read ([`Arrangement`]).

mod names;

use super::Component;
use super::gguf::GgufFacts;
use crate::shown::shortened;
use crate::stored::arrangement::Arrangement;
use crate::stored::entry::Entry;
use crate::stored::tensor::StoredTensor;
use names::Names;

/// What queries and keys are called by transformers, and the entries that say how many heads they have.
const TURNED: [(&str, &[&str]); 2] = [
    ("self_attn.q_proj", &["attention.head_count"]),
    ("self_attn.k_proj", &["attention.head_count_kv", "attention.head_count"]),
];

/// A kind of models as llama.cpp calls it.
struct Architecture {
    name: &'static str,
    /// How transformers' names of its classes begin.
    classes: &'static [&'static str],
    names: Names,
    /// Norms are stored with the one that the class counts their weights from.
    norms_hold_one: bool,
    /// Rotary positions turn neighbours, not halves.
    turns_neighbours: bool,
}

const fn decoder(name: &'static str, classes: &'static [&'static str]) -> Architecture {
    Architecture { name, classes, names: Names::DECODER, norms_hold_one: false, turns_neighbours: false }
}

static ARCHITECTURES: [Architecture; 8] = [
    decoder("qwen3", &["Qwen3"]),
    decoder("qwen2vl", &["Qwen2_5_VL"]),
    // The same without what sees.
    decoder("qwen2", &["Qwen2_5_VL"]),
    Architecture { names: Names::GEMMA, norms_hold_one: true, ..decoder("gemma2", &["Gemma2"]) },
    Architecture { turns_neighbours: true, ..decoder("llama", &["Mistral", "Llama"]) },
    Architecture { turns_neighbours: true, ..decoder("mistral3", &["Mistral"]) },
    Architecture { names: Names::T5, ..decoder("t5", &["T5", "MT5"]) },
    Architecture { names: Names::T5, ..decoder("t5encoder", &["T5", "MT5"]) },
];

/// Whether a file says of itself that it holds a language model.
pub(crate) fn is_text_encoder(facts: &GgufFacts) -> bool {
    architecture(facts).is_some()
}

/// The tensors of a file that is a text encoder. `class` is what its configuration says it is; empty where it does not.
///
/// # Errors
/// What the file holds instead.
pub(crate) fn text_encoder(
    tensors: Vec<(String, StoredTensor)>,
    facts: &GgufFacts,
    class: &str,
) -> Result<Component, String> {
    let Some(architecture) = architecture(facts) else {
        let known = ARCHITECTURES.each_ref().map(|known| known.name).join(", ");
        let found = facts.architecture.as_deref().unwrap_or("none");
        return Err(format!("`general.architecture` is {}; text encoders are {known}", shortened(found)));
    };
    if !class.is_empty() && !architecture.classes.iter().any(|known| class.starts_with(known)) {
        return Err(format!(
            "it holds a text encoder of the kind `{}`, but config.json describes a {}",
            architecture.name,
            shortened(class)
        ));
    }
    let is_gated = tensors.iter().any(|(name, _)| name.contains(".ffn_gate."));
    let mut encoder = Component::default();
    for (name, tensor) in tensors {
        let ours = architecture.names.ours(&name, is_gated).unwrap_or(name);
        if let Some(arrangement) = architecture.arrangement(&ours, &tensor.shape, facts)? {
            encoder.arrangements.insert(ours.clone(), arrangement);
        }
        encoder.entries.push((ours, Entry::whole(tensor)));
    }
    Ok(encoder)
}

fn architecture(facts: &GgufFacts) -> Option<&'static Architecture> {
    ARCHITECTURES.iter().find(|known| Some(known.name) == facts.architecture.as_deref())
}

impl Architecture {
    /// How a tensor of transformers' name is stored.
    fn arrangement(&self, name: &str, shape: &[usize], facts: &GgufFacts) -> Result<Option<Arrangement>, String> {
        if self.norms_hold_one && name.ends_with("norm.weight") {
            return Ok(Some(Arrangement::OneAbove));
        }
        let Some((stem, _)) = name.rsplit_once('.').filter(|_| self.turns_neighbours) else { return Ok(None) };
        let Some((_, entries)) = TURNED.iter().find(|(projection, _)| stem.ends_with(projection)) else {
            return Ok(None);
        };
        let count = entries.iter().find_map(|entry| facts.number(entry));
        let rows = shape.first().copied().unwrap_or(0);
        // Whole numbers below 2^53 are exact.
        let heads = count.filter(|count| (1.0..=rows as f64).contains(count) && count.fract() == 0.0);
        match heads.map(|heads| heads as usize).filter(|heads| rows.is_multiple_of(2 * heads)) {
            Some(heads) => Ok(Some(Arrangement::PairedRows { heads })),
            None => Err(format!(
                "`{}.{}` is {}, and tensor `{}` of shape {shape:?} is not made of so many heads",
                self.name,
                entries[0],
                count.map_or("absent".to_owned(), |count| count.to_string()),
                shortened(name)
            )),
        }
    }
}

#[cfg(test)]
mod tests;
