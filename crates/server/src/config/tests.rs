//! Files against the real command line.

use std::path::Path;

use clap::{CommandFactory, FromArgMatches};

use super::*;
use crate::cli::Cli;

/// The settings of `serve` with a file of this text, as `--print-config` prints them, or the error.
fn read(text: &str, flags: &[&str]) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("afterimage.toml");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap();
    let arguments = ["afterimage", "serve", "--config", path].into_iter().chain(flags.iter().copied()).map(Into::into);
    let shown = |text: String| text.replace(path, "FILE");
    match super::read(Cli::command(), &arguments.collect::<Vec<_>>()) {
        Ok((matches, settings)) => {
            Cli::from_arg_matches(&matches).unwrap();
            Ok(shown(settings.to_toml()))
        }
        Err(error) => Err(shown(error.to_string())),
    }
}

#[track_caller]
fn assert_line(printed: &str, line: &str) {
    assert!(printed.lines().any(|found| found == line), "no line {line:?} in\n{printed}");
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    let file = "port = 1\nhost = \"::1\"\n\n[limits]\nmax-body-bytes = 0x10\n";
    let printed = read(file, &["--port", "2"]).unwrap();
    assert_line(&printed, "port = 2 # --port");
    assert_line(&printed, "host = \"::1\" # `host` in FILE, line 2");
    assert_line(&printed, "max-body-bytes = 16 # `limits.max-body-bytes` in FILE, line 5");
    assert_line(&printed, "drain-timeout = 30 # default");
    assert_line(&printed, "# served-model-name is not set");
}

#[test]
fn a_list_replaces_the_list_below_it() {
    let file = "devices = [\"cpu\", \"cpu\"]\nbuckets = [\"64x64\", \"96x64\"]";
    let printed = read(file, &["--buckets", "32x32"]).unwrap();
    assert_line(&printed, "devices = [\"cpu\", \"cpu\"] # `devices` in FILE, line 1");
    assert_line(&printed, "buckets = [\"32x32\"] # --buckets");
    // A set of sizes is named by a number, bare or quoted.
    for set in ["512", "\"512\""] {
        let printed = read(&format!("buckets = [{set}, \"64x64\"]"), &[]).unwrap();
        assert_line(&printed, "buckets = [512, \"64x64\"] # `buckets` in FILE, line 1");
    }
}

#[test]
fn a_cache_configuration_is_a_table_or_json() {
    let keys = "cache-config = '{\"Fn_compute_blocks\":4,\"residual_diff_threshold\":0.12}' # ";
    let table = "[cache]\ncache-backend = \"cache_dit\"\n[cache.cache-config]\nFn_compute_blocks = 4\n\
                 residual_diff_threshold = 0.12";
    assert_line(&read(table, &[]).unwrap(), &format!("{keys}`cache.cache-config` in FILE, line 3"));
    let inline = "cache-config = {Fn_compute_blocks = 4, residual_diff_threshold = 0.12}";
    assert_line(&read(inline, &[]).unwrap(), &format!("{keys}`cache-config` in FILE, line 1"));
    let text = "cache-config = '{\"Fn_compute_blocks\":4,\"residual_diff_threshold\":0.12}'";
    assert_line(&read(text, &[]).unwrap(), &format!("{keys}`cache-config` in FILE, line 1"));
}

#[test]
fn what_is_printed_can_be_read_again() {
    let file = "warmup = true\nserved-model-name = \"007\"\nmodel = 'a \"b\" \\c'\nrequest-timeout = 2.5\n\
                cache-config = {Fn_compute_blocks = 4}";
    let printed = read(file, &["--max-queued-seconds", "1e3"]).unwrap();
    let values = |printed: &str| -> Vec<String> {
        printed.lines().map(|line| line.split(" # ").next().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(values(&read(&printed, &[]).unwrap()), values(&printed));
    assert_line(&printed, "served-model-name = [\"007\"] # `served-model-name` in FILE, line 2");
}

#[test]
fn a_broken_file_says_where() {
    let faults = [
        ("port = 1\nprot = 2", "`prot` in FILE, line 2: there is no such setting; did you mean `port`?"),
        ("[limit]", "`limit` in FILE, line 1: there is no such setting; did you mean `limits`?"),
        ("max_batch_rows = 2", "did you mean `max-batch-rows`?"),
        ("[limits]\nmax-batch-rows = 2", "line 2: this key belongs to the table [workers]"),
        ("[limits]\nport = 2", "line 2: this key belongs to the top of the file"),
        ("warmup = true\n[workers]\nwarmup = true", "`workers.warmup` in FILE, line 3: this is set already: `warmup`"),
        (
            "[workers]\n\nmax-batch-rows = 0",
            "`workers.max-batch-rows` in FILE, line 3: it is `0`: it must be an integer from 1 to 4096",
        ),
        ("dtype = \"f64\"", "`dtype` in FILE, line 1: it is `f64`; it must be one of auto, f32, bf16, f16"),
        ("devices = [\"cpu\", \"tpu\"]", "`devices` in FILE, line 1: it is `tpu`: "),
        ("port = [1, 2]", "line 1: it is an array; it must be a single value"),
        ("[access]\napi-key = []", "`access.api-key` in FILE, line 2: it is an empty list, and without a key"),
        ("devices = []", "`devices` in FILE, line 1: it is an empty list; leave it out for the default"),
        ("port = {a = 1}", "line 1: it is a table; it must be a single value"),
        ("host = 2020-01-01", "line 1: it is a datetime; it must be a single value"),
        ("warmup = 3", "line 1: it is `3`; it must be one of true, false"),
        ("config = \"other.toml\"", "`config` in FILE, line 1: there is no such setting"),
        ("cache-config = '{\"a\": '", "line 1: it is `{\"a\": `: this is not valid JSON"),
        ("cache-config = {a = nan}", "line 1: it is not a finite number"),
        ("port = 99999999999999999999", "line 1: it is not a 64-bit integer"),
        ("a = 1\na = 2", "FILE, line 2: duplicate key"),
    ];
    for (file, fault) in faults {
        let message = read(file, &[]).unwrap_err();
        assert!(message.contains(fault), "{file:?}: {message}");
    }
}

#[test]
fn a_value_that_is_overridden_is_not_looked_at() {
    assert_line(&read("devices = [\"tpu\"]", &["--devices", "cpu"]).unwrap(), "devices = [\"cpu\"] # --devices");
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let arguments = ["afterimage", "serve", "--config", "/nonexistent/a.toml"].map(Into::into);
    let message = super::read(Cli::command(), &arguments).unwrap_err().to_string();
    assert!(message.starts_with("--config /nonexistent/a.toml: the file cannot be read: "), "{message}");
}

#[test]
fn a_value_on_the_line_is_told_in_a_line() {
    let arguments = ["afterimage", "serve", "--max-batch-rows", "0"].map(Into::into);
    let message = super::read(Cli::command(), &arguments).unwrap_err().to_string();
    assert_eq!(message, "--max-batch-rows: it is `0`: it must be an integer from 1 to 4096");
}

#[test]
fn a_syntax_error_shows_no_text_of_the_file() {
    let serve = Cli::command();
    let serve = serve.find_subcommand("serve").unwrap();
    let error = ConfigFile::parse(Path::new("FILE"), "port = 1\nhost = \"sk-secret\n", serve).unwrap_err();
    assert!(error.to_string().starts_with("FILE, line 2: "), "{error}");
    assert!(!error.to_string().contains("secret"), "{error}");
}
