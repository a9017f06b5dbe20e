//! What a handler holds, or wants to hear of, until its answer has been delivered: an extension of the response.
//!
//! An answer is delivered when all of it is with the operating system on a connection that still stands. What was
//! attached is run then, and dropped without being run if the client leaves before, or is no longer waited for.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::response::Response;

/// What is attached to one answer.
#[derive(Clone, Default)]
struct Receipt(Arc<Mutex<Terms>>);

/// What becomes of an answer.
#[derive(Default)]
pub(super) struct Terms {
    pub(super) on_delivery: Vec<Box<dyn FnOnce() + Send>>,
    /// The answer is cut if it has not been taken by then.
    pub(super) deadline: Option<Instant>,
}

/// Runs `action` once the answer is delivered.
pub(crate) fn on_delivery(response: &mut Response, action: impl FnOnce() + Send + 'static) {
    change(response, |terms| terms.on_delivery.push(Box::new(action)));
}

/// Holds `guard` until the answer is delivered, or will never be.
pub(crate) fn hold(response: &mut Response, guard: impl Send + 'static) {
    on_delivery(response, move || drop(guard));
}

/// The client has until then to take the answer.
pub(crate) fn deliver_until(response: &mut Response, deadline: Instant) {
    change(response, |terms| terms.deadline = Some(deadline));
}

/// Takes what was attached.
pub(super) fn take(response: &mut Response) -> Terms {
    let receipt = response.extensions_mut().remove::<Receipt>();
    receipt.map(|receipt| receipt.with(std::mem::take)).unwrap_or_default()
}

fn change(response: &mut Response, change: impl FnOnce(&mut Terms)) {
    response.extensions_mut().get_or_insert_default::<Receipt>().with(change);
}

impl Receipt {
    fn with<T>(&self, work: impl FnOnce(&mut Terms) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
