//! Where models come from when they are not on disk: the environment variables of the hub's clients.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::needed::Selection;
use super::progress::{FetchProgress, LoggedProgress};
use super::token::Token;
use super::variables::Variables;
use crate::GivenFile;

const DEFAULT_ENDPOINT: &str = "https://huggingface.co";
pub(super) const DEFAULT_REVISION: &str = "main";
/// How long the hub may do nothing.
const DEFAULT_PATIENCE_SECONDS: u64 = 60;
const MAX_PATIENCE_SECONDS: u64 = 3600;

/// How the hub and its cache are used.
#[derive(Clone)]
pub struct HubOptions {
    /// Address of the hub, without a slash at its end.
    pub endpoint: String,
    /// The folder that holds `models--org--name`.
    pub cache_dir: PathBuf,
    /// Access token for private and gated models.
    pub token: Token,
    /// Use the cache only.
    pub offline: bool,
    /// Branch, tag or commit.
    pub revision: String,
    /// Time until a connection is there, an answer begins, and the next part of it arrives.
    pub patience: Duration,
    /// Watches downloads.
    pub progress: Arc<dyn FetchProgress>,
    /// Weights of components that come from files, and are not fetched.
    pub files: Vec<GivenFile>,
    /// What has configurations, tokenizers and missing parts of a model that is one file.
    pub config_from: Option<String>,
    /// Which weights are read of a component that has them, such as `fp16`.
    pub variant: Option<String>,
}

impl HubOptions {
    /// Reads what huggingface_hub reads: `HF_ENDPOINT`; `HF_HUB_CACHE` (or `HUGGINGFACE_HUB_CACHE`), `HF_HOME`,
    /// `XDG_CACHE_HOME`; `HF_TOKEN` (or `HUGGING_FACE_HUB_TOKEN`), or the token file that `hf auth login` writes
    /// (`HF_TOKEN_PATH`); `HF_HUB_OFFLINE` (or `TRANSFORMERS_OFFLINE`); `HF_HUB_DOWNLOAD_TIMEOUT` in seconds. In paths, `~` and `$NAME` stand for what
    /// they do in a shell. The revision is `main`, and downloads are logged.
    pub fn from_env() -> Self {
        Self::from_variables(&Variables::of_process())
    }

    fn from_variables(variables: &Variables<'_>) -> Self {
        let hub_home = variables.path(&["HF_HOME"]).unwrap_or_else(|| {
            variables.path(&["XDG_CACHE_HOME"]).unwrap_or_else(|| variables.home().join(".cache")).join("huggingface")
        });
        let cache_dir = variables.path(&["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"]);
        let token = variables.first(&["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"]);
        let token = token.map_or(Token::Absent, |(name, value)| Token::from_variable(name, &value));
        let token_file = || variables.path(&["HF_TOKEN_PATH"]).unwrap_or_else(|| hub_home.join("token"));
        let endpoint = variables.first(&["HF_ENDPOINT"]).map(|(_, value)| value);
        let offline = variables.first(&["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]);
        Self {
            endpoint: endpoint.as_deref().unwrap_or(DEFAULT_ENDPOINT).trim().trim_end_matches('/').to_string(),
            token: if token == Token::Absent { Token::from_file(&token_file()) } else { token },
            cache_dir: cache_dir.unwrap_or_else(|| hub_home.join("hub")),
            offline: offline.is_some_and(|(_, value)| is_on(&value)),
            revision: DEFAULT_REVISION.to_string(),
            patience: patience(variables),
            progress: Arc::new(LoggedProgress::default()),
            files: Vec::new(),
            config_from: None,
            variant: None,
        }
    }

    /// The same options with weights of components from files.
    pub fn with_files(self, files: Vec<GivenFile>) -> Self {
        Self { files, ..self }
    }

    /// The same options for a model that is one file: a folder or a hub id that has all that such files lack.
    pub fn with_config_from(self, config_from: Option<String>) -> Self {
        Self { config_from, ..self }
    }

    /// The same options for weights of a variant.
    pub fn with_variant(self, variant: impl Into<String>) -> Self {
        Self { variant: Some(variant.into()), ..self }
    }

    /// The same options for another branch, tag or commit.
    pub fn with_revision(self, revision: impl Into<String>) -> Self {
        Self { revision: revision.into(), ..self }
    }

    /// The same options with another watcher of downloads.
    pub fn with_progress(self, progress: impl FetchProgress + 'static) -> Self {
        Self { progress: Arc::new(progress), ..self }
    }

    pub(super) fn selection(&self) -> Selection<'_> {
        Selection { variant: self.variant.as_deref(), files: &self.files }
    }
}

/// Of `HF_HUB_DOWNLOAD_TIMEOUT`.
fn patience(variables: &Variables<'_>) -> Duration {
    let Some((name, value)) = variables.first(&["HF_HUB_DOWNLOAD_TIMEOUT"]) else {
        return Duration::from_secs(DEFAULT_PATIENCE_SECONDS);
    };
    let seconds = value.trim().parse().ok().filter(|seconds| (1..=MAX_PATIENCE_SECONDS).contains(seconds));
    Duration::from_secs(seconds.unwrap_or_else(|| {
        tracing::warn!(
            "{name} is no number of seconds from 1 to {MAX_PATIENCE_SECONDS}; {DEFAULT_PATIENCE_SECONDS} it is"
        );
        DEFAULT_PATIENCE_SECONDS
    }))
}

/// What huggingface_hub takes for "on".
fn is_on(value: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&value.trim().to_ascii_lowercase().as_str())
}

