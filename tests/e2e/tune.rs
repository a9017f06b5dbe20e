//! `afterimage tune`: what it finds, where it leaves it, and that a server takes it from there.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::command_line::run;
use crate::server::Server;

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/models/f32-safetensors");

/// A small model in a folder that can be written to, and a file with prompts.
fn model() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("model");
    std::fs::create_dir(&model).unwrap();
    for entry in std::fs::read_dir(FIXTURE).unwrap() {
        let path = entry.unwrap().path();
        std::os::unix::fs::symlink(&path, model.join(path.file_name().unwrap())).unwrap();
    }
    let prompts = folder.path().join("prompts.txt");
    std::fs::write(&prompts, "0\n1\n2\n3\n").unwrap();
    (folder, model, prompts)
}

#[test]
fn what_is_found_is_what_a_server_takes() {
    let (folder, model, prompts) = model();
    let (model, prompts) = (model.to_str().unwrap(), prompts.to_str().unwrap());
    let json_file = folder.path().join("winner.json");
    let common = ["tune", "--model", model, "--prompts", prompts, "--steps", "8", "--held-out", "4", "--budget", "150"];
    let files = ["--json", json_file.to_str().unwrap(), "-o"];
    let (code, stdout, stderr) = run(&[&common[..], &["--min-psnr", "1", "--repeat", "1"], &files].concat());
    // Tiny pictures take so little time that nothing may be faster; what was compared is kept all the same.
    assert!(code == 0 || stderr.contains("faster than no cache"), "{code}: {stderr}");
    let text = std::fs::read_to_string(format!("{model}/cache_profile.json")).unwrap();
    let profile: Value = serde_json::from_str(&text).unwrap();
    let case = &profile["cases"][0];
    assert_eq!(case["num_inference_steps"], 8);
    assert_eq!(case["measured_on"]["prompts"], json!(["0", "1"]));
    assert_eq!(case["measured_on"]["held_out_prompts"], json!(["2", "3"]));
    assert_eq!(case["measured_on"]["pictures"], 8);
    if code != 0 {
        return;
    }
    let winner: Value = serde_json::from_str(stdout.lines().next().unwrap()).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&std::fs::read(&json_file).unwrap()).unwrap(), winner);
    assert_eq!(winner["held_out"], json!({"pictures": 4, "passed": 4}));
    assert!(winner["psnr_db"]["p05"].as_f64().unwrap() >= 1.0 && winner["speedup"].as_f64().unwrap() > 1.0);
    let toml = stdout.split_once("\n\n").unwrap().1;
    assert!(toml.contains("[cache]\ncache-backend = ") && toml.contains("[cache.cache-config]\n"), "{toml}");

    let config = folder.path().join("server.toml");
    std::fs::write(&config, toml).unwrap();
    let server = Server::start(&["--model", model, "--config", config.to_str().unwrap()]);
    let request =
        |backend: Value| json!({"prompt": "2", "seed": 3, "num_inference_steps": 8, "cache_backend": backend});
    let auto = server.generate(&request(json!("auto")));
    assert_eq!(auto["cache"]["auto"]["outcome"], "chosen");
    assert_eq!(server.generate(&request(Value::Null))["cache"]["backend"], winner["cache_backend"]);
}

#[test]
fn what_cannot_be_searched_is_refused_before_anything_is_made() {
    let (folder, model, prompts) = model();
    let (model, prompts) = (model.to_str().unwrap(), prompts.to_str().unwrap());
    let damaged = folder.path().join("damaged.json");
    std::fs::write(&damaged, r#"{"version": 1, "cases": [{}]}"#).unwrap();
    let single = folder.path().join("single.txt");
    std::fs::write(&single, "1\n").unwrap();
    let refused = |flags: &[&str], named: &[&str]| {
        let (code, _, stderr) = run(&[&["tune", "--model", model], flags].concat());
        assert!(code == 2 && named.iter().all(|word| stderr.contains(word)), "{flags:?}: {code}: {stderr}");
    };
    refused(&["--prompts", prompts], &["--min-psnr", "--min-ssim", "--target-speedup"]);
    refused(&["--min-psnr", "100"], &["--min-psnr", "0 to 99"]);
    refused(&["--min-psnr", "30", "--target-speedup", "2"], &["--target-speedup"]);
    refused(&["--min-psnr", "30", "--prompts", single.to_str().unwrap()], &["--prompts", "two"]);
    refused(&["--min-psnr", "30", "--seeds", "1,x"], &["--seeds"]);
    refused(
        &["--min-psnr", "30", "--prompts", prompts, "-o", damaged.to_str().unwrap()],
        &["--output", "damaged.json", "cases[0]"],
    );
    refused(&["--min-psnr", "30", "--prompts", prompts, "--guidance-scale", "21"], &["--guidance-scale"]);
    let (code, _, stderr) = run(&["tune", "--min-psnr", "30", "-o"]);
    assert!(code == 2 && stderr.contains("--output"), "{code}: {stderr}");
}
