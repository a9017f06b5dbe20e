//! Activations, as `cuda/activation.cuh` numbers them.

/// What is applied to every value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Activation {
    /// `x * (1 + erf(x / sqrt(2))) / 2`
    Gelu = 1,
    /// GELU, tanh approximation.
    GeluTanh = 2,
    /// GELU as `x * sigmoid(1.702 x)`.
    QuickGelu = 3,
    /// `max(x, 0)`; what is not a number stays so.
    Relu = 4,
    /// `x * sigmoid(x)`
    Silu = 5,
}

impl Activation {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Gelu, Self::GeluTanh, Self::QuickGelu, Self::Relu, Self::Silu];

    /// The number of what may be none.
    pub(crate) fn number(activation: Option<Self>) -> u32 {
        activation.map_or(0, |activation| activation as u32)
    }
}
