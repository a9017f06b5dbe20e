//! The address under which clients reach this server.

use std::str::FromStr;

use axum::http::uri::Authority;
use axum::http::{HeaderValue, Uri};

use super::root_path::RootPath;

/// A name of the DNS and a port: no address is longer.
const MAX_HOST_BYTES: usize = 253 + ":65535".len();

/// The value of `--public-url`, without a slash at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PublicUrl(String);

impl PublicUrl {
    /// The address that a client used, by its `Host` header.
    pub(in crate::api) fn of_host(host: &str) -> Option<Self> {
        if host.len() > MAX_HOST_BYTES {
            return None;
        }
        let authority: Authority = host.parse().ok()?;
        // No name and password, whatever they are for.
        (!authority.as_str().contains('@')).then(|| Self(format!("http://{authority}")))
    }

    /// The beginning of the URLs it gives: a path of its own is all of the path.
    pub(in crate::api) fn with_root_path(&self, root_path: &RootPath) -> String {
        let has_path = self.0.split_once("://").is_some_and(|(_, rest)| rest.contains('/'));
        if has_path { self.0.clone() } else { format!("{}{}", self.0, root_path.as_str()) }
    }
}

impl PublicUrl {
    /// As browsers name the origin of a page there.
    pub(in crate::api) fn origin(&self) -> HeaderValue {
        let (scheme, rest) = self.0.split_once("://").unwrap_or_default();
        let authority = rest.split('/').next().unwrap_or_default();
        let default_port = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
        let authority = authority.strip_suffix(default_port).unwrap_or(authority);
        let origin = format!("{scheme}://{authority}").to_ascii_lowercase();
        // A URL is made of what a header can have.
        HeaderValue::try_from(origin).unwrap_or(HeaderValue::from_static("null"))
    }
}

impl FromStr for PublicUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || "it must be an absolute URL such as https://images.example.com/base".to_owned();
        let uri: Uri = text.parse().map_err(|_| wrong())?;
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        if !is_http || uri.authority().is_none() || uri.query().is_some() || text.contains('#') {
            return Err(wrong());
        }
        Ok(Self(text.trim_end_matches('/').to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_urls_are_taken() {
        let parse = |text: &str| text.parse().map(|PublicUrl(url)| url);
        assert_eq!(parse("https://x.org/a/").unwrap(), "https://x.org/a");
        assert_eq!(parse("http://[::1]:8080").unwrap(), "http://[::1]:8080");
        for text in ["", "x.org", "/a", "ftp://x.org", "https://x.org?a=1", "https://x.org/#a", "https://"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_root_path_stands_between_host_and_path() {
        let root: RootPath = "/images".parse().unwrap();
        let base = |url: &str| url.parse::<PublicUrl>().unwrap().with_root_path(&root);
        assert_eq!(base("https://x.org"), "https://x.org/images");
        assert_eq!(base("https://x.org/"), "https://x.org/images");
        assert_eq!(base("https://x.org/cdn"), "https://x.org/cdn");
        assert_eq!(PublicUrl::of_host("x:1").unwrap().with_root_path(&root), "http://x:1/images");
    }

    #[test]
    fn its_origin_is_what_browsers_send() {
        for (url, origin) in [
            ("https://Images.Example.com/base", "https://images.example.com"),
            ("https://x.org:443", "https://x.org"),
            ("http://x.org:8080/a/b", "http://x.org:8080"),
        ] {
            assert_eq!(url.parse::<PublicUrl>().unwrap().origin(), origin);
        }
    }

    #[test]
    fn a_host_header_is_an_address() {
        let of_host = |host| PublicUrl::of_host(host).map(|PublicUrl(url)| url);
        assert_eq!(of_host("127.0.0.1:8080").unwrap(), "http://127.0.0.1:8080");
        for host in ["", "a/b", "a b", "user@x.org", "x.org\"><script>"] {
            assert_eq!(of_host(host), None, "{host}");
        }
        assert_eq!(of_host(&"x".repeat(1000)), None, "it would stand in the URL of every picture");
    }
}
