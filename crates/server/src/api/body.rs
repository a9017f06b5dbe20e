//! From the bytes of a body to one JSON object, strictly.
//!
//! Of the content type only multipart forms are refused, which are no JSON whatever is in them: `curl -d` sends a
//! form's, and many clients none. A body in gzip has been unpacked on its way here (tower-http), so that the limit
//! counts what it unpacks to; any other encoding is refused by its name. JSON says nothing about a key that comes twice and has no NaN; here both are errors, because
//! the alternative is to guess what the client meant.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Request};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use tokio::time;

use super::error::ApiError;
use super::fields::quoted;

/// How much of an oversized body is still read, so that the client gets to see the answer instead of
/// a connection that breaks while it is sending.
const DISCARDED_BYTES: usize = 16 * 1024 * 1024;

/// Unpacked bytes after which others may run: a small body can unpack to a large one without a pause.
const BYTES_AT_A_TIME: usize = 256 * 1024;
/// With these every file in gzip begins.
const GZIP_MAGIC: &[u8] = b"\x1f\x8b";
/// With these Windows begins a text in UTF-8.
const BYTE_ORDER_MARK: &str = "\u{feff}";

/// Reads a body of at most `limit_bytes`, whether or not it announces its length, that has all arrived
/// after `timeout`. What is refused by its headers is read, too: who is still sending does not see an answer.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    limit_bytes: usize,
    timeout: Duration,
) -> Result<Vec<u8>, ApiError> {
    let kind = check_kind(headers);
    let read = time::timeout(timeout, read_to_end(body, limit_bytes)).await;
    let read = read.unwrap_or(Err(ApiError::BodyTimedOut { timeout }));
    kind.and(read)
}

/// One header with the names of the encodings, as the layer that unpacks them knows them: case means nothing,
/// `x-gzip` is gzip, and `identity` is none.
pub(super) fn name_encodings<B>(mut request: Request<B>) -> Request<B> {
    let headers = request.headers_mut();
    let values = headers.get_all(CONTENT_ENCODING).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let all = values.collect::<Vec<_>>().join(",").to_lowercase();
    let names = all.split(',').map(str::trim).filter(|name| !name.is_empty() && *name != "identity");
    let names: Vec<_> = names.map(|name| if name == "x-gzip" { "gzip" } else { name }).collect();
    headers.remove(CONTENT_ENCODING);
    if let Ok(value) = HeaderValue::from_str(&names.join(", "))
        && !names.is_empty()
    {
        headers.insert(CONTENT_ENCODING, value);
    }
    request
}

/// Refuses what can be no JSON, by its headers.
fn check_kind(headers: &HeaderMap) -> Result<(), ApiError> {
    let value = |name| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).trim().to_lowercase());
    let encoding = value(CONTENT_ENCODING).filter(|encoding| !encoding.is_empty() && encoding != "identity");
    if let Some(encoding) = encoding {
        return Err(ApiError::UnsupportedEncoding { found: quoted(&encoding) });
    }
    let content_type = value(CONTENT_TYPE).filter(|found| found.starts_with("multipart/"));
    let content_type = content_type.as_deref().and_then(|found| found.split(';').next());
    content_type.map_or(Ok(()), |found| Err(ApiError::UnsupportedContentType { found: quoted(found) }))
}

async fn read_to_end(mut body: Body, limit_bytes: usize) -> Result<Vec<u8>, ApiError> {
    let mut bytes = Vec::new();
    let mut received = 0_usize;
    let mut paused_at = 0;
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let frame =
            frame.map_err(|error| ApiError::invalid_json(format!("the body cannot be read: {}", cause(&error))))?;
        let Ok(data) = frame.into_data() else { continue };
        received = received.saturating_add(data.len());
        if received <= limit_bytes {
            bytes.extend_from_slice(&data);
        } else if received - limit_bytes > DISCARDED_BYTES {
            break;
        }
        if received - paused_at >= BYTES_AT_A_TIME {
            paused_at = received;
            tokio::task::yield_now().await;
        }
    }
    if received > limit_bytes { Err(ApiError::BodyTooLarge { limit_bytes }) } else { Ok(bytes) }
}

/// What was wrong at the bottom of it.
fn cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), cause)
}

