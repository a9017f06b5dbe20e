//! MT19937, the 32-bit Mersenne Twister.
//!
//! Matsumoto and Nishimura, "Mersenne Twister: A 623-Dimensionally Equidistributed Uniform
//! Pseudo-Random Number Generator", ACM TOMACS 1998, with the seeding of the authors' 2002 revision.
//! It is the generator behind PyTorch's CPU `Generator`.

/// Words of state.
const WORDS: usize = 624;
/// Distance of the word that is mixed into the one being renewed.
const SHIFT: usize = 397;

/// The generator's state and how many of its words have been handed out.
#[derive(Debug, Clone)]
pub(super) struct MersenneTwister {
    state: [u32; WORDS],
    used: usize,
}

impl MersenneTwister {
    /// The state of the reference `init_genrand(seed)`.
    pub(super) fn from_seed(seed: u32) -> Self {
        let mut state = [seed; WORDS];
        for index in 1..WORDS {
            let last = state[index - 1];
            state[index] = 1_812_433_253u32.wrapping_mul(last ^ (last >> 30)).wrapping_add(index as u32);
        }
        Self { state, used: WORDS }
    }

    /// The next 32 random bits.
    pub(super) fn next_word(&mut self) -> u32 {
        if self.used == WORDS {
            self.renew();
        }
        let mut word = self.state[self.used];
        self.used += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    fn renew(&mut self) {
        for index in 0..WORDS {
            let joined = (self.state[index] & 0x8000_0000) | (self.state[(index + 1) % WORDS] & 0x7fff_ffff);
            let twist = if joined & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[index] = self.state[(index + SHIFT) % WORDS] ^ (joined >> 1) ^ twist;
        }
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The C++ standard (26.6.6, `mt19937`) fixes the 10000th word of the default seed 5489.
    #[test]
    fn the_10000th_word_is_the_standards() {
        let mut words = MersenneTwister::from_seed(5489);
        let last = (0..10_000).map(|_| words.next_word()).last();
        assert_eq!(last, Some(4_123_659_995));
    }
}
