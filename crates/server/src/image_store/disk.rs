//! Threads for work on a disk, which may be slow, or hang for ever as a network share does.
//!
//! They are few, their queue is short, and nobody waits longer than the disk's patience: what takes longer is given up by who
//! asked for it, not by the thread, which the system holds until the disk answers. While every thread is held so,
//! nothing more is queued, and it goes on by itself once the disk answers.

use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::Span;

/// A disk answers several faster than one, and not many faster than several.
const THREADS: usize = 4;
/// What waits holds pictures in memory.
const QUEUED: usize = 32;

type Job = Box<dyn FnOnce() + Send>;
/// Since when each thread has been at its work.
type Since = [Option<Instant>; THREADS];

/// The threads of one disk.
pub(super) struct Disk {
    jobs: SyncSender<Job>,
    since: Arc<Mutex<Since>>,
    patience: Duration,
}

/// Why work was not done, or not in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DiskFault {
    /// It has begun, or waits, and may still be done.
    #[error("it took longer than {} s (--output-timeout)", patience.as_secs_f64())]
    TimedOut {
        /// The time it had.
        patience: Duration,
    },
    /// It was not taken.
    #[error("too much waits for it")]
    Busy,
    /// A fault of this program.
    #[error("its thread panicked")]
    Panicked,
}

impl Disk {
    pub(super) fn new(patience: Duration) -> io::Result<Self> {
        let (jobs, waiting) = sync_channel(QUEUED);
        let waiting = Arc::new(Mutex::new(waiting));
        let since = Arc::new(Mutex::new(Since::default()));
        for number in 0..THREADS {
            let (waiting, since) = (Arc::clone(&waiting), Arc::clone(&since));
            thread::Builder::new().name(format!("disk-{number}")).spawn(move || work(number, &waiting, &since))?;
        }
        Ok(Self { jobs, since, patience })
    }

    /// Runs `work` on one of the threads, within the caller's span. What nobody waits for any more is not begun.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, DiskFault> {
        self.check()?;
        let (sender, receiver) = oneshot::channel();
        let span = Span::current();
        let job = move || {
            if !sender.is_closed() {
                let _ = sender.send(span.in_scope(work));
            }
        };
        self.jobs.try_send(Box::new(job)).map_err(|_| DiskFault::Busy)?;
        match timeout(self.patience, receiver).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(_)) => Err(DiskFault::Panicked),
            Err(_) => Err(DiskFault::TimedOut { patience: self.patience }),
        }
    }

    /// An error while all threads are held.
    pub(super) fn check(&self) -> Result<(), DiskFault> {
        if self.overdue() == THREADS { Err(DiskFault::Busy) } else { Ok(()) }
    }

    /// Whether some work has taken longer than it may and is still not done.
    pub(super) fn is_stuck(&self) -> bool {
        self.overdue() > 0
    }

    fn overdue(&self) -> usize {
        let since = lock(&self.since);
        since.iter().flatten().filter(|since| since.elapsed() >= self.patience).count()
    }

    /// Keeps all threads busy until what is returned is dropped.
    #[cfg(test)]
    pub(super) async fn hang(&self) -> impl Send + use<> {
        let (guard, held) = std::sync::mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        for _ in 0..THREADS {
            let held = Arc::clone(&held);
            // It ends with an error once the guard is gone.
            let hanging = Box::new(move || {
                let _ = lock(&held).recv();
            });
            self.jobs.try_send(hanging).expect("there is room");
        }
        while lock(&self.since).iter().any(Option::is_none) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        guard
    }
}

/// One thread, until there is no disk any more.
fn work(number: usize, waiting: &Mutex<Receiver<Job>>, since: &Mutex<Since>) {
    loop {
        let Ok(job) = lock(waiting).recv() else { return };
        lock(since)[number] = Some(Instant::now());
        // The message is in the log; who waits gets an error.
        let _ = catch_unwind(AssertUnwindSafe(job));
        lock(since)[number] = None;
    }
}

/// Nothing panics while one of these is locked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk").field("patience", &self.patience).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(300);

    #[tokio::test]
    async fn a_disk_that_hangs_keeps_nobody_for_ever_and_goes_on_by_itself() {
        let disk = Disk::new(SHORT).unwrap();
        // A busy machine may take longer than that.
        while disk.run(|| 7).await != Ok(7) {}
        let hanging = disk.hang().await;
        let begun = Arc::new(AtomicUsize::new(0));
        let count = || {
            let begun = Arc::clone(&begun);
            move || begun.fetch_add(1, Ordering::Relaxed)
        };
        // Either it waits in vain or, once the threads are overdue, it is not taken.
        assert!(disk.run(count()).await.is_err());
        assert!(disk.is_stuck());
        assert_eq!(disk.run(count()).await, Err(DiskFault::Busy));
        drop(hanging);
        while disk.is_stuck() {
            tokio::time::sleep(SHORT).await;
        }
        while disk.run(|| 8).await != Ok(8) {}
        assert_eq!(begun.load(Ordering::Relaxed), 0, "what was given up is not begun");
    }

    #[tokio::test]
    async fn the_queue_is_short() {
        let disk = Disk::new(LONG).unwrap();
        let _hanging = disk.hang().await;
        let work = || Box::pin(disk.run(|| ()));
        let mut waiting: Vec<_> = (0..QUEUED).map(|_| work()).collect();
        for waiting in &mut waiting {
            assert!(timeout(Duration::from_millis(1), waiting).await.is_err());
        }
        assert_eq!(work().await, Err(DiskFault::Busy));
        assert!(!disk.is_stuck(), "nothing has taken longer than it may");
    }

    #[tokio::test]
    async fn a_panic_costs_no_thread() {
        let disk = Disk::new(LONG).unwrap();
        for _ in 0..2 * THREADS {
            assert_eq!(disk.run(|| panic!("as expected")).await, Err::<(), _>(DiskFault::Panicked));
        }
        assert_eq!(disk.run(|| 7).await, Ok(7));
    }
}
