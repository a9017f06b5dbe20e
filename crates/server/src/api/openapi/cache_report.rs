//! What a response says the cache did: [`afterimage_cache::CacheReport`] as documentation.

#![allow(dead_code, reason = "documentation: the types are never built")]

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::cache_settings::CacheBackendName;
use crate::auto_cache::AutoChoice;

/// What the cache did
#[derive(Serialize, ToSchema)]
#[schema(as = CacheReport)]
pub(in crate::api) struct CacheReportSchema {
    backend: CacheBackendName,
    /// Every key in force; can be sent back as it is
    config: BTreeMap<String, Value>,
    /// cache-dit's name for the first image's run; null for other backends
    #[schema(required)]
    tag: Option<String>,
    /// Denoising steps of every image
    #[schema(minimum = 1)]
    steps: u32,
    /// Reused share of all passes through a block list
    #[schema(minimum = 0, maximum = 1)]
    hit_rate: f64,
    /// One entry per image
    images: Vec<CacheImage>,
    /// Only of requests with the backend `auto`
    #[schema(required = false, nullable = false)]
    auto: Option<AutoChoice>,
}

/// Decisions of one image
#[derive(Serialize, ToSchema)]
struct CacheImage {
    /// One entry per block list and guidance branch; empty without a cache
    contexts: Vec<CacheContext>,
}

/// Decisions of one image for one block list and guidance branch
#[derive(Serialize, ToSchema)]
struct CacheContext {
    /// The block list's name in diffusers
    name: String,
    branch: CacheBranch,
    /// Steps that were reused (DBPrune: in part), ascending
    cached_steps: Vec<u32>,
    /// What was compared with a threshold, by step: cache_dit the recorded distance (DBPrune: one per block),
    /// tea_cache the accumulated distance, mag_cache the accumulated error
    residual_diffs: BTreeMap<String, RecordedDistance>,
    /// By step: `cached`, or why it was computed
    reasons: BTreeMap<String, StepReason>,
    /// DBPrune only
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pruned_blocks: Option<PrunedBlocks>,
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum CacheBranch {
    All,
    Cond,
    Uncond,
}

/// A distance, `"nan"` or `"inf"`, or one of those per block
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum RecordedDistance {
    One(Distance),
    PerBlock(Vec<Distance>),
}

#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum Distance {
    Number(f64),
    Word(NumberJsonLacks),
}

#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum NumberJsonLacks {
    Nan,
    Inf,
}

/// Blocks skipped since the last forced refresh
#[derive(Serialize, ToSchema)]
struct PrunedBlocks {
    pruned: u64,
    total: u64,
}

/// Why a step was computed, or that it was not
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum StepReason {
    Cached,
    Off,
    Warmup,
    Mask,
    MaxCached,
    MaxContinuous,
    MaxAccumulated,
    ThresholdZero,
    NoReference,
    ShapeChanged,
    Distance,
    Budget,
}

#[cfg(test)]
mod tests {
    use afterimage_cache::report::PrunedBlocks;
    use afterimage_cache::{CachePlan, CacheReport, ContextReport, ImageReport, Reason};
    use serde_json::json;
    use utoipa::PartialSchema;

    use super::*;

    fn keys(object: &Value) -> Vec<&str> {
        let mut keys: Vec<_> = object.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        keys
    }

    fn properties<T: PartialSchema>() -> Value {
        serde_json::to_value(T::schema()).unwrap()["properties"].take()
    }

    #[test]
    fn the_schema_has_the_reports_keys() {
        let context = ContextReport {
            name: "transformer_blocks".to_owned(),
            branch: "all",
            cached_steps: Vec::new(),
            residual_diffs: BTreeMap::new(),
            reasons: BTreeMap::new(),
            pruned_blocks: Some(PrunedBlocks::default()),
        };
        let image = ImageReport { contexts: vec![context], ..ImageReport::default() };
        let mut report = serde_json::to_value(CacheReport::new(&CachePlan::None, 3, vec![image])).unwrap();
        // An answer adds it.
        report["auto"] = json!({});
        assert_eq!(keys(&report), keys(&properties::<CacheReportSchema>()));
        assert_eq!(keys(&report["images"][0]["contexts"][0]), keys(&properties::<CacheContext>()));
    }

    #[test]
    fn the_schema_has_every_reason() {
        let schema = serde_json::to_value(StepReason::schema()).unwrap();
        let mut named: Vec<_> = schema["enum"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
        let mut known = Reason::ALL.map(Reason::as_str);
        named.sort_unstable();
        known.sort_unstable();
        assert_eq!(named, known);
    }
}
