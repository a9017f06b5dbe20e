//! What can go wrong with a launch.

/// Why a kernel was not launched, or what it did.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The operands do not fit each other, or the kernel.
    #[error("{operator}: {operand} has {found} values, and {needed} are needed")]
    Length {
        /// Whose operands they are.
        operator: &'static str,
        /// Which one it is.
        operand: &'static str,
        /// Values that it has.
        found: usize,
        /// Values that the others ask for.
        needed: usize,
    },
    /// A size that no launch can have.
    #[error("{operator}: {quantity} of {found} is not supported; it can be {supported}")]
    Size {
        /// Whose size it is.
        operator: &'static str,
        /// What is sized.
        quantity: &'static str,
        /// The size.
        found: usize,
        /// Which sizes are supported.
        supported: &'static str,
    },
    /// What scores cannot be multiplied by, or come close to.
    #[error("{operator}: scale {scale} and cap {soft_cap:?} are not finite numbers above 0")]
    Factor {
        /// Whose factors they are.
        operator: &'static str,
        /// The factor.
        scale: f32,
        /// The bound.
        soft_cap: Option<f32>,
    },
    /// The emulation found a fault of a kernel.
    #[error("{kernel}: {fault}")]
    Fault {
        /// The kernel's name.
        kernel: &'static str,
        /// What it did, and which thread.
        fault: String,
    },
    /// Memory that a kernel had to write and did not.
    #[error("{bytes} bytes were never written")]
    Unwritten {
        /// How many there are.
        bytes: usize,
    },
    /// An operand is not where the kernel runs.
    #[error("an operand is on device {found}, and the kernel runs on {expected}")]
    Device {
        /// Where it is.
        found: usize,
        /// Where it should be.
        expected: usize,
    },
    /// A library of the driver or of CUDA is not there.
    #[cfg(feature = "cuda")]
    #[error(transparent)]
    Missing(#[from] afterimage_cuda_device::MissingLibrary),
    /// The driver refused something.
    #[cfg(feature = "cuda")]
    #[error("{action} failed")]
    Driver {
        /// What was tried.
        action: &'static str,
        /// The driver's answer.
        #[source]
        source: cudarc::driver::DriverError,
    },
}
