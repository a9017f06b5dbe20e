//! `cache_backend: "auto"`: which measured setting a request gets, and that it can be had again without it.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::command_line::run;
use crate::picture::Picture;
use crate::server::Server;

/// The embedded model's folder with this profile.
fn model_with(profile: &Value) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    std::fs::create_dir(&model).unwrap();
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/emoji-dit")).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap() != "cache_profile.json" {
            std::os::unix::fs::symlink(&path, model.join(path.file_name().unwrap())).unwrap();
        }
    }
    std::fs::write(model.join("cache_profile.json"), profile.to_string()).unwrap();
    (folder, model)
}

fn setting(config: Value, speedup: f64, psnr: f64) -> Value {
    json!({
        "cache_backend": "cache_dit", "cache_config": config, "speedup": speedup, "hit_rate": 0.5,
        "psnr_db": {"min": psnr - 2.0, "p05": psnr, "mean": psnr + 3.0}, "ssim": {"min": 0.8, "p05": 0.9, "mean": 0.95}
    })
}

/// Two settings for 6 DDIM steps under guidance.
fn profile() -> Value {
    json!({"version": 1, "cases": [{
        "scheduler": "DDIMScheduler", "num_inference_steps": 6, "guidance": true,
        "measured_on": {
            "program": "afterimage 0.1.0", "model": "model", "device": "cpu", "dtype": "f32", "size": "64x64",
            "guidance_scale": 4.0, "true_cfg_scale": null, "uncached_seconds": 0.1, "pictures": 3,
            "prompts": ["a secret"], "seeds": [1], "held_out_prompts": [], "held_out_seeds": []
        },
        "settings": [
            setting(json!({"residual_diff_threshold": 0.5, "max_warmup_steps": 2}), 2.0, 25.5),
            setting(json!({"residual_diff_threshold": 0.2, "max_warmup_steps": 2, "enable_taylorseer": true}), 1.5, 31.0)
        ]
    }]})
}

fn request(more: &Value) -> Value {
    let mut request = json!({
        "prompt": "class:3", "seed": 5, "num_inference_steps": 6, "scheduler": "DDIMScheduler", "cache_backend": "auto"
    });
    for (key, value) in more.as_object().unwrap() {
        request[key] = value.clone();
    }
    request
}

fn serve(model: &Path, more: &[&str]) -> Server {
    Server::start(&[&["--model", model.to_str().unwrap()], more].concat())
}

#[test]
fn the_chosen_setting_is_told_and_can_be_sent_by_itself() {
    let (_folder, model) = model_with(&profile());
    // The server's own settings must not come through in either of the two requests.
    let own = r#"{"steps_computation_mask": [1, 1, 1, 1, 1, 1], "max_cached_steps": 1}"#;
    let server = serve(&model, &["--cache-backend", "cache_dit", "--cache-config", own]);
    for (floor, psnr) in [
        (json!({"cache_config": {"min_psnr": 30}}), 31.0),
        (json!({"cache_config": {"min_psnr": 20}}), 25.5),
        (json!({"cache_config": {"min_ssim": 0.9}}), 25.5),
        (json!({"quality": "low"}), 25.5),
        (json!({"quality": "medium"}), 31.0),
        (json!({"quality": "low", "cache_config": {"min_psnr": 30}}), 31.0),
        (json!({}), 31.0),
    ] {
        let auto = server.generate(&request(&floor));
        let (cache, choice) = (&auto["cache"], &auto["cache"]["auto"]);
        assert_eq!((&choice["outcome"], &cache["backend"]), (&json!("chosen"), &json!("cache_dit")), "{floor}");
        assert_eq!(choice["setting"]["psnr_db"]["p05"], psnr, "{floor}");
        assert_eq!(choice["measured_on"]["pictures"], 3);
        assert_eq!(auto.get("warnings"), None, "{auto}");
        let effective = json!({"cache_backend": cache["backend"], "cache_config": cache["config"]});
        let again = server.generate(&request(&effective));
        assert_eq!(Picture::of(&again, 0), Picture::of(&auto, 0));
        let mut told = cache.clone();
        told.as_object_mut().unwrap().remove("auto");
        assert_eq!(again["cache"], told);
    }
    assert_eq!(server.metric("afterimage_cache_auto_total", &["outcome=\"chosen\""]), 7.0);
}

