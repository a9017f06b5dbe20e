//! Fixtures: `tests/reference/weights.py`.

use std::fs;
use std::path::{Path, PathBuf};

use candle_core::{DType, Device};

use super::*;
use crate::stored::matrix::MatrixValues;

const FILE: &str = "diffusion_pytorch_model.safetensors";

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/weights").join(name)
}

#[derive(serde::Deserialize)]
struct Expected {
    shape: Vec<usize>,
    f32: Vec<f32>,
    f16: Vec<f32>,
    bf16: Vec<f32>,
}

/// Loads every expected tensor in every dtype; the values must be torch's, bit for bit.
fn assert_as_torch(weights: &Arc<Weights>, folder: &Path) {
    let text = fs::read_to_string(folder.join("expected.json")).unwrap();
    let expected: HashMap<String, Expected> = serde_json::from_str(&text).unwrap();
    for (name, expected) in &expected {
        for (dtype, values) in [(DType::F32, &expected.f32), (DType::F16, &expected.f16), (DType::BF16, &expected.bf16)]
        {
            let builder = weights.var_builder(dtype, &Device::Cpu);
            let tensor = builder.get(expected.shape.as_slice(), name).unwrap();
            assert_eq!(tensor.dtype(), dtype, "{name}");
            assert!(tensor.is_contiguous(), "{name}");
            let found = tensor.to_dtype(DType::F32).unwrap();
            let found: Vec<f32> = found.flatten_all().unwrap().to_vec1().unwrap();
            assert_eq!(&found, values, "{name} as {dtype:?}");
        }
    }
}

fn error_of(folder: &Path) -> String {
    Weights::open(folder).unwrap_err().to_string()
}

/// A folder with one safetensors file of the given bytes.
fn folder_with(bytes: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(FILE), bytes).unwrap();
    folder
}

fn file_with_header(header: &str, data_bytes: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data_bytes, 0);
    bytes
}

#[test]
fn every_form_gives_torchs_values() {
    for form in
        ["safetensors", "safetensors-sharded", "pickle", "pickle-sharded", "double-safetensors", "double-pickle"]
    {
        let folder = fixture(form);
        let weights = Weights::open(&folder).unwrap();
        assert_as_torch(&weights, &folder);
        weights.finish(&["position_ids"]).unwrap();
    }
}

/// All numbers of both formats, with scales of all shapes, in another shard.
#[test]
fn fp8_has_torchs_values() {
    let folder = fixture("fp8");
    let weights = Weights::open(&folder).unwrap();
    assert_as_torch(&weights, &folder);
    weights.finish(&[]).unwrap();
}

/// Of any size, in one byte a number.
#[test]
fn fp8_is_kept_with_its_scales() {
    let folder = fixture("fp8");
    let text = fs::read_to_string(folder.join("expected.json")).unwrap();
    let expected: HashMap<String, Expected> = serde_json::from_str(&text).unwrap();
    let parameters = Weights::open(&folder).unwrap().parameters(DType::F32, &Device::Cpu);
    for (name, scales) in [("e4m3", 1), ("e5m2", 1), ("whole", 1), ("rows", 124), ("columns", 127)] {
        let Expected { shape, f32, .. } = &expected[&format!("{name}.weight")];
        let matrix = parameters.pp(name).matrix(shape[0], shape[1], "weight").unwrap();
        assert_eq!(matrix.bytes(), shape[0] * shape[1] + 4 * scales, "{name}");
        let MatrixValues::Float8(rows) = &matrix.values else { panic!("{name} is not kept as fp8") };
        let mut values = vec![0.0; f32.len()];
        rows.widen(0..shape[0], &mut values);
        assert_eq!(&values, f32, "{name}");
        rows.widen(5..7, &mut values[..4]);
        assert_eq!(values[..4], f32[10..14], "{name}");
    }
}

