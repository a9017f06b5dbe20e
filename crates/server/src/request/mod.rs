//! What JSON, headers and flags may say: from the keys of a body to a request that can be read.
//!
//! The HTTP API and the command line read requests by the same rules, so nothing here knows a server, a status or a
//! terminal: what is wrong is a [`RequestFault`], and each edge says it in its own way.

mod accept;
mod backend_name;
mod cache_defaults;
mod delivery;
mod fault;
mod fields;
mod foreign_fields;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod json;
mod non_finite;
mod output;
mod quality;
mod rules;
mod seed;
#[cfg(test)]
mod tests;

pub(crate) use accept::Accept;
pub(crate) use backend_name::BackendName;
pub(crate) use cache_defaults::{CacheChoice, CacheDefaults, CacheFault};
pub(crate) use delivery::Delivery;
pub(crate) use fault::RequestFault;
pub(crate) use fields::{UnknownFields, quoted};
pub(crate) use json::{kind_of, parse_json, parse_object};
pub(crate) use output::{OutputOptions, ResponseFormat};
pub(crate) use rules::{GenerationRequest, MAX_GUIDANCE_SCALE, MAX_IMAGES, MAX_STEPS, RequestRules, SweepRequest};
