//! Models in one file, and text encoders and VAEs in files of their own: pictures equal those of the folder, bit for bit.
//!
//! The files are made here, of the fixtures' tensors under the names that such files have.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod original_names;

use std::fs;
use std::fs::File;
use std::path::{Path, PathBuf};

use afterimage_cache::{CacheBudget, CachePlan};
use afterimage_runner::{
    BucketChoice, GivenFile, HubOptions, ImageSpec, LoadOptions, ModelFolder, Pipeline, RunnerError, Size, resolve,
};
use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};
use original_names::{Tensors, load, transformer, vae};

const WEIGHTS: &str = "diffusion_pytorch_model.safetensors";
const TRANSFORMER: &str = "model.diffusion_model.";
const CLIP_L: &str = "text_encoders.clip_l.transformer.";
const T5: &str = "text_encoders.t5xxl.transformer.";

/// A fixture, what its text encoders are called in a whole checkpoint, and its VAE.
struct Case {
    fixture: &'static str,
    text_encoders: &'static [(&'static str, &'static str)],
    vae: &'static str,
}

const SD3: Case = Case {
    fixture: "sd3",
    text_encoders: &[
        ("text_encoder", CLIP_L),
        ("text_encoder_2", "text_encoders.clip_g.transformer."),
        ("text_encoder_3", T5),
    ],
    vae: "first_stage_model.",
};

const CASES: [Case; 6] = [
    SD3,
    Case { fixture: "sd3.5", ..SD3 },
    Case { fixture: "flux-dev", text_encoders: &[("text_encoder", CLIP_L), ("text_encoder_2", T5)], vae: "vae." },
    Case { fixture: "flux-schnell", text_encoders: &[("text_encoder", CLIP_L), ("text_encoder_2", T5)], vae: "vae." },
    Case {
        fixture: "z-image-turbo",
        text_encoders: &[("text_encoder", "text_encoders.qwen3_4b.transformer.")],
        vae: "vae.",
    },
    Case {
        fixture: "qwen-image",
        text_encoders: &[("text_encoder", "text_encoders.qwen25_7b.transformer.")],
        vae: "vae.",
    },
];

fn model(fixture: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(fixture).join("model")
}

/// The whole checkpoint of a fixture.
#[allow(clippy::disallowed_methods, reason = "tests make values")]
fn whole(case: &Case) -> Tensors {
    let folder = model(case.fixture);
    let own = load(&folder.join("transformer").join(WEIGHTS));
    let mut tensors = prefixed(TRANSFORMER, transformer(case.fixture, &own));
    tensors.extend(prefixed(case.vae, vae(&load(&folder.join("vae").join(WEIGHTS)))));
    for (component, prefix) in case.text_encoders {
        let encoder = load(&folder.join(component).join("model.safetensors")).into_iter().map(|(name, tensor)| {
            // As published; transformers 5 leaves it out.
            let is_clip =
                name.starts_with("encoder.layers.") || name.starts_with("embeddings.") || name.starts_with("final_");
            (if is_clip { format!("text_model.{name}") } else { name }, tensor)
        });
        tensors.extend(prefixed(prefix, encoder.collect()));
        // What ComfyUI saves beside them.
        let scale = Tensor::new(4.6f32, &Device::Cpu).unwrap();
        tensors.insert(format!("{}logit_scale", prefix.trim_end_matches("transformer.")), scale);
    }
    tensors
}

fn prefixed(prefix: &str, tensors: Tensors) -> Tensors {
    tensors.into_iter().map(|(name, tensor)| (format!("{prefix}{name}"), tensor)).collect()
}

fn save(tensors: &Tensors, path: &Path) {
    candle_core::safetensors::save(tensors, path).unwrap();
}

