//! Samples: finished pictures that a device makes again without a cache when it has nothing else to do.
//!
//! A sample is no request. It has no place in the queue, no rows in a batch, no owner, no line in the ledger, and it moves
//! no estimate and no counter of the engine. It is made by itself, a piece at a time: it is begun, makes one step after the
//! other, is decoded, and handed over. Before each piece the device must be free: as soon as any of its workers has a
//! request, waiting or running, the sample stays where it is, and goes on later from there. What a paused one keeps is its latents
//! and its conditioning, less than the work that dropping it would waste. So a request waits for one piece at most, the
//! one that was under way when it came.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::room::with_room;
use super::shared_step::guarded;
use super::step_model::StepModel;
use crate::error::RunnerError;
use crate::request::{ImageSpec, RgbImage, SampleFailure, SampleSink, UncachedImage};

/// Samples that wait for one device; a further one is refused.
pub(super) const MAX_WAITING_SAMPLES: usize = 16;

/// The samples of one device, shared by its workers.
pub(super) struct SampleQueue<I> {
    /// Accepted requests of all workers on the device.
    requests: Arc<AtomicUsize>,
    state: Mutex<State<I>>,
}

struct State<I> {
    /// Those that were begun in front.
    samples: VecDeque<Sample<I>>,
    is_closed: bool,
}

/// One picture.
struct Sample<I> {
    spec: Arc<ImageSpec>,
    seed: u64,
    stage: Stage<I>,
    sink: SampleSink,
}

enum Stage<I> {
    Waiting,
    /// So many forwards were made.
    Running(I, usize),
}

impl<I> Default for SampleQueue<I> {
    fn default() -> Self {
        let state = State { samples: VecDeque::new(), is_closed: false };
        Self { requests: Arc::default(), state: Mutex::new(state) }
    }
}

impl<I> SampleQueue<I> {
    /// Counts the requests that go before samples.
    pub(super) fn requests(&self) -> &Arc<AtomicUsize> {
        &self.requests
    }

    /// Takes a sample in, if few enough wait. Says whether it did.
    pub(super) fn offer(&self, image: UncachedImage, sink: SampleSink) -> bool {
        let UncachedImage { spec, seed, .. } = image;
        let refused = {
            let mut state = self.state();
            if state.is_closed {
                (sink, SampleFailure::Closed)
            } else if state.samples.len() >= MAX_WAITING_SAMPLES {
                (sink, SampleFailure::QueueFull)
            } else {
                state.samples.push_back(Sample { spec, seed, stage: Stage::Waiting, sink });
                return true;
            }
        };
        // Sinks are called without the lock.
        finish(refused.0, Err(refused.1));
        false
    }

    /// Gives all samples up, and takes no more.
    pub(super) fn close(&self) {
        let samples = {
            let mut state = self.state();
            state.is_closed = true;
            std::mem::take(&mut state.samples)
        };
        samples.into_iter().for_each(Sample::give_up);
    }

    /// Makes a piece of a sample. `false` if there is none, or requests go before.
    pub(super) fn work<M: StepModel<Image = I>>(&self, model: &M) -> bool {
        if self.requests.load(Ordering::SeqCst) > 0 {
            return false;
        }
        let Some(sample) = self.state().samples.pop_front() else { return false };
        if let Some(sample) = sample.advance(model) {
            self.go_on_later(sample);
        }
        true
    }

    /// Puts a sample back to the front.
    fn go_on_later(&self, sample: Sample<I>) {
        let mut state = self.state();
        if state.is_closed {
            drop(state);
            sample.give_up();
        } else {
            state.samples.push_front(sample);
        }
    }

    fn state(&self) -> MutexGuard<'_, State<I>> {
        // No step leaves the list half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<I> Sample<I> {
    fn give_up(self) {
        drop(self.stage);
        finish(self.sink, Err(SampleFailure::Closed));
    }

    /// What is left of it after one more piece.
    fn advance<M: StepModel<Image = I>>(mut self, model: &M) -> Option<Self> {
        let stage = match self.stage {
            Stage::Waiting => {
                with_room(model, || model.begin_sample(&self.spec, self.seed)).map(|image| Stage::Running(image, 0))
            }
            Stage::Running(image, forwards) if forwards < self.spec.forwards() => {
                step(model, image).map(|image| Stage::Running(image, forwards + 1))
            }
            Stage::Running(image, _) => {
                let picture = with_room(model, || model.decode(&image));
                drop(image);
                finish(self.sink, picture.map_err(SampleFailure::Failed));
                return None;
            }
        };
        match stage {
            Ok(stage) => {
                self.stage = stage;
                Some(self)
            }
            Err(reason) => {
                finish(self.sink, Err(SampleFailure::Failed(reason)));
                None
            }
        }
    }
}

/// Makes a step of an image alone.
fn step<M: StepModel>(model: &M, mut image: M::Image) -> Result<M::Image, String> {
    match guarded(|| model.step(&mut [&mut image]))?.as_slice() {
        [true] => Ok(image),
        _ => Err(RunnerError::NotFinite.to_string()),
    }
}

/// Hands over what became of a sample. A sink that panics is at fault itself, and the worker goes on.
fn finish(sink: SampleSink, result: Result<RgbImage, SampleFailure>) {
    let handed = guarded(|| {
        sink(result);
        Ok(())
    });
    if let Err(reason) = handed {
        tracing::error!(reason, "a sample could not be handed over");
    }
}
