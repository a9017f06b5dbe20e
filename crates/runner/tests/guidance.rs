//! What requests for FLUX and FLUX.2, whose guidance is distilled, for Z-Image, whose scale begins at 0, and for Qwen-Image may
//! ask for, and that a second forward needs no larger batch.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::PathBuf;

use afterimage_cache::{CacheBackend, CacheConfig};
use afterimage_runner::{
    Engine, EngineOptions, Guidance, ImageRequest, LoadOptions, ModelFolder, Pipeline, PreviewCount, RequestError, Size,
};
use serde_json::json;

/// With no room for two rows in one forward.
fn engine(name: &str) -> Engine {
    engine_for(name, 1)
}

fn engine_for(name: &str, max_batch_rows: usize) -> Engine {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(name).join("model");
    let buckets = vec![Size { width: 64, height: 64 }.into()];
    let folder = ModelFolder::open(&path).unwrap();
    let pipeline = Pipeline::load(&folder, &LoadOptions { buckets, ..LoadOptions::default() }).unwrap();
    Engine::start(pipeline, EngineOptions { max_batch_rows: Some(max_batch_rows), ..EngineOptions::default() }).unwrap()
}

fn request() -> ImageRequest {
    ImageRequest {
        prompt: "a red apple".to_owned(),
        negative_prompt: None,
        images: 1,
        size: None,
        seed: 1,
        num_inference_steps: Some(2),
        guidance_scale: None,
        true_cfg_scale: None,
        scheduler: None,
        cache: CacheConfig::None,
        previews: PreviewCount::default(),
    }
}

fn cache_dit(keys: serde_json::Value) -> CacheConfig {
    CacheConfig::parse(CacheBackend::CacheDit, keys.as_object().unwrap()).unwrap()
}

#[test]
fn absent_fields_take_the_defaults_of_the_model() {
    for (name, scale) in [("flux-dev", 3.5), ("flux-schnell", 0.0)] {
        let engine = engine(name);
        assert_eq!(engine.model().default_steps, 28);
        let planned = engine.plan(request()).unwrap();
        assert_eq!(planned.spec().guidance, Guidance::Distilled { scale, true_cfg_scale: 1.0 }, "{name}");
    }
}

#[test]
fn what_would_have_no_effect_is_refused() {
    let (dev, schnell) = (engine("flux-dev"), engine("flux-schnell"));
    let negative_prompt = || Some("blurry".to_owned());
    let refusal = |engine: &Engine, request| -> RequestError { engine.plan(request).unwrap_err() };

    let refused = refusal(&dev, ImageRequest { negative_prompt: negative_prompt(), ..request() });
    assert_eq!(refused.param, "negative_prompt");
    assert!(refused.message.contains("set `true_cfg_scale` (now 1) above 1"), "{refused}");
    let off = ImageRequest { negative_prompt: negative_prompt(), true_cfg_scale: Some(0.5), ..request() };
    assert_eq!(refusal(&dev, off).param, "negative_prompt");

    let refused = refusal(&schnell, ImageRequest { guidance_scale: Some(3.5), ..request() });
    assert_eq!(refused.param, "guidance_scale");
    assert!(refused.message.contains("`true_cfg_scale`"), "{refused}");
    for scale in [0.0, 1.0] {
        schnell.plan(ImageRequest { guidance_scale: Some(scale), ..request() }).unwrap();
        dev.plan(ImageRequest { guidance_scale: Some(scale), ..request() }).unwrap();
    }

    let one_forward = ImageRequest { cache: cache_dit(json!({"enable_separate_cfg": true})), ..request() };
    assert_eq!(refusal(&dev, one_forward).param, "cache_config.enable_separate_cfg");
    let small_list = cache_dit(json!({"Fn_compute_blocks": 5, "block_lists": "separate"}));
    assert_eq!(refusal(&dev, ImageRequest { cache: small_list, ..request() }).param, "cache_config.Fn_compute_blocks");
}

