//! What may be used of a device's memory, and what goes where.

use std::fs::File;

use serde_json::{Value, json};

use crate::command_line::assert_never_listens;
use crate::server::Server;

/// Room for the model inside the program and a few rows of 64x64, with nothing kept beside them.
const LITTLE: [&str; 6] =
    ["--device-memory-bytes", "60000000", "--cache-memory-bytes", "1000000", "--prompt-cache-bytes", "0"];

#[test]
fn a_server_that_would_need_more_than_it_may_use_does_not_start() {
    let with = |flags: &[&'static str]| [&LITTLE[..], flags].concat();
    assert_never_listens(
        &with(&["--max-batch-rows", "4096"]),
        2,
        &[
            "--max-batch-rows: 4096 rows of 64x64 do not fit into the memory of cpu, ",
            "(of 57.2 MiB: transformer ",
            "vae ",
        ],
    );
    let default_cache = [&LITTLE[..2], &["--prompt-cache-bytes", "0"]].concat();
    assert_never_listens(
        &default_cache,
        2,
        &[
            "--device-memory-bytes: the model does not fit into so much of cpu (of 57.2 MiB: ",
            "cache state up to 2.0 GiB",
            "raise it, or lower --cache-memory-bytes",
        ],
    );
    assert_never_listens(&["--device-memory-bytes", "0"], 2, &["--device-memory-bytes", "from 1 to"]);
}

#[test]
fn rows_become_as_many_as_fit_and_the_log_says_what_goes_where() {
    let log = tempfile::NamedTempFile::new().unwrap();
    let server = Server::with_key(None, &LITTLE, |command| {
        command.env("AFTERIMAGE_LOG_FORMAT", "json").stderr(File::create(log.path()).unwrap());
        command.args(["--log-filter", "info"]);
    });
    let request = json!({"prompt": "red apple", "seed": 1, "num_inference_steps": 6, "n": 8, "size": "64x64"});
    let pictures = server.generate(&request)["data"].as_array().unwrap().len();
    assert_eq!(pictures, 8);
    let text = std::fs::read_to_string(log.path()).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let line = lines.filter(|line| line["device"] == "cpu").find_map(|line| Some(line["message"].as_str()?.to_owned()));
    let line = line.unwrap();
    assert!(
        line.starts_with("memory of 57.2 MiB: transformer ") && line.contains("cache state up to 976.6 KiB"),
        "{line}"
    );
    let rows: usize = line.split(" rows of 64x64").next().unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    assert!((2..32).contains(&rows), "{line}");
    let forwards = |rows: usize| server.metric("afterimage_forwards_total", &[&format!("rows=\"{rows}\"")]);
    // Images under guidance have two rows each.
    assert!(forwards(rows / 2 * 2) > 0.0 && (rows + 1..33).all(|more| forwards(more) == 0.0), "{line}");
}
