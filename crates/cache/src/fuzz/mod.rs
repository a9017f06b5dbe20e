//! What fuzzers call, and what the tests replay: each reads bytes of strangers as the program does.
//!
//! Whatever comes, the outcome is a value or an error. `fuzz/` has the targets and their seeds.

mod decision_trace;

pub use decision_trace::decision_trace;
use serde_json::{Map, Value};

use crate::plan::ModelFacts;
use crate::{CacheBackend, CacheConfig, CachePlan, ModelFit};

/// Steps of requests.
const STEPS: [usize; 5] = [1, 2, 7, 28, 200];

/// `cache_config` of a request, for every backend, over the backend's defaults and over itself.
pub fn cache_config(bytes: &[u8]) {
    let Ok(keys) = serde_json::from_slice::<Map<String, Value>>(bytes) else { return };
    for backend in CacheBackend::ALL {
        for keys in [&keys, &CacheConfig::merge(&keys, &keys)] {
            if let Ok(config) = CacheConfig::parse(backend, keys) {
                plan(&config, None);
                plan(&config.inherited_but(&Map::new()), None);
            }
        }
    }
}

/// `cache_fit.json`, and the plans made with it.
pub fn model_fit(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(fit) = ModelFit::from_json(text) else { return };
    for backend in CacheBackend::ALL {
        let config = CacheConfig::parse(backend, &Map::new());
        config.iter().for_each(|config| plan(config, Some(&fit)));
    }
}

fn plan(config: &CacheConfig, fit: Option<&ModelFit>) {
    for blocks in [&[1][..], &[28], &[19, 38]] {
        let facts = ModelFacts {
            blocks,
            separate_cfg: blocks.len() > 1,
            tea_cache_coefficients: fit.map(|fit| fit.tea_cache_coefficients),
            mag_ratios: fit.map(|fit| &fit.mag_ratios[..]),
            long_skips: if blocks.len() > 1 { 0 } else { blocks[0] / 3 },
            streams_join_at: (blocks.len() > 1).then_some(1),
        };
        for steps in STEPS {
            let plan = CachePlan::new(config, steps, facts);
            if let Ok(plan) = plan {
                plan.effective_config();
                plan.tag(steps / 2, None);
                plan.warnings();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    include!("../../../../fuzz/replay.rs");

    #[test]
    fn seeds_are_read() {
        replay("cache_config", super::cache_config);
        replay("model_fit", super::model_fit);
        replay("decision_trace", super::decision_trace);
    }
}
