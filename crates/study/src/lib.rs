//! What caching costs and brings on a model: settings against uncached pictures, in seconds and in likeness.
//!
//! A [`Grid`] says what is measured: settings over prompts and seeds. [`Study::plan`] checks all of it against a model,
//! [`Study::run`] makes the pictures and hands out a [`Row`] for every setting. Pictures are made by whatever is a [`PictureMaker`]:
//! an engine of one's own, or a running server's. The command line, the server and tests use it; it knows no HTTP.

mod cancellation;
mod error;
#[cfg(any(test, fuzzing))]
pub mod fuzz;
mod grid;
pub mod likeness;
mod maker;
mod measurement;
mod presets;
pub mod profile;
pub mod report;
mod row;
mod setting;
mod study;
pub mod tune;

pub use cancellation::Cancellation;
pub use error::StudyError;
pub use grid::{Grid, Measure};
pub use maker::PictureMaker;
pub use presets::Preset;
pub use row::{PictureRow, Report, Row};
pub use setting::{Published, Setting};
pub use study::{Event, Outcome, Study};
