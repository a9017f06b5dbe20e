//! The rows of a forward: packed in one tensor for the blocks that run next, or parked beside it.
//!
//! **A lane is packed or parked, never both.** [`Rows`] is what makes it so: it says where the one valid copy
//! of a lane's streams is. The pack's tensor may hold rows that no lane uses any more (of a lane that has
//! jumped ahead); they are dropped when the pack is made anew, which happens only where the set of lanes
//! changes.
//!
//! In the pack all rows are as long as those that entered the list. A lane whose rows are shorter is parked, and shown to
//! its cache, without what fills them up.

use std::ops::Range;

use candle_core::{Result, Tensor};

use crate::block_list::{BlockList, Probe, Streams};

/// Rows on their way through a list.
pub(crate) struct Batch<'a, L> {
    list: &'a L,
    /// The rows of every lane in the whole batch.
    spans: Vec<Range<usize>>,
    /// Tokens of the hidden stream that are the lane's own.
    tokens: Vec<usize>,
    /// Tokens of the hidden stream in the pack.
    width: usize,
    /// By lane.
    rows: Vec<Rows>,
    pack: Pack<L>,
}

/// Where a lane's streams are.
#[derive(Clone)]
enum Rows {
    /// In the pack, from this row on.
    Packed { first: usize },
    /// Set aside from the blocks that run.
    Parked(Streams),
}

/// Rows of several lanes in one tensor, as the last blocks left them.
struct Pack<L> {
    /// In the order of their rows.
    lanes: Vec<usize>,
    /// `None`: the whole list.
    list: Option<L>,
    streams: Streams,
}

impl<'a, L: BlockList> Batch<'a, L> {
    /// All lanes in one pack; `lanes` are their numbers of rows, and of tokens where not all are their own.
    pub(crate) fn new(
        list: &'a L,
        streams: Streams,
        lanes: impl Iterator<Item = (usize, Option<usize>)>,
    ) -> Result<Self> {
        let width = streams.hidden.dim(1)?;
        let mut end = 0;
        let (spans, tokens): (Vec<_>, Vec<_>) = lanes
            .map(|(rows, tokens)| {
                end += rows;
                (end - rows..end, tokens.map_or(width, |tokens| tokens.min(width)))
            })
            .unzip();
        let rows = spans.iter().map(|span| Rows::Packed { first: span.start }).collect();
        let pack = Pack { lanes: (0..spans.len()).collect(), list: None, streams };
        Ok(Self { list, spans, tokens, width, rows, pack })
    }

    /// The streams of a lane, a view.
    pub(crate) fn streams_of(&self, lane: usize) -> Result<Streams> {
        match &self.rows[lane] {
            Rows::Parked(streams) => Ok(streams.clone()),
            Rows::Packed { first } => {
                debug_assert!(self.pack.lanes.contains(&lane), "lane {lane} is neither packed nor parked");
                self.pack.streams.rows(*first, self.spans[lane].len())?.of_tokens(self.tokens[lane])
            }
        }
    }

    /// What a lane's cache may ask of the model.
    pub(crate) fn probe(&self, lane: usize) -> LaneProbe<'a, L> {
        LaneProbe { list: self.list, rows: self.spans[lane].clone() }
    }

    /// Puts other streams in the place of a lane's.
    pub(crate) fn park(&mut self, lane: usize, streams: Streams) {
        self.rows[lane] = Rows::Parked(streams);
    }

    /// Runs blocks on these lanes, in ascending order, and on no others.
    pub(crate) fn run(mut self, lanes: Vec<usize>, blocks: Range<usize>) -> Result<Self> {
        self.repack(lanes)?;
        let list = self.pack.list.as_ref().unwrap_or(self.list);
        // Moved, so that the blocks may drop what enters them.
        self.pack.streams = list.run(blocks, self.pack.streams)?;
        Ok(self)
    }

    /// The streams of all lanes.
    pub(crate) fn finish(mut self) -> Result<Streams> {
        self.repack((0..self.spans.len()).collect())?;
        Ok(self.pack.streams)
    }

    /// Makes the pack hold exactly `lanes`, and parks all others that were in it.
    fn repack(&mut self, lanes: Vec<usize>) -> Result<()> {
        let is_packed = |lane: &usize| matches!(self.rows[*lane], Rows::Packed { .. });
        if lanes == self.pack.lanes && lanes.iter().all(is_packed) {
            return Ok(());
        }
        let parts = lanes.iter().map(|lane| self.streams_of(*lane)).collect::<Result<Vec<_>>>()?;
        let leaving: Vec<_> = self.pack.lanes.iter().copied().filter(is_packed).collect();
        for lane in leaving.into_iter().filter(|lane| !lanes.contains(lane)) {
            self.rows[lane] = Rows::Parked(self.streams_of(lane)?);
        }
        let mut first = 0;
        for lane in &lanes {
            self.rows[*lane] = Rows::Packed { first };
            first += self.spans[*lane].len();
        }
        let list = if lanes.len() == self.spans.len() {
            None
        } else if lanes == self.pack.lanes {
            self.pack.list.take()
        } else {
            let rows = lanes.iter().flat_map(|lane| self.spans[*lane].clone());
            Some(self.list.select(&rows.collect::<Vec<_>>())?)
        };
        self.pack = Pack { lanes, list, streams: Streams::concat(&parts, self.width)? };
        Ok(())
    }
}

impl Streams {
    fn rows(&self, start: usize, rows: usize) -> Result<Self> {
        let narrow = |tensor: &Tensor| tensor.narrow(0, start, rows);
        Ok(Self { hidden: narrow(&self.hidden)?, encoder: self.encoder.as_ref().map(narrow).transpose()? })
    }

    /// The first tokens of the hidden stream.
    fn of_tokens(self, tokens: usize) -> Result<Self> {
        Ok(Self { hidden: self.hidden.narrow(1, 0, tokens)?, ..self })
    }

    /// With hidden streams of `tokens` each.
    fn concat(parts: &[Self], tokens: usize) -> Result<Self> {
        let filled = parts.iter().map(|part| part.hidden.pad_with_zeros(1, 0, tokens - part.hidden.dim(1)?));
        let hidden = filled.collect::<Result<Vec<_>>>()?;
        if let ([part], [hidden]) = (parts, &hidden[..]) {
            return Ok(Self { hidden: hidden.clone(), encoder: part.encoder.clone() });
        }
        // A list either carries a text stream for all of its rows or for none.
        let encoder: Vec<_> = parts.iter().filter_map(|part| part.encoder.as_ref()).collect();
        let encoder = if encoder.is_empty() { None } else { Some(Tensor::cat(&encoder, 0)?) };
        Ok(Self { hidden: Tensor::cat(&hidden, 0)?, encoder })
    }
}

/// The model as one lane's cache may ask it.
pub(crate) struct LaneProbe<'a, L> {
    list: &'a L,
    rows: Range<usize>,
}

impl<L: BlockList> Probe for LaneProbe<'_, L> {
    fn modulated_input(&self, streams: &Streams) -> Result<Tensor> {
        self.list.select(&self.rows.clone().collect::<Vec<_>>())?.modulated_input(streams)
    }
}