#[test]
fn embedded_bytes_may_be_unaligned() {
    let mut bytes = vec![0];
    bytes.extend(fs::read(fixture("safetensors").join(FILE)).unwrap());
    let bytes: &'static [u8] = bytes.leak();
    let weights = Weights::embedded("emoji-dit/transformer", &bytes[1..]).unwrap();
    assert_as_torch(&weights, &fixture("safetensors"));
}

#[test]
fn bytes_and_names_describe_what_is_stored() {
    let weights = Weights::open(&fixture("safetensors-sharded")).unwrap();
    let names: Vec<_> = weights.names().collect();
    assert_eq!(names, ["a.bias", "a.weight", "b.weight"]);
    assert_eq!(weights.bytes(), 4 * 4 + 12 * 4 + 12 * 2);
    assert_eq!(weights.shape("b.weight"), Some([3, 4].as_slice()));
}

#[test]
fn safetensors_is_preferred_to_pickle() {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(fixture("safetensors").join(FILE), folder.path().join(FILE)).unwrap();
    fs::write(folder.path().join("diffusion_pytorch_model.bin"), "never read").unwrap();
    let weights = Weights::open(folder.path()).unwrap();
    assert_as_torch(&weights, &fixture("safetensors"));
}

#[test]
fn no_weights_lists_what_was_looked_for_and_found() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("model.ckpt"), "").unwrap();
    let error = error_of(folder.path());
    assert!(error.contains(&folder.path().display().to_string()), "{error}");
    assert!(error.contains(&Library::Diffusers.looked_for()), "{error}");
    assert!(error.contains("the folder holds model.ckpt"), "{error}");
    assert!(error_of(&folder.path().join("vae")).contains("the folder does not exist"));
}

#[test]
fn missing_tensor_names_the_closest_one() {
    let folder = fixture("safetensors");
    let builder = Weights::open(&folder).unwrap().var_builder(DType::F32, &Device::Cpu);
    let linear = candle_nn::linear(5, 6, builder.pp("blocks").pp(0).pp("linaer"));
    let expected = format!(
        "{}: tensor `blocks.0.linaer.weight` is missing; the closest name there is `blocks.0.linear.weight`",
        folder.display()
    );
    assert_eq!(linear.unwrap_err().to_string(), expected);
}

#[test]
fn wrong_shape_names_file_tensor_and_both_shapes() {
    let folder = fixture("safetensors");
    let builder = Weights::open(&folder).unwrap().var_builder(DType::F32, &Device::Cpu);
    let linear = candle_nn::linear(7, 6, builder.pp("blocks.0.linear"));
    let expected = format!(
        "{}: tensor `blocks.0.linear.weight` has shape [6, 5], but config.json describes a model that needs [6, 7]",
        folder.join(FILE).display()
    );
    assert_eq!(linear.unwrap_err().to_string(), expected);
}

#[test]
fn surplus_tensors_are_reported_unless_ignored() {
    let weights = Weights::open(&fixture("safetensors-sharded")).unwrap();
    let builder = weights.var_builder(DType::F32, &Device::Cpu);
    builder.get((4, 3), "a.weight").unwrap();
    let error = weights.finish(&["b."]).unwrap_err().to_string();
    assert!(error.ends_with("no place for 1 of the 3 tensors: `a.bias`"), "{error}");
    weights.finish(&["a.", "b."]).unwrap();
}

#[test]
fn a_refused_tensor_stays_surplus() {
    let weights = Weights::open(&fixture("safetensors-sharded")).unwrap();
    let builder = weights.var_builder(DType::F32, &Device::Cpu);
    builder.get((1, 1), "b.weight").unwrap_err();
    assert!(weights.finish(&["a."]).is_err());
}

#[test]
fn integer_tensors_are_no_weights() {
    let weights = Weights::open(&fixture("pickle")).unwrap();
    let builder = weights.var_builder(DType::F32, &Device::Cpu);
    let error = builder.get(4, "position_ids").unwrap_err().to_string();
    assert!(error.contains("`position_ids` is stored as I64"), "{error}");
}