#[test]
fn a_second_forward_has_a_branch_of_its_own_and_no_need_of_a_second_row() {
    let engine = engine("flux-schnell");
    // Without a negative prompt it is the empty one.
    let two_forwards = ImageRequest { true_cfg_scale: Some(3.0), ..request() };
    for (keys, first_diffs) in [(json!({}), 0), (json!({"max_warmup_steps": 1}), 1)] {
        let planned = engine.plan(ImageRequest { cache: cache_dit(keys), ..two_forwards.clone() }).unwrap();
        assert_eq!(planned.spec().guidance.true_cfg_scale(), Some(3.0));
        let finished = engine.submit(planned).unwrap().wait().unwrap();
        let contexts = &finished.cache.images[0].contexts;
        let branches: Vec<_> = contexts.iter().map(|context| context.branch).collect();
        assert_eq!(branches, ["cond", "uncond"]);
        for context in contexts {
            assert_eq!(context.name, "transformer_blocks+single_transformer_blocks");
            assert_eq!((context.reasons.len(), context.residual_diffs.len()), (2, first_diffs));
        }
    }
}

#[test]
fn the_unconditional_forward_may_come_first() {
    let engine = engine("flux-dev");
    let request = ImageRequest {
        negative_prompt: Some("blurry".to_owned()),
        true_cfg_scale: Some(3.0),
        num_inference_steps: Some(6),
        ..request()
    };
    let run = |uncond_first: bool| {
        let keys =
            json!({"max_warmup_steps": 2, "cfg_compute_first": uncond_first, "cfg_diff_compute_separate": false});
        let planned = engine.plan(ImageRequest { cache: cache_dit(keys), ..request.clone() }).unwrap();
        engine.submit(planned).unwrap().wait().unwrap()
    };
    let (first, second) = (run(true), run(false));
    let diffs = |planned: &afterimage_runner::FinishedRequest, branch: usize| {
        planned.cache.images[0].contexts[branch].residual_diffs.clone()
    };
    // The unconditional branch takes over the conditional one's distance. Where it comes first there is none yet,
    // and it measures its own.
    assert_eq!(diffs(&second, 0), diffs(&second, 1));
    assert_ne!(diffs(&first, 0), diffs(&first, 1));
    assert_eq!(diffs(&first, 0)[&2], diffs(&second, 0)[&2]);
}

#[test]
fn the_scale_of_z_image_begins_at_0() {
    let engine = engine("z-image-turbo");
    let unguided = |negative_prompt: Option<&str>| ImageRequest {
        guidance_scale: Some(0.0),
        negative_prompt: negative_prompt.map(str::to_owned),
        ..request()
    };
    let planned = engine.plan(unguided(None)).unwrap();
    assert_eq!((planned.spec().guidance, planned.spec().guidance.rows()), (Guidance::BeyondPrompt(0.0), 1));
    let refused = engine.plan(unguided(Some("blurry"))).unwrap_err();
    assert_eq!(refused.param, "negative_prompt");
    assert!(refused.message.contains("set `guidance_scale` (now 0) above 0"), "{refused}");
    for guidance_scale in [None, Some(0.5)] {
        // Two rows in one forward, for which this engine has no room.
        let guided = ImageRequest { guidance_scale, negative_prompt: Some("blurry".to_owned()), ..request() };
        let refused = engine.plan(guided).unwrap_err();
        assert!(refused.message.contains("with a `guidance_scale` up to 0 it is one"), "{refused}");
    }
}

