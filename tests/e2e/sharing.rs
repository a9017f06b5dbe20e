//! What clients share: places for jobs, the queue, and the worker's rows. What one of them takes keeps no other out.

use serde_json::{Value, json};

use crate::http::{self, Response};
use crate::server::Server;

const JOBS: &str = "/v1/images/jobs";
const HOG: &str = "sk-hog-0123456789abcdef";
const OTHER: &str = "sk-other-0123456789abcdef";

/// A server with two keys.
fn start(flags: &[&str]) -> Server {
    let keys = format!("{HOG},{OTHER}");
    Server::with_key(Some(OTHER), &[flags, &["--api-key", &keys]].concat(), |_| {})
}

fn send(server: &Server, key: &str, method: &str, path: &str, body: &Value) -> Response {
    let authorization = format!("Bearer {key}");
    let body = if body.is_null() { String::new() } else { body.to_string() };
    http::request(&server.address, method, path, &[("authorization", &authorization)], body.as_bytes())
}

fn job(server: &Server, key: &str, request: &Value) -> Response {
    send(server, key, "POST", JOBS, request)
}

fn status(server: &Server, key: &str, job: &Response) -> String {
    let path = job.header("location").unwrap();
    send(server, key, "GET", path, &Value::Null).json()["status"].as_str().unwrap().to_owned()
}

fn steps(steps: usize) -> Value {
    json!({"prompt": "red apple", "num_inference_steps": steps})
}

#[track_caller]
fn assert_refused(response: &Response, code: &str) -> u64 {
    assert_eq!((response.status, response.error().1.as_str()), (429, code), "{}", response.text());
    response.header("retry-after").unwrap().parse().unwrap()
}

#[test]
fn unfetched_jobs_of_one_key_lock_no_other_out() {
    let server = start(&["--max-jobs", "4", "--job-retention", "3000"]);
    for _ in 0..4 {
        assert_eq!(job(&server, HOG, &steps(1)).status, 202);
    }
    server.wait_until("they are done", || server.metric("afterimage_images_total", &[]) == 4.0);
    let wait = assert_refused(&job(&server, HOG, &steps(1)), "too_many_jobs");
    assert!((2900..=3000).contains(&wait), "as long as they are kept, not {wait} s");
    let own = [(); 2].map(|()| job(&server, OTHER, &steps(1)));
    assert!(own.iter().all(|job| job.status == 202), "half of the places");
    assert_refused(&job(&server, OTHER, &steps(1)), "too_many_jobs");
    server.wait_until("its own are done", || own.iter().all(|job| status(&server, OTHER, job) == "succeeded"));
    assert_eq!(job(&server, OTHER, &steps(1)).status, 202, "a fetched one makes room");
}

#[test]
fn a_place_for_a_job_is_free_when_it_was_said_to_be() {
    let server = start(&["--max-jobs", "1", "--job-retention", "1"]);
    assert_eq!(job(&server, HOG, &steps(1)).status, 202);
    assert_refused(&job(&server, HOG, &steps(1)), "too_many_jobs");
    server.wait_until("it is forgotten", || job(&server, HOG, &steps(1)).status == 202);
}

#[test]
fn a_queue_full_of_one_keys_requests_lets_others_in_and_first() {
    let server = start(&["--max-queued-requests", "4", "--max-batch-rows", "2"]);
    let first = job(&server, HOG, &steps(120));
    server.wait_until("it runs", || status(&server, HOG, &first) == "running");
    let waiting: Vec<_> = (0..4).map(|_| job(&server, HOG, &steps(120))).collect();
    assert!(waiting.iter().all(|job| job.status == 202));
    assert!(assert_refused(&job(&server, HOG, &steps(1)), "queue_full") >= 1);
    let body = steps(1);
    let answer = send(&server, OTHER, "POST", "/v1/images/generations", &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(status(&server, HOG, waiting.last().unwrap()), "queued", "the hog's own requests wait for each other");
}

#[test]
fn leaving_and_deleting_give_no_further_places() {
    let server = start(&["--max-concurrent-per-key", "2", "--max-batch-rows", "2"]);
    let long = json!({"prompt": "red apple", "n": 10, "num_inference_steps": 200});
    let first = job(&server, HOG, &long);
    server.wait_until("it runs", || status(&server, HOG, &first) == "running");
    let mut refused = 0;
    for _ in 0..40 {
        let answer = job(&server, HOG, &long);
        match answer.status {
            202 => {
                let path = answer.header("location").unwrap();
                assert_eq!(send(&server, HOG, "DELETE", path, &Value::Null).status, 200);
            }
            _ => {
                assert!(assert_refused(&answer, "too_many_concurrent") >= 1);
                refused += 1;
            }
        }
        let waiting = server.metric("afterimage_queue_depth", &[]);
        assert!(waiting <= 1.0, "{waiting} wait beside the one that runs");
    }
    println!("{refused} of 40 were refused");
    send(&server, HOG, "DELETE", first.header("location").unwrap(), &Value::Null);
    server.wait_until("all places are free", || server.metric("afterimage_running_rows", &[]) == 0.0);
    server.wait_until("for it, too", || job(&server, HOG, &steps(1)).status == 202);
}

#[test]
fn the_rows_of_all_sizes_together_are_the_workers() {
    let server = Server::start(&["--buckets", "64x64,96x64,64x96", "--max-batch-rows", "4"]);
    let request = |size: &&str| json!({"prompt": "red apple", "size": size, "n": 3, "num_inference_steps": 12});
    let jobs: Vec<_> = ["64x64", "96x64", "64x96"].iter().cycle().take(6).map(request).collect();
    for request in &jobs {
        let answer = http::request(&server.address, "POST", JOBS, &[], request.to_string().as_bytes());
        assert_eq!(answer.status, 202, "{}", answer.text());
    }
    let mut most: f64 = 0.0;
    server.wait_until("all are done", || {
        let metrics = server.metrics();
        most = most.max(metrics.sum("afterimage_running_rows", &[]));
        metrics.sum("afterimage_images_total", &[]) == 18.0
    });
    assert!(most > 0.0 && most <= 4.0, "{most} rows ran at a time");
}

#[test]
fn a_size_that_a_format_cannot_have_is_refused_before_the_work() {
    let server = Server::start(&["--buckets", "64x64,16448x64"]);
    for (format, status) in [("webp", 400), ("png", 202)] {
        let request = json!({"prompt": "red apple", "size": "16448x64", "output_format": format});
        let answer = http::request(&server.address, "POST", JOBS, &[], request.to_string().as_bytes());
        assert_eq!(answer.status, status, "{}", answer.text());
        if status == 400 {
            assert_eq!(answer.error().0.as_deref(), Some("output_format"));
            assert!(answer.text().contains("16383"), "{}", answer.text());
            assert_eq!(server.metric("afterimage_images_begun_total", &[]), 0.0);
        }
    }
}
