//! Flags about caching. A configuration that cannot be used is refused before anything is loaded.

use afterimage_cache::CacheBackend;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::{Map, Value};

use super::error::CliError;
use crate::api::{kind_of, parse_json};
use crate::cache_defaults::CacheDefaults;

/// What requests get that say nothing about caching.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Cache")]
pub(crate) struct CacheArgs {
    /// Cache backend
    #[arg(long, env = "AFTERIMAGE_CACHE_BACKEND", hide_env_values = true, value_parser = backends(), default_value = "none")]
    cache_backend: CacheBackend,
    /// The backend's configuration, with the keys of a request's `cache_config`, such as
    /// '{"Fn_compute_blocks": 4, "residual_diff_threshold": 0.12}' [default: the backend's defaults]
    #[arg(long, env = "AFTERIMAGE_CACHE_CONFIG", hide_env_values = true, value_name = "JSON")]
    cache_config: Option<String>,
}

impl CacheArgs {
    /// The settings, if they can be used.
    pub(crate) fn defaults(&self) -> Result<CacheDefaults, CliError> {
        let keys = self.cache_config.as_deref().map_or_else(|| Ok(Map::new()), parse_keys)?;
        if self.cache_config.is_some() && self.cache_backend == CacheBackend::None {
            let message = "--cache-config has no effect: --cache-backend is `none`; choose another backend";
            return Err(CliError::Usage(message.to_owned()));
        }
        CacheDefaults::new(self.cache_backend, keys)
            .map_err(|error| CliError::Usage(format!("--cache-config: {error}")))
    }
}

fn parse_keys(text: &str) -> Result<Map<String, Value>, CliError> {
    match parse_json(text) {
        Ok(Value::Object(keys)) => Ok(keys),
        Ok(value) => {
            let message = format!("--cache-config is {} in JSON; it must be an object", kind_of(&value));
            Err(CliError::Usage(message))
        }
        Err(error) => Err(CliError::Usage(format!("--cache-config is not valid JSON: {error}"))),
    }
}

fn backends() -> impl TypedValueParser<Value = CacheBackend> {
    PossibleValuesParser::new(CacheBackend::ALL.map(CacheBackend::as_str)).try_map(|name| name.parse::<CacheBackend>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(cache_backend: CacheBackend, cache_config: &str) -> String {
        let args = CacheArgs { cache_backend, cache_config: Some(cache_config.to_owned()) };
        args.defaults().unwrap_err().to_string()
    }

    #[test]
    fn a_configuration_that_cannot_be_used_names_flag_and_key() {
        for (config, named) in [
            ("{\"Fn_compute_blocks\": 4", "not valid JSON"),
            ("[4]", "a list"),
            ("{\"Fn_compute_block\": 4}", "`Fn_compute_block`"),
            ("{\"Fn_compute_blocks\": 0}", "`Fn_compute_blocks` is 0"),
            ("{\"Fn_compute_blocks\": 1, \"Fn_compute_blocks\": 2}", "comes twice"),
        ] {
            let message = refusal(CacheBackend::CacheDit, config);
            assert!(message.starts_with("--cache-config") && message.contains(named), "{message}");
        }
        assert!(refusal(CacheBackend::None, "{}").contains("--cache-backend is `none`"));
    }

    #[test]
    fn without_flags_there_is_no_cache() {
        let args = CacheArgs { cache_backend: CacheBackend::None, cache_config: None };
        assert_eq!(args.defaults().unwrap().backend(), CacheBackend::None);
    }
}
