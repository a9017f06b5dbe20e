//! A request for pictures as it comes in.

use std::convert::Infallible;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, Uri};

use crate::api::access::{Admitted, Client};

/// Which of the two paths was requested; it decides which fields there are and what they mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::api) enum Endpoint {
    /// Pictures on this connection.
    Generations,
    /// Pictures that are fetched later.
    Jobs,
}

/// A request whose body is still on its way.
pub(in crate::api) struct Incoming {
    pub(in crate::api) client: Client,
    pub(in crate::api) admitted: Admitted,
    pub(in crate::api) head: Head,
    pub(in crate::api) body: Body,
}

/// What comes before a request's body.
pub(in crate::api) struct Head {
    pub(in crate::api) headers: HeaderMap,
    pub(super) uri: Uri,
}

impl<S: Send + Sync> FromRequest<S> for Incoming {
    type Rejection = Infallible;

    async fn from_request(request: Request, _: &S) -> Result<Self, Infallible> {
        let (mut parts, body) = request.into_parts();
        // Taken out, not copied: the client's place is free once its last holder is dropped.
        let admitted = parts.extensions.remove().unwrap_or_default();
        let client = parts.extensions.remove().unwrap_or(Client::Unknown);
        Ok(Self { client, admitted, head: Head { headers: parts.headers, uri: parts.uri }, body })
    }
}
