//! Weights of components in files of their own, in the place of the model folder's.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::CheckpointError;

/// How the names of text encoders begin.
const TEXT_ENCODER: &str = "text_encoder";

/// A file that was given for a component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenFile {
    /// `None`: the only text encoder.
    component: Option<String>,
    part: FilePart,
    /// A model without the component goes without the file.
    is_optional: bool,
}

/// Tensors of a file whose names begin alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FilePart {
    pub(crate) path: PathBuf,
    /// Left out of their names; may be empty.
    pub(crate) prefix: String,
}

impl GivenFile {
    /// For the component of this name, such as `transformer` or `text_encoder_2`.
    pub fn new(component: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        let part = FilePart { path: path.into(), prefix: String::new() };
        Self { component: Some(component.into()), part, is_optional: false }
    }

    /// For a text encoder, `component=path`, or of a model that has only one, `path`.
    pub fn text_encoder(given: &str) -> Self {
        match given.split_once('=') {
            Some((component, path)) if component.starts_with(TEXT_ENCODER) && !component.contains(['/', '.']) => {
                Self::new(component, path)
            }
            _ => Self { component: None, ..Self::new(TEXT_ENCODER, given) },
        }
    }

    /// Part of a whole checkpoint.
    pub(crate) fn part(component: &str, path: &Path, prefix: &str) -> Self {
        let part = FilePart { path: path.to_owned(), prefix: prefix.to_owned() };
        Self { component: Some(component.to_owned()), part, is_optional: true }
    }

    /// Whether it has the weights of this component.
    pub(crate) fn is_for(&self, component: &str) -> bool {
        self.component.as_deref().unwrap_or(TEXT_ENCODER) == component
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.part.path
    }

    /// The same file elsewhere.
    pub fn map_path(mut self, path: impl FnOnce(PathBuf) -> PathBuf) -> Self {
        self.part.path = path(self.part.path);
        self
    }
}

/// The files by the components of a model, whose `model_index.json` has these entries. One that is given for a component
/// goes before the part of a whole checkpoint.
///
/// # Errors
/// The model has no such component, or more than one where it is to be the only one, or a component has several files.
pub(crate) fn by_component(
    index: &Map<String, Value>,
    given: &[GivenFile],
) -> Result<BTreeMap<String, FilePart>, CheckpointError> {
    let mut files = BTreeMap::<String, FilePart>::new();
    for GivenFile { component, part, is_optional } in given {
        let is_there = |name: &str| index.get(name).and_then(component_entry).is_some();
        let refuse = |reason: String| CheckpointError::weights(part.path.display(), reason);
        let component = match component {
            Some(component) => component.clone(),
            None => only_text_encoder(index).map_err(refuse)?,
        };
        if is_there(&component) {
            let other = files.insert(component.clone(), part.clone()).filter(|other| other.prefix.is_empty());
            if let Some(other) = other {
                let other = other.path.display();
                return Err(refuse(format!("it is given for `{component}`, and so is {other}; give one of them")));
            }
        } else if !is_optional {
            let components: Vec<_> =
                index.keys().filter(|name| is_there(name)).map(|name| format!("`{name}`")).collect();
            return Err(refuse(format!(
                "it is given for `{component}`, which the model does not have; it has {}",
                components.join(", ")
            )));
        }
    }
    Ok(files)
}

/// Library and class in an entry of `model_index.json`; entries of other kinds, `[null, null]` among them, are no
/// components.
pub(crate) fn component_entry(value: &Value) -> Option<(&str, &str)> {
    match value.as_array()?.as_slice() {
        [library, class] => Some((library.as_str()?, class.as_str()?)),
        _ => None,
    }
}

fn only_text_encoder(index: &Map<String, Value>) -> Result<String, String> {
    let is_encoder = |name: &&String| name.starts_with(TEXT_ENCODER) && component_entry(&index[*name]).is_some();
    let encoders: Vec<_> = index.keys().filter(is_encoder).collect();
    match encoders.as_slice() {
        [only] => Ok((*only).clone()),
        [] => Err("it is given for the text encoder, and the model has none".to_owned()),
        [.., last] => {
            let names: Vec<_> = encoders.iter().map(|name| format!("`{name}`")).collect();
            Err(format!("the model has {}; say which, such as {last}=FILE", names.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(index: &str, given: &[GivenFile]) -> Result<Vec<(String, String)>, String> {
        let index = serde_json::from_str(index).unwrap();
        let files = by_component(&index, given).map_err(|error| error.to_string())?;
        Ok(files.into_iter().map(|(name, file)| (name, file.path.display().to_string())).collect())
    }

    const ONE: &str =
        r#"{"_class_name": "X", "text_encoder": ["transformers", "Qwen3Model"], "vae": ["diffusers", "A"]}"#;
    const THREE: &str = r#"{"text_encoder": ["transformers", "CLIPTextModel"], "text_encoder_3": [null, null],
        "text_encoder_2": ["transformers", "T5EncoderModel"]}"#;

    #[test]
    fn the_only_text_encoder_needs_no_name() {
        let path = |path: &str| vec![("text_encoder".to_owned(), path.to_owned())];
        assert_eq!(found(ONE, &[GivenFile::text_encoder("a.gguf")]), Ok(path("a.gguf")));
        // No names of components.
        for odd in ["x=y/a.gguf", "text_encoders/a=1.gguf", "text_encoder.v1=2"] {
            assert_eq!(found(ONE, &[GivenFile::text_encoder(odd)]), Ok(path(odd)));
        }
        let named = found(THREE, &[GivenFile::text_encoder("text_encoder_2=b.gguf")]).unwrap();
        assert_eq!(named, [("text_encoder_2".to_owned(), "b.gguf".to_owned())]);
        let error = found(THREE, &[GivenFile::text_encoder("b.gguf")]).unwrap_err();
        assert_eq!(
            error,
            "b.gguf: the model has `text_encoder`, `text_encoder_2`; say which, such as text_encoder_2=FILE"
        );
        assert!(found("{}", &[GivenFile::text_encoder("b.gguf")]).unwrap_err().contains("the model has none"));
    }

    #[test]
    fn a_component_has_one_file_and_that_goes_before_parts() {
        let given = |path: &str| GivenFile::text_encoder(path);
        let error = found(ONE, &[given("a.gguf"), given("text_encoder=b.gguf")]).unwrap_err();
        assert_eq!(error, "b.gguf: it is given for `text_encoder`, and so is a.gguf; give one of them");
        let part = GivenFile::part("text_encoder", Path::new("whole.safetensors"), "text.");
        let files = found(ONE, &[part, given("a.gguf")]).unwrap();
        assert_eq!(files, [("text_encoder".to_owned(), "a.gguf".to_owned())]);
    }

    #[test]
    fn a_component_that_is_not_there_is_named() {
        let error = found(ONE, &[GivenFile::new("text_encoder_2", "b.gguf")]).unwrap_err();
        let expected = "it is given for `text_encoder_2`, which the model does not have; it has `text_encoder`, `vae`";
        assert!(error.ends_with(expected), "{error}");
        let part = GivenFile::part("text_encoder_3", Path::new("whole"), "text_encoders.t5xxl.");
        assert_eq!(found(THREE, &[part]), Ok(Vec::new()));
    }

    #[test]
    fn the_last_file_counts() {
        let parts = [GivenFile::part("vae", Path::new("whole"), "vae."), GivenFile::new("vae", "b")];
        assert_eq!(found(ONE, &parts), Ok(vec![("vae".to_owned(), "b".to_owned())]));
    }
}
