//! Where the pictures of a request are kept, and under which address its client finds them.

use afterimage_runner::Owner;
use axum::http::header::HOST;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Uri};

use crate::api::address::PublicUrl;
use crate::api::answer::output::StoredOutput;
use crate::api::state::AppState;

/// The server as this client calls it: in HTTP/1 by a header, in HTTP/2 by `:authority`, which is part of the URI.
pub(super) fn host(headers: &HeaderMap, uri: &Uri) -> Option<String> {
    let header = headers.get(HOST).and_then(|host| host.to_str().ok());
    header.or(uri.authority().map(Authority::as_str)).map(str::to_owned)
}

/// The store, and its address as this client knows it, if there are both.
pub(super) fn stored_output(state: &AppState, owner: Owner, host: Option<&str>) -> Option<StoredOutput> {
    let store = state.settings.store.clone()?;
    let root_path = &state.settings.root_path;
    let base_url = match &state.settings.public_url {
        Some(url) => url.with_root_path(root_path),
        None => PublicUrl::of_host(host?)?.with_root_path(root_path),
    };
    Some(StoredOutput { store, owner, base_url })
}
