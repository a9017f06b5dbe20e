//! HTTP/2 without TLS, from the first byte on, beside HTTP/1 on the same port and within the same bounds.

use std::fs::File;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread::sleep;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::server::{Server, shared};

/// What every HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// An empty SETTINGS frame.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// What a client takes of an answer before it reads it.
const WINDOW: u32 = 65_535;

/// One connection.
struct Client {
    runtime: Runtime,
    sender: SendRequest<Full<Bytes>>,
    address: String,
}

impl Client {
    fn open(server: &Server) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let address = server.address.clone();
        let sender = runtime.block_on(async {
            let stream = tokio::net::TcpStream::connect(&address).await.unwrap();
            let (sender, connection) = http2::Builder::new(TokioExecutor::new())
                .initial_stream_window_size(Some(WINDOW))
                .handshake(TokioIo::new(stream))
                .await
                .unwrap();
            tokio::spawn(connection);
            sender
        });
        Self { runtime, sender, address }
    }

    fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &Value) -> Request<Full<Bytes>> {
        let body = if body.is_null() { Bytes::new() } else { Bytes::from(body.to_string()) };
        let mut request = Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(Full::new(body)).unwrap()
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> (StatusCode, String) {
        let request = self.request(method, path, &[], body);
        let mut sender = self.sender.clone();
        self.runtime.block_on(async move {
            let response = sender.send_request(request).await.unwrap();
            let status = response.status();
            let body = response.into_body().collect().await.unwrap().to_bytes();
            (status, String::from_utf8(body.to_vec()).unwrap())
        })
    }
}

#[test]
fn requests_go_side_by_side_on_one_connection() {
    let client = Client::open(shared());
    let request = |seed: u64| json!({"prompt": "red apple", "seed": seed, "num_inference_steps": 3});
    let answers = client.runtime.block_on(async {
        let asked: Vec<_> = (0..4)
            .map(|seed| {
                let message = client.request("POST", "/v1/images/generations", &[], &request(seed));
                let mut sender = client.sender.clone();
                tokio::spawn(async move {
                    let response = sender.send_request(message).await.unwrap();
                    assert_eq!(response.status(), 200);
                    assert!(response.headers().contains_key("x-request-id"));
                    response.into_body().collect().await.unwrap().to_bytes()
                })
            })
            .collect();
        let mut answers = Vec::new();
        for answer in asked {
            answers.push(serde_json::from_slice::<Value>(&answer.await.unwrap()).unwrap());
        }
        answers
    });
    for (seed, answer) in (0..).zip(&answers) {
        assert_eq!(answer["data"][0]["b64_json"], shared().generate(&request(seed))["data"][0]["b64_json"]);
    }
}

#[test]
fn streams_errors_and_urls_are_those_of_http1() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&["--output-dir", folder.path().to_str().unwrap()]);
    let client = Client::open(&server);
    let body = json!({"prompt": "red apple", "seed": 1, "num_inference_steps": 2, "stream": true, "partial_images": 1});
    let (status, events) = client.ask("POST", "/v1/images/generations", &body);
    assert_eq!((status.as_u16(), events.matches("event: image_generation.").count()), (200, 2), "{events}");
    let (status, answer) = client.ask("POST", "/v1/images/generations", &json!({"prompt": "no such thing"}));
    assert!(status == 400 && answer.contains("\"param\":\"prompt\""), "{answer}");
    assert_eq!(client.ask("GET", "/nothing", &Value::Null).0, 404);

    let body = json!({"prompt": "red apple", "num_inference_steps": 1, "response_format": "url"});
    let answer: Value = serde_json::from_str(&client.ask("POST", "/v1/images/generations", &body).1).unwrap();
    let url = answer["data"][0]["url"].as_str().unwrap();
    let path = url.strip_prefix(&format!("http://{}", server.address)).unwrap_or_else(|| panic!("{url}"));
    assert_eq!(server.get(path).status, 200);
}

