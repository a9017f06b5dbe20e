use afterimage_runner::schedulers::SchedulerKind;
use serde_json::{Value, json};

use super::*;

const DDIM: CaseKey = CaseKey { scheduler: SchedulerKind::Ddim, num_inference_steps: 50, guidance: true };

fn setting(threshold: f64, speedup: f64, psnr: f64, ssim: f64) -> Value {
    json!({
        "cache_backend": "cache_dit", "cache_config": {"residual_diff_threshold": threshold}, "speedup": speedup,
        "psnr_db": {"min": psnr - 1.0, "p05": psnr, "mean": psnr + 4.0}, "ssim": {"min": ssim, "p05": ssim, "mean": ssim}, "hit_rate": 0.5
    })
}

fn file() -> Value {
    json!({
        "version": 1,
        "cases": [{
            "scheduler": "DDIMScheduler", "num_inference_steps": 50, "guidance": true,
            "measured_on": {
                "program": "afterimage 0.1.0", "model": "emoji-dit", "device": "cpu", "dtype": "f32", "size": "64x64",
                "guidance_scale": 4.0, "true_cfg_scale": null, "uncached_seconds": 0.5, "pictures": 28,
                "prompts": ["apple", "dog"], "seeds": [0, 1], "held_out_prompts": ["cat"], "held_out_seeds": [2]
            },
            "settings": [
                setting(0.1, 1.5, 40.0, 0.99), setting(0.24, 2.4, 31.0, 0.95), setting(0.3, 2.6, 28.0, 0.96),
                setting(0.05, 0.9, 60.0, 0.999)
            ]
        }]
    })
}

fn read(file: &Value) -> Result<CacheProfile, ProfileError> {
    CacheProfile::from_json(&file.to_string())
}

#[test]
fn what_is_written_is_read() {
    let profile = read(&file()).unwrap();
    let text = profile.to_json().unwrap();
    assert_eq!(CacheProfile::from_json(&text).unwrap(), profile);
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), file());
}

#[test]
fn the_fastest_setting_that_holds_the_floor_is_chosen() {
    let profile = read(&file()).unwrap();
    let speedup = |floor: Floor| profile.choose(DDIM, "f32", floor).map(|(_, setting)| setting.speedup());
    assert_eq!(speedup(Floor::of_psnr(30.0)), Ok(2.4));
    assert_eq!(speedup(Floor::of_psnr(31.0)), Ok(2.4));
    assert_eq!(speedup(Floor::of_psnr(0.0)), Ok(2.6));
    assert_eq!(speedup(Floor::of_ssim(0.955)), Ok(2.6));
    let both = Floor::parse(json!({"min_psnr": 30, "min_ssim": 0.955}).as_object().unwrap()).unwrap().unwrap();
    assert_eq!(speedup(both), Ok(1.5));
    assert_eq!(speedup(Floor::of_psnr(50.0)), Err(NoSetting::FloorNotHeld), "slower than no cache");
    for other in [
        CaseKey { num_inference_steps: 49, ..DDIM },
        CaseKey { guidance: false, ..DDIM },
        CaseKey { scheduler: SchedulerKind::Ddpm, ..DDIM },
    ] {
        assert_eq!(profile.choose(other, "f32", Floor::of_psnr(0.0)).map(drop), Err(NoSetting::NoCase));
    }
}

