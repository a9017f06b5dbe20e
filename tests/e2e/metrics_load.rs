//! The counters under load: whatever runs at the same time, computed + cached = steps x block lists x
//! branches x images of the requests that got their pictures.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

use serde_json::{Value, json};

use crate::server::Server;

/// Requests that differ in number, steps, cache and delivery.
fn request(index: usize) -> Value {
    let mut request = json!({
        "prompt": "sunflower", "seed": index, "n": 1 + index % 3, "num_inference_steps": 5 + index % 4,
        "guidance_scale": ([4.0, 1.0][index % 2]), "stream": index % 4 == 3,
    });
    match index % 4 {
        0 => {}
        1 => request["cache_backend"] = json!("tea_cache"),
        2 => request["cache_config"] = json!({"max_warmup_steps": 1, "cache_type": "DBPrune"}),
        _ => request["cache_config"] = json!({"max_warmup_steps": 2}),
    }
    if index % 4 >= 2 {
        request["cache_backend"] = json!("cache_dit");
    }
    request
}

/// The `cache` object of an answer, streamed or not.
fn cache(server: &Server, request: &Value) -> Value {
    let response = server.post(request.to_string().as_bytes());
    assert_eq!(response.status, 200, "{}", response.text());
    if request["stream"] == true {
        let mut data = response.text().lines().filter_map(|line| line.strip_prefix("data: "));
        let last: Value = serde_json::from_str(data.next_back().unwrap()).unwrap();
        return last["cache"].clone();
    }
    response.json()["cache"].take()
}

/// Cached passes and all passes of a request; the embedded model has one block list and one branch.
fn passes(cache: &Value) -> (usize, usize) {
    let images = cache["images"].as_array().unwrap();
    let contexts = images.iter().flat_map(|image| image["contexts"].as_array().unwrap());
    let cached = contexts.map(|context| context["cached_steps"].as_array().unwrap().len()).sum();
    (cached, usize::try_from(cache["steps"].as_u64().unwrap()).unwrap() * images.len())
}

/// A client that leaves while its request runs; far too long to be done by then.
fn leave(server: &Server, is_streamed: bool) {
    let request = json!({"prompt": "rocket", "n": 4, "num_inference_steps": 200, "stream": is_streamed}).to_string();
    let head = format!("POST /v1/images/generations HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", request.len());
    let mut client = TcpStream::connect(&server.address).unwrap();
    client.write_all(format!("{head}{request}").as_bytes()).unwrap();
    if is_streamed {
        client.read_exact(&mut [0; 12]).unwrap();
    } else {
        server.wait_until("it is accepted", || server.metric("afterimage_requests_in_flight", &[]) >= 1.0);
    }
}

#[test]
fn computed_and_cached_passes_add_up_under_load() {
    let server = Server::start(&["--max-batch-rows", "24"]);
    let requests: Vec<_> = (0..12).map(request).collect();
    let caches: Vec<_> = thread::scope(|scope| {
        let clients: Vec<_> = requests.iter().map(|request| scope.spawn(|| cache(&server, request))).collect();
        let leavers = [false, true].map(|is_streamed| {
            scope.spawn({
                let server = &server;
                move || leave(server, is_streamed)
            })
        });
        leavers.into_iter().for_each(|leaver| leaver.join().unwrap());
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    server.wait_until("nobody is left", || server.metric("afterimage_requests_in_flight", &[]) == 0.0);
    server.wait_until("those who left are counted", || {
        server.metric("afterimage_requests_total", &["status=\"cancelled\""]) == 2.0
    });

    let (cached, total) = caches.iter().map(passes).fold((0, 0), |sum, passes| (sum.0 + passes.0, sum.1 + passes.1));
    let expected: u64 =
        requests.iter().map(|r| r["n"].as_u64().unwrap() * r["num_inference_steps"].as_u64().unwrap()).sum();
    assert_eq!(total as u64, expected);
    assert!(cached > 0);
    let steps = |labels: &[&str]| server.metric("afterimage_steps_total", labels);
    assert_eq!(steps(&["decision=\"cached\""]), cached as f64);
    assert_eq!(steps(&["decision=\"cached\""]) + steps(&["decision=\"computed\""]), total as f64);
    let images: u64 = requests.iter().map(|request| request["n"].as_u64().unwrap()).sum();
    assert_eq!(server.metric("afterimage_images_total", &[]), images as f64);
    assert_eq!(server.metric("afterimage_requests_total", &["status=\"ok\""]), 12.0);
    assert_eq!(server.metric("afterimage_stage_seconds_count", &["stage=\"total\""]), 12.0);
    assert_eq!(server.metric("afterimage_cache_state_bytes", &[]), 0.0);
}
