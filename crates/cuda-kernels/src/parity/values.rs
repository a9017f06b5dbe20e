//! Operands of cases: numbers without a pattern, as a type has them, in the memory of a machine.

use half::{bf16, f16};

use crate::error::KernelError;
use crate::launch::Span;
use crate::machine::{Machine, MemoryOf};
use crate::value_type::ValueType;

/// Where unwritten values are looked for: not a number in any type.
const UNWRITTEN: u8 = 0xff;

/// A generator of numbers (SplitMix64).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Between -1 and 1.
    pub(crate) fn value(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u32 << 23) as f32 - 1.0
    }
}

/// What a kernel reads: the values, and where they are.
pub(crate) type Operand<M> = (Vec<f64>, Placed<M>);

impl Random {
    /// An operand between `-spread` and `spread`, `offset` values after an aligned place.
    pub(crate) fn operand<M: Machine>(
        &mut self,
        machine: &M,
        value_type: ValueType,
        (count, spread, offset): (usize, f32, usize),
    ) -> Result<Operand<M>, KernelError> {
        let values = Values::random(value_type, count, spread, self);
        let placed = values.place(machine, offset)?;
        Ok((values.wide, placed))
    }
}

/// Numbers as a type has them.
#[derive(Debug, Clone)]
pub(crate) struct Values {
    value_type: ValueType,
    /// Exactly what the machine sees.
    pub(crate) wide: Vec<f64>,
    bytes: Vec<u8>,
}

impl Values {
    pub(crate) fn new(value_type: ValueType, values: impl IntoIterator<Item = f32>) -> Self {
        let mut bytes = Vec::new();
        values.into_iter().for_each(|value| push(value_type, value, &mut bytes));
        Self { value_type, wide: widened(value_type, &bytes), bytes }
    }

    /// Between `-spread` and `spread`.
    pub(crate) fn random(value_type: ValueType, count: usize, spread: f32, random: &mut Random) -> Self {
        Self::new(value_type, (0..count).map(|_| random.value() * spread))
    }

    /// On the machine, `offset` values after an aligned place.
    pub(crate) fn place<M: Machine>(&self, machine: &M, offset: usize) -> Result<Placed<M>, KernelError> {
        let mut bytes = vec![UNWRITTEN; offset * self.value_type.bytes()];
        bytes.extend_from_slice(&self.bytes);
        Ok(Placed::new(machine.upload(&bytes)?, self.value_type, self.wide.len(), offset))
    }
}

/// Values on a machine.
pub(crate) struct Placed<M: Machine> {
    memory: M::Memory,
    value_type: ValueType,
    offset: usize,
    length: usize,
}

impl<M: Machine> Placed<M> {
    fn new(memory: M::Memory, value_type: ValueType, length: usize, offset: usize) -> Self {
        Self { memory, value_type, offset, length }
    }

    pub(crate) fn span(&self) -> Span<'_> {
        let address = self.memory.address() + (self.offset * self.value_type.bytes()) as u64;
        // SAFETY: the memory is as long and lives as long, and a case launches one kernel, and waits for it.
        unsafe { Span::new(address, self.length) }
    }

    /// Room for values that a kernel writes.
    pub(crate) fn output(
        machine: &M,
        value_type: ValueType,
        length: usize,
        offset: usize,
    ) -> Result<Self, KernelError> {
        let bytes = (offset + length) * value_type.bytes();
        let memory = if offset == 0 { machine.allocate(bytes)? } else { machine.upload(&vec![UNWRITTEN; bytes])? };
        Ok(Self::new(memory, value_type, length, offset))
    }

    /// What they are now.
    pub(crate) fn read(&self, machine: &M) -> Result<Vec<f64>, KernelError> {
        let mut values = widened(self.value_type, &machine.download(&self.memory)?);
        Ok(values.split_off(self.offset))
    }

    /// The largest difference from what is defined, as a part of what `roundings` to the type explain beside the errors of
    /// sums in f32. NaN where one of the two is, infinite where one of the two is; equal ones differ by nothing.
    pub(crate) fn difference(&self, machine: &M, defined: &[f64], roundings: f64) -> Result<f64, KernelError> {
        let defined: Vec<_> = defined.iter().map(|value| (*value, value.abs())).collect();
        self.difference_of_terms(machine, &defined, roundings)
    }

    /// The same for values that are sums, beside which stands how large the rounded terms are.
    pub(crate) fn difference_of_terms(
        &self,
        machine: &M,
        defined: &[(f64, f64)],
        roundings: f64,
    ) -> Result<f64, KernelError> {
        let found = self.read(machine)?;
        if found.len() != defined.len() {
            return Ok(f64::NAN);
        }
        let tolerance = half_unit(self.value_type) * roundings * 1.05;
        let differences = found.iter().zip(defined).map(|(found, (defined, terms))| {
            let same = found == defined || (found.is_nan() && defined.is_nan());
            if same { 0.0 } else { (found - defined).abs() / (tolerance * terms + SUM_ERROR * (1.0 + terms)) }
        });
        // `max` of f64 would drop what is not a number.
        Ok(differences.fold(0.0, |worst: f64, next| if next > worst || next.is_nan() { next } else { worst }))
    }
}

impl<M: Machine> Placed<M> {
    /// As [`difference`](Self::difference), where parts of sums are rounded as well: `defined` has values, and the sums of
    /// their parts without signs.
    pub(crate) fn difference_within(&self, machine: &M, defined: &[(f64, f64)]) -> Result<f64, KernelError> {
        let half_unit = half_unit(self.value_type) * 1.05;
        let part = |(found, (defined, parts)): (f64, &(f64, f64))| {
            (found - defined).abs() / (half_unit * (defined.abs() + parts) + SUM_ERROR * (1.0 + parts))
        };
        let differences = self.read(machine)?.into_iter().zip(defined).map(part);
        Ok(differences.fold(0.0, |worst: f64, next| if next > worst || next.is_nan() { next } else { worst }))
    }
}

/// What sums of thousands of values in f32, and fast functions, may be off by, relative to values around 1.
const SUM_ERROR: f64 = 1e-5;

/// The largest relative error of a rounding.
fn half_unit(value_type: ValueType) -> f64 {
    value_type.of([2f64.powi(-24), 2f64.powi(-11), 2f64.powi(-8)])
}

/// A number as a type has it.
pub(crate) fn rounded(value_type: ValueType, value: f64) -> f64 {
    match value_type {
        ValueType::F32 => f64::from(value as f32),
        ValueType::F16 => f16::from_f64(value).to_f64(),
        ValueType::Bf16 => bf16::from_f64(value).to_f64(),
    }
}

fn push(value_type: ValueType, value: f32, bytes: &mut Vec<u8>) {
    match value_type {
        ValueType::F32 => bytes.extend(value.to_le_bytes()),
        ValueType::F16 => bytes.extend(f16::from_f32(value).to_le_bytes()),
        ValueType::Bf16 => bytes.extend(bf16::from_f32(value).to_le_bytes()),
    }
}

fn widened(value_type: ValueType, bytes: &[u8]) -> Vec<f64> {
    let wide = |value: &[u8]| match *value {
        [a, b, c, d] => f64::from(f32::from_le_bytes([a, b, c, d])),
        [a, b] if value_type == ValueType::F16 => f16::from_le_bytes([a, b]).to_f64(),
        [a, b] => bf16::from_le_bytes([a, b]).to_f64(),
        _ => f64::NAN,
    };
    bytes.chunks(value_type.bytes()).map(wide).collect()
}
