//! Sweeps over cache settings: what they measure, their limits, and their end.

use serde_json::{Value, json};

use crate::http::{self, Response};
use crate::server::{Server, shared};

const SWEEPS: &str = "/v1/cache/sweeps";

fn post(server: &Server, request: &Value) -> Response {
    http::request(&server.address, "POST", SWEEPS, &[], request.to_string().as_bytes())
}

/// Where a sweep is found that must be accepted.
fn start(server: &Server, request: &Value) -> String {
    let response = post(server, request);
    assert_eq!(response.status, 202, "{}", response.text());
    let path = format!("{SWEEPS}/{}", response.json()["id"].as_str().unwrap());
    assert_eq!(response.header("location"), Some(path.as_str()));
    path
}

fn delete(server: &Server, path: &str) -> Response {
    http::request(&server.address, "DELETE", path, &[], b"")
}

/// As it is once it has ended.
fn ended(server: &Server, path: &str) -> Value {
    let mut sweep = Value::Null;
    server.wait_until("the sweep has ended", || {
        sweep = server.get(path).json();
        !["queued", "running"].contains(&sweep["status"].as_str().unwrap())
    });
    sweep
}

#[test]
fn a_sweep_measures_what_a_request_then_gets() {
    let picture = json!({"prompt": "red apple", "seed": 3, "num_inference_steps": 8});
    let path = start(shared(), &picture);
    let sweep = ended(shared(), &path);
    assert_eq!(
        (&sweep["object"], &sweep["status"], &sweep["seed"]),
        (&json!("cache.sweep"), &json!("succeeded"), &json!(3))
    );
    assert_eq!(sweep["rows"], json!([]));
    let report = &sweep["report"];
    assert_eq!(
        (&report["steps"], &report["prompts"], &report["seeds"]),
        (&json!(8), &json!(["red apple"]), &json!([3]))
    );
    let (uncached, rows) = report["rows"].as_array().unwrap().split_first().unwrap();
    assert_eq!((&uncached["cache_backend"], &uncached["psnr_db"]), (&json!("none"), &json!(99.0)));
    assert!(rows.len() >= 10, "{}", rows.len());
    for row in rows {
        for figure in ["seconds", "speedup", "speedup_bound", "hit_rate", "cached_steps", "psnr_db", "ssim"] {
            assert!(row[figure].is_number(), "{figure}: {row}");
        }
    }
    let row = rows.iter().find(|row| row["hit_rate"].as_f64().unwrap() > 0.0).unwrap();
    let mut request = picture;
    request["cache_backend"] = row["cache_backend"].clone();
    request["cache_config"] = row["cache_config"].clone();
    let cache = shared().generate(&request)["cache"].take();
    assert_eq!((&cache["config"], &cache["hit_rate"]), (&row["cache_config"], &row["hit_rate"]));

    // It is no image job.
    let id = path.rsplit('/').next().unwrap();
    assert_eq!(shared().get(&format!("/v1/images/jobs/{id}")).status, 404);
    assert_eq!((delete(shared(), &path).status, shared().get(&path).status), (200, 404));
}

#[test]
fn a_sweep_is_cancelled_between_steps_and_its_turn_is_anothers() {
    let server = Server::start(&[]);
    let long = start(&server, &json!({"prompt": "red apple", "num_inference_steps": 50, "repeats": 5}));
    server.wait_until("it runs", || server.get(&long).json()["status"] == "running");
    let waits = start(&server, &json!({"prompt": "red apple", "num_inference_steps": 2}));
    assert_eq!(server.get(&waits).json()["status"], "queued");
    server.wait_until("it has a row", || {
        server.get(&long).json()["rows"].as_array().is_some_and(|rows| !rows.is_empty())
    });
    assert_eq!(delete(&server, &long).json()["status"], "cancelled");
    let sweep = server.get(&long).json();
    assert_eq!((&sweep["status"], &sweep["rows"][0]["cache_backend"]), (&json!("cancelled"), &json!("none")));
    assert_eq!(sweep["report"], Value::Null);
    assert_eq!(ended(&server, &waits)["status"], "succeeded");
    server.wait_until("nothing is left", || server.metric("afterimage_running_rows", &[]) == 0.0);
}

#[test]
fn sweeps_take_the_places_of_jobs() {
    let server = Server::start(&["--max-jobs", "1"]);
    let long = start(&server, &json!({"prompt": "red apple", "num_inference_steps": 200}));
    let refused = post(&server, &json!({"prompt": "red apple"}));
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (429, &json!("too_many_jobs")));
    delete(&server, &long);
}

#[test]
fn what_is_wrong_with_a_sweep_is_said_before_it_begins() {
    for (field, value, code) in [
        ("cache_backend", json!("cache_dit"), "unknown_field"),
        ("n", json!(2), "unknown_field"),
        ("repeats", json!(6), "invalid_value"),
        ("num_inference_steps", json!(0), "invalid_value"),
        ("prompt", json!("no such label"), "unknown_label"),
        ("size", json!("1x1"), "invalid_size"),
    ] {
        let mut request = json!({"prompt": "red apple"});
        request[field] = value;
        let response = post(shared(), &request);
        let error = response.json()["error"].take();
        assert_eq!((response.status, &error["param"]), (400, &json!(field)), "{error}");
        if field != "size" {
            assert_eq!(error["code"], code, "{error}");
        }
    }
}

#[test]
fn a_server_that_ends_gives_a_sweep_up() {
    let server = Server::start(&["--drain-timeout", "5"]);
    let path = start(&server, &json!({"prompt": "red apple", "num_inference_steps": 50}));
    server.wait_until("it runs", || server.get(&path).json()["status"] == "running");
    server.terminate();
    assert_eq!(ended(&server, &path)["status"], "failed");
    assert!(server.wait().success());
}
