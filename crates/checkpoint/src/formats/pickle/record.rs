//! A tensor as PyTorch pickles it.

use ::safetensors::Dtype;

use super::machine::{Pickle, Value};
use crate::shown::shortened;
use crate::stored::tensor::{StoredTensor, is_countable, strided_span};

/// Most dimensions: weights have up to five.
const MAX_DIMENSIONS: usize = 8;

/// The arguments of PyTorch's `_rebuild_tensor_v2(storage, offset, size, stride, ..)`.
pub(super) struct TensorRecord<'a> {
    pub(super) storage: &'a str,
    dtype: Dtype,
    offset: usize,
    shape: Vec<usize>,
    strides: Vec<usize>,
}

impl<'a> TensorRecord<'a> {
    /// Reads a pickled tensor or parameter; the error says what was found instead.
    pub(super) fn parse(pickle: &Pickle<'a>, value: Value<'a>) -> Result<Self, String> {
        // A parameter is a tensor in a wrapper.
        let tensor = match pickle.call(value) {
            Some(("_rebuild_parameter", [tensor, ..])) => *tensor,
            _ => value,
        };
        match pickle.call(tensor) {
            Some(("_rebuild_tensor_v2", [storage, offset, shape, strides, ..])) => {
                let (storage, dtype) = parse_storage(pickle, *storage)?;
                let (shape, strides) = (parse_sizes(pickle, *shape)?, parse_sizes(pickle, *strides)?);
                Ok(Self { storage, dtype, offset: parse_size(pickle, *offset)?, shape, strides })
            }
            _ => Err(pickle.describe(tensor)),
        }
    }

    /// The tensor, if it lies inside its storage of so many bytes, which starts at `start`.
    pub(super) fn within(self, start: u64, storage_bytes: u64) -> Result<StoredTensor, String> {
        let element_bytes = self.dtype.bitsize() / 8;
        let end = (self.shape.len() == self.strides.len())
            .then(|| strided_span(&self.shape, &self.strides))
            .flatten()
            .and_then(|span| span.checked_add(self.offset)?.checked_mul(element_bytes));
        if !is_countable(&self.shape) || end.is_none_or(|end| end as u64 > storage_bytes) {
            return Err(format!(
                "shape {:?} with strides {:?} from element {} on does not fit its storage of {storage_bytes} bytes",
                self.shape, self.strides, self.offset,
            ));
        }
        let offset = start + (self.offset * element_bytes) as u64;
        Ok(StoredTensor::strided(self.dtype, self.shape, self.strides, offset))
    }
}

/// `("storage", class, key, device, elements)`: the key of a storage and its element type.
fn parse_storage<'a>(pickle: &Pickle<'a>, value: Value<'a>) -> Result<(&'a str, Dtype), String> {
    if let Some([_, Value::Class(class), Value::Text(key), ..]) = pickle.stored(value) {
        let dtype = match *class {
            "FloatStorage" => Dtype::F32,
            "HalfStorage" => Dtype::F16,
            "BFloat16Storage" => Dtype::BF16,
            "DoubleStorage" => Dtype::F64,
            "LongStorage" => Dtype::I64,
            "IntStorage" => Dtype::I32,
            "ShortStorage" => Dtype::I16,
            "CharStorage" => Dtype::I8,
            "ByteStorage" => Dtype::U8,
            "BoolStorage" => Dtype::BOOL,
            other => return Err(format!("a tensor of the unknown kind {}", shortened(other))),
        };
        return Ok((key, dtype));
    }
    Err("a tensor without a readable storage".to_owned())
}

fn parse_size(pickle: &Pickle<'_>, value: Value<'_>) -> Result<usize, String> {
    let size = match value {
        Value::Integer(size) => usize::try_from(size).ok(),
        _ => None,
    };
    size.ok_or_else(|| match value {
        Value::Integer(size) => format!("a tensor with the impossible size {size}"),
        other => format!("a tensor with {} as a size", pickle.describe(other)),
    })
}

fn parse_sizes<'a>(pickle: &Pickle<'a>, value: Value<'a>) -> Result<Vec<usize>, String> {
    match pickle.tuple(value) {
        Some(sizes) if sizes.len() > MAX_DIMENSIONS => Err(format!("a tensor of {} dimensions", sizes.len())),
        Some(sizes) => sizes.iter().map(|size| parse_size(pickle, *size)).collect(),
        None => Err("a tensor without a shape".to_owned()),
    }
}
