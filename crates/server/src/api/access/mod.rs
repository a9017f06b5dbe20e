//! Who may use the API, and how much of it: keys ([`rules`]), bounds per client ([`client_limits`], [`open_requests`])
//! and other people's web pages ([`cors`], [`hosts`]).
//!
//! [`page_check`], [`key_check`] and [`limit_check`] are the middlewares that apply them, in this order: whose request it
//! is must be known before it is counted. What they need stands here and not in the handlers' state, which knows no keys.

mod client;
mod client_limits;
pub(super) mod cors;
mod failed_keys;
mod gate;
mod hosts;
pub(super) mod key_check;
mod keys;
pub(super) mod limit_check;
mod open_requests;
pub(super) mod page_check;
pub(super) mod rules;

pub(super) use client::Client;
pub(crate) use client_limits::ClientBounds;
pub(crate) use cors::AllowedOrigin;
pub(crate) use gate::AccessSettings;
pub(super) use gate::Gate;
pub(crate) use keys::{ApiKeys, MIN_KEY_CHARS};
pub(super) use limit_check::Admitted;
pub(crate) use rules::Access;
