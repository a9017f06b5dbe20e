//! The JSON files that transformers keeps beside a tokenizer's vocabulary.
//!
//! Follows transformers 5.23.0:
//!
//! * `PreTrainedTokenizerBase._from_pretrained` (lines 1780-1980):
//!   <https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/tokenization_utils_base.py#L1780>
//! * `TokenizersBackend.convert_to_native_format` (lines 104-270):
//!   <https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/tokenization_utils_tokenizers.py#L104>
//!
//! Departs from it: `truncation_side` must be `right`, and so must `padding_side`, unless the pipeline sets it.

use afterimage_checkpoint::{CheckpointError, ModelFolder, component_config};
use serde_json::{Map, Value};
use tokenizers::AddedToken;

/// The file of the tokenizers library.
pub(super) const TOKENIZER_JSON: &str = "tokenizer.json";
/// Special and added tokens, lengths and sides.
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
/// Special tokens alone; older.
const SPECIAL_TOKENS: &str = "special_tokens_map.json";
/// Added tokens as numbers; older.
const ADDED_TOKENS: &str = "added_tokens.json";

/// Most added tokens of a list: published models have up to 1,000.
const MAX_ADDED_TOKENS: usize = 5_000;

/// The folder of a tokenizer, opened.
pub(super) struct TokenizerFiles<'a> {
    pub(super) folder: &'a ModelFolder,
    /// Name of the folder inside the model folder.
    pub(super) component: &'a str,
    /// `tokenizer_config.json`; empty where there is none.
    pub(super) config: Map<String, Value>,
    /// `special_tokens_map.json`
    pub(super) special_tokens: Map<String, Value>,
    /// `added_tokens.json`
    pub(super) added_tokens: Map<String, Value>,
    /// `tokenizer.json`
    pub(super) tokenizer: Option<Map<String, Value>>,
}

impl<'a> TokenizerFiles<'a> {
    pub(super) fn open(folder: &'a ModelFolder, component: &'a str) -> Result<Self, CheckpointError> {
        let object = |file: &str| -> Result<Option<Map<String, Value>>, CheckpointError> {
            let path = format!("{component}/{file}");
            if !folder.contains(&path) {
                return Ok(None);
            }
            component_config::object(&path, &folder.text(&path)?).map(Some)
        };
        let files = Self {
            folder,
            component,
            config: object(TOKENIZER_CONFIG)?.unwrap_or_default(),
            special_tokens: object(SPECIAL_TOKENS)?.unwrap_or_default(),
            added_tokens: object(ADDED_TOKENS)?.unwrap_or_default(),
            tokenizer: object(TOKENIZER_JSON)?,
        };
        files.check_side("truncation_side")?;
        Ok(files)
    }

    /// Refuses texts that are padded at their beginning, for encoders whose pipelines do not say where.
    pub(super) fn check_padding_side(&self) -> Result<(), CheckpointError> {
        self.check_side("padding_side")
    }

    /// Whether texts are padded at their beginning: `tokenizer_config.json` decides, then `tokenizer.json`, then the class.
    pub(super) fn pads_first(&self) -> Result<bool, CheckpointError> {
        const KEY: &str = "padding_side";
        match self.config.get(KEY).filter(|side| !side.is_null()) {
            Some(side) if side == "left" => return Ok(true),
            Some(side) if side == "right" => return Ok(false),
            Some(side) => return Err(self.unsupported(KEY, side, "left or right")),
            None => {}
        }
        let padding = self.tokenizer.as_ref().and_then(|json| json.get("padding"));
        let direction = padding.and_then(|padding| padding.get("direction"));
        let by_class = || self.class().is_some_and(|class| class.starts_with("Llama"));
        Ok(direction.and_then(Value::as_str).map_or_else(by_class, |side| side == "Left"))
    }

    fn check_side(&self, key: &str) -> Result<(), CheckpointError> {
        match self.config.get(key).filter(|side| !side.is_null() && *side != "right") {
            Some(side) => Err(self.unsupported(key, side, "right")),
            None => Ok(()),
        }
    }

    /// Path of a file of the folder.
    pub(super) fn path(&self, file: &str) -> String {
        format!("{}/{file}", self.component)
    }

    /// Model and file, for errors.
    pub(super) fn place(&self, file: &str) -> String {
        format!("{}: {}", self.folder.id(), self.path(file))
    }

    /// Path of `tokenizer_config.json`.
    pub(super) fn config_path(&self) -> String {
        self.path(TOKENIZER_CONFIG)
    }

    /// Path of `special_tokens_map.json`.
    pub(super) fn special_tokens_path(&self) -> String {
        self.path(SPECIAL_TOKENS)
    }

    /// The longest text, if the tokenizer knows; 1e30 stands for any length.
    pub(super) fn max_tokens(&self) -> Result<Option<usize>, CheckpointError> {
        match self.config.get("model_max_length") {
            None | Some(Value::Null) => Ok(None),
            Some(length) => match length.as_f64().filter(|length| *length >= 2.0) {
                Some(length) => Ok(Some(length as usize)),
                None => Err(self.unsupported("model_max_length", length, "a number of tokens, at least 2")),
            },
        }
    }

