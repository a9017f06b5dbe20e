//! Gives the program the commit and the features it is built from: `BUILD_COMMIT` and `BUILD_FEATURES`.
//!
//! The commit is that of the variable `BUILD_COMMIT`, for builds whose sources come without git (a
//! container, an archive), else that of the work tree, else `unknown`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Digits that are kept.
const COMMIT_DIGITS: usize = 12;
/// The features of this crate that change what the program can do.
const FEATURES: [&str; 2] = ["cuda", "otlp"];

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=BUILD_COMMIT");
    // The folder of this package. Not by `env!`: a target folder may have been moved.
    let package = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let commit = given_commit().or_else(|| commit_of_work_tree(&package)).unwrap_or_else(|| "unknown".to_owned());
    println!("cargo::rustc-env=BUILD_COMMIT={commit}");
    let is_on = |feature: &&str| std::env::var_os(format!("CARGO_FEATURE_{}", feature.to_uppercase())).is_some();
    let features: Vec<_> = FEATURES.into_iter().filter(is_on).collect();
    let features = if features.is_empty() { "none".to_owned() } else { features.join(",") };
    println!("cargo::rustc-env=BUILD_FEATURES={features}");
}

fn given_commit() -> Option<String> {
    let commit = std::env::var("BUILD_COMMIT").ok()?;
    let commit = commit.trim();
    let is_usable = !commit.is_empty() && commit.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_usable.then(|| commit.chars().take(COMMIT_DIGITS).collect())
}

/// `None` where the sources lie within the work tree of another repository.
fn commit_of_work_tree(package: &Path) -> Option<String> {
    let git = |arguments: &[&str]| git(package, arguments);
    let top = PathBuf::from(git(&["rev-parse", "--show-toplevel"])?).canonicalize().ok()?;
    if top != package.join("../..").canonicalize().ok()? {
        return None;
    }
    // The second one grows with every commit.
    for file in ["HEAD", "logs/HEAD"] {
        let path = package.join(git(&["rev-parse", "--git-path", file])?);
        if path.exists() {
            println!("cargo::rerun-if-changed={}", path.display());
        }
    }
    git(&["rev-parse", &format!("--short={COMMIT_DIGITS}"), "HEAD"])
}

/// What git prints; `None` where git is missing or prints nothing.
fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").current_dir(folder).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
