//! Bodies that are not plain JSON text: compressed, with a byte order mark, of other types, or missing.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};

use crate::http::{self, Response};
use crate::server::{Server, shared};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn post(server: &Server, headers: &[(&str, &str)], body: &[u8]) -> Response {
    http::request(&server.address, "POST", "/v1/images/generations", headers, body)
}

fn request() -> Value {
    json!({"prompt": "red apple", "seed": 1, "num_inference_steps": 1})
}

#[test]
fn a_body_in_gzip_is_the_body_it_unpacks_to() {
    let text = request().to_string();
    let plain = shared().generate(&request());
    let packed = post(shared(), &[("content-encoding", "gzip")], &gzip(text.as_bytes()));
    assert_eq!(packed.json()["data"][0]["b64_json"], plain["data"][0]["b64_json"], "{}", packed.text());
    let job = http::request(
        &shared().address,
        "POST",
        "/v1/images/jobs",
        &[("content-encoding", "gzip")],
        &gzip(text.as_bytes()),
    );
    assert_eq!(job.status, 202, "{}", job.text());
    for name in ["GZIP", "x-gzip", "identity, gzip"] {
        assert_eq!(post(shared(), &[("content-encoding", name)], &gzip(text.as_bytes())).status, 200, "{name}");
    }
    let twice = [("content-encoding", "gzip"), ("content-encoding", "gzip")];
    assert_eq!(post(shared(), &twice, &gzip(&gzip(text.as_bytes()))).status, 415);
    let named = post(shared(), &[("content-encoding", "identity")], text.as_bytes());
    assert_eq!(named.status, 200, "{}", named.text());
}

#[test]
fn what_a_body_unpacks_to_counts_for_its_limit() {
    let server = Server::start(&["--max-body-bytes", "10000"]);
    for unpacked_bytes in [10_001, 50_000_000] {
        let mut body = request().to_string();
        body.extend(std::iter::repeat_n(' ', unpacked_bytes - body.len()));
        let answer = post(&server, &[("content-encoding", "gzip")], &gzip(body.as_bytes()));
        assert_eq!((answer.status, answer.error().1.as_str()), (413, "body_too_large"), "{unpacked_bytes}");
    }
    let mut body = request().to_string();
    body.extend(std::iter::repeat_n(' ', 10_000 - body.len()));
    assert_eq!(post(&server, &[("content-encoding", "gzip")], &gzip(body.as_bytes())).status, 200);
}

#[test]
fn gzip_that_is_none_is_told_so() {
    let whole = gzip(request().to_string().as_bytes());
    for body in [request().to_string().as_bytes(), &whole[..whole.len() / 2]] {
        let answer = post(shared(), &[("content-encoding", "gzip")], body);
        assert_eq!((answer.status, answer.error()), (400, (None, "invalid_json".to_owned())));
        assert!(answer.text().contains("the body cannot be read: "), "{}", answer.text());
    }
}

#[test]
fn other_encodings_and_forms_are_named() {
    for (header, value, found) in [
        ("content-encoding", "br", "br"),
        ("content-encoding", "zstd", "zstd"),
        ("content-encoding", "gzip, gzip", "gzip, gzip"),
        ("content-type", "multipart/form-data; boundary=x", "multipart/form-data"),
    ] {
        let answer = post(shared(), &[(header, value)], request().to_string().as_bytes());
        assert_eq!(answer.status, 415, "{value}: {}", answer.text());
        assert_eq!(answer.error().0, None);
        assert!(answer.text().contains(&format!("`{found}`")), "{}", answer.text());
        assert_eq!(answer.header("accept-encoding"), Some("gzip"));
    }
    // A form with a picture in it, as for edits, is read to its end, so that its client sees the answer.
    let upload = vec![b'x'; 3_000_000];
    let answer = post(shared(), &[("content-type", "multipart/form-data; boundary=x")], &upload);
    assert_eq!((answer.status, answer.error().1.as_str()), (415, "unsupported_content_type"));
}

#[test]
fn marks_before_the_text_and_missing_texts_are_understood() {
    let marked = format!("\u{feff}{}", request());
    assert_eq!(post(shared(), &[], marked.as_bytes()).status, 200);
    for empty in ["", "\r\n"] {
        let answer = post(shared(), &[], empty.as_bytes());
        assert_eq!((answer.status, answer.error().0), (400, None));
        assert!(answer.text().contains("no body"), "{}", answer.text());
    }
}

#[test]
fn streams_are_not_gathered_by_proxies() {
    let mut request = request();
    request["stream"] = json!(true);
    let answer = shared().post(request.to_string().as_bytes());
    assert_eq!(answer.header("x-accel-buffering"), Some("no"));
    assert_eq!(answer.header("cache-control"), Some("no-cache"));
    assert_eq!(answer.events().len(), 1);
}