/// The JSON object in `bytes`.
pub(super) fn parse(bytes: &[u8]) -> Result<Map<String, Value>, ApiError> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err(ApiError::invalid_json("the body is UTF-16 text; it must be UTF-8"));
    }
    if bytes.starts_with(GZIP_MAGIC) {
        let message = "the body is packed with gzip; send the header `Content-Encoding: gzip` once, or unpack it";
        return Err(ApiError::invalid_json(message));
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| ApiError::invalid_json(format!("the body is not UTF-8 text: {error}")))?;
    let text = text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(text);
    if text.trim().is_empty() {
        return Err(ApiError::invalid_json("the request has no body; it must be a JSON object with a `prompt`"));
    }
    match parse_json(text) {
        Ok(Value::Object(keys)) => Ok(keys),
        Ok(value) => {
            let kind = kind_of(&value);
            Err(ApiError::invalid_json(format!("the body is {kind}; it must be a JSON object with a `prompt`")))
        }
        Err(error) => Err(match find_non_finite(text) {
            Some((path, number)) => {
                ApiError::invalid_value(&path, format!("`{path}` is {number}; it must be a finite number"))
            }
            None => ApiError::invalid_json(format!("the body is not valid JSON: {error}")),
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

/// Path and text of the first number that is no finite number, such as the `NaN` and `Infinity` that
/// Python's `json` module writes. Only for a text that did not parse.
fn find_non_finite(text: &str) -> Option<(String, &str)> {
    let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    let mut keys: Vec<&str> = Vec::new();
    let mut last_string = "";
    let mut rest = text;
    while let Some(first) = rest.as_bytes().first() {
        let taken = match first {
            b'"' => {
                let end = string_end(rest);
                let inner = &rest[1..end];
                last_string = inner.strip_suffix('"').unwrap_or(inner);
                end
            }
            b'{' | b'[' => {
                keys.push("");
                1
            }
            b'}' | b']' => {
                keys.pop();
                1
            }
            b':' => {
                if let Some(key) = keys.last_mut() {
                    *key = last_string;
                }
                1
            }
            byte if is_word(byte) => {
                let end = rest.bytes().position(|byte| !is_word(&byte)).unwrap_or(rest.len());
                let is_non_finite = rest[..end].parse::<f64>().is_ok_and(|number| !number.is_finite());
                if is_non_finite && keys.first().is_some_and(|key| !key.is_empty()) {
                    keys.retain(|key| !key.is_empty());
                    return Some((keys.join("."), &rest[..end]));
                }
                end
            }
            _ => rest.chars().next().map_or(1, char::len_utf8),
        };
        rest = &rest[taken..];
    }
    None
}

/// Length of the string literal that `text` starts with, quotes included.
fn string_end(text: &str) -> usize {
    let mut is_escaped = false;
    for (index, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => return index + 1,
            _ => {}
        }
    }
    text.len()
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
                return Err(de::Error::custom(format_args!("the key {key:?} comes twice")));
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
        match parse(text.as_bytes()).unwrap_err() {
            ApiError::InvalidRequest { param, message, .. } => (param, message),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn values_come_through_as_serde_json_reads_them() {
        let text = r#"{"a": [1, -2, 3.5, null, true, "A\u0042"], "b": {"c": 18446744073709551615}}"#;
        assert_eq!(Value::Object(parse(text.as_bytes()).unwrap()), serde_json::from_str::<Value>(text).unwrap());
    }

    #[test]
    fn what_is_no_object_is_refused_without_a_param() {
        for text in ["{", "prompt=red+apple", "[]", "\"red apple\"", "7", "null", "{\"a\": 1} x", "{'a': 1}"] {
            let (param, message) = fault(text);
            assert_eq!(param, None, "{text}: {message}");
        }
        assert!(parse(b"{\"prompt\": \"\xff\"}").is_err());
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
        assert_eq!(parse("\u{feff}{\"a\": 1}".as_bytes()).unwrap()["a"], 1);
        assert!(parse(b"\xff\xfe{\0}\0").unwrap_err().to_string().contains("UTF-16"));
        assert!(parse(b"\x1f\x8b\x08").unwrap_err().to_string().contains("`Content-Encoding: gzip`"));
    }

    #[test]
    fn kinds_of_bodies_that_are_no_json_are_named() {
        let check = |name, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            check_kind(&headers).map_err(|error| (error.status().as_u16(), error.to_string()))
        };
        for (name, value) in [
            (CONTENT_TYPE, "application/json"),
            (CONTENT_TYPE, "application/x-www-form-urlencoded"),
            (CONTENT_TYPE, "text/plain"),
            (CONTENT_ENCODING, "identity"),
            (CONTENT_ENCODING, ""),
        ] {
            assert_eq!(check(name, value), Ok(()), "{value}");
        }
        for (name, value, found) in [
            (CONTENT_TYPE, "multipart/form-data; boundary=x", "multipart/form-data"),
            (CONTENT_TYPE, "Multipart/Mixed", "multipart/mixed"),
            (CONTENT_ENCODING, "br", "br"),
            (CONTENT_ENCODING, "gzip, gzip", "gzip, gzip"),
        ] {
            let (status, message) = check(name, value).unwrap_err();
            assert!(status == 415 && message.contains(&format!("`{found}`")), "{value}: {message}");
        }
    }

    #[test]
    fn a_key_that_comes_twice_is_named() {
        assert!(fault(r#"{"seed": 1, "seed": 2}"#).1.contains(r#""seed" comes twice"#));
        assert!(fault(r#"{"cache_config": {"a": 1, "a": 1}}"#).1.contains(r#""a" comes twice"#));
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
        assert_eq!(fault("NaN").0, None);
        assert_eq!(fault(r#"{"prompt": nonsense}"#).0, None);
    }

    #[tokio::test]
    async fn the_limit_counts_what_arrives() {
        assert_eq!(read(&HeaderMap::new(), Body::from("12345"), 5, Duration::MAX).await.unwrap(), b"12345");
        let error = read(&HeaderMap::new(), Body::from("123456"), 5, Duration::MAX).await.unwrap_err();
        assert!(matches!(error, ApiError::BodyTooLarge { limit_bytes: 5 }), "{error}");
    }

    #[tokio::test]
    async fn a_body_that_never_ends_is_given_up() {
        let endless = Body::from_stream(futures_util::stream::pending::<Result<Vec<u8>, std::io::Error>>());
        let timeout = Duration::from_millis(1);
        let error = read(&HeaderMap::new(), endless, 5, timeout).await.unwrap_err();
        assert!(error.to_string().contains("0.001 s"), "{error}");
    }
}
