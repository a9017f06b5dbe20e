//! Sums of weighted tensors.

use crate::error::KernelError;
use crate::kernel::Kernel;
use crate::launch::{AccessKernels, Launch, Parameters, Span, are_wide, at_least};
use crate::value_type::ValueType;

const OPERATOR: &str = "combination";
const KERNELS: AccessKernels = AccessKernels {
    wide: [Kernel::CombineF32, Kernel::CombineF16, Kernel::CombineBf16],
    any: [Kernel::CombineAnyF32, Kernel::CombineAnyF16, Kernel::CombineAnyBf16],
};

/// The sum of terms, one after the other, computed in f32.
#[derive(Debug, Clone, Copy)]
pub struct Combination<'a> {
    /// Of all values.
    pub value_type: ValueType,
    /// Of each tensor.
    pub length: usize,
    /// 1 to [`Combination::MOST_TERMS`].
    pub terms: &'a [WeightedTerm<'a>],
    /// As long as each.
    pub output: Span<'a>,
}

/// `weight * values`, or `weight * (values - subtracted)`.
#[derive(Debug, Clone, Copy)]
pub struct WeightedTerm<'a> {
    /// What all of it is multiplied by.
    pub weight: f32,
    /// A tensor.
    pub values: Span<'a>,
    /// Another one.
    pub subtracted: Option<Span<'a>>,
}

#[derive(Debug, Clone, Copy)]
#[repr(C)]
struct TermParameters {
    values: u64,
    subtracted: u64,
    weight: f32,
    unused: u32,
}

/// `Combination` of `cuda/combination.cu`.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub struct CombinationParameters {
    output: u64,
    accesses: u32,
    terms: u32,
    term: [TermParameters; Combination::MOST_TERMS],
}

// SAFETY: the fields are those of the kernel's structure.
unsafe impl Parameters for CombinationParameters {}

impl<'a> Combination<'a> {
    /// Terms of one launch at most.
    pub const MOST_TERMS: usize = 6;

    /// How it is launched.
    ///
    /// # Errors
    /// If operands do not fit each other, or there are no or too many terms.
    pub fn launch(&self) -> Result<Launch<'a, CombinationParameters>, KernelError> {
        let Self { value_type, length, terms, output } = *self;
        if !(1..=Self::MOST_TERMS).contains(&terms.len()) {
            let (found, supported) = (terms.len(), "1 to 6");
            return Err(KernelError::Size { operator: OPERATOR, quantity: "a number of terms", found, supported });
        }
        let nothing = TermParameters { values: 0, subtracted: 0, weight: 0.0, unused: 0 };
        let mut term = [nothing; Self::MOST_TERMS];
        let mut is_wide = are_wide(&[Some(output)], length, value_type);
        for (parameters, WeightedTerm { weight, values, subtracted }) in term.iter_mut().zip(terms) {
            is_wide &= are_wide(&[Some(*values), *subtracted], length, value_type);
            *parameters = TermParameters {
                values: at_least(Some(*values), length, OPERATOR, "values")?,
                subtracted: at_least(*subtracted, length, OPERATOR, "what is subtracted")?,
                weight: *weight,
                unused: 0,
            };
        }
        let output = at_least(Some(output), length, OPERATOR, "output")?;
        KERNELS.launch(OPERATOR, (length, value_type), is_wide, |accesses| {
            Ok(CombinationParameters { output, accesses, terms: terms.len() as u32, term })
        })
    }
}
