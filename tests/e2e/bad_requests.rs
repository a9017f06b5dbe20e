//! Requests that cannot be served: each gets its 4xx in the error shape, and the server lives on.

use serde_json::{Value, json};

use crate::http::{self, Response};
use crate::server::shared;

/// A good request with one field changed.
fn with(field: &str, value: Value) -> String {
    let mut request = json!({"prompt": "red apple", "seed": 1, "num_inference_steps": 2});
    request[field] = value;
    request.to_string()
}

/// A good request with this cache configuration.
fn with_cache(config: Value) -> String {
    with_backend("cache_dit", config)
}

fn with_backend(backend: &str, config: Value) -> String {
    json!({"prompt": "red apple", "cache_backend": backend, "cache_config": config}).to_string()
}

fn assert_refused(body: &str, status: u16, param: Option<&str>) -> Response {
    let response = shared().post(body.as_bytes());
    let shown: String = body.chars().take(200).collect();
    assert_eq!(response.status, status, "{shown}: {}", response.text());
    assert_eq!(response.error().0.as_deref(), param, "{shown}: {}", response.text());
    response
}

#[test]
fn bad_fields_are_named() {
    for (body, param) in [
        (json!({"seed": 1}).to_string(), "prompt"),
        (with("prompt", json!(null)), "prompt"),
        (with("prompt", json!("")), "prompt"),
        (with("prompt", json!("  ")), "prompt"),
        (with("prompt", json!(7)), "prompt"),
        (with("prompt", json!("a".repeat(5000))), "prompt"),
        (with("prompt", json!("no such thing")), "prompt"),
        (with("prompt", json!("class:1000")), "prompt"),
        (with("n", json!(0)), "n"),
        (with("n", json!(11)), "n"),
        (with("n", json!("2")), "n"),
        (with("size", json!("128x128")), "size"),
        (with("size", json!("1024x")), "size"),
        (with("size", json!("64 x 64")), "size"),
        (with("seed", json!(-2)), "seed"),
        (with("seed", json!(1.5)), "seed"),
        (with("num_inference_steps", json!(0)), "num_inference_steps"),
        (with("num_inference_steps", json!(201)), "num_inference_steps"),
        (with("guidance_scale", json!(-1)), "guidance_scale"),
        (with("guidance_scale", json!(20.5)), "guidance_scale"),
        (with("guidance_scale", json!("NaN")), "guidance_scale"),
        (r#"{"prompt": "red apple", "guidance_scale": NaN}"#.to_owned(), "guidance_scale"),
        (r#"{"prompt": "red apple", "guidance_scale": -Infinity}"#.to_owned(), "guidance_scale"),
        (with("true_cfg_scale", json!(2)), "true_cfg_scale"),
        (with("negative_prompt", json!("dog")), "negative_prompt"),
        (with("scheduler", json!("UniPCMultistepScheduler")), "scheduler"),
        (with("response_format", json!("url")), "response_format"),
        (with("output_format", json!("gif")), "output_format"),
        (with("output_compression", json!(101)), "output_compression"),
        (with("stream", json!(1)), "stream"),
        (with("progress", json!(true)), "progress"),
        (with("partial_images", json!(2)), "partial_images"),
        (with("quality", json!("max")), "quality"),
        (with("background", json!("transparent")), "background"),
        (with("steps", json!(20)), "steps"),
        (with("guidance_scal", json!(4)), "guidance_scal"),
    ] {
        let response = assert_refused(&body, 400, Some(param));
        assert_eq!(response.json()["error"]["type"], "invalid_request_error");
    }
}

#[test]
fn bad_cache_settings_are_named() {
    for (body, param) in [
        (with("cache_backend", json!("deep_cache")), "cache_backend"),
        (with("cache_backend", json!(true)), "cache_backend"),
        (with("cache_config", json!({"Fn_compute_blocks": 1})), "cache_backend"),
        (with_cache(json!("{\"Fn_compute_blocks\": 1}")), "cache_config"),
        (with_cache(json!([])), "cache_config"),
        (with_cache(json!({"Fn_compute_block": 1})), "cache_config.Fn_compute_block"),
        (with_cache(json!({"Fn_compute_blocks": 0})), "cache_config.Fn_compute_blocks"),
        (with_cache(json!({"Fn_compute_blocks": 13})), "cache_config.Fn_compute_blocks"),
        (with_cache(json!({"Fn_compute_blocks": 8, "Bn_compute_blocks": 5})), "cache_config.Bn_compute_blocks"),
        (with_cache(json!({"residual_diff_threshold": "0.1"})), "cache_config.residual_diff_threshold"),
        (with_cache(json!({"num_inference_steps": 7})), "cache_config.num_inference_steps"),
        (with_cache(json!({"rel_l1_thresh": 0.2})), "cache_config.rel_l1_thresh"),
        (with_cache(json!({"non_prune_block_ids": [1]})), "cache_config.non_prune_block_ids"),
        (with_backend("tea_cache", json!({"rel_l1_thresh": 0})), "cache_config.rel_l1_thresh"),
        (with_backend("tea_cache", json!({"coefficients": [1, 2]})), "cache_config.coefficients"),
        (with_backend("mag_cache", json!({"mag_ratios": [0]})), "cache_config.mag_ratios"),
        (with_backend("none", json!({"Fn_compute_blocks": 1})), "cache_config.Fn_compute_blocks"),
        (
            r#"{"prompt": "red apple", "cache_backend": "cache_dit", "cache_config": {"residual_diff_threshold": NaN}}"#
                .to_owned(),
            "cache_config.residual_diff_threshold",
        ),
    ] {
        assert_refused(&body, 400, Some(param));
    }
}

#[test]
fn bodies_that_are_no_json_object_have_no_param() {
    let deep = format!(r#"{{"prompt": {}"#, "[".repeat(10_000));
    for body in ["", "{", "prompt=red+apple", "[]", "\"red apple\"", "null", r#"{"prompt": "a", "prompt": "b"}"#, &deep]
    {
        assert_refused(body, 400, None);
    }
}

#[test]
fn messages_offer_what_would_be_right() {
    let message = |body: &str| shared().post(body.as_bytes()).json()["error"]["message"].as_str().unwrap().to_owned();
    for prompt in ["no such thing", "qwertz"] {
        let message = message(&with("prompt", json!(prompt)));
        assert_eq!(message.split_once("nearest: ").unwrap().1.split(", ").count(), 5, "{message}");
    }
    assert!(message(&with("size", json!("128x128"))).contains("64x64"));
    assert!(message(&with("scheduler", json!("DDIM"))).contains("DDIMScheduler"));
    assert!(message(&with("cache_backend", json!("cachedit"))).contains("cache_dit"));
    assert!(message(&with("size", json!("128x128"))).contains("--bucket-policy nearest"));
    for (foreign, field) in [
        ("guidance", "guidance_scale"),
        ("cfg_scale", "guidance_scale"),
        ("steps", "num_inference_steps"),
        ("num_steps", "num_inference_steps"),
        ("width", "size"),
        ("height", "size"),
        ("image_size", "size"),
        ("sampler_name", "scheduler"),
        ("samples", "n"),
        ("batch_size", "n"),
    ] {
        let message = message(&with(foreign, json!(1)));
        assert!(message.starts_with(&format!("unknown field `{foreign}`; did you mean `{field}`")), "{message}");
    }
    assert!(!message(&with("strength", json!(1))).contains("did you mean"), "no field of ours is like it");
}

#[test]
fn what_asks_for_nothing_is_no_fault() {
    for (field, value) in [
        ("negative_prompt", json!("")),
        ("negative_prompt", json!("  ")),
        ("model", json!("")),
        ("true_cfg_scale", json!(0)),
        ("lora", json!(null)),
        ("width", json!(null)),
    ] {
        let response = shared().post(with(field, value).as_bytes());
        assert_eq!(response.status, 200, "{field}: {}", response.text());
    }
    let unguided = json!({"prompt": "red apple", "num_inference_steps": 1, "guidance_scale": 1, "negative_prompt": ""});
    shared().generate(&unguided);
}

#[test]
fn minus_one_is_a_seed_that_the_server_chooses_and_tells() {
    let seed = |seed: Value| {
        let response =
            shared().generate(&json!({"prompt": "red apple", "num_inference_steps": 1, "n": 2, "seed": seed}));
        let seeds = [0, 1].map(|index| response["data"][index]["seed"].as_u64().unwrap());
        assert_eq!(seeds[1], seeds[0] + 1);
        (seeds[0], response["data"][0]["b64_json"].clone())
    };
    let (chosen, picture) = seed(json!(-1));
    assert_ne!(seed(json!(-1)).0, chosen);
    assert_eq!(seed(json!(chosen)), (chosen, picture), "the seed it tells gives the same picture again");
}

#[test]
fn another_model_is_not_found() {
    let response = assert_refused(&with("model", json!("gpt-image-1")), 404, Some("model"));
    assert_eq!(response.error().1, "model_not_found");
}

#[test]
fn bodies_over_the_limit_are_refused_however_they_are_sent() {
    let body = with("prompt", json!("a".repeat(1024 * 1024)));
    let response = assert_refused(&body, 413, None);
    assert_eq!(response.error().1, "body_too_large");

    let head =
        "POST /v1/images/generations HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n";
    let chunked = format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let response = http::try_raw(&shared().address, chunked.as_bytes()).unwrap();
    assert_eq!((response.status, response.error().1.as_str()), (413, "body_too_large"));
}

#[test]
fn the_server_lives_on() {
    assert_refused("{", 400, None);
    shared().generate(&json!({"prompt": "red apple", "num_inference_steps": 2}));
    assert_eq!(shared().get("/health/live").status, 200);
}
