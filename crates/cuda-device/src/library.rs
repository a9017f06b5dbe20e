//! The libraries, and what is answered where a function is missing.

use std::ffi::c_int;

/// A library of the NVIDIA driver or of CUDA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Library {
    /// The driver itself.
    Driver,
    /// Products of matrices with what is done to them after.
    CublasLt,
    /// Products of matrices.
    Cublas,
    /// Random numbers.
    Curand,
    /// The compiler at run time.
    Nvrtc,
}

impl Library {
    /// In an order in which each finds those it needs itself.
    pub(crate) const ALL: [Self; 5] = [Self::Driver, Self::CublasLt, Self::Cublas, Self::Curand, Self::Nvrtc];

    /// The file's name, with the version that this program was built for.
    pub fn file(self) -> &'static str {
        match self {
            Self::Driver => "libcuda.so.1",
            Self::CublasLt => "libcublasLt.so.13",
            Self::Cublas => "libcublas.so.13",
            Self::Curand => "libcurand.so.10",
            Self::Nvrtc => "libnvrtc.so.13",
        }
    }

    /// Where it comes from, for people who lack it.
    pub(crate) fn source(self) -> &'static str {
        match self {
            Self::Driver => "it comes with the NVIDIA driver, version 580 or newer",
            Self::CublasLt | Self::Cublas | Self::Curand | Self::Nvrtc => {
                "it comes with CUDA 13; set CUDA_HOME or LD_LIBRARY_PATH to where it is"
            }
        }
    }

    /// What every one of its functions answers where the library lacks it. Each is a status of that library: not
    /// found, not initialised, not initialised, internal error.
    pub(crate) fn failure(self) -> unsafe extern "C" fn() -> c_int {
        match self {
            Self::Driver => failed::<500>,
            Self::CublasLt | Self::Cublas => failed::<1>,
            Self::Curand => failed::<101>,
            Self::Nvrtc => failed::<11>,
        }
    }
}

/// Takes any arguments, in registers and on the caller's stack, and looks at none.
unsafe extern "C" fn failed<const STATUS: c_int>() -> c_int {
    STATUS
}