/// A folder with the tensors of the fixture `safetensors-sharded` under other names.
fn folder_named(rename: impl Fn(&str) -> String) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut tensors = HashMap::new();
    for shard in ["diffusion_pytorch_model-00001-of-00002", "diffusion_pytorch_model-00002-of-00002"] {
        let file = fixture("safetensors-sharded").join(format!("{shard}.safetensors"));
        tensors.extend(candle_core::safetensors::load(file, &Device::Cpu).unwrap());
    }
    let tensors: HashMap<_, _> = tensors.into_iter().map(|(name, tensor)| (rename(&name), tensor)).collect();
    candle_core::safetensors::save(&tensors, folder.path().join(FILE)).unwrap();
    folder
}

#[test]
fn a_prefix_of_all_names_is_dropped() {
    for prefix in [
        "module.",
        "_orig_mod.",
        "module._orig_mod.",
        "transformer.",
        "diffusion_model.",
        "model.diffusion_model.",
        "my.training.run.",
        "_fsdp_wrapped_module.",
    ] {
        let folder = folder_named(|name| format!("{prefix}{name}"));
        let weights = Weights::open(folder.path()).unwrap();
        let parameters = weights.parameters(DType::F32, &Device::Cpu);
        assert!(parameters.contains("b.weight") && !parameters.contains("weight"), "{prefix}");
        assert_eq!(weights.shape("a.weight"), Some([4, 3].as_slice()), "{prefix}");
        let error = weights.finish(&[]).unwrap_err().to_string();
        assert!(error.contains("no place for 3 of the 3 tensors"), "{error}");
        assert_as_torch(&weights, &fixture("safetensors-sharded"));
        weights.finish(&[]).unwrap();
    }
}

#[test]
fn surplus_tensors_are_ignored_also_behind_a_prefix() {
    let folder = folder_named(|name| format!("module.{name}"));
    let weights = Weights::open(folder.path()).unwrap();
    let builder = weights.var_builder(DType::F32, &Device::Cpu);
    builder.get((4, 3), "a.weight").unwrap();
    builder.get(4, "a.bias").unwrap();
    assert!(weights.finish(&[]).unwrap_err().to_string().ends_with("`b.weight`"));
    weights.finish(&["b."]).unwrap();
}

#[test]
fn a_prefix_of_some_names_is_part_of_them() {
    let folder = folder_named(|name| if name == "a.bias" { name.to_owned() } else { format!("module.{name}") });
    let builder = Weights::open(folder.path()).unwrap().var_builder(DType::F32, &Device::Cpu);
    let error = builder.get((4, 3), "a.weight").unwrap_err().to_string();
    assert!(error.contains("tensor `a.weight` is missing"), "{error}");
}

#[test]
fn a_lora_is_called_one() {
    let folder = folder_named(|name| format!("transformer.transformer_blocks.0.{name}.lora_A.weight"));
    let error = error_of(folder.path());
    assert!(error.contains("lora_A.weight` and so on, a LoRA, which changes a model and is none"), "{error}");
    fs::rename(folder.path().join(FILE), folder.path().join("pytorch_lora_weights.safetensors")).unwrap();
    let error = error_of(folder.path());
    assert!(error.contains("(pytorch_lora_weights.safetensors is a LoRA, which changes a model"), "{error}");
}

#[test]
fn links_without_content_are_named() {
    let folder = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("../../blobs/0123", folder.path().join(FILE)).unwrap();
    let error = error_of(folder.path());
    assert!(error.contains(&format!("{FILE}, which is a link to ../../blobs/0123, and nothing is there")), "{error}");
    // Shards that are linked to, of an index that is there.
    let index = r#"{"weight_map": {"a": "1.safetensors"}}"#;
    fs::write(folder.path().join(format!("{FILE}.index.json")), index).unwrap();
    std::os::unix::fs::symlink("../../blobs/4567", folder.path().join("1.safetensors")).unwrap();
    let error = error_of(folder.path());
    assert!(error.contains("names 1.safetensors, which is a link to ../../blobs/4567"), "{error}");
}

