//! The server's own cache settings, and how a request's settings combine with them.
//!
//! A request that names the server's backend (or none at all) changes single keys of the server's
//! configuration; a request that names another backend starts from that backend's defaults. As
//! everywhere in a request, `null` counts as absent. What a request has from the server and cannot have with
//! its number of steps is left out of it, with a warning: it did not ask for it. A configuration with every key, as responses
//! show it, is taken as it is. Under `auto` there is nothing to combine: of the floors that a request and its server name,
//! the request's counts.

use afterimage_cache::{CacheBackend, CacheConfig, ConfigError};
use afterimage_study::profile::{Floor, FloorError};
use serde_json::{Map, Value};

use super::backend_name::BackendName;

/// What `auto` holds where nobody says: hardly a difference is seen at that likeness.
pub(crate) const DEFAULT_FLOOR: Floor = Floor::of_psnr(30.0);

/// What a request gets that says nothing about caching.
#[derive(Debug, Clone)]
pub(crate) struct CacheDefaults {
    keys: Map<String, Value>,
    choice: CacheChoice,
    /// The `quality` that puts them in the place of the server's.
    quality: Option<&'static str>,
}

/// How a request is cached.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant, reason = "there is one of a request, and most are the large one")]
pub(crate) enum CacheChoice {
    /// As it is configured here.
    Config(CacheConfig),
    /// By the fastest measured setting that holds this.
    Auto(Floor),
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
    pub(crate) fn new(backend: BackendName, keys: Map<String, Value>) -> Result<Self, ConfigError> {
        let choice = match backend {
            BackendName::Method(backend) => {
                refuse_floor(&keys, &format!("`cache_backend` is `{backend}`"))?;
                CacheChoice::Config(CacheConfig::parse(backend, &keys)?.inherited_but(&Map::new()))
            }
            BackendName::Auto => {
                let floor = Floor::parse(&keys);
                let floor = floor.map_err(|FloorError { key, message }| ConfigError { key: Some(key), message })?;
                CacheChoice::Auto(floor.unwrap_or(DEFAULT_FLOOR))
            }
        };
        Ok(Self { keys, choice, quality: None })
    }

    /// The same as what this `quality` stands for.
    pub(crate) fn of_quality(self, quality: &'static str) -> Self {
        Self { quality: Some(quality), ..self }
    }

    pub(crate) fn backend(&self) -> BackendName {
        match &self.choice {
            CacheChoice::Config(config) => BackendName::Method(config.backend()),
            CacheChoice::Auto(_) => BackendName::Auto,
        }
    }

    /// The keys as they were given.
    pub(crate) fn keys(&self) -> &Map<String, Value> {
        &self.keys
    }

    /// What a request gets that leaves everything to the server, also its steps: where the settings
    /// repeat their number, that is what they have to be.
    pub(crate) fn for_defaults(&self) -> CacheChoice {
        let steps = self.keys.get_key_value("num_inference_steps").map(|(key, value)| (key.clone(), value.clone()));
        match &self.choice {
            CacheChoice::Config(config) => {
                CacheChoice::Config(config.clone().inherited_but(&steps.into_iter().collect()))
            }
            CacheChoice::Auto(floor) => CacheChoice::Auto(*floor),
        }
    }

    /// What a request gets with these `cache_backend` and `cache_config` fields.
    pub(crate) fn for_request(
        &self,
        backend: Option<&str>,
        keys: Option<&Map<String, Value>>,
    ) -> Result<CacheChoice, CacheFault> {
        let named = named(backend)?;
        match named.unwrap_or(self.backend()) {
            BackendName::Auto => Ok(CacheChoice::Auto(self.floor(keys, None)?)),
            BackendName::Method(backend) => self.method(backend, named.is_some(), keys).map(CacheChoice::Config),
        }
    }

    /// Whether a request that names this backend, or none, gets what was measured to be the fastest.
    pub(crate) fn is_auto_for(&self, backend: Option<&str>) -> Result<bool, CacheFault> {
        Ok(named(backend)?.unwrap_or(self.backend()) == BackendName::Auto)
    }

    /// The floor of a request under `auto`: its own, that of its `quality`, the server's, or the usual one.
    pub(crate) fn floor(&self, keys: Option<&Map<String, Value>>, quality: Option<Floor>) -> Result<Floor, CacheFault> {
        let own = keys
            .map(Floor::parse)
            .transpose()
            .map_err(|FloorError { key, message }| CacheFault { param: format!("cache_config.{key}"), message })?;
        let servers = match self.choice {
            CacheChoice::Auto(floor) => Some(floor),
            CacheChoice::Config(_) => None,
        };
        Ok(own.flatten().or(quality).or(servers).unwrap_or(DEFAULT_FLOOR))
    }

