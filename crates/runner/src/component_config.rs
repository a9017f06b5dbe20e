//! Reading a component's `config.json`, with errors that name file and key.
//!
//! `null` means what diffusers and transformers make of it: a key that their code asks `is None` is an
//! `Option`, one that is asked for its truth is read with [`truth`], and any other is refused.

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde_json::{Map, Value};

use crate::error::RunnerError;
use crate::lenient_json;
use crate::model_folder::{ModelFolder, TRANSFORMER};

/// Where diffusers lists the keys that an author left to the class's defaults; their values do not count.
const LEFT_TO_DEFAULTS: &str = "_use_default_values";
/// How weights are quantised by a Python library.
const QUANTIZATION: &str = "quantization_config";
/// Characters of a value that an error shows.
const SHOWN_CHARS: usize = 60;

/// The text of a component's `config.json`, whose weights are stored as they are.
///
/// # Errors
/// The file cannot be read, or says that the weights are quantised in a way that is not read.
pub(crate) fn text(folder: &ModelFolder, component: &str) -> Result<String, RunnerError> {
    let path = format!("{component}/config.json");
    let text = folder.text(&path)?;
    // Weights from a file of their own are not those that the configuration speaks of.
    if component != TRANSFORMER || !folder.has_transformer_file() {
        refuse_quantised(&path, &object(&path, &text)?)?;
    }
    Ok(text)
}

/// Parses the text of the file at `path` inside a model folder.
///
/// # Errors
/// The text is no JSON object, or a key has a value of a wrong type.
pub(crate) fn parse<T: DeserializeOwned>(path: &str, text: &str) -> Result<T, RunnerError> {
    let mut keys = object(path, text)?;
    if let Some(Value::Array(unset)) = keys.remove(LEFT_TO_DEFAULTS) {
        unset.iter().filter_map(Value::as_str).for_each(|key| {
            keys.remove(key);
        });
    }
    deserialize(path, Value::Object(keys))
}

/// The keys of the JSON object in the file at `path`.
///
/// # Errors
/// The text is something else.
pub(crate) fn object(path: &str, text: &str) -> Result<Map<String, Value>, RunnerError> {
    match lenient_json::parse(text) {
        Ok(Value::Object(keys)) => Ok(keys),
        Ok(other) => Err(RunnerError::Model(format!("{path} is not a JSON object but {}", shown(&other)))),
        Err(error) => Err(RunnerError::Model(format!("{path} is not JSON: {error}"))),
    }
}

/// The value in the file at `path` as a type of ours.
///
/// # Errors
/// Names the key, what it holds and what it should hold.
pub(crate) fn deserialize<T: DeserializeOwned>(path: &str, value: Value) -> Result<T, RunnerError> {
    serde_path_to_error::deserialize(&value).map_err(|error| {
        let key = error.path().to_string();
        let found = key.split(['.', '[']).next().and_then(|name| value.get(name));
        match (found, right(&error.inner().to_string())) {
            (Some(found), Some(right)) => unsupported(path, &key, &shown(found), &right),
            (Some(_), None) => RunnerError::Model(format!("{path}: `{key}`: {}", error.inner())),
            (None, _) => RunnerError::Model(format!("{path}: {}", error.inner())),
        }
    })
}

/// What serde expected, in the words of JSON.
fn right(message: &str) -> Option<String> {
    let expected = message.split("expected ").nth(1)?;
    let word = match expected {
        "usize" | "u64" | "u32" => "a whole number",
        "f64" => "a number",
        "a boolean" => "true or false",
        "a string" => "text in quotes",
        "a sequence" => "a list",
        "a map" => "an object",
        other => other,
    };
    Some(word.to_owned())
}

/// A value, cut where it is long.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    let short: String = text.chars().take(SHOWN_CHARS).collect();
    if short.len() < text.len() { format!("{short}...") } else { short }
}

/// Reads a switch that Python is asked the truth of: `null` is off.
pub(crate) fn truth<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let value = Value::deserialize(deserializer)?;
    is_true(&value).ok_or_else(|| D::Error::custom(format!("invalid value: {value}, expected true, false or null")))
}

