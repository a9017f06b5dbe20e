//! Defaults < file < environment < flags, and where each value came from.

use std::process::Command;

use serde_json::json;

use crate::server::{PROGRAM, Server};

/// Exit code, standard output and standard error of `serve` with a file, variables and flags.
fn serve(file: &str, variables: &[(&str, &str)], flags: &[&str]) -> (i32, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("afterimage.toml");
    std::fs::write(&path, file).unwrap();
    let mut command = Command::new(PROGRAM);
    command.arg("serve").args(["--port", "0"]).args(flags).env("AFTERIMAGE_CONFIG", &path);
    let output = command.envs(variables.iter().copied()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace(path.to_str().unwrap(), "FILE");
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn assert_refused(file: &str, variables: &[(&str, &str)], message: &str) {
    let (code, stdout, stderr) = serve(file, variables, &[]);
    assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
    assert_eq!(stderr, format!("error: {message}\n"));
}

#[test]
fn each_layer_wins_over_the_one_below() {
    let file = "[limits]\nmax-body-bytes = 1000\nmax-prompt-chars = 100\ndrain-timeout = 1\n";
    let variables = [("AFTERIMAGE_MAX_PROMPT_CHARS", "200"), ("AFTERIMAGE_DRAIN_TIMEOUT", "2")];
    let (code, stdout, stderr) = serve(file, &variables, &["--drain-timeout", "3", "--print-config"]);
    assert_eq!((code, stderr.as_str()), (0, ""));
    for line in [
        "max-queued-requests = 64 # default",
        "max-body-bytes = 1000 # `limits.max-body-bytes` in FILE, line 2",
        "max-prompt-chars = 200 # AFTERIMAGE_MAX_PROMPT_CHARS",
        "drain-timeout = 3 # --drain-timeout",
    ] {
        assert!(stdout.lines().any(|found| found == line), "no {line:?} in {stdout}");
    }
}

#[test]
fn an_error_names_the_layer() {
    assert_refused(
        "[workers]\nmax-batch-rows = 0",
        &[],
        "`workers.max-batch-rows` in FILE, line 2: it is `0`: number would be zero for non-zero type",
    );
    assert_refused(
        "",
        &[("AFTERIMAGE_MAX_BATCH_ROWS", "0")],
        "AFTERIMAGE_MAX_BATCH_ROWS: it is `0`: number would be zero for non-zero type",
    );
    assert_refused(
        "cache-config = {}",
        &[],
        "`cache-config` in FILE, line 1: it has no effect: --cache-backend is `none`; choose another backend",
    );
    assert_refused(
        "cache-backend = \"cache_dit\"",
        &[("AFTERIMAGE_CACHE_CONFIG", "[]")],
        "AFTERIMAGE_CACHE_CONFIG: it is `[]`: this is a list in JSON; it must be an object",
    );
    assert_refused(
        "revision = \"main\"",
        &[],
        "`revision` in FILE, line 1: it has no effect without --model; name the hub model that it is a revision of",
    );
    assert_refused(
        "model = \"org/name\"",
        &[("AFTERIMAGE_VARIANT", "../fp16")],
        "AFTERIMAGE_VARIANT: `../fp16` cannot be part of a file name; right is a name such as `fp16`",
    );
}

#[test]
fn a_server_does_what_its_file_says() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("afterimage.toml");
    let file = "[cache]\ncache-backend = \"cache_dit\"\n[cache.cache-config]\nFn_compute_blocks = 2\n\
                [limits]\nmax-prompt-chars = 9\n";
    std::fs::write(&path, file).unwrap();
    let server = Server::start(&["--config", path.to_str().unwrap()]);
    let response = server.generate(&json!({"prompt": "red apple", "num_inference_steps": 2}));
    assert_eq!(response["cache"]["config"]["Fn_compute_blocks"], 2);
    let response = server.post(json!({"prompt": "red apples"}).to_string().as_bytes());
    assert_eq!((response.status, response.error().0.as_deref()), (400, Some("prompt")));
}

#[test]
fn shells_get_completions() {
    for shell in ["bash", "zsh", "fish"] {
        let output = Command::new(PROGRAM).args(["completions", shell]).output().unwrap();
        let script = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && script.contains("max-batch-rows"), "{shell}: {script}");
    }
}
