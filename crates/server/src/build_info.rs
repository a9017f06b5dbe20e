//! What this program was built from. `build.rs` finds commit and features out.

/// The version of the release.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The first digits of the commit; `unknown` for a build from an archive that was not told.
pub(crate) const COMMIT: &str = env!("BUILD_COMMIT");
/// Names of cargo features with commas between them, or `none`.
pub(crate) const FEATURES: &str = env!("BUILD_FEATURES");
/// All of it, as `--version` prints it behind the program's name.
pub(crate) const LINE: &str =
    concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("BUILD_COMMIT"), ", features: ", env!("BUILD_FEATURES"), ")");
