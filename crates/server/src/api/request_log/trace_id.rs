//! Which trace a request belongs to: log lines and the spans of a collector are found by the same id.
//!
//! The id is that of the `traceparent` header (W3C Trace Context), or of the trace that begins here where
//! spans are exported. It is a field of the request's span, and so of every line logged about the request.

use axum::http::HeaderMap;
use tracing::Span;

/// Makes the request's span part of its trace, if it has one.
pub(super) fn join(span: &Span, headers: &HeaderMap) {
    #[cfg(feature = "otlp")]
    if let Some(id) = crate::logging::otlp::join_trace(span, headers) {
        span.record("trace_id", id);
        return;
    }
    if let Some(id) = headers.get("traceparent").and_then(|header| of_header(header.to_str().ok()?)) {
        span.record("trace_id", id);
    }
}

/// `version-trace_id-parent_id-flags`, all in lower-case hexadecimal digits; later versions may have more.
fn of_header(header: &str) -> Option<&str> {
    let is_hex = |text: &str, digits| {
        text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
    };
    let is_set = |text: &str| text.bytes().any(|byte| byte != b'0');
    let mut parts = header.trim().split('-');
    let (version, id, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_whole = is_hex(version, 2) && is_hex(id, 32) && is_hex(parent, 16) && is_hex(flags, 2);
    let is_known = version != "ff" && (version != "00" || parts.next().is_none());
    (is_whole && is_known && is_set(id) && is_set(parent)).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_names_its_trace_or_nothing() {
        let id = "0af7651916cd43dd8448eb211c80319c";
        for header in [format!("00-{id}-b7ad6b7169203331-01"), format!("cc-{id}-b7ad6b7169203331-00-what.comes-later")]
        {
            assert_eq!(of_header(&header), Some(id));
        }
        for header in [
            "".to_owned(),
            id.to_owned(),
            format!("00-{id}-b7ad6b7169203331"),
            format!("00-{id}-b7ad6b7169203331-01-x"),
            format!("ff-{id}-b7ad6b7169203331-01"),
            format!("00-{}-b7ad6b7169203331-01", "0".repeat(32)),
            format!("00-{id}-0000000000000000-01"),
            format!("00-{}-b7ad6b7169203331-01", id.to_uppercase()),
            format!("00-{}\"-b7ad6b7169203331-01", &id[1..]),
        ] {
            assert_eq!(of_header(&header), None, "{header}");
        }
    }
}
