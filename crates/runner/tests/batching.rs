//! The engine on the embedded model: requests of every kind together and alone.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use afterimage_cache::{CacheBackend, CacheBudget, CacheConfig, CachePlan, read_back};
use afterimage_runner::{
    BucketPolicy, DeviceSpec, Engine, EngineOptions, FinishedRequest, ImageRequest, ImageSpec, LoadOptions,
    ModelFolder, Pipeline, PreviewCount, Replicas, RequestFailure, RunnerError, Size, SubmitError, UncachedImage,
};
use serde_json::{Value, json};

/// Rows of one image in a batch of another size may take another kernel path, whose sums round
/// differently; a picture that differed in anything else would be far below.
const LEAST_PSNR: f64 = 60.0;

fn engine(options: EngineOptions) -> Engine {
    engine_on(&[DeviceSpec::Cpu], options)
}

fn engine_on(devices: &[DeviceSpec], options: EngineOptions) -> Engine {
    let sizes =
        LoadOptions { buckets: ["64x64", "96x64"].map(|size| size.parse().unwrap()).into(), ..Default::default() };
    Engine::start(Replicas::load(&ModelFolder::embedded(), &sizes, devices).unwrap(), options).unwrap()
}

fn request(prompt: &str, seed: u64, steps: usize) -> ImageRequest {
    ImageRequest {
        prompt: prompt.to_owned(),
        negative_prompt: None,
        images: 1,
        size: None,
        seed,
        num_inference_steps: Some(steps),
        guidance_scale: None,
        true_cfg_scale: None,
        scheduler: None,
        cache: CacheConfig::None,
        previews: PreviewCount::default(),
    }
}

fn cache(backend: CacheBackend, keys: Value) -> CacheConfig {
    CacheConfig::parse(backend, keys.as_object().unwrap()).unwrap()
}

/// Mixed in everything a batch may mix.
fn mixed_requests() -> Vec<ImageRequest> {
    use CacheBackend::{CacheDit, MagCache, TeaCache};
    let reuse = json!({"max_warmup_steps": 3, "residual_diff_threshold": 0.4});
    let taylor = json!({"max_warmup_steps": 4, "residual_diff_threshold": 0.4, "enable_taylorseer": true});
    let masked =
        json!({"scm_steps_mask_policy": "medium", "scm_steps_policy": "dynamic", "residual_diff_threshold": 0.5});
    let prune = json!({"cache_type": "DBPrune", "max_warmup_steps": 2, "residual_diff_threshold": 0.3});
    let wide: Option<Size> = Some("96x64".parse().unwrap());
    let ddim = Some("DDIMScheduler".parse().unwrap());
    vec![
        request("red apple", 1, 8),
        ImageRequest { scheduler: ddim, cache: cache(CacheDit, reuse), ..request("dog face", 2, 14) },
        ImageRequest { guidance_scale: Some(1.0), cache: cache(CacheDit, taylor), ..request("0", 3, 12) },
        ImageRequest { guidance_scale: Some(7.5), cache: cache(CacheDit, masked), ..request("1", 4, 10) },
        ImageRequest { images: 2, cache: cache(CacheDit, prune), ..request("2", 5, 11) },
        ImageRequest { size: wide, cache: cache(TeaCache, json!({"rel_l1_thresh": 0.3})), ..request("3", 7, 13) },
        ImageRequest { scheduler: ddim, guidance_scale: Some(0.0), size: wide, ..request("4", 8, 9) },
        ImageRequest { cache: cache(MagCache, json!({"mag_threshold": 0.2})), ..request("5", 9, 14) },
    ]
}

fn psnr(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    let squares: f64 = a.iter().zip(b).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    10.0 * (255.0f64.powi(2) * a.len() as f64 / squares).log10()
}

/// The decisions alone: distances may differ in their last digits.
fn decisions(finished: &FinishedRequest) -> Vec<Value> {
    let contexts = finished.cache.images.iter().flat_map(|image| &image.contexts);
    contexts.map(|context| json!([context.name, context.branch, context.reasons, context.cached_steps])).collect()
}

