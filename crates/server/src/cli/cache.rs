//! Flags about caching. A configuration that cannot be used is refused before anything is loaded.

use afterimage_cache::CacheBackend;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::{Map, Value};

use crate::error::ProgramError;
use crate::request::{CacheDefaults, kind_of, parse_json};

/// Keys of a cache configuration, not yet looked at.
type Keys = Map<String, Value>;

/// What requests get that say nothing about caching.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Cache")]
pub(crate) struct CacheArgs {
    /// Cache backend
    #[arg(long, env = "AFTERIMAGE_CACHE_BACKEND", hide_env_values = true, value_parser = backends(), default_value = "none")]
    cache_backend: CacheBackend,
    /// The backend's configuration, with the keys of a request's `cache_config`, such as
    /// '{"Fn_compute_blocks": 4, "residual_diff_threshold": 0.12}' [default: the backend's defaults]
    #[arg(long, env = "AFTERIMAGE_CACHE_CONFIG", hide_env_values = true, value_name = "JSON",
        value_parser = parse_keys)]
    cache_config: Option<Keys>,
}

impl CacheArgs {
    /// The settings, if they can be used.
    pub(crate) fn defaults(&self) -> Result<CacheDefaults, ProgramError> {
        if self.cache_config.is_some() && self.cache_backend == CacheBackend::None {
            let message = "it has no effect: --cache-backend is `none`; choose another backend";
            return Err(ProgramError::setting("cache-config", message));
        }
        let keys = self.cache_config.clone().unwrap_or_default();
        CacheDefaults::new(self.cache_backend, keys)
            .map_err(|error| ProgramError::setting("cache-config", error.to_string()))
    }
}

fn parse_keys(text: &str) -> Result<Keys, String> {
    match parse_json(text) {
        Ok(Value::Object(keys)) => Ok(keys),
        Ok(value) => Err(format!("this is {} in JSON; it must be an object", kind_of(&value))),
        Err(error) => Err(format!("this is not valid JSON: {error}")),
    }
}

fn backends() -> impl TypedValueParser<Value = CacheBackend> {
    PossibleValuesParser::new(CacheBackend::ALL.map(CacheBackend::as_str)).try_map(|name| name.parse::<CacheBackend>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(cache_backend: CacheBackend, cache_config: &str) -> String {
        let keys = match parse_keys(cache_config) {
            Ok(keys) => keys,
            Err(message) => return message,
        };
        CacheArgs { cache_backend, cache_config: Some(keys) }.defaults().unwrap_err().to_string()
    }

    #[test]
    fn a_configuration_that_cannot_be_used_names_flag_and_key() {
        for (config, named) in [
            ("{\"Fn_compute_block\": 4}", "`Fn_compute_block`"),
            ("{\"Fn_compute_blocks\": 0}", "`Fn_compute_blocks` is 0"),
        ] {
            let message = refusal(CacheBackend::CacheDit, config);
            assert!(message.starts_with("--cache-config: ") && message.contains(named), "{message}");
        }
        assert!(refusal(CacheBackend::None, "{}").contains("--cache-backend is `none`"));
    }

    #[test]
    fn a_text_that_is_no_object_is_refused() {
        for (config, named) in [
            ("{\"Fn_compute_blocks\": 4", "not valid JSON"),
            ("[4]", "a list"),
            ("{\"Fn_compute_blocks\": 1, \"Fn_compute_blocks\": 2}", "comes twice"),
        ] {
            let message = refusal(CacheBackend::CacheDit, config);
            assert!(message.contains(named), "{message}");
        }
    }

    #[test]
    fn without_flags_there_is_no_cache() {
        let args = CacheArgs { cache_backend: CacheBackend::None, cache_config: None };
        assert_eq!(args.defaults().unwrap().backend(), CacheBackend::None);
    }
}
