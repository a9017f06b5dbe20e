//! Ctrl-C and SIGTERM end a study or a search at its next step; a second one ends the program at once.

use std::thread;

use afterimage_study::Cancellation;
use tokio::signal::unix::{SignalKind, signal};

use crate::error::ProgramError;
use crate::terminal;

/// What shells take for "ended by Ctrl-C".
const AT_ONCE: i32 = 130;

/// Listens for the rest of the program.
pub(super) fn listen(cancellation: Cancellation) -> Result<(), ProgramError> {
    let failed = |source| ProgramError::System { what: "cannot listen for signals", source };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().map_err(failed)?;
    let (mut interrupt, mut terminate) = {
        let _entered = runtime.enter();
        (signal(SignalKind::interrupt()).map_err(failed)?, signal(SignalKind::terminate()).map_err(failed)?)
    };
    let wait = move || {
        runtime.block_on(async {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if cancellation.is_cancelled() {
                    std::process::exit(AT_ONCE);
                }
                // Said first: the line that ends the program is the last.
                terminal::note("ending after this step; once more ends at once, without a report");
                cancellation.cancel();
            }
        });
    };
    thread::Builder::new().name("signals".to_owned()).spawn(wait).map(drop).map_err(failed)
}
