//! Where models come from when they are not on disk: the environment variables of the hub's clients.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use super::progress::{FetchProgress, LoggedProgress};

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
const DEFAULT_REVISION: &str = "main";

/// How the hub and its cache are used.
#[derive(Clone)]
pub struct HubOptions {
    /// Address of the hub, without a slash at its end.
    pub endpoint: String,
    /// The folder that holds `models--org--name`.
    pub cache_dir: PathBuf,
    /// Access token for private and gated models.
    pub token: Option<String>,
    /// Use the cache only.
    pub offline: bool,
    /// Branch, tag or commit.
    pub revision: String,
    /// Watches downloads.
    pub progress: Arc<dyn FetchProgress>,
    /// Leave out the weights of the transformer, which come from elsewhere.
    pub without_transformer: bool,
}

impl HubOptions {
    /// Reads `HF_ENDPOINT`, `HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`, `HF_TOKEN` (or the token file
    /// that `hf auth login` writes, `HF_TOKEN_PATH`) and `HF_HUB_OFFLINE`. The revision is `main`, and
    /// downloads are logged.
    pub fn from_env() -> Self {
        Self::from_lookup(|name| std::env::var(name).ok(), std::env::home_dir())
    }

    fn from_lookup(lookup: impl Fn(&str) -> Option<String>, home: Option<PathBuf>) -> Self {
        let set = |name: &str| lookup(name).filter(|value| !value.trim().is_empty());
        let hub_home = set("HF_HOME").map(PathBuf::from).unwrap_or_else(|| {
            set("XDG_CACHE_HOME")
                .map(PathBuf::from)
                .unwrap_or_else(|| home.unwrap_or_default().join(".cache"))
                .join("huggingface")
        });
        let token = set("HF_TOKEN")
            .or_else(|| {
                let file = set("HF_TOKEN_PATH").map_or_else(|| hub_home.join("token"), PathBuf::from);
                std::fs::read_to_string(file).ok()
            })
            .map(|token| token.trim().to_string())
            .filter(|token| !token.is_empty());
        let endpoint = set("HF_ENDPOINT").unwrap_or_else(|| DEFAULT_ENDPOINT.to_string());
        Self {
            endpoint: endpoint.trim().trim_end_matches('/').to_string(),
            cache_dir: set("HF_HUB_CACHE").map(PathBuf::from).unwrap_or_else(|| hub_home.join("hub")),
            token,
            offline: set("HF_HUB_OFFLINE").is_some_and(|value| is_on(&value)),
            revision: DEFAULT_REVISION.to_string(),
            progress: Arc::new(LoggedProgress::default()),
            without_transformer: false,
        }
    }

    /// The same options without the weights of the transformer.
    pub fn without_transformer(self) -> Self {
        Self { without_transformer: true, ..self }
    }

    /// The same options for another branch, tag or commit.
    pub fn with_revision(self, revision: impl Into<String>) -> Self {
        Self { revision: revision.into(), ..self }
    }

    /// The same options with another watcher of downloads.
    pub fn with_progress(self, progress: impl FetchProgress + 'static) -> Self {
        Self { progress: Arc::new(progress), ..self }
    }
}

/// What huggingface_hub takes for "on".
fn is_on(value: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&value.trim().to_ascii_lowercase().as_str())
}

/// The token stays out of logs.
impl fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubOptions")
            .field("endpoint", &self.endpoint)
            .field("cache_dir", &self.cache_dir)
            .field("token", &self.token.as_ref().map(|_| "(hidden)"))
            .field("offline", &self.offline)
            .field("revision", &self.revision)
            .field("without_transformer", &self.without_transformer)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(variables: &[(&str, &str)]) -> HubOptions {
        let lookup = |name: &str| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| value.to_string())
        };
        HubOptions::from_lookup(lookup, Some(PathBuf::from("/home/me")))
    }

    #[test]
    fn defaults_are_the_hubs() {
        let options = from(&[]);
        assert_eq!(options.endpoint, "https://huggingface.co");
        assert_eq!(options.cache_dir, PathBuf::from("/home/me/.cache/huggingface/hub"));
        assert_eq!(options.token, None);
        assert!(!options.offline);
        assert_eq!(options.revision, "main");
    }

    #[test]
    fn the_most_precise_cache_variable_wins() {
        let xdg = ("XDG_CACHE_HOME", "/xdg");
        let home = ("HF_HOME", "/hf");
        let cache = ("HF_HUB_CACHE", "/cache");
        assert_eq!(from(&[xdg]).cache_dir, PathBuf::from("/xdg/huggingface/hub"));
        assert_eq!(from(&[xdg, home]).cache_dir, PathBuf::from("/hf/hub"));
        assert_eq!(from(&[xdg, home, cache]).cache_dir, PathBuf::from("/cache"));
    }

    #[test]
    fn offline_is_on_for_words_that_say_so() {
        for (value, offline) in [("1", true), ("True", true), ("0", false), ("", false)] {
            assert_eq!(from(&[("HF_HUB_OFFLINE", value)]).offline, offline, "{value}");
        }
    }

    #[test]
    fn token_comes_from_the_variable_or_the_login_file_and_stays_hidden() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("token"), "hf_file\n").unwrap();
        let home = ("HF_HOME", home.path().to_str().unwrap());
        assert_eq!(from(&[home]).token.as_deref(), Some("hf_file"));
        let file = format!("{}/token", home.1);
        assert_eq!(from(&[("HF_TOKEN_PATH", &file)]).token.as_deref(), Some("hf_file"));
        let options = from(&[home, ("HF_TOKEN", "hf_variable"), ("HF_ENDPOINT", "http://hub/")]);
        assert_eq!(options.token.as_deref(), Some("hf_variable"));
        assert_eq!(options.endpoint, "http://hub");
        assert!(!format!("{options:?}").contains("hf_variable"));
    }
}
