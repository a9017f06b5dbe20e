//! Grids on a small model: what is counted, in which order, and what is left of a study that ends early.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::path::Path;

use afterimage_cache::{CacheBackend, CacheConfig};
use afterimage_runner::{Engine, EngineOptions, ImageRequest, LoadOptions, ModelFolder, Pipeline, PreviewCount};
use afterimage_study::likeness::MAX_PSNR_DB;
use afterimage_study::{Cancellation, Event, Grid, Measure, Outcome, Setting, Study, StudyError};
use serde_json::{Value, json};

const STEPS: usize = 6;
/// Of the model.
const BLOCKS: usize = 3;

fn engine() -> Engine {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models/f32-safetensors");
    let pipeline = Pipeline::load(&ModelFolder::open(&folder).unwrap(), &LoadOptions::default()).unwrap();
    Engine::start(pipeline, EngineOptions::default()).unwrap()
}

fn setting(name: &str, backend: CacheBackend, keys: Value) -> Setting {
    Setting::parse(name, backend, keys.as_object().unwrap()).unwrap()
}

/// Always reused after two steps.
fn always(name: &str) -> Setting {
    let keys = json!({"residual_diff_threshold": 1.0, "max_warmup_steps": 2, "max_continuous_cached_steps": -1});
    setting(name, CacheBackend::CacheDit, keys)
}

fn never(name: &str) -> Setting {
    setting(name, CacheBackend::CacheDit, json!({"residual_diff_threshold": 0.0}))
}

fn grid(settings: Vec<Setting>, measure: Measure) -> Grid {
    let request = ImageRequest {
        prompt: String::new(),
        negative_prompt: None,
        images: 1,
        size: None,
        seed: 0,
        num_inference_steps: Some(STEPS),
        guidance_scale: None,
        true_cfg_scale: None,
        scheduler: None,
        cache: CacheConfig::None,
        previews: PreviewCount::default(),
    };
    let prompts = vec!["0".to_owned(), "1".to_owned()];
    Grid { settings, request, prompts, seeds: vec![1, 2], measure, kept_pictures: 1 }
}

fn run(engine: &Engine, grid: Grid) -> Outcome {
    Study::plan(engine, grid).unwrap().run(&Cancellation::default(), &mut |_| {})
}

#[test]
fn counting_needs_no_clock_and_compares_nothing() {
    let Outcome { report, ended } = run(&engine(), grid(vec![always("a"), never("b")], Measure::Counted));
    assert!(ended.is_ok() && report.complete);
    assert_eq!((report.steps, report.rows.len()), (STEPS, 3));
    let rows = serde_json::to_value(&report.rows).unwrap();
    let executed = 2 * BLOCKS + (STEPS - 2);
    assert_eq!(
        [0, 1, 2].map(|row| rows[row]["executed_blocks"].as_u64()),
        [STEPS * BLOCKS, executed, STEPS * BLOCKS].map(|blocks| Some(blocks as u64))
    );
    assert_eq!([0, 1, 2].map(|row| rows[row]["forwards"].as_u64()), [Some(6), Some(2), Some(6)]);
    assert_eq!([0, 1, 2].map(|row| rows[row]["cached_steps"].as_u64()), [Some(0), Some(4), Some(0)]);
    assert_eq!(rows[1]["speedup_bound"], json!(1.8));
    for key in ["seconds", "total_seconds", "speedup", "psnr_db", "ssim", "flip"] {
        assert_eq!((&rows[0][key], &rows[1][key]), (&Value::Null, &Value::Null), "{key}");
    }
}

#[test]
fn what_computes_everything_gives_the_uncached_pictures() {
    let engine = engine();
    let Outcome { report, .. } =
        run(&engine, grid(vec![never("never"), always("always")], Measure::Timed { repeats: 3, warm_ups: 1 }));
    let [uncached, never, always] = &report.rows[..] else { panic!("{:?}", report.rows) };
    assert_eq!((uncached.cache_backend, uncached.name.as_str()), ("none", "uncached"));
    assert_eq!((uncached.psnr_db, uncached.ssim, uncached.flip), (Some(MAX_PSNR_DB), Some(1.0), Some(0.0)));
    assert_eq!((never.psnr_db, never.ssim), (Some(MAX_PSNR_DB), Some(1.0)));
    assert!(always.psnr_db.unwrap() < MAX_PSNR_DB && always.psnr_db_min <= always.psnr_db);
    assert!(always.cache_bytes > 0 && uncached.cache_bytes == 0);
    for row in &report.rows {
        assert_eq!((row.repeats, row.pictures.len()), (3, 4));
        assert_eq!(row.speedup.unwrap(), uncached.seconds.unwrap() / row.seconds.unwrap());
        assert_eq!(row.pictures.iter().filter(|picture| picture.image.is_some()).count(), 1);
    }
    let names: Vec<_> = always.pictures.iter().map(|picture| (&*picture.prompt, picture.seed)).collect();
    assert_eq!(names, [("0", 1), ("0", 2), ("1", 1), ("1", 2)]);
    assert_eq!(always.cache_config["residual_diff_threshold"], json!(1.0));
}

#[test]
fn rounds_alternate_and_hand_out_their_rows() {
    let engine = engine();
    let study = Study::plan(&engine, grid(vec![never("a")], Measure::Timed { repeats: 2, warm_ups: 1 })).unwrap();
    assert_eq!(study.pictures(), 1 + 2 * 2 * 4);
    let (mut rows, mut pictures) = (Vec::new(), Vec::new());
    study.run(&Cancellation::default(), &mut |event| match event {
        Event::Row { index, row } => rows.push((index, row.repeats)),
        Event::Picture { done, of, .. } => pictures.push((done, of)),
    });
    assert_eq!(rows, [(0, 1), (1, 1), (1, 2), (0, 2)]);
    assert_eq!(pictures, (0..17).map(|done| (done, 17)).collect::<Vec<_>>());
}

#[test]
fn a_cancelled_study_keeps_the_rows_that_were_done() {
    let engine = engine();
    let cancellation = Cancellation::default();
    let study = Study::plan(&engine, grid(vec![never("a"), never("b")], Measure::Counted)).unwrap();
    let outcome = study.run(&cancellation, &mut |event| {
        if matches!(event, Event::Row { index: 1, .. }) {
            cancellation.cancel();
        }
    });
    assert!(matches!(outcome.ended, Err(StudyError::Cancelled)) && !outcome.report.complete);
    assert_eq!(outcome.report.rows.len(), 2);
}

#[test]
fn settings_that_the_model_cannot_use_are_refused_before_anything_runs() {
    let engine = engine();
    let impossible = setting("tea", CacheBackend::TeaCache, json!({}));
    let mut grid = grid(vec![never("a"), impossible], Measure::Counted);
    let Err(error) = Study::plan(&engine, grid.clone()) else { panic!("there are no coefficients") };
    assert!(error.to_string().starts_with("tea: "), "{error}");
    let unusable = grid.take_out_unusable(&engine);
    assert_eq!((unusable[0].0.as_str(), unusable[0].1.param.as_str()), ("tea", "cache_config.coefficients"));
    assert!(Study::plan(&engine, grid.clone()).is_ok());
    grid.seeds.clear();
    assert!(matches!(Study::plan(&engine, grid), Err(StudyError::NoPictures)));
}
