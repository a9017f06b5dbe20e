//! The names under which a server without keys answers that only its own machine reaches.

use axum::http::HeaderMap;
use axum::http::header::{ACCEPT_LANGUAGE, HeaderName, ORIGIN, REFERER};
use axum::http::uri::Authority;

/// What browsers send and other clients hardly do.
const OF_BROWSERS: [HeaderName; 4] = [ACCEPT_LANGUAGE, ORIGIN, REFERER, HeaderName::from_static("sec-fetch-site")];

/// Which `Host` a request may have.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Hosts {
    /// Keys say who may ask, or anybody may.
    Any,
    /// This machine's, and these, in lower case.
    ThisMachineAnd(Vec<String>),
}

impl Hosts {
    pub(super) fn has(&self, host: &str, headers: &HeaderMap) -> bool {
        let Self::ThisMachineAnd(names) = self else { return true };
        let Some(name) = name(host) else {
            // What is no name leads nowhere; whoever needs one says what is wrong with it.
            return !is_of_browser(headers);
        };
        // An address is no name, so nobody can have made it lead somewhere else.
        let ends_in_number = name.rsplit('.').next().is_some_and(|last| last.parse::<u32>().is_ok());
        let is_address = name.starts_with('[') || ends_in_number;
        is_address
            || name == "localhost"
            || name.ends_with(".localhost")
            || names.contains(&name)
            // What a proxy on this machine calls it. On a network that names machines so, a page could be called that, too.
            || (!name.contains('.') && !is_of_browser(headers))
    }
}

fn is_of_browser(headers: &HeaderMap) -> bool {
    OF_BROWSERS.iter().any(|name| headers.contains_key(name))
}

/// The name in a `Host` header or an origin, in lower case, without its port and the dot that may end it.
pub(super) fn name(host: &str) -> Option<String> {
    let authority: Authority = host.rsplit("://").next()?.parse().ok()?;
    Some(authority.host().trim_end_matches('.').to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_name_of_somebody_else_is_no_name_of_this_machine() {
        let hosts = Hosts::ThisMachineAnd(vec!["images.example.com".to_owned()]);
        let (program, mut browser) = (HeaderMap::new(), HeaderMap::new());
        browser.insert(ACCEPT_LANGUAGE, HeaderValue::from_static("en"));
        for host in [
            "127.0.0.1:8080",
            "127.0.0.1",
            "127.1:8080",
            "[::1]:8080",
            "192.168.1.5:8080",
            "localhost:8080",
            "LocalHost.",
            "app.localhost:8080",
            "images.example.com",
            "Images.Example.com:443",
        ] {
            assert!(hosts.has(host, &browser) && hosts.has(host, &program), "{host}");
        }
        for host in ["evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "1.x"] {
            assert!(!hosts.has(host, &browser) && !hosts.has(host, &program), "{host}");
            assert!(Hosts::Any.has(host, &browser));
        }
        for host in ["afterimage", "afterimage:8080", "", "a/b"] {
            assert!(!hosts.has(host, &browser) && hosts.has(host, &program), "{host}");
        }
    }

    #[test]
    fn a_name_is_found_in_a_header_and_in_an_origin() {
        assert_eq!(name("https://App.example.com:8443").as_deref(), Some("app.example.com"));
        assert_eq!(name("http://[::1]:8000").as_deref(), Some("[::1]"));
    }
}
