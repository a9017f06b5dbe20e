//! The signals that end a server.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::ProgramError;

/// SIGTERM (a supervisor) and SIGINT (Ctrl-C).
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, ProgramError> {
        let listen =
            |kind| signal(kind).map_err(|source| ProgramError::System { what: "cannot listen for signals", source });
        Ok(Self { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
    }

    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
