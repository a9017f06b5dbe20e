//! The keys that open the API.
//!
//! A key is compared in constant time with every key there is, so that response times reveal nothing
//! about them but their lengths. No message, log line or `Debug` output contains a key; each is known by its name.

use std::collections::HashSet;

use subtle::{ConditionallySelectable, ConstantTimeEq};

use crate::secret::Secret;

/// What may stand in a bearer token beside letters and digits (RFC 6750, 2.1).
const TOKEN_SYMBOLS: &[u8] = b"-._~+/=";

/// Shorter keys can be guessed. What `openssl rand -hex 8` makes has as many.
pub(crate) const MIN_KEY_CHARS: usize = 16;

/// All keys; none means that the API is open.
#[derive(Debug, Clone, Default)]
pub(crate) struct ApiKeys(Vec<ApiKey>);

#[derive(Debug, Clone)]
struct ApiKey {
    name: String,
    key: Secret,
}

impl ApiKeys {
    /// Adds `KEY` or `NAME:KEY`; a key without a name gets its number. The error says what is wrong
    /// with it, without it.
    pub(crate) fn add(&mut self, text: &Secret) -> Result<(), String> {
        let (name, key) = match text.expose().split_once(':') {
            Some((name, key)) => (name.trim().to_owned(), key.trim()),
            None => (format!("key-{}", self.0.len() + 1), text.expose().trim()),
        };
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("the name before the colon must be printable ASCII without blanks".to_owned());
        }
        if key.is_empty() {
            return Err(format!("the key `{name}` is empty"));
        }
        if !key.bytes().all(|byte| byte.is_ascii_alphanumeric() || TOKEN_SYMBOLS.contains(&byte)) {
            let allowed = "a key is made of letters, digits and -._~+/=";
            return Err(format!("the key `{name}` has a character that a bearer token cannot have; {allowed}"));
        }
        self.0.push(ApiKey { name, key: Secret::from(key) });
        self.check_distinct()
    }

    fn check_distinct(&self) -> Result<(), String> {
        let (mut names, mut keys) = (HashSet::new(), HashSet::new());
        match self.0.iter().find(|key| !names.insert(&key.name) || !keys.insert(key.key.expose())) {
            Some(ApiKey { name, .. }) => Err(format!("the key `{name}` comes twice, by its name or by itself")),
            None => Ok(()),
        }
    }

    /// Whether the API is open to everybody.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names of keys with fewer than [`MIN_KEY_CHARS`] characters.
    pub(crate) fn short(&self) -> Vec<&str> {
        let short = self.0.iter().filter(|key| key.key.expose().len() < MIN_KEY_CHARS);
        short.map(|key| &*key.name).collect()
    }

    /// The index of a presented key. Every key is compared, even after one has matched.
    pub(crate) fn find(&self, presented: &[u8]) -> Option<usize> {
        let mut found = u64::MAX;
        for (index, ApiKey { key, .. }) in (0_u64..).zip(&self.0) {
            found.conditional_assign(&index, key.expose().as_bytes().ct_eq(presented));
        }
        usize::try_from(found).ok().filter(|index| *index < self.0.len())
    }

    /// The name of a key, as it is logged.
    pub(crate) fn name(&self, index: usize) -> &str {
        self.0.get(index).map_or("", |key| &key.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(texts: &[&str]) -> Result<ApiKeys, String> {
        let mut keys = ApiKeys::default();
        texts.iter().try_for_each(|text| keys.add(&Secret::from(*text))).map(|()| keys)
    }

    #[test]
    fn every_key_is_found_and_nothing_else() {
        let keys = keys(&["sk-one", "ci:sk-two", "sk-three=="]).unwrap();
        let found = |presented: &str| keys.find(presented.as_bytes()).map(|index| keys.name(index));
        assert_eq!(
            ["sk-one", "sk-two", "sk-three=="].map(found),
            [Some("key-1"), Some("ci"), Some("key-3")],
            "names are the owner's or numbers"
        );
        for presented in ["", "sk-on", "sk-one ", "SK-ONE", "sk-four", "ci:sk-two"] {
            assert_eq!(found(presented), None, "{presented:?}");
        }
        assert_eq!(ApiKeys::default().find(b""), None);
    }

    #[test]
    fn short_keys_are_known_by_name() {
        let keys = keys(&["ci:0123456789abcde", "0123456789abcdef", "sk"]).unwrap();
        assert_eq!(keys.short(), ["ci", "key-3"]);
    }

    #[test]
    fn what_is_wrong_is_said_without_the_key() {
        for (texts, fault) in [
            (vec![""], "the key `key-1` is empty"),
            (vec!["ci:"], "the key `ci` is empty"),
            (vec!["sk-a", "sk secret"], "the key `key-2` has a character"),
            (vec!["a:b:secret"], "the key `a` has a character"),
            (vec![":secret"], "the name before the colon"),
            (vec!["sk-secret", "ci:sk-secret"], "the key `ci` comes twice"),
            (vec!["ci:sk-secret", "ci:sk-other"], "the key `ci` comes twice"),
        ] {
            let message = keys(&texts).unwrap_err();
            assert!(message.starts_with(fault) && !message.contains("secret"), "{message}");
        }
    }

    #[test]
    fn debug_output_has_no_key() {
        let shown = format!("{:?}", keys(&["ci:sk-two"]).unwrap());
        assert!(shown.contains("ci") && !shown.contains("sk-two"), "{shown}");
    }
}
