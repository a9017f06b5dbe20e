//! Models in one file whose configurations come from a hub. Pictures are in the runner's tests.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use candle_core::{DType, Device, Tensor};
use tempfile::TempDir;

use super::stand_in::{Mood, StandInHub};
use super::*;
use crate::GivenFile;

const FLUX: &str = "black-forest-labs/FLUX.1-schnell";
const TRANSFORMER: &str = "model.diffusion_model.double_blocks.0.img_mlp.0.weight";
const VAE: &str = "vae.decoder.conv_in.weight";
const CLIP: &str = "text_encoders.clip_l.transformer.text_model.final_layer_norm.weight";
const T5: &str = "text_encoders.t5xxl.transformer.shared.weight";

struct Setup {
    hub: StandInHub,
    options: HubOptions,
    folder: TempDir,
}

impl Setup {
    /// A hub that has this repository, with weights that are no weights.
    fn new(id: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("repository");
        for (path, text) in [
            (
                "model_index.json",
                r#"{"_class_name": "FluxPipeline", "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
                    "text_encoder": ["transformers", "CLIPTextModel"], "text_encoder_2": ["transformers", "T5EncoderModel"],
                    "tokenizer": ["transformers", "CLIPTokenizer"], "tokenizer_2": ["transformers", "T5TokenizerFast"],
                    "transformer": ["diffusers", "FluxTransformer2DModel"], "vae": ["diffusers", "AutoencoderKL"]}"#,
            ),
            ("scheduler/scheduler_config.json", "{}"),
            ("text_encoder/config.json", r#"{"architectures": ["CLIPTextModel"]}"#),
            ("text_encoder/model.safetensors", "large"),
            ("text_encoder_2/config.json", r#"{"architectures": ["T5EncoderModel"]}"#),
            ("text_encoder_2/model.safetensors", "large"),
            ("tokenizer/vocab.json", "{}"),
            ("tokenizer_2/spiece.model", "{}"),
            ("transformer/config.json", r#"{"_class_name": "FluxTransformer2DModel"}"#),
            ("transformer/diffusion_pytorch_model.safetensors", "large"),
            ("vae/config.json", r#"{"_class_name": "AutoencoderKL"}"#),
            ("vae/diffusion_pytorch_model.safetensors", "large"),
        ] {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let hub = StandInHub::start(id, &root, Mood::Friendly);
        let options = HubOptions {
            endpoint: hub.endpoint.clone(),
            cache_dir: folder.path().join("hub"),
            token: Token::Absent,
            offline: false,
            ..HubOptions::from_env()
        };
        Self { hub, options, folder }
    }

    /// A file with tensors of these names.
    fn file(&self, names: &[&str]) -> PathBuf {
        let path = self.folder.path().join("flux1-schnell-fp8.safetensors");
        let tensor = Tensor::zeros((4, 2), DType::F32, &Device::Cpu).unwrap();
        let tensors: HashMap<_, _> = names.iter().map(|name| ((*name).to_owned(), tensor.clone())).collect();
        candle_core::safetensors::save(&tensors, &path).unwrap();
        path
    }

    fn open(&self, names: &[&str], options: &HubOptions) -> Result<ModelFolder, String> {
        resolve(self.file(names).to_str().unwrap(), options).map_err(|error| error.to_string())
    }

    fn fetched(&self) -> Vec<String> {
        let paths = self.hub.seen().into_iter().map(|seen| seen.path);
        paths.filter_map(|path| Some(path.split_once("/resolve/")?.1.split_once('/')?.1.to_owned())).collect()
    }
}

const ALL: [&str; 4] = [TRANSFORMER, VAE, CLIP, T5];

#[test]
fn only_small_files_of_the_familys_repository_are_fetched_and_once() {
    let setup = Setup::new(FLUX);
    let folder = setup.open(&ALL, &setup.options).unwrap();
    assert_eq!(folder.id(), "flux1-schnell-fp8");
    let mut fetched = setup.fetched();
    fetched.sort();
    fetched.dedup();
    let expected = [
        "model_index.json",
        "scheduler/scheduler_config.json",
        "text_encoder/config.json",
        "text_encoder_2/config.json",
        "tokenizer/vocab.json",
        "tokenizer_2/spiece.model",
        "transformer/config.json",
        "vae/config.json",
    ];
    assert_eq!(fetched, expected);
    assert!(folder.has_file_of("text_encoder_2") && folder.has_file_of("vae"));
    let weights = folder.weights("transformer").unwrap();
    assert_eq!(weights.names().collect::<Vec<_>>(), ["transformer_blocks.0.ff.net.0.proj.weight"]);
    assert_eq!(folder.weights("text_encoder_2").unwrap().names().collect::<Vec<_>>(), ["shared.weight"]);
    // The cache has them now.
    let offline = HubOptions { offline: true, endpoint: "http://127.0.0.1:9".to_owned(), ..setup.options.clone() };
    setup.open(&ALL, &offline).unwrap();
    let dev = [&ALL[..], &["model.diffusion_model.guidance_in.in_layer.weight"]].concat();
    let error = setup.open(&dev, &offline).unwrap_err();
    assert!(
        error.contains("flux1-schnell-fp8.safetensors holds weights only; configurations and tokenizers"),
        "{error}"
    );
    assert!(
        error.contains("those of black-forest-labs/FLUX.1-dev, or of the folder or repository given as --config-from"),
        "{error}"
    );
    assert!(error.contains("HF_HUB_OFFLINE is set"), "{error}");
}

#[test]
fn missing_parts_come_from_a_named_repository_only() {
    let setup = Setup::new("acme/my-flux");
    let error = setup.open(&[TRANSFORMER, CLIP], &setup.options).unwrap_err();
    let expected = "it holds a FLUX.1 without vae (`vae...`), text_encoder_2 (`text_encoders.t5xxl.transformer...`); give a \
                    folder or repository that has the rest as --config-from, such as black-forest-labs/FLUX.1-schnell";
    assert!(error.ends_with(expected), "{error}");
    assert!(setup.hub.seen().is_empty());
    let named = setup.options.clone().with_config_from(Some("acme/my-flux".to_owned()));
    let folder = setup.open(&[TRANSFORMER, CLIP], &named).unwrap();
    let fetched = setup.fetched();
    for (path, is_fetched) in [
        ("vae/diffusion_pytorch_model.safetensors", true),
        ("text_encoder_2/model.safetensors", true),
        ("text_encoder/model.safetensors", false),
        ("transformer/diffusion_pytorch_model.safetensors", false),
    ] {
        assert_eq!(fetched.iter().any(|fetched| fetched == path), is_fetched, "{path}");
    }
    assert!(!folder.has_file_of("vae") && folder.has_file_of("text_encoder"));
    // Files of their own fill gaps as well.
    let t5 = vec![GivenFile::text_encoder("text_encoder_2=t5.gguf"), GivenFile::new("vae", "ae.safetensors")];
    let error = setup.open(&[TRANSFORMER, CLIP], &named.with_config_from(None).with_files(t5)).unwrap_err();
    assert!(error.contains("are those of black-forest-labs/FLUX.1-schnell"), "{error}");
}

/// As one points at the largest file of a folder.
#[test]
fn a_component_of_a_folder_leads_to_the_folder() {
    let setup = Setup::new(FLUX);
    let repository = setup.folder.path().join("repository");
    let file = repository.join("transformer/diffusion_pytorch_model.safetensors");
    fs::rename(setup.file(&["transformer_blocks.0.attn.to_q.weight"]), &file).unwrap();
    let error = resolve(file.to_str().unwrap(), &setup.options).unwrap_err().to_string();
    let expected = format!("It is in a model folder: give {} as --model", repository.display());
    assert!(error.ends_with(&expected), "{error}");
}

#[test]
fn a_rest_that_is_none_is_refused() {
    let setup = Setup::new(FLUX);
    let file = setup.file(&ALL);
    let options = |from: &str| setup.options.clone().with_config_from(Some(from.to_owned()));
    let error = setup.open(&ALL, &options(file.to_str().unwrap())).unwrap_err();
    assert!(error.ends_with("is a file; --config-from takes a model folder or a hub id"), "{error}");
    let repository = setup.folder.path().join("repository");
    let error = resolve(repository.to_str().unwrap(), &options(FLUX)).unwrap_err().to_string();
    assert!(error.ends_with("is no file; --config-from is for a --model that is one file"), "{error}");
    let error = setup.open(&ALL, &options("/nonexistent/folder")).unwrap_err();
    assert!(error.contains("`/nonexistent/folder` is no model"), "{error}");
    // Those of another family, and of a file that is none.
    let sd3 = "model.diffusion_model.joint_blocks.0.x_block.mlp.fc1.weight";
    let error = setup.open(&[sd3, VAE, CLIP, T5], &options(FLUX)).unwrap_err();
    assert!(error.contains("it holds a Stable Diffusion 3, and the configurations in "), "{error}");
    assert!(
        error.contains(" are for a FluxTransformer2DModel; give those of a Stable Diffusion 3 as --config-from"),
        "{error}"
    );
    fs::write(&file, "no weights").unwrap();
    let error = resolve(file.to_str().unwrap(), &setup.options).unwrap_err().to_string();
    assert!(
        error.starts_with(&file.display().to_string()) && error.contains("truncated, or no safetensors file"),
        "{error}"
    );
    for name in ["model.diffusion_model.input_blocks.0.0.weight", "unknown"] {
        assert!(setup.open(&[name, VAE], &setup.options).unwrap_err().contains("whole models in one file are read of"));
    }
}
