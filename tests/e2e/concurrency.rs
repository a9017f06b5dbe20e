//! Many clients at once: whatever shares a batch, each gets the picture it gets alone.

use std::sync::Barrier;
use std::thread;

use serde_json::{Value, json};

use crate::picture::Picture;
use crate::server::Server;

/// Matrix products of other shapes add in another order, which shows in the last bit of a pixel at most.
const LEAST_PSNR: f64 = 60.0;
const PROMPTS: [&str; 4] = ["red apple", "fox face", "sunflower", "rocket"];

/// Requests that differ in everything that may differ within a batch.
fn request(index: usize) -> Value {
    let mut request = json!({
        "prompt": PROMPTS[index % 4],
        "seed": 100 * index,
        "num_inference_steps": 6 + index % 7,
        "guidance_scale": ([4.0, 1.0, 2.5][index % 3]),
        "scheduler": (["DDIMScheduler", "DPMSolverMultistepScheduler"][index % 2]),
    });
    let (backend, config) = match index % 5 {
        0 | 1 => return request,
        2 => ("cache_dit", json!({"max_warmup_steps": 2, "residual_diff_threshold": 0.24})),
        3 => ("cache_dit", json!({"Fn_compute_blocks": 4, "max_warmup_steps": 3})),
        _ => ("tea_cache", json!({"rel_l1_thresh": 0.2})),
    };
    request["cache_backend"] = json!(backend);
    request["cache_config"] = config;
    request
}

#[test]
fn sixteen_clients_each_get_their_own_picture() {
    let server = Server::start(&["--max-batch-rows", "16"]);
    let requests: Vec<_> = (0..16).map(request).collect();
    let alone: Vec<_> = requests.iter().map(|request| server.generate(request)).collect();
    let start = Barrier::new(requests.len());
    let client = |request| {
        start.wait();
        server.generate(request)
    };
    let together: Vec<_> = thread::scope(|scope| {
        let clients: Vec<_> = requests.iter().map(|request| scope.spawn(|| client(request))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    for ((request, alone), together) in requests.iter().zip(&alone).zip(&together) {
        assert_eq!(together["data"][0]["seed"], request["seed"]);
        let psnr = Picture::of(alone, 0).psnr(&Picture::of(together, 0));
        assert!(psnr >= LEAST_PSNR, "{psnr} dB: {request}");
        let decisions = |response: &Value| response["cache"]["images"][0]["contexts"][0]["cached_steps"].clone();
        assert_eq!(decisions(alone), decisions(together), "{request}");
    }
    assert_eq!(server.metric("afterimage_requests_total", &["status=\"ok\""]), 32.0);
    assert!(server.metric("afterimage_joins_total", &[]) > 0.0);
    assert_eq!(server.metric("afterimage_isolated_steps_total", &[]), 0.0);
    let shared = (3..=16).map(|rows| server.metric("afterimage_forwards_total", &[&format!("rows=\"{rows}\"")]));
    assert!(shared.sum::<f64>() > 0.0);
}
