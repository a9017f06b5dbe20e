//! The devices an engine runs on, as a command line names them.

use std::fmt;
use std::str::FromStr;

use candle_core::Device;

use crate::error::RunnerError;
use crate::memory::{Capacity, host_bytes};

/// One device; every device has its own worker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceSpec {
    /// The processor. Several of these share one copy of the weights.
    #[default]
    Cpu,
    /// An NVIDIA GPU by its ordinal. Opened only by builds with the feature `cuda`.
    Cuda(usize),
}

/// A text that names no device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a device; write cpu, or cuda:N for the GPU with number N")]
pub struct ParseDeviceError(String);

impl DeviceSpec {
    /// The device itself, which `option` names.
    pub(super) fn open(self, option: &'static str) -> Result<Device, RunnerError> {
        let ordinal = match self {
            Self::Cpu => return Ok(Device::Cpu),
            Self::Cuda(ordinal) => ordinal,
        };
        open_cuda(ordinal).map_err(|reason| {
            let message = format!("it is {self}, which cannot be used: {reason}; cpu can always be");
            RunnerError::LoadOption { option, message }
        })
    }

    /// The device's memory, or as much of that as may be used; `weights` of it are loaded. `None` where the system does not say.
    pub(crate) fn capacity(
        self,
        device: &Device,
        may_use: Option<u64>,
        weights: u64,
    ) -> Result<Option<Capacity>, RunnerError> {
        match self {
            Self::Cpu => {
                let bytes = may_use.or_else(host_bytes);
                let is_chosen = may_use.is_some();
                let of = |bytes| Capacity { bytes, taken: 0, is_binding: is_chosen, is_chosen, records: false };
                Ok(bytes.map(of))
            }
            Self::Cuda(_) => {
                // What loading has freed is free.
                give_back(device)?;
                let DeviceBytes { free, all } = device_bytes(device)?;
                Ok(Some(Capacity::of_gpu(free, all, weights, may_use)))
            }
        }
    }

    /// Has the device give freed memory back to the system.
    pub(crate) fn give_back_freed_memory(self, device: &Device) -> Result<(), RunnerError> {
        match self {
            Self::Cpu => afterimage_kernels::return_freed_memory(),
            Self::Cuda(_) => give_back(device)?,
        }
        Ok(())
    }
}

/// Of a GPU's memory.
struct DeviceBytes {
    free: u64,
    all: u64,
}

#[cfg(feature = "cuda")]
fn device_bytes(device: &Device) -> candle_core::Result<DeviceBytes> {
    let (free, all) = afterimage_cuda_device::free_and_all_memory(device)?;
    Ok(DeviceBytes { free, all })
}

#[cfg(not(feature = "cuda"))]
fn device_bytes(device: &Device) -> candle_core::Result<DeviceBytes> {
    candle_core::bail!("the memory of {device:?} is not known to this build")
}

#[cfg(feature = "cuda")]
fn give_back(device: &Device) -> candle_core::Result<()> {
    afterimage_cuda_device::give_back_freed_memory(device)
}

#[cfg(not(feature = "cuda"))]
fn give_back(_device: &Device) -> candle_core::Result<()> {
    Ok(())
}

#[cfg(feature = "cuda")]
fn open_cuda(ordinal: usize) -> Result<Device, String> {
    afterimage_cuda_device::open(ordinal).map_err(|error| error.to_string())
}

#[cfg(not(feature = "cuda"))]
fn open_cuda(_ordinal: usize) -> Result<Device, String> {
    Err("this program was built without CUDA; build it with `--features cuda`".to_owned())
}

impl FromStr for DeviceSpec {
    type Err = ParseDeviceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let ordinal = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?;
        let cuda = text.strip_prefix("cuda:").and_then(ordinal).map(Self::Cuda);
        let device = if text == "cpu" { Some(Self::Cpu) } else { cuda };
        device.ok_or_else(|| ParseDeviceError(text.to_owned()))
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for device in [DeviceSpec::Cpu, DeviceSpec::Cuda(0), DeviceSpec::Cuda(12)] {
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        for text in ["tpu", "cuda", "cuda:", "cuda:-1", "cuda:+1", "cpu:0", "CPU"] {
            assert!(text.parse::<DeviceSpec>().unwrap_err().to_string().contains(&format!("`{text}`")));
        }
    }

    #[test]
    #[cfg(not(feature = "cuda"))]
    fn a_gpu_wants_a_build_that_has_them() {
        let message = DeviceSpec::Cuda(1).open("device").unwrap_err().to_string();
        assert!(message.contains("cuda:1") && message.contains("--features cuda"), "{message}");
    }

    /// There is no such device, and on most machines no driver.
    #[test]
    #[cfg(feature = "cuda")]
    fn a_gpu_that_is_not_there_is_named_with_what_is_missing() {
        let message = DeviceSpec::Cuda(63).open("device").unwrap_err().to_string();
        assert!(
            message.starts_with("device: it is cuda:63, which cannot be used: ") && message.len() > 70,
            "{message}"
        );
    }
}
