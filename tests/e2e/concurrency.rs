//! Many clients at once: whatever they share a batch with, each gets the picture it gets alone.

use std::sync::Barrier;
use std::thread;

use crate::mixed_requests::{Answer, assert_same, passes, request};
use crate::server::Server;

/// One client each. Most are short, so that the test is; the extremes are included.
const STEPS: [usize; 32] =
    [8, 10, 12, 9, 16, 8, 11, 8, 14, 20, 8, 50, 9, 12, 8, 10, 28, 8, 13, 9, 12, 8, 10, 35, 8, 12, 9, 16, 11, 8, 10, 24];

#[test]
fn thirty_two_clients_each_get_their_own_picture() {
    let server = Server::start(&["--max-batch-rows", "24"]);
    let requests: Vec<_> = STEPS.into_iter().enumerate().map(|(index, steps)| request(index, steps)).collect();
    let alone: Vec<_> = requests.iter().map(|request| Answer::of(server.generate(request))).collect();
    let start = Barrier::new(requests.len());
    let client = |request| {
        start.wait();
        Answer::of(server.generate(request))
    };
    let together: Vec<_> = thread::scope(|scope| {
        let clients: Vec<_> = requests.iter().map(|request| scope.spawn(|| client(request))).collect();
        clients.into_iter().map(|client| client.join().unwrap()).collect()
    });
    for ((request, alone), together) in requests.iter().zip(&alone).zip(&together) {
        assert_same(request, alone, together);
    }
    assert_eq!(server.metric("afterimage_requests_total", &["status=\"ok\""]), 2.0 * STEPS.len() as f64);
    let passes: u64 = requests.iter().map(passes).sum();
    assert_eq!(server.metric("afterimage_steps_total", &[]), 2.0 * passes as f64);
    assert!(server.metric("afterimage_joins_total", &[]) > 0.0);
    assert_eq!(server.metric("afterimage_isolated_steps_total", &[]), 0.0);
    // No request has more than four rows of its own.
    let shared = (5..=24).map(|rows| server.metric("afterimage_forwards_total", &[&format!("rows=\"{rows}\"")]));
    assert!(shared.sum::<f64>() > 0.0);
}
