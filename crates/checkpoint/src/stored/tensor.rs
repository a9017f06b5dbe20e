//! One tensor inside a weight file, and reading it in the dtype the model runs in.

use std::borrow::Cow;
use std::ops::Range;

use ::safetensors::Dtype;
use bytemuck::Pod;
use candle_core::quantized::GgmlDType;
use candle_core::{CpuStorage, DType, Device, Tensor, WithDType};
use half::slice::{HalfBitsSliceExt, HalfFloatSliceExt};
use half::vec::HalfBitsVecExt;
use half::{bf16, f16};

use crate::CheckpointError;
use crate::stored::encoding::Encoding;
use crate::stored::float8::{Float8, Scale};
use crate::stored::source::Source;

// Weight files are little-endian and are read without swapping bytes.
#[cfg(target_endian = "big")]
compile_error!("weight files can only be read on little-endian machines");

/// Elements converted at a time: 4 MB of f32, small beside any model and large beside a system call.
const CHUNK_ELEMENTS: usize = 1 << 20;

/// Where a tensor lies and what it is.
#[derive(Debug, Clone)]
pub(crate) struct StoredTensor {
    /// Index of the file that holds it.
    pub source: usize,
    /// What the elements are in the file.
    pub encoding: Encoding,
    /// Dimensions.
    pub shape: Vec<usize>,
    /// What fp8 numbers are multiplied with; of others, 1.
    pub scale: Scale,
    /// Element strides, where the elements are not stored in row-major order without gaps.
    strides: Option<Vec<usize>>,
    /// Offset of the first element in the file, in bytes.
    offset: u64,
}

impl StoredTensor {
    /// A tensor stored in row-major order from `offset` on.
    pub(crate) fn contiguous(encoding: Encoding, shape: Vec<usize>, offset: u64) -> Self {
        Self { source: 0, encoding, shape, scale: Scale::ONE, strides: None, offset }
    }

    /// A tensor whose element `[i, j, ..]` lies `i * strides[0] + j * strides[1] + ..` elements
    /// after `offset`.
    pub(crate) fn strided(dtype: Dtype, shape: Vec<usize>, strides: Vec<usize>, offset: u64) -> Self {
        let strides = (strides != row_major_strides(&shape)).then_some(strides);
        Self { strides, ..Self::contiguous(Encoding::Plain(dtype), shape, offset) }
    }

    /// The same in the file of this index.
    pub(crate) fn in_source(self, source: usize) -> Self {
        Self { source, ..self }
    }

    /// Some rows, where they lie one after the other; a row is what has one index of the first
    /// dimension.
    pub(crate) fn rows(&self, rows: Range<usize>) -> Option<Self> {
        let (count, row_shape) = self.shape.split_first()?;
        if self.strides.is_some() || rows.start > rows.end || rows.end > *count {
            return None;
        }
        let before = self.encoding.bytes(rows.start * row_shape.iter().product::<usize>());
        let shape = [&[rows.len()], row_shape].concat();
        let offset = self.offset + before as u64;
        Some(Self { shape, scale: self.scale.rows(rows), offset, strides: None, ..*self })
    }

    /// Bytes of all elements.
    pub(crate) fn bytes(&self) -> usize {
        self.encoding.bytes(self.elements())
    }

    /// The bytes as they are stored, in values of that many.
    pub(crate) fn stored<T: Pod + Send>(&self, source: &Source) -> Result<Vec<T>, CheckpointError> {
        Span { source, offset: self.offset, elements: self.bytes() / size_of::<T>() }.same()
    }

    /// All values of a tensor that is stored in row-major order, in f32.
    pub(crate) fn f32_values(&self, name: &str, source: &Source) -> Result<Vec<f32>, CheckpointError> {
        let span = Span { source, offset: self.offset, elements: self.elements() };
        match self.encoding {
            Encoding::Plain(stored) => {
                span.f32_values(stored)?.ok_or_else(|| unreadable(name, source, self.encoding, DType::F32))
            }
            Encoding::Float8(format) => {
                let mut values = span.float8_values(format)?;
                self.scale.multiply(&mut values, self.shape.iter().skip(1).product());
                Ok(values)
            }
            Encoding::Blocks(blocks) => {
                let bytes = self.stored::<u16>(source)?;
                Ok(dequantised(blocks, bytemuck::cast_slice(&bytes), self.elements())?)
            }
        }
    }

