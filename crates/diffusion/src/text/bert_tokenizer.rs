//! BERT's tokenizer: words, and pieces of those that the vocabulary lacks (WordPiece, arXiv 1609.08144).
//!
//! Follows transformers 5.23.0:
//!
//! * `BertTokenizer` (lines 40-131):
//!   <https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/bert/tokenization_bert.py#L40>
//!
//! `tokenizer.json` or `vocab.txt` hold the pieces; how a text is split is the same for every BERT but for three switches of
//! `tokenizer_config.json`, and so is built here, as transformers does, whatever `tokenizer.json` says.

use afterimage_checkpoint::guard::without_panic;
use afterimage_checkpoint::{CheckpointError, component_config};
use serde_json::{Map, Value};
use tokenizers::Tokenizer;
use tokenizers::models::bpe::Vocab;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::template::TemplateProcessing;

use super::added_tokens::AddedTokens;
use super::tokenizer::{self, TextTokenizer};
use super::tokenizer_files::{TOKENIZER_JSON, TokenizerFiles};

/// transformers' names.
pub(super) const CLASSES: [&str; 2] = ["BertTokenizer", "BertTokenizerFast"];

/// A piece a line, which has its number.
const VOCABULARY: &str = "vocab.txt";
/// Special tokens of a folder that does not name them.
const SPECIAL_TOKENS: [(&str, &str); 5] = [
    ("unk_token", "[UNK]"),
    ("sep_token", "[SEP]"),
    ("pad_token", "[PAD]"),
    ("cls_token", "[CLS]"),
    ("mask_token", "[MASK]"),
];
/// Most pieces; the BERT of HunyuanDiT has 47,020.
const MAX_PIECES: usize = 300_000;

/// The tokenizer in a folder.
pub(super) fn load(files: &TokenizerFiles<'_>) -> Result<TextTokenizer, CheckpointError> {
    let path = files.path(VOCABULARY);
    let (file, pieces) = match &files.tokenizer {
        Some(json) => (TOKENIZER_JSON, pieces_of_json(json)),
        None if files.folder.contains(&path) => (VOCABULARY, Ok(pieces_of_lines(&files.folder.text(&path)?))),
        None => (TOKENIZER_JSON, Err(format!("there is neither this file nor {VOCABULARY}"))),
    };
    let broken = |reason: String| tokenizer::broken(files, file, reason);
    let pieces = pieces.map_err(broken)?;
    let normalizer = normalizer(files)?;
    let added = AddedTokens::read(files, &SPECIAL_TOKENS)?;
    let finished = || {
        let mut tokenizer = build(pieces, normalizer, &added)?;
        tokenizer.set_encode_special_tokens(files.splits_special_tokens());
        TextTokenizer::new(tokenizer, added.named("pad_token"), files.place(file))
    };
    without_panic(finished).flatten().map_err(broken)
}

/// Numbers of lines; of two that are equal, the later one counts.
fn pieces_of_lines(text: &str) -> Vocab {
    text.lines().zip(0..).map(|(line, number)| (line.trim_end().to_owned(), number)).collect()
}

/// The pieces of [`TOKENIZER_JSON`].
fn pieces_of_json(json: &Map<String, Value>) -> Result<Vocab, String> {
    let part = |key: &str| json.get("model").and_then(|model| model.get(key));
    if part("type").is_some_and(|kind| !kind.is_null() && *kind != "WordPiece") {
        return Err("`model.type` is something else; supported: WordPiece".to_owned());
    }
    let piece = |(piece, number): (&String, &Value)| Some((piece.clone(), u32::try_from(number.as_u64()?).ok()?));
    let pieces = part("vocab").and_then(Value::as_object).and_then(|pieces| pieces.iter().map(piece).collect());
    pieces.ok_or_else(|| "`model.vocab` does not give pieces their numbers".to_owned())
}

/// The switches of `tokenizer_config.json`.
fn normalizer(files: &TokenizerFiles<'_>) -> Result<BertNormalizer, CheckpointError> {
    let switch = |key: &str| match files.config.get(key) {
        None => Ok(true),
        Some(Value::Bool(on)) => Ok(*on),
        Some(other) => {
            Err(component_config::unsupported(&files.config_path(), key, &other.to_string(), "true or false"))
        }
    };
    let accents = match files.config.get("strip_accents") {
        None | Some(Value::Null) => None,
        Some(_) => Some(switch("strip_accents")?),
    };
    Ok(BertNormalizer::new(true, switch("tokenize_chinese_chars")?, accents, switch("do_lower_case")?))
}

