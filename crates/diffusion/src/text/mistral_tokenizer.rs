//! Mistral's tokenizer since Nemo: byte pairs of words, in `tokenizer.json`, which is read as it stands.
//!
//! Follows transformers 5.23.0, `TokenizersBackend`, which `AutoTokenizer` makes for a `PixtralProcessor`:
//! <https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/tokenization_utils_tokenizers.py>
//!
//! Departs from it: the processor leaves out special tokens around a text that begins with the first of them, as those in
//! its chat template do; they are always left out here.

use std::str::FromStr;

use afterimage_checkpoint::CheckpointError;
use afterimage_checkpoint::guard::without_panic;
use tokenizers::{PostProcessorWrapper, Tokenizer};

use super::added_tokens::AddedTokens;
use super::byte_pairs::BytePairs;
use super::tokenizer::{self, TextTokenizer};
use super::tokenizer_files::{TOKENIZER_JSON, TokenizerFiles};

/// transformers' names, of the processor and of tokenizers.
pub(super) const CLASSES: [&str; 5] =
    ["PixtralProcessor", "PreTrainedTokenizerFast", "TokenizersBackend", "LlamaTokenizer", "LlamaTokenizerFast"];

/// The tokenizer in a folder.
pub(super) fn load(files: &TokenizerFiles<'_>) -> Result<TextTokenizer, CheckpointError> {
    // What others are built from is looked at all the same.
    let pairs = BytePairs::read(files)?;
    let added = AddedTokens::read(files, &[])?;
    let pads_first = files.pads_first()?;
    let text = files.folder.text(&files.path(TOKENIZER_JSON))?;
    let finished = || {
        pairs.check_count()?;
        let mut tokenizer = Tokenizer::from_str(&text).map_err(|error| error.to_string())?;
        added.add_to(&mut tokenizer)?;
        tokenizer.with_post_processor(None::<PostProcessorWrapper>);
        tokenizer.set_encode_special_tokens(files.splits_special_tokens());
        let tokenizer = TextTokenizer::new(tokenizer, added.named("pad_token"), files.place(TOKENIZER_JSON))?;
        Ok(tokenizer.padding_first(pads_first))
    };
    without_panic(finished).flatten().map_err(|reason: String| tokenizer::broken(files, TOKENIZER_JSON, reason))
}
