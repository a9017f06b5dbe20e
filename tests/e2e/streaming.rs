//! Pictures as server-sent events.

use std::io::Read;

use serde_json::{Value, json};

use crate::http;
use crate::picture::Picture;
use crate::server::{Server, shared};

/// Data of the events of a stream, comments left out.
fn events(request: &Value) -> Vec<Value> {
    shared().post(request.to_string().as_bytes()).events()
}

fn of_type<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["type"] == format!("image_generation.{name}")).collect()
}

fn request(n: usize, changes: Value) -> Value {
    let mut request = json!({"prompt": "red apple", "seed": 1, "n": n, "num_inference_steps": 12});
    for (key, value) in changes.as_object().unwrap() {
        request[key] = value.clone();
    }
    request
}

#[test]
fn partial_images_come_before_the_picture_of_the_plain_answer() {
    let plain = shared().generate(&request(1, json!({"cache_backend": "cache_dit"})));
    let changes = json!({"cache_backend": "cache_dit", "stream": true, "partial_images": 2});
    let events = events(&request(1, changes));
    let partials = of_type(&events, "partial_image");
    assert_eq!((events.len(), partials.len()), (3, 2));
    for (index, partial) in partials.iter().enumerate() {
        assert_eq!((&partial["partial_image_index"], &partial["seed"]), (&json!(index), &json!(1)));
        assert_eq!(Picture::in_object(partial).width, 64);
    }
    assert_eq!(events[2]["type"], "image_generation.completed");
    assert!(Picture::in_object(&events[2]).psnr(&Picture::of(&plain, 0)) >= 60.0);
    assert_eq!(events[2]["cache"], plain["cache"]);
    assert_eq!(events[2]["usage"], plain["usage"]);
    assert!(events[2]["timings"]["denoise_seconds"].as_f64().unwrap() > 0.0);
}

#[test]
fn every_image_of_a_request_has_its_events() {
    let plain = shared().generate(&request(2, json!({})));
    let events = events(&request(2, json!({"stream": true, "partial_images": 1})));
    assert_eq!(of_type(&events, "partial_image").len(), 2);
    let completed = of_type(&events, "completed");
    assert_eq!(completed.len(), 2);
    for (index, event) in completed.iter().enumerate() {
        assert_eq!((&event["image_index"], &event["seed"]), (&json!(index), &json!(1 + index)));
        assert!(Picture::in_object(event).psnr(&Picture::of(&plain, index)) >= 60.0);
        assert_eq!(event.get("cache").is_some(), index == 1);
    }
}

#[test]
fn progress_grows_until_all_steps_are_made() {
    let events = events(&request(1, json!({"stream": true, "progress": true, "num_inference_steps": 40})));
    let steps: Vec<_> = of_type(&events, "progress").iter().map(|event| event["step"].as_u64().unwrap()).collect();
    assert!(steps.is_sorted() && steps.last() == Some(&40), "{steps:?}");
    assert!(of_type(&events, "progress").iter().all(|event| event["total"] == 40));
    assert_eq!(events.last().unwrap()["type"], "image_generation.completed");
}

#[test]
fn a_request_that_is_not_accepted_has_a_plain_answer() {
    let response = shared().post(request(1, json!({"stream": true, "size": "7x7"})).to_string().as_bytes());
    assert_eq!((response.status, response.error().0.as_deref()), (400, Some("size")));
    assert_eq!(response.header("content-type"), Some("application/json"));
}

#[test]
fn a_client_that_leaves_its_stream_frees_the_worker() {
    let server = Server::start(&[]);
    let request = |n, steps| request(n, json!({"stream": n > 1, "num_inference_steps": steps}));
    let mut client = http::open_generation(&server.address, &request(10, 200));
    let mut start = [0; 12];
    client.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");
    drop(client);
    server.wait_until("the job is given up", || server.metric("afterimage_requests_in_flight", &[]) == 0.0);
    server.wait_until("its rows are free", || server.metric("afterimage_running_rows", &[]) == 0.0);
    assert_eq!(server.metric("afterimage_requests_total", &["status=\"cancelled\""]), 1.0);
    server.generate(&request(1, 1));
    assert_eq!(server.metric("afterimage_images_total", &[]), 1.0);
}
