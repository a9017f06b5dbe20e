//! What a client gets for its pictures: files, in base64, as URLs or as they are ([`output`], [`picture_file`]), and what
//! is said of them, in one body ([`response`]) or in the events of a stream ([`events`]).
//!
//! Nothing here waits or asks the engine for anything: it is made from a finished request.

pub(super) mod events;
pub(super) mod output;
pub(super) mod picture_file;
pub(super) mod response;
mod warning;
