//! Which files of a repository a pipeline reads.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};

use crate::component_files::{GivenFile, by_component, component_entry};
use crate::model_folder::{CACHE_PROFILE_FILE, MODEL_FIT_FILES, MODEL_INDEX, TRANSFORMER};
use crate::shown::shortened;
use crate::weights::{Library, Wanted, WeightFiles, is_plain_name};
use crate::{CheckpointError, lenient_json, plain_file};

/// What tokenizers of the supported text encoders are stored as; those that are there are needed.
const TOKENIZER_FILES: [&str; 8] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "vocab.txt",
];

/// Components that no pipeline here uses.
const UNUSED: [&str; 3] = ["feature_extractor", "image_encoder", "safety_checker"];

/// A set of files that can be asked for: a snapshot on disk, or a repository.
pub(super) trait Files {
    /// Whether it has the file `path`.
    fn has(&self, path: &str) -> bool;

    /// The names of the files in a folder.
    fn names(&self, folder: &str) -> BTreeSet<String>;

    /// The content of a text file.
    fn text(&self, path: &str) -> Result<String, CheckpointError>;
}

/// What is asked for of a repository.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Selection<'a> {
    /// Which weights are taken where they are there.
    pub(super) variant: Option<&'a str>,
    /// Leave out those of components that have such.
    pub(super) files: &'a [GivenFile],
}

/// The files that a pipeline reads, and what is worth saying about the choice.
#[derive(Debug, Default)]
pub(super) struct Needed {
    /// Whether or not they are all there.
    pub(super) paths: Vec<String>,
    /// Weights that are there and not read, components that lack the variant, and variants that were not asked for.
    pub(super) notes: Vec<String>,
    /// Whether any component has the variant, if one was asked for.
    has_variant: bool,
}

impl Needed {
    /// Refuses a variant that no component has.
    pub(super) fn check_variant(&self, selection: Selection<'_>) -> Result<(), CheckpointError> {
        match selection.variant {
            Some(variant) if !self.has_variant => Err(CheckpointError::hub(format!(
                "no component has weights of the variant `{variant}`, such as \
                 {TRANSFORMER}/diffusion_pytorch_model.{variant}.safetensors; check --variant"
            ))),
            _ => Ok(()),
        }
    }

    /// Says what is worth saying.
    pub(super) fn log(&self, model: &str) {
        for text in &self.notes {
            tracing::warn!(model, "{text}");
        }
    }
}

/// A snapshot in the cache.
pub(super) struct Snapshot<'a>(pub(super) &'a Path);

impl Files for Snapshot<'_> {
    fn has(&self, path: &str) -> bool {
        self.0.join(path).is_file()
    }

    fn names(&self, folder: &str) -> BTreeSet<String> {
        let entries = std::fs::read_dir(self.0.join(folder)).into_iter().flatten().flatten();
        let files = entries.filter(|entry| entry.path().is_file());
        files.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    fn text(&self, path: &str) -> Result<String, CheckpointError> {
        let path = self.0.join(path);
        plain_file::text(&path).map_err(|source| CheckpointError::Read { path, source })
    }
}

