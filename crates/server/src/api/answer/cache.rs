//! What an answer says the cache did, and how it was chosen.

use afterimage_cache::CacheReport;
use afterimage_runner::FinishedRequest;
use serde::Serialize;

use super::output::Output;
use crate::auto_cache::AutoChoice;

/// The report, and beside its keys the choice where there was one.
#[derive(Debug, Serialize)]
pub(in crate::api) struct CacheAnswer<'a> {
    #[serde(flatten)]
    report: &'a CacheReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    auto: Option<&'a AutoChoice>,
}

impl<'a> CacheAnswer<'a> {
    pub(super) fn new(finished: &'a FinishedRequest, output: &'a Output) -> Self {
        Self { report: &finished.cache, auto: output.auto.as_ref() }
    }
}
