//! Which hidden states are read, in transformers' numbers: 0 is the embeddings, `n` what `n` layers made of them, and the
//! last one, as many as there are layers, has also been through the final norm. Negative numbers count from the end.

/// Hidden states, in the order in which they stand side by side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::text) struct Taps {
    /// All at most `layers`.
    states: Vec<usize>,
    layers: usize,
}

impl Taps {
    /// `None` where the model has no such state, or none is asked for.
    pub(in crate::text) fn new(states: &[isize], layers: usize) -> Option<Self> {
        let state = |state: &isize| match usize::try_from(*state) {
            Ok(state) => Some(state).filter(|state| *state <= layers),
            Err(_) => (layers + 1).checked_sub(state.unsigned_abs()),
        };
        let states: Vec<_> = states.iter().map(state).collect::<Option<_>>()?;
        (!states.is_empty()).then_some(Self { states, layers })
    }

    /// The last, for which all that there is must be run.
    pub(in crate::text) fn all(layers: usize) -> Self {
        Self { states: vec![layers], layers }
    }

    /// How many stand side by side.
    pub(in crate::text) fn count(&self) -> usize {
        self.states.len()
    }

    pub(super) fn states(&self) -> &[usize] {
        &self.states
    }

    /// Layers that have to be run.
    pub(super) fn layers_read(&self) -> usize {
        self.states.iter().copied().max().unwrap_or(0)
    }

    /// Layers that nobody reads.
    pub(super) fn layers_unread(&self) -> std::ops::Range<usize> {
        self.layers_read()..self.layers
    }

    pub(super) fn reads(&self, state: usize) -> bool {
        self.states.contains(&state)
    }

    pub(super) fn reads_the_norm(&self) -> bool {
        self.reads(self.layers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_numbered_as_in_transformers() {
        let taps = Taps::new(&[-2], 36).unwrap();
        assert_eq!((taps.states(), taps.layers_read(), taps.reads_the_norm()), (&[35][..], 35, false));
        assert_eq!(taps.layers_unread(), 35..36);
        let taps = Taps::new(&[9, 18, 27], 36).unwrap();
        assert_eq!((taps.count(), taps.layers_read()), (3, 27));
        assert!(Taps::new(&[-1], 36).unwrap().reads_the_norm());
        assert_eq!(Taps::new(&[-37], 36).unwrap().states(), [0]);
        for states in [&[37][..], &[-38], &[]] {
            assert_eq!(Taps::new(states, 36), None);
        }
    }
}
