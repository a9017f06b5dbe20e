//! Flags about caching. A configuration that cannot be used is refused before anything is loaded.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use serde_json::{Map, Value};

use crate::error::ProgramError;
use crate::request::{BackendName, CacheDefaults, kind_of, parse_json};

/// Keys of a cache configuration, not yet looked at.
type Keys = Map<String, Value>;

/// What requests get that say nothing about caching.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Cache")]
pub(crate) struct CacheArgs {
    /// Cache backend; `auto` is the fastest setting in the model's cache_profile.json that holds a floor
    #[arg(long, env = "AFTERIMAGE_CACHE_BACKEND", hide_env_values = true, value_parser = backends(), default_value = "none")]
    cache_backend: BackendName,
    /// The backend's configuration, with the keys of a request's `cache_config`, such as
    /// '{"Fn_compute_blocks": 4, "residual_diff_threshold": 0.12}'; of `auto` the floor, '{"min_psnr": 30}' or
    /// '{"min_ssim": 0.95}' [default: the backend's defaults; of `auto` 30 dB]
    #[arg(long, env = "AFTERIMAGE_CACHE_CONFIG", hide_env_values = true, value_name = "JSON",
        value_parser = parse_keys)]
    cache_config: Option<Keys>,
}

impl CacheArgs {
    /// The settings, if they can be used.
    pub(crate) fn defaults(&self) -> Result<CacheDefaults, ProgramError> {
        if self.cache_config.is_some() && self.cache_backend == BackendName::NONE {
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

fn backends() -> impl TypedValueParser<Value = BackendName> {
    let names = PossibleValuesParser::new(BackendName::ALL.map(BackendName::as_str));
    // The names were compared already, so this cannot fail.
    names.map(|name| name.parse().unwrap_or(BackendName::NONE))
}

#[cfg(test)]
mod tests {
    use afterimage_cache::CacheBackend;

    use super::*;

    fn refusal(cache_backend: BackendName, cache_config: &str) -> String {
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
            let message = refusal(BackendName::Method(CacheBackend::CacheDit), config);
            assert!(message.starts_with("--cache-config: ") && message.contains(named), "{message}");
        }
        let message = refusal(BackendName::Auto, "{\"min_snr\": 30}");
        assert!(message.starts_with("--cache-config: unknown key `min_snr`"), "{message}");
        assert!(refusal(BackendName::NONE, "{}").contains("--cache-backend is `none`"));
    }

    #[test]
    fn a_text_that_is_no_object_is_refused() {
        for (config, named) in [
            ("{\"Fn_compute_blocks\": 4", "not valid JSON"),
            ("[4]", "a list"),
            ("{\"Fn_compute_blocks\": 1, \"Fn_compute_blocks\": 2}", "comes twice"),
        ] {
            let message = refusal(BackendName::Method(CacheBackend::CacheDit), config);
            assert!(message.contains(named), "{message}");
        }
    }

    #[test]
    fn without_flags_there_is_no_cache() {
        let args = CacheArgs { cache_backend: BackendName::NONE, cache_config: None };
        assert_eq!(args.defaults().unwrap().backend(), BackendName::NONE);
    }
}
