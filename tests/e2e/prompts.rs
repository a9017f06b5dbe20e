//! Prompts that are longer than what a text encoder takes, and text encoders that come and go.

use serde_json::{Value, json};

use crate::http;
use crate::picture::Picture;
use crate::server::Server;

/// A server of a fixture's model.
fn serve(fixture: &str) -> Server {
    serve_with(fixture, &[])
}

fn serve_with(fixture: &str, flags: &[&str]) -> Server {
    let model = format!("{}/../../tests/fixtures/{fixture}/model", env!("CARGO_MANIFEST_DIR"));
    Server::start(&[&["--model", &model, "--buckets", "64x64", "--log-filter", "error"], flags].concat())
}

/// Five tokens of CLIP and four of T5, `times` times.
fn words(times: usize) -> String {
    "a red apple ".repeat(times)
}

fn truncated(param: &str, message: &str) -> Value {
    json!({"param": param, "code": "prompt_truncated", "message": message})
}

#[test]
fn an_answer_says_what_of_its_prompts_had_no_effect() {
    let server = serve("pixart-alpha");
    let limits = &server.get("/v1/models").json()["data"][0]["limits"]["prompt_tokens"];
    assert_eq!(limits, &json!([{"encoder": "T5", "component": "text_encoder", "tokens": 120}]));
    let request = |prompt: usize, negative: usize| json!({"prompt": words(prompt), "negative_prompt": words(negative), "num_inference_steps": 2, "seed": 1});
    let too_long = |param, tokens| {
        let message = "the T5 text encoder (text_encoder) takes 120 tokens;";
        truncated(param, &format!("{message} {tokens} more had no effect"))
    };
    assert_eq!(server.generate(&request(20, 0)).get("warnings"), None);
    let first = server.generate(&request(40, 0));
    assert_eq!(first["warnings"], json!([too_long("prompt", 41)]));
    // Now the prompt is known, and so is what it lost.
    let hits = server.metric("afterimage_prompt_cache_hits_total", &[]);
    assert_eq!(server.generate(&request(40, 0))["warnings"], first["warnings"]);
    assert!(server.metric("afterimage_prompt_cache_hits_total", &[]) > hits);
    let both = json!([too_long("negative_prompt", 5), too_long("prompt", 41)]);
    assert_eq!(server.generate(&request(40, 31))["warnings"], both);

    let mut stream = request(40, 0);
    (stream["stream"], stream["n"]) = (json!(true), json!(2));
    let events = server.post(stream.to_string().as_bytes()).events();
    assert_eq!((events[0].get("warnings"), &events[1]["warnings"]), (None, &first["warnings"]));

    let body = request(40, 0).to_string();
    let job = http::request(&server.address, "POST", "/v1/images/jobs", &[], body.as_bytes()).json();
    let path = format!("/v1/images/jobs/{}", job["id"].as_str().unwrap());
    let mut job = Value::Null;
    server.wait_until("the job is done", || {
        job = server.get(&path).json();
        job["status"] == "succeeded"
    });
    assert_eq!(job["result"]["warnings"], first["warnings"]);
}

#[test]
fn every_encoder_speaks_for_itself() {
    let server = serve("sd3");
    let limits = &server.get("/v1/models").json()["data"][0]["limits"]["prompt_tokens"];
    let limit = |encoder, component, tokens| json!({"encoder": encoder, "component": component, "tokens": tokens});
    let clips = [limit("CLIP", "text_encoder", 77), limit("CLIP", "text_encoder_2", 77)];
    assert_eq!(limits, &json!([clips[0], clips[1], limit("T5", "text_encoder_3", 256)]));
    let answer = server.generate(&json!({"prompt": words(20), "num_inference_steps": 2, "seed": 1}));
    let message = |component| format!("the CLIP text encoder ({component}) takes 77 tokens; 25 more had no effect");
    let cut = ["text_encoder", "text_encoder_2"].map(|component| truncated("prompt", &message(component)));
    assert_eq!(answer["warnings"], json!(cut));
}

#[test]
fn offloaded_text_encoders_make_the_same_picture() {
    let offloaded = serve_with("sd3", &["--offload", "text-encoders", "--text-encoder-device", "cpu"]);
    let always = serve("sd3");
    for (prompt, negative) in [("a red apple", ""), ("a red apple", "blurry"), ("a fox", "")] {
        let request = json!({
            "prompt": prompt, "negative_prompt": negative, "num_inference_steps": 2, "guidance_scale": 7, "seed": 1
        });
        let [ours, expected] = [&offloaded, &always].map(|server| Picture::of(&server.generate(&request), 0));
        assert_eq!(ours, expected, "{prompt}");
    }
}
