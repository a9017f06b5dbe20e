//! Model folders with random weights of exactly the configuration of a published model.
//!
//! Speed and memory do not depend on what the weights say, so benchmarks of the real sizes need no
//! download. The pictures are noise. The same seed gives the same files on every machine.

mod dit;
mod tensors;
mod vae;

use std::fs;
use std::path::Path;
use std::str::FromStr;

use candle_core::DType;
use serde_json::{Value, json};

use crate::RunnerError;
use crate::model_folder::MODEL_INDEX;
use crate::precision::Precision;
use dit::DitConfig;
use tensors::TensorList;
use vae::VaeConfig;

/// A configuration that [`write_random_model`] knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RandomModelKind {
    /// `facebook/DiT-XL-2-256`: 750 million parameters as diffusers stores them, 256x256 pictures.
    DitXl2At256,
    /// `facebook/DiT-XL-2-512`: the same at 512x512.
    DitXl2At512,
    /// A DiT of 4 layers with 32 channels and a VAE of two levels, 16x16 pictures: for tests.
    TinyDit,
    /// The same DiT before the VAE of `DitXl2At256`: decoding at its real size, without gigabytes beside it.
    TinyDitSdVae,
}

impl RandomModelKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::DitXl2At256, Self::DitXl2At512, Self::TinyDit, Self::TinyDitSdVae];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::DitXl2At256 => "dit-xl-2-256",
            Self::DitXl2At512 => "dit-xl-2-512",
            Self::TinyDit => "tiny-dit",
            Self::TinyDitSdVae => "tiny-dit-sd-vae",
        }
    }

    /// Named classes; those of the published models are ImageNet's.
    fn labels(self) -> usize {
        match self {
            Self::DitXl2At256 | Self::DitXl2At512 => 1000,
            Self::TinyDit | Self::TinyDitSdVae => 10,
        }
    }

    fn configs(self) -> (DitConfig, VaeConfig) {
        match self {
            Self::DitXl2At256 => (DitConfig::xl_2(32), VaeConfig::sd_vae_ft()),
            Self::DitXl2At512 => (DitConfig::xl_2(64), VaeConfig::sd_vae_ft()),
            Self::TinyDit => (DitConfig::tiny(), VaeConfig::tiny()),
            Self::TinyDitSdVae => (DitConfig::tiny(), VaeConfig::sd_vae_ft()),
        }
    }
}

impl FromStr for RandomModelKind {
    type Err = RunnerError;

    fn from_str(name: &str) -> Result<Self, RunnerError> {
        Self::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
            let known = Self::ALL.map(Self::name).join(", ");
            RunnerError::Model(format!("no random model `{name}`; there are {known}"))
        })
    }
}

/// Writes a diffusers model folder with random weights of this precision into `out`, which must be
/// empty or absent. Tensors are made and written one by one.
///
/// # Errors
/// `out` holds something already or cannot be written.
pub fn write_random_model(
    kind: RandomModelKind,
    out: &Path,
    seed: u64,
    precision: Precision,
) -> Result<(), RunnerError> {
    if fs::read_dir(out).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(RunnerError::Model(format!(
            "{}: a random model is only written into an empty or new folder",
            out.display()
        )));
    }
    let (dit, vae) = kind.configs();
    let components = [("transformer", dit.to_json(), dit.tensors()), ("vae", vae.to_json(), vae.tensors())];
    for (name, config, tensors) in components {
        write_component(&out.join(name), &config, &tensors, seed, precision.stored())?;
    }
    let scheduler = out.join("scheduler/scheduler_config.json");
    write_json(&scheduler, &scheduler_config())?;
    // Last, so that an interrupted run does not leave something that looks like a model.
    write_json(&out.join(MODEL_INDEX), &model_index(kind.labels()))
}

fn write_component(
    folder: &Path,
    config: &Value,
    tensors: &TensorList,
    seed: u64,
    dtype: DType,
) -> Result<(), RunnerError> {
    write_json(&folder.join("config.json"), config)?;
    let path = folder.join("diffusion_pytorch_model.safetensors");
    tensors.write(&path, seed, dtype)
}

fn write_json(path: &Path, value: &Value) -> Result<(), RunnerError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(path, format!("{value:#}\n")))
        .map_err(|source| RunnerError::Write { path: path.to_path_buf(), source })
}

fn model_index(labels: usize) -> Value {
    let id2label: serde_json::Map<String, Value> =
        (0..labels).map(|class| (class.to_string(), json!(format!("class {class}")))).collect();
    json!({
        "_class_name": "DiTPipeline",
        "_diffusers_version": "0.42.1",
        "id2label": id2label,
        "scheduler": ["diffusers", "DDIMScheduler"],
        "transformer": ["diffusers", "DiTTransformer2DModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    })
}

fn scheduler_config() -> Value {
    json!({
        "_class_name": "DDIMScheduler",
        "_diffusers_version": "0.42.1",
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "beta_start": 0.0001,
        "clip_sample": false,
        "num_train_timesteps": 1000,
        "prediction_type": "epsilon",
        "set_alpha_to_one": true,
        "steps_offset": 0,
        "trained_betas": null,
    })
}

#[cfg(test)]
mod tests;
