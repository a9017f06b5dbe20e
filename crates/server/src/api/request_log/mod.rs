//! What is logged about requests: the span that every line of a request belongs to ([`request_id`], [`trace_id`]), a line
//! for each answer ([`answered`]) and one for each generation at its end ([`generation`]).
//!
//! No line has a prompt, a key or the name of a stored picture, but for prompts at the level `debug`.

pub(super) mod answered;
pub(super) mod generation;
pub(super) mod request_id;
mod trace_id;
