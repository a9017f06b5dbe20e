//! NVIDIA GPUs.
//!
//! candle links programs with the driver's and CUDA's shared libraries, and such a program does not start on a machine
//! that has none. With the feature `link` this crate stands in for them: archives made by the build script define the
//! functions that are called, each of which looks for the real one at its first call. [`require`] tells what is
//! missing, and `open`, of the feature `cuda`, opens a device.

#[cfg(feature = "cuda")]
mod device;
#[cfg(feature = "cuda")]
mod graph;
mod library;
mod search;
#[cfg(any(feature = "cuda", test))]
mod unfit;

#[cfg(feature = "cuda")]
pub use device::{OpenError, free_and_all_memory, give_back_freed_memory, open};
#[cfg(feature = "cuda")]
pub use graph::{Graph, small_uploads_are_kept};
pub use library::Library;
pub use search::{MissingLibrary, require};
#[cfg(any(feature = "cuda", test))]
pub use unfit::Unfit;
