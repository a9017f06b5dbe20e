//! A report of three rows, written in every way.

use std::sync::Arc;

use afterimage_cache::report::Recorded;
use afterimage_cache::{ContextReport, Reason};
use afterimage_runner::{RgbImage, Size};
use serde_json::{Map, json};

use super::*;
use crate::likeness::MAX_PSNR_DB;
use crate::row::{PictureRow, Row};
use crate::setting::Published;

const STEPS: usize = 4;

fn row(name: &str, cache_backend: &'static str, seconds: f64, psnr_db: f64, cached: &[usize]) -> Row {
    let context = ContextReport {
        name: "transformer_blocks".to_owned(),
        branch: "all",
        cached_steps: cached.to_vec(),
        residual_diffs: [(1, Recorded::One(-1.0)), (2, Recorded::One(0.05)), (3, Recorded::One(0.2))].into(),
        reasons: (0..STEPS)
            .map(|step| (step, if cached.contains(&step) { Reason::Cached } else { Reason::Warmup }))
            .collect(),
        pruned_blocks: None,
    };
    let picture = PictureRow {
        prompt: "salt & <pepper>".to_owned(),
        seed: 42,
        seconds: Some(seconds),
        hit_rate: cached.len() as f64 / STEPS as f64,
        cached_steps: cached.to_vec(),
        executed_blocks: 12,
        psnr_db: Some(psnr_db),
        ssim: Some(0.98765),
        flip: Some(0.0123),
        image: Some(Arc::new(RgbImage { size: Size { width: 2, height: 1 }, data: vec![7; 6] })),
        contexts: if cache_backend == "none" { Vec::new() } else { vec![context] },
    };
    Row {
        name: name.to_owned(),
        cache_backend,
        cache_config: if cache_backend == "none" {
            Map::new()
        } else {
            Map::from_iter([("residual_diff_threshold".to_owned(), json!(0.12))])
        },
        seconds: Some(seconds),
        total_seconds: Some(seconds + 0.1),
        speedup: Some(1.0 / seconds),
        speedup_bound: 1.25 / seconds,
        hit_rate: picture.hit_rate,
        cached_steps: cached.len() as f64,
        executed_blocks: 12.0,
        forwards: (STEPS - cached.len()) as f64,
        psnr_db: Some(psnr_db),
        psnr_db_min: Some(psnr_db),
        ssim: Some(0.98765),
        ssim_min: Some(0.98765),
        flip: Some(0.0123),
        cache_bytes: if cache_backend == "none" { 0 } else { 196_608 },
        repeats: 3,
        published: None,
        pictures: vec![picture],
    }
}

fn report() -> Report {
    let published = Some(Published { speedup: Some(1.98), cached_steps: Some(12) });
    Report {
        model: "a<b".to_owned(),
        device: "cpu".to_owned(),
        dtype: "f32",
        scheduler: "DDIMScheduler",
        steps: STEPS,
        guidance_scale: 4.0,
        prompts: vec!["salt & <pepper>".to_owned()],
        seeds: vec![42],
        complete: true,
        rows: vec![
            row("uncached", "none", 1.0, MAX_PSNR_DB, &[]),
            Row { published, ..row("DBCache", "cache_dit", 0.5, 31.25, &[2, 3]) },
            row("a name that is longer than most", "tea_cache", 0.8, 28.0, &[2]),
        ],
    }
}

/// Counted only.
fn counted() -> Report {
    let mut report = report();
    for row in &mut report.rows {
        (row.seconds, row.total_seconds, row.speedup, row.published) = (None, None, None, None);
        (row.psnr_db, row.psnr_db_min, row.ssim, row.ssim_min, row.flip) = (None, None, None, None, None);
    }
    report
}

#[test]
fn tables_fit_the_terminal() {
    for report in [report(), counted()] {
        for width in [60, 80, 100, 120, 200] {
            let table = table(&report, Some(width));
            let lengths: Vec<_> = table.lines().map(|line| line.chars().count()).collect();
            assert!(lengths.iter().all(|length| *length == lengths[0] && *length <= width), "{width}\n{table}");
        }
    }
    insta::assert_snapshot!("table", table(&report(), None));
    insta::assert_snapshot!("table_of_80_columns", table(&report(), Some(80)));
    insta::assert_snapshot!("table_of_counts", table(&counted(), Some(80)));
}

#[test]
fn csv_has_a_line_per_row() {
    let text = csv(&report()).unwrap();
    let lines: Vec<_> = text.split_terminator("\r\n").collect();
    assert_eq!((lines.len(), lines[0].split(',').count()), (4, 18));
    assert!(lines[1].starts_with("uncached,none,{},1.0,1.1,1.0,1.25,0.0,0,12,4,99.0,99.0,"), "{}", lines[1]);
    assert!(lines[2].contains("\"{\"\"residual_diff_threshold\"\":0.12}\""), "{}", lines[2]);
}

#[test]
fn json_has_the_keys_that_are_promised() {
    let value: serde_json::Value = serde_json::from_str(&json(&report()).unwrap()).unwrap();
    for key in ["model", "device", "dtype", "scheduler", "steps", "guidance_scale", "prompts", "seeds", "rows"] {
        assert!(value.get(key).is_some(), "{key}");
    }
    let first = &value["rows"][0];
    assert_eq!((&first["cache_backend"], &first["cache_config"]), (&json!("none"), &json!({})));
    assert_eq!(value["rows"][1]["cached_steps"], json!(2));
    assert_eq!(value["rows"][1]["published"], json!({"speedup": 1.98, "cached_steps": 12}));
}

#[test]
fn the_page_needs_nothing_else() {
    for report in [report(), counted()] {
        let page = html(&report, Some("measured elsewhere")).unwrap();
        for foreign in ["http:", "https:", "<script", "<b>salt", "<pepper>", "a<b", "NaN", "inf\"", " style=", "url("] {
            assert!(!page.contains(foreign), "{foreign}");
        }
        assert!(page.contains("salt &amp; &lt;pepper&gt;") && page.contains("measured elsewhere"));
        assert_eq!(page.matches("data:image/png;base64,").count(), 3);
    }
    let page = html(&report(), None).unwrap();
    assert_eq!((page.matches("<svg").count(), page.matches("class=\"reused\"").count()), (4, 3));
    assert!(!page.contains("ended early"));
    assert!(html(&Report { complete: false, ..report() }, None).unwrap().contains("ended early"));
}

#[test]
fn the_front_is_what_nothing_beats() {
    let rows =
        [("0", 1.0, 99.0), ("1", 0.5, 30.0), ("2", 0.4, 25.0), ("3", 0.6, 29.0), ("4", 0.7, 40.0), ("5", 1.1, 60.0)];
    let rows = rows.map(|(name, seconds, psnr_db)| {
        row(name, if name == "0" { "none" } else { "cache_dit" }, seconds, psnr_db, &[])
    });
    assert_eq!(front(&rows, |row| row.psnr_db), [false, true, true, false, true, false]);
}
