//! Fixtures: `tests/reference/single_files.py`. Forwards with these files are in the families' goldens.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};

use super::*;
use crate::formats::{gguf, original};
use crate::stored::matrix::MatrixValues;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/single-files").join(name)
}

fn tensors(name: &str) -> HashMap<String, Tensor> {
    candle_core::safetensors::load(fixture(name), &Device::Cpu).unwrap()
}

/// A folder whose configuration says that it is for `class`.
fn folder_of(class: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), format!(r#"{{"_class_name": "{class}"}}"#)).unwrap();
    folder
}

const FLUX: &str = "FluxTransformer2DModel";
const SD3: &str = "SD3Transformer2DModel";

fn error_of(file: &Path, class: &str) -> String {
    Weights::open_file(file, folder_of(class).path()).unwrap_err().to_string()
}

/// What GGUF files of diffusers' names look like: those of no family, here, so that they are kept.
fn blocks() -> Arc<Weights> {
    let source = Source::open(&fixture("blocks.gguf")).unwrap();
    let tensors = gguf::open(&source).unwrap().tensors;
    Weights::of_source(source, whole(tensors)).unwrap()
}

fn largest(tensor: &Tensor) -> f32 {
    tensor.abs().unwrap().max_all().unwrap().to_scalar().unwrap()
}

#[test]
fn every_quantisation_has_the_values_of_ggufs_reference() {
    let weights = blocks();
    let expected = tensors("blocks.safetensors");
    assert_eq!(expected.len(), 10);
    for (name, expected) in &expected {
        let found = weights.var_builder(DType::F32, &Device::Cpu).get(expected.dims(), name).unwrap();
        // A block's value is one product and one sum: they may be fused, or not.
        assert!(largest(&(found - expected).unwrap()) <= 1e-6 * largest(expected), "{name}");
    }
    assert_eq!(weights.bytes(), 2 * 512 / 32 * (18 + 20 + 22 + 24 + 34) + 2 * 512 / 256 * (84 + 110 + 144 + 176 + 210));
}

/// Large matrices in half precision are not widened at load.
#[test]
fn half_precision_is_kept() {
    let values = Tensor::arange(0f32, (1 << 20) as f32, &Device::Cpu).unwrap().sin().unwrap();
    for stored in [DType::BF16, DType::F16] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("diffusion_pytorch_model.safetensors");
        let weight = values.to_dtype(stored).unwrap().reshape((1024, 1024)).unwrap();
        candle_core::safetensors::save(&HashMap::from([("weight", weight)]), &path).unwrap();
        let weights = Weights::open(folder.path()).unwrap();
        let matrix = weights.parameters(DType::F32, &Device::Cpu).matrix(1024, 1024, "weight").unwrap();
        assert_eq!(matrix.bytes(), 2 << 20, "{stored:?}");
    }
}

#[test]
fn matrices_of_blocks_have_the_values_of_ggufs_reference() {
    let parameters = blocks().parameters(DType::F32, &Device::Cpu);
    for (name, expected) in &tensors("blocks.safetensors") {
        let matrix = parameters.matrix(2, 512, name).unwrap();
        let MatrixValues::Blocks(rows) = &matrix.values else { panic!("{name} is not kept as blocks") };
        let widened = Tensor::from_vec(rows.widened(0..2).unwrap(), (2, 512), &Device::Cpu).unwrap();
        assert!(largest(&(widened - expected).unwrap()) <= 1e-6 * largest(expected), "{name}");
        let second = Tensor::from_vec(rows.widened(1..2).unwrap(), (1, 512), &Device::Cpu).unwrap();
        assert!(largest(&(second - expected.narrow(0, 1, 1).unwrap()).unwrap()) <= 1e-6 * largest(expected), "{name}");
    }
}

#[test]
fn a_gguf_file_alone_in_a_folder_is_found() {
    let folder = folder_of(FLUX);
    fs::copy(fixture("flux-dev.gguf"), folder.path().join("flux1-dev-Q8_0.gguf")).unwrap();
    let weights = Weights::open(folder.path()).unwrap();
    assert_eq!(weights.shape("transformer_blocks.0.attn.to_q.weight"), Some([32, 32].as_slice()));
    assert_eq!(weights.shape("single_transformer_blocks.5.proj_mlp.bias"), Some([128].as_slice()));
    fs::copy(fixture("flux-dev.gguf"), folder.path().join("flux1-dev-F16.gguf")).unwrap();
    let error = Weights::open(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("several GGUF files; give the one to use as --transformer, --text-encoder or --vae"),
        "{error}"
    );
    assert!(error.contains("flux1-dev-F16.gguf"), "{error}");
}