#[test]
fn requests_of_every_kind_get_together_what_they_get_alone() {
    let engine = engine(EngineOptions::default());
    let submit = |request: ImageRequest| engine.submit(engine.plan(request).unwrap()).unwrap();
    let tickets: Vec<_> = mixed_requests().into_iter().map(submit).collect();
    let together: Vec<_> = tickets.into_iter().map(|ticket| ticket.wait().unwrap()).collect();
    assert!(engine.statistics().joins >= 5, "the requests did not share batches: {:?}", engine.statistics());

    let mut cached = 0;
    for (together, request) in together.iter().zip(mixed_requests()) {
        let name = format!("{request:?}");
        let alone = submit(request).wait().unwrap();
        assert_eq!(decisions(together), decisions(&alone), "{name}");
        cached += usize::from(together.cache.hit_rate > 0.0);
        for (together, alone) in together.images.iter().zip(&alone.images) {
            let psnr = psnr(&together.data, &alone.data);
            println!("{}: {psnr:.1} dB", together.size);
            assert_eq!(together.size, alone.size);
            assert!(psnr >= LEAST_PSNR, "{psnr} dB: {name}");
        }
    }
    assert_eq!(cached, 6, "every cache was engaged");
    assert_eq!((engine.queue_depth(), engine.running_rows(), engine.cache_bytes()), (0, 0, 0));
    assert_eq!(engine.queued_seconds(), 0.0);
}

#[test]
fn a_mixed_batch_of_eight_rows_costs_one_copy_to_the_host_per_step() {
    use CacheBackend::{CacheDit, TeaCache};
    const STEPS: usize = 12;
    let pipeline = Pipeline::load(&ModelFolder::embedded(), &LoadOptions::default()).unwrap();
    let info = pipeline.info();
    let late = json!({"Fn_compute_blocks": 3, "Bn_compute_blocks": 1, "max_warmup_steps": 2});
    let configs = [
        cache(CacheDit, json!({"max_warmup_steps": 3, "residual_diff_threshold": 0.4})),
        cache(CacheDit, late),
        cache(TeaCache, json!({"rel_l1_thresh": 0.3})),
        CacheConfig::None,
    ];
    let spec = |config: &CacheConfig| ImageSpec {
        prompt: "1".to_owned(),
        negative_prompt: None,
        size: info.buckets[0],
        steps: STEPS,
        guidance: info.default_guidance(),
        scheduler: info.default_scheduler,
        cache: CachePlan::new(config, STEPS, info.cache_facts(&info.blocks())).unwrap(),
    };
    let begin =
        |(seed, spec): (usize, ImageSpec)| pipeline.begin(spec, seed as u64, &CacheBudget::unlimited()).unwrap();
    let mut images: Vec<_> = configs.iter().map(spec).enumerate().map(begin).collect();
    // Each image has a row with its prompt and one without.
    assert!(images.iter().all(|image| image.spec().guidance.rows() == 2));
    for step in 0..STEPS {
        let before = read_back::copies();
        let were_finite = pipeline.denoise(&mut images).unwrap();
        assert_eq!(read_back::copies() - before, 1, "step {step}");
        assert_eq!(were_finite, [true; 4]);
    }
    let cached = images.iter().filter(|image| image.cached_forwards() > 0).count();
    assert_eq!(cached, 3, "every cache was engaged");
}

#[test]
fn a_warm_engine_knows_its_buckets_and_refuses_what_never_fits() {
    let options =
        EngineOptions { max_batch_rows: Some(1), warmup: true, max_queued_seconds: 1e-6, ..EngineOptions::default() };
    let engine = engine_on(&[DeviceSpec::Cpu; 2], options);
    let sizes: Vec<_> = engine.bucket_estimates().iter().map(|bucket| bucket.size.to_string()).collect();
    assert_eq!(sizes, ["64x64", "96x64"]);
    let guided = engine.plan(request("red apple", 0, 8)).unwrap_err();
    assert_eq!((guided.param.as_str(), guided.code), ("guidance_scale", "too_many_rows"));
    let unguided = ImageRequest { guidance_scale: Some(1.0), ..request("red apple", 0, 8) };
    let refused = engine.plan(unguided).unwrap_err();
    assert_eq!(refused.code, "too_much_work");
    assert!(refused.message.contains("--max-queued-seconds"), "{}", refused.message);
    assert!(engine.is_ready());
}

