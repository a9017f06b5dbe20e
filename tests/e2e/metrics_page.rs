//! The counters, on a server that only this test talks to; it also has cache settings of its own.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::server::{Server, shared};

#[test]
fn counters_add_up_and_the_servers_cache_settings_hold() {
    let config = r#"{"Fn_compute_blocks": 2, "residual_diff_threshold": 0.24}"#;
    let server = Server::start(&["--cache-backend", "cache_dit", "--cache-config", config]);
    let request = json!({"prompt": "sunflower", "seed": 2, "num_inference_steps": 12});
    let with = |field: &str, value| {
        let mut request = request.clone();
        request[field] = value;
        server.generate(&request)["cache"].take()
    };

    let own = server.generate(&request)["cache"].take();
    assert_eq!((&own["backend"], &own["config"]["Fn_compute_blocks"]), (&json!("cache_dit"), &json!(2)));
    let merged = with("cache_config", json!({"residual_diff_threshold": 0.1}));
    assert_eq!(merged["config"]["Fn_compute_blocks"], 2);
    assert_eq!(merged["config"]["residual_diff_threshold"], 0.1);
    assert_eq!(with("cache_backend", json!("none"))["backend"], "none");
    let three = with("n", json!(3));
    assert_eq!(server.post(b"{}").status, 400);

    let cached: usize = [&own, &merged, &three].map(cached_passes).iter().sum();
    let passes = (12 * (1 + 1 + 1 + 3)) as f64;
    assert_eq!(server.metric("afterimage_steps_total", &[]), passes);
    assert_eq!(server.metric("afterimage_steps_total", &["decision=\"cached\""]), cached as f64);
    assert_eq!(server.metric("afterimage_steps_total", &["reason=\"off\""]), 12.0);
    assert_eq!(server.metric("afterimage_images_total", &[]), 6.0);
    assert_eq!(server.metric("afterimage_requests_total", &["status=\"ok\""]), 4.0);
    assert_eq!(server.metric("afterimage_requests_total", &["status=\"invalid\""]), 1.0);
    assert_eq!(server.metric("afterimage_cache_hit_rate_count", &[]), 3.0);
    for stage in ["queue", "encode", "denoise", "decode", "total"] {
        let label = format!("stage=\"{stage}\"");
        assert_eq!(server.metric("afterimage_stage_seconds_count", &[&label]), 4.0, "{stage}");
    }
    assert_eq!(server.metric("afterimage_requests_in_flight", &[]), 0.0);
    assert_eq!(server.metric("afterimage_queue_depth", &[]), 0.0);
    let posts = ["route=\"/v1/images/generations\""];
    assert_eq!(server.metric("afterimage_http_request_seconds_count", &posts), 5.0);
}

#[test]
fn caches_that_do_nothing_are_counted_and_memory_for_state_is_bounded() {
    // A row's stream is 64 tokens x 192 channels x 4 bytes, and the state holds two: enough for one row
    // without guidance, not for two with it.
    let server = Server::start(&["--cache-memory-bytes", "100000"]);
    let request = json!({
        "prompt": "sunflower", "seed": 2, "num_inference_steps": 6, "guidance_scale": 4, "cache_backend": "cache_dit"
    });
    let cache = server.generate(&request)["cache"].take();
    let reasons = cache["images"][0]["contexts"][0]["reasons"].as_object().unwrap();
    assert!(reasons.len() == 6 && reasons.values().all(|reason| reason == "budget"), "{cache}");

    let mut small = request.clone();
    small["guidance_scale"] = json!(1);
    small["cache_config"] = json!({"max_warmup_steps": 6});
    let cache = server.generate(&small)["cache"].take();
    assert_eq!(cache["images"][0]["contexts"][0]["reasons"]["5"], "warmup");

    assert_eq!(server.metric("afterimage_cache_fallback_total", &["reason=\"budget\""]), 1.0);
    assert_eq!(server.metric("afterimage_cache_fallback_total", &["reason=\"unused\""]), 1.0);
    assert_eq!(server.metric("afterimage_steps_total", &["reason=\"budget\""]), 6.0);
    assert_eq!(server.metric("afterimage_cache_state_bytes", &[]), 0.0);
}

#[test]
fn the_page_tells_what_runs_and_what_it_takes() {
    let metrics = shared().metrics();
    let version = format!("version=\"{}\"", env!("CARGO_PKG_VERSION"));
    let features = if cfg!(feature = "otlp") { "features=\"otlp\"" } else { "features=\"none\"" };
    assert_eq!(metrics.sum("afterimage_build_info", &[&version, features, "commit=\""]), 1.0);
    if cfg!(target_os = "linux") {
        for name in ["resident_memory_bytes", "virtual_memory_bytes", "open_fds", "max_fds", "threads"] {
            assert!(metrics.sum(&format!("process_{name}"), &[]) > 0.0, "{name}");
        }
        let started = metrics.sum("process_start_time_seconds", &[]);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
        assert!(started > 0.0 && started <= now + 1.0, "{started}");
    }
}

fn cached_passes(cache: &serde_json::Value) -> usize {
    let contexts = cache["images"].as_array().unwrap().iter().flat_map(|image| image["contexts"].as_array().unwrap());
    contexts.map(|context| context["cached_steps"].as_array().unwrap().len()).sum()
}
