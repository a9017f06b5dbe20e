//! Pictures over HTTP.

use serde_json::json;

use crate::http;
use crate::picture::Picture;
use crate::server::shared;

#[test]
fn a_prompt_and_a_seed_give_a_red_apple() {
    let response = shared().generate(&json!({"prompt": "red apple", "seed": 1}));
    let picture = Picture::of(&response, 0);
    assert_eq!((picture.width, picture.height), (64, 64));
    let [red, green, blue] = picture.mean();
    assert!(red > green + 10.0 && red > blue + 10.0, "mean color {red} {green} {blue}");
}

#[test]
fn the_response_has_every_key_of_the_contract() {
    let mut response = shared().generate(&json!({"prompt": "Red Apple", "seed": 0, "num_inference_steps": 3}));
    assert!(response["created"].as_u64().unwrap() > 1_700_000_000);
    for stage in ["queue", "encode", "denoise", "decode", "total"] {
        let seconds = response["timings"][format!("{stage}_seconds")].take();
        assert!(seconds.as_f64().is_some_and(|seconds| seconds >= 0.0), "{stage}: {seconds}");
    }
    response["created"].take();
    response["data"][0]["b64_json"].take();
    insta::assert_json_snapshot!(response, @r#"
    {
      "created": null,
      "data": [
        {
          "b64_json": null,
          "seed": 0
        }
      ],
      "output_format": "png",
      "size": "64x64",
      "quality": "auto",
      "background": "opaque",
      "usage": {
        "input_tokens": 0,
        "output_tokens": 0,
        "total_tokens": 0,
        "input_tokens_details": {
          "image_tokens": 0,
          "text_tokens": 0
        }
      },
      "cache": {
        "backend": "none",
        "config": {},
        "tag": null,
        "steps": 3,
        "hit_rate": 0.0,
        "images": [
          {
            "contexts": []
          }
        ]
      },
      "timings": {
        "queue_seconds": null,
        "encode_seconds": null,
        "denoise_seconds": null,
        "decode_seconds": null,
        "total_seconds": null,
        "dtype": "f32"
      }
    }
    "#);
}

#[test]
fn image_k_is_the_image_of_seed_plus_k() {
    let request = |seed: u64, n: u64| {
        shared().generate(&json!({"prompt": "sunflower", "seed": seed, "n": n, "num_inference_steps": 10}))
    };
    let both = request(7, 2);
    assert_eq!([&both["data"][0]["seed"], &both["data"][1]["seed"]], [&json!(7), &json!(8)]);
    assert_eq!(both["cache"]["images"].as_array().unwrap().len(), 2);
    for (index, seed) in [(0, 7), (1, 8)] {
        let difference = Picture::of(&both, index).difference(&Picture::of(&request(seed, 1), 0));
        assert!(difference <= 1, "image {index} differs by {difference} levels from the one of seed {seed}");
    }
    assert_ne!(Picture::of(&both, 0), Picture::of(&both, 1));
}

#[test]
fn a_seed_the_server_chose_can_be_asked_for_again() {
    let first = shared().generate(&json!({"prompt": "rocket", "seed": null, "num_inference_steps": 4}));
    let seed = &first["data"][0]["seed"];
    let second = shared().generate(&json!({"prompt": "rocket", "seed": seed, "num_inference_steps": 4}));
    assert_eq!(Picture::of(&first, 0), Picture::of(&second, 0));
}

#[test]
fn the_scheduler_and_the_guidance_scale_make_a_difference() {
    let picture = |changes: &[(&str, serde_json::Value)]| {
        let mut request = json!({"prompt": "fox face", "seed": 3, "num_inference_steps": 8});
        for (field, value) in changes {
            request[*field] = value.clone();
        }
        Picture::of(&shared().generate(&request), 0)
    };
    let plain = picture(&[]);
    let solver = picture(&[("scheduler", json!("DPMSolverMultistepScheduler"))]);
    let ddim = picture(&[("scheduler", json!("DDIMScheduler"))]);
    assert_ne!(solver, ddim);
    assert!(plain == solver || plain == ddim, "the default is one of the two");
    assert_ne!(plain, picture(&[("guidance_scale", json!(1))]));
    assert_eq!(plain, picture(&[("size", json!("auto")), ("n", json!(1)), ("user", json!("someone"))]));
}

#[test]
fn the_content_type_does_not_matter() {
    let body = json!({"prompt": "red apple", "num_inference_steps": 1}).to_string();
    for content_type in ["application/x-www-form-urlencoded", "text/plain"] {
        let headers = [("content-type", content_type)];
        let response = http::request(&shared().address, "POST", "/v1/images/generations", &headers, body.as_bytes());
        assert_eq!(response.status, 200, "{}", response.text());
    }
}
