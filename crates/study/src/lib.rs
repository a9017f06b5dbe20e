//! What caching costs and brings on a model: settings against uncached pictures, in seconds and in likeness.
//!
//! The command line, the server and tests use it; it knows no HTTP.

pub mod likeness;