#[test]
fn a_case_that_is_measured_again_replaces_the_old_one() {
    let mut profile = read(&file()).unwrap();
    let mut case = profile.cases()[0].clone();
    case.settings.truncate(1);
    case.measured_on.uncached_seconds = 0.75;
    profile.put(case.clone()).unwrap();
    let settings = |profile: &CacheProfile| profile.cases()[0].settings.len();
    assert_eq!(
        (settings(&profile), profile.cases()[0].measured_on.uncached_seconds),
        (3, 0.75),
        "the others stay, but for a slow one"
    );
    case.measured_on.held_out_seeds.push(9);
    assert_eq!(profile.put(case.clone()), Ok(1));
    assert_eq!(profile.cases(), [case.clone()], "what was measured on other pictures cannot be compared");
    profile.put(ProfileCase { num_inference_steps: 25, ..case.clone() }).unwrap();
    assert_eq!(profile.cases().len(), 2);

    let slow = |case: &ProfileCase| {
        let mut text = serde_json::to_value(case).unwrap();
        text["settings"][0]["speedup"] = json!(0.9);
        serde_json::from_value::<ProfileCase>(text).unwrap()
    };
    let mut other = slow(&case);
    other.measured_on.held_out_seeds.push(10);
    assert_eq!(profile.put(other), Ok(1), "a search that found nothing on other pictures changes nothing");
    assert_eq!(profile.put(slow(&case)), Ok(0), "what was measured again and is slow goes");
    assert_eq!(profile.put(slow(&ProfileCase { num_inference_steps: 30, ..case })), Ok(0));
    assert_eq!(profile.cases().len(), 2, "a case without settings is none");
}

#[test]
fn precisions_stand_beside_each_other() {
    let mut profile = read(&file()).unwrap();
    let mut case = profile.cases()[0].clone();
    case.settings.truncate(1);
    for dtype in ["f32, int8", "bf16"] {
        case.measured_on.dtype = dtype.to_owned();
        assert_eq!(profile.put(case.clone()), Ok(1), "{dtype}");
    }
    let profile = CacheProfile::from_json(&profile.to_json().unwrap()).unwrap();
    assert_eq!(profile.cases().iter().map(|case| case.settings.len()).collect::<Vec<_>>(), [4, 1, 1]);

    let chosen = |dtype: &str| profile.choose(DDIM, dtype, Floor::of_psnr(0.0)).unwrap();
    for dtype in ["f32", "f32, int8", "bf16"] {
        assert_eq!(chosen(dtype).0.measured_on.dtype, dtype);
    }
    assert_eq!(chosen("f16").0.measured_on.dtype, "f32", "the first, where nothing was measured in the model's own");
    assert_eq!(
        profile.choose(DDIM, "bf16", Floor::of_psnr(45.0)).map(drop),
        Err(NoSetting::FloorNotHeld),
        "what was measured in the model's precision counts"
    );
}

#[test]
fn what_is_wrong_is_named_by_its_key() {
    let wrong = |path: &str, value: Value| {
        let mut file = file();
        *file.pointer_mut(path).unwrap() = value;
        read(&file).unwrap_err().to_string()
    };
    for (path, value, expected) in [
        ("/version", json!(2), "`version`: it is 2; this program reads 1"),
        ("/cases", json!({}), "`cases`: "),
        ("/cases/0/scheduler", json!("Ddim"), "`cases[0].scheduler`: scheduler \"Ddim\" is not supported"),
        ("/cases/0/num_inference_steps", json!(0), "`cases[0].num_inference_steps`: it is 0"),
        ("/cases/0/measured_on/seeds/1", json!(-1), "`cases[0].measured_on.seeds[1]`: "),
        ("/cases/0/measured_on/seeds", json!(vec![0; 5000]), "`cases[0].measured_on.seeds`: there are 5000"),
        ("/cases/0/settings/1/speedup", json!(0), "`cases[0].settings[1]`: `speedup` is 0; it must be above 0"),
        ("/cases/0/settings/1/hit_rate", json!(1.5), "`cases[0].settings[1]`: `hit_rate` is 1.5"),
        (
            "/cases/0/settings/1/psnr_db/min",
            json!(36),
            "`cases[0].settings[1]`: `psnr_db.min` is 36, more than `psnr_db.p05`",
        ),
        ("/cases/0/settings/1/ssim/mean", json!("a"), "`cases[0].settings[1]"),
        ("/cases/0/settings/1/cache_backend", json!("deep"), "`cases[0].settings[1]`: `cache_backend`: unknown"),
        ("/cases/0/settings/1/cache_backend", json!("auto"), "`cases[0].settings[1]`: `cache_backend`: unknown"),
        (
            "/cases/0/settings/1/cache_config",
            json!({"residual_dif_threshold": 1}),
            "`cases[0].settings[1]`: `cache_config.residual_dif_threshold`: ",
        ),
    ] {
        let message = wrong(path, value);
        assert!(message.starts_with(expected), "{path}: {message}");
    }
}

