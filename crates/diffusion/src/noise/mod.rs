//! Seeded standard normal noise, equal to PyTorch's on the CPU.
//!
//! Follows diffusers 0.42.1:
//!
//! * `randn_tensor` (lines 61-112):
//!   <https://github.com/huggingface/diffusers/blob/v0.42.1/src/diffusers/utils/torch_utils.py#L61>
//!
//! and PyTorch 2.15.0:
//!
//! * `normal_fill` (lines 167-219) and `normal_kernel` (221-236):
//!   <https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/native/cpu/DistributionTemplates.h#L167>
//! * `uniform_real_distribution` (lines 98-118) and `normal_distribution` (171-202):
//!   <https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/core/DistributionsHelper.h#L98>
//! * `mt19937_engine` (lines 110-190):
//!   <https://github.com/pytorch/pytorch/blob/v2.15.0/aten/src/ATen/core/MT19937RNGEngine.h#L110>
//!
//! Departs from it: numbers stay f32, where diffusers has them rounded to the dtype of the prompt.
//!
//! The same seed has to give the same picture as diffusers, so the first latents must be those of
//! `torch.Generator("cpu").manual_seed(seed)` and `torch.randn(shape, dtype=torch.float32)`. PyTorch
//! draws 32-bit words from MT19937 and turns them into normals with the Box-Muller transform (Box and
//! Muller, "A Note on the Generation of Random Normal Deviates", 1958) in two ways: requests of 16
//! numbers or more are made in f32, 16 at a time; shorter ones in f64, one after another.
//!
//! Accuracy: the long path repeats the polynomials PyTorch runs on x86 with AVX2 or AVX-512, and equals
//! it bit for bit (checked over a million numbers; the fixtures of `tests/reference/schedulers.py` keep
//! some of them). Without AVX2 PyTorch rounds its logarithm and cosine differently, so it differs from
//! itself, and from this, by up to 2.5e-6. The short path takes its functions from the C library in
//! f64 and rounds to f32 afterwards, which is the same everywhere but for a rare last bit.

mod box_muller;

use rand_mt::Mt;

/// Numbers that the long path transforms together: 8 radii and 8 angles.
const BLOCK: usize = 16;

/// `torch.randn(shape, generator=torch.Generator("cpu").manual_seed(seed), dtype=torch.float32)` in
/// row-major order.
///
/// PyTorch's CPU generator looks at the low 32 bits of the seed only, and so does this.
pub fn randn(seed: u64, shape: &[usize]) -> Vec<f32> {
    NoiseGenerator::from_seed(seed).randn(shape.iter().product())
}

/// A `torch.Generator("cpu")`: further calls go on where the last one stopped.
#[derive(Debug, Clone)]
pub struct NoiseGenerator {
    words: Mt,
    /// The second normal of the last pair made by the short path. Like PyTorch's, it waits for the
    /// next short request and is left alone by long ones.
    spare: Option<f64>,
}

impl NoiseGenerator {
    /// A generator in the state that `manual_seed(seed)` leaves.
    pub fn from_seed(seed: u64) -> Self {
        // Truncation is PyTorch's rule, not an accident.
        Self { words: Mt::new(seed as u32), spare: None }
    }

    /// The next `len` standard normal numbers, as `torch.randn(len)` draws them: one request for 20
    /// numbers is not the same as two for 10.
    pub fn randn(&mut self, len: usize) -> Vec<f32> {
        if len < BLOCK {
            return (0..len).map(|_| self.normal() as f32).collect();
        }
        let mut numbers: Vec<f32> = (0..len).map(|_| self.uniform_f32()).collect();
        let (blocks, tail) = numbers.as_chunks_mut::<BLOCK>();
        blocks.iter_mut().for_each(box_muller::transform);
        if !tail.is_empty() {
            // The last 16 numbers are drawn afresh, also those the blocks had already made.
            let mut last: [f32; BLOCK] = std::array::from_fn(|_| self.uniform_f32());
            box_muller::transform(&mut last);
            numbers[len - BLOCK..].copy_from_slice(&last);
        }
        numbers
    }