    /// Whether the tensor could be read as `wanted`, as far as its header says.
    pub(crate) fn check(&self, name: &str, source: &Source, wanted: DType) -> Result<(), CheckpointError> {
        let is_wanted = matches!(wanted, DType::F32 | DType::F16 | DType::BF16);
        match self.encoding {
            Encoding::Plain(Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16) if is_wanted => Ok(()),
            Encoding::Float8(_) | Encoding::Blocks(_) if is_wanted => Ok(()),
            stored => Err(unreadable(name, source, stored, wanted)),
        }
    }

    /// Reads the tensor as `wanted` onto `device`.
    #[allow(clippy::disallowed_methods, reason = "weights are being read")]
    pub(crate) fn read(
        &self,
        name: &str,
        source: &Source,
        wanted: DType,
        device: &Device,
    ) -> Result<Tensor, CheckpointError> {
        let stored = match self.encoding {
            Encoding::Plain(stored) => stored,
            Encoding::Float8(_) | Encoding::Blocks(_) => {
                let values = self.f32_values(name, source)?;
                return Ok(Tensor::from_vec(values, self.shape.as_slice(), device)?.to_dtype(wanted)?);
            }
        };
        let span = Span { source, offset: self.offset, elements: self.span_elements() };
        let read = match wanted {
            DType::F32 => span.f32_values(stored)?.map(|values| self.tensor(values, device)),
            DType::F16 => span.f16_values(stored)?.map(|values| self.tensor(values, device)),
            DType::BF16 => span.bf16_values(stored)?.map(|values| self.tensor(values, device)),
            _ => None,
        };
        read.unwrap_or_else(|| Err(unreadable(name, source, self.encoding, wanted)))
    }

    #[allow(clippy::disallowed_methods, reason = "weights are being read")]
    fn tensor<T: WithDType>(&self, span: Vec<T>, device: &Device) -> Result<Tensor, CheckpointError> {
        let values = match &self.strides {
            None => span,
            Some(strides) => in_row_major_order(&span, &self.shape, strides),
        };
        Ok(Tensor::from_vec(values, self.shape.as_slice(), device)?)
    }

    fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Elements from the first to the last one in the file.
    fn span_elements(&self) -> usize {
        match &self.strides {
            None => self.elements(),
            Some(strides) => strided_span(&self.shape, strides).unwrap_or(0),
        }
    }
}

/// The numbers in whole blocks.
pub(crate) fn dequantised(dtype: GgmlDType, blocks: &[u8], elements: usize) -> candle_core::Result<Vec<f32>> {
    match dtype.from_data(Cow::Borrowed(blocks)).dequantize(elements)? {
        CpuStorage::F32(values) => Ok(values),
        _ => candle_core::bail!("{dtype:?} does not dequantise to f32"),
    }
}

fn unreadable(name: &str, source: &Source, stored: Encoding, wanted: DType) -> CheckpointError {
    source.damaged(format!(
        "tensor `{name}` is stored as {stored} and asked for as {wanted:?}; read are F32, F16, BF16, F64, F8_E4M3 and \
         F8_E5M2, as F32, F16 or BF16 (docs/weights.md)"
    ))
}

/// A run of elements in a file.
struct Span<'a> {
    source: &'a Source,
    offset: u64,
    elements: usize,
}

