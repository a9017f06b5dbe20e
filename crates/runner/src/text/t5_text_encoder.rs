//! A T5 encoder with its tokenizer: from a text to one vector per token.

use candle_core::{DType, Device, Tensor};

use super::t5::{T5Config, T5Encoder};
use super::tokenizer::{TextTokenizer, Tokens};
use crate::error::RunnerError;
use crate::model_folder::ModelFolder;

/// `T5EncoderModel` and `T5Tokenizer` of a pipeline.
pub(crate) struct T5TextEncoder {
    encoder: T5Encoder,
    tokenizer: TextTokenizer,
    device: Device,
}

impl T5TextEncoder {
    /// Loads the components of these names.
    pub(crate) fn load(
        folder: &ModelFolder,
        encoder: &str,
        tokenizer: &str,
        dtype: DType,
        device: &Device,
    ) -> Result<Self, RunnerError> {
        let path = format!("{encoder}/config.json");
        let config = T5Config::from_json(&path, &folder.text(&path)?)?;
        let weights = folder.weights(encoder)?;
        let model = T5Encoder::new(&config, weights.var_builder(dtype, device))?;
        weights.finish(&T5Encoder::UNUSED_WEIGHTS)?;
        let tokenizer = TextTokenizer::t5(folder, tokenizer)?;
        Ok(Self { encoder: model, tokenizer, device: device.clone() })
    }

    /// Size of the vectors.
    pub(crate) fn dim(&self) -> usize {
        self.encoder.dim()
    }

    /// The tokens of a text.
    pub(crate) fn tokens(&self, text: &str, max_tokens: usize) -> Result<Tokens, RunnerError> {
        self.tokenizer.tokens(text, max_tokens)
    }

    /// `[1, tokens, dim]`, at most `max_tokens` with the one that ends the text; what is over that is cut.
    ///
    /// Padding is left to the caller: tokens never attend to it, so their states are those of a padded
    /// text under its mask.
    pub(crate) fn encode(&self, text: &str, max_tokens: usize) -> Result<Tensor, RunnerError> {
        let tokens = self.tokens(text, max_tokens)?;
        if tokens.cut > 0 {
            tracing::warn!(cut = tokens.cut, max_tokens, "a prompt is too long; its end has no effect");
        }
        let ids = Tensor::new(tokens.ids, &self.device)?.unsqueeze(0)?;
        Ok(self.encoder.forward(&ids)?)
    }
}
