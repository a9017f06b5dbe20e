//! Steps whose forward is made twice, as those of Heun's method are.
//!
//! A request speaks in steps, and so does everything that decides about it: a step has one decision, made in
//! its first forward. What that one computes, the second computes; what it skips, the second skips, and takes
//! for the skipped blocks what was added then. Methods are shown first forwards only, so whatever they count
//! (warm-up, masks, rows of reused steps, forwards until a refresh) they count in steps, and what they keep is
//! from the same place of every step.

use candle_core::{Result, Tensor};

use crate::block_list::{Probe, Streams};
use crate::method::{CachingMethod, Visit};

/// What the first forwards of a step have skipped, of one context.
#[derive(Debug, Clone)]
pub(crate) struct Repeats {
    blocks: usize,
    /// One per guidance branch, in the order of the forwards.
    skips: Vec<Vec<Skip>>,
    first_forwards: usize,
    second_forwards: usize,
    /// Second forwards of the first branch that skipped something.
    reused: usize,
}

/// Blocks that were skipped, and what was added in their place.
#[derive(Debug, Clone)]
struct Skip {
    from: usize,
    to: usize,
    hidden: Tensor,
    encoder: Option<Tensor>,
}

impl Repeats {
    /// For a list of this many blocks.
    pub(crate) fn new(branches: usize, blocks: usize) -> Self {
        Self { blocks, skips: vec![Vec::new(); branches], first_forwards: 0, second_forwards: 0, reused: 0 }
    }

    /// As [`CachingMethod::visit`], in the first forward of a step.
    pub(crate) fn visit_first(
        &mut self,
        method: &mut dyn CachingMethod,
        index: usize,
        streams: &Streams,
        probe: &dyn Probe,
    ) -> Result<Visit> {
        if index == 0 {
            self.first_forwards += 1;
            self.skips_of_first().clear();
        }
        let visit = method.visit(index, streams, probe)?;
        self.note(index, streams, &visit)?;
        Ok(visit)
    }

    /// As [`CachingMethod::decide`], there.
    pub(crate) fn decide_first(
        &mut self,
        method: &mut dyn CachingMethod,
        index: usize,
        streams: &Streams,
        numbers: &[f32],
    ) -> Result<Visit> {
        let visit = method.decide(streams, numbers)?;
        self.note(index, streams, &visit)?;
        Ok(visit)
    }

    fn note(&mut self, index: usize, streams: &Streams, visit: &Visit) -> Result<()> {
        if let Visit::Jump { to, streams: after } = visit {
            let skip = Skip::between(index, streams, *to, after)?;
            self.skips_of_first().push(skip);
        }
        Ok(())
    }

    /// Of the branch whose first forward is in progress.
    fn skips_of_first(&mut self) -> &mut Vec<Skip> {
        let branches = self.skips.len();
        &mut self.skips[self.first_forwards.saturating_sub(1) % branches]
    }

    /// The same in the second forward, in which nothing is decided: it is asked where the first forward has
    /// skipped something, and runs in between.
    pub(crate) fn visit_second(&mut self, index: usize, streams: &Streams) -> Result<Visit> {
        self.second_forwards += usize::from(index == 0);
        let branch = self.second_forwards.saturating_sub(1) % self.skips.len();
        let skips = &self.skips[branch];
        if index == 0 && branch == 0 {
            self.reused += usize::from(!skips.is_empty());
        }
        if let Some(skip) = skips.iter().find(|skip| skip.from == index) {
            return Ok(Visit::Jump { to: skip.to, streams: skip.apply(streams)? });
        }
        let ahead = skips.iter().map(|skip| skip.from).filter(|from| *from > index).min();
        Ok(Visit::Run { until: ahead.unwrap_or(self.blocks), decides: false })
    }

    pub(crate) fn reused(&self) -> usize {
        self.reused
    }

    /// Bytes of tensors held.
    pub(crate) fn bytes(&self) -> usize {
        let tensors = self.skips.iter().flatten().flat_map(|skip| std::iter::once(&skip.hidden).chain(&skip.encoder));
        tensors.map(|tensor| tensor.elem_count() * tensor.dtype().size_in_bytes()).sum()
    }
}

impl Skip {
    fn between(from: usize, before: &Streams, to: usize, after: &Streams) -> Result<Self> {
        let encoder = match (&before.encoder, &after.encoder) {
            (Some(before), Some(after)) => Some((after - before)?),
            _ => None,
        };
        Ok(Self { from, to, hidden: (&after.hidden - &before.hidden)?, encoder })
    }

    fn apply(&self, streams: &Streams) -> Result<Streams> {
        let encoder = match (&streams.encoder, &self.encoder) {
            (Some(encoder), Some(added)) => Some((encoder + added)?),
            (encoder, _) => encoder.clone(),
        };
        Ok(Streams { hidden: (&streams.hidden + &self.hidden)?, encoder })
    }
}