#[test]
fn nothing_is_missing_doubled_or_unknown() {
    let mut none = file();
    none["cases"][0]["settings"][0] = json!({"cache_backend": "none", "cache_config": {}, "speedup": 1, "hit_rate": 0,
        "psnr_db": {"min": 99, "p05": 99, "mean": 99}, "ssim": {"min": 1, "p05": 1, "mean": 1}});
    assert!(read(&none).unwrap_err().to_string().contains("`cache_backend` is `none`"));
    assert_eq!(read(&json!({"cases": []})).unwrap_err().to_string(), "`version`: it is missing");
    let message = CacheProfile::from_json("[1").unwrap_err().to_string();
    assert!(!message.starts_with('`'), "{message}");
    for text in ["[]", "{\"version\": 1, \"version\": 1}", "{\"version\": 1, \"cases\": [], \"a\\nb\": 1}"] {
        let message = CacheProfile::from_json(text).unwrap_err().to_string();
        assert!(!message.contains('\n') && !message.contains("struct"), "{message}");
    }
    let mut named = file();
    named["cases"][0]["measured_on"]["size"] = json!("\u{1b}[31m");
    assert!(read(&named).unwrap_err().to_string().starts_with("`cases[0].measured_on.size`: it must be a line"));
    let mut unknown = file();
    unknown["cases"][0]["notes"] = json!(1);
    assert!(read(&unknown).unwrap_err().to_string().contains("unknown field `notes`"));
    let mut doubled = file();
    let case = doubled["cases"][0].clone();
    doubled["cases"].as_array_mut().unwrap().push(case);
    let message = read(&doubled).unwrap_err().to_string();
    assert!(
        message.starts_with("`cases[1].scheduler`: DDIMScheduler at 50 steps with guidance in f32 is also"),
        "{message}"
    );
}

#[test]
fn one_of_twenty_pictures_may_be_less_alike() {
    let of = |count: u32| Likenesses::of(&(0..count).rev().map(f64::from).collect::<Vec<_>>()).unwrap();
    assert_eq!(of(19), Likenesses { min: 0.0, p05: 0.0, mean: 9.0 });
    assert_eq!((of(20).p05, of(39).p05, of(40).p05), (1.0, 1.0, 2.0));
    assert_eq!(Likenesses::of(&[]), None);
}

#[test]
fn without_what_19_of_20_reach_the_least_counts() {
    let mut short = file();
    short["cases"][0]["settings"][1]["psnr_db"] = json!({"min": 29.0, "mean": 36.0});
    let profile = read(&short).unwrap();
    assert_eq!(profile.cases()[0].settings[1].psnr_db(), Likenesses { min: 29.0, p05: 29.0, mean: 36.0 });
}

#[test]
fn a_raised_floor_is_nearer_to_equal_pictures() {
    assert_eq!(Floor::of_psnr(30.0).raised(2.5), Floor::of_psnr(32.5));
    let Some(ssim) = Floor::of_ssim(0.9).raised(10.0).keys()["min_ssim"].as_f64() else { panic!() };
    assert!((ssim - 0.99).abs() < 1e-12);
}

#[test]
fn floors_are_numbers_in_their_range() {
    let parse = |keys: Value| Floor::parse(keys.as_object().unwrap());
    assert_eq!(parse(json!({})), Ok(None));
    assert_eq!(parse(json!({"min_psnr": null})), Ok(None));
    let both = parse(json!({"min_ssim": 0.9, "min_psnr": 30})).unwrap().unwrap();
    assert_eq!(Value::Object(both.keys()), json!({"min_psnr": 30.0, "min_ssim": 0.9}));
    assert_eq!(both.to_string(), "30 dB and SSIM 0.9");
    for (keys, key) in [
        (json!({"min_psnr": -1}), "min_psnr"),
        (json!({"min_psnr": "30"}), "min_psnr"),
        (json!({"min_ssim": 1.5}), "min_ssim"),
        (json!({"Fn_compute_blocks": 1}), "Fn_compute_blocks"),
    ] {
        assert_eq!(parse(keys).unwrap_err().key, key);
    }
}
