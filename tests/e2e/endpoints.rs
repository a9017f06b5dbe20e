//! Everything beside generations.

use serde_json::json;

use crate::http;
use crate::server::{PROGRAM, Server, shared};

#[test]
fn the_model_says_what_it_offers() {
    let list = shared().get("/v1/models").json();
    assert_eq!((&list["object"], list["data"].as_array().unwrap().len()), (&json!("list"), 1));
    let card = &list["data"][0];
    assert_eq!((&card["object"], &card["owned_by"]), (&json!("model"), &json!("afterimage")));
    assert_eq!(card["pipeline"], "DiTPipeline");
    assert!(card["created"].as_u64().unwrap() > 1_700_000_000);
    assert_eq!(card["sizes"], json!(["64x64"]));
    assert_eq!(card["schedulers"], json!(["DDIMScheduler", "DPMSolverMultistepScheduler", "DDPMScheduler"]));
    assert_eq!(card["defaults"]["size"], "64x64");
    assert_eq!(card["defaults"]["cache_backend"], "none");
    assert_eq!(card["limits"]["num_inference_steps"], 200);
    assert_eq!(card["block_lists"], json!([{"name": "transformer_blocks", "blocks": 12}]));
    let backends: Vec<_> = card["caches"].as_array().unwrap().iter().map(|cache| &cache["backend"]).collect();
    assert_eq!(backends, ["none", "cache_dit", "tea_cache", "mag_cache", "auto"]);
    assert_eq!(card["caches"][1]["config"]["residual_diff_threshold"], 0.24);
    let labels = card["labels"].as_array().unwrap();
    assert!(labels.contains(&json!({"id": 0, "label": "monkey face"})), "{labels:?}");

    let id = card["id"].as_str().unwrap();
    assert_eq!(shared().get(&format!("/v1/models/{id}")).json()["id"], id);
    let named = json!({"prompt": "red apple", "model": id, "num_inference_steps": 1});
    shared().generate(&named);
    assert_eq!(shared().get("/v1/models/some/other").error().1, "model_not_found");
}

