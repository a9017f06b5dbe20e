//! Cached requests that are made again without a cache: what is measured, and what does not show.

use serde_json::{Value, json};

use crate::http;
use crate::server::Server;

/// The sum of a series of `afterimage_cache_quality_WHAT`.
fn quality(server: &Server, what: &str, labels: &[&str]) -> f64 {
    server.metric(&format!("afterimage_cache_quality_{what}"), labels)
}

/// Waits until so many pictures were made again.
fn wait_for_samples(server: &Server, pictures: f64) {
    server.wait_until("the samples are made", || quality(server, "samples_total", &["made"]) >= pictures);
}

fn post(server: &Server, path: &str, request: &Value) -> http::Response {
    http::request(&server.address, "POST", path, &[], request.to_string().as_bytes())
}

#[test]
fn every_way_of_answering_is_sampled_and_no_other_counter_shows_it() {
    let server = Server::start(&["--quality-sample-rate", "1", "--cache-backend", "cache_dit"]);
    let request = json!({"prompt": "red apple", "seed": 5, "num_inference_steps": 12});
    let with = |fields: Value| {
        let mut request = request.clone();
        request.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        request
    };
    server.generate(&with(json!({"n": 3})));
    server.generate(&with(json!({"cache_backend": "none"})));
    let stream = post(&server, "/v1/images/generations", &with(json!({"stream": true, "n": 2})));
    assert!(stream.text().contains("image_generation.completed"), "{}", stream.text());
    assert_eq!(post(&server, "/v1/images/generations", &with(json!({"response_format": "file"}))).status, 200);
    let job = post(&server, "/v1/images/jobs", &with(json!({"cache_backend": "tea_cache"})));
    assert_eq!(job.status, 202, "{}", job.text());

    // Three, two, one, and the job's.
    wait_for_samples(&server, 7.0);
    let metrics = server.metrics();
    let of = |what: &str, labels: &[&str]| metrics.sum(&format!("afterimage_cache_quality_{what}"), labels);
    for figure in ["psnr_db", "ssim"] {
        let count = format!("{figure}_count");
        assert_eq!(of(&count, &["backend=\"cache_dit\""]), 6.0);
        assert_eq!(of(&count, &["backend=\"tea_cache\""]), 1.0);
    }
    let mean = of("psnr_db_sum", &["backend=\"cache_dit\""]) / 6.0;
    assert!(mean > 12.0 && mean < 60.0, "{mean} dB");
    assert_eq!((of("samples_total", &["failed"]), of("samples_dropped_total", &[])), (0.0, 0.0));
    assert_eq!(of("samples_waiting", &[]), 0.0);

    // Eight pictures were asked for, in twelve steps each.
    assert_eq!(metrics.sum("afterimage_images_total", &[]), 8.0);
    assert_eq!(metrics.sum("afterimage_images_begun_total", &[]), 8.0);
    assert_eq!(metrics.sum("afterimage_steps_total", &[]), 8.0 * 12.0);
    assert_eq!(metrics.sum("afterimage_steps_total", &["reason=\"off\""]), 12.0);
    assert_eq!(metrics.sum("afterimage_requests_total", &["status=\"ok\""]), 5.0);
    assert_eq!(metrics.sum("afterimage_cache_hit_rate_count", &[]), 4.0);
    for idle in ["afterimage_queue_depth", "afterimage_running_rows", "afterimage_requests_in_flight"] {
        assert_eq!(metrics.sum(idle, &[]), 0.0, "{idle}");
    }
}

#[test]
fn every_picture_is_compared_with_its_own_and_what_reused_nothing_with_none() {
    let server = Server::start(&["--quality-sample-rate", "1", "--cache-backend", "cache_dit"]);
    let request = |config: serde_json::Value| {
        server.generate(
            &json!({"prompt": "dog face", "seed": 9, "n": 2, "num_inference_steps": 12, "cache_config": config}),
        );
    };
    request(json!({"residual_diff_threshold": 0}));
    request(json!({"residual_diff_threshold": 1, "max_warmup_steps": 8, "max_cached_steps": 1}));
    wait_for_samples(&server, 2.0);
    assert_eq!(quality(&server, "psnr_db_count", &[]), 2.0);
    let sum = quality(&server, "psnr_db_sum", &[]);
    assert!(sum > 2.0 * 20.0, "one step of twelve was reused, and the seeds differ: {sum}");
}

#[test]
fn a_server_that_ends_does_not_wait_for_samples() {
    let server = Server::start(&["--quality-sample-rate", "1", "--cache-backend", "cache_dit"]);
    server.generate(&json!({"prompt": "dog face", "n": 4, "num_inference_steps": 100}));
    server.terminate();
    assert!(server.wait().success());
}

#[test]
fn nothing_is_sampled_unless_asked_for() {
    let server = Server::start(&["--cache-backend", "cache_dit"]);
    server.generate(&json!({"prompt": "dog face", "num_inference_steps": 6}));
    for what in ["samples_total", "samples_waiting", "psnr_db_count"] {
        assert_eq!(quality(&server, what, &[]), 0.0, "{what}");
    }
}
