//! CLIP's tokenizer: byte pairs of lower-cased words, in the files that published repositories keep it in.
//!
//! `tokenizer.json` holds all of it but the padding token; `vocab.json` and `merges.txt` hold the byte
//! pairs, and the rest is the same for every CLIP. The padding token is special, so that it is found in a
//! text as it is written: where it is "!", as for the larger CLIP of Stable Diffusion, no "!" is a word.

use std::collections::HashMap;

use serde::Deserialize;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::tokenizer::normalizer::SplitDelimiterBehavior;
use tokenizers::{AddedToken, Tokenizer};

use super::tokenizer::{self, TOKENIZER_JSON, TextTokenizer};
use crate::component_config;
use crate::error::RunnerError;
use crate::model_folder::ModelFolder;

/// The byte pairs as numbers.
const VOCABULARY: &str = "vocab.json";
/// Which byte pairs become one, the first ones first.
const MERGES: &str = "merges.txt";
/// Special tokens and lengths.
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// Special tokens alone.
const SPECIAL_TOKENS: &str = "special_tokens_map.json";

const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";
/// What the last byte pair of a word ends with.
const END_OF_WORD: &str = "</w>";
/// What becomes a word; all between is dropped
/// (<https://github.com/openai/CLIP/blob/main/clip/simple_tokenizer.py>).
const WORDS: &str = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// What is read of [`TOKENIZER_CONFIG`] and [`SPECIAL_TOKENS`].
#[derive(Debug, Default, Deserialize)]
struct SpecialTokens {
    pad_token: Option<SpecialToken>,
    /// 1e30 where the tokenizer knows none.
    model_max_length: Option<f64>,
}

/// A token with or without how it is matched.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum SpecialToken {
    Content(String),
    Described { content: String },
}

/// The tokenizer in the folder `component`.
pub(super) fn load(folder: &ModelFolder, component: &str) -> Result<TextTokenizer, RunnerError> {
    let json = format!("{component}/{TOKENIZER_JSON}");
    let (file, tokenizer) = if folder.contains(&json) {
        let tokenizer = folder.text(&json)?.parse::<Tokenizer>().map_err(|error| error.to_string());
        (TOKENIZER_JSON, tokenizer)
    } else {
        (VOCABULARY, byte_pairs_in(folder, component)?.map_err(|error| error.to_string()))
    };
    let padding = padding_token(folder, component)?;
    tokenizer
        .and_then(|tokenizer| with_padding(tokenizer, &padding))
        .map_err(|reason| tokenizer::broken(folder, component, file, reason))
}

/// A padding token that is not special yet is found as it is written, before anything is normalised.
fn with_padding(mut tokenizer: Tokenizer, padding: &str) -> Result<TextTokenizer, String> {
    let is_known = tokenizer.get_added_vocabulary().is_special_token(padding);
    if !is_known && tokenizer.token_to_id(padding).is_some() {
        let special = AddedToken::from(padding.to_owned(), true).normalized(false);
        tokenizer.add_special_tokens([special]).map_err(|error| error.to_string())?;
    }
    TextTokenizer::new(tokenizer, padding)
}

/// The longest text, if the tokenizer knows.
pub(super) fn max_tokens(folder: &ModelFolder, component: &str) -> Result<Option<usize>, RunnerError> {
    let length = special_tokens(folder, component, TOKENIZER_CONFIG)?.model_max_length;
    Ok(length.filter(|length| *length >= 2.0).map(|length| length as usize))
}

fn padding_token(folder: &ModelFolder, component: &str) -> Result<String, RunnerError> {
    for file in [TOKENIZER_CONFIG, SPECIAL_TOKENS] {
        match special_tokens(folder, component, file)?.pad_token {
            Some(SpecialToken::Content(content) | SpecialToken::Described { content }) => return Ok(content),
            None => {}
        }
    }
    Ok(END.to_owned())
}

fn special_tokens(folder: &ModelFolder, component: &str, file: &str) -> Result<SpecialTokens, RunnerError> {
    let path = format!("{component}/{file}");
    if !folder.contains(&path) {
        return Ok(SpecialTokens::default());
    }
    component_config::parse(&path, &folder.text(&path)?)
}

/// Two byte pairs a line, behind an optional line that names the version.
fn parse_merges(text: &str) -> Result<Merges, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with("#version"));
    let pair = |(number, line): (usize, &str)| match line.split_once(' ') {
        Some((left, right)) if !right.contains(' ') => Ok((left.to_owned(), right.to_owned())),
        _ => Err(format!("line {}: `{line}` is not two tokens with a space between", number + 1)),
    };
    lines.map(pair).collect()
}

