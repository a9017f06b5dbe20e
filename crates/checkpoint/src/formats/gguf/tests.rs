use std::fs;
use std::path::Path;

use candle_core::{DType, Device};

use super::*;
use crate::weights::Weights;

/// Types of entries.
const U8: u32 = 0;
const I8: u32 = 1;
const U16: u32 = 2;
const I16: u32 = 3;
const U32: u32 = 4;
const I32: u32 = 5;
const F32: u32 = 6;
const BOOL: u32 = 7;
const STRING: u32 = 8;
const ARRAY: u32 = 9;
const U64: u32 = 10;
const I64: u32 = 11;
const F64: u32 = 12;

/// A file with two tensors of three numbers, and entries of the given types and bytes.
struct TestFile {
    version: u32,
    entries: Vec<(&'static str, u32, Vec<u8>)>,
    tensor_type: u32,
    alignment: usize,
}

impl Default for TestFile {
    fn default() -> Self {
        Self { version: 3, entries: Vec::new(), tensor_type: 0, alignment: 32 }
    }
}

const NAMES: [&str; 2] = ["transformer_blocks.0.a.weight", "transformer_blocks.0.b.weight"];

impl TestFile {
    fn entry(mut self, key: &'static str, kind: u32, value: &[u8]) -> Self {
        self.entries.push((key, kind, value.to_vec()));
        self
    }

