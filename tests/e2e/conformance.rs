//! What the tests of vLLM-Omni's image server expect of generations, with this server's answers where
//! they differ: 400 instead of FastAPI's 422, 404 for another model, and a refusal of what would be
//! ignored. Left out is what the other files here say already.

use serde_json::{Value, json};

use crate::picture::Picture;
use crate::server::{Server, shared};

fn with(changes: Value) -> Value {
    let mut request = json!({"prompt": "red apple", "num_inference_steps": 1});
    for (field, value) in changes.as_object().unwrap() {
        request[field] = value.clone();
    }
    request
}

/// The message of a request that must be refused at `param`.
fn refusal(changes: Value, status: u16, param: &str) -> String {
    let request = with(changes);
    let response = shared().post(request.to_string().as_bytes());
    assert_eq!((response.status, response.error().0.as_deref()), (status, Some(param)), "{request}");
    response.json()["error"]["message"].as_str().unwrap().to_owned()
}

#[test]
fn a_size_that_can_be_read_is_measured_against_the_models() {
    for size in ["1024x1024", "512x768", "256x256", "1792x1024", "1024x1792"] {
        let message = refusal(json!({"size": size}), 400, "size");
        assert!(message.contains(size) && message.contains("64x64"), "{message}");
    }
    let message = refusal(json!({"size": "99999x99999"}), 400, "size");
    assert!(message.contains("99999x99999") && message.contains("--max-pixels"), "{message}");
}

#[test]
fn a_size_that_cannot_be_read_is_told_the_form() {
    let broken =
        ["invalid", "1024", "1024x", "x1024", "", "abc x def", "1024.5x768.5", "1024 1024", "64X64", "64x64x64"];
    let not_positive = ["0x64", "64x0", "0x0", "-64x64", "64x-64"];
    for size in broken.into_iter().chain(not_positive) {
        let message = refusal(json!({"size": size}), 400, "size");
        assert!(message.contains("`size` is") && message.contains("WIDTHxHEIGHT"), "{size}: {message}");
    }
}

#[test]
fn every_size_of_the_model_is_served() {
    let server = Server::start(&["--buckets", "64x64,96x64,64x96,128x64"]);
    for (size, width, height) in [("64x64", 64, 64), ("96x64", 96, 64), ("64x96", 64, 96), ("128x64", 128, 64)] {
        let response = server.generate(&with(json!({"size": size})));
        let picture = Picture::of(&response, 0);
        assert_eq!((&response["size"], picture.width, picture.height), (&json!(size), width, height));
    }
}

#[test]
fn three_pictures_are_three_files() {
    let response = shared().generate(&with(json!({"n": 3, "seed": 42})));
    assert!(response["created"].is_u64());
    assert_eq!(response["data"].as_array().unwrap().len(), 3);
    let pictures = [0, 1, 2].map(|index| Picture::of(&response, index));
    assert!(pictures[0] != pictures[1] && pictures[1] != pictures[2]);
}

#[test]
fn sampling_parameters_reach_the_engine_unchanged() {
    let response = shared().generate(&with(json!({
        "n": 2, "size": "64x64", "seed": 0, "num_inference_steps": 100, "guidance_scale": 0, "model": "emoji-dit",
        "cache_backend": "cache_dit", "cache_config": {"Fn_compute_blocks": 3, "residual_diff_threshold": 0.5}
    })));
    assert_eq!((&response["data"][0]["seed"], &response["data"][1]["seed"]), (&json!(0), &json!(1)));
    let cache = &response["cache"];
    assert_eq!((&cache["steps"], &cache["backend"]), (&json!(100), &json!("cache_dit")));
    assert_eq!(cache["config"]["Fn_compute_blocks"], 3);
    assert_eq!(cache["config"]["residual_diff_threshold"], 0.5);
}

#[test]
fn what_is_absent_or_null_is_left_to_the_model() {
    let defaults = shared().get("/v1/models").json()["data"][0]["defaults"].take();
    let spelled_out = json!({
        "prompt": "sunflower", "seed": 5, "n": 1, "size": defaults["size"],
        "num_inference_steps": defaults["num_inference_steps"], "guidance_scale": defaults["guidance_scale"],
        "scheduler": defaults["scheduler"], "cache_backend": defaults["cache_backend"]
    });
    let nulls = json!({
        "prompt": "sunflower", "seed": 5, "n": null, "size": null, "num_inference_steps": null,
        "guidance_scale": null, "true_cfg_scale": null, "negative_prompt": null, "scheduler": null, "model": null,
        "response_format": null, "output_format": null, "cache_backend": null, "cache_config": null, "user": null
    });
    let absent = shared().generate(&json!({"prompt": "sunflower", "seed": 5}));
    assert_eq!(absent["cache"]["steps"], defaults["num_inference_steps"]);
    for request in [spelled_out, nulls] {
        let response = shared().generate(&request);
        assert_eq!(Picture::of(&response, 0), Picture::of(&absent, 0), "{request}");
        assert_eq!(response["cache"], absent["cache"]);
    }
}

#[test]
fn limits_are_inclusive() {
    for (field, within, beyond) in [
        ("n", [json!(1), json!(10)], [json!(0), json!(11)]),
        ("num_inference_steps", [json!(1), json!(200)], [json!(0), json!(201)]),
        ("guidance_scale", [json!(0), json!(20)], [json!(-1), json!(21)]),
        ("seed", [json!(0), json!(i64::MAX)], [json!(-2), json!(i64::MAX as u64 + 1)]),
        ("output_compression", [json!(0), json!(100)], [json!(-1), json!(101)]),
    ] {
        for value in within {
            shared().generate(&with(json!({field: value})));
        }
        for value in beyond {
            let message = refusal(json!({field: value}), 400, field);
            assert!(message.contains(field), "{message}");
        }
    }
}

#[test]
fn what_this_server_would_have_to_ignore_is_refused() {
    for field in ["flow_shift", "layers", "extra_params", "lora", "generator_device", "return_stage_metrics"] {
        let message = refusal(json!({field: 1}), 400, field);
        assert!(message.starts_with(&format!("unknown field `{field}`")), "{message}");
    }
    assert!(refusal(json!({"negative_prompt": "blurry"}), 400, "negative_prompt").contains("negative_prompt"));
    assert!(refusal(json!({"true_cfg_scale": 5.5}), 400, "true_cfg_scale").contains("true_cfg_scale"));
    assert!(refusal(json!({"response_format": "url"}), 400, "response_format").contains("response_format"));
    let message = refusal(json!({"model": "stabilityai/stable-diffusion-3.5-medium"}), 404, "model");
    assert!(message.contains("emoji-dit"), "{message}");
}
