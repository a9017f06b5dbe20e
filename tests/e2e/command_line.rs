//! `serve` that refuses to start, `generate` and `random-model`.

use std::process::Command;

use serde_json::json;

use crate::picture::Picture;
use crate::server::{PROGRAM, Server, shared};

/// Exit code, standard output and standard error of a run.
fn run(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(PROGRAM).args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A run that must end with `code` and one line of error with all of `named` in it.
fn assert_fails(arguments: &[&str], code: i32, named: &[&str]) {
    let (found, _, stderr) = run(arguments);
    assert_eq!(found, code, "{arguments:?}: {stderr}");
    assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
    assert!(stderr.starts_with("error: "), "{stderr}");
    assert!(named.iter().all(|word| stderr.contains(word)), "{arguments:?}: {stderr}");
}

#[test]
fn unusable_cache_settings_keep_a_server_from_starting() {
    let serve = |backend, config, named: &[&str]| {
        let flags =
            ["serve", "--port", "0", "--log-filter", "off", "--cache-backend", backend, "--cache-config", config];
        assert_fails(&flags, 2, &[&["--cache-config"], named].concat());
    };
    serve("cache_dit", "{\"Fn_compute_blocks\": 4", &["not valid JSON"]);
    serve("cache_dit", "[]", &["object"]);
    serve("cache_dit", "{\"Fn_compute_block\": 4}", &["Fn_compute_block"]);
    serve("cache_dit", "{\"Fn_compute_blocks\": 0}", &["Fn_compute_blocks"]);
    serve("cache_dit", "{\"Fn_compute_blocks\": 13}", &["Fn_compute_blocks", "12 blocks"]);
    serve("none", "{}", &["--cache-backend"]);
}

#[test]
fn a_model_that_cannot_be_loaded_ends_the_server() {
    assert_fails(
        &["serve", "--port", "0", "--model", "/nonexistent/model", "--log-filter", "off"],
        1,
        &["/nonexistent/model"],
    );
}

#[test]
fn generate_writes_the_servers_picture() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().to_str().unwrap();
    let flags = ["--seed", "4", "--steps", "12", "--cache-backend", "cache_dit", "-n", "2", "-o", output];
    let (code, stdout, stderr) = run(&[&["generate", "red apple"], &flags[..]].concat());
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("red-apple-4.png") && stdout.contains("red-apple-5.png"), "{stdout}");
    assert!(stdout.contains("DBCache_F1B0_W4I1M0MC3_R0.24") && stdout.contains("P95"), "{stdout}");

    let file = std::fs::read(folder.path().join("red-apple-4.png")).unwrap();
    let response = shared().generate(&json!({
        "prompt": "red apple", "seed": 4, "n": 2, "num_inference_steps": 12, "cache_backend": "cache_dit"
    }));
    assert_eq!(Picture::from_png(&file), Picture::of(&response, 0));
}

#[test]
fn generate_says_in_one_line_what_is_wrong() {
    assert_fails(&["generate", "red aple"], 2, &["prompt", "red apple"]);
    assert_fails(&["generate", "red apple", "--steps", "0"], 2, &["--steps"]);
    assert_fails(&["generate", "red apple", "--size", "128x128"], 2, &["--size", "64x64"]);
    assert_fails(&["generate", "red apple", "-n", "2", "-o", "one.png"], 2, &["--output", "{seed}"]);
    assert_fails(&["generate", "red apple", "-n", "2", "-o", "-"], 2, &["--output", "`-`", "2 images"]);
    assert_fails(&["generate", "red apple", "-o", "a.gif"], 2, &["--output", "a.gif", ".png, .jpg, .jpeg or .webp"]);
    assert_fails(&["generate", "red apple", "-o", "x-{foo}.png"], 2, &["--output", "`{foo}`", "{seed} and {index}"]);
}

#[test]
fn an_output_that_cannot_be_written_is_told_before_the_model_is_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    let in_folder = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (file, picture) = (in_folder("file"), in_folder("folder.png"));
    std::fs::write(&file, "kept").unwrap();
    std::fs::create_dir(folder.path().join("folder.png")).unwrap();
    let fails = |command: &[&str], output: &str, code, named: &[&str]| {
        let flags = ["--model", "/nonexistent/model", "--output", output];
        assert_fails(&[command, &flags].concat(), code, named);
    };
    for output in ["/proc/a.png", &format!("{file}/a.png")] {
        fails(&["generate", "red apple"], output, 1, &["cannot write", output]);
        fails(&["calibrate"], output, 1, &["cannot write", output]);
    }
    fails(&["calibrate"], &picture, 2, &["--output", &picture, "folder", "cache_calibration.json"]);
    fails(&["calibrate"], &file, 2, &["--output", &file, "--overwrite"]);
    fails(&["calibrate", "--overwrite"], &file, 1, &["/nonexistent/model"]);
    fails(
        &["calibrate", "--prompts", "/nonexistent/prompts"],
        &in_folder("new"),
        2,
        &["--prompts", "/nonexistent/prompts"],
    );
    fails(&["calibrate", "--images", "0"], &in_folder("new"), 2, &["--images", "0"]);
    fails(&["calibrate", "--steps", "0"], &in_folder("new"), 2, &["--steps", "0"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "kept");
    assert!(!folder.path().join("new").exists());
}

