//! Whole requests against the rules of a server.

use afterimage_cache::{CacheBackend, CacheConfig};
use afterimage_runner::schedulers::SchedulerKind;
use afterimage_runner::{ImageRequest, Seeds, Size};
use serde_json::{Map, Value, json};

use super::*;

fn parse(request: Value) -> Result<ImageRequest, RequestFault> {
    let cache = CacheDefaults::new(BackendName::NONE, Map::new()).unwrap();
    let rules = RequestRules {
        served_models: &["emoji-dit".to_owned(), "gpt-image-1".to_owned()],
        max_prompt_chars: 50,
        max_pixels: 1024 * 1024,
        unknown_fields: UnknownFields::Reject,
        cache: &cache,
        has_store: false,
        default_response_format: ResponseFormat::Base64,
        accept: Accept::Json,
    };
    rules.parse(request.as_object().unwrap()).map(|request| {
        assert_eq!(request.delivery, Delivery::Whole);
        request.image
    })
}

/// A good request with one field changed.
fn with(field: &str, value: Value) -> Value {
    let mut request = json!({"prompt": "red apple"});
    request[field] = value;
    request
}

#[test]
fn absent_fields_are_left_to_the_model() {
    let request = parse(json!({"prompt": "red apple", "seed": null, "size": "auto"})).unwrap();
    assert_eq!((request.images, request.size, request.num_inference_steps), (1, None, None));
    assert_eq!((request.guidance_scale, request.scheduler), (None, None));
    assert_eq!(request.cache, CacheConfig::None);
    assert!(request.seed <= u64::from(u32::MAX));
}

#[test]
fn every_field_arrives() {
    let request = parse(json!({
        "prompt": "red apple", "model": "emoji-dit", "n": 2, "size": "96x64", "seed": 0,
        "num_inference_steps": 200, "guidance_scale": 0, "true_cfg_scale": 1.5, "negative_prompt": "dog",
        "scheduler": "DDIMScheduler", "cache_backend": "cache_dit", "cache_config": {"Fn_compute_blocks": 4},
        "response_format": "b64_json", "output_format": "png", "output_compression": 50, "background": "opaque",
        "quality": "auto", "stream": false, "partial_images": 0, "user": "someone", "style": "vivid",
        "moderation": "low", "safety_identifier": "x"
    }))
    .unwrap();
    assert_eq!((request.images, request.seed, request.num_inference_steps), (2, 0, Some(200)));
    assert_eq!(request.size, Some(Size { width: 96, height: 64 }));
    assert_eq!((request.guidance_scale, request.true_cfg_scale), (Some(0.0), Some(1.5)));
    assert_eq!((request.scheduler, request.negative_prompt.as_deref()), (Some(SchedulerKind::Ddim), Some("dog")));
    assert_eq!(request.cache.backend(), CacheBackend::CacheDit);
}

#[test]
fn bad_values_name_their_field() {
    for (field, value) in [
        ("prompt", json!("")),
        ("prompt", json!(" \n")),
        ("prompt", json!(["red apple"])),
        ("prompt", json!("x".repeat(51))),
        ("n", json!(0)),
        ("n", json!(11)),
        ("size", json!("1024x")),
        ("size", json!("64 x 64")),
        ("size", json!("1024x1025")),
        ("size", json!(64)),
        ("seed", json!(-2)),
        ("seed", json!(9_223_372_036_854_775_808_u64)),
        ("num_inference_steps", json!(0)),
        ("num_inference_steps", json!(201)),
        ("guidance_scale", json!(-1)),
        ("guidance_scale", json!("NaN")),
        ("true_cfg_scale", json!(21)),
        ("negative_prompt", json!(1)),
        ("scheduler", json!("ddim")),
        ("cache_backend", json!("deepcache")),
        ("cache_config", json!("{}")),
        ("response_format", json!("url")),
        ("output_format", json!("gif")),
        ("output_compression", json!(101)),
        ("background", json!("transparent")),
        ("quality", json!("ultra")),
        ("partial_images", json!(1)),
        ("promt", json!("red apple")),
    ] {
        match parse(with(field, value.clone())).unwrap_err() {
            RequestFault::Invalid { param, .. } => assert_eq!(param.as_deref(), Some(field), "{value}"),
            other => panic!("{field} = {value}: {other}"),
        }
    }
}

#[test]
fn messages_say_what_would_be_right() {
    let message = |request| parse(request).unwrap_err().to_string();
    insta::assert_snapshot!(
        [
            message(json!({})),
            message(with("size", json!("1024x"))),
            message(with("scheduler", json!("EulerDiscreteScheduler"))),
            message(with("output_format", json!("gif"))),
            message(with("cache_config", json!({"Fn_compute_blocks": 1}))),
            message(with("model", json!("dall-e-3"))),
            message(with("seeds", json!(1))),
        ]
        .join("\n"),
        @r#"
        `prompt` is missing; say what the picture should show
        `size` is "1024x"; it must be "auto" or WIDTHxHEIGHT, such as "256x256"
        `scheduler` is "EulerDiscreteScheduler"; it must be one of "DDIMScheduler", "DPMSolverMultistepScheduler", "DDPMScheduler", "FlowMatchEulerDiscreteScheduler", "FlowMatchHeunDiscreteScheduler", "SCMScheduler", "UniPCMultistepScheduler"
        `output_format` is "gif"; it must be one of "png", "jpeg", "webp"
        `cache_config` has no effect: this server's `cache_backend` is `none`; set `cache_backend` too (cache_dit, tea_cache, mag_cache, auto)
        there is no model `dall-e-3` here; this server has `emoji-dit`, `gpt-image-1`
        unknown field `seeds`; did you mean `seed`?
        "#
    );
}

/// To some models a blank one is a prompt like any other.
#[test]
fn a_negative_prompt_is_taken_as_it_is() {
    for text in ["", " ", "\n", " dog "] {
        assert_eq!(parse(with("negative_prompt", json!(text))).unwrap().negative_prompt.as_deref(), Some(text));
    }
}

#[test]
fn what_asks_for_nothing_is_absent() {
    let seed = |value: Value| parse(with("seed", value)).unwrap().seed;
    assert!(seed(json!(-1)) <= u64::from(u32::MAX) && (seed(json!(-1)) != seed(json!(-1)) || seed(json!(-1)) != 0));
    assert_eq!(parse(with("negative_prompt", Value::Null)).unwrap().negative_prompt, None);
    for model in ["", "emoji-dit", "gpt-image-1"] {
        parse(with("model", json!(model))).unwrap();
    }
    parse(with("flow_shift", Value::Null)).unwrap();
}

#[test]
fn the_last_images_seed_must_fit_too() {
    let mut request = with("seed", json!(Seeds::LARGEST));
    assert_eq!(parse(request.clone()).unwrap().seed, Seeds::LARGEST);
    request["n"] = json!(2);
    assert!(parse(request.clone()).unwrap_err().to_string().contains("9223372036854775806"));
    request["seed"] = json!(Seeds::LARGEST - 1);
    parse(request).unwrap();
}

#[test]
fn cache_faults_are_dotted() {
    let request = json!({
        "prompt": "x", "cache_backend": "cache_dit", "cache_config": {"Fn_compute_blocks": 0}
    });
    match parse(request).unwrap_err() {
        RequestFault::Invalid { param, .. } => {
            assert_eq!(param.as_deref(), Some("cache_config.Fn_compute_blocks"));
        }
        other => panic!("{other}"),
    }
}
