//! Folders whose configurations or tokenizer files say something unusual, against diffusers and
//! transformers of the same folder (`tests/reference/config_variants.py`, which makes the same changes).

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use afterimage_cache::{CacheBudget, CachePlan};
use afterimage_checkpoint::{ModelFolder, ModelIndex};
use afterimage_diffusion::text::{ClipClass, ClipTextEncoder, EncoderSource, T5TextEncoder, tokenizer_of};
use afterimage_runner::{ImageSpec, LoadOptions, Pipeline, Size};
use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
use serde_json::{Map, Value};

/// Of latents, relative to their standard deviation; random weights make rough trajectories.
const TOLERANCE: f64 = 5e-3;
const SIDE: usize = 64;
const LEAST_PSNR: f64 = 45.0;

#[derive(Deserialize)]
struct Variants {
    num_inference_steps: usize,
    seed: u64,
    variants: Vec<Variant>,
}

/// A committed model with some files changed.
#[derive(Deserialize)]
struct Variant {
    name: String,
    base: String,
    #[serde(default)]
    keys: BTreeMap<String, Map<String, Value>>,
    #[serde(default)]
    without_keys: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    texts: BTreeMap<String, String>,
    #[serde(default)]
    without: Vec<String>,
    #[serde(default)]
    bom: Vec<String>,
    /// Embeddings that CLIP gets after its last.
    #[serde(default)]
    rows: usize,
    /// Tensors of T5 under other names, and under second ones.
    #[serde(default)]
    renamed: HashMap<String, String>,
    #[serde(default)]
    copied: HashMap<String, String>,
    prompt: String,
    tokens: BTreeMap<String, Vec<Text>>,
    runs: bool,
    #[serde(default)]
    decodes: bool,
}

#[derive(Deserialize)]
struct Text {
    text: String,
    input_ids: Vec<u32>,
}

fn fixtures() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

