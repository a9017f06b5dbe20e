//! Components in files of their own, and in parts of files.

use std::path::Path;
use std::slice;
use std::sync::Arc;

use super::files::{self, Described};
use super::forms::shard;
use super::{Weights, whole};
use crate::CheckpointError;
use crate::formats::gguf::{self, GgufFacts};
use crate::formats::whole::WholeCheckpoint;
use crate::formats::{Component, llama_cpp, original, safetensors, scales};
use crate::stored::source::Source;
use crate::stored::tensor::StoredTensor;

/// Names that only text encoders have, under those of transformers.
const TOKEN_TABLES: [&str; 4] =
    ["embed_tokens.weight", "shared.weight", "token_embedding.weight", "word_embeddings.weight"];
/// In names of every VAE.
const DECODER: &str = "decoder.";
/// What ComfyUI stores beside a text encoder's weights.
const NO_WEIGHTS: [&str; 3] = ["spiece_model", "tekken_model", "logit_scale"];
/// How classes of VAEs begin.
const VAE: &str = "Autoencoder";
/// In errors, for a class that is not known.
const UNNAMED: &str = "model that its config.json does not name";

impl Weights {
    /// Opens a file that holds a component, GGUF or safetensors, under the names of diffusers or transformers, of its makers
    /// or of llama.cpp. `folder` holds the `config.json` that describes the component.
    ///
    /// # Errors
    /// The file is damaged, or holds something else.
    pub fn open_file(path: &Path, folder: &Path) -> Result<Arc<Self>, CheckpointError> {
        Self::open_part(path, "", folder)
    }

    /// The same of a component among others, whose names all begin with `prefix`.
    ///
    /// # Errors
    /// The file is damaged, or holds something else.
    pub fn open_part(path: &Path, prefix: &str, folder: &Path) -> Result<Arc<Self>, CheckpointError> {
        let source = Source::open(path)?;
        let (tensors, facts) = tensors_in(&source)?;
        let tensors = scales::applied(tensors, prefix, slice::from_ref(&source))?;
        let part = |(name, tensor): (String, StoredTensor)| Some((name.strip_prefix(prefix)?.to_owned(), tensor));
        let tensors = tensors.into_iter().filter_map(part).collect();
        let component = component(tensors, &facts, &files::described(folder)?).map_err(|what| source.damaged(what))?;
        let weights = Self::of_component(source, component, facts)?;
        weights.check_is_model()?;
        Ok(weights)
    }

    /// What a component consists of.
    pub(crate) fn of_component(
        source: Source,
        component: Component,
        facts: GgufFacts,
    ) -> Result<Arc<Self>, CheckpointError> {
        let Component { entries, arrangements } = component;
        let weights = Self { shapes_are_loose: true, arrangements, facts, ..Self::empty(source.to_string()) };
        weights.of_one(source, entries)
    }
}

/// All tensors of a file that is whole, scales of fp8 weights among them, and what it says of them.
pub(crate) fn tensors_in(source: &Source) -> Result<(Vec<(String, StoredTensor)>, GgufFacts), CheckpointError> {
    if gguf::is_gguf(source)? {
        let file = gguf::open(source)?;
        return Ok((file.tensors, file.facts));
    }
    // Their scales may be in another, so not even a shard with all weights is the whole.
    if let Some((number, count)) = shard(source.path()) {
        return Err(source.damaged(format!(
            "by its name it is shard {number} of {count}, and the others are missing, which have the rest of the tensors; \
             shards are read together in a model folder, as the folder of their component with its `.safetensors.index.json`: \
             give that folder as --model, or one file that holds all"
        )));
    }
    Ok((safetensors::tensors(source)?, GgufFacts::default()))
}

fn component(
    tensors: Vec<(String, StoredTensor)>,
    facts: &GgufFacts,
    described: &Described,
) -> Result<Component, String> {
    let Described { class, is_text_encoder } = described;
    let has_tokens = || tensors.iter().any(|(name, _)| TOKEN_TABLES.iter().any(|table| name.ends_with(table)));
    let is_of_llama_cpp = llama_cpp::is_text_encoder(facts);
    if is_of_llama_cpp || *is_text_encoder && facts.architecture.is_some() && !has_tokens() {
        return llama_cpp::text_encoder(tensors, facts, class);
    }
    let is_vae = class.starts_with(VAE);
    if let (true, Ok(whole)) = (is_vae || *is_text_encoder, WholeCheckpoint::of(&tensors))
        && whole.parts.len() > 1
    {
        return Err(format!("it holds a whole {}; give it as --model, with --config-from", whole.family()));
    }
    let has_decoder = || tensors.iter().any(|(name, _)| name.contains(DECODER));
    if *is_text_encoder && !has_tokens() || is_vae && !has_decoder() {
        let found = original::what_it_is(tensors.iter().map(|(name, _)| name.as_str()));
        return Err(format!("it holds {found}, but config.json describes a {class}"));
    }
    let entries = if *is_text_encoder {
        whole(tensors.into_iter().filter(|(name, _)| !NO_WEIGHTS.contains(&name.as_str())).collect())
    } else if is_vae {
        original::vae_entries(tensors)?
    } else {
        let class = if class.is_empty() { UNNAMED } else { class };
        original::entries(tensors, class, facts.architecture.as_deref())?
    };
    Ok(Component { entries, ..Component::default() })
}
