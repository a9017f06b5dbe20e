//! The vocabulary of tokenizers that merge pairs, from `tokenizer.json` or else from `vocab.json` and `merges.txt`.

use std::collections::HashMap;

use afterimage_checkpoint::{CheckpointError, component_config};
use serde_json::{Map, Value};
use tokenizers::models::bpe::Merges;

use super::tokenizer;
use super::tokenizer_files::{TOKENIZER_JSON, TokenizerFiles};

/// The byte pairs as numbers.
const VOCABULARY: &str = "vocab.json";
/// Which byte pairs become one, the first ones first.
const MERGES: &str = "merges.txt";

/// Most tokens, and most merges; Gemma has 256,000 and 580,604.
const MAX_PAIRS: usize = 1 << 20;
/// Characters of a line that an error shows.
const SHOWN_CHARS: usize = 80;

/// Byte pairs and the file they are from.
pub(super) struct BytePairs {
    pub(super) file: &'static str,
    pub(super) vocabulary: HashMap<String, u32>,
    pub(super) merges: Merges,
}

impl BytePairs {
    /// Those of a folder.
    pub(super) fn read(files: &TokenizerFiles<'_>) -> Result<Self, CheckpointError> {
        match &files.tokenizer {
            Some(json) => pairs_of_json(files, json),
            None => pairs_in(files),
        }
    }

    /// Refuses more than any published tokenizer has.
    pub(super) fn check_count(&self) -> Result<(), String> {
        match self.vocabulary.len().max(self.merges.len()) {
            0..=MAX_PAIRS => Ok(()),
            pairs => Err(format!("it has {pairs} tokens or merges; at most {MAX_PAIRS} are read")),
        }
    }
}

/// The byte pairs of [`TOKENIZER_JSON`].
fn pairs_of_json(files: &TokenizerFiles<'_>, json: &Map<String, Value>) -> Result<BytePairs, CheckpointError> {
    let path = files.path(TOKENIZER_JSON);
    let part = |key: &str| json.get("model").and_then(|model| model.get(key)).cloned().unwrap_or_default();
    let kind = part("type");
    if !kind.is_null() && kind != "BPE" {
        return Err(component_config::unsupported(&path, "model.type", &kind.to_string(), "BPE"));
    }
    let vocabulary = component_config::deserialize(&format!("{path}: `model.vocab`"), part("vocab"))?;
    let pair = |pair: &Value| match pair {
        Value::String(pair) => parse_pair(pair),
        pair => Some((pair.get(0)?.as_str()?.to_owned(), pair.get(1)?.as_str()?.to_owned())),
    };
    let merges = part("merges").as_array().and_then(|pairs| pairs.iter().map(pair).collect());
    let merges = merges.ok_or_else(|| {
        component_config::unsupported(&path, "model.merges", "something else", "a list of pairs of tokens")
    })?;
    Ok(BytePairs { file: TOKENIZER_JSON, vocabulary, merges })
}

/// The byte pairs of [`VOCABULARY`] and [`MERGES`].
fn pairs_in(files: &TokenizerFiles<'_>) -> Result<BytePairs, CheckpointError> {
    let folder = files.folder;
    let vocabulary = files.path(VOCABULARY);
    if !folder.contains(&vocabulary) {
        let reason = format!("there is neither this file nor {VOCABULARY}");
        return Err(tokenizer::broken(files, TOKENIZER_JSON, reason));
    }
    let vocabulary = component_config::parse(&vocabulary, &folder.text(&vocabulary)?)?;
    let merges = parse_merges(&folder.text(&files.path(MERGES))?);
    let merges = merges.map_err(|reason| tokenizer::broken(files, MERGES, reason))?;
    Ok(BytePairs { file: VOCABULARY, vocabulary, merges })
}

/// Two tokens with a space between.
fn parse_pair(text: &str) -> Option<(String, String)> {
    let (left, right) = text.split_once(' ')?;
    (!right.contains(' ')).then(|| (left.to_owned(), right.to_owned()))
}

/// Two tokens a line, after an optional line that names the version.
fn parse_merges(text: &str) -> Result<Merges, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with("#version"));
    let pair = |(number, line): (usize, &str)| {
        parse_pair(line).ok_or_else(|| {
            let shown: String = line.chars().take(SHOWN_CHARS).collect();
            format!("line {}: `{shown}` is not two tokens with a space between", number + 1)
        })
    };
    lines.map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_are_pairs_behind_a_version() {
        let merges = parse_merges("#version: 0.2\ni n\nt h\n#a b\n").unwrap();
        assert_eq!(merges, [("i", "n"), ("t", "h"), ("#a", "b")].map(|(a, b)| (a.to_owned(), b.to_owned())));
        let error = parse_merges("#version: 0.2\ni n\na b c\n").unwrap_err();
        assert_eq!(error, "line 3: `a b c` is not two tokens with a space between");
    }
}