/// The truth of a switch to Python; `None` for what is hardly meant as one.
pub(crate) fn is_true(value: &Value) -> Option<bool> {
    match value {
        Value::Null => Some(false),
        Value::Bool(truth) => Some(*truth),
        _ => None,
    }
}

fn refuse_quantised(path: &str, keys: &Map<String, Value>) -> Result<(), RunnerError> {
    let config = match keys.get(QUANTIZATION) {
        None | Some(Value::Null) => return Ok(()),
        Some(config) => config,
    };
    let method = config.get("quant_method").and_then(Value::as_str).unwrap_or("something unnamed");
    let right = "none (weights in F32, F16 or BF16); a transformer may come from a GGUF file (--transformer)";
    Err(unsupported(path, QUANTIZATION, &format!("for {method}"), right))
}

/// A value that is understood and cannot be served.
pub(crate) fn unsupported(path: &str, key: &str, found: &str, right: &str) -> RunnerError {
    RunnerError::Model(format!("{path}: `{key}` is {found}; supported: {right}"))
}

/// Most of anything that tensors have as a dimension: no published model comes near, and products stay numbers.
pub(crate) const MAX_DIMENSION: usize = 1 << 16;
/// Longest side of latents: with eight pixels for each, 8192 pixels.
const MAX_SAMPLE_SIZE: usize = 1024;

/// What the transformers over patches of latents have in common, as their configurations say it.
pub(crate) struct PatchShape {
    pub(crate) num_attention_heads: usize,
    pub(crate) attention_head_dim: usize,
    pub(crate) in_channels: usize,
    pub(crate) out_channels: usize,
    pub(crate) num_layers: usize,
    pub(crate) patch_size: usize,
    pub(crate) sample_size: usize,
    /// What the hidden size must be a multiple of.
    pub(crate) hidden_multiple: usize,
}