#[test]
fn qwen_image_is_guided_by_two_forwards_where_there_is_a_negative_prompt() {
    let engine = engine("qwen-image");
    assert_eq!(engine.model().default_steps, 50);
    let branches = |request: ImageRequest| {
        let planned = engine.plan(ImageRequest { cache: cache_dit(json!({})), ..request }).unwrap();
        let finished = engine.submit(planned).unwrap().wait().unwrap();
        let contexts = finished.cache.images[0].contexts.iter();
        let names: Vec<_> = contexts.map(|context| (context.name.clone(), context.branch)).collect();
        assert!(names.iter().all(|(name, _)| name == "transformer_blocks"), "{names:?}");
        (names.into_iter().map(|(_, branch)| branch).collect::<Vec<_>>(), finished.warnings)
    };
    let guided = |text: &str| {
        let negative_prompt = Some(text.to_owned());
        ImageRequest { negative_prompt, true_cfg_scale: Some(4.0), ..request() }
    };
    for text in ["", " ", "blurry"] {
        assert_eq!(branches(guided(text)), (vec!["cond", "uncond"], Vec::new()), "{text:?}");
        // Blanks are tokens like others.
        assert_eq!(engine.plan(guided(text)).unwrap().spec().negative_prompt.as_deref(), Some(text));
    }
    let (found, warnings) = branches(ImageRequest { negative_prompt: None, ..guided("") });
    assert_eq!((found, warnings.len()), (vec!["all"], 1));
    assert_eq!((warnings[0].param.as_str(), warnings[0].code), ("true_cfg_scale", "no_negative_prompt"));
    for unguided in [request(), ImageRequest { true_cfg_scale: None, ..guided(" ") }] {
        assert_eq!(branches(unguided), (vec!["all"], Vec::new()));
    }
}

#[test]
fn qwen_image_takes_no_guidance_scale() {
    let engine = engine("qwen-image");
    let refusal = |request| -> RequestError { engine.plan(request).unwrap_err() };
    for scale in [0.0, 1.0, 4.0] {
        let refused = refusal(ImageRequest { guidance_scale: Some(scale), ..request() });
        assert_eq!(refused.param, "guidance_scale");
        assert!(refused.message.contains("set `true_cfg_scale` and `negative_prompt`"), "{refused}");
    }
    let refused = refusal(ImageRequest { negative_prompt: Some("blurry".to_owned()), ..request() });
    assert_eq!(refused.param, "negative_prompt");
    assert!(refused.message.contains("set `true_cfg_scale` (now 1) above 1"), "{refused}");
}

#[test]
fn flux2_klein_takes_no_guidance_where_it_is_distilled() {
    let engine = engine("flux2-klein");
    let model = engine.model();
    assert_eq!((model.default_steps, model.default_guidance_scale), (50, 1.0));
    let refusal = |request| -> RequestError { engine.plan(request).unwrap_err() };
    let refused = refusal(ImageRequest { guidance_scale: Some(4.0), ..request() });
    assert_eq!(refused.param, "guidance_scale");
    assert!(refused.message.ends_with("distilled to work without guidance; leave it out"), "{refused}");
    let refused = refusal(ImageRequest { true_cfg_scale: Some(2.0), ..request() });
    assert_eq!(refused.param, "true_cfg_scale");
    assert!(refused.message.ends_with("which has no guidance; leave it out"), "{refused}");
    let refused = refusal(ImageRequest { negative_prompt: Some("blurry".to_owned()), ..request() });
    assert_eq!(refused.param, "negative_prompt");
    assert!(refused.message.contains("distilled to work without one"), "{refused}");
    for scale in [0.0, 1.0] {
        let planned = engine.plan(ImageRequest { guidance_scale: Some(scale), ..request() }).unwrap();
        assert_eq!(planned.spec().guidance.rows(), 1);
    }
}

