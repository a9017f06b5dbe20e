//! Opening a device as this project uses it: one stream, and memory that is kept.

use candle_core::Device;
use candle_core::cuda_backend::cudarc::driver::{DriverError, result, sys};

use crate::unfit::{Unfit, check_capability, check_driver, check_number};
use crate::{MissingLibrary, require};

/// A device that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No driver, or no CUDA.
    #[error(transparent)]
    Missing(#[from] MissingLibrary),
    /// They are there, and cannot be used.
    #[error(transparent)]
    Unfit(#[from] Unfit),
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
    check(ordinal)?;
    let device = Device::new_cuda_with_stream(ordinal)?;
    // SAFETY: all tensors of the device live on its one stream, on which work is done in the order in which it is given;
    // there is no other stream whose use of a tensor an event would have to tell of. Events cost more than most kernels.
    unsafe { device.as_cuda_device()?.disable_event_tracking() };
    keep_freed_memory(ordinal)?;
    Ok(device)
}

/// Whether the driver, and its GPU with a number, are what this program was built for.
fn check(ordinal: usize) -> Result<(), OpenError> {
    use sys::CUdevice_attribute_enum::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
    };

    match result::init() {
        Err(DriverError(sys::CUresult::CUDA_ERROR_NO_DEVICE)) => return Err(Unfit::NoGpu.into()),
        initialised => initialised?,
    }
    let mut version = 0;
    // SAFETY: the address is that of a value of the type that the driver writes.
    unsafe { sys::cuDriverGetVersion(&mut version).result()? };
    check_driver(version)?;
    check_number(ordinal, usize::try_from(result::device::get_count()?).unwrap_or(0))?;
    let device = result::device::get(i32::try_from(ordinal).unwrap_or(i32::MAX))?;
    // SAFETY: the driver is initialised, and the device is one of its own.
    let [major, minor] = unsafe { [MAJOR, MINOR].map(|attribute| result::device::get_attribute(device, attribute)) };
    Ok(check_capability(major?, minor?)?)
}

/// Gives memory that nobody uses back to the system: what was freed and kept, and what recorded work had that is gone. Waits
/// for the device.
///
/// # Errors
/// If the device is no GPU, or the driver refuses.
pub fn give_back_freed_memory(device: &Device) -> candle_core::Result<()> {
    let context = device.as_cuda_device()?.cuda_stream().context().clone();
    // What was freed counts as used until the stream comes to that.
    device.synchronize()?;
    context.bind_to_thread().map_err(candle_core::Error::wrap)?;
    let device = context.cu_device();
    let mut pool = std::ptr::null_mut();
    // SAFETY: the context is alive and current; the address is that of a value of the type that the driver writes. Memory in
    // use is not touched.
    let given_back = unsafe {
        sys::cuDeviceGetDefaultMemPool(&mut pool, device)
            .result()
            .and_then(|()| sys::cuMemPoolTrimTo(pool, 0).result())
            .and_then(|()| sys::cuDeviceGraphMemTrim(device).result())
    };
    given_back.map_err(candle_core::Error::wrap)
}

/// Bytes of the device's memory: those that nobody has, and all.
///
/// # Errors
/// If the device is no GPU, or the driver refuses.
pub fn free_and_all_memory(device: &Device) -> candle_core::Result<(u64, u64)> {
    let stream = device.as_cuda_device()?.cuda_stream();
    stream.context().bind_to_thread().map_err(candle_core::Error::wrap)?;
    let (free, all) = result::mem_get_info().map_err(candle_core::Error::wrap)?;
    Ok((free as u64, all as u64))
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
