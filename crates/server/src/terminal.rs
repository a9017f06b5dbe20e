//! What the program says to the person or script that started it.
//!
//! Results go to standard output, everything else to standard error. A reader that has closed its end is
//! no reason to fail (the `print` macros would panic).

use std::fmt::Display;
use std::io::Write;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::Duration;

use crate::backtrace;

/// How long the end of the program waits for a reader.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// One line of result.
pub(crate) fn line(text: impl Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// Bytes as they are, where a lost result must not look like a success. A reader that has closed its end is none.
pub(crate) fn result(text: &[u8]) -> std::io::Result<()> {
    let mut stdout = std::io::stdout();
    match stdout.write_all(text).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Columns of the terminal that results go to; none where they go to a file or another program.
pub(crate) fn width() -> Option<usize> {
    console::Term::stdout().size_checked().map(|(_, columns)| usize::from(columns))
}

/// A line beside the result.
pub(crate) fn note(text: impl Display) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The one line that says why the program ends. It ends all the same if nobody reads that.
pub(crate) fn error(error: impl Display) {
    let text = error.to_string();
    let (message, frames) = backtrace::split(&text);
    let line = format!("error: {message}\n");
    let (done, is_done) = sync_channel(1);
    let write = move || done.send(std::io::stderr().write_all(line.as_bytes()));
    let _ = thread::Builder::new().spawn(write);
    let _ = is_done.recv_timeout(LAST_WORDS);
    if let Some(frames) = frames {
        tracing::debug!("the error came up through\n{frames}");
    }
}