impl Span<'_> {
    /// All elements, stored as `stored`, in f32; `None` if those are no floats.
    fn f32_values(&self, stored: Dtype) -> Result<Option<Vec<f32>>, CheckpointError> {
        Ok(Some(match stored {
            Dtype::F32 => self.same::<f32>()?,
            Dtype::F16 => self.converted(0f32, |from: &[u16], to| {
                from.reinterpret_cast::<f16>().convert_to_f32_slice(to);
            })?,
            Dtype::BF16 => self.converted(0f32, |from: &[u16], to| {
                from.reinterpret_cast::<bf16>().convert_to_f32_slice(to);
            })?,
            Dtype::F64 => self.converted(0f32, |from: &[f64], to| each(from, to, |value| value as f32))?,
            _ => return Ok(None),
        }))
    }

    /// fp8 without its scale.
    fn float8_values(&self, format: Float8) -> Result<Vec<f32>, CheckpointError> {
        let table = format.values();
        self.converted(0f32, |from: &[u8], to| each(from, to, |byte| table[usize::from(byte)]))
    }

    /// The same in f16. PyTorch narrows f64 by way of f32, too.
    fn f16_values(&self, stored: Dtype) -> Result<Option<Vec<f16>>, CheckpointError> {
        Ok(Some(match stored {
            Dtype::F16 => self.same::<u16>()?.reinterpret_into::<f16>(),
            Dtype::F32 => self.converted(f16::ZERO, |from: &[f32], to: &mut [f16]| to.convert_from_f32_slice(from))?,
            Dtype::BF16 => self.converted(f16::ZERO, |from: &[u16], to| {
                each(from, to, |bits| f16::from_f32(bf16::from_bits(bits).to_f32()));
            })?,
            Dtype::F64 => self.converted(f16::ZERO, |from: &[f64], to| {
                each(from, to, |value| f16::from_f32(value as f32));
            })?,
            _ => return Ok(None),
        }))
    }

    /// The same in bf16.
    fn bf16_values(&self, stored: Dtype) -> Result<Option<Vec<bf16>>, CheckpointError> {
        Ok(Some(match stored {
            Dtype::BF16 => self.same::<u16>()?.reinterpret_into::<bf16>(),
            Dtype::F32 => self.converted(bf16::ZERO, |from: &[f32], to: &mut [bf16]| {
                each(from, to, |value| bf16::from_bits(bf16_bits(value)));
            })?,
            Dtype::F16 => self.converted(bf16::ZERO, |from: &[u16], to| {
                each(from, to, |bits| bf16::from_f32(f16::from_bits(bits).to_f32()));
            })?,
            Dtype::F64 => self.converted(bf16::ZERO, |from: &[f64], to| {
                each(from, to, |value| bf16::from_bits(bf16_bits(value as f32)));
            })?,
            _ => return Ok(None),
        }))
    }

    /// Reads the elements as they are into their final buffer.
    fn same<T: Pod + Send>(&self) -> Result<Vec<T>, CheckpointError> {
        let mut values = vec![T::zeroed(); self.elements];
        in_parallel(&mut values, |first, part| {
            let offset = self.offset + (first * size_of::<T>()) as u64;
            self.source.read_exact_at(bytemuck::cast_slice_mut(part), offset)
        })?;
        Ok(values)
    }

    /// Reads the elements chunk by chunk and converts them into their final buffer.
    fn converted<S: Pod, T: Copy + Send>(
        &self,
        zero: T,
        convert: impl Fn(&[S], &mut [T]) + Sync,
    ) -> Result<Vec<T>, CheckpointError> {
        let mut values = vec![zero; self.elements];
        in_parallel(&mut values, |first, part| {
            let mut scratch = vec![S::zeroed(); part.len().min(CHUNK_ELEMENTS)];
            let mut offset = self.offset + (first * size_of::<S>()) as u64;
            for chunk in part.chunks_mut(CHUNK_ELEMENTS) {
                let stored = &mut scratch[..chunk.len()];
                self.source.read_exact_at(bytemuck::cast_slice_mut(stored), offset)?;
                convert(stored, chunk);
                offset += size_of_val(stored) as u64;
            }
            Ok(())
        })?;
        Ok(values)
    }
}

