//! Gemma's tokenizer: pairs of pieces of whole texts, in `tokenizer.json`; characters it does not know are bytes.
//!
//! Follows transformers 5.23.0, `GemmaTokenizer` (lines 27-108):
//! <https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/gemma/tokenization_gemma.py#L27>
//!
//! How a text is split is the same for every Gemma, and so is built here, as transformers does, whatever `tokenizer.json`
//! says. `padding_side` is not looked at: pipelines set it.

use afterimage_checkpoint::CheckpointError;
use afterimage_checkpoint::guard::without_panic;
use tokenizers::Tokenizer;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::Replace;
use tokenizers::normalizers::replace::ReplacePattern;

use super::added_tokens::AddedTokens;
use super::byte_pairs::BytePairs;
use super::ends;
use super::tokenizer::{self, TextTokenizer};
use super::tokenizer_files::TokenizerFiles;

/// transformers' names.
pub(super) const CLASSES: [&str; 2] = ["GemmaTokenizer", "GemmaTokenizerFast"];

/// Special tokens of a folder that does not name them.
const SPECIAL_TOKENS: [(&str, &str); 5] = [
    ("bos_token", "<bos>"),
    ("eos_token", "<eos>"),
    ("unk_token", "<unk>"),
    ("pad_token", "<pad>"),
    ("mask_token", "<mask>"),
];
/// Stands for a space.
const SPACE: &str = "\u{2581}";

/// The tokenizer in a folder.
pub(super) fn load(files: &TokenizerFiles<'_>) -> Result<TextTokenizer, CheckpointError> {
    let pairs = BytePairs::read(files)?;
    let defaults: Vec<_> = SPECIAL_TOKENS.into_iter().filter(|(name, _)| !files.is_null(name)).collect();
    let added = AddedTokens::read(files, &defaults)?;
    let file = pairs.file;
    let finished = || {
        pairs.check_count()?;
        let mut tokenizer = pieces(pairs, added.named("unk_token")).map_err(|error| error.to_string())?;
        added.add_to(&mut tokenizer)?;
        ends::add_to(&mut tokenizer, files, &added)?;
        tokenizer.set_encode_special_tokens(files.splits_special_tokens());
        TextTokenizer::new(tokenizer, added.named("pad_token"), files.place(file))
    };
    without_panic(finished).flatten().map_err(|reason| tokenizer::broken(files, file, reason))
}

fn pieces(pairs: BytePairs, unknown: &str) -> tokenizers::Result<Tokenizer> {
    let model = BPE::builder()
        .vocab_and_merges(pairs.vocabulary.into_iter().collect::<Vocab>(), pairs.merges)
        .fuse_unk(true)
        .byte_fallback(true)
        .unk_token(unknown.to_owned())
        .build()?;
    let mut tokenizer = Tokenizer::new(model);
    // transformers also splits at spaces, of which none is left.
    tokenizer.with_normalizer(Some(Replace::new(ReplacePattern::String(" ".to_owned()), SPACE)?))?;
    Ok(tokenizer)
}
