//! The part of the server that reads requests, compiled here once more: a program cannot be linked.

#![allow(dead_code, unused_imports, unreachable_pub, reason = "the rest of the server uses it")]

mod image_file;
#[path = "../../crates/server/src/request/mod.rs"]
mod request;

/// The body of a request.
pub fn request_body(bytes: &[u8]) {
    request::fuzz::request_body(bytes);
}
