//! What stands before the handlers, as one thing: the rules, and what every client has used of its bounds.

use std::num::NonZeroU32;
use std::sync::Arc;

use axum::http::HeaderValue;

use super::client_limits::{ClientBounds, ClientLimits};
use super::cors::AllowedOrigin;
use super::failed_keys::FailedKeys;
use super::hosts::{self, Hosts};
use super::open_requests::OpenRequests;
use super::page_check::Origins;
use super::rules::Access;
use crate::api::state::AppState;

/// Settings of access that hold for the server's life.
#[derive(Debug, Default)]
pub(crate) struct AccessSettings {
    pub(crate) access: Access,
    pub(crate) client_bounds: ClientBounds,
    /// Requests of one client in flight, of whatever kind; `None` is no bound.
    pub(crate) max_open: Option<NonZeroU32>,
    pub(crate) allowed_origins: Vec<AllowedOrigin>,
    /// Keys that can be guessed are taken wherever the server is reached from.
    pub(crate) allows_short_keys: bool,
    /// The address that the server listens on, as it was named, if only this machine reaches it.
    pub(crate) local_host: Option<String>,
}

/// What stands before the handlers: the rules, and what every client has used of its bounds.
pub(in crate::api) struct Gate {
    pub(super) access: Access,
    pub(super) hosts: Hosts,
    pub(super) origins: Origins,
    pub(super) failed_keys: FailedKeys,
    pub(super) client_limits: ClientLimits,
    pub(super) open_requests: OpenRequests,
    /// Whose metrics count a refusal, and whose engine knows when a client may come back.
    pub(super) state: Arc<AppState>,
}

impl Gate {
    pub(in crate::api) fn new(settings: &AccessSettings, state: Arc<AppState>) -> Self {
        // The server's own pages are of this origin, whatever a proxy makes of the request's host.
        let public = state.settings.public_url.as_ref().map(|url| AllowedOrigin::Origin(url.origin()));
        let allowed: Option<Vec<_>> =
            settings.allowed_origins.iter().cloned().chain(public).map(AllowedOrigin::one).collect();
        Self {
            hosts: hosts(settings, allowed.as_deref()),
            access: settings.access.clone(),
            origins: Origins { allowed },
            failed_keys: FailedKeys::default(),
            client_limits: ClientLimits::new(settings.client_bounds),
            open_requests: OpenRequests::new(settings.max_open.unwrap_or(NonZeroU32::MAX)),
            state,
        }
    }
}

/// Keys protect a server that has some, and one that others reach cannot know its names.
fn hosts(settings: &AccessSettings, allowed: Option<&[HeaderValue]>) -> Hosts {
    let (Some(local), Some(allowed), true) = (&settings.local_host, allowed, settings.access.keys.is_empty()) else {
        return Hosts::Any;
    };
    let origins = allowed.iter().filter_map(|origin| origin.to_str().ok());
    Hosts::ThisMachineAnd(origins.chain([local.as_str()]).filter_map(hosts::name).collect())
}
