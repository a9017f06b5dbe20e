//! The epilogue of a linear layer on a GPU: a kernel that changes the product in place.

use candle_core::{Result, Tensor};

use super::activation::Activation;
use super::linear::Epilogue;

/// The epilogue of a product, whose storage is not shared.
#[cfg(feature = "cuda")]
pub(super) fn in_place(product: Tensor, epilogue: Epilogue<'_>) -> Result<Tensor> {
    let Epilogue { bias, activation, gate_and_residual } = epilogue;
    let gate = gate_and_residual.and_then(|onto| onto.gate);
    let residual = gate_and_residual.map(|onto| onto.residual);
    if bias.is_none() && activation.is_none() && residual.is_none() {
        return Ok(product);
    }
    on_gpu::Change::new(&product, bias, activation)?.gate(gate)?.residual(residual)?.apply(product)
}

/// `activation(gate) * (up + bias)` of two products; the second one's storage is not shared.
#[cfg(feature = "cuda")]
pub(super) fn in_place_gated(
    gate: Tensor,
    up: Tensor,
    bias: Option<&Tensor>,
    activation: Activation,
) -> Result<Tensor> {
    let gate = gate.reshape(((), up.dims().last().copied().unwrap_or(1)))?;
    on_gpu::Change::new(&up, bias, Some(activation))?.activated_gate(gate).apply(up)
}

/// An activation alone; the storage is not shared.
#[cfg(feature = "cuda")]
pub(super) fn activate_in_place(x: Tensor, activation: Activation) -> Result<Tensor> {
    on_gpu::Change::new(&x, None, Some(activation))?.apply(x)
}

#[cfg(not(feature = "cuda"))]
pub(super) fn in_place(product: Tensor, _: Epilogue<'_>) -> Result<Tensor> {
    candle_core::bail!("there are no kernels for {:?}", product.device())
}

#[cfg(not(feature = "cuda"))]
pub(super) fn in_place_gated(_: Tensor, up: Tensor, _: Option<&Tensor>, _: Activation) -> Result<Tensor> {
    candle_core::bail!("there are no kernels for {:?}", up.device())
}

#[cfg(not(feature = "cuda"))]
pub(super) fn activate_in_place(x: Tensor, _: Activation) -> Result<Tensor> {
    candle_core::bail!("there are no kernels for {:?}", x.device())
}

#[cfg(feature = "cuda")]
mod on_gpu {
    use afterimage_cuda_kernels as gpu;
    use candle_core::backend::BackendStorage;
    use candle_core::{CpuStorage, CudaStorage, DType, InplaceOp1, Layout, Result, Tensor};

    use super::Activation;
    use crate::ops::cuda;

    /// What is done to a product; all operands in its dtype.
    pub(super) struct Change {
        dtype: DType,
        outputs: usize,
        bias: Option<Tensor>,
        activation: Option<gpu::Activation>,
        /// `[rows, outputs]`, and whether the activation is of it.
        gate: Option<(Tensor, bool)>,
        residual: Option<Tensor>,
    }

    impl Change {
        pub(super) fn new(x: &Tensor, bias: Option<&Tensor>, activation: Option<Activation>) -> Result<Self> {
            let (dtype, outputs) = (x.dtype(), x.dims().last().copied().unwrap_or(1));
            let bias = bias.map(|bias| bias.to_dtype(dtype)?.contiguous()).transpose()?;
            Ok(Self {
                dtype,
                outputs,
                bias,
                activation: activation.map(Activation::on_gpu),
                gate: None,
                residual: None,
            })
        }

        pub(super) fn gate(self, gate: Option<&Tensor>) -> Result<Self> {
            let Some(gate) = gate else { return Ok(self) };
            let gate = gate.to_dtype(self.dtype)?;
            let gate = if gate.stride().last() == Some(&1) { gate } else { gate.contiguous()? };
            Ok(Self { gate: Some((gate, false)), ..self })
        }

        pub(super) fn activated_gate(self, gate: Tensor) -> Self {
            Self { gate: Some((gate, true)), ..self }
        }

        pub(super) fn residual(self, residual: Option<&Tensor>) -> Result<Self> {
            let dtype = self.dtype;
            let residual = residual.map(|residual| residual.to_dtype(dtype)?.contiguous()).transpose()?;
            Ok(Self { residual, ..self })
        }

        pub(super) fn apply(self, x: Tensor) -> Result<Tensor> {
            let x = x.contiguous()?;
            x.inplace_op1(&self)?;
            Ok(x)
        }
    }

    impl InplaceOp1 for Change {
        fn name(&self) -> &'static str {
            "epilogue"
        }

        fn cpu_fwd(&self, _: &mut CpuStorage, _: &Layout) -> Result<()> {
            candle_core::bail!("epilogues are part of the product on the CPU")
        }

        fn cuda_fwd(&self, x: &mut CudaStorage, layout: &Layout) -> Result<()> {
            let Some((start, end)) = layout.contiguous_offsets() else {
                candle_core::bail!("an epilogue wants contiguous values")
            };
            let (stream, value_type, outputs) = (x.device.cuda_stream(), cuda::value_type(x.dtype())?, self.outputs);
            let rows = (end - start) / outputs.max(1);
            let [bias, residual] =
                [&self.bias, &self.residual].map(|part| part.as_ref().map(Tensor::storage_and_layout));
            let gate = self.gate.as_ref().map(|(gate, is_activated)| (gate.storage_and_layout(), *is_activated));
            let mut operands = cuda::Operands::new(&stream, value_type);
            let gate = match &gate {
                Some(((storage, layout), is_activated)) => {
                    let (gates, _) = layout.shape().dims2()?;
                    let values = operands.read(cuda::storage(storage)?, layout)?;
                    let (stride, tokens) = (layout.stride()[0], rows / gates.max(1));
                    Some(gpu::Gate { values, stride, tokens, is_activated: *is_activated })
                }
                None => None,
            };
            let bias = match &bias {
                Some((storage, layout)) => Some(operands.contiguous(cuda::storage(storage)?, layout)?),
                None => None,
            };
            let residual = match &residual {
                Some((storage, layout)) => Some(operands.contiguous(cuda::storage(storage)?, layout)?),
                None => None,
            };
            let x = operands.written(x, start)?;
            let activation = self.activation;
            let epilogue = gpu::Epilogue {
                value_type,
                rows,
                outputs,
                x,
                x_stride: outputs,
                bias,
                activation,
                gate,
                residual,
                output: x,
            };
            operands.launch(epilogue.launch())
        }
    }
}
