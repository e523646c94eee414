use std::hash::{BuildHasher, Hasher, RandomState};

use rand_pcg::Pcg64Mcg;
use rand_pcg::rand_core::Rng;

/// The random numbers of one request.
///
/// A seed means the same text in every release, so the generator is one whose output is specified (PCG, of the rand
/// project, which promises stable values), and the expansion of the seed is written out here.
#[derive(Clone, Debug)]
pub(crate) struct Random(Pcg64Mcg);

impl Random {
    pub(crate) fn new(seed: Option<u64>) -> Self {
        let mut state = seed.unwrap_or_else(random_seed);
        let high = split_mix(&mut state);
        let low = split_mix(&mut state);
        Self(Pcg64Mcg::new(u128::from(high) << 64 | u128::from(low)))
    }

    /// A number in `[0, 1)`.
    pub(crate) fn uniform(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
    }
}

/// A seed that differs at every call.
pub fn random_seed() -> u64 {
    // The standard library's hash keys come from the operating system.
    RandomState::new().build_hasher().finish()
}

/// SplitMix64 (<https://prng.di.unimi.it/splitmix64.c>): spreads similar seeds over the whole state space.
fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_means_the_same_numbers_for_ever() {
        let mut random = Random::new(Some(42));
        let first: Vec<u32> = (0..4).map(|_| (random.uniform() * 1e6) as u32).collect();
        assert_eq!(first, [514_379, 13_922, 570_160, 704_450]);
    }

    #[test]
    fn numbers_are_spread_over_the_unit_interval() {
        let mut random = Random::new(Some(7));
        let mut buckets = [0u32; 10];
        for _ in 0..10_000 {
            buckets[(random.uniform() * 10.0) as usize] += 1;
        }
        assert!(buckets.iter().all(|count| (850..1150).contains(count)), "{buckets:?}");
    }

    #[test]
    fn seeds_and_their_absence_differ() {
        let first = |seed| Random::new(seed).uniform();
        assert_ne!(first(Some(0)), first(Some(1)));
        assert_ne!(first(None), first(None));
    }
}
