//! Tokenizers for fuzzing: from the bytes of one file to the tokens of a few texts.

use afterimage_checkpoint::{ModelFolder, component_config};
use serde_json::{Map, Value};

use super::tokenizer::TextTokenizer;
use super::tokenizer_files::TokenizerFiles;
use super::{bert_tokenizer, clip_tokenizer, gemma_tokenizer, qwen_tokenizer, t5_tokenizer};

/// Tokens of a text that is cut.
const MAX_TOKENS: usize = 77;

/// `tokenizer.json`, of any kind.
pub(crate) fn tokenizer(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(json) = component_config::object("tokenizer.json", text) else { return };
    let folder = ModelFolder::embedded();
    let files = files(&folder, Some(json));
    for load in
        [bert_tokenizer::load, clip_tokenizer::load, t5_tokenizer::load, qwen_tokenizer::load, gemma_tokenizer::load]
    {
        load(&files).as_ref().ok().into_iter().for_each(tokenise);
    }
}

/// `spiece.model`
pub(crate) fn sentence_piece(bytes: &[u8]) {
    t5_tokenizer::load_pieces(&files(&ModelFolder::embedded(), None), bytes)
        .as_ref()
        .ok()
        .into_iter()
        .for_each(tokenise);
}

/// All but the vocabulary is as in a folder without it.
fn files(folder: &ModelFolder, tokenizer: Option<Map<String, Value>>) -> TokenizerFiles<'_> {
    TokenizerFiles {
        folder,
        component: "tokenizer",
        config: Map::new(),
        special_tokens: Map::new(),
        added_tokens: Map::new(),
        tokenizer,
    }
}

fn tokenise(tokenizer: &TextTokenizer) {
    for text in
        ["", "a photo of <cat>, a\u{301}\u{fdfa} </s>\n<|endoftext|> <extra_id_1>!", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]
    {
        if let Ok(tokens) = tokenizer.tokens(text, MAX_TOKENS) {
            assert!(tokens.ids.len() <= MAX_TOKENS, "{} tokens", tokens.ids.len());
        }
        let _ = tokenizer.with_all_vectors(text);
    }
    let _ = tokenizer.check_embeddings("config.json", 1000);
}
