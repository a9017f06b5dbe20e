//! What the program says to the person or script that started it.
//!
//! Results go to standard output, everything else to standard error. A reader that has closed its end is
//! no reason to fail, so write errors are dropped (the `print` macros would panic).

use std::fmt::Display;
use std::io::Write;

use crate::backtrace;

/// One line of result.
pub(crate) fn line(text: impl Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// A text with line breaks of its own.
pub(crate) fn text(text: &[u8]) {
    let _ = std::io::stdout().write_all(text);
}

/// A line beside the result.
pub(crate) fn note(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The one line that says why the program ends.
pub(crate) fn error(error: impl Display) {
    let text = error.to_string();
    let (message, frames) = backtrace::split(&text);
    let _ = writeln!(std::io::stderr(), "error: {message}");
    if let Some(frames) = frames {
        tracing::debug!("the error came up through\n{frames}");
    }
}
