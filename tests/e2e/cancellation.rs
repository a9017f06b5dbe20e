//! How soon a client that leaves frees its rows.

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::http;
use crate::random::Random;
use crate::server::Server;

/// Requests that run for longer than any of these tests.
fn request(images: usize) -> Value {
    json!({"prompt": "red apple", "seed": 1, "n": images, "num_inference_steps": 200, "guidance_scale": 4})
}

/// One page of metrics, so that values read from it belong together.
fn forwards_and_rows(server: &Server) -> (f64, f64) {
    let page = server.metrics();
    (page.sum("afterimage_forwards_total", &[]), page.sum("afterimage_running_rows", &[]))
}

#[test]
fn one_forward_at_most_is_made_for_a_client_that_has_left() {
    let server = Server::start(&[]);
    for (images, streams) in [(1, false), (3, true), (8, false)] {
        let mut request = request(images);
        request["stream"] = json!(streams);
        let client = http::open_generation(&server.address, &request);
        server.wait_until("it runs", || server.metric("afterimage_running_rows", &[]) == 2.0 * images as f64);
        drop(client);
        // The request is given up before it ceases to be in flight.
        server.wait_until("it is given up", || server.metric("afterimage_requests_in_flight", &[]) == 0.0);
        let (given_up_at, _) = forwards_and_rows(&server);
        let mut freed_at = f64::NAN;
        server.wait_until("its rows are free", || {
            let (forwards, rows) = forwards_and_rows(&server);
            freed_at = forwards;
            rows == 0.0
        });
        assert!(freed_at - given_up_at <= 1.0, "{} more forwards of {images} images", freed_at - given_up_at);
    }
}

#[test]
#[ignore = "a measurement: `just cancellation`"]
fn seconds_from_a_hang_up_to_free_rows() {
    const TIMES: usize = 60;
    let server = Server::start(&[]);
    let mut random = Random::new(4);
    println!("| rows | one step | rows free after the hang-up, median | largest |");
    for images in [1, 4, 8] {
        let mut alone = request(images);
        alone["num_inference_steps"] = json!(20);
        let step = server.generate(&alone)["timings"]["denoise_seconds"].as_f64().unwrap() / 20.0;
        let mut waits: Vec<_> = (0..TIMES).map(|_| hang_up(&server, images, &mut random)).collect();
        waits.sort_by(f64::total_cmp);
        let rows = 2 * images;
        let milliseconds = [step, waits[TIMES / 2], waits[TIMES - 1]].map(|seconds| seconds * 1000.0);
        println!("| {rows} | {:.1} ms | {:.1} ms | {:.1} ms |", milliseconds[0], milliseconds[1], milliseconds[2]);
    }
}

/// Hangs up at a random moment of a run; seconds until `/metrics` shows no running row.
fn hang_up(server: &Server, images: usize, random: &mut Random) -> f64 {
    let client = http::open_generation(&server.address, &request(images));
    server.wait_until("it runs", || server.metric("afterimage_running_rows", &[]) > 0.0);
    sleep(Duration::from_millis(random.below(500) as u64));
    let left = Instant::now();
    drop(client);
    while server.metric("afterimage_running_rows", &[]) > 0.0 {}
    left.elapsed().as_secs_f64()
}
