//! Launches on GPUs.
//!
//! The kernels are loaded once per device, at the first launch there; after that a launch looks nothing up and allocates
//! nothing.

mod machine;
mod operands;

use std::ffi::c_void;
use std::sync::{Mutex, OnceLock, PoisonError};

// Named so that it is linked: it has the driver's functions.
use afterimage_cuda_device as _;
use cudarc::driver::sys::CUdevice_attribute::{
    CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
};
use cudarc::driver::sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
use cudarc::driver::{CudaFunction, CudaStream, DriverError, result};
use cudarc::nvrtc::Ptx;

pub use self::machine::DeviceMachine;
pub use self::operands::{Number, Operands, allocate};
use crate::error::KernelError;
use crate::kernel::{Family, Kernel};
use crate::launch::{Launch, Parameters};
use crate::limits::Limits;

/// More than any machine has.
const MOST_DEVICES: usize = 64;

/// By the device's number. cudarc uses the primary context of a device, of which there is one.
static LOADED: [OnceLock<Functions>; MOST_DEVICES] = [const { OnceLock::new() }; MOST_DEVICES];
/// Held while kernels are loaded, so that nobody else loads them as well.
static LOADING: Mutex<()> = Mutex::new(());

/// What a launch needs of a device.
struct Functions {
    /// By the kernel's number.
    kernels: Vec<CudaFunction>,
    limits: Limits,
}

fn launch<P: Parameters>(stream: &CudaStream, launch: &Launch<'_, P>) -> Result<(), KernelError> {
    if launch.is_empty() {
        return Ok(());
    }
    let function = &functions(stream)?.kernels[launch.kernel as usize];
    run(stream, function, launch)
}

/// Launches a function that takes the launch's parameters.
pub(crate) fn run<P: Parameters>(
    stream: &CudaStream,
    function: &CudaFunction,
    launch: &Launch<'_, P>,
) -> Result<(), KernelError> {
    stream.context().bind_to_thread().map_err(failed("making the device current"))?;
    let [x, y, z] = launch.blocks;
    let mut parameters = [(&raw const launch.parameters).cast_mut().cast::<c_void>()];
    // SAFETY: kernels take one structure, the fields of which `Parameters` promises; the memory that they name is there as
    // long as the spans of the launch, and as long as its operator has checked.
    let launched = unsafe {
        result::launch_kernel(
            function.cu_function(),
            (x, y, z),
            (launch.threads, 1, 1),
            launch.shared_bytes,
            stream.cu_stream(),
            &mut parameters,
        )
    };
    launched.map_err(failed("launching a kernel"))
}

/// What a stream's device has.
///
/// # Errors
/// If the kernels cannot be loaded.
pub fn limits(stream: &CudaStream) -> Result<Limits, KernelError> {
    Ok(functions(stream)?.limits)
}

/// Lets a function be launched with so many bytes of dynamic shared memory.
pub(crate) fn allow_shared(function: &CudaFunction, bytes: i32) -> Result<(), KernelError> {
    function
        .set_attribute(CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, bytes)
        .map_err(failed("allowing a kernel its shared memory"))
}

pub(crate) fn failed(action: &'static str) -> impl Fn(DriverError) -> KernelError {
    move |source| KernelError::Driver { action, source }
}

fn functions(stream: &CudaStream) -> Result<&'static Functions, KernelError> {
    let device = stream.context().ordinal();
    let place = LOADED.get(device).ok_or(KernelError::Size {
        operator: "kernels",
        quantity: "a device's number",
        found: device,
        supported: "up to 63",
    })?;
    if let Some(functions) = place.get() {
        return Ok(functions);
    }
    let _loading = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    match place.get() {
        Some(functions) => Ok(functions),
        None => {
            let loaded = load(stream)?;
            Ok(place.get_or_init(|| loaded))
        }
    }
}

fn load(stream: &CudaStream) -> Result<Functions, KernelError> {
    let context = stream.context();
    let mut modules = Vec::new();
    for family in Family::ALL {
        let image = Ptx::from_binary(family.fatbin().to_vec());
        modules.push(context.load_module(image).map_err(failed("loading kernels"))?);
    }
    let attribute = |of| context.attribute(of).map_err(failed("asking what the device has"));
    let most = attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
    let processors = attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
    let mut kernels = Vec::new();
    for kernel in Kernel::ALL {
        let module = &modules[kernel.family() as usize];
        let function = module.load_function(kernel.name()).map_err(failed("finding a kernel"))?;
        let fixed = function.shared_size_bytes().map_err(failed("asking for a kernel's shared memory"))?;
        // Whatever a launch asks for is allowed then; what is not asked for is not taken.
        allow_shared(&function, most - fixed)?;
        kernels.push(function);
    }
    Ok(Functions { kernels, limits: Limits { shared_bytes: most as usize, processors: processors as usize } })
}
