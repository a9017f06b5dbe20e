//! A BERT with its tokenizer: from a text to one vector per token.
//!
//! Follows diffusers 0.42.1:
//!
//! * pipeline_hunyuandit.py: `HunyuanDiTPipeline.encode_prompt` (lines 252-418):
//!   <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/pipelines/hunyuandit>

use afterimage_checkpoint::{OwnClass, Parameters, component_config};
use candle_core::Tensor;

use super::bert::{self, BertConfig, BertModel};
use super::bert_tokenizer;
use super::encoder_source::{EncoderSource, Recipe};
use super::prompt_limit::{PromptCut, PromptLimit};
use super::residency::Resident;
use super::tokenizer::TextTokenizer;
use crate::DiffusionError;

/// `BertModel` and `BertTokenizer` of a pipeline.
pub struct BertTextEncoder {
    model: Resident<BertModel>,
    tokenizer: TextTokenizer,
    source: EncoderSource,
    limit: PromptLimit,
    dim: usize,
}

/// What BERT makes of a text.
pub struct BertStates {
    /// `[1, tokens, dim]`: of the text's own tokens.
    pub states: Tensor,
    /// What did not fit.
    pub cut: Option<PromptCut>,
}

impl BertTextEncoder {
    /// Loads the components of these names for texts of at most `max_tokens`.
    pub fn load(
        source: &EncoderSource,
        encoder: &str,
        tokenizer: &str,
        max_tokens: usize,
    ) -> Result<Self, DiffusionError> {
        let path = format!("{encoder}/config.json");
        let config = BertConfig::from_json(&path, &component_config::text(&source.folder, encoder)?)?;
        let own = OwnClass { path: &path, key: "architectures", class: config.architecture() };
        source.index.class_of(encoder, &[bert::CLASS], &own)?;
        config.check_positions(&path, max_tokens)?;
        let tokenizer = bert_tokenizer::load(&source.tokenizer(tokenizer, &bert_tokenizer::CLASSES)?)?;
        tokenizer.check_embeddings(&path, config.vocab_size())?;
        Ok(Self {
            tokenizer,
            limit: PromptLimit { encoder: "BERT", component: encoder.to_owned(), max_tokens },
            dim: config.dim(),
            model: source.resident(Recipe {
                facts: Vec::new(),
                component: encoder.to_owned(),
                build: move |parameters: &Parameters| BertModel::new(&config, parameters),
                unused: BertModel::UNUSED_WEIGHTS.iter().map(|name| (*name).to_owned()).collect(),
            })?,
            source: source.clone(),
        })
    }

    /// Size of the vectors.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Longer texts are cut.
    pub fn limit(&self) -> &PromptLimit {
        &self.limit
    }

    #[cfg(test)]
    pub(crate) fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// The states of a text, without padding: tokens do not attend to it.
    pub fn encode(&self, text: &str) -> Result<BertStates, DiffusionError> {
        let tokens = self.tokenizer.tokens(text, self.limit.max_tokens)?;
        let states = self.model.with(|model| Ok(model.forward(&tokens.ids)?))?;
        Ok(BertStates { states: self.source.hand_over(&states)?, cut: self.limit.cut(tokens.cut) })
    }
}
