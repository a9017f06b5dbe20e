//! `model_index.json`: which pipeline a model folder holds, and of which classes its components are.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::model_folder::{MODEL_INDEX, ModelFolder, TRANSFORMER};
use crate::{CheckpointError, component_config};

/// Where the pipeline's class stands.
const CLASS: &str = "_class_name";
/// Where the labels of a class-conditional model stand.
const LABELS: &str = "id2label";
/// The longest of ImageNet, with all its synonyms, has 121.
const MAX_LABEL_BYTES: usize = 1000;

/// `model_index.json`, as far as it is needed.
#[derive(Debug)]
pub struct ModelIndex {
    /// The file, for errors.
    path: String,
    class_name: String,
    /// Class labels of a class-conditional model.
    pub id2label: BTreeMap<u32, String>,
    /// Library and class of every component, and what else there is.
    entries: Map<String, Value>,
}

/// The class that a component's own configuration names.
pub struct OwnClass<'a> {
    /// The configuration's path inside the model folder.
    pub path: &'a str,
    /// Where it says so.
    pub key: &'a str,
    /// What it says.
    pub class: Option<&'a str>,
}

impl ModelIndex {
    /// That of a model folder.
    ///
    /// # Errors
    /// The file cannot be read, is not JSON or names no pipeline.
    pub fn read(folder: &ModelFolder) -> Result<Self, CheckpointError> {
        Self::parse(format!("{}: {MODEL_INDEX}", folder.id()), &folder.text(MODEL_INDEX)?)
    }

    /// That in a text; `path` stands for it in errors.
    ///
    /// # Errors
    /// The text is not JSON or names no pipeline.
    pub fn parse(path: String, text: &str) -> Result<Self, CheckpointError> {
        let mut entries = component_config::object(&path, text)?;
        let class_name = match entries.remove(CLASS) {
            Some(class) => component_config::deserialize(&format!("{path}: `{CLASS}`"), class)?,
            None => return Err(CheckpointError::config(path, format!("there is no `{CLASS}`"))),
        };
        let id2label = match entries.remove(LABELS) {
            None | Some(Value::Null) => BTreeMap::new(),
            Some(labels) => component_config::deserialize(&format!("{path}: `{LABELS}`"), labels)?,
        };
        check_labels(&path, &id2label)?;
        Ok(Self { path, class_name, id2label, entries })
    }

    /// The pipeline's class.
    pub fn class_name(&self) -> &str {
        &self.class_name
    }

    /// What no family here can be loaded from.
    ///
    /// # Errors
    /// Always: the pipeline's class is none of `supported`.
    pub fn refuse_pipeline(&self, supported: &[&str]) -> CheckpointError {
        self.unsupported(CLASS, &self.class_name, supported)
    }

    /// Checks the transformer's class.
    ///
    /// # Errors
    /// It is none of `supported`, or there is no transformer.
    pub fn check_transformer(&self, supported: &[&str]) -> Result<(), CheckpointError> {
        match self.component(TRANSFORMER) {
            Some(class) if supported.contains(&class) => Ok(()),
            other => Err(self.unsupported(TRANSFORMER, other.unwrap_or("absent"), supported)),
        }
    }

    /// Class of a component; `None` where the model has none.
    pub fn component(&self, name: &str) -> Option<&str> {
        self.entries.get(name)?.get(1)?.as_str()
    }

    /// What a key of the pipeline's own says.
    ///
    /// # Errors
    /// It is not of this type.
    pub fn key<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, CheckpointError> {
        match self.entries.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => component_config::deserialize(&format!("{}: `{key}`", self.path), value.clone()).map(Some),
        }
    }

    /// The class of a component, one of `supported`. The index decides; where it does not speak of the
    /// component, the component's own configuration does. `None` where neither says.
    ///
    /// # Errors
    /// Another class is named, or the index says that there is no such component.
    pub fn class_of(
        &self,
        component: &str,
        supported: &[&'static str],
        own: &OwnClass<'_>,
    ) -> Result<Option<&'static str>, CheckpointError> {
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

    fn unsupported(&self, key: &str, found: &str, supported: &[&str]) -> CheckpointError {
        component_config::unsupported(&self.path, key, found, &supported.join(", "))
    }
}

/// Labels are repeated in answers.
fn check_labels(path: &str, labels: &BTreeMap<u32, String>) -> Result<(), CheckpointError> {
    match labels.iter().find(|(_, label)| label.len() > MAX_LABEL_BYTES) {
        Some((class, label)) => {
            let right = format!("labels of at most {MAX_LABEL_BYTES} bytes");
            Err(component_config::unsupported(path, &format!("{LABELS}.{class}"), label, &right))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(text: &str) -> Result<ModelIndex, CheckpointError> {
        ModelIndex::parse("tiny: model_index.json".to_owned(), text)
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, message) in [
            ("{}", "tiny: model_index.json: there is no `_class_name`"),
            (
                r#"{"_class_name": null}"#,
                "tiny: model_index.json: `_class_name`: invalid type: null, expected a string",
            ),
            (r#"{"_class_name": "DiTPipeline", "id2label": {"a": "b"}}"#, "`id2label`: "),
            (
                &format!(r#"{{"_class_name": "DiTPipeline", "id2label": {{"3": "{}"}}}}"#, "x".repeat(5000)),
                "...; supported: labels of at most 1000 bytes",
            ),
            (r#"{"_class_name": "DiTPipeline", "id2label": {"3": null}}"#, "`3` is null; supported: text in quotes"),
        ] {
            let error = index(text).unwrap_err().to_string();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn a_pipeline_or_a_transformer_that_is_not_supported_is_named() {
        let sana =
            index(r#"{"_class_name": "SanaPipeline"}"#).unwrap().refuse_pipeline(&["DiTPipeline", "FluxPipeline"]);
        assert_eq!(
            sana.to_string(),
            "tiny: model_index.json: `_class_name` is SanaPipeline; supported: DiTPipeline, FluxPipeline"
        );
        for (entry, found) in
            [("", "absent"), (r#", "transformer": ["diffusers", "SD3Transformer2DModel"]"#, "SD3Transformer2DModel")]
        {
            let index = index(&format!(r#"{{"_class_name": "FluxPipeline"{entry}}}"#)).unwrap();
            let error = index.check_transformer(&["FluxTransformer2DModel"]).unwrap_err().to_string();
            assert!(
                error.ends_with(&format!("`transformer` is {found}; supported: FluxTransformer2DModel")),
                "{error}"
            );
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
