//! Random values: element `i` depends on the seed, the tensor's name and `i` only.

/// How the values of a tensor are spread.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Init {
    Zeros,
    Ones,
    /// Uniform between `-bound` and `bound`.
    Uniform {
        bound: f32,
    },
}

impl Init {
    /// As torch initialises a new model: what is multiplied with gets the bound of linear layers and convolutions, norms
    /// and biases change nothing.
    pub(super) fn of(name: &str, shape: &[usize]) -> Self {
        let fan_in = match (name.rsplit('.').next(), shape) {
            (Some("bias" | "running_mean"), _) => return Self::Zeros,
            (Some("weight" | "scale"), [] | [_]) | (Some("gamma" | "running_var"), _) => return Self::Ones,
            (Some("weight"), [_, kernel @ ..]) => kernel.iter().product(),
            // A table of positions or modulations.
            (_, shape) => shape.last().copied().unwrap_or(1),
        };
        Self::Uniform { bound: 1.0 / (fan_in as f32).sqrt() }
    }

    /// The value of every element of a tensor with random numbers from `state` on.
    pub(super) fn values(self, state: u64) -> impl Fn(usize) -> f32 {
        let (base, bound) = match self {
            Init::Zeros => (0.0, 0.0),
            Init::Ones => (1.0, 0.0),
            Init::Uniform { bound } => (0.0, bound),
        };
        move |index| base + bound * uniform(splitmix64(state.wrapping_add(index as u64)))
    }
}

/// Where a tensor's random numbers begin.
pub(super) fn state(name: &str, seed: u64) -> u64 {
    name.bytes().fold(seed, |state, byte| splitmix64(state ^ u64::from(byte)))
}

/// Between -1 and 1, from the upper 24 bits.
fn uniform(bits: u64) -> f32 {
    const STEP: f32 = 2.0 / (1 << 24) as f32;
    (bits >> 40) as f32 * STEP - 1.0
}

/// The output function of SplitMix64 (Steele, Lea and Flood, 2014), used as a hash of a counter.
pub(super) fn splitmix64(counter: u64) -> u64 {
    let mut z = counter.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
