//! Values that a file has in another form than the model, changed when they are read.

use candle_core::{DType, Result, Tensor};

use super::matrix::{BlockRows, MatrixValues, StoredMatrix};

/// What is stored in the place of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrangement {
    /// Every value and one.
    OneAbove,
    /// The rows of each head as pairs: the first of its first half, the first of its second half, the second of its first half
    /// and so on.
    PairedRows { heads: usize },
}

impl Arrangement {
    /// The tensor in `dtype`; `read` reads what is stored.
    pub(crate) fn undone<E: From<candle_core::Error>>(
        self,
        dtype: DType,
        read: impl FnOnce(DType) -> std::result::Result<Tensor, E>,
    ) -> std::result::Result<Tensor, E> {
        Ok(match self {
            // Rounded once: in a narrow dtype one above is coarser than the value.
            Self::OneAbove => (read(DType::F32)? - 1.0)?.to_dtype(dtype)?,
            Self::PairedRows { heads } => in_halves(&read(dtype)?, heads)?,
        })
    }

    /// The same for a matrix, whose blocks stay as they are.
    pub(crate) fn undone_matrix(self, matrix: StoredMatrix) -> Result<StoredMatrix> {
        let Self::PairedRows { heads } = self else {
            candle_core::bail!("no matrix is stored with one added");
        };
        match &matrix.values {
            MatrixValues::Plain(weights) => Ok(StoredMatrix::dense(in_halves(weights, heads)?)),
            MatrixValues::Float8(_) => candle_core::bail!("no matrix of fp8 is stored in pairs of rows"),
            MatrixValues::Blocks(blocks) => {
                let row_bytes = blocks.bytes().len() / matrix.outputs.max(1);
                let row = |row: u32| blocks.bytes()[row as usize * row_bytes..][..row_bytes].chunks_exact(2);
                let pairs = places(matrix.outputs, heads).flat_map(row);
                let pairs = pairs.map(|pair| u16::from_ne_bytes([pair[0], pair[1]])).collect();
                let rows = BlockRows::new(blocks.dtype(), pairs, matrix.inputs);
                Ok(StoredMatrix::blocks(rows, matrix.outputs))
            }
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "weights are being read")]
fn in_halves(paired: &Tensor, heads: usize) -> Result<Tensor> {
    let places: Vec<_> = places(paired.dim(0)?, heads).collect();
    paired.index_select(&Tensor::new(places, paired.device())?, 0)
}

/// Where each row of `rows` in halves is in pairs. Heads have an even number of rows.
fn places(rows: usize, heads: usize) -> impl Iterator<Item = u32> {
    let size = rows / heads.max(1);
    let half = (size / 2).max(1);
    (0..rows).map(move |row| {
        let (head, within) = (row / (2 * half), row % (2 * half));
        (head * size + 2 * (within % half) + within / half) as u32
    })
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use candle_core::quantized::GgmlDType;

    use super::*;

    #[test]
    fn pairs_become_halves() {
        let places: Vec<_> = places(12, 2).collect();
        assert_eq!(places, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
    }

    #[test]
    fn blocks_are_moved_as_they_are() {
        let row = |number: u16| [number; 17];
        let blocks = BlockRows::new(GgmlDType::Q8_0, (0..4).flat_map(row).collect(), 32);
        let matrix = StoredMatrix::blocks(blocks, 4);
        let moved = Arrangement::PairedRows { heads: 1 }.undone_matrix(matrix).unwrap();
        let MatrixValues::Blocks(blocks) = &moved.values else { panic!("no blocks") };
        let expected: Vec<u16> = [0, 2, 1, 3].into_iter().flat_map(row).collect();
        assert_eq!(blocks.bytes(), bytemuck::cast_slice::<u16, u8>(&expected));
        assert_eq!((moved.outputs, moved.inputs), (4, 32));
    }

    #[test]
    fn one_is_subtracted_before_rounding() {
        let stored = Tensor::new(&[1.0 + 1.0 / 256.0, 0.5f32, 3.0], &Device::Cpu).unwrap();
        let read = |dtype| -> Result<Tensor> { stored.to_dtype(dtype) };
        let found = Arrangement::OneAbove.undone(DType::BF16, read).unwrap().to_dtype(DType::F32).unwrap();
        assert_eq!(found.to_vec1::<f32>().unwrap(), [1.0 / 256.0, -0.5, 2.0]);
    }
}
