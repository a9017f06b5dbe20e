//! Special and added tokens of a tokenizer, as transformers 5 finds them.
//!
//! Follows transformers 5.23.0:
//!
//! * `PreTrainedTokenizerBase._from_pretrained` (lines 1780-1980):
//!   <https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/tokenization_utils_base.py#L1780>
//! * `TokenizersBackend.__init__` (lines 368-527):
//!   <https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/tokenization_utils_tokenizers.py#L368>
//!
//! They are searched in a text before the vocabulary is: trained words of textual inversion, sentinels,
//! the token that ends a text. `added_tokens_decoder` in `tokenizer_config.json` lists them all with how
//! they are matched; without it, `special_tokens_map.json`, `added_tokens.json` and `tokenizer.json` do
//! together. After these come special tokens that no list has. A token that the vocabulary lacks gets
//! the next number, whatever its list says.

use std::collections::BTreeMap;

use afterimage_checkpoint::{CheckpointError, component_config};
use serde_json::{Map, Value};
use tokenizers::{AddedToken, Tokenizer};

use super::tokenizer_files::{TokenizerFiles, check_count, described};

/// The special tokens that every tokenizer may have, in transformers' order.
const NAMES: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
const EXTRA: &str = "extra_special_tokens";
/// The older name.
const ADDITIONAL: &str = "additional_special_tokens";

/// A token as a file gives it.
#[derive(Debug, Clone, PartialEq)]
enum Given {
    /// How it is matched follows from its being special.
    Content(String),
    Described(AddedToken),
}

impl Given {
    fn from_json(value: &Value) -> Option<Self> {
        match value {
            Value::String(content) => Some(Self::Content(content.clone())),
            token => described(token, None).map(Self::Described),
        }
    }

    fn content(&self) -> &str {
        match self {
            Self::Content(content) => content,
            Self::Described(token) => &token.content,
        }
    }
}

/// The tokens of one tokenizer.
#[derive(Debug)]
pub(super) struct AddedTokens {
    component: String,
    /// By number.
    listed: BTreeMap<u32, AddedToken>,
    /// `eos_token` and the like.
    named: Vec<(String, Given)>,
    /// `extra_special_tokens`
    extra: Option<Vec<Given>>,
    /// `additional_special_tokens`, where there are no extra ones.
    additional: Option<Vec<Given>>,
}

impl AddedTokens {
    /// `defaults` are the special tokens of the tokenizer's class.
    ///
    /// # Errors
    /// A file holds something else than tokens.
    pub(super) fn read(files: &TokenizerFiles<'_>, defaults: &[(&str, &str)]) -> Result<Self, CheckpointError> {
        let mut keys = files.config.clone();
        for (file, tokens) in
            [(files.config_path(), &files.config), (files.special_tokens_path(), &files.special_tokens)]
        {
            check_count(&file, "the number of keys", tokens.len())?;
            for key in [EXTRA, ADDITIONAL] {
                let list = tokens.get(key);
                let extra = list.map_or(0, |list| list.as_array().map_or(0, Vec::len));
                check_count(&file, key, extra.max(list.and_then(Value::as_object).map_or(0, Map::len)))?;
            }
        }
        if keys.get(EXTRA).is_none_or(is_empty)
            && let Some(additional) = keys.remove(ADDITIONAL)
        {
            keys.insert(EXTRA.to_owned(), additional);
        }
        let mut specific = model_specific(&mut keys);
        let listed: BTreeMap<u32, AddedToken> = match files.added_tokens_decoder()? {
            Some(tokens) => tokens.into_iter().collect(),
            None => {
                keys.extend(files.special_tokens.iter().map(|(key, value)| (key.clone(), special(value))));
                specific.extend(model_specific(&mut keys));
                let specials: Vec<String> = special_contents(&keys);
                let older = files.older_added_tokens(&specials)?;
                older.into_iter().chain(files.tokens_of_tokenizer_json()?).collect()
            }
        };
        let tokens = |key: &str| -> Option<Vec<Given>> {
            keys.get(key)?.as_array().map(|tokens| tokens.iter().filter_map(Given::from_json).collect())
        };
        let (extra, additional) = (tokens(EXTRA), tokens(ADDITIONAL));
        let mut named = named(files, &keys, defaults)?;
        named.extend(specific);
        for (_, token) in &mut named {
            if let Some(listed) = listed.values().find(|listed| listed.content == token.content()) {
                *token = Given::Described(listed.clone());
            }
        }
        Ok(Self { component: files.component.to_owned(), listed, named, extra, additional })
    }

    /// The text of a special token, such as `eos_token`.
    pub(super) fn named(&self, name: &str) -> &str {
        self.named.iter().find(|(key, _)| key == name).map_or("", |(_, token)| token.content())
    }

    /// Whether a list has this token.
    pub(super) fn lists(&self, content: &str) -> bool {
        self.listed.values().any(|token| token.content == content)
    }