fn build(pieces: Vocab, normalizer: BertNormalizer, added: &AddedTokens) -> Result<Tokenizer, String> {
    let count = pieces.len();
    if count > MAX_PIECES {
        return Err(format!("it has {count} pieces; at most {MAX_PIECES} are read"));
    }
    let unknown = added.named("unk_token");
    if !pieces.contains_key(unknown) {
        return Err(format!("it has no piece {unknown}, the unk_token"));
    }
    let model = WordPiece::builder().vocab(pieces).unk_token(unknown.to_owned()).build();
    let mut tokenizer = Tokenizer::new(model.map_err(|error| error.to_string())?);
    tokenizer.with_normalizer(Some(normalizer)).map_err(|error| error.to_string())?;
    tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
    added.add_to(&mut tokenizer)?;
    let ends = ["cls_token", "sep_token"].map(|name| added.named(name).to_owned());
    let [start, end] = &ends;
    let numbers = ends.iter().map(|token| (token.clone(), tokenizer.token_to_id(token).unwrap_or_default()));
    let template = TemplateProcessing::builder()
        .try_single(vec![start.as_str(), "$A", end.as_str()])
        .map_err(|error| error.to_string())?
        .special_tokens(numbers.collect::<Vec<_>>())
        .build();
    tokenizer.with_post_processor(Some(template.map_err(|error| error.to_string())?));
    Ok(tokenizer)
}

#[cfg(test)]
mod tests {
    use afterimage_checkpoint::ModelFolder;

    use super::*;

    const PIECES: &str =
        "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nfox\n##es\nFox\na\n\u{e9}\n\u{72d0}\n\u{72d0}\u{72f8}\r\nfox  \n";

    fn load_from(files: &[(&str, &str)]) -> Result<TextTokenizer, String> {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("model_index.json"), "{}").unwrap();
        std::fs::create_dir(place.path().join("tokenizer")).unwrap();
        for (file, content) in files {
            std::fs::write(place.path().join("tokenizer").join(file), content).unwrap();
        }
        let folder = ModelFolder::open(place.path()).unwrap();
        let files = TokenizerFiles::open(&folder, "tokenizer").map_err(|error| error.to_string())?;
        load(&files).map_err(|error| error.to_string())
    }

    /// As `BertTokenizer` of transformers 5.23.0 gives them.
    #[test]
    fn switches_and_lines_are_read_as_transformers_does() {
        let text = "Foxes A\u{301} \u{e9} \u{72d0}\u{72f8} [MASK]x";
        for (config, expected) in [
            ("{}", vec![2, 12, 6, 8, 1, 10, 1, 4, 1, 3]),
            (r#"{"do_lower_case": false}"#, vec![2, 7, 6, 1, 9, 10, 1, 4, 1, 3]),
            (r#"{"tokenize_chinese_chars": false, "strip_accents": false}"#, vec![2, 12, 6, 1, 9, 11, 4, 1, 3]),
            (r#"{"split_special_tokens": true}"#, vec![2, 12, 6, 8, 1, 10, 1, 1, 1, 1, 1, 3]),
        ] {
            let tokenizer = load_from(&[("vocab.txt", PIECES), ("tokenizer_config.json", config)]).unwrap();
            assert_eq!(tokenizer.tokens(text, 77).unwrap().ids, expected, "{config}");
        }
    }

    #[test]
    fn a_tokenizer_json_gives_the_same() {
        let json =
            r#"{"model": {"type": "WordPiece", "vocab": {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "fox": 4}}}"#;
        let tokenizer = load_from(&[("tokenizer.json", json)]).unwrap();
        assert_eq!(tokenizer.padded_tokens("FOX [MASK]", 6).unwrap().ids, [2, 4, 5, 3, 0, 0]);
    }

    #[test]
    fn what_is_missing_or_wrong_is_named() {
        for (files, message) in [
            (vec![], "tokenizer/tokenizer.json: there is neither this file nor vocab.txt"),
            (vec![("vocab.txt", "[PAD]\na\n")], "tokenizer/vocab.txt: it has no piece [UNK], the unk_token"),
            (vec![("tokenizer.json", r#"{"model": {"type": "BPE"}}"#)], "`model.type` is something else"),
            (vec![("tokenizer.json", r#"{"model": {"vocab": []}}"#)], "`model.vocab` does not give pieces"),
            (
                vec![("vocab.txt", PIECES), ("tokenizer_config.json", r#"{"do_lower_case": null}"#)],
                "tokenizer/tokenizer_config.json: `do_lower_case` is null; supported: true or false",
            ),
        ] {
            let error = load_from(&files).map(|_| ()).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }
}
