//! Clients that leave and servers that shut down.

use std::io::Read;
use std::thread;

use serde_json::json;

use crate::http;
use crate::picture::Picture;
use crate::server::Server;

#[test]
fn a_client_that_leaves_does_not_keep_the_worker_busy() {
    let server = Server::start(&[]);
    let in_flight = || server.metric("afterimage_requests_in_flight", &[]);
    let request = json!({"prompt": "red apple", "n": 10, "num_inference_steps": 200});
    let client = http::open_generation(&server.address, &request);
    server.wait_until("the job is accepted", || in_flight() == 1.0);
    drop(client);
    server.wait_until("the job is given up", || in_flight() == 0.0);
    assert_eq!(server.metric("afterimage_requests_total", &["status=\"cancelled\""]), 1.0);
    server.generate(&json!({"prompt": "red apple", "num_inference_steps": 1}));
    assert_eq!(server.metric("afterimage_images_total", &[]), 1.0);
}

#[test]
fn a_client_that_has_no_more_to_say_gets_its_answer() {
    let server = Server::start(&[]);
    let post = |body: &serde_json::Value, version: &str| {
        let body = body.to_string();
        let head = format!("POST /v1/images/generations HTTP/{version}\r\nhost: x\r\ncontent-length: {}", body.len());
        http::half_closed(&server.address, format!("{head}\r\n\r\n{body}").as_bytes())
    };
    let mut request = json!({"prompt": "red apple", "seed": 1, "num_inference_steps": 60});
    for version in ["1.1", "1.0"] {
        let answer = post(&request, version);
        assert_eq!((answer.status, Picture::of(&answer.json(), 0).width), (200, 64), "HTTP/{version}");
    }
    request["stream"] = json!(true);
    let events = post(&request, "1.1").events();
    assert_eq!(events.last().unwrap()["type"], "image_generation.completed");
    assert_eq!(post(&json!({"prompt": "no such thing"}), "1.1").status, 400);
    assert_eq!(http::half_closed(&server.address, b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n").status, 200);
    assert_eq!(server.metric("afterimage_requests_total", &["status=\"cancelled\""]), 0.0);
}

#[test]
fn a_client_that_leaves_a_stream_does_not_keep_the_worker_busy() {
    let server = Server::start(&[]);
    let in_flight = || server.metric("afterimage_requests_in_flight", &[]);
    let request = json!({"prompt": "red apple", "n": 10, "num_inference_steps": 200, "stream": true});
    let clients = [0, 1].map(|_| http::open_generation(&server.address, &request));
    server.wait_until("both are accepted", || in_flight() == 2.0);
    drop(clients);
    server.wait_until("both are given up", || in_flight() == 0.0);
    assert_eq!(server.metric("afterimage_requests_total", &["status=\"cancelled\""]), 2.0);
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
fn a_server_told_to_end_under_load_finishes_what_it_accepted() {
    const CLIENTS: usize = 14;
    let server = Server::start(&["--drain-timeout", "600", "--max-batch-rows", "8"]);
    let request = |seed| json!({"prompt": "red apple", "seed": seed, "num_inference_steps": 24});
    thread::scope(|scope| {
        let server = &server;
        let post = move |seed| server.post(request(seed).to_string().as_bytes());
        let clients: Vec<_> = (0..CLIENTS).map(|seed| (seed, scope.spawn(move || post(seed)))).collect();
        let in_flight = || server.metric("afterimage_requests_in_flight", &[]);
        server.wait_until("all are accepted", || in_flight() == CLIENTS as f64);
        // Four of them run, two rows each.
        server.wait_until("some wait, some run", || {
            server.metric("afterimage_queue_depth", &[]) > 0.0 && server.metric("afterimage_running_rows", &[]) == 8.0
        });
        server.terminate();
        server.wait_until("it is no longer ready", || server.get("/health/ready").status == 503);
        let late = post(CLIENTS);
        assert_eq!((late.status, late.error().1.as_str()), (503, "shutting_down"));
        assert!(late.header("retry-after").is_some());
        for (seed, client) in clients {
            let answer = client.join().unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(answer.json()["data"][0]["seed"], seed);
            assert_eq!(Picture::of(&answer.json(), 0).width, 64);
        }
    });
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_server_killed_under_load_starts_again_where_it_was() {
    const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/emoji-dit");
    let server = Server::start(&["--model", MODEL, "--max-batch-rows", "8"]);
    let request = json!({"prompt": "red apple", "seed": 1, "num_inference_steps": 4});
    let before = server.generate(&request);
    let (_, port) = server.address.rsplit_once(':').unwrap();
    let port = port.to_owned();
    let long = json!({"prompt": "fox face", "num_inference_steps": 200, "stream": true});
    let clients: Vec<_> = (0..12).map(|_| http::open_generation(&server.address, &long)).collect();
    server.wait_until("all are accepted", || server.metric("afterimage_requests_in_flight", &[]) == 12.0);
    server.wait_until("some run", || server.metric("afterimage_running_rows", &[]) == 8.0);
    // Dropping a server kills it.
    drop(server);
    for mut client in clients {
        // An error or an early end, but no picture.
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest);
        assert!(!String::from_utf8_lossy(&rest).contains("image_generation.completed"));
    }
    let server = Server::start_on(&port, &["--model", MODEL]);
    assert_eq!(server.metric("afterimage_requests_total", &[]), 0.0);
    assert_eq!(Picture::of(&server.generate(&request), 0), Picture::of(&before, 0));
}
