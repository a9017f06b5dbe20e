//! Work that is recorded once and given to the device again in one call.

use std::sync::Mutex;

use candle_core::cuda_backend::cudarc::driver::{CudaGraph, sys};
use candle_core::{Device, Result};

/// A recorded sequence of kernels over memory that stays where it is.
///
/// What the work allocates belongs to the graph, and all of it is freed again within it.
#[derive(Debug)]
pub struct Graph(Mutex<Handle>);

struct Handle(CudaGraph);

// SAFETY: the driver lets any thread use a graph as long as no two do so at once, which the mutex sees to.
unsafe impl Send for Handle {}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CudaGraph")
    }
}

impl Graph {
    /// Records what `work` gives the device; nothing of it is done yet. It must have been done once before under
    /// [`small_uploads_are_kept`], so that modules are loaded and the numbers that candle's kernels look up are on the
    /// device. It must let go of every tensor it makes.
    ///
    /// # Errors
    /// If `work` fails, or does what cannot be recorded: waiting for the device, or uploading more than a few numbers.
    pub fn record(device: &Device, work: impl FnOnce() -> Result<()>) -> Result<Self> {
        let stream = device.as_cuda_device()?.cuda_stream();
        let _uploads = small_uploads_are_kept(device)?;
        // Other threads may go on using the device; this one does nothing that a recording forbids but by mistake.
        let mode = sys::CUstreamCaptureMode_enum::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        stream.begin_capture(mode).map_err(candle_core::Error::wrap)?;
        let done = work();
        let recorded = stream.end_capture(sys::CUgraphInstantiate_flags(0));
        done?;
        match recorded.map_err(candle_core::Error::wrap)? {
            Some(graph) => Ok(Self(Mutex::new(Handle(graph)))),
            None => candle_core::bail!("nothing was recorded"),
        }
    }

    /// Gives the recorded work to the device.
    ///
    /// # Errors
    /// If the driver refuses.
    pub fn replay(&self) -> Result<()> {
        let graph = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        graph.0.launch().map_err(candle_core::Error::wrap)
    }
}

/// While this lives, the few numbers that a kernel of candle's looks up are uploaded once and kept, on this thread.
///
/// # Errors
/// If the device is no GPU.
pub fn small_uploads_are_kept(device: &Device) -> Result<impl Drop> {
    Ok(device.as_cuda_device()?.enable_cuda_graph_htod_cache())
}
