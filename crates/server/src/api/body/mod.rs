//! The bytes of a body, within the server's bounds.
//!
//! Of the content type only multipart forms are refused, which are no JSON whatever is in them: `curl -d` sends a
//! form's, and many clients none. A body in gzip has been unpacked on its way here (tower-http), so that the limit
//! counts what it unpacks to; any other encoding is refused by its name.

pub(in crate::api) mod encoding;

use std::future::poll_fn;
use std::pin::Pin;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use tokio::time;

use super::error::ApiError;
use crate::request::{RequestFault, quoted};

/// How much of an oversized body is still read, so that the client gets to see the answer instead of
/// a connection that breaks while it is sending.
const DISCARDED_BYTES: usize = 16 * 1024 * 1024;

/// Unpacked bytes after which others may run: a small body can unpack to a large one without a pause.
const BYTES_AT_A_TIME: usize = 256 * 1024;

/// Reads a body of at most `limit_bytes`, whether or not it announces its length, that must have
/// arrived within `timeout`. A body refused by its headers is read, too: a client that is still sending sees no answer.
pub(in crate::api) async fn read(
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
            frame.map_err(|error| RequestFault::invalid_json(format!("the body cannot be read: {}", cause(&error))))?;
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

/// The innermost cause.
fn cause(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), cause)
}

#[cfg(test)]
mod tests {
    use super::*;

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