#[test]
fn previews_lead_to_the_picture_and_a_dropped_ticket_frees_everything() {
    let engine = engine(EngineOptions::default());
    let with_previews = |count, request| ImageRequest { previews: PreviewCount::new(count).unwrap(), ..request };
    let planned = engine.plan(with_previews(2, request("red apple", 0, 12))).unwrap();
    let mut ticket = engine.submit(planned.clone()).unwrap();
    let mut previews = ticket.previews().unwrap();
    let long = ImageRequest { images: 3, cache: cache(CacheBackend::CacheDit, json!({})), ..request("1", 1, 200) };
    let mut cancelled = engine.submit(engine.plan(with_previews(1, long)).unwrap()).unwrap();
    assert!(cancelled.previews().is_some());
    let finished = ticket.wait().unwrap();
    let shown: Vec<_> = std::iter::from_fn(|| previews.blocking_recv()).collect();
    assert_eq!(shown.iter().map(|preview| preview.step).collect::<Vec<_>>(), [4, 8]);
    // Each is nearer to the picture than the one before.
    let picture = &finished.images[0].data;
    let near: Vec<_> = shown.iter().map(|preview| psnr(&preview.pixels.data, picture)).collect();
    assert!(near[0] < near[1] && near[0] > 8.0, "{near:?}");
    drop(cancelled);
    engine.drain();
    assert_eq!(engine.submit(planned).err(), Some(SubmitError::Closed));
    while !engine.has_ended() {
        std::thread::yield_now();
    }
    assert_eq!((engine.cache_bytes(), engine.running_rows(), engine.statistics().cancelled), (0, 0, 1));
}

#[test]
fn a_request_out_of_time_says_so() {
    let timeout = std::time::Duration::ZERO;
    let engine = engine(EngineOptions { request_timeout: Some(timeout), ..EngineOptions::default() });
    let ticket = engine.submit(engine.plan(request("red apple", 0, 8)).unwrap()).unwrap();
    assert_eq!(ticket.wait().unwrap_err(), RequestFailure::TimedOut { timeout });
}

#[test]
fn a_size_that_is_no_bucket_is_refused_or_served_from_the_nearest() {
    let wide = || ImageRequest { size: Some("1920x1080".parse().unwrap()), ..request("0", 1, 1) };
    let error = engine(EngineOptions::default()).plan(wide()).unwrap_err();
    assert_eq!((&*error.param, error.code), ("size", "invalid_value"));
    assert!(error.message.contains("64x64, 96x64"), "{error}");
    let engine = engine(EngineOptions { bucket_policy: BucketPolicy::Nearest, ..EngineOptions::default() });
    let planned = engine.plan(wide()).unwrap();
    assert_eq!(engine.submit(planned).unwrap().wait().unwrap().spec.size, "96x64".parse().unwrap());
}

#[test]
fn a_prompt_is_encoded_once() {
    let engine = engine(EngineOptions::default());
    for prompt in ["red apple", "fox face", "red apple", "red apple"] {
        let planned = engine.plan(ImageRequest { images: 2, ..request(prompt, 1, 1) }).unwrap();
        engine.submit(planned).unwrap().wait().unwrap();
    }
    let counted = engine.prompt_cache_statistics();
    assert_eq!((counted.hits, counted.misses), (6, 2), "every image asks");
    assert!(counted.bytes > 0);
}

#[test]
fn an_engine_wants_a_device() {
    let replicas = Replicas::load(&ModelFolder::embedded(), &LoadOptions::default(), &[]);
    assert!(matches!(replicas, Err(RunnerError::Options(_))));
}

#[test]
fn a_sample_is_the_picture_that_the_same_request_gets_without_a_cache() {
    let engine = engine(EngineOptions::default());
    let make = |request| engine.submit(engine.plan(request).unwrap()).unwrap().wait().unwrap();
    let reuse = cache(CacheBackend::CacheDit, json!({"max_warmup_steps": 3, "residual_diff_threshold": 0.4}));
    let cached = ImageRequest { images: 2, cache: reuse, ..request("red apple", 11, 12) };
    let (finished, uncached) = (make(cached.clone()), make(ImageRequest { cache: CacheConfig::None, ..cached }));
    assert!(finished.cache.hit_rate > 0.0 && finished.images != uncached.images);
    let before = (engine.statistics(), engine.prompt_cache_statistics());
    for index in 0..2 {
        let (sender, receiver) = std::sync::mpsc::channel();
        let sink = move |made| sender.send(made).unwrap();
        engine.sample(UncachedImage::of(&finished, index), Box::new(sink));
        let made = receiver.recv().unwrap().unwrap();
        let psnr = psnr(&made.data, &uncached.images[index].data);
        assert!(psnr >= LEAST_PSNR, "image {index}: {psnr} dB");
    }
    assert_eq!((engine.statistics(), engine.prompt_cache_statistics()), before);
}