/// `model_index.json`, the facts for caches where there are some, the configuration of each component, and the weights
/// of each model in one form.
///
/// # Errors
/// The index is damaged, or a component has no weights.
pub(super) fn needed_files(files: &impl Files, selection: Selection<'_>) -> Result<Needed, CheckpointError> {
    let index: Map<String, Value> = lenient_json::parse(&files.text(MODEL_INDEX)?)
        .and_then(serde_json::from_value)
        .map_err(|error| CheckpointError::hub(format!("{MODEL_INDEX} is damaged: {error}")))?;
    let mut needed = Needed { paths: vec![MODEL_INDEX.to_string()], ..Needed::default() };
    needed.paths.extend(MODEL_FIT_FILES.into_iter().find(|file| files.has(file)).map(str::to_owned));
    needed.paths.extend(Some(CACHE_PROFILE_FILE).filter(|file| files.has(file)).map(str::to_owned));
    needed.has_variant = selection.variant.is_none();
    let files_given = by_component(&index, selection.files)?;
    for (component, value) in &index {
        let Some((library, class)) = component_entry(value) else {
            continue;
        };
        if UNUSED.contains(&component.as_str()) {
            continue;
        }
        if !is_plain_name(component) {
            return Err(CheckpointError::config(
                MODEL_INDEX,
                format!("`{}` cannot be the name of a component's folder", shortened(component)),
            ));
        }
        if files_given.contains_key(component) {
            needed.paths.push(format!("{component}/config.json"));
        } else if class.ends_with("Scheduler") {
            needed.paths.push(format!("{component}/scheduler_config.json"));
        } else if class.contains("Tokenizer") {
            let paths = TOKENIZER_FILES.map(|name| format!("{component}/{name}"));
            needed.paths.extend(paths.into_iter().filter(|path| files.has(path)));
        } else {
            let wanted = Wanted { library: Library::named(library), variant: selection.variant };
            let weights = add_model(files, component, wanted, &mut needed)?;
            needed.has_variant |= weights.variant.as_deref() == selection.variant;
        }
    }
    Ok(needed)
}

