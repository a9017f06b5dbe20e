//! Generations whose client does not wait on the connection.

use serde_json::{Value, json};

use crate::http::{self, Response};
use crate::picture::Picture;
use crate::server::{Server, shared};

const JOBS: &str = "/v1/images/jobs";

fn post(server: &Server, request: &Value) -> Response {
    http::request(&server.address, "POST", JOBS, &[], request.to_string().as_bytes())
}

/// The id of a job that must be accepted.
fn start(server: &Server, request: &Value) -> String {
    let response = post(server, request);
    assert_eq!(response.status, 202, "{}", response.text());
    response.json()["id"].as_str().unwrap().to_owned()
}

fn path(id: &str) -> String {
    format!("{JOBS}/{id}")
}

fn delete(server: &Server, id: &str) -> Response {
    http::request(&server.address, "DELETE", &path(id), &[], b"")
}

/// The job as it is once it has ended.
fn ended(server: &Server, id: &str) -> Value {
    let mut job = Value::Null;
    server.wait_until("the job has ended", || {
        job = server.get(&path(id)).json();
        !["queued", "running"].contains(&job["status"].as_str().unwrap())
    });
    job
}

/// Takes a while.
fn long() -> Value {
    json!({"prompt": "red apple", "n": 10, "num_inference_steps": 200})
}

#[test]
fn a_job_gives_what_a_generation_gives() {
    let request = json!({
        "prompt": "red apple", "seed": 1, "n": 2, "num_inference_steps": 8, "cache_backend": "cache_dit"
    });
    let response = post(shared(), &request);
    assert_eq!(response.status, 202, "{}", response.text());
    let job = response.json();
    let id = job["id"].as_str().unwrap();
    assert_eq!(response.header("location"), Some(path(id).as_str()));
    assert_eq!((&job["object"], &job["seed"], &job["model"]), (&json!("image.job"), &json!(1), &json!("emoji-dit")));
    assert_eq!((&job["progress"]["total"], &job["finished_at"]), (&json!(16), &Value::Null));

    let job = ended(shared(), id);
    assert_eq!((&job["status"], &job["error"]), (&json!("succeeded"), &Value::Null));
    assert_eq!((&job["progress"]["step"], &job["partial_images"]), (&json!(16), &json!([])));
    let plain = shared().generate(&request);
    let keys = |object: &Value| object.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&job["result"]), keys(&plain));
    assert_eq!(job["result"]["cache"], plain["cache"]);
    for index in 0..2 {
        assert!(Picture::of(&job["result"], index).psnr(&Picture::of(&plain, index)) >= 60.0);
    }
}

#[test]
fn progress_only_grows_and_previews_show_the_latest_state() {
    let server = Server::start(&[]);
    let id = start(&server, &json!({"prompt": "sunflower", "num_inference_steps": 200, "partial_images": 3}));
    let (mut steps, mut numbers) = (Vec::new(), Vec::new());
    server.wait_until("the job has ended", || {
        let job = server.get(&path(&id)).json();
        steps.push(job["progress"]["step"].as_u64().unwrap());
        for preview in job["partial_images"].as_array().unwrap() {
            assert_eq!((Picture::in_object(preview).width, &preview["image_index"]), (64, &json!(0)));
            numbers.push(preview["partial_image_index"].as_u64().unwrap());
        }
        job["status"] == "succeeded"
    });
    assert!(steps.is_sorted() && steps.last() == Some(&200), "{steps:?}");
    assert!(numbers.is_sorted() && !numbers.is_empty(), "{numbers:?}");
}

#[test]
fn a_deleted_job_is_cancelled_and_then_forgotten() {
    let server = Server::start(&[]);
    let id = start(&server, &long());
    server.wait_until("it runs", || server.get(&path(&id)).json()["status"] == "running");
    assert_eq!(delete(&server, &id).json()["status"], "cancelled");
    server.wait_until("its rows are free", || server.metric("afterimage_running_rows", &[]) == 0.0);
    server.wait_until("it is counted", || server.metric("afterimage_requests_total", &["status=\"cancelled\""]) == 1.0);
    let job = server.get(&path(&id)).json();
    assert_eq!((&job["status"], &job["result"], &job["error"]), (&json!("cancelled"), &Value::Null, &Value::Null));

    assert_eq!(delete(&server, &id).status, 200);
    for response in [server.get(&path(&id)), delete(&server, &id)] {
        assert_eq!((response.status, response.error()), (404, (Some("id".to_owned()), "job_not_found".to_owned())));
    }
    assert_eq!(server.metric("afterimage_images_total", &[]), 0.0);
    assert_eq!(server.metric("afterimage_requests_in_flight", &[]), 0.0);
}