#[test]
fn an_earlier_picture_stays_unless_it_may_be_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().to_str().unwrap();
    let generate = |flags: &[&str]| {
        let all = [&["generate", "red apple", "--seed", "4", "-o", output], flags].concat();
        let (code, stdout, stderr) = run(&all);
        assert_eq!(code, 0, "{stderr}");
        stdout
    };
    let read = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert!(generate(&["--steps", "1"]).contains("red-apple-4.png"));
    let first = read("red-apple-4.png");
    let stdout = generate(&["--steps", "2"]);
    assert!(stdout.contains("red-apple-4-2.png") && !stdout.contains("red-apple-4.png"), "{stdout}");
    assert!(read("red-apple-4.png") == first && read("red-apple-4-2.png") != first);
    let stdout = generate(&["--steps", "2", "--overwrite"]);
    assert!(stdout.contains("red-apple-4.png"), "{stdout}");
    assert_eq!(Picture::from_png(&read("red-apple-4.png")), Picture::from_png(&read("red-apple-4-2.png")));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn a_picture_goes_to_standard_output() {
    let output =
        Command::new(PROGRAM).args(["generate", "red apple", "--seed", "4", "--steps", "1", "-o", "-"]).output();
    let output = output.unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && stderr.contains("1 steps"), "{stderr}");
    let response = shared().generate(&json!({"prompt": "red apple", "seed": 4, "num_inference_steps": 1}));
    assert_eq!(Picture::from_png(&output.stdout), Picture::of(&response, 0));
}

#[test]
fn the_version_says_what_was_built() {
    for flag in ["--version", "-V"] {
        let (code, stdout, _) = run(&[flag]);
        let line = stdout.trim_end();
        let head = format!("afterimage {} (commit ", env!("CARGO_PKG_VERSION"));
        let features = if cfg!(feature = "otlp") { "otlp)" } else { "features: none)" };
        assert!(code == 0 && line.starts_with(&head) && line.ends_with(features), "{line}");
    }
}

#[test]
fn a_random_model_can_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("tiny");
    let model = model.to_str().unwrap();
    let (code, _, stderr) = run(&["random-model", "--like", "tiny-dit", "--seed", "3", model]);
    assert_eq!(code, 0, "{stderr}");
    let output = folder.path().join("{index}.png");
    let flags = ["--model", model, "--steps", "2", "--seed", "0", "--output", output.to_str().unwrap()];
    let (code, _, stderr) = run(&[&["generate", "class:1"], &flags[..]].concat());
    assert_eq!(code, 0, "{stderr}");
    Picture::from_png(&std::fs::read(folder.path().join("0.png")).unwrap());
}

#[test]
fn a_text_to_image_model_is_calibrated_with_prompts() {
    let folder = tempfile::tempdir().unwrap();
    let fixture = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/pixart-sigma/model");
    let model = folder.path().join("model");
    std::fs::create_dir(&model).unwrap();
    for entry in std::fs::read_dir(fixture).unwrap().map(Result::unwrap) {
        std::os::unix::fs::symlink(entry.path(), model.join(entry.file_name())).unwrap();
    }
    let (model, calibration) = (model.to_str().unwrap(), model.join("cache_calibration.json"));
    let prompts = folder.path().join("prompts.txt");
    std::fs::write(&prompts, "A red apple\n\nA fox in the snow\n").unwrap();

    let calibrate = ["calibrate", "--model", model, "--buckets", "64x64", "--images", "3", "--steps", "8"];
    assert_fails(&calibrate, 2, &["--prompts", "no labels"]);
    let files = ["--prompts", prompts.to_str().unwrap(), "--output", calibration.to_str().unwrap()];
    let (code, _, stderr) = run(&[&calibrate[..], &files].concat());
    assert_eq!(code, 0, "{stderr}");

    let server = Server::start(&["--model", model, "--buckets", "64x64"]);
    let request = json!({"prompt": "a cat", "seed": 1, "num_inference_steps": 8, "cache_backend": "mag_cache"});
    assert_eq!(server.generate(&request)["cache"]["steps"], 8);
}
