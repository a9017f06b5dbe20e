//! The ways in which people write a model on the hub, and the hosts that are the hub.

use std::path::Path;

use ureq::http::Uri;

use crate::model_folder::cached_id;

/// Hosts of the hub itself, as huggingface_hub has them; that of `HF_ENDPOINT` comes to them.
const HUB_HOSTS: [&str; 4] = ["huggingface.co", "www.huggingface.co", "hf.co", "hub-ci.huggingface.co"];

/// Of addresses that name none.
const HTTPS_PORT: u16 = 443;
/// Longer ones are no hashes.
const MAX_HASH_BYTES: usize = 128;

/// What else is on the hub.
const OTHER_KINDS: [(&str, &str); 3] =
    [("datasets", "a dataset"), ("spaces", "a space"), ("collections", "a collection")];

/// A model on the hub, and the revision where one is named.
#[derive(Debug, PartialEq)]
pub(super) struct Address {
    pub(super) id: String,
    pub(super) revision: Option<String>,
}

/// Whether an address is the hub's own, so that it may get the token: on the endpoint itself, or, over TLS and on the usual
/// port, on one of the hub's hosts.
pub(super) fn is_of_hub(url: &str, endpoint: &str) -> bool {
    let (Ok(uri), Ok(endpoint)) = (url.parse::<Uri>(), endpoint.parse::<Uri>()) else { return false };
    let (Some(host), Some(own_host)) = (uri.host(), endpoint.host()) else { return false };
    let is_own_host = host.eq_ignore_ascii_case(own_host);
    let is_own_port = uri.scheme_str() == endpoint.scheme_str() && uri.port_u16() == endpoint.port_u16();
    let is_usual_tls = uri.scheme_str() == Some("https") && uri.port_u16().is_none_or(|port| port == HTTPS_PORT);
    is_own_host && (is_own_port || is_usual_tls) || is_usual_tls && is_public_host(host)
}

/// Whether a name that the hub gives to a commit or a content can be that of a file, as the hub's own are, which are
/// hexadecimal numbers.
pub(super) fn is_hash_name(name: &str) -> bool {
    let is_usual = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    (1..=MAX_HASH_BYTES).contains(&name.len()) && name.bytes().all(is_usual)
}

fn is_public_host(host: &str) -> bool {
    HUB_HOSTS.iter().any(|known| host.eq_ignore_ascii_case(known))
}

/// Whether a host is the hub's own.
fn is_hub_host(host: &str, endpoint: &str) -> bool {
    let of_endpoint = endpoint.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned));
    is_public_host(host) || of_endpoint.is_some_and(|own| host.eq_ignore_ascii_case(&own))
}

impl Address {
    /// Understands `org/name`, `org/name/`, `org/name@revision` and the page of a model, with `https://` or
    /// without; the error says what it is instead.
    pub(super) fn parse(text: &str, endpoint: &str) -> Result<Self, String> {
        let (rest, is_page) = match text.split_once("://") {
            Some(("hf", rest)) => (rest.strip_prefix("models/").unwrap_or(rest), false),
            Some(("http" | "https", rest)) => match rest.split_once('/') {
                Some((host, rest)) if is_hub_host(without_port(host), endpoint) => (rest, true),
                _ => return Err(format!("it is an address, and not one on {endpoint} or the hub")),
            },
            Some(_) => return Err("it is an address of a kind that models do not have".to_owned()),
            None => match text.split_once('/') {
                Some((host, rest)) if is_hub_host(without_port(host), endpoint) && rest.contains('/') => (rest, true),
                _ => (text, false),
            },
        };
        let rest = if is_page { rest.split(['?', '#']).next().unwrap_or(rest) } else { rest };
        let (rest, revision) = match rest.trim_end_matches('/').split_once('@') {
            Some((rest, revision)) => (rest, Some(revision.to_owned())),
            None => (rest, None),
        };
        let parts: Vec<&str> = rest.trim_end_matches('/').split('/').collect();
        if let Some((_, what)) = OTHER_KINDS.iter().find(|(kind, _)| parts.len() > 2 && parts[0] == *kind) {
            return Err(format!("it is {what}, and no model"));
        }
        let (id, page) = match parts.as_slice() {
            [organisation, name, page @ ..] if is_page || page.is_empty() => (format!("{organisation}/{name}"), page),
            _ => return Err(no_such_name(text)),
        };
        if !is_id(&id) {
            return Err(no_such_name(text));
        }
        let of_page = match page {
            [] => None,
            ["tree" | "commit", revision] => Some(decoded(revision)),
            ["tree", "refs", kind, name] => Some(format!("refs/{kind}/{name}")),
            _ => return Err(format!("it is a page or a file of {id}; give `{id}`, or `{id}@REVISION`")),
        };
        match (revision, of_page) {
            (Some(revision), None) if revision.is_empty() => Err("there is no revision behind its `@`".to_owned()),
            (Some(revision), Some(other)) if revision != other => {
                Err(format!("it names two revisions, `{revision}` and `{other}`"))
            }
            (revision, of_page) => Ok(Self { id, revision: revision.or(of_page) }),
        }
    }
}

fn without_port(host: &str) -> &str {
    host.split_once(':').map_or(host, |(host, _)| host)
}

/// A revision as pages have it in their address: `refs%2Fpr%2F1`.
fn decoded(revision: &str) -> String {
    revision.replace("%2F", "/").replace("%2f", "/")
}

