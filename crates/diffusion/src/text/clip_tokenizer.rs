//! CLIP's tokenizer: byte pairs of lower-cased words.
//!
//! Follows transformers 5.23.0, `CLIPTokenizer` (lines 28-139):
//! <https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/clip/tokenization_clip.py#L28>
//!
//! `tokenizer.json`, or `vocab.json` and `merges.txt`, hold the byte pairs; how a text is split is the same
//! for every CLIP, and so is built here, as transformers does, whatever `tokenizer.json` says. The padding
//! token is special, so that it is found in a text as it is written: where it is "!", as for the larger CLIP
//! of Stable Diffusion, no "!" is a word.

use afterimage_checkpoint::CheckpointError;
use afterimage_checkpoint::guard::without_panic;
use tokenizers::Tokenizer;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::{Lowercase, NFC, Replace, Sequence as Normalizers};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::processors::roberta::RobertaProcessing;
use tokenizers::tokenizer::normalizer::SplitDelimiterBehavior;

use super::added_tokens::AddedTokens;
use super::byte_pairs::BytePairs;
use super::tokenizer::{self, TextTokenizer};
use super::tokenizer_files::TokenizerFiles;

/// transformers' names.
pub(super) const CLASSES: [&str; 2] = ["CLIPTokenizer", "CLIPTokenizerFast"];

const START: &str = "<|startoftext|>";
const END: &str = "<|endoftext|>";
/// Special tokens of a folder that does not name them.
const SPECIAL_TOKENS: [(&str, &str); 4] =
    [("bos_token", START), ("eos_token", END), ("unk_token", END), ("pad_token", END)];
/// What the last byte pair of a word ends with.
const END_OF_WORD: &str = "</w>";
/// What becomes a word; all between is dropped
/// (<https://github.com/openai/CLIP/blob/main/clip/simple_tokenizer.py>).
const WORDS: &str = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+";

/// The tokenizer in a folder.
pub(super) fn load(files: &TokenizerFiles<'_>) -> Result<TextTokenizer, CheckpointError> {
    files.check_padding_side()?;
    let pairs = BytePairs::read(files)?;
    let added = AddedTokens::read(files, &SPECIAL_TOKENS)?;
    let file = pairs.file;
    let finished = || {
        let mut tokenizer = build(pairs, &added)?;
        tokenizer.set_encode_special_tokens(files.splits_special_tokens());
        TextTokenizer::new(tokenizer, added.named("pad_token"), files.place(file))
    };
    without_panic(finished).flatten().map_err(|reason| tokenizer::broken(files, file, reason))
}

fn build(pairs: BytePairs, added: &AddedTokens) -> Result<Tokenizer, String> {
    for name in ["bos_token", "eos_token", "unk_token"] {
        let token = added.named(name);
        if !pairs.vocabulary.contains_key(token) && !added.lists(token) {
            return Err(format!("it has no token {token}, the {name}"));
        }
    }
    pairs.check_count()?;
    let mut tokenizer = byte_pairs(pairs, added.named("unk_token")).map_err(|error| error.to_string())?;
    added.add_to(&mut tokenizer)?;
    let end = |name: &str| {
        let token = added.named(name).to_owned();
        let id = tokenizer.token_to_id(&token).unwrap_or_default();
        (token, id)
    };
    let ends = RobertaProcessing::new(end("eos_token"), end("bos_token"));
    tokenizer.with_post_processor(Some(ends.trim_offsets(false).add_prefix_space(false)));
    Ok(tokenizer)
}

