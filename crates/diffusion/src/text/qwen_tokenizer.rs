//! Qwen's tokenizer: byte pairs of words, in `tokenizer.json` or else in `vocab.json` and `merges.txt`.
//!
//! Follows transformers 5.23.0, `Qwen2Tokenizer` (lines 34-96):
//! <https://github.com/huggingface/transformers/blob/v5.23.0/src/transformers/models/qwen2/tokenization_qwen2.py#L34>
//!
//! How a text is split is the same for every Qwen, and so is built here, as transformers does, whatever `tokenizer.json`
//! says.

use afterimage_checkpoint::CheckpointError;
use afterimage_checkpoint::guard::without_panic;
use tokenizers::Tokenizer;
use tokenizers::models::bpe::{BPE, Vocab};
use tokenizers::normalizers::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::normalizer::SplitDelimiterBehavior;

use super::added_tokens::AddedTokens;
use super::byte_pairs::BytePairs;
use super::ends;
use super::tokenizer::{self, TextTokenizer};
use super::tokenizer_files::TokenizerFiles;

/// transformers' names.
pub(super) const CLASSES: [&str; 2] = ["Qwen2Tokenizer", "Qwen2TokenizerFast"];

const END: &str = "<|endoftext|>";
/// Special tokens of a folder that does not name them.
const SPECIAL_TOKENS: [(&str, &str); 3] = [("eos_token", END), ("unk_token", END), ("pad_token", END)];
/// What becomes a word.
const WORDS: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The tokenizer in a folder.
pub(super) fn load(files: &TokenizerFiles<'_>) -> Result<TextTokenizer, CheckpointError> {
    files.check_padding_side()?;
    let pairs = BytePairs::read(files)?;
    let defaults: Vec<_> = SPECIAL_TOKENS.into_iter().filter(|(name, _)| !files.is_null(name)).collect();
    let added = AddedTokens::read(files, &defaults)?;
    let file = pairs.file;
    let finished = || {
        pairs.check_count()?;
        let mut tokenizer = words(pairs, files.is_on("add_prefix_space")).map_err(|error| error.to_string())?;
        added.add_to(&mut tokenizer)?;
        ends::add_to(&mut tokenizer, files, &added)?;
        tokenizer.set_encode_special_tokens(files.splits_special_tokens());
        TextTokenizer::new(tokenizer, added.named("pad_token"), files.place(file))
    };
    without_panic(finished).flatten().map_err(|reason| tokenizer::broken(files, file, reason))
}

fn words(pairs: BytePairs, add_prefix_space: bool) -> tokenizers::Result<Tokenizer> {
    let vocabulary = pairs.vocabulary.into_iter().collect::<Vocab>();
    let mut tokenizer = Tokenizer::new(BPE::builder().vocab_and_merges(vocabulary, pairs.merges).build()?);
    tokenizer.with_normalizer(Some(NFC))?;
    let words = Split::new(SplitPattern::Regex(WORDS.to_owned()), SplitDelimiterBehavior::Isolated, false)?;
    let bytes = ByteLevel::new(add_prefix_space, true, false);
    tokenizer.with_pre_tokenizer(Some(Sequence::new(vec![words.into(), bytes.into()])));
    Ok(tokenizer)
}
