//! What this program was built from. `build.rs` finds out commit and features.

/// The version of the release.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The first digits of the commit; `unknown` for a build from an archive without `BUILD_COMMIT`.
pub(crate) const COMMIT: &str = env!("BUILD_COMMIT");
/// Names of cargo features with commas between them, or `none`.
pub(crate) const FEATURES: &str = env!("BUILD_FEATURES");
/// All of it, as `--version` prints it after the program's name.
pub(crate) const LINE: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("BUILD_COMMIT"), ", features: ", env!("BUILD_FEATURES"), ")");