    /// Uniform in [0, 1): the low 24 bits of one word.
    fn uniform_f32(&mut self) -> f32 {
        (self.words.next_u32() & 0x00ff_ffff) as f32 * (1.0 / (1 << 24) as f32)
    }

    /// Uniform in [0, 1): the low 53 bits of two words, the first of which is the high half.
    fn uniform_f64(&mut self) -> f64 {
        let high = u64::from(self.words.next_u32());
        let low = u64::from(self.words.next_u32());
        (((high << 32) | low) & ((1 << 53) - 1)) as f64 * (1.0 / (1u64 << 53) as f64)
    }

    /// One number of the short path.
    fn normal(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let angle = 2.0 * std::f64::consts::PI * self.uniform_f64();
        let radius = (-2.0 * (-self.uniform_f64()).ln_1p()).sqrt();
        self.spare = Some(radius * angle.sin());
        radius * angle.cos()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Fixture {
        single: Vec<Draw>,
        sequence: Sequence,
        long: Long,
    }

    #[derive(serde::Deserialize)]
    struct Draw {
        seed: u64,
        values: Vec<f32>,
    }

    #[derive(serde::Deserialize)]
    struct Sequence {
        seed: u64,
        draws: Vec<Vec<f32>>,
    }

    #[derive(serde::Deserialize)]
    struct Long {
        seed: u64,
        len: usize,
        bits_sum: u64,
    }

    fn fixture() -> Fixture {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/noise.json");
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    fn bits(numbers: &[f32]) -> Vec<u32> {
        numbers.iter().map(|number| number.to_bits()).collect()
    }

    #[test]
    fn equals_torch_for_every_seed_and_size() {
        let draws = fixture().single;
        assert!(draws.len() >= 40);
        for Draw { seed, values } in draws {
            let ours = randn(seed, &[values.len()]);
            assert_eq!(bits(&ours), bits(&values), "seed {seed}, {} numbers", values.len());
        }
    }

    /// The C++ standard (26.6.6, `mt19937`) fixes the 10000th word of the default seed 5489.
    #[test]
    fn the_10000th_word_is_the_standards() {
        let mut words = Mt::new(5489);
        let last = (0..10_000).map(|_| words.next_u32()).last();
        assert_eq!(last, Some(4_123_659_995));
    }

    #[test]
    fn a_generator_goes_on_like_torch() {
        let Sequence { seed, draws } = fixture().sequence;
        let mut generator = NoiseGenerator::from_seed(seed);
        for (index, draw) in draws.iter().enumerate() {
            assert_eq!(bits(&generator.randn(draw.len())), bits(draw), "draw {index}");
        }
    }

    #[test]
    fn a_million_numbers_have_torchs_bits() {
        let Long { seed, len, bits_sum } = fixture().long;
        let sum: u64 = bits(&randn(seed, &[len])).into_iter().map(u64::from).sum();
        assert_eq!(sum, bits_sum);
    }

    #[test]
    fn only_the_low_32_bits_of_a_seed_count() {
        assert_eq!(randn(5, &[40]), randn((1 << 32) + 5, &[40]));
        assert_ne!(randn(5, &[40]), randn(6, &[40]));
    }

    #[test]
    fn a_shape_is_its_product() {
        assert_eq!(randn(3, &[2, 3, 4]), randn(3, &[24]));
        assert!(randn(3, &[2, 0]).is_empty());
    }

    #[test]
    fn the_distribution_is_standard_normal() {
        let numbers = randn(11, &[100_000]);
        let mean = numbers.iter().map(|x| f64::from(*x)).sum::<f64>() / 1e5;
        let variance = numbers.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / 1e5 - mean * mean;
        assert!(mean.abs() < 0.01 && (variance - 1.0).abs() < 0.01, "mean {mean}, variance {variance}");
    }
}
