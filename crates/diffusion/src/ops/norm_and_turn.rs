//! The kernel behind [`rms_norm`](super::rms_norm) and [`rotary`](super::rotary) on the CPU and on GPUs.

#[cfg(feature = "cuda")]
use afterimage_cuda_kernels as gpu;
use afterimage_cuda_kernels::Pairs;
use afterimage_kernels::{self as kernels, NormAndTurn, Turn};
use candle_core::{CpuStorage, CustomOp1, DType, Layout, Result, Shape, Tensor};
#[cfg(feature = "cuda")]
use candle_core::{CudaStorage, CustomOp2, backend::BackendStorage};
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
    let change = Change::new(computed, norm, turn)?;
    evenly_spaced(&x.to_dtype(computed)?)?.apply_op1_no_bwd(&change)?.to_dtype(dtype)
}

/// Two sequences of `[rows, tokens, heads, size]` that kernels take, each changed in its own way: `[rows, tokens of both, heads,
/// size]`, the second one's tokens behind the first one's.
#[cfg(feature = "cuda")]
pub(super) fn joined([first, second]: [(&Tensor, Change); 2]) -> Result<Tensor> {
    let join = Join { first: first.1, second: second.1 };
    evenly_spaced(first.0)?.apply_op2_no_bwd(&evenly_spaced(second.0)?, &join)
}

/// The tensor itself, or one that is.
fn evenly_spaced(x: &Tensor) -> Result<Tensor> {
    if token_stride(x.layout()).is_some() { Ok(x.clone()) } else { x.contiguous() }
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

/// What becomes of every vector.
pub(super) struct Change {
    norm: Option<(Tensor, f32)>,
    turn: Option<(Tensor, Tensor, Pairs)>,
}

impl Change {
    /// Of values of this dtype.
    pub(super) fn new(
        dtype: DType,
        norm: Option<(&Tensor, f64)>,
        turn: Option<(&Tensor, &Tensor, Pairs)>,
    ) -> Result<Self> {
        Ok(Self {
            norm: norm.map(|(weight, eps)| -> Result<_> { Ok((weight.to_dtype(dtype)?, eps as f32)) }).transpose()?,
            // Kernels count tokens through all rows, and begin again where tables end.
            turn: turn
                .map(|(cosines, sines, pairs)| -> Result<_> {
                    let flat = |table: &Tensor| table.flatten_to(table.rank().saturating_sub(2));
                    Ok((flat(cosines)?, flat(sines)?, pairs))
                })
                .transpose()?,
        })
    }
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
        let mut result = cuda::allocate(&x.device, cuda::value_type(x.dtype())?, layout.shape().elem_count())?;
        self.launch((x, layout), &mut result, 0, None)?;
        Ok((result, layout.shape().clone()))
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

    /// Into a tensor from value `start` on.
    #[cfg(feature = "cuda")]
    fn launch(
        &self,
        (x, layout): (&CudaStorage, &Layout),
        output: &mut CudaStorage,
        start: usize,
        rows: Option<gpu::Rows>,
    ) -> Result<()> {
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
            output: operands.written(output, start)?,
            rows,
        };
        operands.launch(change.launch())
    }
}

/// Changes of two sequences that become one.
#[cfg(feature = "cuda")]
struct Join {
    first: Change,
    second: Change,
}

#[cfg(feature = "cuda")]
impl CustomOp2 for Join {
    fn name(&self) -> &'static str {
        "joined-heads"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        candle_core::bail!("on the CPU sequences are changed, and then joined")
    }

    fn cuda_fwd(
        &self,
        first: &CudaStorage,
        first_layout: &Layout,
        second: &CudaStorage,
        second_layout: &Layout,
    ) -> Result<(CudaStorage, Shape)> {
        let (rows, before, heads, size) = first_layout.shape().dims4()?;
        let (other_rows, behind, other_heads, other_size) = second_layout.shape().dims4()?;
        if (rows, heads, size) != (other_rows, other_heads, other_size) || first.dtype() != second.dtype() {
            candle_core::bail!("sequences that are joined have the same rows and heads, in the same dtype");
        }
        let shape = Shape::from((rows, before + behind, heads, size));
        let mut result = cuda::allocate(&first.device, cuda::value_type(first.dtype())?, shape.elem_count())?;
        let between = |tokens, between| Some(gpu::Rows { tokens, between });
        self.first.launch((first, first_layout), &mut result, 0, between(before, behind))?;
        let start = before * heads * size;
        self.second.launch((second, second_layout), &mut result, start, between(behind, before))?;
        Ok((result, shape))
    }
}
