//! What a client gets for its pictures: files, in base64, as URLs or as they are ([`output`], [`picture_file`]), and what
//! is said of them, in one body ([`response`]) or in the events of a stream ([`events`]).
//!
//! Nothing here asks the engine for anything: it is made from a finished request. What many clients may ask for is never
//! copied for each: [`pieces`] are shared, and a [`stored_file`] is read as it is taken.

mod cache;
pub(super) mod events;
pub(super) mod output;
pub(super) mod picture_file;
pub(super) mod pieces;
pub(super) mod response;
pub(super) mod stored_file;
mod warning;
