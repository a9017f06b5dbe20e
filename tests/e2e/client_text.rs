//! What a client writes comes back short, and stays nowhere: errors, warnings and log lines have little of it.

use std::fs::File;
use std::process::Command;

use serde_json::{Map, Value, json};

use crate::http::{self, Response};
use crate::server::{PROGRAM, Server, shared};

const GENERATIONS: &str = "/v1/images/generations";
/// Every field of a request, and of a job.
const FIELDS: [&str; 21] = [
    "prompt",
    "model",
    "n",
    "size",
    "seed",
    "num_inference_steps",
    "guidance_scale",
    "true_cfg_scale",
    "negative_prompt",
    "scheduler",
    "cache_backend",
    "cache_config",
    "response_format",
    "output_format",
    "output_compression",
    "background",
    "quality",
    "stream",
    "partial_images",
    "progress",
    "no_such_field",
];

/// Longer than anything that is shown, with a beginning of its own.
fn long() -> String {
    "z".repeat(6000)
}

fn assert_short(what: &str, response: &Response) {
    assert!((400..500).contains(&response.status), "{what}: {}", response.status);
    let (param, _) = response.error();
    let body = response.json();
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.len() < 1500 && !message.contains(&"z".repeat(81)), "{what}: {message}");
    assert!(param.is_none_or(|param| param.len() < 120), "{what}: the param is long");
}

fn post(body: &str, headers: &[(&str, &str)]) -> Response {
    http::request(&shared().address, "POST", GENERATIONS, headers, body.as_bytes())
}

fn with(field: &str, value: Value) -> String {
    let mut request = json!({"prompt": "red apple", "num_inference_steps": 1});
    request[field] = value;
    request.to_string()
}