#[test]
fn a_model_may_have_several_names() {
    let server = Server::start(&["--served-model-name", "emoji, gpt-image-1"]);
    let list = server.get("/v1/models").json();
    let ids: Vec<_> = list["data"].as_array().unwrap().iter().map(|card| card["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["emoji", "gpt-image-1"]);
    for id in ids {
        assert_eq!(server.get(&format!("/v1/models/{id}")).json()["id"], id);
        server.generate(&json!({"prompt": "red apple", "model": id, "num_inference_steps": 1}));
    }
    server.generate(&json!({"prompt": "red apple", "model": "", "num_inference_steps": 1}));
    let unknown = server.post(json!({"prompt": "red apple", "model": "emoji-dit"}).to_string().as_bytes());
    assert_eq!((unknown.status, unknown.error().0.as_deref()), (404, Some("model")));
    assert!(unknown.text().contains("`emoji`, `gpt-image-1`"), "{}", unknown.text());
}

#[test]
fn the_model_says_which_caches_it_lacks_a_calibration_for() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("tiny").to_str().unwrap().to_owned();
    let status = std::process::Command::new(PROGRAM).args(["random-model", "--like", "tiny-dit", &model]).status();
    assert!(status.unwrap().success());
    let config = r#"{"Fn_compute_blocks": 2}"#;
    let server = Server::start(&["--model", &model, "--cache-backend", "cache_dit", "--cache-config", config]);
    let caches = &server.get("/v1/models").json()["data"][0]["caches"];
    assert_eq!((&caches[1]["config"]["Fn_compute_blocks"], &caches[1]["fault"]), (&json!(2), &json!(null)));
    for (backend, param) in [(2, "cache_config.coefficients"), (3, "cache_config.mag_ratios")] {
        assert_eq!((&caches[backend]["config"], &caches[backend]["fault"]["param"]), (&json!(null), &json!(param)));
        assert!(caches[backend]["fault"]["message"].as_str().unwrap().contains("afterimage calibrate"));
    }
}

#[test]
fn the_playground_is_a_page_that_asks_nobody_else() {
    let page = shared().get("/");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").unwrap();
    for part in ["default-src 'none'", "script-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"] {
        assert!(policy.contains(part), "{policy}");
    }
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
    let script = shared().get("/playground/main.js");
    assert_eq!((script.status, script.header("content-type")), (200, Some("text/javascript; charset=utf-8")));
    assert_eq!(shared().get("/playground/nothing.js").error().1, "not_found");
}

#[test]
fn the_playground_can_be_left_out() {
    let server = Server::start(&["--playground", "false"]);
    assert_eq!((server.get("/").status, server.get("/playground/main.js").status), (404, 404));
    assert_eq!(server.get("/v1/models").status, 200);
}

#[test]
fn a_warm_server_knows_its_buckets_and_serves_any_size_from_the_nearest() {
    let flags = ["--buckets", "64x64,96x64", "--bucket-policy", "nearest", "--warmup"];
    let server = Server::start(&flags);
    let card = server.get("/v1/models").json()["data"][0].clone();
    assert_eq!(card["sizes"], json!(["64x64", "96x64"]));
    for bucket in card["buckets"].as_array().unwrap() {
        for seconds in ["seconds_per_row_step", "decode_seconds"] {
            assert!(bucket[seconds].as_f64().unwrap() > 0.0, "{bucket}");
        }
    }
    for (asked, served) in [("1920x1080", "96x64"), ("1x1", "64x64"), ("64x64", "64x64")] {
        let request = json!({"prompt": "red apple", "size": asked, "num_inference_steps": 1});
        assert_eq!(server.generate(&request)["size"], served, "{asked}");
    }
    let prompts = ["hits", "misses"].map(|what| server.metric(&format!("afterimage_prompt_cache_{what}_total"), &[]));
    // The warm-up has a prompt of its own, which both buckets share.
    assert_eq!(prompts, [3.0, 2.0]);
    assert!(server.metric("afterimage_prompt_cache_bytes", &[]) > 0.0);
}

#[test]
fn health_is_good() {
    for path in ["/health", "/health/live", "/health/ready"] {
        assert_eq!(shared().get(path).status, 200, "{path}");
    }
}

#[test]
fn unknown_paths_and_methods_have_the_error_shape() {
    for path in ["/v1/images/edits", "/v1/models/%ff", "/v1/images/jobs/%ff"] {
        let response = shared().get(path);
        assert_eq!((response.status, response.error()), (404, (None, "not_found".to_owned())), "{path}");
    }
    let response = shared().get("/v1/images/generations");
    assert_eq!((response.status, response.error()), (405, (None, "method_not_allowed".to_owned())));
    assert_eq!(response.header("allow"), Some("POST"));
}

#[test]
fn every_response_has_a_request_id() {
    let post = |path, body: &str, id| {
        let response = http::request(&shared().address, "POST", path, &[("x-request-id", id)], body.as_bytes());
        (response.status, response.header("x-request-id").unwrap().to_owned())
    };
    let good = r#"{"prompt": "red apple", "num_inference_steps": 1}"#;
    assert_eq!(post("/v1/images/generations", good, "a-1"), (200, "a-1".to_owned()));
    assert_eq!(post("/v1/images/generations", "{", "a-2"), (400, "a-2".to_owned()));
    assert_eq!(post("/nothing", "", "a-3"), (404, "a-3".to_owned()));
    assert_eq!(post("/v1/models", "", "a-4"), (405, "a-4".to_owned()));
    let (_, id) = post("/nothing", "", "not a usable id");
    assert_eq!(id.len(), 36);
    let own = shared().get("/health/live");
    assert_ne!(own.header("x-request-id"), shared().get("/health/live").header("x-request-id"));
}