/// The tokenizer of [`VOCABULARY`] and [`MERGES`]; what is wrong with them stands inside.
fn byte_pairs_in(folder: &ModelFolder, component: &str) -> Result<tokenizers::Result<Tokenizer>, RunnerError> {
    let vocabulary = format!("{component}/{VOCABULARY}");
    if !folder.contains(&vocabulary) {
        let reason = format!("there is neither this file nor {VOCABULARY}");
        return Err(tokenizer::broken(folder, component, TOKENIZER_JSON, reason));
    }
    let vocabulary = component_config::parse(&vocabulary, &folder.text(&vocabulary)?)?;
    let merges = parse_merges(&folder.text(&format!("{component}/{MERGES}"))?);
    let merges = merges.map_err(|reason| tokenizer::broken(folder, component, MERGES, reason))?;
    Ok(byte_pairs(vocabulary, merges))
}

fn byte_pairs(vocabulary: HashMap<String, u32>, merges: Merges) -> tokenizers::Result<Tokenizer> {
    let id = |token: &str| {
        let id = vocabulary.get(token).copied();
        id.ok_or_else(|| tokenizers::Error::from(format!("it has no token {token}")))
    };
    let (start, end) = (id(START)?, id(END)?);
    let model = BPE::builder()
        .vocab_and_merges(vocabulary.into_iter().collect::<Vocab>(), merges)
        .unk_token(END.to_owned())
        .end_of_word_suffix(END_OF_WORD.to_owned())
        .build()?;
    let mut tokenizer = Tokenizer::new(model);
    let spaces = Replace::new(tokenizers::normalizers::replace::ReplacePattern::Regex(r"\s+".to_owned()), " ")?;
    tokenizer.with_normalizer(Some(Normalizers::new(vec![NFC.into(), spaces.into(), Lowercase.into()])))?;
    let words = Split::new(SplitPattern::Regex(WORDS.to_owned()), SplitDelimiterBehavior::Removed, true)?;
    let bytes = ByteLevel::new(false, true, true);
    tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![words.into(), bytes.into()])));
    let ends = RobertaProcessing::new((END.to_owned(), end), (START.to_owned(), start));
    tokenizer.with_post_processor(Some(ends.trim_offsets(false).add_prefix_space(false)));
    tokenizer.add_special_tokens([START, END].map(|token| AddedToken::from(token, true).normalized(true)))?;
    Ok(tokenizer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden_fixture::{Fixture, ids};

    /// The fixtures have `vocab.json` and `merges.txt`; what is made of them stands in one file here.
    #[test]
    fn a_tokenizer_json_gives_the_same() {
        let fixture = Fixture::open("sd3");
        let pairs = byte_pairs_in(&fixture.folder, "tokenizer_2").unwrap().unwrap();
        let place = tempfile::tempdir().unwrap();
        let tokenizer = place.path().join("tokenizer");
        std::fs::create_dir(&tokenizer).unwrap();
        std::fs::write(place.path().join("model_index.json"), "{}").unwrap();
        pairs.save(tokenizer.join(TOKENIZER_JSON), false).unwrap();
        std::fs::write(tokenizer.join(SPECIAL_TOKENS), r#"{"pad_token": {"content": "!"}}"#).unwrap();
        let folder = ModelFolder::open(place.path()).unwrap();
        assert_eq!(max_tokens(&folder, "tokenizer").unwrap(), None);
        let ours = load(&folder, "tokenizer").unwrap();
        for text in fixture.golden["texts"]["tokenizer_2"].as_array().unwrap() {
            let tokens = ours.padded_tokens(text["text"].as_str().unwrap(), 120).unwrap();
            let mut expected = ids(&text["input_ids"]);
            expected.resize(120, 0);
            assert_eq!(tokens.ids, expected, "{}", text["text"]);
        }
    }

    #[test]
    fn files_that_are_missing_are_named() {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("model_index.json"), "{}").unwrap();
        let folder = ModelFolder::open(place.path()).unwrap();
        let error = load(&folder, "tokenizer").err().unwrap().to_string();
        assert!(error.ends_with("tokenizer/tokenizer.json: there is neither this file nor vocab.json"), "{error}");
    }

    #[test]
    fn merges_are_pairs_behind_a_version() {
        let merges = parse_merges("#version: 0.2\ni n\nt h\n#a b\n").unwrap();
        assert_eq!(merges, [("i", "n"), ("t", "h"), ("#a", "b")].map(|(a, b)| (a.to_owned(), b.to_owned())));
        let error = parse_merges("#version: 0.2\ni n\na b c\n").unwrap_err();
        assert_eq!(error, "line 3: `a b c` is not two tokens with a space between");
    }

    #[test]
    fn a_vocabulary_without_the_end_token_is_refused() {
        let vocabulary = [(START.to_owned(), 0)].into_iter().collect();
        let error = byte_pairs(vocabulary, Vec::new()).unwrap_err().to_string();
        assert_eq!(error, "it has no token <|endoftext|>");
    }
}
