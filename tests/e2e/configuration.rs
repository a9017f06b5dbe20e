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
        "`workers.max-batch-rows` in FILE, line 2: it is `0`: it must be an integer from 1 to 4096",
    );
    assert_refused(
        "",
        &[("AFTERIMAGE_MAX_BATCH_ROWS", "0")],
        "AFTERIMAGE_MAX_BATCH_ROWS: it is `0`: it must be an integer from 1 to 4096",
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
fn a_number_that_would_fail_later_is_refused_with_its_range() {
    for (key, value, range) in [
        ("header-timeout", "9.3e18", "at most 1000000000"),
        ("body-timeout", "0", "above 0"),
        ("request-timeout", "1e300", "at most 1000000000"),
        ("job-retention", "inf", "at most 1000000000"),
        ("max-queued-seconds", "1e10", "at most 1000000000"),
        ("drain-timeout", "18446744073709551615", "from 0 to 1000000000"),
        ("output-max-age", "18446744073709551615", "from 1 to 1000000000"),
        ("output-max-bytes", "0", "from 1 to"),
        ("max-batch-rows", "18446744073709551615", "from 1 to 4096"),
        ("max-queued-requests", "1000000000000", "from 1 to 65536"),
        ("max-jobs", "0", "from 1 to 65536"),
        ("max-connections", "18446744073709551615", "from 1 to 1048576"),
        ("max-prompt-chars", "0", "from 1 to"),
        ("max-body-bytes", "0", "from 1 to 1073741824"),
        ("max-pixels", "0", "from 1 to"),
        ("quality-sample-rate", "1.01", "from 0 to 1"),
        ("quality-sample-rate", "-0.5", "from 0 to 1"),
    ] {
        let flag = format!("--{key}");
        let output = Command::new(PROGRAM).args(["serve", "--print-config", &flag, value]).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{flag} {value}: {stderr}");
        assert!(stderr.starts_with(&format!("error: {flag}: it is `{value}`: ")) && stderr.contains(range), "{stderr}");
    }
}

#[test]
fn variables_of_a_kubernetes_service_are_no_settings() {
    let of_service = [
        ("AFTERIMAGE_PORT", "tcp://10.96.0.7:8080"),
        ("AFTERIMAGE_PORT_8080_TCP", "tcp://10.96.0.7:8080"),
        ("AFTERIMAGE_PORT_8080_TCP_ADDR", "10.96.0.7"),
        ("AFTERIMAGE_SERVICE_HOST", "10.96.0.7"),
        ("AFTERIMAGE_SERVICE_PORT_HTTP", "8080"),
    ];
    let print = |variables: &[(&str, &str)], file: &str| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("afterimage.toml");
        std::fs::write(&path, file).unwrap();
        let mut command = Command::new(PROGRAM);
        command.args(["serve", "--print-config", "--config", path.to_str().unwrap()]);
        let output = command.envs(of_service).envs(variables.iter().copied()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        assert!(output.status.success(), "{output:?}");
        (text(output.stdout).replace(path.to_str().unwrap(), "FILE"), text(output.stderr))
    };
    let (stdout, stderr) = print(&[], "");
    assert!(stdout.contains("\nport = 8080 # default\n"), "{stdout}");
    let lines: Vec<_> = stderr.lines().collect();
    assert!(lines.len() == 1 && lines[0].starts_with("warning: ") && lines[0].contains("Kubernetes"), "{stderr}");
    assert!(of_service.iter().all(|(name, _)| lines[0].contains(name)), "{stderr}");
    // The file's value holds, and so does a container's own variable.
    assert!(print(&[], "port = 9000").0.contains("\nport = 9000 # `port` in FILE, line 1\n"));
    assert!(print(&[("AFTERIMAGE_PORT", "9001")], "").0.contains("\nport = 9001 # AFTERIMAGE_PORT\n"));

    let server = Server::with_key(None, &["--port", "0"], |command| {
        command.envs(of_service);
    });
    assert_eq!(server.get("/health").status, 200);
}

#[test]
fn variables_that_no_setting_has_are_named_once() {
    let variables = [("AFTERIMAGE_MODLE", "sk-secret"), ("AFTERIMAGE_STEPS", "4"), ("AFTERIMAGE_PROT", "9000")];
    let (code, _, stderr) = serve("", &variables, &["--print-config"]);
    assert_eq!(code, 0);
    assert_eq!(
        stderr,
        "warning: variables that are no settings are ignored: AFTERIMAGE_MODLE (did you mean AFTERIMAGE_MODEL?), \
         AFTERIMAGE_PROT (did you mean AFTERIMAGE_PORT?)\n"
    );
    // A command that makes no server looks at its own.
    let mut generate = Command::new(PROGRAM);
    generate.args(["generate", "red apple", "--steps", "1", "-o", "-"]).env("AFTERIMAGE_SIZES", "64x64");
    let output = generate.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && stderr.contains("AFTERIMAGE_SIZES (did you mean AFTERIMAGE_SIZE?)"), "{stderr}");
}

#[test]
#[cfg(not(feature = "otlp"))]
fn a_build_without_spans_says_so() {
    let message = "it has no effect: this program was built without the feature `otlp`";
    assert_refused(
        "otlp-endpoint = \"http://127.0.0.1:4318\"",
        &[],
        &format!("`otlp-endpoint` in FILE, line 1: {message}"),
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
