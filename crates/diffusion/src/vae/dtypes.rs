//! What VAEs are kept and computed in.

use afterimage_checkpoint::Parameters;
use candle_core::{DType, Device};

use crate::ops::convolution::narrow_is_faster;

/// What weights are kept in. A choice for the model as a whole, not of an operator: convolutions take most of the time, and on a
/// CPU they are narrow where that is faster.
pub(super) fn weights_dtype(dtype: DType, device: &Device) -> DType {
    if device.is_cpu() && !narrow_is_faster() { DType::F32 } else { dtype }
}

/// What feature maps are kept in: on a CPU in f32, whatever is multiplied.
pub(super) fn map_dtype(parameters: &Parameters) -> DType {
    if parameters.device().is_cpu() { DType::F32 } else { parameters.dtype() }
}