fn no_such_name(text: &str) -> String {
    match cached_id(Path::new(text.trim_end_matches('/'))) {
        Some(id) => {
            format!("there is no such directory; it is how the hub's cache names the folder of {id}: give `{id}`")
        }
        None => {
            "there is no such folder or file, and a model on the hub is named `org/name`, as in `facebook/DiT-XL-2-256`"
                .to_owned()
        }
    }
}

/// Whether a name is `org/name` by the hub's rules.
fn is_id(model: &str) -> bool {
    let is_valid = |part: &str| {
        let outer = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
        outer(part.chars().next())
            && outer(part.chars().next_back())
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && !part.contains("..")
            && !part.contains("--")
    };
    match model.split_once('/') {
        Some((organisation, name)) => is_valid(organisation) && is_valid(name),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HUB: &str = "https://hub.example:8443";

    #[test]
    fn the_token_is_for_the_hub_alone() {
        for (url, endpoint, expected) in [
            ("https://huggingface.co/a", "https://huggingface.co", true),
            ("https://hf.co/a", "https://huggingface.co", true),
            ("https://HuggingFace.co:443/a", "http://mirror:8080", true),
            ("http://mirror:8080/a", "http://mirror:8080", true),
            ("https://mirror/a", "http://mirror:8080", true),
            // Another program on the same machine, and a connection that others can read.
            ("http://mirror:8081/a", "http://mirror:8080", false),
            ("http://mirror/a", "https://mirror", false),
            ("http://huggingface.co/a", "http://mirror:8080", false),
            ("https://huggingface.co:8443/a", "https://huggingface.co", false),
            ("https://huggingface.co@evil.example/a", "https://huggingface.co", false),
            ("https://huggingface.co.evil.example/a", "https://huggingface.co", false),
            ("https://cdn-lfs.hf.co/a", "https://huggingface.co", false),
            ("//huggingface.co/a", "https://huggingface.co", false),
        ] {
            assert_eq!(is_of_hub(url, endpoint), expected, "{url} for {endpoint}");
        }
    }

    #[test]
    fn hashes_are_no_paths() {
        for name in ["0123456789abcdef0123456789abcdef01234567", "large-transformer", "a_b"] {
            assert!(is_hash_name(name), "{name}");
        }
        for name in ["", ".", "..", "../..", "/etc/passwd", "a/b", "a\\b", "a.part", "a\0", "a\n", &"a".repeat(129)] {
            assert!(!is_hash_name(name), "{name}");
        }
    }

    #[test]
    fn every_way_to_name_a_model_is_understood() {
        for (text, id, revision) in [
            ("org/name", "org/name", None),
            ("org/name/", "org/name", None),
            ("org/name@fp16", "org/name", Some("fp16")),
            ("org/name@refs/pr/3", "org/name", Some("refs/pr/3")),
            ("hf://org/name@v1.0", "org/name", Some("v1.0")),
            ("hf://models/org/name", "org/name", None),
            ("https://huggingface.co/org/name", "org/name", None),
            ("https://huggingface.co/org/name/", "org/name", None),
            ("https://huggingface.co/org/name@v1", "org/name", Some("v1")),
            ("https://huggingface.co/org/name/tree/main", "org/name", Some("main")),
            ("https://huggingface.co/org/name/tree/refs%2Fpr%2F3", "org/name", Some("refs/pr/3")),
            ("https://huggingface.co/org/name/tree/refs/pr/3/", "org/name", Some("refs/pr/3")),
            ("https://huggingface.co/org/name/commit/0123abcd", "org/name", Some("0123abcd")),
            ("https://huggingface.co/org/name?library=diffusers#usage", "org/name", None),
            ("http://www.huggingface.co/org/name", "org/name", None),
            ("huggingface.co/org/name", "org/name", None),
            ("hf.co/org/name", "org/name", None),
            ("https://hub.example:8443/org/name", "org/name", None),
            ("stabilityai/stable-diffusion-3.5-medium", "stabilityai/stable-diffusion-3.5-medium", None),
            ("PixArt-alpha/PixArt-Sigma-XL-2-512-MS", "PixArt-alpha/PixArt-Sigma-XL-2-512-MS", None),
        ] {
            let found = Address::parse(text, HUB);
            assert_eq!(found, Ok(Address { id: id.to_owned(), revision: revision.map(str::to_owned) }), "{text}");
        }
    }

    #[test]
    fn what_is_no_model_is_named() {
        for (text, expected) in [
            ("https://civitai.com/models/4384", "not one on https://hub.example:8443 or the hub"),
            ("s3://bucket/name", "of a kind that models do not have"),
            ("https://huggingface.co/datasets/org/name", "it is a dataset, and no model"),
            ("hf://spaces/org/name", "it is a space, and no model"),
            ("https://huggingface.co/org/name/blob/main/model.safetensors", "it is a page or a file of org/name"),
            ("https://huggingface.co/org/name/resolve/main/model.safetensors", "give `org/name`"),
            ("https://huggingface.co/org", "is named `org/name`"),
            ("https://huggingface.co/org/name/tree/main@v1", "it names two revisions"),
            ("org/name@", "no revision behind its `@`"),
            ("models--org--name", "names the folder of org/name: give `org/name`"),
            ("/gone/models--org--name/", "give `org/name`"),
        ] {
            let error = Address::parse(text, HUB).unwrap_err();
            assert!(error.contains(expected), "{text}: {error}");
        }
        for text in ["", "dit", "./missing", "/missing/dit", "a/b/c", "a/..", "a/b c", "../b", "-a/b", "a--b/c"] {
            let error = Address::parse(text, HUB).unwrap_err();
            assert!(error.contains("is named `org/name`"), "{text}: {error}");
        }
    }
}
