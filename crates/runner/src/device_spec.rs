//! The devices an engine runs on, as a command line names them.

use std::fmt;
use std::str::FromStr;

/// One device; every device has its own worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceSpec {
    /// The processor. Several of these share one copy of the weights.
    Cpu,
}

/// A text that names no device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a device; supported: cpu")]
pub struct ParseDeviceError(String);

impl FromStr for DeviceSpec {
    type Err = ParseDeviceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "cpu" => Ok(Self::Cpu),
            _ => Err(ParseDeviceError(text.to_owned())),
        }
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        assert_eq!(DeviceSpec::Cpu.to_string().parse(), Ok(DeviceSpec::Cpu));
        assert!("tpu".parse::<DeviceSpec>().unwrap_err().to_string().contains("`tpu`"));
    }
}