/// Fills `values` on all cores: most of the time goes into copying and into the first touch of
/// fresh memory. `fill` gets the index of its part's first element.
fn in_parallel<T: Send>(
    values: &mut [T],
    fill: impl Fn(usize, &mut [T]) -> Result<(), CheckpointError> + Sync,
) -> Result<(), CheckpointError> {
    if values.len() <= CHUNK_ELEMENTS {
        return fill(0, values);
    }
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get());
    let part_len = values.len().div_ceil(threads).max(CHUNK_ELEMENTS);
    std::thread::scope(|scope| {
        let parts: Vec<_> = values
            .chunks_mut(part_len)
            .enumerate()
            .map(|(index, part)| {
                scope.spawn({
                    let fill = &fill;
                    move || fill(index * part_len, part)
                })
            })
            .collect();
        parts.into_iter().try_for_each(|part| part.join().expect("reading and converting do not panic"))
    })
}

fn each<S: Copy, T>(from: &[S], to: &mut [T], convert: impl Fn(S) -> T) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = convert(*from);
    }
}

/// Rounds to the nearest bf16, ties to even. Unlike half's conversion it has no branch that depends
/// on the value, so the compiler makes vector code of it.
fn bf16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let ties_to_even = (bits >> 16) & 1;
    let rounded = bits.wrapping_add(0x7fff + ties_to_even);
    let quiet_nan = bits | 0x0040_0000;
    ((if value.is_nan() { quiet_nan } else { rounded }) >> 16) as u16
}

/// Whether the bits of all elements can be counted, also where a dimension of 0 hides what the others say.
pub(crate) fn is_countable(shape: &[usize]) -> bool {
    // No encoding takes more than 64 bits an element.
    shape.iter().try_fold(64usize, |bits, size| bits.checked_mul((*size).max(1))).is_some()
}

fn row_major_strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for axis in (1..shape.len()).rev() {
        strides[axis - 1] = strides[axis].saturating_mul(shape[axis]);
    }
    strides
}

/// Elements from the first to the last one of a strided tensor; `None` if that overflows.
pub(crate) fn strided_span(shape: &[usize], strides: &[usize]) -> Option<usize> {
    if shape.contains(&0) {
        return Some(0);
    }
    shape
        .iter()
        .zip(strides)
        .try_fold(1usize, |span, (size, stride)| span.checked_add((size - 1).checked_mul(*stride)?))
}

fn in_row_major_order<T: Copy>(span: &[T], shape: &[usize], strides: &[usize]) -> Vec<T> {
    let mut values = Vec::with_capacity(shape.iter().product());
    push_axis(span, 0, shape, strides, &mut values);
    values
}

fn push_axis<T: Copy>(span: &[T], start: usize, shape: &[usize], strides: &[usize], values: &mut Vec<T>) {
    match (shape, strides) {
        ([size], [stride]) => values.extend((0..*size).map(|i| span[start + i * stride])),
        ([size, shape @ ..], [stride, strides @ ..]) => {
            for i in 0..*size {
                push_axis(span, start + i * stride, shape, strides, values);
            }
        }
        _ => values.extend(span.get(start)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_as_half_does() {
        let lower_halves = [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff];
        for upper in 0..=u32::from(u16::MAX) {
            for lower in lower_halves {
                let value = f32::from_bits(upper << 16 | lower);
                assert_eq!(bf16_bits(value), bf16::from_f32(value).to_bits(), "{value:e}");
            }
        }
    }

    #[test]
    fn large_tensors_are_read_in_parts() {
        let values: Vec<f32> = (0..2 * CHUNK_ELEMENTS as u32 + 7).map(|index| index as f32).collect();
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let source = Source::memory("large", bytes);
        let span = Span { source: &source, offset: 4, elements: values.len() - 1 };
        assert_eq!(span.same::<f32>().unwrap(), values[1..]);
        let copied = span.converted(0f32, |from: &[f32], to| to.copy_from_slice(from));
        assert_eq!(copied.unwrap(), values[1..]);
        let beyond = Span { offset: 8, ..span };
        assert!(beyond.same::<f32>().is_err());
    }
}
