//! What a worker does next: requests first, samples only where there are none.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvError, RecvTimeoutError, TryRecvError};
use std::time::Duration;

use afterimage_kernels::return_freed_memory;

use super::loop_parts::LoopParts;
use super::running_request::AcceptedRequest;
use super::sample_queue::SampleQueue;
use super::step_loop::StepLoop;
use super::step_model::StepModel;

/// How long a worker waits for work before it gives back the memory that it keeps for the next.
const REST: Duration = Duration::from_secs(10);

/// What a worker is sent.
pub(super) enum Message {
    Request(Box<AcceptedRequest>),
    /// A sample may be there for it.
    Wake,
}

/// What a turn came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Worked,
    /// There is nothing to do until a message comes.
    Idle,
    /// The channel is hung up, and everything is finished.
    Ended,
}

/// One life of a worker.
pub(super) struct WorkLoop<'a, M: StepModel> {
    parts: LoopParts<M>,
    steps: StepLoop<M>,
    samples: Arc<SampleQueue<M::Image>>,
    messages: &'a Receiver<Message>,
}

impl<'a, M: StepModel> WorkLoop<'a, M> {
    pub(super) fn new(
        parts: LoopParts<M>,
        samples: Arc<SampleQueue<M::Image>>,
        messages: &'a Receiver<Message>,
    ) -> Self {
        Self { steps: StepLoop::new(parts.clone()), parts, samples, messages }
    }

    /// Works until the channel is hung up and everything is finished.
    pub(super) fn run(&mut self) {
        loop {
            match self.turn() {
                Turn::Worked => {}
                Turn::Idle => {
                    let Ok(message) = self.wait() else { return };
                    self.take(message);
                }
                Turn::Ended => return,
            }
        }
    }

    /// Waits for a message; after a while without one, memory that steps would have used again goes back to the system.
    fn wait(&self) -> Result<Message, RecvError> {
        match self.messages.recv_timeout(REST) {
            Ok(message) => Ok(message),
            Err(RecvTimeoutError::Disconnected) => Err(RecvError),
            Err(RecvTimeoutError::Timeout) => {
                return_freed_memory();
                self.messages.recv()
            }
        }
    }

    /// Takes in whatever has come, and does one iteration of the step loop, or else one piece of a sample.
    pub(super) fn turn(&mut self) -> Turn {
        let _inside = self.parts.model.enter();
        loop {
            match self.messages.try_recv() {
                Ok(message) => self.take(message),
                Err(TryRecvError::Disconnected) if self.steps.is_idle() => return Turn::Ended,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        if !self.steps.is_idle() {
            self.steps.iterate();
            return Turn::Worked;
        }
        if self.samples.work(self.parts.model.as_ref()) { Turn::Worked } else { Turn::Idle }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Request(request) => self.steps.submit(*request),
            // Before the samples are looked at: one that comes later wakes the worker again.
            Message::Wake => self.parts.shared.is_being_woken.store(false, Ordering::SeqCst),
        }
    }
}