impl Variants {
    fn read() -> Self {
        let text = fs::read_to_string(fixtures().join("config-variants/variants.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// The run of a variant in its folder against diffusers' latents, and its picture where that is recorded.
    fn check_run(&self, variant: &Variant, tensors: &HashMap<String, Tensor>) {
        let name = &variant.name;
        let place = tempfile::tempdir().unwrap();
        variant.write(place.path());
        let is_dit = variant.base.starts_with("models/");
        let size = Size { width: SIDE, height: SIDE };
        let buckets = if is_dit { Vec::new() } else { vec![size.into()] };
        let options = LoadOptions { buckets, ..LoadOptions::default() };
        let folder = ModelFolder::open(place.path()).unwrap();
        let pipeline = Pipeline::load(&folder, &options);
        assert!(pipeline.is_ok(), "{name}: {}", pipeline.err().unwrap());
        let pipeline = pipeline.unwrap();
        let info = pipeline.info();
        let scale = match variant.base.as_str() {
            base if base.starts_with("models/") => 1.0,
            base if base.starts_with("flux") => 0.0,
            _ => 4.5,
        };
        let spec = Arc::new(ImageSpec {
            prompt: if is_dit { "class:1".to_owned() } else { variant.prompt.clone() },
            negative_prompt: None,
            size: info.buckets[0],
            steps: self.num_inference_steps,
            guidance: info.guidance.with(scale, 1.0),
            scheduler: info.default_scheduler,
            cache: CachePlan::None,
        });
        let mut images = [pipeline.begin(Arc::clone(&spec), self.seed, &CacheBudget::unlimited()).unwrap()];
        for _ in 0..spec.forwards() {
            pipeline.denoise(&mut images).unwrap();
        }
        let difference = relative_difference(images[0].latents(), &tensors[name]);
        assert!(difference <= TOLERANCE, "{name}: latents are {difference} off");
        if variant.decodes {
            let expected = tensors[&format!("{name}.image")].flatten_all().unwrap().to_vec1::<u8>().unwrap();
            let psnr = psnr(&pipeline.decode(images[0].latents()).unwrap().data, &expected);
            assert!(psnr >= LEAST_PSNR, "{name}: {psnr} dB");
        }
    }
}

impl Variant {
    /// Writes the changed model into a folder.
    fn write(&self, folder: &Path) {
        let base = fixtures().join(&self.base);
        let model = base.join("model");
        copy(if model.is_dir() { &model } else { &base }, folder);
        for path in &self.without {
            fs::remove_file(folder.join(path)).unwrap();
        }
        for path in self.keys.keys().chain(self.without_keys.keys()) {
            let text = fs::read_to_string(folder.join(path)).unwrap();
            // Numbers that JSON cannot express.
            let mut keys: Map<String, Value> =
                serde_json::from_value(afterimage_checkpoint::lenient_json::parse(&text).unwrap()).unwrap();
            keys.extend(self.keys.get(path).cloned().unwrap_or_default());
            self.without_keys.get(path).into_iter().flatten().for_each(|key| {
                keys.remove(key);
            });
            fs::write(folder.join(path), Value::Object(keys).to_string()).unwrap();
        }
        for (path, text) in &self.texts {
            fs::write(folder.join(path), text).unwrap();
        }
        for path in &self.bom {
            let text = fs::read_to_string(folder.join(path)).unwrap();
            fs::write(folder.join(path), format!("\u{feff}{text}")).unwrap();
        }
        self.write_tensors(folder);
    }

    fn write_tensors(&self, folder: &Path) {
        let change = |file: &str, change: &dyn Fn(&mut HashMap<String, Tensor>)| {
            let mut tensors = candle_core::safetensors::load(folder.join(file), &Device::Cpu).unwrap();
            change(&mut tensors);
            candle_core::safetensors::save(&tensors, folder.join(file)).unwrap();
        };
        if self.rows > 0 {
            change("text_encoder/model.safetensors", &|tensors| {
                let table = tensors.iter_mut().find(|(name, _)| name.ends_with("token_embedding.weight")).unwrap().1;
                *table = Tensor::cat(&[&*table, &table.narrow(0, 0, self.rows).unwrap()], 0).unwrap();
            });
        }
        if !self.renamed.is_empty() || !self.copied.is_empty() {
            change("text_encoder_2/model.safetensors", &|tensors| {
                for (name, copy) in &self.copied {
                    tensors.insert(copy.clone(), tensors[name].clone());
                }
                for (name, renamed) in &self.renamed {
                    let tensor = tensors.remove(name).unwrap();
                    tensors.insert(renamed.clone(), tensor);
                }
            });
        }
    }
}

/// The worst difference from latents, relative to their standard deviation.
fn relative_difference(latents: &Tensor, expected: &Tensor) -> f64 {
    let ours = if expected.rank() == 3 {
        // FLUX's are packed into tokens of 2 x 2, channels slowest.
        let (rows, channels, height, width) = latents.dims4().unwrap();
        let squares = latents.reshape(&[rows, channels, height / 2, 2, width / 2, 2]).unwrap();
        let tokens = squares.permute([0, 2, 4, 1, 3, 5]).unwrap();
        tokens.reshape((rows, height / 2 * (width / 2), channels * 4)).unwrap()
    } else {
        latents.clone()
    };
    assert_eq!(ours.dims(), expected.dims());
    let deviation: f32 = expected.flatten_all().unwrap().var(0).unwrap().to_scalar().unwrap();
    let difference: f32 = (ours - expected).unwrap().abs().unwrap().max_all().unwrap().to_scalar().unwrap();
    f64::from(difference / deviation.sqrt())
}

/// Of 8-bit pictures, in dB.
fn psnr(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    let squares = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2));
    10.0 * (255.0 * 255.0 * a.len() as f64 / squares.sum::<f64>()).log10()
}

#[test]
fn latents_equal_diffusers() {
    let variants = Variants::read();
    let file = fixtures().join("config-variants/variants.safetensors");
    let tensors = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
    let running = variants.variants.iter().filter(|variant| variant.runs);
    assert_eq!(running.clone().count(), tensors.keys().filter(|name| !name.ends_with(".image")).count());
    for variant in running {
        variants.check_run(variant, &tensors);
    }
}

#[test]
fn tokens_equal_transformers() {
    for variant in Variants::read().variants {
        let place = tempfile::tempdir().unwrap();
        variant.write(place.path());
        let source = source(place.path());
        for (component, texts) in &variant.tokens {
            let tokenizer = tokenizer_of(&source, component).unwrap();
            for Text { text, input_ids } in texts {
                let ours = tokenizer.tokens(text, usize::MAX).unwrap();
                assert_eq!(&ours.ids, input_ids, "{}, {component}: {text}", variant.name);
            }
        }
    }
}

fn source(folder: &Path) -> EncoderSource {
    let folder = ModelFolder::open(folder).unwrap();
    EncoderSource {
        index: Arc::new(ModelIndex::read(&folder).unwrap()),
        folder,
        device: Device::Cpu,
        dtype: DType::F32,
        states_device: Device::Cpu,
        states_dtype: DType::F32,
        offloaded_by: None,
    }
}

/// What is wrong with a fixture after some changes.
fn refusal(base: &str, keys: &[(&str, Value)]) -> String {
    let keys = keys.iter().map(|(path, keys)| ((*path).to_owned(), keys.as_object().unwrap().clone())).collect();
    let variant = Variant {
        name: String::new(),
        base: base.to_owned(),
        keys,
        without_keys: BTreeMap::new(),
        texts: BTreeMap::new(),
        without: Vec::new(),
        bom: Vec::new(),
        rows: 0,
        renamed: HashMap::new(),
        copied: HashMap::new(),
        prompt: String::new(),
        tokens: BTreeMap::new(),
        runs: false,
        decodes: false,
    };
    let place = tempfile::tempdir().unwrap();
    variant.write(place.path());
    let folder = ModelFolder::open(place.path()).unwrap();
    Pipeline::load(&folder, &LoadOptions::default()).err().unwrap().to_string()
}

#[test]
fn a_class_that_the_pipeline_cannot_use_is_named_whatever_the_configuration_says() {
    let index = |component: &str, class: &str| ("model_index.json", serde_json::json!({ component: ["x", class] }));
    for (base, component, class, right) in [
        ("sd3", "text_encoder", "CLIPTextModel", "CLIPTextModelWithProjection"),
        ("flux-schnell", "text_encoder", "CLIPTextModelWithProjection", "CLIPTextModel"),
        ("flux-schnell", "text_encoder_2", "UMT5EncoderModel", "T5EncoderModel"),
        ("flux-schnell", "tokenizer", "BertTokenizer", "CLIPTokenizer, CLIPTokenizerFast"),
        ("pixart-sigma", "tokenizer", "LlamaTokenizer", "T5Tokenizer, T5TokenizerFast"),
        ("sd3", "vae", "AutoencoderTiny", "AutoencoderKL"),
        ("models/f32-safetensors", "scheduler", "PNDMScheduler", "DDIMScheduler, "),
    ] {
        let error = refusal(base, &[index(component, class)]);
        let message = format!("model_index.json: `{component}` is {class}; supported: {right}");
        assert!(error.contains(&message), "{error}");
    }
}

#[test]
fn a_projection_that_the_class_needs_and_the_weights_lack_is_named() {
    let source = source(&fixtures().join("flux-schnell/model"));
    let source = EncoderSource { index: Arc::new(ModelIndex::read(&sd3()).unwrap()), ..source };
    let error = ClipTextEncoder::load(&source, "text_encoder", "tokenizer", ClipClass::WithProjection).err().unwrap();
    let start = "text_encoder: the weights have no text_projection, which CLIPTextModelWithProjection";
    assert!(error.to_string().starts_with(start), "{error}");
}

fn sd3() -> ModelFolder {
    ModelFolder::open(&fixtures().join("sd3/model")).unwrap()
}

#[test]
fn two_tables_of_tokens_that_differ_are_refused() {
    let place = tempfile::tempdir().unwrap();
    copy(&fixtures().join("flux-schnell/model"), place.path());
    let file = place.path().join("text_encoder_2/model.safetensors");
    let mut tensors = candle_core::safetensors::load(&file, &Device::Cpu).unwrap();
    let table = tensors["shared.weight"].affine(1.0, 0.5).unwrap();
    tensors.insert("encoder.embed_tokens.weight".to_owned(), table);
    candle_core::safetensors::save(&tensors, &file).unwrap();
    let error = T5TextEncoder::load(&source(place.path()), "text_encoder_2", "tokenizer_2").err().unwrap().to_string();
    assert!(error.contains("shared.weight and encoder.embed_tokens.weight differ"), "{error}");
}

#[test]
fn a_token_without_an_embedding_is_named() {
    let added = serde_json::json!({"additional_special_tokens": ["<cat>"]});
    let error = refusal("flux-schnell", &[("tokenizer/tokenizer_config.json", added)]);
    let message = "text_encoder/config.json: `vocab_size` is 814; supported: at least 815, since the tokenizer gives \
                   `<cat>` the number 814";
    assert!(error.contains(message), "{error}");
}
