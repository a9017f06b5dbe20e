//! `serve` that refuses to start, `generate` and `random-model`.

use std::process::Command;

use serde_json::json;

use crate::picture::Picture;
use crate::server::{PROGRAM, Server, shared};

/// Exit code, standard output and standard error of a run.
pub(crate) fn run(arguments: &[&str]) -> (i32, String, String) {
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
fn options_of_loading_that_do_not_fit_the_model_name_their_flag() {
    let text_model = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/pixart-sigma/model");
    let generate = |flags: &[&str], named: &[&str]| {
        assert_fails(&[&["generate", "red apple", "--output", "-"], flags].concat(), 2, named);
    };
    generate(&["--buckets", "63x64"], &["--buckets: 63x64", "multiples of"]);
    generate(&["--device", "cuda:63"], &["--device: it is cuda:63", "cpu"]);
    generate(&["--dtype", "f16"], &["--dtype: it is f16", "bf16"]);
    generate(&["--max-sequence-length", "5"], &["--max-sequence-length: it has no effect"]);
    generate(&["--model", text_model, "--max-sequence-length", "0"], &["--max-sequence-length: it is 0", "1 to"]);
}

const SCHEDULER: &str = "scheduler/scheduler_config.json";

/// A model folder that differs from the embedded model in one file, and in the class of its scheduler where that is
/// the file.
fn changed_model(file: &str, change: impl FnOnce(&mut serde_json::Value)) -> tempfile::TempDir {
    let original = std::path::Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/emoji-dit"));
    let folder = tempfile::tempdir().unwrap();
    for part in ["transformer", "vae", "scheduler", "model_index.json"] {
        let (from, to) = (original.join(part), folder.path().join(part));
        if std::path::Path::new(file).starts_with(part) && part != file {
            std::fs::create_dir(&to).unwrap();
        } else if part != file {
            std::os::unix::fs::symlink(&from, &to).unwrap();
        }
    }
    // Published configurations may hold what is not JSON; the key's default is the same.
    let text = std::fs::read_to_string(original.join(file)).unwrap().replace("-Infinity", "null");
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json.as_object_mut().unwrap().retain(|_, value| !value.is_null());
    change(&mut json);
    std::fs::write(folder.path().join(file), json.to_string()).unwrap();
    if file == SCHEDULER {
        // Which decides the class, whatever the scheduler's own configuration says.
        let index = std::fs::read_to_string(original.join("model_index.json")).unwrap();
        let mut index: serde_json::Value = serde_json::from_str(&index).unwrap();
        index["scheduler"][1] = json["_class_name"].clone();
        std::fs::remove_file(folder.path().join("model_index.json")).unwrap();
        std::fs::write(folder.path().join("model_index.json"), index.to_string()).unwrap();
    }
    folder
}

/// A server that must end before it says that it listens.
pub(crate) fn assert_never_listens(flags: &[&str], code: i32, named: &[&str]) {
    let arguments = [&["serve", "--port", "0", "--log-filter", "off"], flags].concat();
    let (_, stdout, _) = run(&arguments);
    assert_eq!(stdout, "", "{flags:?}");
    assert_fails(&arguments, code, named);
}

#[test]
fn a_server_whose_default_requests_would_fail_does_not_start() {
    let class = json!("DPMSolverMultistepScheduler");
    for (key, value, named) in [
        ("use_beta_sigmas", json!(true), "use_beta_sigmas"),
        ("algorithm_type", json!("sde-dpmsolver++"), "algorithm_type"),
        ("num_train_timesteps", json!(20), "num_inference_steps is 50"),
        ("beta_schedule", json!("sigmoid"), "beta_schedule"),
        ("_class_name", json!("PNDMScheduler"), "--scheduler"),
    ] {
        let model = changed_model(SCHEDULER, |config| {
            config["_class_name"] = class.clone();
            config[key] = value;
        });
        assert_never_listens(&["--model", model.path().to_str().unwrap()], 1, &[named]);
    }
    let dit = |key: &str| format!("{{\"{key}\": 28}}");
    let cache = ["--cache-backend", "cache_dit", "--cache-config"];
    assert_never_listens(&[&cache[..], &[&dit("num_inference_steps")]].concat(), 2, &["--cache-config", "28", "50"]);
    assert_never_listens(
        &[&cache[..], &[&dit("Fn_compute_blocks")]].concat(),
        2,
        &["--cache-config", "28", "12 blocks"],
    );
    for flag in ["--transformer", "--text-encoder", "--vae", "--config-from"] {
        assert_never_listens(&[flag, "model.gguf"], 2, &[flag, "it has no effect without --model"]);
    }
    assert_never_listens(&["--max-batch-rows", "1"], 2, &["--max-batch-rows", "2 rows"]);
    assert_never_listens(&["--buckets", "64x64,60x60"], 2, &["--buckets: 60x60"]);
    assert_never_listens(&["--buckets", "128x128", "--max-pixels", "4096"], 2, &["128x128"]);
    assert_never_listens(&["--devices", "cpu,cuda:63"], 2, &["--devices: it is cuda:63"]);
    assert_never_listens(&["--devices", "cuda:63", "--model", "/nonexistent"], 2, &["--devices: it is cuda:63"]);
    assert_never_listens(&["--text-encoder-device", "cuda:63"], 2, &["--text-encoder-device: it is cuda:63"]);
    assert_never_listens(&["--dtype", "f16"], 2, &["--dtype: it is f16", "bf16"]);
    assert_never_listens(&["--devices", "cuda:0", "--quantize", "int8"], 2, &["--quantize", "int8", "cuda:0"]);
    assert_never_listens(&["--quantize", "int4"], 2, &["--quantize", "int4", "int8"]);
    assert_never_listens(&["--scheduler", "FlowMatchEulerDiscreteScheduler"], 2, &["--scheduler", "DDIMScheduler"]);
    assert_never_listens(&["--scheduler", "PNDMScheduler"], 2, &["--scheduler", "PNDMScheduler", "DDIMScheduler"]);
}

#[test]
fn a_scheduler_we_lack_can_be_replaced_for_the_whole_server() {
    let model = changed_model(SCHEDULER, |config| config["_class_name"] = json!("PNDMScheduler"));
    let flags = ["--model", model.path().to_str().unwrap(), "--scheduler", "DPMSolverMultistepScheduler"];
    let server = Server::start(&flags);
    let card = server.get("/v1/models").json()["data"][0].take();
    assert_eq!(card["defaults"]["scheduler"], "DPMSolverMultistepScheduler");
    let ours = server.generate(&json!({"prompt": "red apple", "seed": 1, "num_inference_steps": 8}));
    let theirs = shared().generate(&json!({
        "prompt": "red apple", "seed": 1, "num_inference_steps": 8, "scheduler": "DPMSolverMultistepScheduler"
    }));
    assert_eq!(Picture::of(&ours, 0), Picture::of(&theirs, 0));
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
fn no_error_brings_the_stack_it_came_up_through() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let model = path("tiny");
    assert_eq!(run(&["random-model", "--like", "tiny-dit", &model]).0, 0);
    let (broken, picture) = (path("broken.gguf"), path("x.png"));
    // Version 3, one tensor, no keys; then nothing.
    std::fs::write(&broken, b"GGUF\x03\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xff").unwrap();
    let config = format!("{model}/transformer/config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let assert_one_line = |flags: &[&str]| {
        let arguments = [&["generate", "class:0", "--model", &model, "--output", &picture], flags].concat();
        let output = Command::new(PROGRAM).args(&arguments).env("RUST_BACKTRACE", "1").output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && stderr.starts_with("error: "), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{flags:?}: {stderr}");
    };
    assert_one_line(&["--transformer", &broken]);
    assert_one_line(&["--vae", &broken]);
    assert_one_line(&["--text-encoder", &broken]);
    assert_one_line(&["--config-from", &model]);
    let mut wider: serde_json::Value = serde_json::from_str(&text).unwrap();
    wider["num_attention_heads"] = json!(3);
    std::fs::write(&config, wider.to_string()).unwrap();
    assert_one_line(&[]);
    std::fs::write(&config, text).unwrap();
    std::fs::write(format!("{model}/transformer/diffusion_pytorch_model.safetensors"), "no weights").unwrap();
    assert_one_line(&[]);
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
    assert_fails(&["generate", "red aple", "--label-policy", "exact"], 2, &["prompt", "red apple"]);
    assert_fails(&["generate", "no such thing"], 2, &["prompt", "nearest: "]);
    assert_fails(&["generate", "red apple", "--scheduler", "FlowMatchEulerDiscreteScheduler"], 2, &["--scheduler"]);
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
    fails(&["calibrate"], &picture, 2, &["--output", &picture, "folder", "cache_fit.json"]);
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
    let (model, fit) = (model.to_str().unwrap(), model.join("cache_fit.json"));
    let prompts = folder.path().join("prompts.txt");
    std::fs::write(&prompts, "A red apple\n\nA fox in the snow\n").unwrap();

    let calibrate = ["calibrate", "--model", model, "--buckets", "64x64", "--images", "3", "--steps", "8"];
    assert_fails(&calibrate, 2, &["--prompts", "no labels"]);
    let files = ["--prompts", prompts.to_str().unwrap(), "--output", fit.to_str().unwrap()];
    let (code, _, stderr) = run(&[&calibrate[..], &files].concat());
    assert_eq!(code, 0, "{stderr}");

    let server = Server::start(&["--model", model, "--buckets", "64x64"]);
    let request = json!({"prompt": "a cat", "seed": 1, "num_inference_steps": 8, "cache_backend": "mag_cache"});
    assert_eq!(server.generate(&request)["cache"]["steps"], 8);
}
