//! A fixture of a text-to-image model, opened for tests of its parts (`tests/reference/README.md`).

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use afterimage_checkpoint::{GivenFile, ModelFolder, ModelIndex, TRANSFORMER};
use candle_core::{DType, Device, Tensor};
use serde_json::Value;
use tempfile::TempDir;

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
    /// Holds a folder that was put together for the test.
    _place: Option<TempDir>,
}

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

fn tensors_of(path: &Path) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(path, &Device::Cpu).unwrap()
}

impl Fixture {
    pub(crate) fn open(name: &str) -> Self {
        let path = fixtures().join(name);
        let golden = fs::read_to_string(path.join("golden.json")).unwrap();
        Self {
            folder: ModelFolder::open(&path.join("model")).unwrap(),
            golden: serde_json::from_str(&golden).unwrap(),
            tensors: tensors_of(&path.join("golden.safetensors")),
            _place: None,
        }
    }

    /// With the transformer from a file below `tests/fixtures`, and what is expected of that in the golden values beside
    /// it.
    pub(crate) fn with_single_file(mut self, file: &str) -> Self {
        let file = fixtures().join(file);
        self.expect(&file, file.file_stem().unwrap().to_str().unwrap());
        self.folder = self.folder.with_files(&[GivenFile::new(TRANSFORMER, file)]).unwrap();
        self
    }

    /// With the weights of a component from a folder below `tests/fixtures`, and what is expected of that in the golden
    /// values beside it.
    pub(crate) fn with_folder(mut self, component: &str, from: &str) -> Self {
        let from = fixtures().join(from);
        self.expect(&from, from.file_name().unwrap().to_str().unwrap());
        let place = tempfile::tempdir().unwrap();
        let model = self.folder.path().unwrap();
        for entry in fs::read_dir(model).unwrap().map(Result::unwrap).filter(|entry| entry.file_name() != component) {
            symlink(entry.path(), place.path().join(entry.file_name())).unwrap();
        }
        let own = place.path().join(component);
        fs::create_dir(&own).unwrap();
        symlink(model.join(component).join("config.json"), own.join("config.json")).unwrap();
        for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
            symlink(entry.path(), own.join(entry.file_name())).unwrap();
        }
        self.folder = ModelFolder::open(place.path()).unwrap();
        Self { _place: Some(place), ..self }
    }

    /// Takes what the golden values beside `path` have under this name as that of the forward.
    fn expect(&mut self, path: &Path, name: &str) {
        let golden = tensors_of(&path.with_file_name("golden.safetensors"));
        let expected = golden.into_iter().filter_map(|(key, tensor)| {
            Some((format!("forward.{}", key.strip_prefix(name)?.strip_prefix('.')?), tensor))
        });
        self.tensors.extend(expected);
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
