//! Clients that leave and servers that end.

use std::io::Write;
use std::net::TcpStream;
use std::thread;

use serde_json::json;

use crate::http;
use crate::picture::Picture;
use crate::server::Server;

#[test]
fn a_client_that_leaves_does_not_keep_the_worker_busy() {
    let server = Server::start(&[]);
    let in_flight = || server.metric("afterimage_requests_in_flight", &[]);
    let body = json!({"prompt": "red apple", "n": 10, "num_inference_steps": 200}).to_string();
    let head = format!("POST /v1/images/generations HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
    let mut client = TcpStream::connect(&server.address).unwrap();
    client.write_all(format!("{head}{body}").as_bytes()).unwrap();
    server.wait_until("the job is accepted", || in_flight() == 1.0);
    drop(client);
    server.wait_until("the job is given up", || in_flight() == 0.0);
    assert_eq!(server.metric("afterimage_requests_total", &["status=\"cancelled\""]), 1.0);
    server.generate(&json!({"prompt": "red apple", "num_inference_steps": 1}));
    assert_eq!(server.metric("afterimage_images_total", &[]), 1.0);
}

#[test]
fn a_full_queue_says_when_to_come_back() {
    let server = Server::start(&["--max-queued-requests", "1", "--max-batch-rows", "2"]);
    let body = json!({"prompt": "red apple", "n": 2, "num_inference_steps": 60}).to_string();
    let answers: Vec<_> = thread::scope(|scope| {
        let clients: Vec<_> = (0..16).map(|_| scope.spawn(|| server.post(body.as_bytes()))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    let (served, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 200);
    assert!(!served.is_empty() && !refused.is_empty(), "{} served, {} refused", served.len(), refused.len());
    for answer in &refused {
        assert_eq!((answer.status, answer.error().1.as_str()), (429, "queue_full"));
        assert!(answer.header("retry-after").unwrap().parse::<u64>().unwrap() >= 1);
    }
    let rejected = server.metric("afterimage_requests_total", &["status=\"rejected\""]);
    assert_eq!(rejected, refused.len() as f64);
}

#[test]
fn a_request_out_of_time_is_given_up() {
    let server = Server::start(&["--request-timeout", "0.001"]);
    let request = json!({"prompt": "red apple", "n": 10, "num_inference_steps": 200});
    let answer = server.post(request.to_string().as_bytes());
    assert_eq!((answer.status, answer.error().1.as_str()), (503, "timed_out"));
    assert!(answer.header("retry-after").is_some() && answer.header("x-should-retry").is_none());
    assert_eq!(server.metric("afterimage_requests_total", &["status=\"timed_out\""]), 1.0);
    assert_eq!(server.metric("afterimage_jobs_timed_out_total", &[]), 1.0);
    assert_eq!(server.metric("afterimage_running_rows", &[]), 0.0);

    let mut streamed = request;
    streamed["stream"] = json!(true);
    let answer = server.post(streamed.to_string().as_bytes());
    assert_eq!(answer.status, 200);
    let data = answer.text().split_once("event: error\ndata: ").unwrap().1;
    let data: serde_json::Value = serde_json::from_str(data.trim_end()).unwrap();
    assert_eq!(data["error"]["code"], "timed_out");
}

#[test]
fn a_server_told_to_end_finishes_what_it_accepted() {
    let server = Server::start(&["--drain-timeout", "300"]);
    let request = json!({"prompt": "red apple", "seed": 1, "n": 2, "num_inference_steps": 200});
    let body = request.to_string();
    thread::scope(|scope| {
        let accepted = scope.spawn(|| server.post(body.as_bytes()));
        server.wait_until("the job is accepted", || server.metric("afterimage_requests_in_flight", &[]) == 1.0);
        server.terminate();
        // Either it still answers, or it is already gone because the accepted job was quick.
        let probe = |method: &str, path: &str, body: &str| {
            let length = body.len();
            let head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}");
            http::try_raw(&server.address, format!("{head}\r\n\r\n{body}").as_bytes()).ok()
        };
        let is_ending = || probe("GET", "/health/ready", "").is_none_or(|response| response.status == 503);
        server.wait_until("it is no longer ready", is_ending);
        if let Some(refused) = probe("POST", "/v1/images/generations", &body) {
            assert_eq!((refused.status, refused.error().1.as_str()), (503, "shutting_down"));
            assert!(refused.header("retry-after").is_some());
        }
        let answer = accepted.join().unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(Picture::of(&answer.json(), 1).width, 64);
    });
    assert_eq!(server.wait().code(), Some(0));
}
