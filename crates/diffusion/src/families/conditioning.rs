//! What one row is conditioned on beside its latents and timestep.

use candle_core::Tensor;

use crate::text::PromptCut;

/// Conditioning of one row.
#[derive(Debug, Clone)]
pub enum Conditioning {
    /// Index into a class-conditional model's table.
    Class(u32),
    /// What the text encoders made of a prompt.
    Text(EncodedText),
}

/// A prompt after its text encoders. All prompts of a model have the same number of tokens.
#[derive(Debug, Clone)]
pub struct EncodedText {
    /// `[1, tokens, dim]`
    pub states: Tensor,
    /// `[1, tokens]`, f32: what is added to attention scores of a token; 0 for words, very negative for
    /// padding. `None`: all tokens are attended to.
    pub bias: Option<Tensor>,
    /// `[1, dim]`: the whole prompt in one vector, for models that take it.
    pub pooled: Option<Tensor>,
    /// What of the prompt had no room, by encoder.
    pub cuts: Vec<PromptCut>,
}

impl Conditioning {
    /// What of the prompt had no effect.
    pub fn cuts(&self) -> &[PromptCut] {
        match self {
            Self::Class(_) => &[],
            Self::Text(text) => &text.cuts,
        }
    }
}

impl Conditioning {
    /// Memory it holds.
    pub fn bytes(&self) -> usize {
        let tensor = |tensor: &Tensor| tensor.elem_count() * tensor.dtype().size_in_bytes();
        match self {
            Self::Class(_) => size_of::<u32>(),
            Self::Text(EncodedText { states, bias, pooled, cuts }) => {
                let optional = [bias, pooled].into_iter().flatten();
                tensor(states) + optional.map(tensor).sum::<usize>() + cuts.len() * size_of::<PromptCut>()
            }
        }
    }
}
