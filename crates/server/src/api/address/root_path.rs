//! The path under which a proxy shows this server (`--root-path`).
//!
//! A proxy may take the prefix away or leave it: both kinds of paths lead to the same handlers. What the server says
//! about itself (`Location`, URLs of pictures, the OpenAPI document's `servers`) has the prefix; pages use relative
//! links and need none.

use std::str::FromStr;

use axum::http::uri::{Parts, PathAndQuery};
use axum::http::{Request, Uri};

/// Empty, or beginning with a slash and not ending with one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RootPath(String);

impl RootPath {
    pub(in crate::api) fn as_str(&self) -> &str {
        &self.0
    }

    pub(in crate::api) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The request as a proxy would send it that takes the prefix away.
    pub(in crate::api) fn strip<B>(&self, mut request: Request<B>) -> Request<B> {
        if let Some(uri) = self.stripped(request.uri()) {
            *request.uri_mut() = uri;
        }
        request
    }

    fn stripped(&self, uri: &Uri) -> Option<Uri> {
        let rest = uri.path_and_query()?.as_str().strip_prefix(&self.0)?;
        if self.0.is_empty() || !rest.starts_with('/') {
            return None;
        }
        let mut parts = Parts::from(uri.clone());
        parts.path_and_query = Some(PathAndQuery::from_str(rest).ok()?);
        Uri::from_parts(parts).ok()
    }
}

impl FromStr for RootPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = text.trim_end_matches('/');
        let is_segment = |segment: &str| {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            !segment.is_empty() && segment != "." && segment != ".." && segment.bytes().all(allowed)
        };
        match path.strip_prefix('/') {
            Some(rest) if rest.split('/').all(is_segment) => Ok(Self(path.to_owned())),
            None if path.is_empty() => Ok(Self::default()),
            _ => Err("it must be a path such as /images, of letters, digits and -._~ between slashes".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_path_is_plain_segments_after_slashes() {
        for (text, path) in [("", ""), ("/", ""), ("/images", "/images"), ("/a/b-c/", "/a/b-c")] {
            assert_eq!(text.parse(), Ok(RootPath(path.to_owned())), "{text}");
        }
        for text in ["images", "/a//b", "/a b", "/a/../b", "https://x.org/a", "/a?b", "/a#b", "/{a}", "/a%20b"] {
            assert!(text.parse::<RootPath>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_prefix_is_taken_away_where_it_stands() {
        let root: RootPath = "/images".parse().unwrap();
        for (asked, routed) in [
            ("/images/v1/models?a=/images/", "/v1/models?a=/images/"),
            ("/images/", "/"),
            ("/images", "/images"),
            ("/imagesque/v1", "/imagesque/v1"),
            ("/v1/images/jobs", "/v1/images/jobs"),
            ("http://x.org/images/docs", "http://x.org/docs"),
        ] {
            let request = Request::get(asked).body(()).unwrap();
            assert_eq!(root.strip(request).uri(), routed, "{asked}");
        }
        let request = Request::get("/v1").body(()).unwrap();
        assert_eq!(RootPath::default().strip(request).uri(), "/v1");
    }
}
