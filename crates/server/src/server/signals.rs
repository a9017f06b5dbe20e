//! The signals that end a server.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::error::ProgramError;

/// SIGTERM (a supervisor), SIGINT (Ctrl-C) and SIGHUP (a terminal that is closed; nothing is read anew).
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

impl Signals {
    pub(super) fn new() -> Result<Self, ProgramError> {
        let listen =
            |kind| signal(kind).map_err(|source| ProgramError::System { what: "cannot listen for signals", source });
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}
