//! Tokenizers that were made to do harm: whatever their files say, they end in short errors that name the file.

use std::path::Path;

use afterimage_checkpoint::ModelFolder;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::tokenizer::TextTokenizer;
use super::tokenizer_files::TokenizerFiles;
use super::{clip_tokenizer, t5_tokenizer};
use crate::DiffusionError;

/// More than any encoder reads.
const MAX_TOKENS: usize = 600;

fn folder_with(files: &[(&str, Vec<u8>)]) -> (TempDir, ModelFolder) {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("model_index.json"), "{}").unwrap();
    std::fs::create_dir(place.path().join("tokenizer")).unwrap();
    for (name, content) in files {
        std::fs::write(place.path().join("tokenizer").join(name), content).unwrap();
    }
    let folder = ModelFolder::open(place.path()).unwrap();
    (place, folder)
}

fn load(folder: &ModelFolder, is_clip: bool) -> Result<TextTokenizer, DiffusionError> {
    let files = TokenizerFiles::open(folder, "tokenizer")?;
    Ok(if is_clip { clip_tokenizer::load(&files)? } else { t5_tokenizer::load(&files)? })
}

/// A T5 tokenizer with some changes.
fn t5(change: impl FnOnce(&mut Value)) -> Result<TextTokenizer, DiffusionError> {
    let pieces = json!([["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], ["\u{2581}", -1.0], ["a", -1.0]]);
    let mut json = json!({"model": {"type": "Unigram", "vocab": pieces}, "added_tokens": []});
    change(&mut json);
    load(&folder_with(&[("tokenizer.json", json.to_string().into())]).1, false)
}

fn charsmap(trie: &[u32], texts: &[u8]) -> Value {
    let trie: Vec<u8> = trie.iter().flat_map(|unit| unit.to_le_bytes()).collect();
    let bytes = [&(trie.len() as u32).to_le_bytes(), trie.as_slice(), texts].concat();
    json!({"type": "Precompiled", "precompiled_charsmap": BASE64.encode(bytes)})
}

#[test]
fn a_library_that_panics_is_an_error_that_names_the_file() {
    // No entry at all, one for no character, and one that leads into the middle of a character.
    let middle = [0x400, 0x161, 0x161, 0x8000_0001];
    for normalizer in [charsmap(&[], b""), charsmap(&[0], b""), charsmap(&middle, "\u{e9}\0".as_bytes())] {
        let tokenizer = t5(|json| json["normalizer"] = normalizer).unwrap();
        if let Err(error) = tokenizer.tokens("aaa \u{e9}", MAX_TOKENS) {
            let error = error.to_string();
            assert!(
                error.contains("tokenizer/tokenizer.json: cannot tokenise the prompt: its reader gave up"),
                "{error}"
            );
            assert!(error.len() < 300, "{error}");
        }
        // It still answers.
        assert!(tokenizer.tokens("", MAX_TOKENS).is_ok());
    }
    let many = vec![json!(["x".repeat(1000), 0]); 4000];
    let error = t5(|json| json["model"]["vocab"] = many.into()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("its pieces have 4000000 bytes together"), "{error}");
    // The library's tree of it is as deep as it is long, and would overflow the stack when it is dropped.
    let long = vec![json!(["x".repeat(60_000), 0])];
    let error = t5(|json| json["model"]["vocab"] = long.into()).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("it has a piece of 60000 bytes; at most 512 are read"), "{error}");
    let error = t5(|json| json["normalizer"] = charsmap(&[0], &[b'x'; 1000])).map(|_| ()).unwrap_err().to_string();
    assert!(
        error.contains("tokenizer/tokenizer.json: its precompiled_charsmap replaces a character by 1000"),
        "{error}"
    );
}

/// Each word of the prompt stands for many, in whose names the others stand again.
#[test]
fn words_do_not_multiply_without_bounds() {
    let names = ["a", "_", "1"];
    let vectors = names.iter().flat_map(|name| (1..300).map(move |number| format!("{name}_{number}")));
    let words: Vec<String> = names.map(str::to_owned).into_iter().chain(vectors).collect();
    let token = |(id, content): (usize, &String)| json!({"id": id + 5, "content": content, "normalized": false});
    let tokens: Vec<Value> = words.iter().enumerate().map(token).collect();
    let tokenizer = t5(|json| json["added_tokens"] = tokens.into()).unwrap();
    assert!(tokenizer.with_all_vectors("a").unwrap().len() > 1000);
    let error = tokenizer.with_all_vectors("a _ 1").unwrap_err().to_string();
    assert!(error.contains("the words of the prompt stand for more than 1048576 bytes"), "{error}");
}

#[test]
fn numbers_in_files_are_not_believed() {
    for (name, content, expected) in [
        (
            "tokenizer_config.json",
            json!({"extra_ids": u64::MAX}),
            "`extra_ids` is 18446744073709551615; supported: a whole",
        ),
        (
            "tokenizer_config.json",
            json!({"additional_special_tokens": vec!["x"; 5001]}),
            "is a list of 5001; supported: at",
        ),
        (
            "special_tokens_map.json",
            json!({"extra_special_tokens": vec!["x"; 5001]}),
            "is a list of 5001; supported: at",
        ),
        (
            "tokenizer.json",
            json!({"model": {"vocab": []}, "added_tokens": vec![0; 5001]}),
            "`added_tokens` is a list of 5001",
        ),
    ] {
        let (_place, folder) = folder_with(&[(name, content.to_string().into())]);
        let error = load(&folder, false).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// Bytes changed, cut out and doubled in every file of the fixtures' tokenizers.
#[test]
fn mutated_files_end_in_tokens_or_in_errors() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/sd3/model");
    let mut random = 1u64;
    let mut next = move |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    for (component, is_clip, names) in [
        ("tokenizer_2", true, &["vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"][..]),
        ("tokenizer_3", false, &["spiece.model", "tokenizer_config.json"]),
        ("tokenizer_3", false, &["tokenizer.json", "added_tokens.json"]),
    ] {
        let read = |name: &&'static str| (*name, std::fs::read(fixtures.join(component).join(name)).unwrap());
        let whole: Vec<_> = names.iter().map(read).collect();
        for round in 0..40 {
            let mut files = whole.clone();
            let bytes = &mut files[round % names.len()].1;
            for _ in 0..1 + next(6) {
                let place = next(bytes.len());
                match next(4) {
                    0 => bytes[place] ^= 1 << next(8),
                    1 => bytes[place] = [b'"', b'0', 0xff, 0, b' ', b'}'][next(6)],
                    2 => drop(bytes.drain(place..(place + 1 + next(9)).min(bytes.len()))),
                    _ => bytes.extend_from_within(place..(place + next(50)).min(bytes.len())),
                }
            }
            let (_place, folder) = folder_with(&files);
            let Ok(tokenizer) = load(&folder, is_clip) else { continue };
            for text in ["", "a photo of <cat> \u{fdfa}\u{1f600}, a\u{301} </s> <|endoftext|>!", &"word ".repeat(800)] {
                if let Ok(tokens) = tokenizer.padded_tokens(text, MAX_TOKENS) {
                    assert_eq!(tokens.ids.len(), MAX_TOKENS);
                }
                let _ = tokenizer.with_all_vectors(text);
            }
        }
    }
}
