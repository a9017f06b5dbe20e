//! The tokens that begin and end a text.
//!
//! Follows transformers 5.23.0, `TokenizersBackend.__init__` (lines 446-452) and `update_post_processor` (628-652):
//! <https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/tokenization_utils_tokenizers.py#L628>
//!
//! `tokenizer.json` says which there are, unless `tokenizer_config.json` has an opinion.

use serde_json::Value;
use tokenizers::Tokenizer;
use tokenizers::processors::PostProcessorWrapper;
use tokenizers::processors::template::TemplateProcessing;

use super::added_tokens::AddedTokens;
use super::tokenizer_files::TokenizerFiles;

const ADD_BEGINNING: &str = "add_bos_token";
const ADD_END: &str = "add_eos_token";
/// Where `tokenizer.json` has them.
const POST_PROCESSOR: &str = "post_processor";

/// Gives a tokenizer with all of its added tokens those that begin and end a text.
///
/// # Errors
/// What the tokenizers library says.
pub(super) fn add_to(tokenizer: &mut Tokenizer, files: &TokenizerFiles<'_>, added: &AddedTokens) -> Result<(), String> {
    let is_configured = [ADD_BEGINNING, ADD_END].iter().any(|key| files.config.contains_key(*key));
    let stored = files.tokenizer.as_ref().and_then(|json| json.get(POST_PROCESSOR)).filter(|value| !value.is_null());
    match stored {
        Some(stored) if !is_configured => add_stored(tokenizer, stored),
        _ => add_configured(tokenizer, files, added),
    }
}

fn add_stored(tokenizer: &mut Tokenizer, stored: &Value) -> Result<(), String> {
    let stored: PostProcessorWrapper =
        serde_json::from_value(stored.clone()).map_err(|error| format!("`{POST_PROCESSOR}`: {error}"))?;
    tokenizer.with_post_processor(Some(stored));
    Ok(())
}

fn add_configured(tokenizer: &mut Tokenizer, files: &TokenizerFiles<'_>, added: &AddedTokens) -> Result<(), String> {
    let token = |switch: &str, name: &str| {
        let token = Some(added.named(name)).filter(|token| files.is_on(switch) && !token.is_empty())?;
        Some((token.to_owned(), tokenizer.token_to_id(token)?))
    };
    let (beginning, end) = (token(ADD_BEGINNING, "bos_token"), token(ADD_END, "eos_token"));
    let text = |token: &Option<(String, u32)>| token.iter().map(|(text, _)| text.clone()).collect::<Vec<_>>();
    let single = [text(&beginning), vec!["$A".to_owned()], text(&end)].concat();
    let template = TemplateProcessing::builder()
        .try_single(single)
        .map_err(|error| error.to_string())?
        .special_tokens(beginning.into_iter().chain(end).collect::<Vec<_>>())
        .build();
    tokenizer.with_post_processor(Some(template.map_err(|error| error.to_string())?));
    Ok(())
}
