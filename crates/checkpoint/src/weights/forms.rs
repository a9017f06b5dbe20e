//! The names that a component's weights are published under.
//!
//! diffusers and transformers save each under names of their own, in one file or in shards that an index
//! lists, and a *variant* such as `fp16` stands in front of the last dot. Where several forms are there, both
//! choose by a fixed order, and not by the same: diffusers takes shards before a single file, transformers the
//! single file. `tests/reference/weight_forms.py` recorded what they take.

use std::collections::BTreeSet;
use std::path::Path;

/// How a weight file is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `.safetensors`
    Safetensors,
    /// PyTorch's `.bin`: pickles in a zip archive.
    Pickle,
    /// `.gguf`
    Gguf,
    /// `.safetensors` under a name of its own.
    Single,
}

/// The library that loads a component.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Library {
    /// Transformers and VAEs.
    Diffusers,
    /// Text encoders.
    Transformers,
}

/// A form without a variant, and how its files are encoded.
type Form = (&'static str, Format);

/// A form under the name of the file, or of the index of its shards, with its variant.
pub(super) type NamedForm = (String, Format);

/// In the order in which diffusers' `ModelMixin.from_pretrained` looks for them. It reads the last only if
/// asked to; where there is nothing else, it is read here.
const DIFFUSERS: [Form; 4] = [
    ("diffusion_pytorch_model.safetensors.index.json", Format::Safetensors),
    ("diffusion_pytorch_model.safetensors", Format::Safetensors),
    ("diffusion_pytorch_model.bin", Format::Pickle),
    ("diffusion_pytorch_model.bin.index.json", Format::Pickle),
];

/// In the order of transformers' `PreTrainedModel.from_pretrained`.
const TRANSFORMERS: [Form; 4] = [
    ("model.safetensors", Format::Safetensors),
    ("model.safetensors.index.json", Format::Safetensors),
    ("pytorch_model.bin", Format::Pickle),
    ("pytorch_model.bin.index.json", Format::Pickle),
];

const INDEX_SUFFIX: &str = ".index.json";

impl Library {
    /// The library that `model_index.json` names for a component.
    pub fn named(name: &str) -> Self {
        if name == "transformers" { Self::Transformers } else { Self::Diffusers }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Diffusers => "diffusers",
            Self::Transformers => "transformers",
        }
    }

    /// The preferred form first. Those of the other library come last: it is better to read them than none.
    fn forms(self) -> impl Iterator<Item = Form> {
        let (own, others) = match self {
            Self::Diffusers => (DIFFUSERS, TRANSFORMERS),
            Self::Transformers => (TRANSFORMERS, DIFFUSERS),
        };
        own.into_iter().chain(others)
    }

    /// The forms of a variant, or of none, that are among `files`, the preferred one first.
    pub fn forms_among(self, files: &BTreeSet<String>, variant: Option<&str>) -> Vec<NamedForm> {
        let named = self.forms().flat_map(|(name, format)| names(name, variant).map(move |name| (name, format)));
        named.filter(|(name, _)| files.contains(name)).collect()
    }

    /// The names without a variant, for errors.
    pub fn looked_for(self) -> String {
        self.forms().map(|(name, _)| name).collect::<Vec<_>>().join(", ")
    }
}

/// Whether it lists shards.
pub(super) fn is_index(name: &str) -> bool {
    name.ends_with(".json")
}

/// The names of a form in a variant.
fn names(name: &str, variant: Option<&str>) -> impl Iterator<Item = String> {
    let (now, before) = match variant {
        None => (Some(name.to_owned()), None),
        Some(variant) => (
            name.rsplit_once('.').map(|(stem, extension)| format!("{stem}.{variant}.{extension}")),
            // As diffusers named indexes before 0.33.
            name.strip_suffix(INDEX_SUFFIX).map(|file| format!("{file}.{variant}{INDEX_SUFFIX}")),
        ),
    };
    now.into_iter().chain(before)
}

/// The variants that weights among `files` are in.
pub(super) fn variants_among(files: &BTreeSet<String>) -> BTreeSet<String> {
    let forms = || DIFFUSERS.into_iter().chain(TRANSFORMERS).map(|(name, _)| name);
    let of = |file: &String| -> Option<String> {
        file.split('.')
            .find(|part| is_variant(part) && forms().any(|form| names(form, Some(part)).any(|name| name == *file)))
            .map(str::to_owned)
    };
    files.iter().filter_map(of).collect()
}

/// Whether a name can be one of a variant: a part of a file name without dots, and not that of a shard.
pub fn is_variant(name: &str) -> bool {
    let is_shard = name.rsplit_once("-of-").is_some_and(|(_, count)| count.bytes().all(|byte| byte.is_ascii_digit()));
    !name.is_empty() && !is_shard && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

/// Of a file with one shard of several weights: which it is, and of how many, by its name.
pub(super) fn shard(file: &Path) -> Option<(usize, usize)> {
    let (rest, count) = file.file_stem()?.to_str()?.rsplit_once("-of-")?;
    let (_, index) = rest.rsplit_once('-')?;
    let number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?;
    Some((number(index)?, number(count)?)).filter(|(_, count)| *count > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shards_are_known_by_their_names() {
        let of = |name: &str| shard(Path::new(name));
        assert_eq!(of("/m/diffusion_pytorch_model-00002-of-00003.safetensors"), Some((2, 3)));
        assert_eq!(of("model.fp16-1-of-2.safetensors"), Some((1, 2)));
        for name in
            ["model-00001-of-00001.safetensors", "best-of-2.safetensors", "a-1-of-many.safetensors", "-of-2", ""]
        {
            assert_eq!(of(name), None, "{name}");
        }
    }

    #[test]
    fn variants_are_told_from_shards_and_from_other_files() {
        let files = [
            "config.json",
            "diffusion_pytorch_model-00001-of-00002.safetensors",
            "diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
            "diffusion_pytorch_model.non_ema.bin",
            "diffusion_pytorch_model.safetensors.index.json",
            "diffusion_pytorch_model.safetensors.bf16.index.json",
            "model.safetensors.index.fp16.json",
            "pytorch_lora_weights.fp8.safetensors",
        ];
        let files = files.map(str::to_owned).into();
        assert_eq!(variants_among(&files), ["bf16", "fp16", "non_ema"].map(str::to_owned).into());
    }

    #[test]
    fn a_variant_is_part_of_a_file_name() {
        for name in ["fp16", "non_ema", "fp8-e4m3"] {
            assert!(is_variant(name), "{name}");
        }
        for name in ["", "../x", "a.b", "fp16-00001-of-00002", "f p"] {
            assert!(!is_variant(name), "{name}");
        }
    }
}