#[test]
fn diffusers_names_are_those_of_every_family() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
    for name in ["hunyuan-1.2", "qwen-image", "sana", "pixart-sigma", "sd3", "flux-dev", "flux2-klein", "z-image-turbo"]
    {
        let folder = fixtures.join(name).join("model/transformer");
        let mut files = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
        let file = files.find(|path| path.to_string_lossy().ends_with("l.safetensors")).expect(name);
        let (single, expected) = (Weights::open_file(&file, &folder).unwrap(), Weights::open(&folder).unwrap());
        assert!(single.names().eq(expected.names()), "{name}");
    }
}

#[test]
fn what_is_given_for_a_text_encoder_or_a_vae_is_named() {
    let place = tempfile::tempdir().unwrap();
    let whole = place.path().join("whole.safetensors");
    let tensor = Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap();
    let names = ["model.diffusion_model.double_blocks.0.img_mlp.0.weight", "vae.decoder.conv_in.weight"];
    candle_core::safetensors::save(&names.map(|name| (name.to_owned(), tensor.clone())).into(), &whole).unwrap();
    let vae = folder_of("AutoencoderKL");
    let text_encoder = tempfile::tempdir().unwrap();
    fs::write(text_encoder.path().join("config.json"), r#"{"architectures": ["Qwen3Model"]}"#).unwrap();
    let error_of = |file: &Path, folder: &Path| Weights::open_file(file, folder).unwrap_err().to_string();
    for folder in [vae.path(), text_encoder.path()] {
        let error = error_of(&whole, folder);
        assert!(error.ends_with("it holds a whole FLUX.1; give it as --model, with --config-from"), "{error}");
    }
    let error = error_of(&fixture("flux2-klein.safetensors"), text_encoder.path());
    assert!(error.ends_with("it holds a FLUX.2 transformer, but config.json describes a Qwen3Model"), "{error}");
    let error = error_of(&fixture("flux-dev.gguf"), vae.path());
    assert!(error.ends_with("it holds a FLUX transformer, but config.json describes a AutoencoderKL"), "{error}");
}

/// The first shard may have all the weights, and the second their scales, without which they would be noise.
#[test]
fn a_shard_is_not_taken_for_the_whole() {
    let place = tempfile::tempdir().unwrap();
    let shard = place.path().join("diffusion_pytorch_model-00001-of-00002.safetensors");
    fs::copy(fixture("sd3.5.safetensors"), &shard).unwrap();
    let error = error_of(&shard, SD3);
    assert!(error.starts_with(&shard.display().to_string()), "{error}");
    assert!(error.contains("it is shard 1 of 2, and the others are missing"), "{error}");
    let only = place.path().join("diffusion_pytorch_model-00001-of-00001.safetensors");
    fs::rename(&shard, &only).unwrap();
    assert!(Weights::open_file(&only, folder_of(SD3).path()).is_ok());
}

#[test]
fn another_family_is_named() {
    let error = error_of(&fixture("flux-dev.gguf"), SD3);
    assert!(error.starts_with(&fixture("flux-dev.gguf").display().to_string()), "{error}");
    let expected =
        "it holds a FLUX transformer (`double_blocks...`), but config.json describes a SD3Transformer2DModel";
    assert!(error.ends_with(expected), "{error}");
    let error = error_of(&fixture("sd3.5.safetensors"), FLUX);
    assert!(error.contains("it holds a Stable Diffusion 3 transformer"), "{error}");
    let error = error_of(&fixture("blocks.safetensors"), FLUX);
    assert!(error.contains("it holds tensors named `Q2_K`, `Q3_K`, `Q4_0` and so on"), "{error}");
}

#[test]
fn what_a_file_says_of_itself_is_said() {
    let unnamed = |name: &str, architecture: Option<&str>| {
        let tensor =
            StoredTensor::contiguous(crate::stored::encoding::Encoding::Plain(::safetensors::Dtype::F32), vec![1], 0);
        original::entries(vec![(name.to_owned(), tensor)], FLUX, architecture).unwrap_err()
    };
    assert!(unnamed("blocks.0.x", Some("wan")).starts_with("it holds a model of the kind `wan`"));
    let unet = unnamed("model.diffusion_model.input_blocks.0.0.weight", None);
    assert!(unet.starts_with("it holds the UNet of Stable Diffusion 1, 2 or XL"), "{unet}");
}

/// Checkpoints of trainers: `diffusion_model.joint_blocks..` and the like.
#[test]
fn a_prefix_of_all_names_is_dropped() {
    let folder = folder_of(SD3);
    let expected = Weights::open_file(&fixture("sd3.5.safetensors"), folder.path()).unwrap();
    // Without what it has beside the transformer.
    let plain = |name: &str| name.strip_prefix("model.diffusion_model.").map(str::to_owned);
    let tensors: Vec<_> =
        tensors("sd3.5.safetensors").into_iter().filter_map(|(name, tensor)| Some((plain(&name)?, tensor))).collect();
    for prefix in ["", "diffusion_model.", "transformer.", "module.", "_orig_mod.", "net.", "model.diffusion_model."] {
        let file = folder.path().join("prefixed.safetensors");
        let renamed: HashMap<_, _> =
            tensors.iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone())).collect();
        candle_core::safetensors::save(&renamed, &file).unwrap();
        let found = Weights::open_file(&file, folder.path()).unwrap();
        assert!(found.names().eq(expected.names()), "{prefix}");
    }
}