#[test]
fn jobs_are_bounded_listed_and_counted() {
    let server = Server::start(&["--max-jobs", "3"]);
    let request = json!({"prompt": "rocket", "num_inference_steps": 2});
    let jobs = [(); 3].map(|()| start(&server, &request));
    let is_done = || server.metric("afterimage_requests_total", &["status=\"ok\""]) == 3.0;
    server.wait_until("all are done", is_done);

    let refused = post(&server, &request);
    assert_eq!((refused.status, refused.error().1.as_str()), (429, "too_many_jobs"));
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    assert_eq!(server.metric("afterimage_requests_total", &["status=\"rejected\""]), 1.0);

    let page = server.get(&format!("{JOBS}?limit=2")).json();
    assert_eq!((&page["object"], &page["has_more"]), (&json!("list"), &json!(true)));
    assert_eq!((&page["first_id"], &page["last_id"]), (&json!(jobs[2]), &json!(jobs[1])));
    assert!(page["data"][0].get("result").is_none(), "a list has no pictures");
    let page = server.get(&format!("{JOBS}?limit=2&after={}", jobs[1])).json();
    assert_eq!((&page["data"][0]["id"], &page["has_more"]), (&json!(jobs[0]), &json!(false)));
    for (query, param) in [("limit=0", "limit"), ("after=job_0", "after"), ("order=asc", "order")] {
        let response = server.get(&format!("{JOBS}?{query}"));
        assert_eq!((response.status, response.error().0.as_deref()), (400, Some(param)));
    }

    // The one whose result was fetched makes room.
    assert_eq!(server.get(&path(&jobs[1])).json()["status"], "succeeded");
    start(&server, &request);
    assert_eq!(server.get(&path(&jobs[1])).status, 404);
    assert_eq!(server.get(&path(&jobs[0])).status, 200);
    server.wait_until("that one is done", || server.metric("afterimage_images_total", &[]) == 4.0);
    assert_eq!(server.metric("afterimage_steps_total", &[]), 4.0 * 2.0);
}

#[test]
fn a_job_is_forgotten_after_its_time() {
    let server = Server::start(&["--job-retention", "0.001"]);
    let id = start(&server, &json!({"prompt": "rocket", "num_inference_steps": 1}));
    server.wait_until("it is forgotten", || server.get(&path(&id)).status == 404);
    assert_eq!(server.get(JOBS).json()["data"], json!([]));
    assert_eq!(server.metric("afterimage_images_total", &[]), 1.0);
}

#[test]
fn a_job_that_fails_keeps_its_error() {
    let server = Server::start(&["--request-timeout", "0.001"]);
    let job = ended(&server, &start(&server, &long()));
    assert_eq!((&job["status"], &job["error"]["code"]), (&json!("failed"), &json!("timed_out")));
    assert_eq!(server.metric("afterimage_requests_total", &["status=\"timed_out\""]), 1.0);
}

#[test]
fn bad_jobs_are_refused_like_bad_generations() {
    for (request, status, param) in [
        (json!({"num_inference_steps": 2}), 400, "prompt"),
        (json!({"prompt": "red apple", "stream": true}), 400, "stream"),
        (json!({"prompt": "red apple", "partial_images": 4}), 400, "partial_images"),
        (json!({"prompt": "red apple", "model": "dall-e-3"}), 404, "model"),
    ] {
        let response = post(shared(), &request);
        assert_eq!((response.status, response.error().0.as_deref()), (status, Some(param)), "{request}");
    }
}

#[test]
fn a_server_told_to_end_finishes_jobs_and_hands_them_out() {
    let server = Server::start(&["--drain-timeout", "300"]);
    let id = start(&server, &json!({"prompt": "red apple", "seed": 1, "n": 2, "num_inference_steps": 100}));
    server.terminate();
    let is_ending = || server.get("/health/ready").status == 503;
    server.wait_until("it is no longer ready", is_ending);
    let job = ended(&server, &id);
    assert_eq!(job["status"], "succeeded", "{}", job["error"]);
    assert_eq!(Picture::of(&job["result"], 1).width, 64);
    assert_eq!(server.wait().code(), Some(0));
}
