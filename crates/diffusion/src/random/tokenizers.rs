//! Tokenizers that know single characters only: valid files, in which every text becomes more tokens than
//! with the published ones.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::recipe::{write_json, write_text};
use crate::DiffusionError;

/// CLIP's tokens of the ends of a text, at their published ids.
const CLIP_START: (&str, u32) = ("<|startoftext|>", 49406);
const CLIP_END: (&str, u32) = ("<|endoftext|>", 49407);
const CLIP_MAX_LENGTH: usize = 77;
/// Qwen's tokens behind its vocabulary that chat templates consist of, and whether they are special.
const QWEN_TOKENS: [(&str, bool); 5] =
    [("<|endoftext|>", true), ("<|im_start|>", true), ("<|im_end|>", true), ("<think>", false), ("</think>", false)];

/// Mistral's special tokens at their published ids, among them those that the chat template consists of.
const MISTRAL_TOKENS: [&str; 20] = [
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
    "[IMG]",
    "<pad>",
    "[IMG_BREAK]",
    "[IMG_END]",
    "[PREFIX]",
    "[MIDDLE]",
    "[SUFFIX]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[TOOL_CONTENT]",
];

pub(super) enum TokenizerKind {
    /// Filled up with the end token.
    Clip,
    /// Filled up with "!", as for the larger CLIP.
    ClipPaddedWithBang,
    T5,
    Qwen2,
    Bert,
    Gemma,
    Mistral,
}

impl TokenizerKind {
    pub(super) fn class(&self) -> &'static str {
        match self {
            Self::Clip | Self::ClipPaddedWithBang => "CLIPTokenizer",
            Self::T5 => "T5Tokenizer",
            Self::Qwen2 => "Qwen2Tokenizer",
            Self::Bert => "BertTokenizer",
            Self::Gemma => "GemmaTokenizerFast",
            Self::Mistral => "PixtralProcessor",
        }
    }

    pub(super) fn write(&self, folder: &Path) -> Result<(), DiffusionError> {
        match self {
            Self::Clip => write_clip(folder, CLIP_END.0),
            Self::ClipPaddedWithBang => write_clip(folder, "!"),
            Self::T5 => write_json(&folder.join("tokenizer.json"), &t5()),
            Self::Qwen2 => write_qwen2(folder),
            Self::Bert => write_bert(folder),
            Self::Gemma => write_gemma(folder),
            Self::Mistral => write_mistral(folder),
        }
    }
}

/// The first 512 tokens of CLIP, which are bytes inside and at the end of words, and no merges.
fn write_clip(folder: &Path, padding: &str) -> Result<(), DiffusionError> {
    let bytes = byte_characters();
    let inside = bytes.iter().map(char::to_string);
    let last = bytes.iter().map(|character| format!("{character}</w>"));
    let mut vocabulary: Map<String, Value> =
        inside.chain(last).zip(0..).map(|(token, id): (String, u32)| (token, json!(id))).collect();
    for (token, id) in [CLIP_START, CLIP_END] {
        vocabulary.insert(token.to_owned(), json!(id));
    }
    write_json(&folder.join("vocab.json"), &Value::Object(vocabulary))?;
    write_text(&folder.join("merges.txt"), "#version: 0.2\n")?;
    write_json(
        &folder.join("tokenizer_config.json"),
        &json!({
            "bos_token": CLIP_START.0,
            "do_lower_case": true,
            "eos_token": CLIP_END.0,
            "model_max_length": CLIP_MAX_LENGTH,
            "pad_token": padding,
            "tokenizer_class": "CLIPTokenizer",
            "unk_token": CLIP_END.0,
        }),
    )
}

/// The first 256 tokens of Qwen, which are bytes, and no merges; its special tokens follow.
fn write_qwen2(folder: &Path) -> Result<(), DiffusionError> {
    let bytes = byte_characters();
    let count = bytes.len();
    let vocabulary: Map<String, Value> =
        bytes.iter().map(char::to_string).zip(0..).map(|(token, id): (String, u32)| (token, json!(id))).collect();
    write_json(&folder.join("vocab.json"), &Value::Object(vocabulary))?;
    write_text(&folder.join("merges.txt"), "#version: 0.2\n")?;
    let added = QWEN_TOKENS.iter().enumerate().map(|(index, (content, special))| {
        let token = json!({
            "content": content, "special": special,
            "lstrip": false, "normalized": false, "rstrip": false, "single_word": false,
        });
        ((count + index).to_string(), token)
    });
    write_json(
        &folder.join("tokenizer_config.json"),
        &json!({
            "add_prefix_space": false,
            "added_tokens_decoder": added.collect::<Map<_, _>>(),
            "bos_token": null,
            "eos_token": "<|im_end|>",
            "model_max_length": 131_072,
            "pad_token": "<|endoftext|>",
            "tokenizer_class": "Qwen2Tokenizer",
            "unk_token": null,
        }),
    )
}

