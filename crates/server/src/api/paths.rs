//! Paths that are named in more than one place. Each path also stands at its handler, which puts it into the router and
//! into the API's description.

pub(super) const JOBS: &str = "/v1/images/jobs";
pub(super) const SWEEPS: &str = "/v1/cache/sweeps";
/// Under it stored pictures are served.
pub(super) const FILES: &str = "/v1/images/files";
