//! A model in one file, whose configurations come from the cache of a hub.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Map, Value, json};

use crate::server::PROGRAM;

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/z-image-turbo/model");
const TURBO: &str = "Tongyi-MAI/Z-Image-Turbo";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
/// Bytes of the length that a safetensors file begins with.
const LENGTH_BYTES: usize = 8;

/// Tensors of several safetensors files in one, each file's under a prefix.
fn joined(files: &[(PathBuf, &str)]) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for (path, prefix) in files {
        let bytes = fs::read(path).unwrap();
        let (length, rest) = bytes.split_at(LENGTH_BYTES);
        let (text, values) = rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
        let tensors: Map<String, Value> = serde_json::from_slice(text).unwrap();
        for (name, mut tensor) in tensors.into_iter().filter(|(name, _)| name != "__metadata__") {
            let moved = |offset: &Value| json!(offset.as_u64().unwrap() + data.len() as u64);
            tensor["data_offsets"] = tensor["data_offsets"].as_array().unwrap().iter().map(moved).collect();
            header.insert(format!("{prefix}{name}"), tensor);
        }
        data.extend_from_slice(values);
    }
    let header = Value::Object(header).to_string().into_bytes();
    [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()
}

/// Copies all but weights.
fn copy_configurations(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_configurations(&path, &copy);
        } else if path.extension().is_none_or(|extension| extension != "safetensors") {
            fs::copy(&path, &copy).unwrap();
        }
    }
}

/// Its base model has the same tensors, so nothing in the file says which of the two it is.
#[test]
fn a_model_that_is_taken_for_one_of_two_is_said_to_be() {
    let place = tempfile::tempdir().unwrap();
    let repository = place.path().join(format!("hub/models--{}", TURBO.replace('/', "--")));
    copy_configurations(Path::new(FIXTURE), &repository.join("snapshots").join(COMMIT));
    fs::create_dir(repository.join("refs")).unwrap();
    fs::write(repository.join("refs/main"), COMMIT).unwrap();
    let part = |path: &str, prefix: &'static str| (Path::new(FIXTURE).join(path), prefix);
    let file = place.path().join("z_image.safetensors");
    let parts = [
        part("transformer/diffusion_pytorch_model.safetensors", "model.diffusion_model."),
        part("text_encoder/model.safetensors", "text_encoders.qwen3_4b.transformer."),
        part("vae/diffusion_pytorch_model.safetensors", "vae."),
    ];
    fs::write(&file, joined(&parts)).unwrap();
    let said = |flags: &[&str]| {
        let mut command = Command::new(PROGRAM);
        command.args(["generate", "a red apple", "--steps", "1", "--buckets", "64x64", "--output", "-", "--model"]);
        command.arg(&file).args(flags);
        let output = command.env("HF_HUB_CACHE", place.path().join("hub")).env("HF_HUB_OFFLINE", "1").output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && output.stdout.starts_with(b"\x89PNG"), "{said}");
        said
    };
    let assumed = said(&[]);
    assert!(assumed.contains("z_image.safetensors: taken for the model of Tongyi-MAI/Z-Image-Turbo"), "{assumed}");
    assert!(assumed.contains("if the file holds that one, give --config-from Tongyi-MAI/Z-Image"), "{assumed}");
    assert!(!said(&["--config-from", TURBO]).contains("taken for"));
}
