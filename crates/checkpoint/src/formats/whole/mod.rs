//! Checkpoints that hold a whole model in one file: transformer, text encoders and VAE under prefixes.
//!
//! Stability publishes Stable Diffusion 3 so, and ComfyUI saves all models so: `model.diffusion_model.`,
//! `text_encoders.t5xxl.transformer.`, `vae.` or `first_stage_model.` (comfy/supported_models.py in
//! <https://github.com/comfyanonymous/ComfyUI>). Configurations, tokenizers and schedulers are not in them; which
//! repository of the hub has those is known by the family and its size, as diffusers' `from_single_file` does it
//! (`DIFFUSERS_DEFAULT_PIPELINE_PATHS` in loaders/single_file_utils.py of diffusers 0.42.1).

mod families;

use std::collections::BTreeMap;

use super::{lora, original};
use crate::shown::{check_names, shortened};
use crate::stored::tensor::StoredTensor;
use families::{FAMILIES, Family, TWINS};

/// What the names of the transformer begin with.
const TRANSFORMER_PREFIXES: [&str; 3] = ["model.diffusion_model.", "diffusion_model.", "transformer."];

/// A checkpoint and what is in it.
#[derive(Debug)]
pub(crate) struct WholeCheckpoint {
    family: &'static Family,
    /// Where its configurations are published.
    pub(crate) repository: &'static str,
    /// By the components of diffusers' pipeline: what the names of their tensors begin with.
    pub(crate) parts: BTreeMap<&'static str, String>,
}

impl WholeCheckpoint {
    /// What is in a file.
    ///
    /// # Errors
    /// It holds none of the models that are known, or only a part of one.
    pub(crate) fn of(tensors: &[(String, StoredTensor)]) -> Result<Self, String> {
        check_names(tensors.iter().map(|(name, _)| name.as_str()))?;
        let tensors: BTreeMap<_, _> = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        if let Some(sign) = lora::sign(tensors.keys().copied()) {
            return Err(format!("it holds `{}` and so on, {}", shortened(sign), lora::ADVICE));
        }
        let has = |prefix: &str| tensors.range(prefix..).next().is_some_and(|(name, _)| name.starts_with(prefix));
        let sign = |family: &'static Family| {
            let prefix = TRANSFORMER_PREFIXES.iter().find(|prefix| has(&format!("{prefix}{}", family.sign)))?;
            Some((family, *prefix))
        };
        let Some((family, transformer)) = FAMILIES.iter().find_map(sign) else {
            return Err(instead(&tensors, has));
        };
        let mut parts = BTreeMap::from([("transformer", transformer.to_owned())]);
        for part in family.parts {
            let found = part.prefixes.iter().find(|prefix| has(prefix));
            parts.extend(found.map(|prefix| (part.component, (*prefix).to_owned())));
        }
        let shape = |name: &str| Some(tensors.get(format!("{transformer}{name}").as_str())?.shape.clone());
        Ok(Self { family, repository: (family.repository)(&shape), parts })
    }

    /// What a model of this family has and the file does not, as component and as names of its tensors.
    pub(crate) fn missing(&self) -> Vec<(&'static str, &'static str)> {
        let missing = self.family.parts.iter().filter(|part| !self.parts.contains_key(part.component));
        missing.map(|part| (part.component, part.prefixes[0])).collect()
    }

    /// Where the configurations of the other model are published that has the same tensors, if there is one.
    pub(crate) fn twin(&self) -> Option<&'static str> {
        TWINS.into_iter().find_map(|(taken, other)| (taken == self.repository).then_some(other))
    }

    /// diffusers' class of its transformer.
    pub(crate) fn class(&self) -> &'static str {
        self.family.class
    }

    /// Its family's name.
    pub(crate) fn family(&self) -> &'static str {
        self.family.name
    }
}

/// What a file is that is no whole checkpoint.
fn instead(tensors: &BTreeMap<&str, &StoredTensor>, has: impl Fn(&str) -> bool) -> String {
    if let Some(family) = FAMILIES.iter().find(|family| has(family.sign)) {
        return format!(
            "it holds the transformer of a {} and nothing else; give it as --transformer, beside the --model that has all \
             else",
            family.name
        );
    }
    let names = FAMILIES.iter().map(|family| family.name).collect::<Vec<_>>().join(", ");
    let found = original::what_it_is(tensors.keys().copied());
    format!("it holds {found}; whole models in one file are read of {names}")
}

#[cfg(test)]
mod tests;
