//! An answer until its client has it, and how that is counted: a picture that nobody took is no success.

use axum::response::Response;

use super::accepted::{Deadline, Guards};
use crate::api::error::ApiError;
use crate::api::request_log::generation::GenerationRecord;
use crate::connections::receipt;

/// An answer that is made or sent. Dropped, it was given up: its client has left, or was out of time.
pub(super) struct Underway {
    pub(super) deadline: Option<Deadline>,
    /// Taken at its end.
    record: Option<GenerationRecord>,
    _guards: Guards,
}

impl Underway {
    pub(super) fn new(record: GenerationRecord, guards: Guards, deadline: Option<Deadline>) -> Self {
        Self { deadline, record: Some(record), _guards: guards }
    }

    /// Of the request, until it ends.
    pub(super) fn record(&mut self) -> Option<&mut GenerationRecord> {
        self.record.as_mut()
    }

    /// Leaves the rest to the delivery of this response.
    pub(super) fn ends_with(self, response: &mut Response) {
        if let Some(deadline) = self.deadline {
            receipt::deliver_until(response, deadline.at);
        }
        receipt::on_delivery(response, move || self.succeeds());
    }

    pub(super) fn succeeds(mut self) {
        self.ends(Ok(&()));
    }

    /// There is no picture.
    pub(super) fn fails(mut self, error: &ApiError) {
        self.ends(Err(error));
    }

    fn ends(&mut self, answer: Result<&(), &ApiError>) {
        if let Some(record) = self.record.take() {
            record.ends(answer);
        }
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        // Without an end, the record counts as cancelled.
        if let Some(late) = self.deadline.filter(Deadline::is_over) {
            self.ends(Err(&late.error()));
        }
    }
}
