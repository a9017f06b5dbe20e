//! What stands before the handlers, as one thing: the rules, and what every client has used of its bounds.

use std::sync::Arc;

use super::client_limits::{ClientBounds, ClientLimits};
use super::cors::AllowedOrigin;
use super::rules::Access;
use crate::api::state::AppState;

/// Settings of access that hold for the server's life.
#[derive(Debug, Default)]
pub(crate) struct AccessSettings {
    pub(crate) access: Access,
    pub(crate) client_bounds: ClientBounds,
    pub(crate) allowed_origins: Vec<AllowedOrigin>,
}

/// What stands before the handlers: the rules, and what every client has used of its bounds.
pub(in crate::api) struct Gate {
    pub(super) access: Access,
    pub(super) client_limits: ClientLimits,
    /// Whose metrics count a refusal, and whose engine knows when a client may come back.
    pub(super) state: Arc<AppState>,
}

impl Gate {
    pub(in crate::api) fn new(settings: &AccessSettings, state: Arc<AppState>) -> Self {
        Self { access: settings.access.clone(), client_limits: ClientLimits::new(settings.client_bounds), state }
    }
}