    fn string(text: &str) -> Vec<u8> {
        [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = b"GGUF".to_vec();
        bytes.extend(self.version.to_le_bytes());
        bytes.extend(2u64.to_le_bytes());
        bytes.extend((self.entries.len() as u64).to_le_bytes());
        for (key, kind, value) in &self.entries {
            bytes.extend(Self::string(key));
            bytes.extend(kind.to_le_bytes());
            bytes.extend(value);
        }
        for (index, name) in NAMES.iter().enumerate() {
            bytes.extend(Self::string(name));
            bytes.extend(1u32.to_le_bytes());
            bytes.extend(3u64.to_le_bytes());
            bytes.extend(self.tensor_type.to_le_bytes());
            bytes.extend((index * self.alignment).to_le_bytes());
        }
        for index in 0..2 {
            bytes.resize(bytes.len().next_multiple_of(self.alignment), 0);
            bytes.extend(
                [1f32, 2.0, 3.0].map(|value| value + index as f32).iter().flat_map(|value| value.to_le_bytes()),
            );
        }
        bytes
    }

    fn error(&self) -> String {
        error_of(&self.bytes())
    }
}

/// A folder whose configuration names a transformer.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), r#"{"_class_name": "FluxTransformer2DModel"}"#).unwrap();
    folder
}

fn error_of(bytes: &[u8]) -> String {
    let folder = folder();
    let file = folder.path().join("model.gguf");
    fs::write(&file, bytes).unwrap();
    let error = Weights::open_file(&file, folder.path()).unwrap_err().to_string();
    assert!(error.starts_with(&file.display().to_string()), "{error}");
    error
}

fn assert_reads(file: &TestFile, case: &str) {
    let folder = folder();
    let path: &Path = &folder.path().join("model.gguf");
    fs::write(path, file.bytes()).unwrap();
    let builder = Weights::open_file(path, folder.path()).unwrap().var_builder(DType::F32, &Device::Cpu);
    for (index, name) in NAMES.into_iter().enumerate() {
        let values = builder.get(3, name).unwrap().to_vec1::<f32>().unwrap();
        assert_eq!(values, [1.0, 2.0, 3.0].map(|value: f32| value + index as f32), "{case}");
    }
}

#[test]
fn an_alignment_is_read_in_any_integer_type() {
    assert_reads(&TestFile::default(), "absent");
    let value = 64u64.to_le_bytes();
    for (kind, bytes) in [(U8, 1), (I8, 1), (U16, 2), (I16, 2), (U32, 4), (I32, 4), (U64, 8), (I64, 8)] {
        let file = TestFile { alignment: 64, ..TestFile::default() };
        assert_reads(&file.entry("general.alignment", kind, &value[..bytes]), &format!("type {kind}"));
    }
    for alignment in [16usize, 32, 128, 4096] {
        let file = TestFile { alignment, ..TestFile::default() };
        assert_reads(&file.entry("general.alignment", U64, &alignment.to_le_bytes()), &format!("{alignment}"));
    }
}

#[test]
fn an_alignment_that_is_no_power_of_two_is_refused() {
    let of = |kind, value: &[u8]| TestFile::default().entry("general.alignment", kind, value).error();
    for (value, expected) in [(0, "is 0;"), (3, "is 3;"), (48, "is 48;"), (255, "is 255;")] {
        let error = of(U8, &[value]);
        assert!(error.contains(&format!("`general.alignment` {expected} right is a power of two")), "{error}");
    }
    assert!(of(I32, &(-32i32).to_le_bytes()).contains("`general.alignment` is -32;"));
    assert!(of(U64, &0u64.to_le_bytes()).contains("`general.alignment` is 0;"));
    assert!(of(STRING, &TestFile::string("32")).contains("`general.alignment` is the string \"32\";"));
    assert!(of(F32, &32f32.to_le_bytes()).contains("`general.alignment` is no integer;"));
    assert!(of(F64, &32f64.to_le_bytes()).contains("`general.alignment` is no integer;"));
    assert!(of(BOOL, &[1]).contains("`general.alignment` is no integer;"));
    let array = [&U32.to_le_bytes()[..], &1u64.to_le_bytes(), &32u32.to_le_bytes()].concat();
    assert!(of(ARRAY, &array).contains("`general.alignment` is an array;"));
    // A power of two that no file can have.
    assert!(of(U64, &(1u64 << 63).to_le_bytes()).contains("does not fit the file"));
}

#[test]
fn entries_of_every_type_are_passed_over() {
    let strings =
        [&STRING.to_le_bytes()[..], &2u64.to_le_bytes(), &TestFile::string("a"), &TestFile::string("bc")].concat();
    let numbers = [&F64.to_le_bytes()[..], &3u64.to_le_bytes(), &[0; 24]].concat();
    let file = TestFile::default()
        .entry("general.architecture", STRING, &TestFile::string("flux"))
        .entry("tokens", ARRAY, &strings)
        .entry("scores", ARRAY, &numbers)
        .entry("a", F32, &[0; 4])
        .entry("b", BOOL, &[1])
        .entry("c", F64, &[0; 8]);
    assert_reads(&file, "entries");
    let error = file.entry("d", 13, &[]).error();
    assert!(error.contains("`d` is of type 13, which GGUF does not know"), "{error}");
}

#[test]
fn types_that_are_not_read_are_named_with_their_tensor() {
    for (tensor_type, name) in [
        (20, "IQ4_NL (number 20)"),
        (16, "IQ2_XXS"),
        (9, "Q8_1"),
        (24, "I8"),
        (39, "MXFP4"),
        (99, "number 99, which ggml does not know"),
    ] {
        let error = TestFile { tensor_type, ..TestFile::default() }.error();
        let expected = format!("tensor `{}` is of type {name}", NAMES[0]);
        assert!(error.contains(&expected), "{error}");
        assert!(error.ends_with("which is not read; docs/weights.md lists the types that are read"), "{error}");
    }
}

#[test]
fn the_docs_list_the_types_that_are_read() {
    let docs = include_str!("../../../../../docs/weights.md");
    let line = docs.lines().find(|line| line.starts_with("| GGUF types |")).unwrap();
    let listed: Vec<_> = line.trim_matches('|').split('|').nth(1).unwrap().split(", ").map(str::trim).collect();
    let read = (0..64).map(TensorType).filter(|kind| kind.encoding().is_some());
    let mut read: Vec<_> = read.map(|kind| kind.to_string().split(' ').next().unwrap().to_owned()).collect();
    let mut listed: Vec<_> = listed.into_iter().map(str::to_owned).collect();
    read.sort();
    listed.sort();
    assert_eq!(listed, read);
}

#[test]
fn big_endian_files_and_unknown_versions_are_named() {
    let big_endian = TestFile { version: 3u32.swap_bytes(), ..TestFile::default() }.error();
    assert!(big_endian.contains("in big-endian order") && big_endian.contains("gguf-convert-endian"), "{big_endian}");
    let mut bytes = TestFile::default().bytes();
    bytes[..4].copy_from_slice(b"FUGG");
    assert!(error_of(&bytes).contains("in big-endian order"));
    let error = TestFile { version: 4, ..TestFile::default() }.error();
    assert!(error.contains("version 4 of GGUF; versions 1 to 3 are read"), "{error}");
}

#[test]
fn parts_of_a_model_and_truncated_files_are_named() {
    let error = TestFile::default().entry("split.count", U16, &3u16.to_le_bytes()).error();
    assert!(error.contains("`split.count` is 3") && error.contains("--merge"), "{error}");
    assert_reads(&TestFile::default().entry("split.count", U16, &1u16.to_le_bytes()), "one part");
    let whole = TestFile::default().bytes();
    for length in [5, 30, 60] {
        let error = error_of(&whole[..length]);
        assert!(error.contains("ends within its header: it is truncated"), "{length}: {error}");
    }
    assert!(error_of(&whole[..whole.len() - 1]).contains("does not fit the file"));
}
