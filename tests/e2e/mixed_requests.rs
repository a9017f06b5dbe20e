//! Requests that differ in everything that may differ within a batch, and what they must give.

use serde_json::{Value, json};

use crate::picture::Picture;

/// An unguided image alone is a matrix of one row, whose product takes another kernel and adds in
/// another order. That changes the last bit of a pixel at most.
const LEAST_UNGUIDED_PSNR: f64 = 60.0;
const PROMPTS: [&str; 6] = ["red apple", "fox face", "sunflower", "rocket", "penguin", "hamburger"];
/// Up to 1 there is one row per image, above it two.
const GUIDANCE_SCALES: [f64; 5] = [4.0, 1.0, 2.5, 0.0, 7.5];

/// Request `index`: a seed of its own, and one of 11 caches with one of 5 guidance scales with one of 2
/// schedulers. Any 10 in a row have both schedulers with all scales, any 11 have all caches.
pub(crate) fn request(index: usize, steps: usize) -> Value {
    let caches = caches();
    let (backend, config) = &caches[index % caches.len()];
    json!({
        "prompt": PROMPTS[index % PROMPTS.len()],
        "n": 1 + usize::from(index % 4 == 3),
        "seed": 1000 * index,
        "num_inference_steps": steps,
        "guidance_scale": GUIDANCE_SCALES[index % GUIDANCE_SCALES.len()],
        "scheduler": (["DDIMScheduler", "DPMSolverMultistepScheduler"][index % 2]),
        "cache_backend": backend,
        "cache_config": config,
    })
}

/// Caches that fit any number of steps from 8 on.
fn caches() -> Vec<(&'static str, Value)> {
    vec![
        ("none", Value::Null),
        ("cache_dit", json!({})),
        ("tea_cache", json!({"rel_l1_thresh": 0.1})),
        ("cache_dit", json!({"max_warmup_steps": 2, "enable_taylorseer": true, "taylorseer_order": 2})),
        ("mag_cache", json!({})),
        ("cache_dit", json!({"Fn_compute_blocks": 4, "Bn_compute_blocks": 2, "max_warmup_steps": 3})),
        ("none", Value::Null),
        ("cache_dit", json!({"scm_steps_mask_policy": "medium", "residual_diff_threshold": 0.5})),
        ("cache_dit", json!({"cache_type": "DBPrune", "residual_diff_threshold": 0.12, "max_warmup_steps": 3})),
        (
            "cache_dit",
            json!({"scm_steps_mask_policy": "fast", "scm_steps_policy": "static", "enable_taylorseer": true}),
        ),
        ("cache_dit", json!({"warmup_interval": 2, "max_cached_steps": 4, "enable_foca": true})),
    ]
}

/// Passes through the block list that a request takes: one per step and image.
pub(crate) fn passes(request: &Value) -> u64 {
    request["n"].as_u64().unwrap() * request["num_inference_steps"].as_u64().unwrap()
}

/// The pictures of a request made among others are those it gives alone: bit for bit under guidance,
/// where every matrix has two rows or more, to [`LEAST_UNGUIDED_PSNR`] without. So are the decisions, and
/// under guidance every distance they come from.
pub(crate) fn assert_same(request: &Value, alone: &Answer, among_others: &Answer) {
    let is_guided = request["guidance_scale"].as_f64().unwrap() > 1.0;
    assert_eq!(among_others.pictures.len() as u64, request["n"].as_u64().unwrap(), "{request}");
    for (index, (seed, picture)) in among_others.pictures.iter().enumerate() {
        assert_eq!(*seed, request["seed"].as_u64().unwrap() + index as u64, "{request}");
        let psnr = alone.pictures[index].1.psnr(picture);
        let least = if is_guided { f64::INFINITY } else { LEAST_UNGUIDED_PSNR };
        assert!(psnr >= least, "image {index} has {psnr} dB, {least} are asked for: {request}");
    }
    if is_guided {
        assert_eq!(alone.cache, among_others.cache, "{request}");
    } else {
        assert_eq!(cached_steps(&alone.cache), cached_steps(&among_others.cache), "{request}");
    }
}

fn cached_steps(cache: &Value) -> Vec<&Value> {
    let images = cache["images"].as_array().unwrap().iter();
    let contexts = images.flat_map(|image| image["contexts"].as_array().unwrap());
    contexts.map(|context| &context["cached_steps"]).collect()
}

/// Seeds and pictures of an answer, and what it says of its cache.
pub(crate) struct Answer {
    pictures: Vec<(u64, Picture)>,
    pub(crate) cache: Value,
}

impl Answer {
    /// Of a plain response.
    pub(crate) fn of(mut response: Value) -> Self {
        let cache = response["cache"].take();
        Self::new(response["data"].as_array().unwrap(), cache)
    }

    /// Of the `completed` events of a stream, of which the last has the summary.
    pub(crate) fn of_events(completed: &[Value]) -> Self {
        Self::new(completed, completed.last().unwrap()["cache"].clone())
    }

    fn new(pictures: &[Value], cache: Value) -> Self {
        let picture = |object: &Value| (object["seed"].as_u64().unwrap(), Picture::in_object(object));
        Self { pictures: pictures.iter().map(picture).collect(), cache }
    }
}
