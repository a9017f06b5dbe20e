//! A file of a page for people: text inside the binary, with its type, its policy and an entity tag.
//!
//! The tag is made of the content, so that a browser that asks again gets 304 until the program changes.

use std::hash::{DefaultHasher, Hash, Hasher};

use axum::http::StatusCode;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderMap, HeaderName, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::response::{IntoResponse, Response};

pub(crate) const HTML: &str = "text/html; charset=utf-8";

/// Only what this server sends itself, and pictures a script has made of an answer. No page may frame this one.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const HEADERS: [(HeaderName, &str); 5] = [
    (CONTENT_SECURITY_POLICY, POLICY),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (X_FRAME_OPTIONS, "DENY"),
    (REFERRER_POLICY, "no-referrer"),
    (CACHE_CONTROL, "no-cache"),
];

/// One file of a page.
pub(crate) struct PageFile {
    pub(crate) name: &'static str,
    pub(crate) content_type: &'static str,
    pub(crate) text: &'static str,
}

impl PageFile {
    pub(crate) const fn html(text: &'static str) -> Self {
        Self { name: "", content_type: HTML, text }
    }

    pub(crate) const fn css(name: &'static str, text: &'static str) -> Self {
        Self { name, content_type: "text/css; charset=utf-8", text }
    }

    pub(crate) const fn svg(name: &'static str, text: &'static str) -> Self {
        Self { name, content_type: "image/svg+xml", text }
    }

    pub(crate) const fn script(name: &'static str, text: &'static str) -> Self {
        Self { name, content_type: "text/javascript; charset=utf-8", text }
    }

    /// The file, or 304 where the browser has it.
    pub(crate) fn respond(&self, request: &HeaderMap) -> Response {
        respond(self.text, self.content_type, request)
    }
}

/// A text that is made when it is first asked for is answered like a file.
pub(crate) fn respond<T>(text: T, content_type: &'static str, request: &HeaderMap) -> Response
where
    T: AsRef<[u8]> + IntoResponse,
{
    let tag = tag(text.as_ref());
    let is_known = request.get(IF_NONE_MATCH).is_some_and(|known| known == tag.as_str());
    let headers = (HEADERS, [(ETAG, tag)]);
    if is_known {
        return (StatusCode::NOT_MODIFIED, headers).into_response();
    }
    (headers, [(CONTENT_TYPE, content_type)], text).into_response()
}

fn tag(text: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    format!("\"{:016x}\"", hasher.finish())
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use axum::http::HeaderValue;

    use super::*;

    const FILE: PageFile = PageFile::css("a.css", "body {}");

    #[tokio::test]
    async fn a_browser_that_has_the_file_is_told_so() {
        let first = FILE.respond(&HeaderMap::new());
        assert_eq!(first.status(), 200);
        assert_eq!(first.headers()[CONTENT_TYPE], "text/css; charset=utf-8");
        let tag = first.headers()[ETAG].clone();
        for (known, status, length) in [(tag, 304, 0), (HeaderValue::from_static("\"other\""), 200, 7)] {
            let response = FILE.respond(&HeaderMap::from_iter([(IF_NONE_MATCH, known)]));
            assert_eq!(response.status(), status);
            assert_eq!(to_bytes(response.into_body(), usize::MAX).await.unwrap().len(), length);
        }
    }

    #[test]
    fn nothing_from_elsewhere_and_nothing_inline() {
        let headers = FILE.respond(&HeaderMap::new()).headers().clone();
        let policy = headers[CONTENT_SECURITY_POLICY].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
        assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff");
        assert_eq!(headers[X_FRAME_OPTIONS], "DENY");
    }
}
