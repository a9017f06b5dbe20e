//! `bench`: what it refuses, counts and writes, and what an interruption leaves.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::server::PROGRAM;

/// Exit code, standard output and standard error of a run.
fn bench(arguments: &[&str]) -> (i32, String, String) {
    let output = Command::new(PROGRAM).arg("bench").args(arguments).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn file(folder: &tempfile::TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

const SETTINGS: &str = "[[setting]]\nname = \"always\"\ncache_backend = \"cache_dit\"\n\
    cache_config = { residual_diff_threshold = 1.0, max_warmup_steps = 2 }\n\n\
    [[setting]]\nname = \"never\"\ncache_backend = \"cache_dit\"\ncache_config = { residual_diff_threshold = 0 }\n";

#[test]
fn counts_are_the_same_every_time() {
    let folder = tempfile::tempdir().unwrap();
    let (configs, prompts) = (file(&folder, "c.toml", SETTINGS), file(&folder, "p.txt", "rocket\n"));
    let (csv, html) = (folder.path().join("r.csv"), folder.path().join("r.html"));
    let mut arguments = vec!["--count", "--configs", &configs, "--prompts", &prompts, "--steps", "6", "--json", "-"];
    let (code, first, table) = bench(&arguments);
    assert_eq!(code, 0, "{table}");
    assert!(table.contains("forwards") && table.contains("always"), "{table}");
    arguments.extend(["--csv", csv.to_str().unwrap(), "--html", html.to_str().unwrap()]);
    assert_eq!(bench(&arguments).1, first);
    let report: Value = serde_json::from_str(&first).unwrap();
    assert_eq!((&report["steps"], &report["prompts"], &report["seeds"]), (&json!(6), &json!(["rocket"]), &json!([42])));
    let rows = report["rows"].as_array().unwrap();
    // Of 12 blocks: all in two steps; three of four are reused in a row, with the first block computed.
    let executed: Vec<_> =
        rows.iter().map(|row| (row["executed_blocks"].as_u64(), row["cached_steps"].as_u64())).collect();
    assert_eq!(executed, [(Some(72), Some(0)), (Some(39), Some(3)), (Some(72), Some(0))]);
    assert_eq!(
        (&rows[0]["cache_backend"], &rows[1]["seconds"], &rows[1]["psnr_db"]),
        (&json!("none"), &json!(null), &json!(null))
    );
    assert_eq!(std::fs::read_to_string(csv).unwrap().lines().count(), 4);
    assert!(std::fs::read_to_string(html).unwrap().contains("data:image/png;base64,"));
}

#[test]
fn what_cannot_be_measured_is_refused_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |text: &str, named: &[&str]| {
        let (code, stdout, stderr) = bench(&["--configs", &file(&folder, "c.toml", text), "--steps", "4"]);
        assert_eq!((code, &*stdout), (2, ""), "{stderr}");
        assert!(stderr.starts_with("error: --configs: ") && named.iter().all(|word| stderr.contains(word)), "{stderr}");
    };
    refused(&SETTINGS.replace("warmup_steps", "warmup_step"), &["line 4", "max_warmup_step"]);
    refused(&SETTINGS.replace("\"always\"", "\"always"), &["line 2"]);
    // Known only once the model is.
    refused(&SETTINGS.replace("= 0 }", "= 0, Fn_compute_blocks = 13 }"), &["line 9", "never", "12 blocks"]);
    refused(&SETTINGS.replace("\"never\"", "\"uncached\""), &["`uncached`", "already"]);
    for (arguments, named) in [
        (["--json", ""], "--json: it is empty"),
        (["--seeds", "1,x"], "--seeds"),
        (["--repeat", "0"], "--repeat"),
        (["--steps", "201"], "--steps"),
        (["--guidance-scale", "nan"], "--guidance-scale"),
        (["--guidance-scale", "-1"], "--guidance-scale"),
        (["--preset", "fastest"], "--preset"),
        (["--prompts", "/nowhere"], "--prompts"),
        (["--html", "/proc/a.html"], "/proc/a.html"),
    ] {
        let (code, _, stderr) = bench(&arguments);
        assert_eq!(code, if named == "/proc/a.html" { 1 } else { 2 }, "{stderr}");
        assert!(stderr.contains(named), "{stderr}");
    }
}

#[test]
fn no_report_is_lost_without_a_word() {
    let folder = tempfile::tempdir().unwrap();
    let configs = file(&folder, "c.toml", SETTINGS);
    let report = folder.path().join("r");
    let report = report.to_str().unwrap();
    let same = bench(&["--count", "--configs", &configs, "--json", report, "--csv", report]);
    assert_eq!(same.0, 2, "{}", same.2);
    assert!(same.2.contains("--csv: --json has that file already"), "{}", same.2);
    let input = bench(&["--count", "--configs", &configs, "--html", &configs]);
    assert_eq!(input.0, 2, "{}", input.2);
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let arguments = ["bench", "--count", "--steps", "4", "--configs", &configs, "--json", "-", "--csv", report];
    let failed = Command::new(PROGRAM).args(arguments).stdout(full).output().unwrap();
    assert_eq!(failed.status.code(), Some(1));
    assert!(String::from_utf8(failed.stderr).unwrap().contains("cannot write standard output"));
    assert!(std::fs::read_to_string(report).unwrap().contains("uncached"), "the other report is written");
}

#[test]
fn an_interruption_keeps_the_rows_that_are_done() {
    let folder = tempfile::tempdir().unwrap();
    let json_path = folder.path().join("r.json");
    let configs = file(&folder, "c.toml", SETTINGS);
    let mut program = Command::new(PROGRAM)
        .args(["bench", "--configs", &configs, "--steps", "4", "--repeat", "1000", "--log-filter", "info", "--json"])
        .arg(&json_path)
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(program.stderr.take().unwrap()).lines().map(Result::unwrap);
    assert!(lines.any(|line| line.contains("a setting had its turn") && line.contains("always")));
    let interrupted = Command::new("kill").args(["-INT", &program.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    let said: Vec<_> = lines.collect();
    let output = program.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let last = said.last().unwrap();
    assert!(last.starts_with("error: interrupted; ") && last.contains("rows that were done are kept"), "{last}");
    let report: Value = serde_json::from_str(&std::fs::read_to_string(json_path).unwrap()).unwrap();
    assert_eq!(report["complete"], json!(false));
    let rows = report["rows"].as_array().unwrap();
    assert!(rows.len() >= 2 && rows[1]["seconds"].is_f64(), "{rows:?}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("uncached"));
}
