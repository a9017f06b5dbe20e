//! Text encoders from GGUF files as llama.cpp's converter makes them, against the same weights in the folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use afterimage_checkpoint::GivenFile;
use candle_core::quantized::gguf_file::{self, Value};
use candle_core::quantized::{GgmlDType, QTensor};
use candle_core::{Device, Tensor};

use super::{DecoderKind, DecoderParts, DecoderTextEncoder, EncoderSource, T5TextEncoder};
use crate::golden_fixture::{Fixture, assert_near};

const ENCODER: &str = "text_encoder";
/// llama.cpp's parts of a layer for those of transformers.
const DECODER_NAMES: [(&str, &str); 11] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("self_attn.q_norm", "attn_q_norm"),
    ("self_attn.k_norm", "attn_k_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];
const GEMMA_NORMS: [(&str, &str); 3] = [
    ("post_attention_layernorm", "post_attention_norm"),
    ("pre_feedforward_layernorm", "ffn_norm"),
    ("post_feedforward_layernorm", "post_ffw_norm"),
];
const T5_NAMES: [(&str, &str); 10] = [
    ("layer.0.layer_norm", "attn_norm"),
    ("layer.0.SelfAttention.q", "attn_q"),
    ("layer.0.SelfAttention.k", "attn_k"),
    ("layer.0.SelfAttention.v", "attn_v"),
    ("layer.0.SelfAttention.o", "attn_o"),
    ("layer.0.SelfAttention.relative_attention_bias", "attn_rel_b"),
    ("layer.1.layer_norm", "ffn_norm"),
    ("layer.1.DenseReluDense.wi_0", "ffn_gate"),
    ("layer.1.DenseReluDense.wi_1", "ffn_up"),
    ("layer.1.DenseReluDense.wo", "ffn_down"),
];

/// A file of llama.cpp's.
struct LlamaCppFile {
    architecture: &'static str,
    entries: Vec<(String, Value)>,
    tensors: Vec<(String, Tensor)>,
}

impl LlamaCppFile {
    /// The decoder of a fixture.
    fn of_decoder(name: &str, architecture: &'static str) -> Self {
        let fixture = Fixture::open(&format!("decoders/{name}"));
        let config: serde_json::Value =
            serde_json::from_str(&fixture.folder.text("text_encoder/config.json").unwrap()).unwrap();
        let config = config.get("text_config").unwrap_or(&config);
        let path = fixture.folder.path().unwrap().join("text_encoder/model.safetensors");
        let is_gemma = architecture == "gemma2";
        let layer_names: Vec<_> = if is_gemma {
            let others = DECODER_NAMES.into_iter().filter(|(name, _)| *name != "post_attention_layernorm");
            others.chain(GEMMA_NORMS).collect()
        } else {
            DECODER_NAMES.to_vec()
        };
        let mut tensors = Vec::new();
        for (name, tensor) in candle_core::safetensors::load(path, &Device::Cpu).unwrap() {
            let name = name.trim_start_matches("language_model.").trim_start_matches("model.").to_owned();
            let (stem, parameter) = name.rsplit_once('.').unwrap();
            let (stem, tensor) = match stem {
                "embed_tokens" => ("token_embd".to_owned(), tensor),
                "norm" => ("output_norm".to_owned(), tensor),
                "lm_head" => ("output".to_owned(), tensor),
                _ => {
                    // What sees has a file of its own.
                    let Some((layer, part)) = stem.strip_prefix("layers.").and_then(|rest| rest.split_once('.')) else {
                        continue;
                    };
                    let (_, theirs) = layer_names.iter().find(|(ours, _)| *ours == part).unwrap();
                    let heads = match *theirs {
                        "attn_q" => &config["num_attention_heads"],
                        "attn_k" => &config["num_key_value_heads"],
                        _ => &serde_json::Value::Null,
                    };
                    let heads = heads.as_u64().filter(|_| ["llama", "mistral3"].contains(&architecture));
                    let tensor = heads.map_or(tensor.clone(), |heads| in_pairs(&tensor, heads as usize));
                    (format!("blk.{layer}.{theirs}"), tensor)
                }
            };
            let tensor = if is_gemma && stem.ends_with("norm") { (tensor + 1.0).unwrap() } else { tensor };
            tensors.push((format!("{stem}.{parameter}"), tensor));
        }
        let mut file = Self { architecture, entries: Vec::new(), tensors };
        for (entry, key) in [
            ("block_count", "num_hidden_layers"),
            ("embedding_length", "hidden_size"),
            ("feed_forward_length", "intermediate_size"),
            ("attention.head_count", "num_attention_heads"),
            ("attention.head_count_kv", "num_key_value_heads"),
        ] {
            file.set(entry, Value::U32(config[key].as_u64().unwrap() as u32));
        }
        file.set("attention.layer_norm_rms_epsilon", Value::F32(config["rms_norm_eps"].as_f64().unwrap() as f32));
        let theta = config.get("rope_theta").unwrap_or(&config["rope_parameters"]["rope_theta"]);
        file.set("rope.freq_base", Value::F32(theta.as_f64().unwrap() as f32));
        file
    }

    fn of_t5(fixture: &Fixture, component: &str, heads: u32) -> Self {
        let path = fixture.folder.path().unwrap().join(component).join("model.safetensors");
        let tensors = candle_core::safetensors::load(path, &Device::Cpu).unwrap();
        let renamed = tensors.into_iter().map(|(name, tensor)| {
            let (stem, parameter) = name.rsplit_once('.').unwrap();
            let stem = match stem {
                "shared" => "token_embd".to_owned(),
                "encoder.final_layer_norm" => "enc.output_norm".to_owned(),
                _ => {
                    let (layer, part) = stem.strip_prefix("encoder.block.").unwrap().split_once('.').unwrap();
                    format!("enc.blk.{layer}.{}", T5_NAMES.iter().find(|(ours, _)| *ours == part).unwrap().1)
                }
            };
            (format!("{stem}.{parameter}"), tensor)
        });
        let mut file = Self { architecture: "t5encoder", entries: Vec::new(), tensors: renamed.collect() };
        file.set("attention.head_count", Value::U32(heads));
        file
    }

    fn set(&mut self, entry: &str, value: Value) {
        let key = format!("{}.{entry}", self.architecture);
        self.entries.retain(|(known, _)| *known != key);
        self.entries.push((key, value));
    }

    /// Matrices whose rows are whole blocks are quantised.
    fn write(&self, path: &Path, matrices: GgmlDType) {
        let stored = |tensor: &Tensor| {
            let is_whole = tensor.rank() == 2 && tensor.dims()[1].is_multiple_of(matrices.block_size());
            QTensor::quantize(tensor, if is_whole { matrices } else { GgmlDType::F32 }).unwrap()
        };
        let tensors: Vec<_> = self.tensors.iter().map(|(name, tensor)| (name.as_str(), stored(tensor))).collect();
        let architecture = Value::String(self.architecture.to_owned());
        let entries = self.entries.iter().map(|(key, value)| (key.as_str(), value));
        let entries: Vec<_> = [("general.architecture", &architecture)].into_iter().chain(entries).collect();
        let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
        gguf_file::write(&mut File::create(path).unwrap(), &entries, &tensors).unwrap();
    }
}

/// As `LlamaModel.permute` of llama.cpp's converter.
fn in_pairs(tensor: &Tensor, heads: usize) -> Tensor {
    let rest: Vec<usize> = tensor.dims()[1..].to_vec();
    let shape = [&[heads, 2, tensor.dims()[0] / heads / 2], rest.as_slice()].concat();
    tensor.reshape(shape).unwrap().transpose(1, 2).unwrap().contiguous().unwrap().reshape(tensor.shape()).unwrap()
}

fn decoder(source: &EncoderSource, kind: DecoderKind) -> Result<DecoderTextEncoder, String> {
    let parts = DecoderParts { kind, encoder: ENCODER, tokenizer: "tokenizer", hidden_states: &[1, -2, -1] };
    DecoderTextEncoder::load(source, &parts).map_err(|error| error.to_string())
}

/// The states of a text by a decoder with weights from a file.
fn states(name: &str, kind: DecoderKind, file: &Path) -> Result<Vec<f32>, String> {
    let fixture = Fixture::open(&format!("decoders/{name}"));
    let source = EncoderSource {
        folder: fixture
            .folder
            .clone()
            .with_files(&[GivenFile::new(ENCODER, file)])
            .map_err(|error| error.to_string())?,
        ..fixture.text_encoders()
    };
    Ok(values(&decoder(&source, kind)?))
}

fn values(decoder: &DecoderTextEncoder) -> Vec<f32> {
    decoder.encode("a red apple on a table", 20).unwrap().states.flatten_all().unwrap().to_vec1().unwrap()
}

const ALL: [(&str, DecoderKind, &str); 7] = [
    ("qwen3", DecoderKind::Qwen3, "qwen3"),
    ("qwen2.5-vl", DecoderKind::Qwen25Vl, "qwen2vl"),
    ("qwen2.5-vl", DecoderKind::Qwen25Vl, "qwen2"),
    ("gemma2", DecoderKind::Gemma2, "gemma2"),
    ("mistral", DecoderKind::Mistral, "llama"),
    ("mistral", DecoderKind::Mistral, "mistral3"),
    ("llama", DecoderKind::Llama, "llama"),
];

fn temporary(name: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    (folder, path)
}

#[test]
fn decoders_of_all_kinds_give_the_states_of_their_folders() {
    for (name, kind, architecture) in ALL {
        let (_folder, path) = temporary("model.gguf");
        LlamaCppFile::of_decoder(name, architecture).write(&path, GgmlDType::F32);
        let expected = values(&decoder(&Fixture::open(&format!("decoders/{name}")).text_encoders(), kind).unwrap());
        assert_eq!(states(name, kind, &path), Ok(expected), "{architecture}");
    }
}

/// Quantised rows are moved as they are: those of the folder's matrices in pairs, quantised, give what they give in halves.
#[test]
fn quantised_decoders_stay_near_their_folders() {
    for (name, kind, architecture) in ALL {
        let (_folder, path) = temporary("model.gguf");
        LlamaCppFile::of_decoder(name, architecture).write(&path, GgmlDType::Q8_0);
        let expected = values(&decoder(&Fixture::open(&format!("decoders/{name}")).text_encoders(), kind).unwrap());
        let found = states(name, kind, &path).unwrap();
        let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
        let off = found.iter().zip(&expected).fold(0f32, |off, (one, other)| off.max((one - other).abs()));
        // 8 bits of 32 numbers with one scale, through a few layers.
        assert!(off > 0.0 && off < 0.03 * largest, "{architecture}: {off} of {largest}");
    }
}

/// A copy of a fixture's folder with the file in the place of its weights.
#[test]
fn a_file_in_the_folder_is_found() {
    let fixture = Fixture::open("decoders/qwen3");
    let (folder, _) = temporary("");
    let from = fixture.folder.path().unwrap();
    for path in ["model_index.json", "text_encoder/config.json"] {
        fs::create_dir_all(folder.path().join(path).parent().unwrap()).unwrap();
        fs::copy(from.join(path), folder.path().join(path)).unwrap();
    }
    fs::create_dir(folder.path().join("tokenizer")).unwrap();
    for entry in fs::read_dir(from.join("tokenizer")).unwrap().flatten() {
        fs::copy(entry.path(), folder.path().join("tokenizer").join(entry.file_name())).unwrap();
    }
    let file = folder.path().join("text_encoder/Qwen3-4B-Q8_0.gguf");
    LlamaCppFile::of_decoder("qwen3", "qwen3").write(&file, GgmlDType::F32);
    let opened = afterimage_checkpoint::ModelFolder::open(folder.path()).unwrap();
    let source = EncoderSource { folder: opened, ..fixture.text_encoders() };
    let expected = values(&decoder(&fixture.text_encoders(), DecoderKind::Qwen3).unwrap());
    assert_eq!(values(&decoder(&source, DecoderKind::Qwen3).unwrap()), expected);
    fs::copy(&file, folder.path().join("text_encoder/Qwen3-4B-Q4_K_M.gguf")).unwrap();
    let error = decoder(&source, DecoderKind::Qwen3).err().unwrap();
    assert!(error.contains("there are several GGUF files") && error.contains("--text-encoder"), "{error}");
}

#[test]
fn t5_gives_the_states_of_its_folder() {
    for (name, component, tokenizer) in
        [("flux-dev", "text_encoder_2", "tokenizer_2"), ("pixart-sigma", ENCODER, "tokenizer")]
    {
        let fixture = Fixture::open(name);
        let config: serde_json::Value =
            serde_json::from_str(&fixture.folder.text(&format!("{component}/config.json")).unwrap()).unwrap();
        let (_folder, path) = temporary("t5.gguf");
        let mut file = LlamaCppFile::of_t5(&fixture, component, config["num_heads"].as_u64().unwrap() as u32);
        file.write(&path, GgmlDType::F32);
        let source = fixture.text_encoders();
        let folder = source.folder.clone().with_files(&[GivenFile::new(component, &path)]).unwrap();
        let given = EncoderSource { folder, ..fixture.text_encoders() };
        let states = |source: &EncoderSource| {
            T5TextEncoder::load(source, component, tokenizer).unwrap().encode("a red apple", 30).unwrap().states
        };
        assert_near(&states(&given), &states(&source), name);
        file.set("attention.head_count", Value::U32(99));
        file.write(&path, GgmlDType::F32);
        let error = T5TextEncoder::load(&given, component, tokenizer).err().unwrap().to_string();
        let expected =
            format!("`t5encoder.attention.head_count` is 99, and `num_heads` in {component}/config.json is ");
        assert!(error.contains(&expected), "{error}");
    }
}

fn error_of(change: impl FnOnce(&mut LlamaCppFile)) -> String {
    let (_folder, path) = temporary("bad.gguf");
    let mut file = LlamaCppFile::of_decoder("mistral", "llama");
    change(&mut file);
    file.write(&path, GgmlDType::F32);
    let error = states("mistral", DecoderKind::Mistral, &path).unwrap_err();
    assert!(error.starts_with(&path.display().to_string()) || error.contains("bad.gguf"), "{error}");
    error
}

#[test]
fn files_that_do_not_fit_are_named() {
    for (entry, value, expected) in [
        (
            "block_count",
            Value::U32(7),
            "`llama.block_count` is 7, and `num_hidden_layers` in text_encoder/config.json is 3",
        ),
        ("embedding_length", Value::U64(5), "`llama.embedding_length` is 5, and `hidden_size`"),
        ("rope.freq_base", Value::F32(1e4), "`llama.rope.freq_base` is 10000, and `rope_theta`"),
        ("attention.layer_norm_rms_epsilon", Value::F32(1.0), "_epsilon` is 1, and `rms_norm_eps`"),
        ("attention.head_count", Value::U32(0), "`llama.attention.head_count` is 0, and tensor `model.layers."),
        ("attention.head_count", Value::F32(1.5), "`llama.attention.head_count` is 1.5, and tensor"),
        ("attention.head_count", Value::U32(u32::MAX), "`llama.attention.head_count` is 4294967295, and tensor"),
        ("attention.head_count_kv", Value::I32(-2), "`llama.attention.head_count_kv` is -2, and tensor"),
        ("attention.head_count_kv", Value::U32(7), "`llama.attention.head_count_kv` is 7, and tensor"),
    ] {
        let error = error_of(|file| file.set(entry, value));
        assert!(error.contains(expected), "{error}");
    }
    let error = error_of(|file| file.entries.retain(|(key, _)| !key.ends_with("head_count")));
    assert!(error.contains("`llama.attention.head_count` is absent, and tensor"), "{error}");
    let error = error_of(|file| file.tensors.retain(|(name, _)| name != "blk.1.ffn_up.weight"));
    assert!(error.contains("tensor `model.layers.1.mlp.up_proj.weight` is missing"), "{error}");
    let error = error_of(|file| {
        let odd = Tensor::zeros((3, 4), candle_core::DType::F32, &Device::Cpu).unwrap();
        file.tensors.push(("rope_freqs.weight".to_owned(), odd));
    });
    assert!(error.contains("has no place for 1 of the") && error.contains("`rope_freqs.weight`"), "{error}");
    let error = error_of(|file| {
        let wrong = file.tensors.iter_mut().find(|(name, _)| name == "blk.0.ffn_up.weight").unwrap();
        wrong.1 = Tensor::zeros((5, 32), candle_core::DType::F32, &Device::Cpu).unwrap();
    });
    assert!(error.contains("tensor `model.layers.0.mlp.up_proj.weight` has shape [5, 32]"), "{error}");
    let error = error_of(|file| file.architecture = "qwen3");
    let expected = "it holds a text encoder of the kind `qwen3`, but config.json describes a Mistral3ForConditional";
    assert!(error.contains(expected), "{error}");
    let error = error_of(|file| file.architecture = "clip");
    assert!(error.contains("`general.architecture` is clip; text encoders are qwen3, "), "{error}");
}

#[test]
fn a_truncated_file_is_named() {
    let (_folder, path) = temporary("short.gguf");
    LlamaCppFile::of_decoder("qwen3", "qwen3").write(&path, GgmlDType::F32);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let error = states("qwen3", DecoderKind::Qwen3, &path).unwrap_err();
    assert!(error.contains("short.gguf") && error.contains("truncated or damaged, fetch it again"), "{error}");
}