/// What is left by saving first in one file and then in shards, and the other way round.
#[test]
fn of_two_saves_the_one_of_the_library_is_read() {
    let folder = folder_named(str::to_owned);
    let index = r#"{"weight_map": {"scale": "old.safetensors"}}"#;
    fs::copy(fixture("safetensors").join(FILE), folder.path().join("old.safetensors")).unwrap();
    fs::write(folder.path().join(format!("{FILE}.index.json")), index).unwrap();
    let weights = Weights::open(folder.path()).unwrap();
    assert!(weights.shape("scale").is_some() && weights.shape("b.weight").is_none());

    fs::rename(folder.path().join(FILE), folder.path().join("model.safetensors")).unwrap();
    let index = folder.path().join(format!("{FILE}.index.json"));
    fs::rename(index, folder.path().join("model.safetensors.index.json")).unwrap();
    let of = |library| Weights::open_wanted(folder.path(), Wanted { library, variant: None }).unwrap();
    assert!(of(Library::Transformers).shape("b.weight").is_some());
}

#[test]
fn attention_of_old_vaes_gets_todays_names() {
    for (old, new) in [
        ("decoder.mid_block.attentions.0.query.weight", "decoder.mid_block.attentions.0.to_q.weight"),
        ("encoder.mid_block.attentions.0.proj_attn.bias", "encoder.mid_block.attentions.0.to_out.0.bias"),
        ("decoder.mid_block.attentions.0.to_q.weight", "decoder.mid_block.attentions.0.to_q.weight"),
        ("blocks.0.key.weight", "blocks.0.key.weight"),
        ("weight", "weight"),
    ] {
        assert_eq!(current_name(old.to_string()), new);
    }
}

#[test]
fn damaged_safetensors_are_errors_that_name_the_file() {
    let whole = fs::read(fixture("safetensors").join(FILE)).unwrap();
    let one = |offsets: &str| format!(r#"{{"a":{{"dtype":"F32","shape":[2],"data_offsets":{offsets}}}}}"#);
    let overlap = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#;
    let huge = r#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}}"#;
    let cases: [(&str, Vec<u8>); 11] = [
        ("empty", vec![]),
        ("only a length", 8u64.to_le_bytes().to_vec()),
        ("truncated header", whole[..40].to_vec()),
        ("truncated data", whole[..whole.len() - 1].to_vec()),
        ("trailing bytes", [whole.as_slice(), &[0]].concat()),
        ("length beyond the file", [&[255; 8], whole.as_slice()].concat()),
        ("no JSON", file_with_header("not json", 8)),
        ("offsets out of range", file_with_header(&one("[0,8]"), 4)),
        ("offsets backwards", file_with_header(&one("[8,0]"), 8)),
        ("overlapping", file_with_header(overlap, 12)),
        ("shape overflows", file_with_header(huge, 8)),
    ];
    for (case, bytes) in cases {
        let folder = folder_with(&bytes);
        let error = error_of(folder.path());
        let file = folder.path().join(FILE).display().to_string();
        assert!(error.starts_with(&file), "{case}: {error}");
    }
}

/// Whatever a damaged file says, opening and reading it ends in tensors or in an error.
#[test]
fn flipped_bits_never_panic() {
    for (form, name) in [("safetensors", FILE), ("pickle", "diffusion_pytorch_model.bin")] {
        let folder = tempfile::tempdir().unwrap();
        let whole = fs::read(fixture(form).join(name)).unwrap();
        for place in (0..whole.len()).step_by(5) {
            let mut bytes = whole.clone();
            bytes[place] ^= 1 << (place % 8);
            fs::write(folder.path().join(name), &bytes).unwrap();
            let Ok(weights) = Weights::open(folder.path()) else {
                continue;
            };
            let builder = weights.var_builder(DType::F32, &Device::Cpu);
            for name in weights.names() {
                let _ = builder.get_unchecked(name);
            }
        }
    }
}

#[test]
fn git_lfs_pointer_says_how_to_get_the_weights() {
    let pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n";
    let folder = folder_with(pointer);
    assert!(error_of(folder.path()).contains("git lfs pull"));
    fs::rename(folder.path().join(FILE), folder.path().join("diffusion_pytorch_model.bin")).unwrap();
    assert!(error_of(folder.path()).contains("git lfs pull"));
}

#[test]
fn pickles_of_other_kinds_are_refused() {
    for (form, expected) in [
        ("pickle-legacy", "convert it to safetensors"),
        ("pickle-nested", "`state_dict` is not a tensor but a dictionary"),
        ("pickle-list", "expected a dictionary of tensors, found a list"),
    ] {
        let error = error_of(&fixture(form));
        assert!(error.contains(expected), "{form}: {error}");
    }
}

#[test]
fn damaged_pickles_are_errors_that_name_the_file() {
    let name = "diffusion_pytorch_model.bin";
    let whole = fs::read(fixture("pickle").join(name)).unwrap();
    let mut flipped = whole.clone();
    // Inside data.pkl, which stands first in the archive; its checksum no longer fits.
    flipped[200] ^= 0x40;
    for bytes in [&whole[..3], &whole[..whole.len() / 2], &flipped, b"no archive"] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(name);
        fs::write(&file, bytes).unwrap();
        let error = error_of(folder.path());
        assert!(error.starts_with(&file.display().to_string()), "{error}");
    }
}

