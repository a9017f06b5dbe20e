//! A repository whose hub says what a fuzzer likes.

use std::collections::BTreeSet;

use super::address::{Address, is_hash_name, is_of_hub};
use super::client::target;
use super::needed::{Files, Selection, needed_files};
use super::repository::{Info, names_in};
use crate::CheckpointError;
use crate::model_folder::MODEL_INDEX;

const ENDPOINT: &str = "https://huggingface.co";

/// The paths that would be fetched and written, for a list of files, a `model_index.json`, an index of shards and a
/// redirect.
pub(crate) fn needed_paths(answer: &str, index: &str, shards: &str, location: &str) -> Vec<String> {
    let _ = Address::parse(location, ENDPOINT);
    if let Some(url) = target(&format!("{ENDPOINT}/org/name/resolve/main/config.json"), location) {
        is_of_hub(&url, ENDPOINT);
    }
    let Ok(info) = Info::parse(answer) else { return Vec::new() };
    if !is_hash_name(info.sha()) {
        return Vec::new();
    }
    let files = Listed { listing: info.into_listing(), index, shards };
    needed_files(&files, Selection::default()).map_or(Vec::new(), |needed| needed.paths)
}

struct Listed<'a> {
    listing: BTreeSet<String>,
    index: &'a str,
    shards: &'a str,
}

impl Files for Listed<'_> {
    fn has(&self, path: &str) -> bool {
        self.listing.contains(path)
    }

    fn names(&self, folder: &str) -> BTreeSet<String> {
        names_in(&self.listing, folder)
    }

    fn text(&self, path: &str) -> Result<String, CheckpointError> {
        Ok(if path == MODEL_INDEX { self.index } else { self.shards }.to_owned())
    }
}
