//! What a chat template makes of one message of a user, as a fixed text before and behind it.
//!
//! A repository's template is a program; of a single message it always makes the same. Marks that the message itself holds
//! become special tokens, as in the reference.

/// What stands before and behind a prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChatTemplate {
    /// The beginning of the user's turn, behind a system prompt where there is one.
    pub before: &'static str,
    /// With the beginning of the model's turn.
    pub behind: &'static str,
}

impl ChatTemplate {
    /// Qwen3's with `enable_thinking`.
    pub const QWEN3: Self = Self { before: "<|im_start|>user\n", behind: "<|im_end|>\n<|im_start|>assistant\n" };
    /// Qwen3's without: the model's turn begins with an empty thought.
    pub const QWEN3_WITHOUT_THINKING: Self =
        Self { before: "<|im_start|>user\n", behind: "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n" };
    /// Qwen-Image's: Qwen2.5-VL is told to describe the picture.
    pub const QWEN_IMAGE: Self = Self {
        before: "<|im_start|>system\nDescribe the image by detailing the color, shape, size, texture, quantity, text, spatial \
                 relationships of the objects and background:<|im_end|>\n<|im_start|>user\n",
        behind: Self::QWEN3.behind,
    };

    /// FLUX.2-dev's: Mistral's with a system prompt. The line break stands where its makers have it.
    pub const FLUX2_DEV: Self = Self {
        before: "<s>[SYSTEM_PROMPT]You are an AI that reasons about image descriptions. You give structured responses \
                 focusing on object relationships, object\nattribution and actions without \
                 speculation.[/SYSTEM_PROMPT][INST]",
        behind: "[/INST]",
    };

    /// The whole text.
    pub fn apply(&self, prompt: &str) -> String {
        format!("{}{prompt}{}", self.before, self.behind)
    }
}
