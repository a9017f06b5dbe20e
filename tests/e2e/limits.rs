//! What one client may ask for: requests a minute, requests at a time, pixels.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use serde_json::json;

use crate::http::{self, Response};
use crate::server::{PROGRAM, Server};

const GENERATIONS: &str = "/v1/images/generations";

fn post(server: &Server, key: &str, body: &str) -> Response {
    let authorization = format!("Bearer {key}");
    http::request(&server.address, "POST", GENERATIONS, &[("authorization", &authorization)], body.as_bytes())
}

fn assert_refused(response: &Response, code: &str) {
    assert_eq!((response.status, response.error()), (429, (None, code.to_owned())));
    let retry_after: u64 = response.header("retry-after").unwrap().parse().unwrap();
    assert!(retry_after >= 1 && response.text().contains("--"), "{}", response.text());
}

#[test]
fn every_key_has_its_own_rate() {
    let server = Server::start(&["--rate-limit", "2", "--api-key", "sk-a,sk-b"]);
    // Requests that fail count, too; otherwise trying would be free.
    assert_eq!([post(&server, "sk-a", "{").status, post(&server, "sk-a", "{").status], [400, 400]);
    let refused = post(&server, "sk-a", "{");
    assert_refused(&refused, "rate_limited");
    assert!(refused.text().contains("--rate-limit") && refused.header("x-request-id").is_some());
    assert!(refused.header("retry-after").unwrap().parse::<u64>().unwrap() <= 30);
    assert_eq!(post(&server, "sk-b", "{").status, 400);
    assert_eq!(post(&server, "sk-c", "{").status, 401);
    let models = http::request(&server.address, "GET", "/v1/models", &[("authorization", "Bearer sk-a")], b"");
    assert_eq!(models.status, 200, "reading is free");
    assert_eq!(server.metric("afterimage_refused_total", &["reason=\"rate_limited\""]), 1.0);
}

#[test]
fn without_keys_an_address_has_the_rate() {
    let server = Server::start(&["--rate-limit", "1"]);
    assert_eq!(server.post(b"{").status, 400);
    assert_refused(&server.post(b"{"), "rate_limited");
    assert_eq!(server.get("/v1/models").status, 200);
}

#[test]
fn a_request_holds_its_place_until_it_has_its_answer() {
    let server = Server::start(&["--max-concurrent-per-key", "1", "--api-key", "sk-a", "--api-key", "sk-b"]);
    let quick = json!({"prompt": "red apple", "num_inference_steps": 1}).to_string();
    for is_stream in [false, true] {
        let long = json!({"prompt": "red apple", "n": 10, "num_inference_steps": 200, "stream": is_stream}).to_string();
        let mut client = TcpStream::connect(&server.address).unwrap();
        let head = format!(
            "POST {GENERATIONS} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-a\r\ncontent-length: {}\r\n\r\n",
            long.len()
        );
        client.write_all(format!("{head}{long}").as_bytes()).unwrap();
        server.wait_until("it is accepted", || server.metric("afterimage_requests_in_flight", &[]) == 1.0);
        if is_stream {
            let mut start = [0; 12];
            client.read_exact(&mut start).unwrap();
            assert_eq!(&start, b"HTTP/1.1 200");
        }
        assert_refused(&post(&server, "sk-a", &quick), "too_many_concurrent");
        assert_eq!(post(&server, "sk-b", "{").status, 400, "another key has its own places");
        drop(client);
        server.wait_until("the place is free", || post(&server, "sk-a", "{").status == 400);
    }
    for _ in 0..3 {
        assert_eq!(post(&server, "sk-a", &quick).status, 200, "an answer that was made holds no place");
    }
}

#[test]
fn a_job_holds_its_place_until_it_has_ended() {
    let server = Server::start(&["--max-concurrent-per-key", "1"]);
    let send = |method, path: &str, body: &str| http::request(&server.address, method, path, &[], body.as_bytes());
    let long = json!({"prompt": "red apple", "n": 10, "num_inference_steps": 200}).to_string();
    let job = send("POST", "/v1/images/jobs", &long);
    assert_eq!(job.status, 202, "{}", job.text());
    assert_refused(&server.post(b"{"), "too_many_concurrent");
    assert_refused(&send("POST", "/v1/images/jobs", &long), "too_many_concurrent");
    let path = job.header("location").unwrap();
    assert_eq!(send("GET", path, "").status, 200, "looking at it is free");
    assert_eq!(send("DELETE", path, "").status, 200);
    server.wait_until("the place is free", || server.post(b"{").status == 400);
}

#[test]
fn large_pictures_are_refused() {
    let server = Server::start(&["--max-pixels", "4096"]);
    server.generate(&json!({"prompt": "red apple", "size": "64x64", "num_inference_steps": 1}));
    let response = server.post(json!({"prompt": "red apple", "size": "65x64"}).to_string().as_bytes());
    assert_eq!((response.status, response.error().0.as_deref()), (400, Some("size")));
    assert!(response.text().contains("4096") && response.text().contains("--max-pixels"), "{}", response.text());
}

#[test]
fn a_server_does_not_offer_what_it_would_refuse() {
    for flags in [["--max-pixels", "4095", "--buckets", "64x64"], ["--max-pixels", "4095", "--log-filter", "off"]] {
        let output = Command::new(PROGRAM).args(["serve", "--port", "0"]).args(flags).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.starts_with("error: --max-pixels: it is 4095, and the served size 64x64 has 4096"), "{stderr}");
    }
}
