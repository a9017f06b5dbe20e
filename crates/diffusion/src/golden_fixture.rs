//! A fixture of a text-to-image model, opened for tests of its parts (`tests/reference/README.md`).

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use afterimage_checkpoint::{ModelFolder, ModelIndex};
use candle_core::{DType, Device, Tensor};
use serde_json::Value;

use crate::text::EncoderSource;

/// Relative to the largest value.
const TOLERANCE: f32 = 1e-4;

/// A folder below `tests/fixtures`.
pub(crate) struct Fixture {
    pub folder: ModelFolder,
    /// `golden.json`
    pub golden: Value,
    /// `golden.safetensors`
    pub tensors: HashMap<String, Tensor>,
}

impl Fixture {
    pub(crate) fn open(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name);
        let golden = std::fs::read_to_string(path.join("golden.json")).unwrap();
        Self {
            folder: ModelFolder::open(&path.join("model")).unwrap(),
            golden: serde_json::from_str(&golden).unwrap(),
            tensors: candle_core::safetensors::load(path.join("golden.safetensors"), &Device::Cpu).unwrap(),
        }
    }

    /// With the transformer from a file of `tests/fixtures/single-files`, and what is expected of that.
    pub(crate) fn with_single_file(mut self, name: &str, file: &str) -> Self {
        let files = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/single-files");
        let golden = candle_core::safetensors::load(files.join("golden.safetensors"), &Device::Cpu).unwrap();
        for tensor in ["output", "context_embedder"] {
            self.tensors.insert(format!("forward.{tensor}"), golden[&format!("{name}.{tensor}")].clone());
        }
        self.folder = self.folder.with_transformer(&files.join(file)).unwrap();
        self
    }

    /// In f32 on the CPU, and there always.
    pub(crate) fn text_encoders(&self) -> EncoderSource {
        EncoderSource {
            folder: self.folder.clone(),
            index: Arc::new(ModelIndex::read(&self.folder).unwrap()),
            device: Device::Cpu,
            dtype: DType::F32,
            states_device: Device::Cpu,
            states_dtype: DType::F32,
            offloaded_by: None,
        }
    }
}

pub(crate) fn assert_near(ours: &Tensor, expected: &Tensor, what: &str) {
    assert_eq!(ours.dims(), expected.dims(), "{what}");
    let largest = |tensor: &Tensor| tensor.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    let difference = largest(&(ours - expected).unwrap()) / largest(expected);
    assert!(difference <= TOLERANCE, "{what}: {difference} off");
}

/// Token ids of `golden.json`.
pub(crate) fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}
