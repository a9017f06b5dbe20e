//! What the text encoders of a pipeline are loaded from, where they live and for how long.

use std::sync::Arc;

use afterimage_checkpoint::{Fact, ModelFolder, ModelIndex, OwnClass, Parameters, Weights};
use candle_core::{DType, Device, Tensor};

use super::residency::{Residency, Resident};
use super::tokenizer_files::TokenizerFiles;
use crate::DiffusionError;

/// Where a text encoder comes from and where it computes.
#[derive(Clone)]
pub struct EncoderSource {
    /// The model they belong to.
    pub folder: ModelFolder,
    /// Says of which class every component is.
    pub index: Arc<ModelIndex>,
    /// Where encoders live, and their precision.
    pub device: Device,
    /// Precision of their weights and activations.
    pub dtype: DType,
    /// Where the transformer wants states, and their precision.
    pub states_device: Device,
    /// Precision of the transformer, which takes their states.
    pub states_dtype: DType,
    /// `None`: encoders are there always.
    pub offloaded_by: Option<Arc<Residency>>,
}

/// How a component's tensors become a model.
pub(super) struct Recipe<B> {
    pub(super) component: String,
    pub(super) build: B,
    /// Prefixes of tensors that the model has no use for.
    pub(super) unused: Vec<String>,
    /// What its configuration says that a weight file may say, too.
    pub(super) facts: Vec<Fact>,
}

impl<B> Recipe<B> {
    fn unused(&self) -> Vec<&str> {
        self.unused.iter().map(String::as_str).collect()
    }
}

impl EncoderSource {
    /// The files of a tokenizer of one of these classes.
    pub(super) fn tokenizer<'a>(
        &'a self,
        component: &'a str,
        classes: &[&'static str],
    ) -> Result<TokenizerFiles<'a>, DiffusionError> {
        let files = TokenizerFiles::open(&self.folder, component)?;
        let own = OwnClass { path: &files.config_path(), key: "tokenizer_class", class: files.class() };
        self.index.class_of(component, classes, &own)?;
        Ok(files)
    }

    /// Loads a model, or, where it is offloaded, makes sure that it can be loaded.
    ///
    /// # Errors
    /// If a tensor is missing, is not of the shape that the configuration describes, or is left over.
    pub(super) fn resident<M, B>(&self, recipe: Recipe<B>) -> Result<Resident<M>, DiffusionError>
    where
        M: Send + Sync + 'static,
        B: Fn(&Parameters) -> candle_core::Result<M> + Send + Sync + 'static,
    {
        let Some(residency) = &self.offloaded_by else { return self.load(&recipe).map(Resident::Always) };
        let weights = self.weights(&recipe)?;
        (recipe.build)(&weights.unread_parameters(self.dtype, &self.device))?;
        weights.finish(&recipe.unused())?;
        let source = self.clone();
        Ok(residency.on_demand(move || source.load(&recipe)))
    }

    fn load<M, B>(&self, recipe: &Recipe<B>) -> Result<M, DiffusionError>
    where
        B: Fn(&Parameters) -> candle_core::Result<M>,
    {
        let started = std::time::Instant::now();
        let weights = self.weights(recipe)?;
        let model = (recipe.build)(&weights.parameters(self.dtype, &self.device))?;
        weights.finish(&recipe.unused())?;
        let seconds = started.elapsed().as_secs_f64();
        tracing::debug!(component = recipe.component, bytes = weights.bytes(), seconds, "text encoder loaded");
        Ok(model)
    }

    fn weights<B>(&self, recipe: &Recipe<B>) -> Result<Arc<Weights>, DiffusionError> {
        let weights = self.folder.weights(&recipe.component)?;
        weights.check_facts(&format!("{}/config.json", recipe.component), &recipe.facts)?;
        Ok(weights)
    }

    /// Takes what an encoder made to the transformer.
    pub(super) fn hand_over(&self, states: &Tensor) -> candle_core::Result<Tensor> {
        states.to_device(&self.states_device)?.to_dtype(self.states_dtype)
    }
}