/// A copy of a fixture without weights, but for those of `kept`.
fn configurations(fixture: &str, to: &Path, kept: &[&str]) {
    let from = model(fixture);
    for entry in walk(&from) {
        let path = entry.strip_prefix(&from).unwrap();
        let is_kept = path.components().next().is_some_and(|part| kept.iter().any(|kept| part.as_os_str() == *kept));
        if path.extension().is_none_or(|extension| extension != "safetensors") || is_kept {
            fs::create_dir_all(to.join(path).parent().unwrap()).unwrap();
            fs::copy(&entry, to.join(path)).unwrap();
        }
    }
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

fn options(config_from: Option<&Path>, files: Vec<GivenFile>) -> HubOptions {
    let config_from = config_from.map(|path| path.to_str().unwrap().to_owned());
    // Nothing is asked of a hub.
    HubOptions { offline: true, ..HubOptions::from_env() }.with_config_from(config_from).with_files(files)
}

fn opened(file: &Path, options: &HubOptions) -> Result<ModelFolder, String> {
    resolve(file.to_str().unwrap(), options).map_err(|error| error.to_string())
}

/// A picture of a few steps, as small as the fixture's first.
fn picture(fixture: &str, folder: &ModelFolder) -> Vec<u8> {
    let golden = fs::read_to_string(model(fixture).join("../golden.json")).unwrap();
    let golden: serde_json::Value = serde_json::from_str(&golden).unwrap();
    let side = |name: &str| golden["runs"][0][name].as_u64().unwrap() as usize;
    let pipeline = loaded(folder, vec![Size { width: side("width"), height: side("height") }]).unwrap();
    let info = pipeline.info();
    let spec = ImageSpec {
        prompt: "a red apple, caf\u{e9}".to_owned(),
        negative_prompt: None,
        size: info.buckets[0],
        steps: 2,
        guidance: info.guidance.with(1.0, 1.0),
        scheduler: info.default_scheduler,
        cache: CachePlan::None,
    };
    let forwards = spec.forwards();
    let mut images = [pipeline.begin(spec, 7, &CacheBudget::unlimited()).unwrap()];
    for _ in 0..forwards {
        pipeline.denoise(&mut images).unwrap();
    }
    pipeline.decode(images[0].latents()).unwrap().data
}

fn loaded(folder: &ModelFolder, buckets: Vec<Size>) -> Result<Pipeline, RunnerError> {
    let buckets = buckets.into_iter().map(BucketChoice::from).collect();
    Pipeline::load(folder, &LoadOptions { buckets, ..LoadOptions::default() })
}

/// The picture of the folder itself.
fn expected(fixture: &str) -> Vec<u8> {
    picture(fixture, &ModelFolder::open(&model(fixture)).unwrap())
}

/// All in one file, with the rest from a folder that is named, and from the one that the file is in.
#[test]
fn pictures_of_whole_checkpoints_equal_their_folders() {
    for case in &CASES {
        let place = tempfile::tempdir().unwrap();
        let (file, rest) = (place.path().join("flux1-tiny-fp32.safetensors"), place.path().join("rest"));
        save(&whole(case), &file);
        configurations(case.fixture, &rest, &[]);
        let folder = opened(&file, &options(Some(&rest), Vec::new())).unwrap();
        assert_eq!(folder.id(), "flux1-tiny-fp32");
        let expected = expected(case.fixture);
        assert_eq!(picture(case.fixture, &folder), expected, "{}", case.fixture);
        let beside = rest.join("model.safetensors");
        fs::rename(&file, &beside).unwrap();
        let folder = opened(&beside, &options(None, Vec::new())).unwrap();
        assert_eq!(picture(case.fixture, &folder), expected, "{}", case.fixture);
    }
}

/// Scales and marks stand below the prefix of their component.
#[test]
fn parts_of_whole_checkpoints_may_be_fp8() {
    let fixtures = model("fp8").parent().unwrap().to_owned();
    for (case, component, file, prefix) in [
        (&CASES[2], "transformer", fixtures.join("flux-dev.safetensors"), TRANSFORMER),
        (&SD3, "text_encoder_3", fixtures.join("t5-scaled/t5xxl_fp8_e4m3fn_scaled.safetensors"), T5),
    ] {
        let place = tempfile::tempdir().unwrap();
        let (whole_file, rest) = (place.path().join("fp8.safetensors"), place.path().join("rest"));
        let mut tensors = whole(case);
        tensors.retain(|name, _| !name.starts_with(prefix));
        let narrow = load(&file);
        let has_prefix = narrow.keys().any(|name| name.starts_with(prefix));
        tensors.extend(if has_prefix { narrow } else { prefixed(prefix, narrow) });
        save(&tensors, &whole_file);
        configurations(case.fixture, &rest, &[]);
        let whole = opened(&whole_file, &options(Some(&rest), Vec::new())).unwrap();
        let given = vec![GivenFile::new(component, file)];
        let folder = opened(&model(case.fixture), &options(None, given)).unwrap();
        assert_eq!(picture(case.fixture, &whole), picture(case.fixture, &folder), "{component}");
    }
}

/// FLUX.2's transformer is a fixture of its own.
#[test]
fn a_whole_checkpoint_of_flux_2() {
    let place = tempfile::tempdir().unwrap();
    let (file, rest, folder) =
        (place.path().join("klein.safetensors"), place.path().join("rest"), model("flux2-klein"));
    let mut tensors = prefixed(TRANSFORMER, load(&folder.join("../../single-files/flux2-klein.safetensors")));
    let encoder = load(&folder.join("text_encoder/model.safetensors"));
    tensors.extend(prefixed("text_encoders.qwen3_4b.transformer.", encoder));
    let own = load(&folder.join("vae").join(WEIGHTS)).into_iter();
    // Statistics are counted in whole numbers.
    let own: Tensors = own.filter(|(name, _)| !name.ends_with("num_batches_tracked")).collect();
    // As the makers have it.
    let inside = |name: String| if name.starts_with("post_quant_conv") { format!("decoder.{name}") } else { name };
    let theirs = vae(&own).into_iter().map(|(name, tensor)| (inside(name), tensor)).collect();
    tensors.extend(prefixed("vae.", theirs));
    save(&tensors, &file);
    configurations("flux2-klein", &rest, &[]);
    let opened = opened(&file, &options(Some(&rest), Vec::new())).unwrap();
    assert_eq!(picture("flux2-klein", &opened), expected("flux2-klein"));
}

/// The parts that a file lacks come from the folder, whose other weights are not looked at.
#[test]
fn missing_parts_come_from_the_folder() {
    let case = &CASES[3];
    let place = tempfile::tempdir().unwrap();
    let (file, rest) = (place.path().join("without.safetensors"), place.path().join("rest"));
    let mut tensors = whole(case);
    tensors.retain(|name, _| !name.starts_with(T5) && !name.starts_with(case.vae));
    save(&tensors, &file);
    configurations(case.fixture, &rest, &["text_encoder_2", "vae"]);
    let folder = opened(&file, &options(Some(&rest), Vec::new())).unwrap();
    assert_eq!(picture(case.fixture, &folder), expected(case.fixture));
    fs::remove_file(rest.join("vae").join(WEIGHTS)).unwrap();
    let error =
        loaded(&opened(&file, &options(Some(&rest), Vec::new())).unwrap(), Vec::new()).err().unwrap().to_string();
    assert!(error.contains("rest/vae: no weights there"), "{error}");
    let error = opened(&file, &options(None, Vec::new())).unwrap_err();
    assert!(
        error.contains("it holds a FLUX.1 without vae (`vae...`), text_encoder_2 (`text_encoders.t5xxl"),
        "{error}"
    );
}

/// Tensors that are missing, of a wrong shape or not there in full are named, and so are files with them.
#[test]
fn damaged_checkpoints_are_named() {
    let case = &CASES[3];
    let place = tempfile::tempdir().unwrap();
    let (file, rest) = (place.path().join("damaged.safetensors"), place.path().join("rest"));
    configurations(case.fixture, &rest, &[]);
    let tensors = whole(case);
    let error_of = |change: &dyn Fn(&mut Tensors)| {
        let mut tensors = tensors.clone();
        change(&mut tensors);
        save(&tensors, &file);
        let folder = opened(&file, &options(Some(&rest), Vec::new()));
        let error =
            folder.and_then(|folder| loaded(&folder, Vec::new()).map(|_| ()).map_err(|error| error.to_string()));
        let error = error.unwrap_err();
        assert!(error.contains("damaged.safetensors"), "{error}");
        error
    };
    for (name, ours) in [
        ("vae.decoder.mid.attn_1.k.weight", "decoder.mid_block.attentions.0.to_k.weight"),
        ("vae.decoder.up.0.block.1.conv2.weight", "decoder.up_blocks.3.resnets.1.conv2.weight"),
        ("text_encoders.t5xxl.transformer.encoder.final_layer_norm.weight", "encoder.final_layer_norm.weight"),
        ("model.diffusion_model.img_in.bias", "x_embedder.bias"),
    ] {
        assert!(tensors.contains_key(name), "{name}");
        let missing = error_of(&|tensors| drop(tensors.remove(name)));
        assert!(missing.contains(&format!("tensor `{ours}` is missing")), "{missing}");
        let wrong = error_of(&|tensors| {
            let wrong = Tensor::zeros(5, candle_core::DType::F32, &Device::Cpu).unwrap();
            tensors.insert(name.to_owned(), wrong);
        });
        assert!(wrong.contains(&format!("tensor `{ours}` has shape [5], but config.json describes")), "{wrong}");
    }
    save(&tensors, &file);
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() - 1]).unwrap();
    let error = opened(&file, &options(Some(&rest), Vec::new())).unwrap_err();
    assert!(error.contains("it is truncated or damaged, fetch it again"), "{error}");
}