impl fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubOptions")
            .field("endpoint", &self.endpoint)
            .field("cache_dir", &self.cache_dir)
            .field("token", &self.token)
            .field("offline", &self.offline)
            .field("revision", &self.revision)
            .field("patience", &self.patience)
            .field("files", &self.files)
            .field("config_from", &self.config_from)
            .field("variant", &self.variant)
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
        HubOptions::from_variables(&Variables::new(&lookup, Some(PathBuf::from("/home/me"))))
    }

    #[test]
    fn defaults_are_the_hubs() {
        let options = from(&[]);
        assert_eq!(options.endpoint, "https://huggingface.co");
        assert_eq!(options.cache_dir, PathBuf::from("/home/me/.cache/huggingface/hub"));
        assert_eq!(options.token, Token::Absent);
        assert!(!options.offline);
        assert_eq!(options.revision, "main");
    }

    #[test]
    fn the_most_precise_cache_variable_wins() {
        let xdg = ("XDG_CACHE_HOME", "/xdg");
        let home = ("HF_HOME", "/hf");
        let old = ("HUGGINGFACE_HUB_CACHE", "/old");
        let cache = ("HF_HUB_CACHE", "/cache");
        assert_eq!(from(&[xdg]).cache_dir, PathBuf::from("/xdg/huggingface/hub"));
        assert_eq!(from(&[xdg, home]).cache_dir, PathBuf::from("/hf/hub"));
        assert_eq!(from(&[xdg, home, old]).cache_dir, PathBuf::from("/old"));
        assert_eq!(from(&[xdg, home, old, cache]).cache_dir, PathBuf::from("/cache"));
    }

    #[test]
    fn paths_are_expanded_as_huggingface_hub_does() {
        let user = ("USER", "me");
        for (variable, expected) in [
            (("HF_HOME", "~/hf"), "/home/me/hf/hub"),
            (("HF_HOME", "$HOME/hf"), "/home/me/hf/hub"),
            (("HF_HOME", "/data/${USER}/hf"), "/data/me/hf/hub"),
            (("XDG_CACHE_HOME", "~/cache"), "/home/me/cache/huggingface/hub"),
            (("HF_HUB_CACHE", "~/hub"), "/home/me/hub"),
            (("HUGGINGFACE_HUB_CACHE", "$HOME/hub"), "/home/me/hub"),
        ] {
            assert_eq!(
                from(&[variable, user, ("HOME", "/home/me")]).cache_dir,
                PathBuf::from(expected),
                "{variable:?}"
            );
        }
    }

    #[test]
    fn patience_is_a_bounded_number_of_seconds() {
        for (value, seconds) in [("10", 10), ("", 60), ("0", 60), ("3601", 60), ("-1", 60), ("inf", 60)] {
            let found = from(&[("HF_HUB_DOWNLOAD_TIMEOUT", value)]).patience;
            assert_eq!(found, Duration::from_secs(seconds), "{value}");
        }
    }

    #[test]
    fn offline_is_on_for_words_that_say_so() {
        for (value, offline) in [("1", true), ("True", true), ("0", false), ("", false)] {
            assert_eq!(from(&[("HF_HUB_OFFLINE", value)]).offline, offline, "{value}");
            assert_eq!(from(&[("TRANSFORMERS_OFFLINE", value)]).offline, offline, "{value}");
        }
    }

    #[test]
    fn token_comes_from_the_variable_or_the_login_file_and_stays_hidden() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("token"), "hf_file\n").unwrap();
        let home = ("HF_HOME", home.path().to_str().unwrap());
        assert_eq!(from(&[home]).token.valid(), Some("hf_file"));
        let file = format!("{}/token", home.1);
        assert_eq!(from(&[("HF_TOKEN_PATH", &file)]).token.valid(), Some("hf_file"));
        assert_eq!(from(&[("HUGGING_FACE_HUB_TOKEN", "hf_old"), home]).token.valid(), Some("hf_old"));
        let options = from(&[home, ("HF_TOKEN", "hf_variable"), ("HF_ENDPOINT", "http://hub/")]);
        assert_eq!(options.token.valid(), Some("hf_variable"));
        assert_eq!(options.endpoint, "http://hub");
        assert!(!format!("{options:?}").contains("hf_variable"));
    }
}
