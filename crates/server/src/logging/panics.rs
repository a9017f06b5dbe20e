//! Panics as lines of the log: the standard library would write them to standard error itself, and wait for its reader.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{PanicHookInfo, set_hook};

/// From now on a panic is logged, with its frames where `RUST_BACKTRACE` asks for them.
pub(super) fn log() {
    set_hook(Box::new(|panic: &PanicHookInfo<'_>| {
        let frames = Backtrace::capture();
        let frames = (frames.status() == BacktraceStatus::Captured).then_some(frames);
        let thread = std::thread::current();
        tracing::error!(
            thread = thread.name().unwrap_or("unnamed"),
            location = panic.location().map(tracing::field::display),
            frames = frames.map(tracing::field::display),
            "panicked: {}",
            panic.payload_as_str().unwrap_or("no message")
        );
    }));
}
