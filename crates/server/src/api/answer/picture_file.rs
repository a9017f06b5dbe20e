//! The answer to a request for one picture as it is: the bytes of the file, what there is to say of it
//! in headers. Errors stay JSON.

use std::time::Instant;

use afterimage_runner::FinishedRequest;
use axum::http::header::{CONTENT_DISPOSITION, CONTENT_TYPE, HeaderName};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};

use super::output::Output;
use super::warning;
use crate::api::error::ApiError;

/// Headers of a picture that say what a JSON answer has in its body, for pages of other origins, too.
pub(in crate::api) const PICTURE_HEADERS: [HeaderName; 7] = [
    HeaderName::from_static("x-afterimage-seed"),
    HeaderName::from_static("x-afterimage-steps"),
    HeaderName::from_static("x-afterimage-cache-backend"),
    HeaderName::from_static("x-afterimage-cache-hit-rate"),
    HeaderName::from_static("x-afterimage-cache-tag"),
    HeaderName::from_static("x-afterimage-total-seconds"),
    HeaderName::from_static("x-afterimage-warnings"),
];

/// The one picture of a request that arrived at `arrived`. Blocks: not for the async runtime.
pub(in crate::api) fn respond(
    finished: &FinishedRequest,
    output: &Output,
    arrived: Instant,
) -> Result<Response, ApiError> {
    let Some(file) = output.files(finished)?.into_iter().next() else {
        return Err(ApiError::Internal("a request for one picture has none".to_owned()));
    };
    let seed = finished.seeds.first();
    let format = output.options.encoding.format;
    let warnings = warning::of_request(finished);
    let warnings = serde_json::to_string(&warnings).map_err(|error| ApiError::Internal(error.to_string()))?;
    let values = [
        Some(seed.to_string()),
        Some(finished.cache.steps.to_string()),
        Some(finished.cache.backend.to_string()),
        Some(finished.cache.hit_rate.to_string()),
        finished.cache.tag.clone(),
        Some(arrived.elapsed().as_secs_f64().to_string()),
        (!finished.warnings.is_empty()).then(|| ascii(&warnings)),
    ];
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    let disposition = format!("inline; filename=\"afterimage-{seed}.{}\"", format.as_str());
    for (name, value) in PICTURE_HEADERS.into_iter().zip(values).chain([(CONTENT_DISPOSITION, Some(disposition))]) {
        let Some(value) = value else { continue };
        let value = HeaderValue::try_from(value).map_err(|error| ApiError::Internal(error.to_string()))?;
        headers.insert(name, value);
    }
    Ok((headers, file).into_response())
}

/// The same JSON text without characters that headers cannot have.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        if character.is_ascii() {
            text.push(character);
        } else {
            let mut units = [0; 2];
            text.extend(character.encode_utf16(&mut units).iter().map(|unit| format!("\\u{unit:04x}")));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_fit_a_header() {
        let json = serde_json::to_string(&serde_json::json!(["caf\u{e9} \u{1f98a}\n"])).unwrap();
        let header = ascii(&json);
        assert_eq!(header, r#"["caf\u00e9 \ud83e\udd8a\n"]"#);
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&header).unwrap(),
            serde_json::json!(["caf\u{e9} \u{1f98a}\n"])
        );
        assert!(HeaderValue::try_from(header).is_ok());
    }
}