#[test]
fn flux2_klein_base_is_guided_by_a_second_forward_for_the_empty_prompt() {
    let engine = engine("flux2-klein-base");
    let guided = ImageRequest { guidance_scale: Some(4.0), ..request() };
    let refused = engine.plan(ImageRequest { negative_prompt: Some("blurry".to_owned()), ..guided.clone() });
    let refused: RequestError = refused.unwrap_err();
    assert_eq!(refused.param, "negative_prompt");
    assert!(refused.message.contains("always steers away from the empty prompt"), "{refused}");
    let refused = engine.plan(ImageRequest { true_cfg_scale: Some(2.0), ..request() }).unwrap_err();
    assert_eq!(refused.param, "true_cfg_scale");
    let contexts = |request: ImageRequest| {
        let planned = engine.plan(ImageRequest { cache: cache_dit(json!({})), ..request }).unwrap();
        assert_eq!(planned.spec().guidance.true_cfg_scale(), None);
        let finished = engine.submit(planned).unwrap().wait().unwrap();
        let contexts = finished.cache.images[0].contexts.iter();
        contexts.map(|context| (context.name.clone(), context.branch)).collect::<Vec<_>>()
    };
    let [double, single] = ["transformer_blocks", "single_transformer_blocks"].map(str::to_owned);
    let both =
        [(double.clone(), "cond"), (double.clone(), "uncond"), (single.clone(), "cond"), (single.clone(), "uncond")];
    assert_eq!(contexts(guided), both);
    // The default is guided too.
    assert_eq!(contexts(request()), both);
    let all = [(double, "all"), (single, "all")];
    assert_eq!(contexts(ImageRequest { guidance_scale: Some(1.0), ..request() }), all);
}

#[test]
fn flux2_dev_receives_its_guidance_scale_and_nothing_else() {
    let engine = engine("flux2-dev");
    let planned = engine.plan(request()).unwrap();
    assert_eq!(planned.spec().guidance, Guidance::Distilled { scale: 4.0, true_cfg_scale: 1.0 });
    assert_eq!(engine.model().default_steps, 50);
    for (request, param) in [
        (ImageRequest { true_cfg_scale: Some(2.0), ..request() }, "true_cfg_scale"),
        (ImageRequest { negative_prompt: Some("blurry".to_owned()), ..request() }, "negative_prompt"),
    ] {
        assert_eq!(engine.plan(request).unwrap_err().param, param);
    }
}

/// Blocks are counted in each list.
#[test]
fn a_cache_must_fit_the_smaller_list_of_flux2() {
    let engine = engine("flux2-klein");
    let planned = |keys| engine.plan(ImageRequest { cache: cache_dit(keys), ..request() });
    let planned_whole = planned(json!({"Fn_compute_blocks": 4, "Bn_compute_blocks": 2})).unwrap();
    assert_eq!(planned_whole.spec().cache.effective_config()["block_lists"], "separate");
    for (keys, key) in [
        (json!({"Fn_compute_blocks": 7}), "cache_config.Fn_compute_blocks"),
        (json!({"Fn_compute_blocks": 4, "Bn_compute_blocks": 3}), "cache_config.Bn_compute_blocks"),
    ] {
        let refused: RequestError = planned(keys).unwrap_err();
        assert_eq!(refused.param, key);
        assert!(refused.message.ends_with("counted in each list of the model, and those have 6 and 7"), "{refused}");
    }
}

/// A chat template keeps blanks, so they give another picture than no text does.
#[test]
fn z_image_is_guided_away_from_a_blank_negative_prompt_as_it_is() {
    let engine = engine_for("z-image-turbo", 2);
    let kept = |text: &str, guidance_scale| {
        let negative_prompt = Some(text.to_owned());
        let request = ImageRequest { negative_prompt, guidance_scale: Some(guidance_scale), ..request() };
        engine.plan(request).unwrap().spec().negative_prompt.clone()
    };
    assert_eq!(kept(" ", 5.0).as_deref(), Some(" "));
    // The default is empty.
    assert_eq!((kept("", 5.0), kept(" ", 0.0)), (None, None));
}

/// As clients with an input box for it send it.
#[test]
fn a_blank_negative_prompt_asks_flux_for_nothing() {
    let engine = engine("flux-dev");
    let blank = ImageRequest { negative_prompt: Some("  ".to_owned()), ..request() };
    assert_eq!(engine.plan(blank).unwrap().spec().negative_prompt, None);
}
