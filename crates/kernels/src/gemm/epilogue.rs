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

    /// Writes the values of one row of a tile that C has, `output`, from their products.
    ///
    /// # Safety
    /// There are as many products as a tile has columns; the place is in C, and `output` points to it; [`Self::check`] was passed.
    #[inline(always)]
    pub(super) unsafe fn write<S: Simd, F: Curve>(&self, simd: S, products: *const f32, place: Place, output: *mut T) {
        let Place { row, column, outputs, length } = place;
        // SAFETY: by the conditions of this function, all of them have values for the whole row of C.
        let (bias, gate, residual) = unsafe {
            (
                self.bias.map(|bias| bias.as_ptr().add(column)),
                self.gate.map(|gate| gate.values.as_ptr().add(row / gate.rows * gate.stride + column)),
                self.residual.map(|residual| residual.as_ptr().add(row * outputs + column)),
            )
        };
        let whole = length / S::COUNT;
        // SAFETY: by the conditions of this function; no register goes beyond `length`.
        unsafe {
            for start in (0..S::TILE.1).map(|register| register * S::COUNT).take(whole) {
                let at = |values: Option<*const T>| values.map(|values| T::load(simd, values.add(start)));
                let parts = Parts { bias: at(bias), gate: at(gate), residual: at(residual) };
                T::store(simd, parts.finish::<F>(simd, simd.load(products.add(start))), output.add(start));
            }
            let (start, rest) = (whole * S::COUNT, length % S::COUNT);
            if rest > 0 {
                let at = |values: Option<*const T>| values.map(|values| T::load_some(simd, values.add(start), rest));
                let parts = Parts { bias: at(bias), gate: at(gate), residual: at(residual) };
                let value = parts.finish::<F>(simd, simd.load(products.add(start)));
                T::store_some(simd, value, output.add(start), rest);
            }
        }
    }
}

/// What an epilogue has for a register of products.
#[derive(Clone, Copy)]
struct Parts<S: Simd> {
    bias: Option<S::Lanes>,
    gate: Option<S::Lanes>,
    residual: Option<S::Lanes>,
}

impl<S: Simd> Parts<S> {
    #[inline(always)]
    fn finish<F: Curve>(self, simd: S, product: S::Lanes) -> S::Lanes {
        let value = F::apply(simd, self.bias.map_or(product, |bias| simd.add(product, bias)));
        match (self.gate, self.residual) {
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

/// An [`Activation`], or none, as a type: loops over values are compiled for each.
pub(super) trait Curve {
    fn apply<S: Simd>(simd: S, x: S::Lanes) -> S::Lanes;
}

/// Values as they are.
pub(super) struct Unchanged;
/// See [`Activation::GeluTanh`].
pub(super) struct GeluTanh;
/// See [`Activation::QuickGelu`].
pub(super) struct QuickGelu;
/// See [`Activation::Relu`].
pub(super) struct Relu;
/// See [`Activation::Silu`].
pub(super) struct Silu;

impl Curve for Unchanged {
    #[inline(always)]
    fn apply<S: Simd>(_: S, x: S::Lanes) -> S::Lanes {
        x
    }
}

impl Curve for GeluTanh {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, x: S::Lanes) -> S::Lanes {
        simd.gelu_tanh(x)
    }
}

impl Curve for QuickGelu {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, x: S::Lanes) -> S::Lanes {
        simd.silu_of(x, simd.mul(x, simd.splat(1.702)))
    }
}

impl Curve for Relu {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, x: S::Lanes) -> S::Lanes {
        simd.max(x, simd.splat(0.0))
    }
}

impl Curve for Silu {
    #[inline(always)]
    fn apply<S: Simd>(simd: S, x: S::Lanes) -> S::Lanes {
        simd.silu_of(x, x)
    }
}

impl Activation {
    #[inline(always)]
    pub(crate) fn apply<S: Simd>(self, simd: S, x: S::Lanes) -> S::Lanes {
        match self {
            Self::GeluTanh => GeluTanh::apply(simd, x),
            Self::QuickGelu => QuickGelu::apply(simd, x),
            Self::Relu => Relu::apply(simd, x),
            Self::Silu => Silu::apply(simd, x),
        }
    }
}
