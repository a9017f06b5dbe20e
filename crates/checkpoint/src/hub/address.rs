//! The ways in which people write a model on the hub, and the hosts that are the hub.

use std::path::Path;

use ureq::http::Uri;

use crate::model_folder::cached_id;

/// Hosts of the hub itself, as huggingface_hub has them; that of `HF_ENDPOINT` comes to them.
const HUB_HOSTS: [&str; 4] = ["huggingface.co", "www.huggingface.co", "hf.co", "hub-ci.huggingface.co"];

/// What else is on the hub.
const OTHER_KINDS: [(&str, &str); 3] =
    [("datasets", "a dataset"), ("spaces", "a space"), ("collections", "a collection")];

/// A model on the hub, and the revision where one is named.
#[derive(Debug, PartialEq)]
pub(super) struct Address {
    pub(super) id: String,
    pub(super) revision: Option<String>,
}

/// Whether a host is the hub's own, which may see the token.
pub(super) fn is_hub_host(host: &str, endpoint: &str) -> bool {
    let of_endpoint = endpoint.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned));
    HUB_HOSTS.iter().any(|known| host.eq_ignore_ascii_case(known))
        || of_endpoint.is_some_and(|own| host.eq_ignore_ascii_case(&own))
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
        None => "there is no such directory, and a model on the hub is named `org/name`, as in `facebook/DiT-XL-2-256`"
            .to_owned(),
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
