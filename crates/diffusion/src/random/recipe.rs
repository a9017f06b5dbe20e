//! What a model folder is made of, and writing it.

use std::fs;
use std::path::Path;

use afterimage_checkpoint::{CheckpointError, MODEL_INDEX, Parameters, RandomTensors};
use candle_core::DType;
use serde_json::{Map, Value, json};

use super::tokenizers::TokenizerKind;
use crate::{DiffusionError, families, text, vae};

/// The diffusers version that configurations name.
pub(super) const DIFFUSERS_VERSION: &str = "0.42.1";

/// A pipeline with all that belongs to it.
pub(super) struct Recipe {
    /// diffusers' name.
    pub(super) pipeline: &'static str,
    pub(super) components: Vec<Component>,
    /// Folder and kind.
    pub(super) tokenizers: Vec<(&'static str, TokenizerKind)>,
    /// With its class.
    pub(super) scheduler: Value,
    /// What else stands in `model_index.json`.
    pub(super) index: Map<String, Value>,
}

/// A part with weights.
pub(super) struct Component {
    /// Its folder.
    pub(super) name: &'static str,
    pub(super) class: &'static str,
    pub(super) config: Value,
    pub(super) storage: Storage,
    /// Second names of tensors, which published files do not have.
    pub(super) absent: &'static [&'static str],
    /// Names and shapes of tensors that published files have and the model does not ask for.
    pub(super) unread: Vec<(String, Vec<usize>)>,
}

/// What the weights are written as.
pub(super) enum Storage {
    /// As diffusers saves its models.
    Diffusers,
    /// As transformers saves text encoders.
    Transformers,
    /// One quantised file under the names of the model's makers, who call it `architecture`.
    Gguf { file: &'static str, architecture: &'static str },
}

impl Component {
    /// Of what the model asks for, and no more.
    pub(super) fn new(name: &'static str, class: &'static str, storage: Storage, config: Value) -> Self {
        Self { name, class, config, storage, absent: &[], unread: Vec::new() }
    }

    /// All that its weights consist of, under diffusers' names.
    pub(super) fn tensors(&self) -> Result<RandomTensors, DiffusionError> {
        let (parameters, recorder) = Parameters::recording(DType::F32);
        let recorder = recorder.without(self.absent);
        let config = self.config.to_string();
        let is_known = families::build_transformer(self.class, &config, parameters.clone())?
            || text::build_encoder(self.class, &config, &parameters)?
            || vae::build_decoder(self.class, &config, &parameters)?;
        if !is_known {
            return Err(DiffusionError::RandomModel(format!(
                "{}: there is no model of class {}",
                self.name, self.class
            )));
        }
        let mut tensors = recorder.tensors();
        tensors.extend(self.unread.iter().cloned());
        Ok(tensors)
    }

    fn library(&self) -> &'static str {
        match self.storage {
            Storage::Transformers => "transformers",
            Storage::Diffusers | Storage::Gguf { .. } => "diffusers",
        }
    }

    fn write(&self, folder: &Path, seed: u64, dtype: DType) -> Result<(), DiffusionError> {
        write_json(&folder.join("config.json"), &self.config)?;
        let tensors = self.tensors()?;
        match self.storage {
            Storage::Diffusers => {
                tensors.write_safetensors(&folder.join("diffusion_pytorch_model.safetensors"), seed, dtype)?;
            }
            Storage::Transformers => tensors.write_safetensors(&folder.join("model.safetensors"), seed, dtype)?,
            Storage::Gguf { file, architecture } => {
                tensors.with_original_names(self.class).write_gguf(&folder.join(file), architecture, seed)?;
            }
        }
        Ok(())
    }
}

impl Recipe {
    /// Writes the folder, which is new or empty.
    pub(super) fn write(&self, out: &Path, seed: u64, dtype: DType) -> Result<(), DiffusionError> {
        for component in &self.components {
            component.write(&out.join(component.name), seed, dtype)?;
        }
        for (name, kind) in &self.tokenizers {
            kind.write(&out.join(name))?;
        }
        write_json(&out.join("scheduler/scheduler_config.json"), &self.scheduler)?;
        // Last, so that an interrupted run does not leave something that looks like a model.
        write_json(&out.join(MODEL_INDEX), &self.model_index())
    }

    fn model_index(&self) -> Value {
        let mut index = self.index.clone();
        index.insert("_class_name".to_owned(), json!(self.pipeline));
        index.insert("_diffusers_version".to_owned(), json!(DIFFUSERS_VERSION));
        index.insert("scheduler".to_owned(), json!(["diffusers", self.scheduler["_class_name"]]));
        for component in &self.components {
            index.insert(component.name.to_owned(), json!([component.library(), component.class]));
        }
        for (name, kind) in &self.tokenizers {
            index.insert((*name).to_owned(), json!(["transformers", kind.class()]));
        }
        Value::Object(index)
    }
}

pub(super) fn write_json(path: &Path, value: &Value) -> Result<(), DiffusionError> {
    write_text(path, &format!("{value:#}\n"))
}

pub(super) fn write_text(path: &Path, text: &str) -> Result<(), DiffusionError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(path, text))
        .map_err(|source| CheckpointError::Write { path: path.to_path_buf(), source }.into())
}
