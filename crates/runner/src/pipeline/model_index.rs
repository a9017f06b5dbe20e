//! `model_index.json`: which pipeline a model folder holds, and of which classes its components are.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::component_config;
use crate::error::RunnerError;
use crate::model_folder::{MODEL_INDEX, ModelFolder};
use crate::pixart::Variant;

/// Where the pipeline's class stands.
const CLASS: &str = "_class_name";
/// Where the labels of a class-conditional model stand.
const LABELS: &str = "id2label";

/// `model_index.json`, as far as it is needed.
#[derive(Debug)]
pub(crate) struct ModelIndex {
    /// The file, for errors.
    path: String,
    class_name: String,
    /// Class labels of a class-conditional model.
    pub(crate) id2label: BTreeMap<u32, String>,
    /// Library and class of every component, and what else there is.
    entries: Map<String, Value>,
}

/// The class that a component's own configuration names.
pub(crate) struct OwnClass<'a> {
    /// The configuration's path inside the model folder.
    pub(crate) path: &'a str,
    /// Where it says so.
    pub(crate) key: &'a str,
    pub(crate) class: Option<&'a str>,
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

    /// The pipeline shifts latents before they are decoded.
    pub(crate) fn adds_shift(self) -> bool {
        matches!(self, Self::Sd3 | Self::Flux)
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
        Self::parse(format!("{}: {MODEL_INDEX}", folder.id()), &folder.text(MODEL_INDEX)?)
    }

    fn parse(path: String, text: &str) -> Result<Self, RunnerError> {
        let mut entries = component_config::object(&path, text)?;
        let class_name = match entries.remove(CLASS) {
            Some(class) => component_config::deserialize(&format!("{path}: `{CLASS}`"), class)?,
            None => return Err(RunnerError::Model(format!("{path}: there is no `{CLASS}`"))),
        };
        let id2label = match entries.remove(LABELS) {
            None | Some(Value::Null) => BTreeMap::new(),
            Some(labels) => component_config::deserialize(&format!("{path}: `{LABELS}`"), labels)?,
        };
        Ok(Self { path, class_name, id2label, entries })
    }

    /// The pipeline, if this crate can run it.
    pub(crate) fn pipeline(&self) -> Result<PipelineClass, RunnerError> {
        let Some(class) = PipelineClass::ALL.into_iter().find(|class| class.as_str() == self.class_name) else {
            return Err(self.unsupported(CLASS, &self.class_name, &PipelineClass::ALL.map(PipelineClass::as_str)));
        };
        match self.component("transformer") {
            Some(transformer) if class.transformers().contains(&transformer) => Ok(class),
            other => Err(self.unsupported("transformer", other.unwrap_or("absent"), class.transformers())),
        }
    }

    /// Class of a component; `None` where the model has none.
    pub(crate) fn component(&self, name: &str) -> Option<&str> {
        self.entries.get(name)?.get(1)?.as_str()
    }

    /// The class of a component, one of `supported`. The index decides; where it does not speak of the
    /// component, the component's own configuration does. `None` where neither says.
    ///
    /// # Errors
    /// Another class is named, or the index says that there is no such component.
    pub(crate) fn class_of(
        &self,
        component: &str,
        supported: &[&'static str],
        own: &OwnClass<'_>,
    ) -> Result<Option<&'static str>, RunnerError> {
        let named = |class: &str| supported.iter().find(|supported| **supported == class).copied();
        if let Some(entry) = self.entries.get(component) {
            let class = entry.get(1).and_then(Value::as_str);
            let found = class.map_or_else(|| entry.to_string(), str::to_owned);
            let class = class.and_then(named);
            return class.map(Some).ok_or_else(|| self.unsupported(component, &found, supported));
        }
        let Some(class) = own.class else { return Ok(None) };
        match named(class) {
            Some(class) => Ok(Some(class)),
            None => Err(component_config::unsupported(own.path, own.key, class, &supported.join(" or "))),
        }
    }

    fn unsupported(&self, key: &str, found: &str, supported: &[&str]) -> RunnerError {
        component_config::unsupported(&self.path, key, found, &supported.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(text: &str) -> Result<ModelIndex, RunnerError> {
        ModelIndex::parse("tiny: model_index.json".to_owned(), text)
    }

    #[test]
    fn a_pipeline_or_a_transformer_that_is_not_supported_is_named() {
        for (text, message) in [
            ("{}", "tiny: model_index.json: there is no `_class_name`"),
            (
                r#"{"_class_name": null}"#,
                "tiny: model_index.json: `_class_name`: invalid type: null, expected a string",
            ),
            (
                r#"{"_class_name": "SanaPipeline"}"#,
                "tiny: model_index.json: `_class_name` is SanaPipeline; supported: DiT",
            ),
            (r#"{"_class_name": "FluxPipeline"}"#, "`transformer` is absent; supported: FluxTransformer2DModel"),
            (
                r#"{"_class_name": "FluxPipeline", "transformer": ["diffusers", "SD3Transformer2DModel"]}"#,
                "`transformer` is SD3Transformer2DModel; supported: FluxTransformer2DModel",
            ),
            (r#"{"_class_name": "DiTPipeline", "id2label": {"a": "b"}}"#, "`id2label`: "),
            (r#"{"_class_name": "DiTPipeline", "id2label": {"3": null}}"#, "`3` is null; supported: text in quotes"),
        ] {
            let error = index(text).and_then(|index| index.pipeline()).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn a_byte_order_mark_and_null_labels_are_nothing() {
        let index = index("\u{feff}{\"_class_name\": \"DiTPipeline\", \"id2label\": null}").unwrap();
        assert!(index.id2label.is_empty());
    }

    #[test]
    fn the_index_decides_and_configurations_speak_where_it_is_silent() {
        let index =
            index(r#"{"_class_name": "X", "vae": ["diffusers", "AutoencoderKL"], "text": [null, null]}"#).unwrap();
        let own = |class| OwnClass { path: "vae/config.json", key: "_class_name", class };
        let class = |component, class| index.class_of(component, &["AutoencoderKL"], &own(class));
        assert_eq!(class("vae", Some("AutoencoderTiny")).unwrap(), Some("AutoencoderKL"));
        assert_eq!(class("other", Some("AutoencoderKL")).unwrap(), Some("AutoencoderKL"));
        assert_eq!(class("other", None).unwrap(), None);
        let error = class("other", Some("AutoencoderTiny")).unwrap_err().to_string();
        assert_eq!(error, "vae/config.json: `_class_name` is AutoencoderTiny; supported: AutoencoderKL");
        let error = class("text", Some("AutoencoderKL")).unwrap_err().to_string();
        assert_eq!(error, "tiny: model_index.json: `text` is [null,null]; supported: AutoencoderKL");
    }
}
