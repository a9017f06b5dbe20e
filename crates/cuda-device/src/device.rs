//! Opening a device as this project uses it: one stream, and memory that is kept.

use candle_core::Device;
use candle_core::cuda_backend::cudarc::driver::{DriverError, result, sys};

use crate::{MissingLibrary, require};

/// A device that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No driver, or no CUDA.
    #[error(transparent)]
    Missing(#[from] MissingLibrary),
    /// The driver refuses.
    #[error("{0:?}")]
    Driver(#[from] DriverError),
    /// candle refuses.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// The GPU with a number. All its work goes into one stream, whichever thread gives it.
///
/// # Errors
/// If a library, the driver or the device is not there.
pub fn open(ordinal: usize) -> Result<Device, OpenError> {
    require()?;
    let device = Device::new_cuda_with_stream(ordinal)?;
    // SAFETY: all tensors of the device live on its one stream, on which work is done in the order in which it is given;
    // there is no other stream whose use of a tensor an event would have to tell of. Events cost more than most kernels.
    unsafe { device.as_cuda_device()?.disable_event_tracking() };
    keep_freed_memory(ordinal)?;
    Ok(device)
}

/// Lets the device's pool keep what is freed. By default it goes back to the system whenever the host waits for the device,
/// which is once in every step, and has to be mapped again.
fn keep_freed_memory(ordinal: usize) -> Result<(), DriverError> {
    let ordinal = i32::try_from(ordinal).unwrap_or(i32::MAX);
    let device = result::device::get(ordinal)?;
    let mut pool = std::ptr::null_mut();
    let mut most = u64::MAX;
    // SAFETY: the driver is initialised, as the device has been opened; both addresses are those of values of the types that
    // the driver writes and reads.
    unsafe {
        sys::cuDeviceGetDefaultMemPool(&mut pool, device).result()?;
        let attribute = sys::CUmemPool_attribute_enum::CU_MEMPOOL_ATTR_RELEASE_THRESHOLD;
        sys::cuMemPoolSetAttribute(pool, attribute, (&raw mut most).cast()).result()
    }
}
