//! Which files of a repository a pipeline reads.

use std::path::Path;

use serde_json::Value;

use crate::RunnerError;
use crate::model_folder::{MODEL_INDEX, TRANSFORMER};
use crate::pipeline::CALIBRATION_FILE;
use crate::weights::{WeightFiles, is_plain_name};

/// What tokenizers of the supported text encoders are stored as; those that are there are needed.
const TOKENIZER_FILES: [&str; 7] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "spiece.model",
];

/// Components that no pipeline here uses.
const UNUSED: [&str; 3] = ["feature_extractor", "image_encoder", "safety_checker"];

/// A set of files that can be asked for: a snapshot on disk, or a repository.
pub(super) trait Files {
    /// Whether it has the file `path`.
    fn has(&self, path: &str) -> bool;

    /// The content of a text file.
    fn text(&self, path: &str) -> Result<String, RunnerError>;
}

/// A snapshot in the cache.
pub(super) struct Snapshot<'a>(pub(super) &'a Path);

impl Files for Snapshot<'_> {
    fn has(&self, path: &str) -> bool {
        self.0.join(path).is_file()
    }

    fn text(&self, path: &str) -> Result<String, RunnerError> {
        let path = self.0.join(path);
        std::fs::read_to_string(&path).map_err(|source| RunnerError::Read { path, source })
    }
}

/// The needed files, whether or not they are all there: `model_index.json`, the calibration where there is
/// one, the configuration of each component, and the weights of each model in one form, `without_transformer`
/// but for that one's.
pub(super) fn needed_files(files: &impl Files, without_transformer: bool) -> Result<Vec<String>, RunnerError> {
    let index: serde_json::Map<String, Value> = serde_json::from_str(&files.text(MODEL_INDEX)?)
        .map_err(|error| RunnerError::Model(format!("{MODEL_INDEX} is damaged: {error}")))?;
    let mut needed = vec![MODEL_INDEX.to_string()];
    needed.extend(files.has(CALIBRATION_FILE).then(|| CALIBRATION_FILE.to_string()));
    for (component, value) in &index {
        let Some(class) = component_class(value) else {
            continue;
        };
        if UNUSED.contains(&component.as_str()) {
            continue;
        }
        if !is_plain_name(component) {
            return Err(RunnerError::Model(format!(
                "{MODEL_INDEX}: `{component}` cannot be the name of a component's folder"
            )));
        }
        if without_transformer && component == TRANSFORMER {
            needed.push(format!("{component}/config.json"));
            continue;
        }
        add_component(files, component, class, &mut needed)?;
    }
    Ok(needed)
}

/// The class in `["library", "Class"]`; entries of other kinds, `[null, null]` among them, are no
/// components.
fn component_class(value: &Value) -> Option<&str> {
    match value.as_array()?.as_slice() {
        [library, class] if library.is_string() => class.as_str(),
        _ => None,
    }
}

fn add_component(
    files: &impl Files,
    component: &str,
    class: &str,
    needed: &mut Vec<String>,
) -> Result<(), RunnerError> {
    if class.ends_with("Scheduler") {
        needed.push(format!("{component}/scheduler_config.json"));
        return Ok(());
    }
    if class.contains("Tokenizer") {
        let paths = TOKENIZER_FILES.map(|name| format!("{component}/{name}"));
        needed.extend(paths.into_iter().filter(|path| files.has(path)));
        return Ok(());
    }
    needed.push(format!("{component}/config.json"));
    let weights = WeightFiles::choose(
        |name| files.has(&format!("{component}/{name}")),
        |name| {
            let path = format!("{component}/{name}");
            let text = files.text(&path)?;
            needed.push(path);
            Ok(text)
        },
    )?;
    let Some(weights) = weights else {
        return Err(RunnerError::Model(format!(
            "there are no weights for `{component}`: looked for {}",
            WeightFiles::looked_for()
        )));
    };
    needed.extend(weights.names.iter().map(|name| format!("{component}/{name}")));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    impl Files for HashMap<&str, &str> {
        fn has(&self, path: &str) -> bool {
            self.contains_key(path)
        }

        fn text(&self, path: &str) -> Result<String, RunnerError> {
            let text = self.get(path);
            text.map(|text| text.to_string()).ok_or_else(|| RunnerError::Model(format!("no {path}")))
        }
    }

    fn repository<'a>(index: &'a str, paths: &[&'a str]) -> HashMap<&'a str, &'a str> {
        let mut files: HashMap<_, _> = paths.iter().map(|path| (*path, "")).collect();
        files.insert(MODEL_INDEX, index);
        files
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
            needed_files(&files, false).unwrap(),
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
        assert_eq!(needed_files(&files, true).unwrap(), ["model_index.json", "transformer/config.json"]);
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
            needed_files(&files, false).unwrap(),
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
            "cache_calibration.json",
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
        let mut found = needed_files(&files, false).unwrap();
        found.retain(|path| !path.ends_with("config.json") || path.starts_with("tokenizer"));
        found.retain(|path| path != MODEL_INDEX);
        found.sort();
        assert_eq!(found, needed);
    }

    #[test]
    fn odd_indexes_are_refused() {
        for (index, expected) in [
            (r#"{"vae": ["diffusers", "AutoencoderKL"]}"#, "no weights for `vae`: looked for"),
            (r#"{"../../etc": ["diffusers", "X"]}"#, "cannot be the name"),
            ("[]", "model_index.json is damaged"),
        ] {
            let error = needed_files(&repository(index, &[]), false).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
