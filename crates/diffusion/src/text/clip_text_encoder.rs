//! A CLIP text model with its tokenizer: from a text to one vector per token and one for the whole.
//!
//! Follows diffusers 0.42.1:
//!
//! * pipeline_stable_diffusion_3.py: `StableDiffusion3Pipeline._get_clip_prompt_embeds` (lines 289-342):
//!   <https://github.com/huggingface/diffusers/tree/v0.42.1/src/diffusers/pipelines/stable_diffusion_3>
//! * `FluxPipeline._get_clip_prompt_embeds` (lines 267-310):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/pipelines/flux/pipeline_flux.py#L267>

use afterimage_checkpoint::{CheckpointError, OwnClass, Parameters, component_config};
use candle_core::Tensor;

use super::clip::{ClipClass, ClipOutput, ClipTextConfig, ClipTextModel, PROJECTION};
use super::clip_tokenizer;
use super::encoder_source::{EncoderSource, Recipe};
use super::prompt_limit::{PromptCut, PromptLimit};
use super::residency::Resident;
use super::tokenizer::TextTokenizer;
use crate::DiffusionError;

/// `CLIPTextModel` or `CLIPTextModelWithProjection` and `CLIPTokenizer` of a pipeline.
pub struct ClipTextEncoder {
    model: Resident<ClipTextModel>,
    tokenizer: TextTokenizer,
    source: EncoderSource,
    limit: PromptLimit,
    dim: usize,
    pooled_dim: usize,
}

/// What CLIP makes of a text.
pub struct ClipStates {
    /// `[1, max_tokens, dim]`: states after the last layer but one, without the final norm, padding included.
    pub penultimate: Tensor,
    /// `[1, pooled_dim]`: the last layer's state at the first end token after the final norm, projected where
    /// the model's class says so.
    pub pooled: Tensor,
    /// What did not fit.
    pub cut: Option<PromptCut>,
}

impl ClipTextEncoder {
    /// Loads the components of these names; `class` is what the pipeline needs.
    pub fn load(
        source: &EncoderSource,
        encoder: &str,
        tokenizer: &str,
        class: ClipClass,
    ) -> Result<Self, DiffusionError> {
        let path = format!("{encoder}/config.json");
        let config = ClipTextConfig::from_json(&path, &component_config::text(&source.folder, encoder)?)?;
        let own = OwnClass { path: &path, key: "architectures", class: config.architecture() };
        source.index.class_of(encoder, &[class.as_str()], &own)?;
        let files = source.tokenizer(tokenizer, &clip_tokenizer::CLASSES)?;
        let tokenizer = clip_tokenizer::load(&files)?;
        config.check_end(&path, &tokenizer.tokens("", config.max_tokens())?.ids)?;
        tokenizer.check_embeddings(&path, config.vocab_size())?;
        let max_tokens = files.max_tokens()?.unwrap_or(usize::MAX).min(config.max_tokens());
        check_projection(source, encoder, class)?;
        let projection_dim = config.projection_dim(&path, class)?;
        Ok(Self {
            tokenizer,
            limit: PromptLimit { encoder: "CLIP", component: encoder.to_owned(), max_tokens },
            dim: config.dim(),
            pooled_dim: projection_dim.unwrap_or(config.dim()),
            model: source.resident(Recipe {
                facts: Vec::new(),
                component: encoder.to_owned(),
                build: move |parameters: &Parameters| ClipTextModel::new(&config, projection_dim, parameters),
                unused: ClipTextModel::UNUSED_WEIGHTS.iter().map(|name| (*name).to_owned()).collect(),
            })?,
            source: source.clone(),
        })
    }

    /// Size of a token's state.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Size of the pooled output.
    pub fn pooled_dim(&self) -> usize {
        self.pooled_dim
    }

    /// Tokens of every text: shorter ones are padded, longer ones cut.
    pub fn limit(&self) -> &PromptLimit {
        &self.limit
    }

    #[cfg(test)]
    pub(super) fn tokenizer(&self) -> &TextTokenizer {
        &self.tokenizer
    }

    /// As [`TextTokenizer::with_all_vectors`].
    ///
    /// # Errors
    /// If the text cannot be tokenised.
    pub fn with_all_vectors(&self, text: &str) -> Result<String, DiffusionError> {
        self.tokenizer.with_all_vectors(text)
    }

    /// The states of a text.
    pub fn encode(&self, text: &str) -> Result<ClipStates, DiffusionError> {
        let tokens = self.tokenizer.padded_tokens(text, self.limit.max_tokens)?;
        let ClipOutput { penultimate, pooled } = self.model.with(|model| Ok(model.forward(&tokens.ids)?))?;
        let (penultimate, pooled) = (self.source.hand_over(&penultimate)?, self.source.hand_over(&pooled)?);
        Ok(ClipStates { penultimate, pooled, cut: self.limit.cut(tokens.cut) })
    }
}

/// A projection that the class needs has to be there; one that it does not use is warned about.
fn check_projection(source: &EncoderSource, encoder: &str, class: ClipClass) -> Result<(), DiffusionError> {
    let weights = source.folder.weights(encoder)?;
    // Whatever prefix all names may have.
    let has_projection = weights.names().any(|name| name.ends_with(&format!("{PROJECTION}.weight")));
    match class {
        ClipClass::WithProjection if !has_projection => Err(CheckpointError::weights(
            encoder,
            format!(
                "the weights have no {PROJECTION}, which {}, the class of this pipeline's {encoder}, needs",
                class.as_str()
            ),
        )
        .into()),
        ClipClass::Plain if has_projection => {
            tracing::warn!("{encoder}: the weights have a {PROJECTION}, which {} does not use", class.as_str());
            Ok(())
        }
        _ => Ok(()),
    }
}