    fn method(
        &self,
        backend: CacheBackend,
        is_named: bool,
        keys: Option<&Map<String, Value>>,
    ) -> Result<CacheConfig, CacheFault> {
        let own = match &self.choice {
            CacheChoice::Config(config) if config.backend() == backend => Some(config),
            CacheChoice::Config(_) | CacheChoice::Auto(_) => None,
        };
        let Some(keys) = keys else {
            return own.map_or_else(|| parse(backend, &Map::new()), |config| Ok(config.clone()));
        };
        let chosen = match self.quality {
            _ if is_named => format!("`cache_backend` is `{backend}`"),
            Some(quality) => format!("`quality` \"{quality}\" sets `cache_backend` to `{backend}`"),
            None => format!("this server's `cache_backend` is `{backend}`"),
        };
        let floor = refuse_floor(keys, &chosen);
        if !is_named && backend == CacheBackend::None {
            return Err(needs_backend(&chosen, floor.is_err()));
        }
        floor?;
        if own.is_none() || CacheConfig::is_whole(backend, keys) {
            return parse(backend, keys);
        }
        Ok(parse(backend, &CacheConfig::merge(&self.keys, keys))?.inherited_but(keys))
    }
}

fn named(backend: Option<&str>) -> Result<Option<BackendName>, CacheFault> {
    let fault = |message| CacheFault { param: "cache_backend".to_owned(), message };
    backend.map(str::parse).transpose().map_err(fault)
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

/// Says where a floor belongs, which stands beside a backend that holds none; `chosen` is which one, and who says so.
fn refuse_floor(keys: &Map<String, Value>, chosen: &str) -> Result<(), ConfigError> {
    let Some(key) = Floor::KEYS.into_iter().find(|key| keys.contains_key(*key)) else { return Ok(()) };
    let message = format!(
        "`{key}` is a key of the cache backend `auto`, and {chosen}; set `cache_backend` to `auto`, or leave `{key}` out"
    );
    Err(ConfigError { key: Some(key.to_owned()), message })
}

fn needs_backend(chosen: &str, is_floor: bool) -> CacheFault {
    let backends = BackendName::ALL.into_iter().filter(|backend| *backend != BackendName::NONE);
    let right: Vec<_> =
        backends.filter(|backend| !is_floor || *backend == BackendName::Auto).map(BackendName::as_str).collect();
    CacheFault {
        param: "cache_backend".to_owned(),
        message: format!("`cache_config` has no effect: {chosen}; set `cache_backend` too ({})", right.join(", ")),
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
        CacheDefaults::new(BackendName::Method(CacheBackend::CacheDit), own).unwrap()
    }

    fn plain_server() -> CacheDefaults {
        CacheDefaults::new(BackendName::NONE, Map::new()).unwrap()
    }

    fn cache_dit(settings: Value) -> CacheConfig {
        CacheConfig::parse(CacheBackend::CacheDit, &keys(settings)).unwrap()
    }

    fn config(server: &CacheDefaults, backend: Option<&str>, keys: Option<&Map<String, Value>>) -> CacheConfig {
        match server.for_request(backend, keys).unwrap() {
            CacheChoice::Config(config) => config,
            CacheChoice::Auto(floor) => panic!("{floor}"),
        }
    }

    #[test]
    fn a_request_that_says_nothing_gets_the_servers_settings() {
        let server = caching_server();
        assert_eq!(server.for_request(None, None).unwrap(), server.choice);
        assert_eq!(server.for_request(Some("cache_dit"), None).unwrap(), server.choice);
    }

    #[test]
    fn keys_are_merged_over_the_servers_for_the_same_backend() {
        let merged = cache_dit(json!({"Fn_compute_blocks": 3, "residual_diff_threshold": 0.12}));
        let request = keys(json!({"Fn_compute_blocks": 3, "residual_diff_threshold": null}));
        let merged = merged.inherited_but(&request);
        assert_eq!(config(&caching_server(), None, Some(&request)), merged);
        assert_eq!(config(&caching_server(), Some("cache_dit"), Some(&request)), merged);
    }

    #[test]
    fn only_what_a_request_did_not_ask_for_may_be_left_out_of_it() {
        let own = keys(json!({"steps_computation_mask": [1, 0], "num_inference_steps": 2}));
        let server = CacheDefaults::new(BackendName::Method(CacheBackend::CacheDit), own).unwrap();
        let inherited = |request: Option<Value>| {
            let request = request.map(keys);
            match config(&server, None, request.as_ref()) {
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
            config(&plain_server(), Some("cache_dit"), Some(&request)),
            cache_dit(json!({"Bn_compute_blocks": 1}))
        );
        assert_eq!(config(&plain_server(), Some("cache_dit"), None), cache_dit(json!({})));
        assert_eq!(config(&caching_server(), Some("none"), None), CacheConfig::None);
    }

    #[test]
    fn a_configuration_that_says_everything_is_not_merged() {
        let own = keys(json!({"steps_computation_mask": [1, 0], "max_cached_steps": 3}));
        let server = CacheDefaults::new(BackendName::Method(CacheBackend::CacheDit), own).unwrap();
        let shown = |config: &CacheConfig| {
            let facts = afterimage_cache::plan::ModelFacts { blocks: &[4], ..Default::default() };
            afterimage_cache::CachePlan::new(config, 2, facts).unwrap().effective_config()
        };
        let whole = shown(&cache_dit(json!({"residual_diff_threshold": 0.3})));
        assert_eq!(whole["steps_computation_mask"], Value::Null);
        for backend in [None, Some("cache_dit")] {
            assert_eq!(shown(&config(&server, backend, Some(&whole))), whole);
        }
        let part = keys(json!({"steps_computation_mask": null}));
        assert_eq!(shown(&config(&server, None, Some(&part)))["steps_computation_mask"], json!([1, 0]));
    }

    #[test]
    fn under_auto_the_nearest_floor_counts() {
        let server = CacheDefaults::new(BackendName::Auto, keys(json!({"min_psnr": 25}))).unwrap();
        let own = keys(json!({"min_ssim": 0.95}));
        let quality = Some(Floor::of_psnr(35.0));
        assert_eq!(server.for_request(None, None).unwrap(), CacheChoice::Auto(Floor::of_psnr(25.0)));
        assert_eq!(server.for_request(Some("auto"), Some(&own)).unwrap(), CacheChoice::Auto(Floor::of_ssim(0.95)));
        assert_eq!(server.floor(None, quality).unwrap(), Floor::of_psnr(35.0));
        assert_eq!(server.floor(Some(&own), quality).unwrap(), Floor::of_ssim(0.95));
        assert_eq!(server.floor(Some(&Map::new()), None).unwrap(), Floor::of_psnr(25.0));
        assert_eq!(plain_server().for_request(Some("auto"), None).unwrap(), CacheChoice::Auto(DEFAULT_FLOOR));
        assert_eq!(config(&server, Some("cache_dit"), None), cache_dit(json!({})));
        assert_eq!(config(&server, Some("none"), Some(&Map::new())), CacheConfig::None);
        let fault = server.for_request(None, Some(&keys(json!({"Fn_compute_blocks": 1})))).unwrap_err();
        assert_eq!(fault.param, "cache_config.Fn_compute_blocks");
        assert!(CacheDefaults::new(BackendName::Auto, keys(json!({"min_psnr": "30"}))).is_err());
    }

    #[test]
    fn a_floor_beside_another_backend_is_told_where_it_belongs() {
        let floor = keys(json!({"min_psnr": 30}));
        let fault = |server: &CacheDefaults, backend| {
            let CacheFault { param, message } = server.for_request(backend, Some(&floor)).unwrap_err();
            format!("{param}: {message}")
        };
        let quality = caching_server().of_quality("low");
        let off = plain_server().of_quality("high");
        insta::assert_snapshot!(
            [
                fault(&caching_server(), None),
                fault(&caching_server(), Some("tea_cache")),
                fault(&caching_server(), Some("none")),
                fault(&quality, None),
                fault(&off, None),
                fault(&plain_server(), None),
                CacheDefaults::new(BackendName::NONE, floor.clone()).unwrap_err().to_string(),
            ]
            .join("\n"),
            @r#"
            cache_config.min_psnr: `min_psnr` is a key of the cache backend `auto`, and this server's `cache_backend` is `cache_dit`; set `cache_backend` to `auto`, or leave `min_psnr` out
            cache_config.min_psnr: `min_psnr` is a key of the cache backend `auto`, and `cache_backend` is `tea_cache`; set `cache_backend` to `auto`, or leave `min_psnr` out
            cache_config.min_psnr: `min_psnr` is a key of the cache backend `auto`, and `cache_backend` is `none`; set `cache_backend` to `auto`, or leave `min_psnr` out
            cache_config.min_psnr: `min_psnr` is a key of the cache backend `auto`, and `quality` "low" sets `cache_backend` to `cache_dit`; set `cache_backend` to `auto`, or leave `min_psnr` out
            cache_backend: `cache_config` has no effect: `quality` "high" sets `cache_backend` to `none`; set `cache_backend` too (auto)
            cache_backend: `cache_config` has no effect: this server's `cache_backend` is `none`; set `cache_backend` too (auto)
            `min_psnr` is a key of the cache backend `auto`, and `cache_backend` is `none`; set `cache_backend` to `auto`, or leave `min_psnr` out
            "#
        );
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
