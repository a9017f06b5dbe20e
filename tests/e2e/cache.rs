//! Caching per request, seen from outside.

use serde_json::{Value, json};

use crate::picture::Picture;
use crate::server::shared;

/// Every reason a step can have.
const REASONS: [&str; 12] = [
    "cached",
    "off",
    "warmup",
    "mask",
    "max_cached",
    "max_continuous",
    "max_accumulated",
    "threshold_zero",
    "no_reference",
    "shape_changed",
    "distance",
    "budget",
];

fn request(cache: Value) -> Value {
    let mut request = json!({
        "prompt": "fox face", "seed": 11, "num_inference_steps": 25, "guidance_scale": 4,
        "scheduler": "DPMSolverMultistepScheduler"
    });
    for (key, value) in cache.as_object().unwrap() {
        request[key] = value.clone();
    }
    request
}

fn cache_dit(config: Value) -> Value {
    request(json!({"cache_backend": "cache_dit", "cache_config": config}))
}

#[test]
fn a_cached_request_says_what_happened_at_every_step() {
    let config = json!({"Fn_compute_blocks": 2, "residual_diff_threshold": 0.24});
    let response = shared().generate(&cache_dit(config));
    let cache = &response["cache"];
    assert_eq!((&cache["backend"], &cache["steps"]), (&json!("cache_dit"), &json!(25)));
    assert_eq!(cache["config"]["Fn_compute_blocks"], 2);
    assert_eq!(cache["config"]["max_warmup_steps"], 4);
    assert_eq!(cache["images"].as_array().unwrap().len(), 1);
    let contexts = cache["images"][0]["contexts"].as_array().unwrap();
    assert_eq!(contexts.len(), 1);
    assert_eq!((&contexts[0]["name"], &contexts[0]["branch"]), (&json!("transformer_blocks"), &json!("all")));

    let reasons = contexts[0]["reasons"].as_object().unwrap();
    let steps: Vec<_> = reasons.keys().map(|step| step.parse::<usize>().unwrap()).collect();
    assert_eq!(steps, (0..25).collect::<Vec<_>>());
    assert!(reasons.values().all(|reason| REASONS.contains(&reason.as_str().unwrap())), "{reasons:?}");
    assert!((0..4).all(|step| reasons[&step.to_string()] == "warmup"));

    let cached_steps: Vec<_> = steps.into_iter().filter(|step| reasons[&step.to_string()] == "cached").collect();
    assert_eq!(contexts[0]["cached_steps"], json!(cached_steps));
    assert!(!cached_steps.is_empty());
    assert_eq!(cache["hit_rate"].as_f64().unwrap(), cached_steps.len() as f64 / 25.0);
    let tag = format!("DBCache_F2B0_W4I1M0MC3_R0.24_CFG0_T0O0_S{}", cached_steps.len());
    assert_eq!(cache["tag"], tag);
    for (step, distance) in contexts[0]["residual_diffs"].as_object().unwrap() {
        let is_cached = reasons[step] == "cached";
        assert_eq!(distance.as_f64().unwrap() < 0.24, is_cached, "step {step}: {distance}");
    }
}

#[test]
fn a_cached_picture_is_close_but_not_the_same() {
    let plain = Picture::of(&shared().generate(&request(json!({"cache_backend": "none"}))), 0);
    let cached = Picture::of(&shared().generate(&cache_dit(json!({}))), 0);
    assert_ne!(plain, cached);
    let levels: Vec<_> = plain.mean().into_iter().zip(cached.mean()).map(|(a, b)| (a - b).abs()).collect();
    assert!(levels.iter().all(|difference| *difference < 40.0), "{levels:?}");
}

#[test]
fn threshold_zero_gives_the_picture_of_no_cache() {
    let plain = shared().generate(&request(json!({})));
    let zero = shared().generate(&cache_dit(json!({"residual_diff_threshold": 0})));
    assert_eq!(Picture::of(&plain, 0), Picture::of(&zero, 0));
    assert_eq!(zero["cache"]["hit_rate"], 0.0);
    assert_eq!(zero["cache"]["images"][0]["contexts"][0]["reasons"]["24"], "threshold_zero");
}

#[test]
fn nothing_of_a_request_stays_behind() {
    let a = cache_dit(json!({"Fn_compute_blocks": 1, "residual_diff_threshold": 0.12}));
    let b = json!({
        "prompt": "sunflower", "seed": 5, "num_inference_steps": 9, "guidance_scale": 1, "n": 2,
        "cache_backend": "cache_dit", "cache_config": {"Fn_compute_blocks": 4, "Bn_compute_blocks": 2}
    });
    let first = shared().generate(&a);
    shared().generate(&b);
    let again = shared().generate(&a);
    assert_eq!(Picture::of(&first, 0), Picture::of(&again, 0));
    assert_eq!(first["cache"], again["cache"]);
}

#[test]
fn tea_cache_shows_what_it_accumulated() {
    let config = json!({"rel_l1_thresh": 0.2, "num_warmup_steps": 3, "force_last_step": true});
    let response = shared().generate(&request(json!({"cache_backend": "tea_cache", "cache_config": config})));
    let cache = &response["cache"];
    assert_eq!((&cache["backend"], &cache["tag"]), (&json!("tea_cache"), &Value::Null));
    assert_eq!(cache["config"]["coefficients"].as_array().unwrap().len(), 5, "the embedded model has its own");
    let context = &cache["images"][0]["contexts"][0];
    assert_eq!((&context["reasons"]["2"], &context["reasons"]["24"]), (&json!("warmup"), &json!("mask")));
    assert!(cache["hit_rate"].as_f64().unwrap() > 0.2, "{cache}");
    for step in context["cached_steps"].as_array().unwrap() {
        assert!(context["residual_diffs"][step.to_string()].as_f64().unwrap() < 0.2, "{step}");
    }
}

#[test]
fn mag_cache_is_fitted_to_the_requests_steps() {
    let config = json!({"mag_ratios": [1.0, 1.01, 0.99], "mag_max_skip_steps": 2});
    let response = shared().generate(&request(json!({"cache_backend": "mag_cache", "cache_config": config})));
    let cache = &response["cache"];
    assert_eq!(cache["config"]["mag_ratios"].as_array().unwrap().len(), 25);
    let context = &cache["images"][0]["contexts"][0];
    assert_eq!(context["reasons"]["0"], "warmup");
    assert_eq!(context["cached_steps"].as_array().unwrap()[..4], [3, 4, 6, 7]);
    assert_eq!(context["reasons"]["5"], "max_continuous");
}

#[test]
fn pruning_decides_block_by_block() {
    let response = shared().generate(&cache_dit(json!({"cache_type": "DBPrune", "residual_diff_threshold": 0.12})));
    let cache = &response["cache"];
    assert!(cache["tag"].as_str().unwrap().starts_with("DBPrune_F1B0_W4I1M0MC3_R0.12_P"), "{}", cache["tag"]);
    let context = &cache["images"][0]["contexts"][0];
    // Eleven of twelve blocks are compared in the first step after the warm-up.
    assert_eq!(context["residual_diffs"]["4"].as_array().unwrap().len(), 11);
    assert_eq!(context["pruned_blocks"]["total"], 25 * 12);
    assert!(context["pruned_blocks"]["pruned"].as_u64().unwrap() > 0);
}
