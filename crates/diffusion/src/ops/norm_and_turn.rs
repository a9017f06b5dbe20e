//! The kernel behind [`rms_norm`](super::rms_norm) and [`rotary`](super::rotary) on the CPU and on GPUs.

use afterimage_cuda_kernels::Pairs;
use afterimage_kernels::{self as kernels, NormAndTurn, Turn};
use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
#[cfg(feature = "cuda")]
use candle_core::{CudaStorage, backend::BackendStorage};
use half::bf16;

use super::cpu::{KernelValue, answer, computed_dtype, lock, values};
#[cfg(feature = "cuda")]
use super::cuda;
use super::cuda::has_kernels;

/// Norms the vectors of the last dimension by a weight and epsilon, and turns their pairs by cosines and sines,
/// `[tokens, size / 2]` for all rows or `[rows, tokens, size / 2]`, f32, in which case `x` is `[rows, tokens, heads, size]`.
/// Heads may be a part of longer tokens. The CPU turns neighbours only.
pub(super) fn norm_and_turn(
    x: &Tensor,
    norm: Option<(&Tensor, f64)>,
    turn: Option<(&Tensor, &Tensor, Pairs)>,
) -> Result<Tensor> {
    let dtype = x.dtype();
    let computed = if has_kernels(x) { dtype } else { computed_dtype(dtype) };
    let x = x.to_dtype(computed)?;
    let x = if token_stride(x.layout()).is_some() { x } else { x.contiguous()? };
    let change = Change {
        norm: norm.map(|(weight, eps)| -> Result<_> { Ok((weight.to_dtype(computed)?, eps as f32)) }).transpose()?,
        // Kernels count tokens through all rows, and begin again where tables end.
        turn: turn
            .map(|(cosines, sines, pairs)| -> Result<_> {
                let flat = |table: &Tensor| table.flatten_to(table.rank().saturating_sub(2));
                Ok((flat(cosines)?, flat(sines)?, pairs))
            })
            .transpose()?,
    };
    x.apply_op1_no_bwd(&change)?.to_dtype(dtype)
}

/// Values from one token of `[rows, tokens, heads, size]` to the next, if they are evenly spaced and a token's lie side by
/// side; other tensors are tokens of one vector each if they are contiguous.
fn token_stride(layout: &Layout) -> Option<usize> {
    match (layout.dims(), layout.stride()) {
        ([rows, tokens, heads, size], [row, token, head, 1]) => {
            let is_even = (*rows == 1 || *row == token * tokens) && (*heads == 1 || head == size);
            is_even.then_some(if rows * tokens == 1 { heads * size } else { *token })
        }
        (dims, _) => layout.is_contiguous().then(|| dims.last().copied().unwrap_or(1)),
    }
}

struct Change {
    norm: Option<(Tensor, f32)>,
    turn: Option<(Tensor, Tensor, Pairs)>,
}

impl CustomOp1 for Change {
    fn name(&self) -> &'static str {
        "norm-and-turn"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        match x {
            CpuStorage::BF16(_) => self.run::<bf16>(x, layout),
            _ => self.run::<f32>(x, layout),
        }
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        self.run_on_gpu(x, layout)
    }
}

impl Change {
    fn run<T: KernelValue>(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let Some(stride) = token_stride(layout) else { candle_core::bail!("tokens are evenly spaced") };
        let dims = layout.dims();
        let size = dims.last().copied().unwrap_or(1);
        let vectors = if dims.len() == 4 { dims[2] } else { 1 };
        let norm = self.norm.as_ref().map(|(weight, eps)| (lock(weight), *eps));
        let norm = norm.as_ref().map(|(weight, eps)| -> Result<_> { Ok((weight.contiguous::<T>()?, *eps)) });
        if self.turn.as_ref().is_some_and(|(.., pairs)| *pairs != Pairs::Neighbours) {
            candle_core::bail!("on the CPU pairs are neighbours");
        }
        let turn = self.turn.as_ref().map(|(cosines, sines, _)| (lock(cosines), lock(sines)));
        let turn = turn.as_ref().map(|(cosines, sines)| -> Result<_> {
            Ok(Turn { cosines: cosines.contiguous()?, sines: sines.contiguous()? })
        });
        let mut output = vec![T::zero(); layout.shape().elem_count()];
        let change = NormAndTurn { vectors, size, norm: norm.transpose()?, turn: turn.transpose()? };
        kernels::norm_and_turn(&change, values::<T>(x, layout)?, stride, &mut output);
        Ok(answer(output, layout.shape().clone()))
    }

    #[cfg(feature = "cuda")]
    fn run_on_gpu(&self, x: &CudaStorage, layout: &Layout) -> Result<(CudaStorage, Shape)> {
        use afterimage_cuda_kernels as gpu;

        let Some(stride) = token_stride(layout) else { candle_core::bail!("tokens are evenly spaced") };
        let (dims, values) = (layout.dims(), layout.shape().elem_count());
        let size = dims.last().copied().unwrap_or(1);
        let vectors = if dims.len() == 4 { dims[2] } else { 1 };
        let (stream, value_type) = (x.device.cuda_stream(), cuda::value_type(x.dtype())?);
        let norm = self.norm.as_ref().map(|(weight, eps)| (weight.storage_and_layout(), *eps));
        let turn = self
            .turn
            .as_ref()
            .map(|(cosines, sines, pairs)| (cosines.storage_and_layout(), sines.storage_and_layout(), *pairs));
        let mut result = cuda::allocate(&x.device, value_type, values)?;
        let mut operands = cuda::Operands::new(&stream, value_type);
        let change = gpu::NormAndTurn {
            value_type,
            tokens: values / (vectors * size).max(1),
            vectors,
            size,
            x: operands.read(x, layout)?,
            stride,
            norm: match &norm {
                Some((weight, eps)) => Some((operands.contiguous(cuda::storage(&weight.0)?, weight.1)?, *eps)),
                None => None,
            },
            turn: match &turn {
                Some((cosines, sines, pairs)) => Some(gpu::Turn {
                    cosines: operands.contiguous_f32(cuda::storage(&cosines.0)?, cosines.1)?,
                    sines: operands.contiguous_f32(cuda::storage(&sines.0)?, sines.1)?,
                    tokens: cosines.1.dims()[0],
                    pairs: *pairs,
                }),
                None => None,
            },
            output: operands.written(&mut result, 0)?,
        };
        operands.launch(change.launch())?;
        Ok((result, layout.shape().clone()))
    }
}