/// The characters that byte-level byte pairs write bytes as, in CLIP's order: the printable ones as
/// themselves, then the others from U+0100 on.
fn byte_characters() -> Vec<char> {
    let is_printable = |byte: &u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let printable = (0..256).filter(is_printable);
    let others = (0..256).filter(|byte| !is_printable(byte)).zip(0x100..).map(|(_, code)| code);
    printable.chain(others).filter_map(char::from_u32).collect()
}

/// Printable ASCII characters, alone and inside of words, behind special tokens at their published numbers.
fn write_bert(folder: &Path) -> Result<(), DiffusionError> {
    let unused = (1..100).map(|number| format!("[unused{number}]"));
    let special = ["[UNK]", "[CLS]", "[SEP]", "[MASK]"].map(str::to_owned);
    let characters = || (b'!'..=b'~').map(char::from).filter(|character| !character.is_ascii_uppercase());
    let alone = characters().map(String::from);
    let inside = characters().map(|character| format!("##{character}"));
    let pieces: Vec<_> =
        std::iter::once("[PAD]".to_owned()).chain(unused).chain(special).chain(alone).chain(inside).collect();
    write_text(&folder.join("vocab.txt"), &(pieces.join("\n") + "\n"))?;
    write_json(
        &folder.join("tokenizer_config.json"),
        &json!({"do_lower_case": true, "model_max_length": 77, "tokenizer_class": "BertTokenizer"}),
    )
}

/// Bytes, which all texts fall back to, and the space; special tokens are at their published numbers.
fn write_gemma(folder: &Path) -> Result<(), DiffusionError> {
    let special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"];
    let bytes = (0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>"));
    let tokens = special.map(str::to_owned).into_iter().chain(bytes).chain([SPACE.to_string()]);
    let vocabulary: Map<String, Value> = tokens.zip(0..).map(|(token, id): (String, u32)| (token, json!(id))).collect();
    let model = json!({"type": "BPE", "vocab": vocabulary, "merges": [], "byte_fallback": true, "unk_token": "<unk>"});
    write_json(&folder.join("tokenizer.json"), &json!({"version": "1.0", "added_tokens": [], "model": model}))?;
    let added = special.iter().enumerate().map(|(id, content)| {
        let token = json!({
            "content": content, "special": true,
            "lstrip": false, "normalized": false, "rstrip": false, "single_word": false,
        });
        (id.to_string(), token)
    });
    write_json(
        &folder.join("tokenizer_config.json"),
        &json!({
            "add_bos_token": true,
            "add_eos_token": false,
            "added_tokens_decoder": added.collect::<Map<_, _>>(),
            "bos_token": "<bos>",
            "eos_token": "<eos>",
            "pad_token": "<pad>",
            "padding_side": "left",
            "tokenizer_class": "GemmaTokenizer",
            "unk_token": "<unk>",
        }),
    )
}

/// Bytes behind the special tokens, and no merges.
fn write_mistral(folder: &Path) -> Result<(), DiffusionError> {
    let bytes = byte_characters();
    let tokens = MISTRAL_TOKENS.map(str::to_owned).into_iter().chain(bytes.iter().map(char::to_string));
    let vocabulary: Map<String, Value> = tokens.zip(0..).map(|(token, id): (String, u32)| (token, json!(id))).collect();
    let special = |(id, content): (usize, &&str)| {
        json!({
            "id": id, "content": content, "special": true,
            "lstrip": false, "normalized": false, "rstrip": false, "single_word": false,
        })
    };
    let added: Vec<_> = MISTRAL_TOKENS.iter().enumerate().map(special).collect();
    write_json(
        &folder.join("tokenizer.json"),
        &json!({
            "version": "1.0",
            "added_tokens": added,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
            "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
        }),
    )?;
    write_json(
        &folder.join("tokenizer_config.json"),
        &json!({
            "bos_token": "<s>",
            "eos_token": "</s>",
            "pad_token": "<pad>",
            "padding_side": "left",
            "processor_class": "PixtralProcessor",
            "tokenizer_class": "LlamaTokenizerFast",
            "unk_token": "<unk>",
        }),
    )
}

/// Pieces of one printable ASCII character each.
fn t5() -> Value {
    let special = ["<pad>", "</s>", "<unk>"];
    let pieces = special.map(str::to_owned).into_iter().chain([SPACE.to_string()]);
    let pieces = pieces.chain((b'!'..=b'~').map(|byte| char::from(byte).to_string()));
    let vocabulary: Vec<_> = pieces.enumerate().map(|(id, piece)| json!([piece, -(id as f64)])).collect();
    let added = special.iter().enumerate().map(|(id, content)| {
        json!({
            "id": id, "content": content, "special": true,
            "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        })
    });
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null,
        "pre_tokenizer": {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": true},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
            "pair": [
                {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}},
                {"Sequence": {"id": "B", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}},
            ],
            "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}},
        },
        "decoder": {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "always", "split": true},
        "model": {"type": "Unigram", "unk_id": 2, "vocab": vocabulary, "byte_fallback": false},
    })
}

/// What SentencePiece writes a space as.
const SPACE: char = '\u{2581}';