/// A broadcast tensor takes no place in its file, and would take any memory.
#[test]
fn tensors_that_share_too_much_are_refused() {
    let bytes: &'static [u8] = &[0; 64];
    let broadcast = |rows: usize| {
        let tensor = StoredTensor::strided(::safetensors::Dtype::F32, vec![rows, 16], vec![0, 1], 0);
        Weights::of_source(Source::memory("model.bin", bytes), whole(vec![("a".to_owned(), tensor)]))
    };
    broadcast(4).unwrap();
    let error = broadcast(5).unwrap_err().to_string();
    assert_eq!(error, "model.bin: its tensors have 320 bytes together, the file 64: too many share the same bytes");
    assert!(broadcast(1 << 50).is_err());
}

#[test]
fn a_weight_file_is_a_plain_file() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join(FILE);
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert!(Source::open(&pipe).unwrap_err().to_string().ends_with("it is no plain file"));
}

#[test]
fn shard_index_must_match_the_shards() {
    let folder = tempfile::tempdir().unwrap();
    let index = folder.path().join(format!("{FILE}.index.json"));
    fs::copy(fixture("safetensors").join(FILE), folder.path().join("one.safetensors")).unwrap();
    for (map, expected) in [
        (r#"{"scale": "two.safetensors"}"#, "names two.safetensors, which is not there"),
        (r#"{"scale": "../one.safetensors"}"#, "must be a file name without folders"),
        ("{}", "`weight_map` names no tensor"),
        (r#"{"scael": "one.safetensors"}"#, "tensor `scael` is in one.safetensors, but it is not there"),
        ("[]", "damaged shard index"),
    ] {
        fs::write(&index, format!(r#"{{"weight_map": {map}}}"#)).unwrap();
        let error = error_of(folder.path());
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_tensor_in_two_shards_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let shard = fixture("safetensors").join(FILE);
    fs::copy(&shard, folder.path().join("1.safetensors")).unwrap();
    fs::copy(&shard, folder.path().join("2.safetensors")).unwrap();
    fs::write(
        folder.path().join(format!("{FILE}.index.json")),
        r#"{"weight_map": {"scale": "1.safetensors", "conv.weight": "2.safetensors"}}"#,
    )
    .unwrap();
    assert!(error_of(folder.path()).contains("stored a second time"));
}