impl PatchShape {
    /// Refuses a shape that no transformer can have.
    pub(crate) fn check(&self, path: &str) -> Result<(), RunnerError> {
        let unsupported = |key: &str, found: usize, right: &str| Err(unsupported(path, key, &found.to_string(), right));
        let positive = [
            ("num_attention_heads", self.num_attention_heads),
            ("attention_head_dim", self.attention_head_dim),
            ("in_channels", self.in_channels),
            ("num_layers", self.num_layers),
            ("patch_size", self.patch_size),
            ("sample_size", self.sample_size),
        ];
        if let Some((key, zero)) = positive.iter().find(|(_, value)| *value == 0) {
            return unsupported(key, *zero, "a positive number");
        }
        if let Some((key, huge)) = positive.iter().find(|(_, value)| *value > MAX_DIMENSION) {
            return unsupported(key, *huge, &format!("at most {MAX_DIMENSION}"));
        }
        if self.sample_size > MAX_SAMPLE_SIZE {
            return unsupported("sample_size", self.sample_size, &format!("at most {MAX_SAMPLE_SIZE}"));
        }
        if !self.sample_size.is_multiple_of(self.patch_size) {
            let right = format!("a multiple of patch_size {}", self.patch_size);
            return unsupported("sample_size", self.sample_size, &right);
        }
        let hidden = self.num_attention_heads * self.attention_head_dim;
        if !hidden.is_multiple_of(self.hidden_multiple) {
            let right = format!("a multiple of {}", self.hidden_multiple);
            return unsupported("num_attention_heads * attention_head_dim", hidden, &right);
        }
        if self.out_channels != self.in_channels && self.out_channels != 2 * self.in_channels {
            let right = format!("in_channels {} or twice that", self.in_channels);
            return unsupported("out_channels", self.out_channels, &right);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_that_no_machine_holds_are_refused_by_key() {
        let shape = |heads, sample_size| PatchShape {
            num_attention_heads: heads,
            attention_head_dim: 8,
            in_channels: 4,
            out_channels: 4,
            num_layers: 1,
            patch_size: 2,
            sample_size,
            hidden_multiple: 2,
        };
        shape(2, 128).check("config.json").unwrap();
        for (shape, key) in [
            (shape(1 << 62, 128), "num_attention_heads"),
            (shape(2, 1 << 40), "sample_size"),
            (shape(2, 2048), "sample_size"),
        ] {
            let message = shape.check("config.json").unwrap_err().to_string();
            assert!(
                message.contains(&format!("config.json: {key} is")) || message.contains(&format!("`{key}` is")),
                "{message}"
            );
        }
    }

    #[derive(Debug, Deserialize)]
    #[serde(default)]
    struct Config {
        layers: usize,
        sizes: Vec<usize>,
        scale: f64,
        name: String,
        #[serde(deserialize_with = "truth")]
        has_bias: bool,
        most: Option<usize>,
    }

    impl Default for Config {
        fn default() -> Self {
            Self { layers: 3, sizes: vec![1], scale: 0.5, name: "a".to_owned(), has_bias: true, most: Some(7) }
        }
    }

    fn error(text: &str) -> String {
        parse::<Config>("vae/config.json", text).unwrap_err().to_string()
    }

    #[test]
    fn a_value_of_a_wrong_type_is_named_with_its_key() {
        for (text, message) in [
            (r#"{"layers": null}"#, "`layers` is null; supported: a whole number"),
            (r#"{"layers": "many"}"#, "`layers` is \"many\"; supported: a whole number"),
            (r#"{"layers": 2.5}"#, "`layers` is 2.5; supported: a whole number"),
            (r#"{"layers": -2}"#, "`layers` is -2; supported: a whole number"),
            (r#"{"scale": null}"#, "`scale` is null; supported: a number"),
            (r#"{"scale": NaN}"#, "`scale` is \"NaN\"; supported: a number"),
            (r#"{"name": null}"#, "`name` is null; supported: text in quotes"),
            (r#"{"sizes": null}"#, "`sizes` is null; supported: a list"),
            (r#"{"sizes": [1, null]}"#, "`sizes[1]` is [1,null]; supported: a whole number"),
            (r#"{"has_bias": 1}"#, "`has_bias` is 1; supported: true, false or null"),
            (r#"{"has_bias": "yes"}"#, "`has_bias` is \"yes\"; supported: true, false or null"),
        ] {
            assert_eq!(error(text), format!("vae/config.json: {message}"));
        }
        let long = error(&format!(r#"{{"name": [{}]}}"#, "1,".repeat(200) + "1"));
        assert!(long.len() < 150 && long.contains("`name` is [1,1,"), "{long}");
    }

    #[test]
    fn null_is_what_python_makes_of_it() {
        let config: Config = parse("vae/config.json", r#"{"has_bias": null, "most": null}"#).unwrap();
        assert_eq!((config.has_bias, config.most), (false, None));
        let absent: Config = parse("vae/config.json", "{}").unwrap();
        assert_eq!((absent.has_bias, absent.most, absent.layers), (true, Some(7), 3));
    }

    #[test]
    fn values_left_to_defaults_do_not_count() {
        let text = r#"{"layers": 9, "scale": 2, "_use_default_values": ["layers"]}"#;
        let config: Config = parse("vae/config.json", text).unwrap();
        assert_eq!((config.layers, config.scale), (3, 2.0));
        assert_eq!((config.sizes, config.name.as_str()), (vec![1], "a"));
    }

    #[test]
    fn other_text_is_named() {
        assert_eq!(error("[1]"), "vae/config.json is not a JSON object but [1]");
        assert!(error("{").starts_with("vae/config.json is not JSON: "), "{}", error("{"));
    }

    #[test]
    fn quantised_weights_are_named_before_their_shapes_are() {
        let place = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = place.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("model_index.json", "{}");
        let quantised = r#"{"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": true}}"#;
        write("transformer/config.json", quantised);
        write("vae/config.json", r#"{"quantization_config": null}"#);
        write("flux.gguf", "");
        let folder = ModelFolder::open(place.path()).unwrap();
        assert!(text(&folder, "vae").is_ok());
        let error = text(&folder, "transformer").unwrap_err().to_string();
        let start = "transformer/config.json: `quantization_config` is for bitsandbytes; supported: none";
        assert!(error.starts_with(start), "{error}");
        let folder = folder.with_transformer(&place.path().join("flux.gguf")).unwrap();
        assert_eq!(text(&folder, "transformer").unwrap(), quantised);
    }
}
