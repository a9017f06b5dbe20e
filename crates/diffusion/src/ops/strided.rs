//! candle's kernels over tensors whose values do not lie one after the other, or that are broadcast. GPUs are told how values
//! lie by an upload, for which the host waits longer than for the kernel.

use candle_core::{Device, Result};

/// Does such work on a device. How values lie goes there when these shapes are met first, and stays; nothing else that work
/// uploads does, so it must upload nothing.
pub(crate) fn with_layouts_kept<T>(device: &Device, work: impl FnOnce() -> Result<T>) -> Result<T> {
    #[cfg(feature = "cuda")]
    let _kept = match device.is_cuda() {
        true => Some(afterimage_cuda_device::small_uploads_are_kept(device)?),
        false => None,
    };
    #[cfg(not(feature = "cuda"))]
    let _ = device;
    work()
}
