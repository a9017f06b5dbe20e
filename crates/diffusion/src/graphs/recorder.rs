//! The device that records. Without the feature `cuda` there is none.

use candle_core::{Device, Result};

/// What records work and does it again. Work is recorded after it has been done once under [`Self::prepare`].
pub(super) trait Records {
    /// A recording.
    type Graph: std::fmt::Debug;

    /// Does work in the ordinary way, such that it can be recorded next.
    fn prepare<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T>;

    /// Records work, and does none of it.
    fn record(&self, work: impl FnOnce() -> Result<()>) -> Result<Self::Graph>;

    /// Does recorded work.
    fn replay(&self, graph: &Self::Graph) -> Result<()>;
}

/// A GPU.
#[derive(Debug)]
pub(super) struct Recorder {
    #[cfg(feature = "cuda")]
    device: Device,
}

impl Recorder {
    /// Of a device that can record.
    #[cfg(feature = "cuda")]
    pub(super) fn new(device: &Device) -> Option<Self> {
        device.is_cuda().then(|| Self { device: device.clone() })
    }

    /// Of a device that can record.
    #[cfg(not(feature = "cuda"))]
    pub(super) fn new(device: &Device) -> Option<Self> {
        device.is_cuda().then_some(Self {})
    }
}

#[cfg(feature = "cuda")]
impl Records for Recorder {
    type Graph = afterimage_cuda_device::Graph;

    fn prepare<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let _uploads = afterimage_cuda_device::small_uploads_are_kept(&self.device)?;
        work()
    }

    fn record(&self, work: impl FnOnce() -> Result<()>) -> Result<Self::Graph> {
        Self::Graph::record(&self.device, work)
    }

    fn replay(&self, graph: &Self::Graph) -> Result<()> {
        graph.replay()
    }
}

#[cfg(not(feature = "cuda"))]
impl Records for Recorder {
    type Graph = std::convert::Infallible;

    fn prepare<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        work()
    }

    fn record(&self, _work: impl FnOnce() -> Result<()>) -> Result<Self::Graph> {
        candle_core::bail!("this device cannot record")
    }

    fn replay(&self, graph: &Self::Graph) -> Result<()> {
        match *graph {}
    }
}

#[cfg(test)]
pub(super) mod counter {
    use std::cell::{Cell, RefCell};

    use super::*;

    /// Counts what it is asked for. Work that refuses is not recorded.
    #[derive(Debug, Default)]
    pub(in super::super) struct Counter {
        pub(in super::super) prepared: Cell<usize>,
        pub(in super::super) recorded: Cell<usize>,
        pub(in super::super) replayed: RefCell<Vec<usize>>,
    }

    impl Records for Counter {
        /// Its number.
        type Graph = usize;

        fn prepare<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
            self.prepared.set(self.prepared.get() + 1);
            work()
        }

        fn record(&self, work: impl FnOnce() -> Result<()>) -> Result<usize> {
            work()?;
            self.recorded.set(self.recorded.get() + 1);
            Ok(self.recorded.get())
        }

        fn replay(&self, graph: &usize) -> Result<()> {
            self.replayed.borrow_mut().push(*graph);
            Ok(())
        }
    }
}