#[test]
fn a_lora_as_a_transformer_is_called_one() {
    let folder = folder_of(FLUX);
    let file = folder.path().join("lora.safetensors");
    let factor = Tensor::zeros((4, 2), DType::F32, &Device::Cpu).unwrap();
    for stem in [
        "transformer.transformer_blocks.0.attn.to_q",
        "lora_unet_double_blocks_0_img_attn_qkv",
        "double_blocks.0.img_attn.qkv",
    ] {
        let names = [".lora_down.weight", ".lora_up.weight", ".alpha"].map(|end| format!("{stem}{end}"));
        let lora: HashMap<_, _> = names.into_iter().map(|name| (name, factor.clone())).collect();
        candle_core::safetensors::save(&lora, &file).unwrap();
        let error = error_of(&file, FLUX);
        assert!(error.contains("and so on, a LoRA, which changes a model and is none"), "{error}");
    }
}

#[test]
fn tensors_that_no_rule_knows_are_surplus() {
    let tensor =
        StoredTensor::contiguous(crate::stored::encoding::Encoding::Plain(::safetensors::Dtype::F32), vec![6, 2], 0);
    let stored = ["double_blocks.0.img_attn.qkv.weight", "double_blocks.0.img_attn.lora.weight"];
    let stored = stored.map(|name| (name.to_owned(), tensor.clone()));
    let names: Vec<_> =
        original::entries(stored.into(), FLUX, None).unwrap().into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        names,
        [
            "double_blocks.0.img_attn.lora.weight",
            "transformer_blocks.0.attn.to_q.weight",
            "transformer_blocks.0.attn.to_k.weight",
            "transformer_blocks.0.attn.to_v.weight",
        ]
    );
    let uneven = StoredTensor::contiguous(tensor.encoding, vec![7, 2], 0);
    let error = original::entries(vec![("double_blocks.0.img_attn.qkv.weight".to_owned(), uneven)], FLUX, None);
    assert!(error.unwrap_err().contains("of shape [7, 2] cannot be split as those of FLUX are"));
}

/// Whatever a damaged file says, opening and reading it ends in tensors or in an error.
#[test]
fn damaged_gguf_files_never_panic() {
    let folder = folder_of(SD3);
    let file = folder.path().join("damaged.gguf");
    let whole = fs::read(fixture("sd3.gguf")).unwrap();
    fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    let error = error_of(&file, SD3);
    assert!(error.contains("truncated or damaged, fetch it again"), "{error}");
    for place in (0..20_000).step_by(3) {
        let mut bytes = whole.clone();
        bytes[place] ^= 1 << (place % 8);
        fs::write(&file, bytes).unwrap();
        let Ok(weights) = Weights::open_file(&file, folder.path()) else {
            continue;
        };
        let parameters = weights.parameters(DType::F32, &Device::Cpu);
        for name in weights.names() {
            if let Some([rows, columns]) = weights.shape(name) {
                let _ = parameters.matrix(*rows, *columns, name);
            }
        }
    }
}
