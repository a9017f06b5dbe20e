//! Reading a component's `config.json`, with errors that name file and key.
//!
//! `null` means what diffusers and transformers make of it: a key that their code asks `is None` is an
//! `Option`, one that is asked for its truth is read with [`truth`], and any other is refused.

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error as _};
use serde_json::{Map, Value};

use crate::model_folder::ModelFolder;
use crate::shown::shortened;
use crate::{CheckpointError, lenient_json};

/// Where diffusers lists the keys that an author left to the class's defaults; their values do not count.
const LEFT_TO_DEFAULTS: &str = "_use_default_values";
/// How weights are quantised by a Python library.
const QUANTIZATION: &str = "quantization_config";
/// Characters of a value that an error shows.
const SHOWN_CHARS: usize = 60;
/// Largest epsilon of a norm. Published ones are 1e-12 to 1e-4; with one that is large beside the variance, which is about
/// 1, nothing is normed.
const MAX_NORM_EPSILON: f64 = 1.0;

/// The text of a component's `config.json`, whose weights are stored as they are.
///
/// # Errors
/// The file cannot be read, or says that the weights are quantised in a way that is not read.
pub fn text(folder: &ModelFolder, component: &str) -> Result<String, CheckpointError> {
    let path = format!("{component}/config.json");
    let text = folder.text(&path)?;
    // Weights from a file of their own are not those that the configuration speaks of.
    if !folder.has_file_of(component) {
        refuse_quantised(&path, &object(&path, &text)?)?;
    }
    Ok(text)
}

/// Parses the text of the file at `path` inside a model folder.
///
/// # Errors
/// The text is no JSON object, or a key has a value of a wrong type.
pub fn parse<T: DeserializeOwned>(path: &str, text: &str) -> Result<T, CheckpointError> {
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
pub fn object(path: &str, text: &str) -> Result<Map<String, Value>, CheckpointError> {
    match lenient_json::parse(text) {
        Ok(Value::Object(keys)) => Ok(keys),
        Ok(other) => Err(CheckpointError::NotAnObject { file: path.to_owned(), found: shown(&other) }),
        Err(source) => Err(CheckpointError::NotJson { file: path.to_owned(), source }),
    }
}

/// The value in the file at `path` as a type of ours.
///
/// # Errors
/// Names the key, what it holds and what it should hold.
pub fn deserialize<T: DeserializeOwned>(path: &str, value: Value) -> Result<T, CheckpointError> {
    serde_path_to_error::deserialize(&value).map_err(|error| {
        let key = error.path().to_string();
        let found = key.split(['.', '[']).next().and_then(|name| value.get(name));
        match (found, right(&error.inner().to_string())) {
            (Some(found), Some(right)) => unsupported(path, &key, &shown(found), &right),
            (Some(_), None) => CheckpointError::config(path, format!("`{}`: {}", shortened(&key), error.inner())),
            (None, _) => CheckpointError::config(path, error.inner().to_string()),
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
pub fn truth<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    let value = Value::deserialize(deserializer)?;
    is_true(&value).ok_or_else(|| D::Error::custom(format!("invalid value: {value}, expected true, false or null")))
}

/// Reads what a norm adds to the variance before it takes the root of it.
pub fn norm_epsilon<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let epsilon = value.as_f64().filter(|epsilon| (0.0..=MAX_NORM_EPSILON).contains(epsilon));
    epsilon.ok_or_else(|| {
        D::Error::custom(format!("invalid value: {value}, expected a number from 0 to {MAX_NORM_EPSILON}"))
    })
}

/// The truth of a switch to Python; `None` for what is hardly meant as one.
pub fn is_true(value: &Value) -> Option<bool> {
    match value {
        Value::Null => Some(false),
        Value::Bool(truth) => Some(*truth),
        _ => None,
    }
}

fn refuse_quantised(path: &str, keys: &Map<String, Value>) -> Result<(), CheckpointError> {
    let config = match keys.get(QUANTIZATION) {
        None | Some(Value::Null) => return Ok(()),
        Some(config) => config,
    };
    let method = config.get("quant_method").and_then(Value::as_str).unwrap_or("something unnamed");
    let right = "none (weights in F32, F16 or BF16); transformers and text encoders may come from GGUF files (--transformer, --text-encoder)";
    Err(unsupported(path, QUANTIZATION, &format!("for {method}"), right))
}

/// A value that is understood and cannot be served; key and value are cut where they are long.
pub fn unsupported(path: &str, key: &str, found: &str, right: &str) -> CheckpointError {
    CheckpointError::Unsupported {
        file: path.to_owned(),
        key: shortened(key).into_owned(),
        found: shortened(found).into_owned(),
        supported: right.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::GivenFile;

    #[derive(Debug, Deserialize)]
    #[serde(default)]
    struct Config {
        layers: usize,
        sizes: Vec<usize>,
        scale: f64,
        name: String,
        #[serde(deserialize_with = "truth")]
        has_bias: bool,
        #[serde(deserialize_with = "norm_epsilon")]
        eps: f64,
        most: Option<usize>,
    }

    impl Default for Config {
        fn default() -> Self {
            let name = "a".to_owned();
            Self { layers: 3, sizes: vec![1], scale: 0.5, name, has_bias: true, eps: 1e-6, most: Some(7) }
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
    fn an_epsilon_is_no_less_than_0_and_no_more_than_the_variance() {
        let eps = |value: &str| parse::<Config>("vae/config.json", &format!(r#"{{"eps": {value}}}"#));
        for (value, epsilon) in [("0", 0.0), ("1e-12", 1e-12), ("1", 1.0)] {
            assert_eq!(eps(value).unwrap().eps, epsilon);
        }
        for (value, found) in [
            ("-1e-6", "-1e-6"),
            ("1.5", "1.5"),
            ("1e30", "1e+30"),
            ("NaN", "\"NaN\""),
            ("Infinity", "\"Infinity\""),
            ("null", "null"),
            ("\"1e-6\"", "\"1e-6\""),
        ] {
            let message = eps(value).unwrap_err().to_string();
            assert_eq!(message, format!("vae/config.json: `eps` is {found}; supported: a number from 0 to 1"));
        }
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
        write("model_index.json", r#"{"transformer": ["diffusers", "FluxTransformer2DModel"]}"#);
        let quantised = r#"{"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": true}}"#;
        write("transformer/config.json", quantised);
        write("vae/config.json", r#"{"quantization_config": null}"#);
        write("flux.gguf", "");
        let folder = ModelFolder::open(place.path()).unwrap();
        assert!(text(&folder, "vae").is_ok());
        let error = text(&folder, "transformer").unwrap_err().to_string();
        let start = "transformer/config.json: `quantization_config` is for bitsandbytes; supported: none";
        assert!(error.starts_with(start), "{error}");
        let folder = folder.with_files(&[GivenFile::new("transformer", place.path().join("flux.gguf"))]).unwrap();
        assert_eq!(text(&folder, "transformer").unwrap(), quantised);
    }
}