fn byte_pairs(pairs: BytePairs, unknown: &str) -> tokenizers::Result<Tokenizer> {
    let model = BPE::builder()
        .vocab_and_merges(pairs.vocabulary.into_iter().collect::<Vocab>(), pairs.merges)
        .unk_token(unknown.to_owned())
        .end_of_word_suffix(END_OF_WORD.to_owned())
        .build()?;
    let mut tokenizer = Tokenizer::new(model);
    let spaces = Replace::new(tokenizers::normalizers::replace::ReplacePattern::Regex(r"\s+".to_owned()), " ")?;
    tokenizer.with_normalizer(Some(Normalizers::new(vec![NFC.into(), spaces.into(), Lowercase.into()])))?;
    let words = Split::new(SplitPattern::Regex(WORDS.to_owned()), SplitDelimiterBehavior::Removed, true)?;
    let bytes = ByteLevel::new(false, true, true);
    tokenizer.with_pre_tokenizer(Some(PreTokenizers::new(vec![words.into(), bytes.into()])));
    Ok(tokenizer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden_fixture::{Fixture, ids};
    use crate::text::tokenizer_files::TOKENIZER_JSON;
    use afterimage_checkpoint::ModelFolder;

    /// The fixtures have `vocab.json` and `merges.txt`; what is made of them stands in one file here.
    #[test]
    fn a_tokenizer_json_gives_the_same() {
        let fixture = Fixture::open("sd3");
        let files = TokenizerFiles::open(&fixture.folder, "tokenizer_2").unwrap();
        let pairs =
            build(BytePairs::read(&files).unwrap(), &AddedTokens::read(&files, &SPECIAL_TOKENS).unwrap()).unwrap();
        let place = tempfile::tempdir().unwrap();
        let tokenizer = place.path().join("tokenizer");
        std::fs::create_dir(&tokenizer).unwrap();
        std::fs::write(place.path().join("model_index.json"), "{}").unwrap();
        pairs.save(tokenizer.join(TOKENIZER_JSON), false).unwrap();
        std::fs::write(tokenizer.join("special_tokens_map.json"), r#"{"pad_token": {"content": "!"}}"#).unwrap();
        let folder = ModelFolder::open(place.path()).unwrap();
        let files = TokenizerFiles::open(&folder, "tokenizer").unwrap();
        assert_eq!(files.max_tokens().unwrap(), None);
        let ours = load(&files).unwrap();
        for text in fixture.golden["texts"]["tokenizer_2"].as_array().unwrap() {
            let tokens = ours.padded_tokens(text["text"].as_str().unwrap(), 120).unwrap();
            let mut expected = ids(&text["input_ids"]);
            expected.resize(120, 0);
            assert_eq!(tokens.ids, expected, "{}", text["text"]);
        }
    }

    /// What is wrong with a folder of these files.
    fn refusal(contents: &[(&str, &str)]) -> String {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("model_index.json"), "{}").unwrap();
        std::fs::create_dir(place.path().join("tokenizer")).unwrap();
        for (file, content) in contents {
            std::fs::write(place.path().join("tokenizer").join(file), content).unwrap();
        }
        let folder = ModelFolder::open(place.path()).unwrap();
        let files = TokenizerFiles::open(&folder, "tokenizer");
        files.and_then(|files| load(&files).map(|_| ())).unwrap_err().to_string()
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        let pairs = [("vocab.json", r#"{"<|startoftext|>": 0, "<|endoftext|>": 1}"#), ("merges.txt", "")];
        let [vocabulary, merges] = pairs;
        for (contents, message) in [
            (vec![], "tokenizer/tokenizer.json: there is neither this file nor vocab.json"),
            (
                vec![("vocab.json", "{\"a\": \"b\"}"), merges],
                "tokenizer/vocab.json: `a` is \"b\"; supported: a whole number",
            ),
            (vec![("vocab.json", r#"{"<|startoftext|>": 0}"#), merges], "it has no token <|endoftext|>, the eos_token"),
            (
                vec![("tokenizer.json", r#"{"model": {"type": "Unigram"}}"#)],
                "`model.type` is \"Unigram\"; supported: BPE",
            ),
            (vec![("tokenizer.json", r#"{"model": {"vocab": {}}}"#)], "`model.merges` is something else"),
            (
                vec![vocabulary, merges, ("tokenizer_config.json", r#"{"pad_token": null}"#)],
                "tokenizer/tokenizer_config.json: `pad_token` is null; supported: a token",
            ),
            (
                vec![vocabulary, merges, ("tokenizer_config.json", r#"{"padding_side": "left"}"#)],
                "tokenizer/tokenizer_config.json: `padding_side` is \"left\"; supported: right",
            ),
            (
                vec![vocabulary, merges, ("tokenizer_config.json", r#"{"added_tokens_decoder": {"2": {"id": 3}}}"#)],
                "tokenizer/tokenizer_config.json: `added_tokens_decoder.2` is {\"id\":3}; supported: a token under its id",
            ),
            (
                vec![vocabulary, merges, ("added_tokens.json", r#"{"<cat>": "first"}"#)],
                "tokenizer/added_tokens.json: `<cat>` is \"first\"; supported: a whole number",
            ),
        ] {
            let error = refusal(&contents);
            assert!(error.contains(message), "{error}");
        }
    }
}
