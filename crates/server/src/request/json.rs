//! From text to JSON, strictly.
//!
//! JSON says nothing about a key that comes twice and has no NaN; here both are errors, because the alternative is to
//! guess what the client meant.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::fault::RequestFault;
use super::fields::quoted;
use super::non_finite;

/// The first bytes of every gzip file.
const GZIP_MAGIC: &[u8] = b"\x1f\x8b";
/// The byte order mark that Windows puts before UTF-8.
const BYTE_ORDER_MARK: &str = "\u{feff}";

/// The JSON object in `bytes`, which are a request's body.
pub(crate) fn parse_object(bytes: &[u8]) -> Result<Map<String, Value>, RequestFault> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(RequestFault::invalid_json("the body is UTF-16 text; it must be UTF-8"));
    }
    if bytes.starts_with(GZIP_MAGIC) {
        let message = "the body is packed with gzip; send the header `Content-Encoding: gzip` once, or unpack it";
        return Err(RequestFault::invalid_json(message));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| RequestFault::invalid_json(format!("the body is not UTF-8 text: {error}")))?;
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    if text.trim().is_empty() {
        return Err(RequestFault::invalid_json("the request has no body; it must be a JSON object with a `prompt`"));
    }
    match parse_json(text) {
        Ok(Value::Object(keys)) => Ok(keys),
        Ok(value) => {
            let kind = kind_of(&value);
            Err(RequestFault::invalid_json(format!("the body is {kind}; it must be a JSON object with a `prompt`")))
        }
        Err(error) => Err(match non_finite::find(text) {
            Some((path, number)) => {
                let (path, number) = (quoted(&path), quoted(number));
                let message = format!("`{path}` is {number}; it must be a finite number");
                RequestFault::invalid_value(path, message)
            }
            None => RequestFault::invalid_json(format!("the body is not valid JSON: {error}")),
        }),
    }
}

/// Any JSON value, refusing keys that come twice.
pub(crate) fn parse_json(text: &str) -> serde_json::Result<Value> {
    serde_json::from_str::<Strict>(text).map(|value| value.0)
}

/// What a value is, in words.
pub(crate) fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A [`Value`] in which no object has a key twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Self)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict(value)) = items.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut keys = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if keys.contains_key(&key) {
                return Err(de::Error::custom(format_args!("the key {:?} comes twice", quoted(&key))));
            }
            let Strict(value) = entries.next_value()?;
            keys.insert(key, value);
        }
        Ok(Value::Object(keys))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> (Option<String>, String) {
        match parse_object(text.as_bytes()).unwrap_err() {
            RequestFault::Invalid { param, message, .. } => (param, message),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn values_come_through_as_serde_json_reads_them() {
        let text = r#"{"a": [1, -2, 3.5, null, true, "A\u0042"], "b": {"c": 18446744073709551615}}"#;
        assert_eq!(Value::Object(parse_object(text.as_bytes()).unwrap()), serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn what_is_no_object_is_refused_without_a_param() {
        for text in ["{", "prompt=red+apple", "[]", "\"red apple\"", "7", "null", "{\"a\": 1} x", "{'a': 1}"] {
            let (param, message) = fault(text);
            assert_eq!(param, None, "{text}: {message}");
        }
        assert!(parse_object(b"{\"prompt\": \"\xff\"}").is_err());
        assert!(fault(&format!("{{\"prompt\": {}", "[".repeat(100_000))).1.contains("recursion limit"));
    }

    #[test]
    fn a_body_that_is_not_there_is_told_so() {
        for text in ["", " \r\n", "\u{feff}"] {
            let (param, message) = fault(text);
            assert!(param.is_none() && message.contains("no body"), "{text:?}: {message}");
        }
    }

    #[test]
    fn what_windows_puts_before_a_text_is_skipped() {
        assert_eq!(parse_object("\u{feff}{\"a\": 1}".as_bytes()).unwrap()["a"], 1);
        assert!(parse_object(b"\xff\xfe{\0}\0").unwrap_err().to_string().contains("UTF-16"));
        assert!(parse_object(b"\x1f\x8b\x08").unwrap_err().to_string().contains("`Content-Encoding: gzip`"));
    }

    #[test]
    fn a_key_that_comes_twice_is_named() {
        assert!(fault(r#"{"seed": 1, "seed": 2}"#).1.contains(r#""seed" comes twice"#));
        assert!(fault(r#"{"cache_config": {"a": 1, "a": 1}}"#).1.contains(r#""a" comes twice"#));
        let key = "x".repeat(1000);
        assert!(fault(&format!(r#"{{"{key}": 1, "{key}": 1}}"#)).1.len() < 200);
    }

    #[test]
    fn numbers_python_should_not_have_written_are_placed() {
        for (text, path) in [
            (r#"{"guidance_scale": NaN}"#, "guidance_scale"),
            (r#"{"prompt": "NaN: {", "guidance_scale":-Infinity }"#, "guidance_scale"),
            (r#"{"a\"b": "\\", "x": {"y": 1}, "true_cfg_scale": Infinity}"#, "true_cfg_scale"),
            (
                r#"{"cache_config": {"Fn": 1, "residual_diff_threshold": 1e999}}"#,
                "cache_config.residual_diff_threshold",
            ),
            (r#"{"cache_config": {"bins": [1, NaN]}}"#, "cache_config.bins"),
        ] {
            let (param, message) = fault(text);
            assert_eq!(param.as_deref(), Some(path), "{message}");
            assert!(message.contains("finite"), "{message}");
        }
        let (key, digits) = ("x".repeat(1000), "9".repeat(1000));
        let (param, message) = fault(&format!(r#"{{"cache_config": {{"{key}": {digits}}}}}"#));
        assert!(param.is_some_and(|param| param.len() < 90) && message.len() < 300, "{message}");
        assert_eq!(fault("NaN").0, None);
        assert_eq!(fault(r#"{"prompt": nonsense}"#).0, None);
    }
}
