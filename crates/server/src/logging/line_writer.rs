//! Standard error for a server: its lines are written by a thread of their own.
//!
//! Whoever reads standard error may be slow or stop, and a pipe holds 64 KiB. No request waits for that: what waits to be
//! written is bounded, what is more is dropped and counted, and a line says how much it was once there is room again.
//! (`tracing-appender` bounds lines and not bytes, and tells standard output when it cannot end.)

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait to be written.
const MAX_LINES: usize = 4096;
/// Their bytes.
const MAX_BYTES: usize = 4 << 20;
/// How long the end of the program waits for what is not written.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Takes lines and never waits.
#[derive(Debug, Clone)]
pub(super) struct LineWriter {
    waiting: SyncSender<Entry>,
    held: Arc<Held>,
}

#[derive(Debug)]
enum Entry {
    Line(Vec<u8>),
    /// Told when everything before it is written.
    End(SyncSender<()>),
}

/// What waits, and what was lost.
#[derive(Debug, Default)]
struct Held {
    bytes: AtomicUsize,
    dropped_lines: AtomicU64,
}

impl LineWriter {
    /// Starts the thread, which writes for as long as the program runs.
    pub(super) fn start(output: impl Write + Send + 'static) -> io::Result<Self> {
        let (waiting, lines) = sync_channel(MAX_LINES);
        let held = Arc::new(Held::default());
        let writer = Self { waiting, held: Arc::clone(&held) };
        thread::Builder::new().name("log".to_owned()).spawn(move || write(output, &lines, &held))?;
        Ok(writer)
    }

    pub(super) fn dropped_lines(&self) -> u64 {
        self.held.dropped_lines.load(Ordering::Relaxed)
    }

    /// Waits until everything is written, or a second.
    pub(super) fn finish(&self) {
        let gives_up = Instant::now() + LAST_WORDS;
        let (done, is_done) = sync_channel(1);
        let mut end = Entry::End(done);
        while let Err(TrySendError::Full(back)) = self.waiting.try_send(end) {
            if Instant::now() >= gives_up {
                return;
            }
            end = back;
            thread::sleep(LAST_WORDS / 100);
        }
        // Either way, nothing more can be done.
        let _ = is_done.recv_timeout(gives_up.saturating_duration_since(Instant::now()));
    }

    fn take(&self, line: &[u8]) {
        let held = &self.held;
        let has_room = held.bytes.fetch_add(line.len(), Ordering::Relaxed) + line.len() <= MAX_BYTES;
        if !has_room || self.waiting.try_send(Entry::Line(line.to_vec())).is_err() {
            held.bytes.fetch_sub(line.len(), Ordering::Relaxed);
            held.dropped_lines.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The thread: an output that is closed costs the lines, not the program.
fn write(mut output: impl Write, lines: &Receiver<Entry>, held: &Held) {
    let mut told = 0;
    while let Ok(entry) = lines.recv() {
        match entry {
            Entry::Line(line) => {
                let _ = output.write_all(&line);
                held.bytes.fetch_sub(line.len(), Ordering::Relaxed);
            }
            Entry::End(done) => {
                let _ = output.flush();
                let _ = done.send(());
            }
        }
        let dropped_lines = held.dropped_lines.load(Ordering::Relaxed);
        if dropped_lines > told && held.bytes.load(Ordering::Relaxed) == 0 {
            tracing::warn!(lines = dropped_lines - told, "the log was not read, and lines of it were dropped");
            told = dropped_lines;
        }
    }
}

/// A line comes in one piece.
impl Write for &LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.take(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LineWriter {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> &'a Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// An output that takes as many lines as somebody reads.
    struct Pipe(SyncSender<Vec<u8>>);

    impl Write for Pipe {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.send(line.to_vec()).map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn read(pipe: &Receiver<Vec<u8>>, lines: usize) -> Vec<String> {
        (0..lines).map(|_| String::from_utf8(pipe.recv().unwrap()).unwrap()).collect()
    }

    #[test]
    fn nobody_waits_for_a_reader_and_what_is_lost_is_counted() {
        let (pipe, reader) = sync_channel(0);
        let writer = LineWriter::start(Pipe(pipe)).unwrap();
        let lines = 2 * MAX_LINES;
        for number in 0..lines {
            (&writer).write_all(format!("{number}\n").as_bytes()).unwrap();
        }
        let dropped = usize::try_from(writer.dropped_lines()).unwrap();
        // One may be with the thread.
        assert!((lines - MAX_LINES - 1..=lines - MAX_LINES).contains(&dropped), "{dropped}");
        // If the thread took its line late, a later one has the place that this made.
        let first: Vec<_> = (0..MAX_LINES).map(|number| format!("{number}\n")).collect();
        assert_eq!(read(&reader, lines - dropped)[..MAX_LINES], first, "what was taken is written, whole and in order");
        (&writer).write_all(b"after\n").unwrap();
        assert_eq!(read(&reader, 1), ["after\n"]);
        drop(reader);
        (&writer).write_all(b"to nobody\n").unwrap();
        writer.finish();
    }

    #[test]
    fn bytes_are_bounded_too() {
        let (_pipe, reader): (Sender<()>, _) = channel();
        struct Deaf(Receiver<()>);
        impl Write for Deaf {
            fn write(&mut self, line: &[u8]) -> io::Result<usize> {
                let _ = self.0.recv();
                Ok(line.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let writer = LineWriter::start(Deaf(reader)).unwrap();
        let line = vec![b'x'; MAX_BYTES / 4];
        for _ in 0..6 {
            (&writer).write_all(&line).unwrap();
        }
        assert_eq!(writer.dropped_lines(), 2);
    }
}
