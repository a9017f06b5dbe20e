//! What is done to a tile of products while it is still in the cache.

use super::value::Value;
use crate::functions::Functions;
use crate::simd::Simd;

/// What is done to a product, in this order.
#[derive(Debug, Clone, Copy)]
pub struct Epilogue<'a, T> {
    /// `[outputs]`, added.
    pub bias: Option<&'a [T]>,
    /// Applied to every value.
    pub activation: Option<Activation>,
    /// `[rows / rows_per_gate, outputs]`: each row of it is a factor of as many rows.
    pub gate: Option<Gate<'a, T>>,
    /// `[rows, outputs]`, added.
    pub residual: Option<&'a [T]>,
}

/// Factors that some rows share.
#[derive(Debug, Clone, Copy)]
pub struct Gate<'a, T> {
    /// They begin `stride` apart.
    pub values: &'a [T],
    /// Values from one row of factors to the next.
    pub stride: usize,
    /// Rows of C that have the same factors.
    pub rows: usize,
}

/// Functions that are applied to every value of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// The tanh approximation of GELU.
    GeluTanh,
    /// `x * sigmoid(1.702 x)`
    QuickGelu,
    /// `max(x, 0)`
    Relu,
    /// `x * sigmoid(x)`
    Silu,
}

impl<T> Default for Epilogue<'_, T> {
    fn default() -> Self {
        Self { bias: None, activation: None, gate: None, residual: None }
    }
}

impl<T: Value> Epilogue<'_, T> {
    /// # Panics
    /// If a part has another length than C of `[rows, outputs]` needs.
    pub(super) fn check(&self, rows: usize, outputs: usize) {
        if let Some(bias) = self.bias {
            assert_eq!(bias.len(), outputs, "length of the bias");
        }
        if let Some(Gate { values, stride, rows: shared }) = self.gate {
            assert!(shared > 0 && rows.is_multiple_of(shared), "rows per gate");
            assert!(rows == 0 || (rows / shared - 1) * stride + outputs <= values.len(), "length of the gate");
        }
        if let Some(residual) = self.residual {
            assert_eq!(residual.len(), rows * outputs, "length of the residual");
        }
    }

    /// Writes the values of one row of a tile that C has, `output`, from their products. `row` and `column` are those of the
    /// first in C, `outputs` its columns.
    ///
    /// # Safety
    /// There are as many products as a tile has columns, and `output` points to as many values as `length`, which is at most that,
    /// and within the row.
    #[inline(always)]
    pub(super) unsafe fn write<S: Simd>(&self, simd: S, products: *const f32, place: Place, output: *mut T) {
        let Place { row, column, outputs, length } = place;
        let bias = self.bias.map(|bias| &bias[column..]);
        let gate = self.gate.map(|Gate { values, stride, rows }| &values[row / rows * stride + column..]);
        let residual = self.residual.map(|residual| &residual[row * outputs + column..]);
        let whole = length - length % S::COUNT;
        // SAFETY: by the conditions of this function, and `check`.
        unsafe {
            for start in (0..whole).step_by(S::COUNT) {
                let at = |values: Option<&[T]>| values.map(|values| T::load(simd, values.as_ptr().add(start)));
                let (bias, gate, residual) = (at(bias), at(gate), at(residual));
                let value = self.value(simd, simd.load(products.add(start)), bias, gate, residual);
                T::store(simd, value, output.add(start));
            }
            let rest = length - whole;
            if rest > 0 {
                let at =
                    |values: Option<&[T]>| values.map(|values| T::load_some(simd, values.as_ptr().add(whole), rest));
                let (bias, gate, residual) = (at(bias), at(gate), at(residual));
                let value = self.value(simd, simd.load(products.add(whole)), bias, gate, residual);
                T::store_some(simd, value, output.add(whole), rest);
            }
        }
    }

    #[inline(always)]
    fn value<S: Simd>(
        &self,
        simd: S,
        product: S::Lanes,
        bias: Option<S::Lanes>,
        gate: Option<S::Lanes>,
        residual: Option<S::Lanes>,
    ) -> S::Lanes {
        let mut value = product;
        if let Some(bias) = bias {
            value = simd.add(value, bias);
        }
        if let Some(activation) = self.activation {
            value = activation.apply(simd, value);
        }
        match (gate, residual) {
            (Some(gate), Some(residual)) => simd.mul_add(value, gate, residual),
            (Some(gate), None) => simd.mul(value, gate),
            (None, Some(residual)) => simd.add(value, residual),
            (None, None) => value,
        }
    }
}

/// Where a row of a tile is in C.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) row: usize,
    pub(super) column: usize,
    /// Columns of C.
    pub(super) outputs: usize,
    /// Columns of the tile that C has.
    pub(super) length: usize,
}

impl Activation {
    #[inline(always)]
    pub(crate) fn apply<S: Simd>(self, simd: S, x: S::Lanes) -> S::Lanes {
        match self {
            Self::GeluTanh => simd.gelu_tanh(x),
            Self::QuickGelu => simd.silu_of(x, simd.mul(x, simd.splat(1.702))),
            Self::Relu => simd.max(x, simd.splat(0.0)),
            Self::Silu => simd.silu_of(x, x),
        }
    }
}
