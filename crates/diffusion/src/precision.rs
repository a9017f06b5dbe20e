//! The precision of weights and activations. It is chosen for a model as a whole, and so by its device here, when it is
//! loaded; operators compute in what they are given.

use candle_core::{DType, Device};

use crate::DiffusionError;

/// Precision of weights and activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// f32 on CPU.
    #[default]
    Auto,
    /// 32 bits.
    F32,
    /// bfloat16.
    Bf16,
    /// IEEE half precision; not on CPU.
    F16,
}

impl Precision {
    /// What a model is computed in on `device`.
    ///
    /// # Errors
    /// If that is f16 on a CPU.
    pub fn dtype(self, device: &Device) -> Result<DType, DiffusionError> {
        match self {
            Self::Auto if device.is_cpu() => Ok(DType::F32),
            Self::Auto | Self::Bf16 => Ok(DType::BF16),
            Self::F32 => Ok(DType::F32),
            Self::F16 if device.is_cpu() => {
                let reason = "is f16, which cannot be computed on a CPU; take f32 or bf16".to_owned();
                Err(DiffusionError::Option { option: "dtype", reason })
            }
            Self::F16 => Ok(DType::F16),
        }
    }

    /// What weights are stored in.
    pub fn stored(self) -> DType {
        match self {
            Self::Auto | Self::F32 => DType::F32,
            Self::Bf16 => DType::BF16,
            Self::F16 => DType::F16,
        }
    }
}
