//! Flags about who may use the server, and how much of it.

use std::num::NonZeroU32;
use std::path::{Path, PathBuf};

use super::within::positive;
use crate::api::{Access, AccessSettings, AllowedOrigin, ApiKeys, ClientBounds};
use crate::error::ProgramError;
use crate::secret::Secret;

/// Keys, their bounds, and other people's web pages.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Access")]
pub(crate) struct AccessArgs {
    /// Keys that open /v1, each KEY or NAME:KEY, sent as `Authorization: Bearer KEY` (or `api-key: KEY`, `x-api-key:
    /// KEY`). Others see the flags of a process, so use the variable or a file. [default: the API is open]
    #[arg(long, env = "AFTERIMAGE_API_KEY", hide_env_values = true, value_delimiter = ',', value_name = "KEY,...")]
    api_key: Vec<Secret>,
    /// File of keys, one KEY or NAME:KEY per line; lines that begin with # are ignored
    #[arg(long, env = "AFTERIMAGE_API_KEY_FILE", hide_env_values = true, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Take keys of fewer than 16 characters, which can be guessed, also where other machines can reach the server; where only
    /// this one can, they are taken with a warning
    #[arg(long, env = "AFTERIMAGE_ALLOW_SHORT_KEYS", hide_env_values = true, value_name = "true|false",
        num_args = 0..=1, action = clap::ArgAction::Set, default_value_t = false, default_missing_value = "true")]
    allow_short_keys: bool,
    /// Require a key for /metrics too
    #[arg(long, env = "AFTERIMAGE_PROTECT_METRICS", hide_env_values = true, value_name = "true|false",
        num_args = 0..=1, action = clap::ArgAction::Set, default_value_t = false, default_missing_value = "true")]
    protect_metrics: bool,
    /// Require a key for /health and /health/ready too; /health/live never needs one
    #[arg(long, env = "AFTERIMAGE_PROTECT_HEALTH", hide_env_values = true, value_name = "true|false",
        num_args = 0..=1, action = clap::ArgAction::Set, default_value_t = false, default_missing_value = "true")]
    protect_health: bool,
    /// Requests for work (POST below /v1) per minute and key, or per address where there are no keys; one
    /// more is answered 429. After a quiet minute that many may come at once [default: no limit]
    #[arg(long, env = "AFTERIMAGE_RATE_LIMIT", hide_env_values = true, value_name = "REQUESTS",
        value_parser = positive)]
    rate_limit: Option<NonZeroU32>,
    /// Requests for work at a time per key, or per address where there are no keys, streams and jobs
    /// included; one more is answered 429 [default: no limit]
    #[arg(long, env = "AFTERIMAGE_MAX_CONCURRENT_PER_KEY", hide_env_values = true, value_name = "REQUESTS",
        value_parser = positive)]
    max_concurrent_per_key: Option<NonZeroU32>,
    /// Requests of any kind in flight per key, or per address where there is no key, until their answers are taken; one
    /// more is answered 429. Probes and /metrics are not counted
    #[arg(
        long,
        env = "AFTERIMAGE_MAX_OPEN_PER_CLIENT",
        hide_env_values = true,
        value_name = "REQUESTS",
        value_parser = positive,
        default_value = "512"
    )]
    max_open_per_client: NonZeroU32,
    /// Origins whose web pages may use the API from a browser, such as https://app.example.com; `*` is
    /// every origin [default: none]
    #[arg(
        long,
        env = "AFTERIMAGE_ALLOWED_ORIGINS",
        hide_env_values = true,
        value_delimiter = ',',
        value_name = "ORIGIN,..."
    )]
    allowed_origins: Vec<AllowedOrigin>,
}

impl AccessArgs {
    /// The settings that these flags make, if they can be used.
    pub(super) fn settings(&self) -> Result<AccessSettings, ProgramError> {
        let (access, client_bounds) = (self.access()?, self.bounds());
        Ok(AccessSettings {
            access,
            client_bounds,
            max_open: Some(self.max_open_per_client),
            allowed_origins: self.allowed_origins.clone(),
            allows_short_keys: self.allow_short_keys,
            local_host: None,
        })
    }

