//! The encodings of a body, by the names that the layer which unpacks them knows.

use axum::http::header::CONTENT_ENCODING;
use axum::http::{HeaderValue, Request};

/// One header with the names of the encodings, as the layer that unpacks them knows them: case means nothing,
/// `x-gzip` is gzip, and `identity` is none.
pub(in crate::api) fn name_encodings<B>(mut request: Request<B>) -> Request<B> {
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
