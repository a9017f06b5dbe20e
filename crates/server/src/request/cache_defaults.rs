//! The server's own cache settings, and how a request's settings combine with them.
//!
//! A request that names the server's backend (or none at all) changes single keys of the server's
//! configuration; a request that names another backend starts from that backend's defaults. As
//! everywhere in a request, `null` counts as absent. What a request has from the server and cannot have with
//! its number of steps is left out of it, with a warning: it did not ask for it.

use afterimage_cache::{CacheBackend, CacheConfig, ConfigError};
use serde_json::{Map, Value};

/// What a request gets that says nothing about caching.
#[derive(Debug, Clone)]
pub(crate) struct CacheDefaults {
    keys: Map<String, Value>,
    config: CacheConfig,
}

/// The cache settings of a request that cannot be used.
#[derive(Debug, PartialEq)]
pub(crate) struct CacheFault {
    /// The request field at fault, dotted.
    pub(crate) param: String,
    /// What was found and what would be right.
    pub(crate) message: String,
}

impl CacheDefaults {
    /// Parses the configuration once, so that a server with a broken one never starts.
    pub(crate) fn new(backend: CacheBackend, keys: Map<String, Value>) -> Result<Self, ConfigError> {
        let config = CacheConfig::parse(backend, &keys)?.inherited_but(&Map::new());
        Ok(Self { keys, config })
    }

    pub(crate) fn backend(&self) -> CacheBackend {
        self.config.backend()
    }

    /// The keys as they were given.
    pub(crate) fn keys(&self) -> &Map<String, Value> {
        &self.keys
    }

    /// The configuration for a request that leaves everything to the server, also its steps: where the settings
    /// repeat their number, that is what they have to be.
    pub(crate) fn for_defaults(&self) -> CacheConfig {
        let steps = self.keys.get_key_value("num_inference_steps").map(|(key, value)| (key.clone(), value.clone()));
        self.config.clone().inherited_but(&steps.into_iter().collect())
    }

    /// The configuration of a request with these `cache_backend` and `cache_config` fields.
    pub(crate) fn for_request(
        &self,
        backend: Option<&str>,
        keys: Option<&Map<String, Value>>,
    ) -> Result<CacheConfig, CacheFault> {
        let named = backend.map(str::parse::<CacheBackend>).transpose();
        let named = named.map_err(|error| CacheFault { param: "cache_backend".to_owned(), message: error.message })?;
        let backend = named.unwrap_or(self.backend());
        let is_own = backend == self.backend();
        let Some(keys) = keys else {
            return if is_own { Ok(self.config.clone()) } else { parse(backend, &Map::new()) };
        };
        if named.is_none() && backend == CacheBackend::None {
            return Err(needs_backend());
        }
        if !is_own {
            return parse(backend, keys);
        }
        Ok(parse(backend, &CacheConfig::merge(&self.keys, keys))?.inherited_but(keys))
    }
}

fn parse(backend: CacheBackend, keys: &Map<String, Value>) -> Result<CacheConfig, CacheFault> {
    CacheConfig::parse(backend, keys).map_err(CacheFault::from)
}

impl From<ConfigError> for CacheFault {
    fn from(error: ConfigError) -> Self {
        Self {
            param: error.key.map_or_else(|| "cache_config".to_owned(), |key| format!("cache_config.{key}")),
            message: error.message,
        }
    }
}

fn needs_backend() -> CacheFault {
    let backends = CacheBackend::ALL.into_iter().filter(|backend| *backend != CacheBackend::None);
    let backends: Vec<_> = backends.map(CacheBackend::as_str).collect();
    CacheFault {
        param: "cache_backend".to_owned(),
        message: format!(
            "`cache_config` has no effect: no cache backend is in force; set `cache_backend` too ({})",
            backends.join(", ")
        ),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keys(keys: Value) -> Map<String, Value> {
        keys.as_object().unwrap().clone()
    }

    fn caching_server() -> CacheDefaults {
        let own = keys(json!({"Fn_compute_blocks": 2, "residual_diff_threshold": 0.12}));
        CacheDefaults::new(CacheBackend::CacheDit, own).unwrap()
    }

    fn plain_server() -> CacheDefaults {
        CacheDefaults::new(CacheBackend::None, Map::new()).unwrap()
    }

    fn cache_dit(settings: Value) -> CacheConfig {
        CacheConfig::parse(CacheBackend::CacheDit, &keys(settings)).unwrap()
    }

    #[test]
    fn a_request_that_says_nothing_gets_the_servers_settings() {
        let server = caching_server();
        assert_eq!(server.for_request(None, None).unwrap(), server.config);
        assert_eq!(server.for_request(Some("cache_dit"), None).unwrap(), server.config);
    }

    #[test]
    fn keys_are_merged_over_the_servers_for_the_same_backend() {
        let merged = cache_dit(json!({"Fn_compute_blocks": 3, "residual_diff_threshold": 0.12}));
        let request = keys(json!({"Fn_compute_blocks": 3, "residual_diff_threshold": null}));
        let merged = merged.inherited_but(&request);
        assert_eq!(caching_server().for_request(None, Some(&request)).unwrap(), merged);
        assert_eq!(caching_server().for_request(Some("cache_dit"), Some(&request)).unwrap(), merged);
    }

    #[test]
    fn only_what_a_request_did_not_ask_for_may_be_left_out_of_it() {
        let own = keys(json!({"steps_computation_mask": [1, 0], "num_inference_steps": 2}));
        let server = CacheDefaults::new(CacheBackend::CacheDit, own).unwrap();
        let inherited = |request: Option<Value>| {
            let request = request.map(keys);
            match server.for_request(None, request.as_ref()).unwrap() {
                CacheConfig::CacheDit(config) => (config.inherited.steps_mask, config.inherited.num_inference_steps),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(inherited(None), (true, true));
        assert_eq!(inherited(Some(json!({"Fn_compute_blocks": 2, "num_inference_steps": null}))), (true, true));
        assert_eq!(inherited(Some(json!({"num_inference_steps": 2}))), (true, false));
        assert_eq!(inherited(Some(json!({"scm_steps_mask_policy": "fast"}))), (false, true));
    }

    #[test]
    fn another_backend_starts_from_its_own_defaults() {
        let request = keys(json!({"Bn_compute_blocks": 1}));
        assert_eq!(
            plain_server().for_request(Some("cache_dit"), Some(&request)).unwrap(),
            cache_dit(json!({"Bn_compute_blocks": 1}))
        );
        assert_eq!(plain_server().for_request(Some("cache_dit"), None).unwrap(), cache_dit(json!({})));
        assert_eq!(caching_server().for_request(Some("none"), None).unwrap(), CacheConfig::None);
    }

    #[test]
    fn what_cannot_be_used_names_its_field() {
        let typo = keys(json!({"Fn_compute_block": null}));
        let fault = |server: CacheDefaults, backend, keys| server.for_request(backend, keys).unwrap_err().param;
        assert_eq!(fault(plain_server(), None, Some(&typo)), "cache_backend");
        assert_eq!(fault(plain_server(), Some("cachedit"), None), "cache_backend");
        assert_eq!(fault(caching_server(), None, Some(&typo)), "cache_config.Fn_compute_block");
        assert_eq!(fault(caching_server(), Some("none"), Some(&typo)), "cache_config.Fn_compute_block");
    }
}