#[test]
fn heads_that_are_too_large_are_answered_431() {
    let client = Client::open(shared());
    let long = "y".repeat(40_000);
    let request = client.request("GET", "/health/live", &[("x", &long)], &Value::Null);
    let mut sender = client.sender.clone();
    let response = client.runtime.block_on(sender.send_request(request));
    // The client itself may know the server's bound and refuse.
    assert!(response.is_err() || response.is_ok_and(|response| response.status() == 431));
    assert_eq!(client.ask("GET", "/health/live", &Value::Null).0, 200);
}

#[test]
fn a_connection_with_nothing_to_do_is_closed() {
    let server = Server::start(&["--header-timeout", "0.2"]);
    for bytes in [&PREFACE[..10], PREFACE, &[PREFACE, SETTINGS].concat()] {
        let mut connection = TcpStream::connect(&server.address).unwrap();
        connection.write_all(bytes).unwrap();
        let mut rest = Vec::new();
        // A connection that is reset has ended as well.
        let _ = connection.read_to_end(&mut rest);
    }
    // What takes longer than that is not cut, streams included.
    let client = Client::open(&server);
    let body = json!({"prompt": "red apple", "seed": 1, "num_inference_steps": 60, "stream": true});
    let (status, events) = client.ask("POST", "/v1/images/generations", &body);
    assert!(status == 200 && events.contains("image_generation.completed"), "{events}");
}

#[test]
fn a_server_that_ends_finishes_what_it_has_accepted() {
    let server = Server::start(&["--drain-timeout", "300"]);
    let client = Client::open(&server);
    let body = json!({"prompt": "red apple", "seed": 1, "num_inference_steps": 60});
    let request = client.request("POST", "/v1/images/generations", &[], &body);
    let mut sender = client.sender.clone();
    let asked = client.runtime.spawn(async move {
        let response = sender.send_request(request).await.unwrap();
        (response.status(), response.into_body().collect().await.unwrap().to_bytes())
    });
    server.wait_until("it is accepted", || server.metric("afterimage_requests_in_flight", &[]) == 1.0);
    server.terminate();
    let (status, answer) = client.runtime.block_on(asked).unwrap();
    assert!(status == 200 && answer.windows(8).any(|window| window == b"b64_json"));
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn a_stream_that_is_not_read_is_reset_alone() {
    const FILE_BYTES: u64 = 2 << 20;
    const FILE: &str = "0123456789abcdef0123456789abcdef.png";
    let folder = tempfile::tempdir().unwrap();
    File::create(folder.path().join(FILE)).unwrap().set_len(FILE_BYTES).unwrap();
    let output = ["--output-dir", folder.path().to_str().unwrap()];
    let server = Server::start(&[&output[..], &["--write-timeout", "3", "--header-timeout", "0.3"]].concat());
    let client = Client::open(&server);
    let path = format!("/v1/images/files/{FILE}");
    let request = || client.request("GET", &path, &[], &Value::Null);
    let (mut first, mut second) = (client.sender.clone(), client.sender.clone());
    let [deaf, slow] = client.runtime.block_on(async {
        [first.send_request(request()).await.unwrap(), second.send_request(request()).await.unwrap()]
    });
    let undelivered = || server.metric("afterimage_undelivered_answers_total", &[]);
    let (mut body, mut length) = (slow.into_body(), 0);
    // For longer than both time-outs, because something is taken all the time.
    while let Some(frame) = client.runtime.block_on(body.frame()) {
        length += frame.unwrap().data_ref().unwrap().len() as u64;
        if undelivered() == 0.0 {
            sleep(Duration::from_millis(100));
        }
    }
    assert_eq!(length, FILE_BYTES);
    // The connection stood when the other stream was reset.
    assert_eq!(undelivered(), 1.0);
    assert!(client.runtime.block_on(deaf.into_body().collect()).is_err());
}
