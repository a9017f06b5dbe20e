//! Who gives work to a GPU. Threads do so side by side, but whatever reaches the one stream while blocks are recorded would
//! become part of the recording and would not be done; so the thread that records is alone.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use candle_core::{Device, DeviceLocation};

/// Of every GPU that was asked for.
static GATES: Mutex<Vec<(DeviceLocation, Arc<Gate>)>> = Mutex::new(Vec::new());

/// While this lives its thread works on a GPU.
#[derive(Debug)]
pub struct Inside(Arc<Gate>);

/// For the time in which a thread gives a device work, frees its memory included; waits while another one records. `None` on
/// devices that nobody records.
pub fn enter(device: &Device) -> Option<Inside> {
    device.is_cuda().then(|| Gate::of(device).enter())
}

#[derive(Debug, Default)]
pub(super) struct Gate {
    threads: Mutex<Threads>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Threads {
    inside: usize,
    /// That want to be alone.
    waiting: usize,
    is_recording: bool,
}

impl Gate {
    /// That of a device.
    pub(super) fn of(device: &Device) -> Arc<Self> {
        let mut gates = GATES.lock().unwrap_or_else(PoisonError::into_inner);
        let location = device.location();
        if let Some((_, gate)) = gates.iter().find(|(other, _)| *other == location) {
            return Arc::clone(gate);
        }
        let gate = Arc::<Self>::default();
        gates.push((location, Arc::clone(&gate)));
        gate
    }

    fn enter(self: Arc<Self>) -> Inside {
        // Those who want to be alone would wait for ever if others went in and out.
        let mut threads = self.wait_while(|threads| threads.is_recording || threads.waiting > 0);
        threads.inside += 1;
        drop(threads);
        Inside(self)
    }

    /// Does work while nobody else is inside. The caller counts as inside if anybody does: threads that were not let in work
    /// where no others do.
    pub(super) fn alone<T>(&self, work: impl FnOnce() -> T) -> T {
        let _alone = Alone::new(self);
        work()
    }

    fn lock(&self) -> MutexGuard<'_, Threads> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while(&self, condition: impl Fn(&mut Threads) -> bool) -> MutexGuard<'_, Threads> {
        self.changed.wait_while(self.lock(), condition).unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.lock().inside -= 1;
        self.0.changed.notify_all();
    }
}

/// A thread that records, with whether it is inside otherwise.
struct Alone<'a> {
    gate: &'a Gate,
    is_inside: bool,
}

impl<'a> Alone<'a> {
    fn new(gate: &'a Gate) -> Self {
        let mut threads = gate.lock();
        let is_inside = threads.inside > 0;
        threads.inside -= usize::from(is_inside);
        threads.waiting += 1;
        drop(threads);
        gate.changed.notify_all();
        let mut threads = gate.wait_while(|threads| threads.is_recording || threads.inside > 0);
        threads.waiting -= 1;
        threads.is_recording = true;
        Self { gate, is_inside }
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        let mut threads = self.gate.lock();
        threads.is_recording = false;
        threads.inside += usize::from(self.is_inside);
        drop(threads);
        self.gate.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_thread_that_records_is_alone() {
        let (gate, inside) = (Arc::<Gate>::default(), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (gate, inside) = (&gate, &inside);
                scope.spawn(move || {
                    for turn in 0..200 {
                        let _inside = Arc::clone(gate).enter();
                        inside.fetch_add(1, Ordering::SeqCst);
                        if turn % 4 == thread {
                            inside.fetch_sub(1, Ordering::SeqCst);
                            gate.alone(|| assert_eq!(inside.load(Ordering::SeqCst), 0));
                            inside.fetch_add(1, Ordering::SeqCst);
                        }
                        inside.fetch_sub(1, Ordering::SeqCst);
                    }
                });
            }
        });
        let threads = gate.lock();
        assert_eq!((threads.inside, threads.waiting, threads.is_recording), (0, 0, false));
    }

    #[test]
    fn a_panic_leaves_the_gate_open() {
        let gate = Arc::<Gate>::default();
        let outside = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| gate.alone(|| panic!("recording"))));
        assert!(outside.is_err());
        drop(Arc::clone(&gate).enter());
        assert_eq!(gate.alone(|| 7), 7);
    }

    #[test]
    fn nobody_waits_for_the_cpu() {
        assert!(enter(&Device::Cpu).is_none());
        assert!(Arc::ptr_eq(&Gate::of(&Device::Cpu), &Gate::of(&Device::Cpu)));
    }
}