fn add_model(
    files: &impl Files,
    component: &str,
    wanted: Wanted<'_>,
    needed: &mut Needed,
) -> Result<WeightFiles, CheckpointError> {
    needed.paths.push(format!("{component}/config.json"));
    let mut read = None;
    let index = |name: &str| {
        let path = format!("{component}/{name}");
        let text = files.text(&path)?;
        read = Some(path);
        Ok(text)
    };
    let weights = match WeightFiles::choose(component, &files.names(component), wanted, index)? {
        Some(weights) => weights,
        None => {
            return Err(CheckpointError::hub(format!(
                "there are no weights for `{component}`: looked for {}",
                wanted.library.looked_for()
            )));
        }
    };
    needed.paths.extend(read);
    needed.paths.extend(weights.names.iter().map(|name| format!("{component}/{name}")));
    needed.notes.extend(weights.warning(wanted.library).map(|text| format!("{component}: {text}")));
    match (wanted.variant, weights.variant.as_deref()) {
        (wanted, found) if wanted == found => {}
        (Some(wanted), _) => {
            let text = format!("{component}: no weights of the variant `{wanted}`; {} is read", weights.form);
            needed.notes.push(text);
        }
        (None, found) => {
            let only = found.unwrap_or_default();
            let text = format!("{component}: there are only weights of the variant `{only}`, which are read");
            needed.notes.push(text);
        }
    }
    Ok(weights)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    impl Files for HashMap<&str, &str> {
        fn has(&self, path: &str) -> bool {
            self.contains_key(path)
        }

        fn names(&self, folder: &str) -> BTreeSet<String> {
            let of_folder = |path: &&str| path.strip_prefix(folder)?.strip_prefix('/').map(str::to_owned);
            self.keys().filter_map(of_folder).collect()
        }

        fn text(&self, path: &str) -> Result<String, CheckpointError> {
            let text = self.get(path);
            text.map(|text| text.to_string()).ok_or_else(|| CheckpointError::hub(format!("no {path}")))
        }
    }

    fn repository<'a>(index: &'a str, paths: &[&'a str]) -> HashMap<&'a str, &'a str> {
        let mut files: HashMap<_, _> = paths.iter().map(|path| (*path, "")).collect();
        files.insert(MODEL_INDEX, index);
        files
    }

    fn paths(files: &HashMap<&str, &str>) -> Vec<String> {
        needed_files(files, Selection::default()).unwrap().paths
    }

    #[test]
    fn one_form_of_the_weights_is_needed() {
        let index = r#"{"_class_name": "DiTPipeline", "vae": ["diffusers", "AutoencoderKL"],
            "scheduler": ["diffusers", "DDIMScheduler"], "id2label": {"0": "tench"}}"#;
        let files = repository(
            index,
            &[
                "vae/diffusion_pytorch_model.bin",
                "vae/diffusion_pytorch_model.safetensors",
                "vae/diffusion_pytorch_model.fp16.safetensors",
            ],
        );
        assert_eq!(
            paths(&files),
            [
                "model_index.json",
                "vae/config.json",
                "vae/diffusion_pytorch_model.safetensors",
                "scheduler/scheduler_config.json",
            ]
        );
    }

    #[test]
    fn a_transformer_from_elsewhere_needs_its_configuration_only() {
        let index = r#"{"transformer": ["diffusers", "FluxTransformer2DModel"]}"#;
        let files = repository(index, &["transformer/diffusion_pytorch_model.safetensors"]);
        let given = [GivenFile::new(TRANSFORMER, "flux.gguf")];
        let selection = Selection { files: &given, ..Selection::default() };
        let needed = needed_files(&files, selection).unwrap().paths;
        assert_eq!(needed, ["model_index.json", "transformer/config.json"]);
    }

    #[test]
    fn shards_text_encoders_and_tokenizers_are_found() {
        let index = r#"{"text_encoder": ["transformers", "T5EncoderModel"],
            "tokenizer": ["transformers", "T5Tokenizer"], "safety_checker": [null, null],
            "feature_extractor": ["transformers", "CLIPImageProcessor"]}"#;
        let mut files = repository(index, &["tokenizer/spiece.model"]);
        let shards = r#"{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#;
        files.insert("text_encoder/model.safetensors.index.json", shards);
        assert_eq!(
            paths(&files),
            [
                "model_index.json",
                "text_encoder/config.json",
                "text_encoder/model.safetensors.index.json",
                "text_encoder/model-1.safetensors",
                "text_encoder/model-2.safetensors",
                "tokenizer/spiece.model",
            ]
        );
    }

    #[test]
    fn stable_diffusion_3_needs_no_single_files_and_no_second_precision() {
        let index = r#"{"_class_name": "StableDiffusion3Pipeline", "vae": ["diffusers", "AutoencoderKL"],
            "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
            "feature_extractor": [null, null], "image_encoder": [null, null],
            "text_encoder": ["transformers", "CLIPTextModelWithProjection"],
            "text_encoder_3": ["transformers", "T5EncoderModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"], "tokenizer_3": ["transformers", "T5TokenizerFast"],
            "transformer": ["diffusers", "SD3Transformer2DModel"]}"#;
        let needed = [
            "cache_fit.json",
            "cache_profile.json",
            "text_encoder/model.safetensors",
            "text_encoder_3/model-00001-of-00002.safetensors",
            "text_encoder_3/model-00002-of-00002.safetensors",
            "text_encoder_3/model.safetensors.index.json",
            "tokenizer/merges.txt",
            "tokenizer/special_tokens_map.json",
            "tokenizer/tokenizer_config.json",
            "tokenizer/vocab.json",
            "tokenizer_3/spiece.model",
            "tokenizer_3/tokenizer.json",
            "transformer/diffusion_pytorch_model.safetensors",
            "vae/diffusion_pytorch_model.safetensors",
        ];
        let others = [
            "LICENSE.md",
            "sd3_medium.safetensors",
            "sd3_medium_incl_clips_t5xxlfp8.safetensors",
            "text_encoder/model.fp16.safetensors",
            "text_encoder_3/model.fp16-00001-of-00002.safetensors",
            "text_encoder_3/model.safetensors.index.fp16.json",
            "text_encoders/t5xxl_fp16.safetensors",
            "transformer/flax_model.msgpack",
        ];
        let mut files = repository(index, &needed);
        files.extend(others.map(|path| (path, "")));
        let shards = r#"{"weight_map": {"a": "model-00001-of-00002.safetensors",
            "b": "model-00002-of-00002.safetensors"}}"#;
        files.insert("text_encoder_3/model.safetensors.index.json", shards);
        let mut found = paths(&files);
        found.retain(|path| !path.ends_with("config.json") || path.starts_with("tokenizer"));
        found.retain(|path| path != MODEL_INDEX);
        found.sort();
        assert_eq!(found, needed);
    }

    const INDEX: &str = r#"{"transformer": ["diffusers", "FluxTransformer2DModel"], "vae": ["diffusers", "AutoencoderKL"],
        "text_encoder": ["transformers", "T5EncoderModel"]}"#;

    fn weights(needed: &Needed) -> Vec<&str> {
        needed
            .paths
            .iter()
            .map(String::as_str)
            .filter(|path| !path.ends_with("config.json") && *path != MODEL_INDEX)
            .collect()
    }

    #[test]
    fn of_two_saves_the_librarys_choice_is_needed() {
        let mut files = repository(
            INDEX,
            &[
                "transformer/diffusion_pytorch_model.safetensors",
                "text_encoder/model.safetensors",
                "text_encoder/model.safetensors.index.json",
                "vae/diffusion_pytorch_model.safetensors",
            ],
        );
        files.insert(
            "transformer/diffusion_pytorch_model.safetensors.index.json",
            r#"{"weight_map": {"a": "1.safetensors"}}"#,
        );
        let needed = needed_files(&files, Selection::default()).unwrap();
        assert_eq!(
            weights(&needed),
            [
                "transformer/diffusion_pytorch_model.safetensors.index.json",
                "transformer/1.safetensors",
                "vae/diffusion_pytorch_model.safetensors",
                "text_encoder/model.safetensors",
            ]
        );
        let [first, second] = needed.notes.as_slice() else { panic!("{:?}", needed.notes) };
        assert!(first.starts_with("transformer: ") && first.contains("not read: diffusion_pytorch_model.safetensors;"));
        assert!(second.starts_with("text_encoder: ") && second.contains("not read: model.safetensors.index.json;"));
    }

    #[test]
    fn a_variant_is_needed_where_it_is_there() {
        let mut files = repository(
            INDEX,
            &[
                "transformer/diffusion_pytorch_model.fp16-00001-of-00001.safetensors",
                "transformer/diffusion_pytorch_model.safetensors",
                "text_encoder/model.fp16.safetensors",
                "vae/diffusion_pytorch_model.safetensors",
            ],
        );
        let index = r#"{"weight_map": {"a": "diffusion_pytorch_model.fp16-00001-of-00001.safetensors"}}"#;
        files.insert("transformer/diffusion_pytorch_model.safetensors.index.fp16.json", index);
        let of = |variant| needed_files(&files, Selection { variant, ..Selection::default() });
        let needed = of(Some("fp16")).unwrap();
        assert_eq!(
            weights(&needed),
            [
                "transformer/diffusion_pytorch_model.safetensors.index.fp16.json",
                "transformer/diffusion_pytorch_model.fp16-00001-of-00001.safetensors",
                "vae/diffusion_pytorch_model.safetensors",
                "text_encoder/model.fp16.safetensors",
            ]
        );
        assert_eq!(
            needed.notes,
            ["vae: no weights of the variant `fp16`; diffusion_pytorch_model.safetensors is read"]
        );
        let needed = of(None).unwrap();
        assert_eq!(
            weights(&needed),
            [
                "transformer/diffusion_pytorch_model.safetensors",
                "vae/diffusion_pytorch_model.safetensors",
                "text_encoder/model.fp16.safetensors",
            ]
        );
        assert_eq!(needed.notes, ["text_encoder: there are only weights of the variant `fp16`, which are read"]);
        let selection = Selection { variant: Some("bf16"), ..Selection::default() };
        let error = of(Some("bf16")).unwrap().check_variant(selection).unwrap_err().to_string();
        assert!(error.contains("no component has weights of the variant `bf16`"), "{error}");
    }

    #[test]
    fn odd_indexes_are_refused() {
        for (index, expected) in [
            (r#"{"vae": ["diffusers", "AutoencoderKL"]}"#, "no weights for `vae`: looked for"),
            (r#"{"../../etc": ["diffusers", "X"]}"#, "cannot be the name"),
            ("[]", "model_index.json is damaged"),
        ] {
            let error = needed_files(&repository(index, &[]), Selection::default()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
