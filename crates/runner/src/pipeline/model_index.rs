//! `model_index.json`: which pipeline a model folder holds, and of which classes its components are.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::error::RunnerError;
use crate::lenient_json;
use crate::model_folder::ModelFolder;
use crate::pixart::Variant;

/// `model_index.json`, as far as it is needed.
#[derive(Debug, Deserialize)]
pub(crate) struct ModelIndex {
    #[serde(rename = "_class_name")]
    class_name: String,
    /// Class labels of a class-conditional model.
    #[serde(default)]
    pub(crate) id2label: BTreeMap<u32, String>,
    /// Library and class of every component, and what else there is.
    #[serde(flatten)]
    entries: BTreeMap<String, Value>,
}

/// A pipeline class this crate can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PipelineClass {
    Dit,
    PixArt(Variant),
    Sd3,
    Flux,
}

impl PipelineClass {
    const ALL: [Self; 5] =
        [Self::Dit, Self::PixArt(Variant::Alpha), Self::PixArt(Variant::Sigma), Self::Sd3, Self::Flux];

    /// diffusers' name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Dit => "DiTPipeline",
            Self::PixArt(Variant::Alpha) => "PixArtAlphaPipeline",
            Self::PixArt(Variant::Sigma) => "PixArtSigmaPipeline",
            Self::Sd3 => "StableDiffusion3Pipeline",
            Self::Flux => "FluxPipeline",
        }
    }

    /// Classes that the transformer may be registered as.
    fn transformers(self) -> &'static [&'static str] {
        match self {
            // Older repositories name the class that both were once variants of.
            Self::Dit => &["DiTTransformer2DModel", "Transformer2DModel"],
            Self::PixArt(_) => &["PixArtTransformer2DModel", "Transformer2DModel"],
            Self::Sd3 => &["SD3Transformer2DModel"],
            Self::Flux => &["FluxTransformer2DModel"],
        }
    }
}

impl ModelIndex {
    pub(crate) fn read(folder: &ModelFolder) -> Result<Self, RunnerError> {
        lenient_json::parse(&folder.text("model_index.json")?)
            .and_then(serde_json::from_value)
            .map_err(|error| fail(folder, &error.to_string()))
    }

    /// The pipeline, if this crate can run it.
    pub(crate) fn pipeline(&self, folder: &ModelFolder) -> Result<PipelineClass, RunnerError> {
        let Some(class) = PipelineClass::ALL.into_iter().find(|class| class.as_str() == self.class_name) else {
            let supported = PipelineClass::ALL.map(PipelineClass::as_str).join(", ");
            return Err(fail(folder, &format!("`_class_name` is {}; supported: {supported}", self.class_name)));
        };
        match self.component("transformer") {
            Some(transformer) if class.transformers().contains(&transformer) => Ok(class),
            other => {
                let (found, supported) = (other.unwrap_or("absent"), class.transformers().join(", "));
                Err(fail(folder, &format!("`transformer` is {found}; supported: {supported}")))
            }
        }
    }

    /// Class of a component; `None` where the model has none.
    pub(crate) fn component(&self, name: &str) -> Option<&str> {
        self.entries.get(name)?.get(1)?.as_str()
    }
}

fn fail(folder: &ModelFolder, problem: &str) -> RunnerError {
    RunnerError::Model(format!("{}: model_index.json: {problem}", folder.id()))
}