#[test]
fn without_a_fitting_measurement_there_is_no_cache_and_the_answer_says_so() {
    let (_folder, model) = model_with(&profile());
    let server = serve(&model, &["--cache-backend", "auto", "--cache-config", r#"{"min_psnr": 28}"#]);
    let plain = server.generate(&request(&json!({"cache_backend": "none"})));
    for (more, outcome, words) in [
        (json!({"num_inference_steps": 7}), "no_case", "nothing for DDIMScheduler at 7 steps with guidance"),
        (json!({"scheduler": "DDPMScheduler"}), "no_case", "it knows DDIMScheduler at 6 steps with guidance"),
        (json!({"guidance_scale": 1}), "no_case", "without guidance"),
        (json!({"cache_config": {"min_psnr": 31.5}}), "floor_not_held", "holds 31.5 dB"),
    ] {
        let answer = server.generate(&request(&more));
        let cache = &answer["cache"];
        assert_eq!((&cache["backend"], &cache["hit_rate"]), (&json!("none"), &json!(0.0)), "{more}");
        assert_eq!((&cache["auto"]["outcome"], &cache["auto"]["setting"]), (&json!(outcome), &Value::Null));
        assert_eq!(answer["warnings"][0]["code"], "auto_uncached");
        assert!(answer["warnings"][0]["message"].as_str().unwrap().contains(words), "{answer}");
        if outcome == "floor_not_held" {
            assert_eq!(Picture::of(&answer, 0), Picture::of(&plain, 0));
        }
    }
    assert_eq!(server.metric("afterimage_cache_auto_total", &["outcome=\"no_case\""]), 3.0);
    let mut unnamed = request(&json!({}));
    unnamed.as_object_mut().unwrap().remove("cache_backend");
    let answer = server.generate(&unnamed);
    assert_eq!(answer["cache"]["auto"]["setting"]["psnr_db"]["p05"], 31.0, "the server's own floor is 28 dB");
    assert_eq!(answer["cache"]["auto"]["floor"], json!({"min_psnr": 28.0}));
    let other = server.generate(&request(&json!({"guidance_scale": 7})));
    assert_eq!(other["cache"]["auto"]["outcome"], "chosen");
    assert_eq!(other["warnings"][0]["code"], "auto_measured_otherwise");
}

#[test]
fn a_setting_is_chosen_that_was_measured_in_the_precision_of_the_model() {
    let mut profile = profile();
    let mut case = profile["cases"][0].clone();
    case["measured_on"]["dtype"] = json!("bf16");
    case["settings"].as_array_mut().unwrap().remove(0);
    profile["cases"].as_array_mut().unwrap().push(case);
    let (_folder, model) = model_with(&profile);
    for (dtype, psnr) in [("f32", 25.5), ("bf16", 31.0)] {
        let answer = serve(&model, &["--dtype", dtype]).generate(&request(&json!({"cache_config": {"min_psnr": 20}})));
        let choice = &answer["cache"]["auto"];
        assert_eq!((&choice["outcome"], &choice["measured_on"]["dtype"]), (&json!("chosen"), &json!(dtype)));
        assert_eq!(choice["setting"]["psnr_db"]["p05"], psnr, "{dtype}");
        assert_eq!(answer.get("warnings"), None, "{answer}");
    }
}

#[test]
fn the_model_card_has_the_profile_without_its_prompts() {
    let (_folder, model) = model_with(&profile());
    let server = serve(&model, &["--cache-backend", "auto"]);
    let body = server.get("/v1/models").json();
    let card = &body["data"][0];
    let case = &card["cache_profile"]["cases"][0];
    assert_eq!((&case["num_inference_steps"], &case["settings"][1]["speedup"]), (&json!(6), &json!(1.5)));
    assert!(!body.to_string().contains("a secret"));
    assert_eq!(card["defaults"]["cache_backend"], "auto");
    let auto = card["caches"].as_array().unwrap().iter().find(|cache| cache["backend"] == "auto").unwrap();
    assert_eq!((&auto["config"], &auto["fault"]), (&json!({"min_psnr": 30.0}), &Value::Null));
}

#[test]
fn a_profile_that_the_model_cannot_run_is_named_by_its_key() {
    let mut unfit = profile();
    unfit["cases"][0]["settings"][1]["cache_config"] = json!({"Fn_compute_blocks": 99});
    let mut typo = profile();
    typo["cases"][0]["settings"][0]["cache_config"] = json!({"Fn_compute_block": 1});
    for (profile, key) in [
        (unfit, "cache_profile.json: `cases[0].settings[1].cache_config.Fn_compute_blocks`"),
        (typo, "cache_profile.json: `cases[0].settings[0]`: `cache_config.Fn_compute_block`"),
        (json!({"version": 2}), "cache_profile.json: `version`: it is 2; this program reads 1"),
    ] {
        let (folder, model) = model_with(&profile);
        let output = folder.path().join("a.png");
        let (code, _, stderr) = run(&[
            "generate",
            "class:1",
            "--steps",
            "1",
            "--model",
            model.to_str().unwrap(),
            "--output",
            output.to_str().unwrap(),
        ]);
        assert!(code == 1 && stderr.contains(key), "{code}: {stderr}");
    }
}

#[test]
fn the_command_line_chooses_too() {
    let (folder, model) = model_with(&profile());
    let output = folder.path().join("{seed}.png");
    let common = ["generate", "class:3", "--seed", "5", "--model", model.to_str().unwrap(), "--cache-backend", "auto"];
    let case = ["--scheduler", "DDIMScheduler", "--output", output.to_str().unwrap()];
    let (code, stdout, stderr) = run(&[&common[..], &case, &["--steps", "6"]].concat());
    assert!(code == 0 && stdout.contains("auto     at least 30 dB: measured 1.50 times faster"), "{stdout}{stderr}");
    let (code, stdout, stderr) = run(&[&common[..], &case, &["--steps", "7"]].concat());
    assert!(code == 0 && stdout.contains("cache    none") && stderr.contains("auto_uncached"), "{stdout}{stderr}");
    let (code, _, stderr) = run(&[&common[..], &["--cache-config", r#"{"min_psnr": 300}"#]].concat());
    assert!(code == 2 && stderr.contains("--cache-config: `min_psnr` is 300"), "{stderr}");
}