    /// The keys and what they protect, if they can be used.
    fn access(&self) -> Result<Access, ProgramError> {
        let mut keys = ApiKeys::default();
        for key in &self.api_key {
            keys.add(key).map_err(|message| ProgramError::setting("api-key", message))?;
        }
        if let Some(path) = &self.api_key_file {
            let fault = |message| ProgramError::setting("api-key-file", format!("{}{message}", path.display()));
            add_file(&mut keys, path).map_err(fault)?;
        }
        for (flag, is_set) in [("protect-metrics", self.protect_metrics), ("protect-health", self.protect_health)] {
            if is_set && keys.is_empty() {
                return Err(ProgramError::setting(flag, "it has no effect without --api-key or --api-key-file"));
            }
        }
        Ok(Access { keys, protects_metrics: self.protect_metrics, protects_health: self.protect_health })
    }

    fn bounds(&self) -> ClientBounds {
        ClientBounds { requests_per_minute: self.rate_limit, max_concurrent: self.max_concurrent_per_key }
    }
}

/// The error continues the file's name.
fn add_file(keys: &mut ApiKeys, path: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!(": the file cannot be read: {error}"))?;
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    let mut is_empty = true;
    for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        keys.add(&Secret::from(line)).map_err(|message| format!(", line {number}: {message}"))?;
        is_empty = false;
    }
    if is_empty { Err(" has no keys; without one the API would be open".to_owned()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(api_key: &[&str], file: Option<&str>) -> Result<Access, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        if let Some(text) = file {
            std::fs::write(&path, text).unwrap();
        }
        let args = AccessArgs {
            api_key: api_key.iter().copied().map(Secret::from).collect(),
            api_key_file: file.map(|_| path.clone()),
            allow_short_keys: false,
            protect_metrics: false,
            protect_health: false,
            rate_limit: None,
            max_concurrent_per_key: None,
            max_open_per_client: NonZeroU32::MIN,
            allowed_origins: Vec::new(),
        };
        args.access().map_err(|error| error.to_string().replace(path.to_str().unwrap(), "KEYS"))
    }

    #[test]
    fn keys_come_from_flags_and_from_a_file() {
        let keys = args(&["sk-a"], Some("# people\n\nalice:sk-b\n  sk-c  \n")).unwrap().keys;
        let names = ["sk-a", "sk-b", "sk-c"].map(|key| keys.find(key.as_bytes()).map(|index| keys.name(index)));
        assert_eq!(names, [Some("key-1"), Some("alice"), Some("key-3")]);
        assert_eq!(keys.find(b"# people"), None);
    }

    #[test]
    fn a_file_that_cannot_be_used_is_told_without_its_keys() {
        for (file, fault) in [
            ("", "--api-key-file: KEYS has no keys"),
            ("# sk-secret\n", "--api-key-file: KEYS has no keys"),
            ("sk-a\nsk secret", "--api-key-file: KEYS, line 2: the key `key-2` has a character"),
        ] {
            let message = args(&[], Some(file)).unwrap_err();
            assert!(message.starts_with(fault) && !message.contains("secret"), "{message}");
        }
        assert!(args(&[""], None).unwrap_err().starts_with("--api-key: the key `key-1` is empty"));
    }

    #[test]
    fn without_keys_nothing_can_be_protected() {
        let mut args = AccessArgs {
            api_key: Vec::new(),
            api_key_file: None,
            allow_short_keys: false,
            protect_metrics: true,
            protect_health: false,
            rate_limit: None,
            max_concurrent_per_key: None,
            max_open_per_client: NonZeroU32::MIN,
            allowed_origins: Vec::new(),
        };
        assert!(args.access().unwrap_err().to_string().starts_with("--protect-metrics: it has no effect"));
        args.protect_metrics = false;
        assert!(args.access().unwrap().keys.is_empty());
    }
}
