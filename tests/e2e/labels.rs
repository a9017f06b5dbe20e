//! Free text on a class-conditional model, and masks that do not fit: what is done instead is said.

use serde_json::{Value, json};

use crate::picture::Picture;
use crate::server::{Server, shared};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/emoji-dit");

fn request(prompt: &str) -> Value {
    json!({"prompt": prompt, "seed": 3, "num_inference_steps": 4})
}

#[test]
fn the_embedded_model_draws_the_label_nearest_to_a_free_text() {
    for (prompt, label, class) in [
        ("a photo of a red apple on a table", "red apple, apple", 141),
        ("A cute DOG, watercolour", "dog, dog2", 5),
        ("sunflwer", "sunflower", 118),
        ("rd pple", "red apple, apple", 141),
    ] {
        let response = shared().generate(&request(prompt));
        let [warning] = response["warnings"].as_array().unwrap().as_slice() else { panic!("{response}") };
        assert_eq!((&warning["param"], &warning["code"]), (&json!("prompt"), &json!("nearest_label")));
        let message = warning["message"].as_str().unwrap();
        assert!(message.contains(&format!("`{label}` (class {class})")), "{message}");
        let plain = shared().generate(&request(label));
        assert_eq!(plain.get("warnings"), None, "a whole label is a label");
        assert_eq!(Picture::of(&response, 0), Picture::of(&plain, 0));
    }
}

#[test]
fn streams_and_jobs_are_told_too() {
    let mut streamed = request("a red apple");
    streamed["stream"] = json!(true);
    let answer = shared().post(streamed.to_string().as_bytes());
    let last = answer.text().rsplit("data: ").next().unwrap();
    let last: Value = serde_json::from_str(last.trim_end()).unwrap();
    assert_eq!(last["warnings"][0]["code"], "nearest_label");
}

#[test]
fn other_models_take_labels_only_unless_told_otherwise() {
    let exact = Server::start(&["--model", MODEL]);
    let refused = exact.post(request("a red apple").to_string().as_bytes());
    assert_eq!((refused.status, refused.error()), (400, (Some("prompt".to_owned()), "unknown_label".to_owned())));
    let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    assert_eq!(message.split_once("nearest: ").unwrap().1.split(", ").count(), 5, "{message}");
    let nearest = Server::start(&["--model", MODEL, "--label-policy", "nearest"]);
    assert_eq!(nearest.generate(&request("a red apple"))["warnings"][0]["code"], "nearest_label");
}

#[test]
fn the_model_says_what_it_takes_other_prompts_for() {
    let policy = |server: &Server| server.get("/v1/models").json()["data"][0]["label_policy"].clone();
    assert_eq!(policy(shared()), "nearest");
    assert_eq!(policy(&Server::start(&["--label-policy", "exact"])), "exact");
    assert_eq!(policy(&Server::start(&["--model", MODEL])), "exact");
}

fn cached(config: Value) -> Value {
    json!({"prompt": "red apple", "seed": 3, "num_inference_steps": 8, "cache_backend": "cache_dit", "cache_config": config})
}

#[test]
fn a_request_s_mask_may_be_shorter_than_its_steps_but_not_longer() {
    let response = shared().generate(&cached(json!({"steps_computation_mask": [1, 1, 0, 1]})));
    let warning = &response["warnings"][0];
    assert_eq!(warning["param"], "cache_config.steps_computation_mask");
    assert_eq!(warning["code"], "mask_shorter_than_steps");
    let message = warning["message"].as_str().unwrap();
    assert!(message.contains("4 entries") && message.contains("8 steps"), "{message}");
    assert_eq!(response["cache"]["config"]["steps_computation_mask"], json!([1, 1, 0, 1]));
    for (config, param, numbers) in [
        (
            json!({"steps_computation_mask": vec![1; 9]}),
            "cache_config.steps_computation_mask",
            ["9 entries", "8 steps"],
        ),
        (
            json!({"scm_compute_bins": [3, 1], "scm_cache_bins": [2, 1]}),
            "cache_config.scm_compute_bins",
            ["7 steps", "has 8"],
        ),
        (
            json!({"scm_compute_bins": [3, 4], "scm_cache_bins": [2, 1]}),
            "cache_config.scm_compute_bins",
            ["10 steps", "has 8"],
        ),
    ] {
        let refused = shared().post(cached(config).to_string().as_bytes());
        assert_eq!((refused.status, refused.error().0.as_deref()), (400, Some(param)), "{}", refused.text());
        assert!(numbers.iter().all(|number| refused.text().contains(number)), "{}", refused.text());
    }
}

#[test]
fn a_server_s_mask_that_does_not_fit_is_left_out_and_told() {
    let server = Server::start(&[
        "--cache-backend",
        "cache_dit",
        "--cache-config",
        "{\"steps_computation_mask\": [1, 1, 0, 1], \"Fn_compute_blocks\": 2}",
    ]);
    let plain =
        |steps: usize| server.generate(&json!({"prompt": "red apple", "seed": 3, "num_inference_steps": steps}));
    assert_eq!(plain(4).get("warnings"), None);
    let response = plain(8);
    let warning = &response["warnings"][0];
    assert_eq!(warning["param"], "cache_config.steps_computation_mask");
    assert_eq!(warning["code"], "cache_key_left_out");
    let config = &response["cache"]["config"];
    assert_eq!((&config["steps_computation_mask"], &config["Fn_compute_blocks"]), (&Value::Null, &json!(2)));
}
