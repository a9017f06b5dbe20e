//! How much of a prompt a text encoder reads, and what became of the rest.

use std::fmt;

/// A text encoder and the longest text it reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptLimit {
    /// `CLIP`, `T5` or the name of a decoder.
    pub encoder: &'static str,
    /// Its folder in the model.
    pub component: String,
    /// With those that begin and end a text.
    pub max_tokens: usize,
}

/// The end of a prompt that an encoder has no room for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptCut {
    limit: PromptLimit,
    tokens: usize,
}

impl PromptLimit {
    /// What of a text is lost, if so many tokens did not fit.
    pub(super) fn cut(&self, tokens: usize) -> Option<PromptCut> {
        (tokens > 0).then(|| PromptCut { limit: self.clone(), tokens })
    }
}

impl fmt::Display for PromptCut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limit: PromptLimit { encoder, component, max_tokens }, tokens } = self;
        write!(f, "the {encoder} text encoder ({component}) takes {max_tokens} tokens; {tokens} more had no effect")
    }
}