/// A VAE under its makers' names, and transformers of Qwen-Image and FLUX.2 as GGUF and of Sana as single file.
#[test]
fn components_from_files_of_their_own() {
    let place = tempfile::tempdir().unwrap();
    let path = |name: &str| place.path().join(name);
    for fixture in ["flux-schnell", "qwen-image"] {
        save(&vae(&load(&model(fixture).join("vae").join(WEIGHTS))), &path("ae.safetensors"));
        let given = vec![GivenFile::new("vae", path("ae.safetensors"))];
        assert_eq!(picture(fixture, &opened(&model(fixture), &options(None, given)).unwrap()), expected(fixture));
    }
    for (fixture, architecture) in [("qwen-image", "qwen_image"), ("flux2-klein", "flux")] {
        let tensors = match fixture {
            "flux2-klein" => load(&model(fixture).join("../../single-files/flux2-klein.safetensors")),
            _ => load(&model(fixture).join("transformer").join(WEIGHTS)),
        };
        write_gguf(&tensors, architecture, &path("model.gguf"));
        let given = vec![GivenFile::new("transformer", path("model.gguf"))];
        assert_eq!(picture(fixture, &opened(&model(fixture), &options(None, given)).unwrap()), expected(fixture));
    }
    for fixture in ["sana", "sana-1.5"] {
        let shards = walk(&model(fixture).join("transformer")).into_iter();
        let shards = shards.filter(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
        let mut tensors = transformer(fixture, &shards.flat_map(|path| load(&path)).collect());
        let unread = Tensor::zeros((1, 4), candle_core::DType::F32, &Device::Cpu).unwrap();
        for name in ["pos_embed", "y_embedder.y_embedding"] {
            tensors.insert(name.to_owned(), unread.clone());
        }
        save(&tensors, &path("sana.safetensors"));
        let given = vec![GivenFile::new("transformer", path("sana.safetensors"))];
        assert_eq!(picture(fixture, &opened(&model(fixture), &options(None, given)).unwrap()), expected(fixture));
    }
}

fn write_gguf(tensors: &Tensors, architecture: &str, path: &Path) {
    let stored =
        |tensor: &Tensor| QTensor::quantize(&tensor.to_dtype(candle_core::DType::F32).unwrap(), GgmlDType::F32);
    let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (name.as_str(), stored(tensor).unwrap())).collect();
    let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let architecture = Value::String(architecture.to_owned());
    let entries = [("general.architecture", &architecture)];
    gguf_file::write(&mut File::create(path).unwrap(), &entries, &tensors).unwrap();
}
