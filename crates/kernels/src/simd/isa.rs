//! The instruction set that kernels run on.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

#[cfg(target_arch = "x86_64")]
use super::x86_amx::Amx;

/// Characters of a wrong name that an error repeats.
const MOST_SHOWN: usize = 80;

/// Sets of vector instructions, narrowest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// What the compiler makes of ordinary Rust: SSE2 on x86-64, NEON on 64-bit ARM.
    Portable,
    /// AVX2, FMA and F16C: 8 lanes of f32.
    Avx2,
    /// The same with VNNI: sums of products of integers of 8 bits.
    Avx2Vnni,
    /// AVX-512 F, BW, DQ and VL: 16 lanes.
    Avx512,
    /// The same with VNNI.
    Avx512Vnni,
    /// The same with BF16: sums of products of bf16.
    Avx512Bf16,
    /// The same with AMX: products of tiles of bf16 and of integers of 8 bits.
    Amx,
    /// The shapes of AVX-512 with BF16, without its instructions.
    #[cfg(test)]
    EmulatedAvx512Bf16,
    /// The shapes of AMX, without its instructions.
    #[cfg(test)]
    EmulatedAmx,
}

/// An instruction set cannot be had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IsaError {
    /// None has the name.
    #[error("`{0}` is none of {names}", names = Isa::ALL.map(Isa::name).join(", "))]
    Unknown(String),
    /// The CPU does not have it.
    #[error("this CPU has no {0}; its widest instruction set is {best}", best = Isa::best())]
    Missing(Isa),
}

/// The one that kernels use, once it is chosen.
static CURRENT: OnceLock<Isa> = OnceLock::new();

impl Isa {
    /// All, narrowest first.
    pub const ALL: [Self; 7] =
        [Self::Portable, Self::Avx2, Self::Avx2Vnni, Self::Avx512, Self::Avx512Vnni, Self::Avx512Bf16, Self::Amx];
    /// Those that tests run: of this CPU, and emulated ones.
    #[cfg(test)]
    pub(crate) fn tested() -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|isa| isa.is_available()).chain([Self::EmulatedAvx512Bf16, Self::EmulatedAmx])
    }

    /// The environment variable that names a narrower one than the CPU has, to look for faults.
    pub const VARIABLE: &str = "AFTERIMAGE_CPU_ISA";

    /// The one that kernels use: that which was chosen, else that of [`Self::VARIABLE`] where the CPU has it, else the
    /// CPU's widest.
    pub fn current() -> Self {
        *CURRENT.get_or_init(|| {
            let named = std::env::var(Self::VARIABLE).ok().and_then(|name| name.parse().ok());
            named.filter(|isa: &Self| isa.is_available()).unwrap_or_else(Self::best)
        })
    }

    /// Makes kernels use it, if none has been used yet.
    ///
    /// # Errors
    /// If the CPU does not have it.
    pub fn choose(self) -> Result<(), IsaError> {
        if !self.is_available() {
            return Err(IsaError::Missing(self));
        }
        // Whoever was first has chosen.
        let _ = CURRENT.set(self);
        Ok(())
    }

    /// The CPU's widest.
    pub fn best() -> Self {
        Self::ALL.into_iter().rev().find(|isa| isa.is_available()).unwrap_or(Self::Portable)
    }

    /// The CPU, and the system, have it.
    #[cfg(target_arch = "x86_64")]
    pub fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            Self::Avx2 => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
            }
            Self::Avx512 => {
                Self::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            Self::Avx2Vnni => Self::Avx2.is_available() && is_x86_feature_detected!("avxvnni"),
            Self::Avx512Vnni => Self::Avx512.is_available() && is_x86_feature_detected!("avx512vnni"),
            Self::Avx512Bf16 => Self::Avx512Vnni.is_available() && is_x86_feature_detected!("avx512bf16"),
            Self::Amx => Self::Avx512Bf16.is_available() && Amx::detected().is_some(),
            #[cfg(test)]
            Self::EmulatedAvx512Bf16 | Self::EmulatedAmx => true,
        }
    }

    /// The CPU, and the system, have it.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn is_available(self) -> bool {
        matches!(self, Self::Portable)
    }

    /// It multiplies bf16 faster than f32.
    pub fn multiplies_bf16(self) -> bool {
        matches!(self, Self::Avx512Bf16 | Self::Amx)
    }

    /// It multiplies integers of 8 bits faster than f32 and bf16.
    pub fn multiplies_int8(self) -> bool {
        matches!(self, Self::Avx2Vnni | Self::Avx512Vnni | Self::Avx512Bf16 | Self::Amx)
    }

    /// As it is written in [`Self::VARIABLE`] and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Avx2 => "avx2",
            Self::Avx2Vnni => "avx2vnni",
            Self::Avx512 => "avx512",
            Self::Avx512Vnni => "avx512vnni",
            Self::Avx512Bf16 => "avx512bf16",
            Self::Amx => "amx",
            #[cfg(test)]
            Self::EmulatedAvx512Bf16 => "emulated avx512bf16",
            #[cfg(test)]
            Self::EmulatedAmx => "emulated amx",
        }
    }
}

impl FromStr for Isa {
    type Err = IsaError;

    fn from_str(name: &str) -> Result<Self, IsaError> {
        let named = Self::ALL.into_iter().find(|isa| isa.name() == name);
        named.ok_or_else(|| IsaError::Unknown(name.chars().take(MOST_SHOWN).collect()))
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
