//! What kernels read and write.

/// The type of values in memory. Kernels compute in f32 whatever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ValueType {
    /// 32 bits.
    F32,
    /// 16 bits, 11 of which are the number's.
    F16,
    /// 16 bits, 8 of which are the number's.
    Bf16,
}

impl ValueType {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::Bf16];

    /// Of a value.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// Values that a thread can read at once.
    pub(crate) fn widest(self) -> usize {
        16 / self.bytes()
    }

    /// What there is of in this order: for f32, f16, bf16.
    pub(crate) fn of<T>(self, [f32, f16, bf16]: [T; 3]) -> T {
        match self {
            Self::F32 => f32,
            Self::F16 => f16,
            Self::Bf16 => bf16,
        }
    }
}