    /// A whole number of `tokenizer_config.json`, up to `most`.
    pub(super) fn whole_number(&self, key: &str, default: usize, most: usize) -> Result<usize, CheckpointError> {
        let Some(value) = self.config.get(key) else { return Ok(default) };
        let number = value.as_u64().and_then(|number| usize::try_from(number).ok()).filter(|number| *number <= most);
        number.ok_or_else(|| self.unsupported(key, value, &format!("a whole number up to {most}")))
    }

    /// Whether a text's special tokens are read as plain text.
    pub(super) fn splits_special_tokens(&self) -> bool {
        self.is_on("split_special_tokens")
    }

    /// Whether a switch of `tokenizer_config.json` is on; those that are absent are off.
    pub(super) fn is_on(&self, key: &str) -> bool {
        self.config.get(key).and_then(component_config::is_true).unwrap_or(false)
    }

    /// Whether `tokenizer_config.json` says that there is no such thing.
    pub(super) fn is_null(&self, key: &str) -> bool {
        self.config.get(key).is_some_and(Value::is_null)
    }

    /// The class that the configuration names.
    pub(super) fn class(&self) -> Option<&str> {
        self.config.get("tokenizer_class")?.as_str()
    }

    /// `added_tokens_decoder`, which takes precedence over all older files.
    pub(super) fn added_tokens_decoder(&self) -> Result<Option<Vec<(u32, AddedToken)>>, CheckpointError> {
        let Some(decoder) = self.config.get("added_tokens_decoder") else { return Ok(None) };
        let path = self.config_path();
        let Value::Object(decoder) = decoder else {
            return Err(self.unsupported("added_tokens_decoder", decoder, "an object"));
        };
        check_count(&path, "added_tokens_decoder", decoder.len())?;
        let token = |(id, token): (&String, &Value)| {
            let key = format!("added_tokens_decoder.{id}");
            let number = id.parse().ok().zip(described(token, None));
            number.ok_or_else(|| component_config::unsupported(&path, &key, &token.to_string(), "a token under its id"))
        };
        decoder.iter().map(token).collect::<Result<_, _>>().map(Some)
    }

    /// The tokens of `added_tokens.json`; those in `specials` are special.
    pub(super) fn older_added_tokens(&self, specials: &[String]) -> Result<Vec<(u32, AddedToken)>, CheckpointError> {
        let token = |(content, id): (&String, &Value)| {
            let is_special = specials.contains(content);
            let token = AddedToken::from(content.as_str(), is_special);
            let path = || self.path(ADDED_TOKENS);
            let number = id.as_u64().and_then(|id| u32::try_from(id).ok());
            number
                .map(|id| (id, token))
                .ok_or_else(|| component_config::unsupported(&path(), content, &id.to_string(), "a whole number"))
        };
        check_count(&self.path(ADDED_TOKENS), "added tokens", self.added_tokens.len())?;
        self.added_tokens.iter().map(token).collect()
    }

    /// The added tokens of `tokenizer.json`.
    pub(super) fn tokens_of_tokenizer_json(&self) -> Result<Vec<(u32, AddedToken)>, CheckpointError> {
        let tokens = self.tokenizer.as_ref().and_then(|json| json.get("added_tokens")).and_then(Value::as_array);
        check_count(&self.path(TOKENIZER_JSON), "added_tokens", tokens.map_or(0, Vec::len))?;
        let token = |token: &Value| Some((u32::try_from(token.get("id")?.as_u64()?).ok()?, described(token, None)?));
        Ok(tokens.into_iter().flatten().filter_map(token).collect())
    }

    fn unsupported(&self, key: &str, found: &Value, right: &str) -> CheckpointError {
        component_config::unsupported(&self.config_path(), key, &found.to_string(), right)
    }
}

/// Each is compared with each.
pub(super) fn check_count(path: &str, key: &str, count: usize) -> Result<(), CheckpointError> {
    if count <= MAX_ADDED_TOKENS {
        return Ok(());
    }
    let right = format!("at most {MAX_ADDED_TOKENS}");
    Err(component_config::unsupported(path, key, &format!("a list of {count}"), &right))
}

/// A token with how it is matched, as transformers writes it; `special` takes precedence over its own key.
pub(super) fn described(token: &Value, special: Option<bool>) -> Option<AddedToken> {
    let switch = |key: &str| token.get(key).and_then(Value::as_bool);
    let special = special.or_else(|| switch("special")).unwrap_or(false);
    // One that is special is not normalised, unless the file says so.
    let plain = AddedToken::from(token.get("content")?.as_str()?, special);
    let normalized = switch("normalized").unwrap_or(plain.normalized);
    Some(
        plain
            .normalized(normalized)
            .single_word(switch("single_word").unwrap_or(false))
            .lstrip(switch("lstrip").unwrap_or(false))
            .rstrip(switch("rstrip").unwrap_or(false)),
    )
}