#[test]
fn no_error_shows_more_than_the_beginning() {
    for field in FIELDS {
        for value in [json!(long()), json!([long()]), json!({long(): long()})] {
            assert_short(field, &post(&with(field, value), &[]));
        }
    }
    for (backend, config) in [
        ("none", json!({long(): 1})),
        ("cache_dit", json!({long(): 1})),
        ("cache_dit", json!({"cache_type": long()})),
        ("cache_dit", json!({"steps_computation_mask": [1, long()]})),
        ("cache_dit", json!({"Fn_compute_blocks": {long(): 1}})),
        ("tea_cache", json!({"rel_l1_thresh": -1e300})),
        ("mag_cache", json!({"mag_ratios": [1, long()]})),
    ] {
        let request = json!({"prompt": "red apple", "cache_backend": backend, "cache_config": config});
        assert_short(backend, &post(&request.to_string(), &[]));
    }
    let text = long();
    for body in [
        format!(r#"{{"{text}": 1, "{text}": 2}}"#),
        format!(r#"{{"{text}": NaN}}"#),
        format!(r#"{{"cache_config": {{"{text}": 1{}}}}}"#, "0".repeat(5000)),
        format!(r#"{{"prompt": {text}}}"#),
        format!("{{\"prompt\": \"class:{}\"}}", "9".repeat(4000)),
        text.clone(),
    ] {
        assert_short(&body[..40.min(body.len())], &post(&body, &[]));
    }
    for header in ["accept", "content-encoding", "content-type"] {
        let value = format!("{}{text}", if header == "content-encoding" { "" } else { "multipart/" });
        let value = if header == "accept" { format!("image/{text}") } else { value };
        assert_short(header, &post("{}", &[(header, &value)]));
    }
    let send = |method: &str, path: &str| http::request(&shared().address, method, path, &[], b"");
    for (method, path) in [
        ("GET", format!("/{text}")),
        ("GET", format!("/v1/{text}")),
        ("DELETE", format!("/docs/{text}")),
        ("PATCH", GENERATIONS.to_owned()),
        ("GET", format!("/v1/models/{text}")),
        ("GET", format!("/v1/images/files/{text}")),
        ("GET", format!("/v1/images/jobs/{text}")),
        ("DELETE", format!("/v1/images/jobs/{text}")),
        ("GET", format!("/v1/images/jobs?{text}=1")),
        ("GET", format!("/v1/images/jobs?limit={text}")),
        ("GET", format!("/v1/images/jobs?after={text}")),
    ] {
        assert_short(method, &send(method, &path));
    }
    let method = "Z".repeat(3000);
    let answer = send(&method, GENERATIONS);
    assert!((400..500).contains(&answer.status) && answer.text().len() < 1000, "{}", answer.text());
}

#[test]
fn lists_are_as_long_as_a_request_can_use() {
    let request = |steps: usize, backend: &str, config: Value| {
        let request = json!({"prompt": "red apple", "num_inference_steps": steps, "cache_backend": backend,
                             "cache_config": config});
        post(&request.to_string(), &[])
    };
    let prune = |ids: Value| json!({"cache_type": "DBPrune", "non_prune_block_ids": ids});
    for (config, key) in [
        (prune(json!(vec![0; 500_000])), "non_prune_block_ids"),
        // The model has 12 blocks.
        (prune(json!(vec![0; 13])), "non_prune_block_ids"),
        (json!({"steps_computation_mask": vec![1; 2]}), "steps_computation_mask"),
        (json!({"steps_computation_mask": vec![1; 500_000]}), "steps_computation_mask"),
        (json!({"scm_compute_bins": vec![1; 250_000], "scm_cache_bins": vec![1; 250_000]}), "scm_compute_bins"),
    ] {
        let refused = request(1, "cache_dit", config);
        assert_eq!((refused.status, refused.error().0.as_deref()), (400, Some(&*format!("cache_config.{key}"))));
        assert!(refused.text().len() < 400, "{}", refused.text());
    }
    let refused = request(1, "mag_cache", json!({"mag_ratios": vec![1; 500_000]}));
    assert_eq!((refused.status, refused.error().0.as_deref()), (400, Some("cache_config.mag_ratios")));
    let served = request(2, "mag_cache", json!({"mag_ratios": vec![1; 1000]}));
    assert_eq!(served.json()["cache"]["config"]["mag_ratios"], json!([1.0, 1.0]), "as many as there are steps");
}

#[test]
fn a_configuration_from_an_answer_can_be_sent_back() {
    for (backend, config) in [
        ("cache_dit", json!({"cache_type": "DBPrune"})),
        ("cache_dit", json!({"cache_type": "DBPrune", "enable_dynamic_prune_threshold": true})),
        ("cache_dit", json!({"scm_steps_mask_policy": "fast"})),
        ("cache_dit", json!({})),
        ("tea_cache", json!({})),
        ("mag_cache", json!({})),
    ] {
        let request = |config: &Value| {
            json!({"prompt": "red apple", "seed": 1, "num_inference_steps": 8, "cache_backend": backend,
                   "cache_config": config})
        };
        let first = shared().generate(&request(&config));
        let again = shared().generate(&request(&first["cache"]["config"]));
        assert_eq!(first["cache"], again["cache"], "{config}");
    }
}

#[test]
fn the_log_has_a_line_for_many_unknown_fields_and_little_of_each() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--unknown-fields", "ignore", "--log-format", "json"]);
    command.stderr(File::create(&path).unwrap());
    let server = Server::from_command(command, None);
    let mut request: Map<String, Value> =
        (0..5000).map(|index| (format!("{index}{}", "z".repeat(100)), json!(1))).collect();
    request.extend([("prompt".to_owned(), json!("red apple")), ("num_inference_steps".to_owned(), json!(2))]);
    // It never engages, so its configuration is logged.
    request.extend([("cache_backend".to_owned(), json!("cache_dit"))]);
    for _ in 0..2 {
        assert_eq!(server.post(json!(request).to_string().as_bytes()).status, 200);
    }
    let log = || std::fs::read_to_string(&path).unwrap();
    let lines = |with: &str| log().lines().filter(|line| line.contains(with)).count();
    server.wait_until("it is logged", || lines("ignored unknown request fields") == 2);
    assert_eq!(lines("the cache reused no step of this request"), 1, "{}", log());
    let log = log();
    let longest = log.lines().map(str::len).max().unwrap();
    assert!(longest < 2500, "a line has {longest} bytes");
}