    /// Puts special tokens of the vocabulary's file into the place of `additional_special_tokens`.
    pub(super) fn replace_additional(&mut self, tokens: Vec<AddedToken>) {
        self.additional = Some(tokens.into_iter().map(Given::Described).collect());
    }

    /// Adds these to `additional_special_tokens` unless there are some of the kind that starts like `start`.
    pub(super) fn complete_additional(&mut self, start: &str, tokens: impl Iterator<Item = String>) {
        let additional = self.additional.get_or_insert_default();
        if !additional.iter().any(|token| token.content().contains(start)) {
            additional.extend(tokens.map(Given::Content));
        }
    }

    /// Gives a tokenizer all of them.
    ///
    /// # Errors
    /// What the tokenizers library says.
    pub(super) fn add_to(&self, tokenizer: &mut Tokenizer) -> Result<(), String> {
        tokenizer.add_tokens(self.in_order()).map_err(|error| error.to_string())?;
        for (id, token) in &self.listed {
            let found = tokenizer.token_to_id(&token.content);
            if found != Some(*id) {
                let (component, content) = (&self.component, &token.content);
                let found = found.map_or("none".to_owned(), |id| id.to_string());
                tracing::warn!(
                    "{component}: the number of the added token `{content}` is {found}, not {id} as its file \
                    says: numbers follow the vocabulary without a gap, as in transformers"
                );
            }
        }
        Ok(())
    }

    /// Listed ones by number, then special ones that no list has.
    fn in_order(&self) -> Vec<AddedToken> {
        let mut tokens: Vec<Given> = self.listed.values().cloned().map(Given::Described).collect();
        let extra = self.extra.as_ref().or(self.additional.as_ref()).into_iter().flatten();
        for token in self.named.iter().map(|(_, token)| token).chain(extra) {
            if !self.lists(token.content()) && !tokens.contains(token) {
                tokens.push(token.clone());
            }
        }
        let is_named = |content: &str| self.named.iter().any(|(_, token)| token.content() == content);
        let added = |token| match token {
            Given::Content(content) => AddedToken::from(content, true),
            Given::Described(token) if is_named(&token.content) => token.special(true),
            Given::Described(token) => token,
        };
        tokens.into_iter().map(added).collect()
    }
}

/// Takes out special tokens under names of a model's own.
fn model_specific(keys: &mut Map<String, Value>) -> Vec<(String, Given)> {
    let is_own = |key: &str| key.ends_with("_token") && !NAMES.contains(&key);
    let own: Vec<_> = keys.iter().filter(|(key, value)| is_own(key) && value.is_string()).collect();
    let own: Vec<_> = own.into_iter().map(|(key, value)| (key.clone(), value.clone())).collect();
    for (key, _) in &own {
        keys.remove(key);
    }
    let extra = match keys.get(EXTRA) {
        Some(Value::Object(extra)) => extra.clone(),
        _ => Map::new(),
    };
    if !extra.is_empty() {
        keys.remove(EXTRA);
    }
    let token = |(key, value): (String, Value)| Some((key, Given::from_json(&value)?));
    own.into_iter().chain(extra).filter_map(token).collect()
}

/// A token of `special_tokens_map.json` is special, also where it does not say so.
fn special(value: &Value) -> Value {
    match value {
        Value::Object(token) => {
            let mut token = token.clone();
            token.insert("special".to_owned(), Value::Bool(true));
            Value::Object(token)
        }
        Value::Array(tokens) => tokens.iter().map(special).collect(),
        other => other.clone(),
    }
}

/// The texts of all special tokens.
fn special_contents(keys: &Map<String, Value>) -> Vec<String> {
    let named = NAMES.iter().filter_map(|name| keys.get(*name));
    let extra = keys.get(EXTRA).and_then(Value::as_array).into_iter().flatten();
    named.chain(extra).filter_map(Given::from_json).map(|token| token.content().to_owned()).collect()
}

/// The special tokens that have a name, in transformers' order.
fn named(
    files: &TokenizerFiles<'_>,
    keys: &Map<String, Value>,
    defaults: &[(&str, &str)],
) -> Result<Vec<(String, Given)>, CheckpointError> {
    let mut named = Vec::new();
    for name in NAMES {
        let default = defaults.iter().find(|(key, _)| *key == name).map(|(_, token)| *token);
        let given = match (keys.get(name), default) {
            (None, Some(token)) => Some(Given::Content(token.to_owned())),
            (None | Some(Value::Null), None) => None,
            (Some(value), _) => Some(Given::from_json(value).ok_or_else(|| {
                component_config::unsupported(&files.config_path(), name, &value.to_string(), "a token")
            })?),
        };
        named.extend(given.map(|token| (name.to_owned(), token)));
    }
    Ok(named)
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Array(values) => values.is_empty(),
        Value::Object(keys) => keys.is_empty(),
        other => other.is_null(),
    }
}
