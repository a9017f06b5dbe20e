//! The block-list driver: one forward of a block list for a batch of images.
//!
//! Every image decides for itself before every block, so at any moment some rows of the batch run a
//! block while others have jumped ahead. The driver runs exactly the rows that need a block, and
//! re-packs them only where that set changes. It knows neither the model nor the caching method.

use candle_core::{Result, Tensor};

use crate::block_list::{BlockList, Probe, Streams};
use crate::engine::Visit;
use crate::session::ImageSessions;

/// The rows of one image in a batch, and its cache state.
#[derive(Debug)]
pub struct Lane<'a> {
    /// Number of rows; lanes follow each other in the batch.
    pub rows: usize,
    /// The image's state.
    pub sessions: &'a mut ImageSessions,
}

impl Streams {
    fn rows(&self, start: usize, rows: usize) -> Result<Self> {
        let narrow = |tensor: &Tensor| tensor.narrow(0, start, rows);
        Ok(Self { hidden: narrow(&self.hidden)?, encoder: self.encoder.as_ref().map(narrow).transpose()? })
    }

    fn concat(parts: &[Self]) -> Result<Self> {
        if let [only] = parts {
            return Ok(only.clone());
        }
        let hidden: Vec<_> = parts.iter().map(|part| &part.hidden).collect();
        // A list either carries a text stream for all of its rows or for none.
        let encoder: Vec<_> = parts.iter().filter_map(|part| part.encoder.as_ref()).collect();
        let encoder = if encoder.is_empty() { None } else { Some(Tensor::cat(&encoder, 0)?) };
        Ok(Self { hidden: Tensor::cat(&hidden, 0)?, encoder })
    }
}

/// Runs `list` on `streams`, whose rows belong to `lanes` in order, and returns the streams behind
/// the last block.
///
/// # Errors
/// If a tensor operation fails.
pub fn run_blocks<L: BlockList>(list: &L, streams: Streams, lanes: &mut [Lane<'_>]) -> Result<Streams> {
    let mut batch = Batch::new(list, streams, lanes);
    let blocks = list.blocks();
    for index in 0..=blocks {
        for (lane, Lane { sessions, .. }) in lanes.iter_mut().enumerate() {
            if batch.position[lane] != index {
                continue;
            }
            let streams = batch.streams_of(lane)?;
            let probe = LaneProbe { list, span: batch.spans[lane] };
            if let Visit::Jump { to, streams } = sessions.visit(index, &streams, &probe)? {
                batch.replace(lane, to, streams);
            }
        }
        // Jumps lead ahead: a lane that has jumped is asked again where it lands.
        if index < blocks {
            batch.run_block(index)?;
        }
    }
    batch.finish()
}

struct LaneProbe<'a, L> {
    list: &'a L,
    span: (usize, usize),
}

impl<L: BlockList> Probe for LaneProbe<'_, L> {
    fn modulated_input(&self, streams: &Streams) -> Result<Tensor> {
        let (start, rows) = self.span;
        self.list.select(&(start..start + rows).collect::<Vec<_>>())?.modulated_input(streams)
    }
}

/// Rows on their way through the list.
struct Batch<'a, L> {
    list: &'a L,
    /// First row and number of rows of every lane in the whole batch.
    spans: Vec<(usize, usize)>,
    /// Block every lane stands before.
    position: Vec<usize>,
    /// Streams of lanes that are not in the pack.
    parked: Vec<Option<Streams>>,
    pack: Pack<L>,
}

/// Rows of several lanes in one tensor, as the last block left them.
struct Pack<L> {
    lanes: Vec<usize>,
    /// `None`: the whole list.
    list: Option<L>,
    streams: Streams,
}

impl<'a, L: BlockList> Batch<'a, L> {
    fn new(list: &'a L, streams: Streams, lanes: &[Lane<'_>]) -> Self {
        let mut spans = Vec::with_capacity(lanes.len());
        let mut start = 0;
        for lane in lanes {
            spans.push((start, lane.rows));
            start += lane.rows;
        }
        let pack = Pack { lanes: (0..lanes.len()).collect(), list: None, streams };
        Self { list, spans, position: vec![0; lanes.len()], parked: vec![None; lanes.len()], pack }
    }

    fn streams_of(&self, lane: usize) -> Result<Streams> {
        if let Some(streams) = &self.parked[lane] {
            return Ok(streams.clone());
        }
        let before = self.pack.lanes.iter().take_while(|packed| **packed != lane);
        let start = before.map(|packed| self.spans[*packed].1).sum();
        self.pack.streams.rows(start, self.spans[lane].1)
    }

    fn replace(&mut self, lane: usize, position: usize, streams: Streams) {
        self.position[lane] = position;
        self.parked[lane] = Some(streams);
    }

    /// Runs block `index` on the lanes that stand before it.
    fn run_block(&mut self, index: usize) -> Result<()> {
        let due: Vec<_> = (0..self.position.len()).filter(|lane| self.position[*lane] == index).collect();
        if due.is_empty() {
            return Ok(());
        }
        self.repack(due)?;
        let list = self.pack.list.as_ref().unwrap_or(self.list);
        self.pack.streams = list.block(index, &self.pack.streams)?;
        for lane in &self.pack.lanes {
            self.position[*lane] = index + 1;
        }
        Ok(())
    }

    /// Makes the pack hold exactly `lanes`.
    fn repack(&mut self, lanes: Vec<usize>) -> Result<()> {
        if lanes == self.pack.lanes && lanes.iter().all(|lane| self.parked[*lane].is_none()) {
            return Ok(());
        }
        let parts: Vec<_> = lanes.iter().map(|lane| self.streams_of(*lane)).collect::<Result<_>>()?;
        for lane in self.pack.lanes.clone() {
            if self.parked[lane].is_none() && !lanes.contains(&lane) {
                self.parked[lane] = Some(self.streams_of(lane)?);
            }
        }
        for lane in &lanes {
            self.parked[*lane] = None;
        }
        let streams = Streams::concat(&parts)?;
        let list = if lanes.len() == self.spans.len() {
            None
        } else if lanes == self.pack.lanes {
            self.pack.list.take()
        } else {
            let rows = lanes.iter().flat_map(|lane| {
                let (start, rows) = self.spans[*lane];
                start..start + rows
            });
            Some(self.list.select(&rows.collect::<Vec<_>>())?)
        };
        self.pack = Pack { lanes, list, streams };
        Ok(())
    }

    fn finish(mut self) -> Result<Streams> {
        self.repack((0..self.spans.len()).collect())?;
        Ok(self.pack.streams)
    }
}
