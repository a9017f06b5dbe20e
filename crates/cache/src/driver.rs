//! The block-list driver: one forward of a block list for a batch of images.
//!
//! Every image decides for itself, so at any moment some rows of the batch run a block while others have
//! jumped ahead. The driver runs exactly the rows that need a block, over the longest range of blocks on
//! which that set does not change. It knows neither the model nor the caching method.
//!
//! # Where a lane may stand
//!
//! A lane stands before a block, or after the last, and is in one of four stages ([`Stage`]). Its cache is
//! asked where it enters, where it lands after a jump, and where it wanted to be asked again; in between it
//! runs. Lanes run lowest block first, up to the nearest place where one of them has to be asked or another
//! one stands, which then joins them: lanes that need the same blocks meet again wherever they can.
//!
//! # One copy to the host
//!
//! A cache that has to compare tensors before it decides hands out the numbers it needs, and its lane is
//! held where it stands. While others are still on their way to a decision of this kind, they go on; once
//! none is, the numbers of all held lanes come to the host in one copy (see
//! [`read_back`](crate::read_back)), together with the finiteness of what the lanes watch. So a forward
//! costs one copy, however different the lanes. Lanes with equal settings arrive together and lose nothing;
//! of lanes with different settings, the one that decides earlier runs its next few blocks alone, if it computes them.
//!
//! Three things take more copies. DBPrune decides before every block, and no lane waits for it: with such
//! lanes a forward costs up to a copy per block, each of which serves all lanes that are held. Where
//! an image's block lists decide each for itself, the second list's decision follows from the first's, so
//! that every list costs one. And no lane waits for a list without a middle, which compares for the record only.

use std::ops::Range;

use candle_core::Result;

use crate::batch::Batch;
use crate::block_list::{BlockList, Streams};
use crate::lane::{Lane, Watch};
use crate::magnitudes::Number;
use crate::method::Visit;
use crate::read_back::read_back;

/// Runs `list` on `streams`, whose rows belong to `lanes` in order, and returns the streams after
/// the last block.
///
/// # Errors
/// If a tensor operation fails.
pub fn run_blocks<L: BlockList>(list: &L, streams: Streams, lanes: &mut [Lane<'_>]) -> Result<Streams> {
    let mut forward = Forward {
        blocks: list.blocks(),
        standing: lanes.iter().map(|_| Standing { at: 0, stage: Stage::Unasked }).collect(),
        batch: Batch::new(list, streams, lanes.iter().map(|lane| (lane.rows, lane.tokens)))?,
        lanes,
    };
    loop {
        forward.ask()?;
        match forward.next() {
            Next::Run { lanes, blocks } => forward = forward.run(lanes, blocks)?,
            Next::ReadBack => forward.read_back()?,
            Next::Finish => return forward.finish(),
        }
    }
}

/// A forward in progress.
struct Forward<'f, 'l, L> {
    blocks: usize,
    lanes: &'f mut [Lane<'l>],
    /// By lane.
    standing: Vec<Standing>,
    batch: Batch<'f, L>,
}

struct Standing {
    /// The block it stands before; the number of blocks: after the last.
    at: usize,
    stage: Stage,
}

enum Stage {
    /// Its cache has to be asked here.
    Unasked,
    /// It runs up to block `until`; see [`Visit::Run`].
    Runs { until: usize, decides: bool },
    /// It is held until its cache has got these numbers; see [`Visit::Compare`].
    Held { numbers: Vec<Number>, waits: bool },
    /// It stands after the last block and its cache has been asked there.
    Done,
}

enum Next {
    /// These lanes run these blocks.
    Run {
        lanes: Vec<usize>,
        blocks: Range<usize>,
    },
    /// A held lane has nothing more to wait for; the copy serves all held lanes.
    ReadBack,
    Finish,
}

impl<L: BlockList> Forward<'_, '_, L> {
    /// Asks the caches of all lanes that have to be asked. A lane that has jumped is asked again where it lands.
    fn ask(&mut self) -> Result<()> {
        for lane in 0..self.lanes.len() {
            while matches!(self.standing[lane].stage, Stage::Unasked) {
                let (at, streams) = (self.standing[lane].at, self.batch.streams_of(lane)?);
                let visit = self.lanes[lane].cache.visit(at, &streams, &self.batch.probe(lane))?;
                self.follow(lane, visit)?;
            }
        }
        Ok(())
    }

    /// Applies the answer of a lane's cache.
    fn follow(&mut self, lane: usize, visit: Visit) -> Result<()> {
        let Standing { at, stage } = &mut self.standing[lane];
        *stage = match visit {
            Visit::Run { .. } if *at == self.blocks => Stage::Done,
            Visit::Run { until, decides } if (*at + 1..=self.blocks).contains(&until) => Stage::Runs { until, decides },
            Visit::Jump { to, streams } if (*at + 1..=self.blocks).contains(&to) => {
                *at = to;
                self.batch.park(lane, streams);
                Stage::Unasked
            }
            Visit::Compare { numbers, waits } => Stage::Held { numbers, waits },
            // A forward that does not move on would never end.
            Visit::Run { until: to, .. } | Visit::Jump { to, .. } => {
                candle_core::bail!("a cache sent its lane from block {at} to {to} of {}", self.blocks)
            }
        };
        Ok(())
    }

    fn next(&self) -> Next {
        // Where the last of the lanes that still have to decide will be asked.
        let last_decision = self.standing.iter().filter_map(|standing| match standing.stage {
            Stage::Runs { until, decides: true } => Some(until),
            _ => None,
        });
        let last_decision = last_decision.max();
        // The lowest place of a lane that is held and has nothing to wait for.
        let ready = self.standing.iter().filter_map(|standing| match standing.stage {
            Stage::Held { waits, .. } => (!waits || last_decision.is_none()).then_some(standing.at),
            _ => None,
        });
        let ready = ready.min();
        let is_held = |standing: &Standing| matches!(standing.stage, Stage::Held { .. });
        // While a lane is held none goes further than the decisions that are waited for: after them come
        // the blocks that held lanes may have to run as well.
        let limit = last_decision.filter(|_| self.standing.iter().any(is_held)).unwrap_or(self.blocks);
        match self.lowest_run(ready.map_or(limit, |place| limit.min(place))) {
            // Lanes that stand lower come up first, as they may have to compare there too.
            Some((lanes, blocks)) => Next::Run { lanes, blocks },
            None if ready.is_some() => Next::ReadBack,
            None => Next::Finish,
        }
    }

    /// The lanes that run and stand lowest, if below `limit`, and the blocks up to there that they run until
    /// one of them has to be asked or meets another.
    fn lowest_run(&self, limit: usize) -> Option<(Vec<usize>, Range<usize>)> {
        let running = || {
            self.standing.iter().enumerate().filter_map(|(lane, standing)| match standing.stage {
                Stage::Runs { until, .. } => Some((lane, standing.at, until)),
                _ => None,
            })
        };
        let start = running().map(|(_, at, _)| at).min().filter(|start| *start < limit)?;
        let stops = running().map(|(_, at, until)| if at == start { until } else { at });
        let end = stops.fold(limit, usize::min);
        let lanes = running().filter(|(_, at, _)| *at == start).map(|(lane, ..)| lane).collect();
        Some((lanes, start..end))
    }

    fn run(mut self, lanes: Vec<usize>, blocks: Range<usize>) -> Result<Self> {
        for lane in &lanes {
            let Standing { at, stage } = &mut self.standing[*lane];
            *at = blocks.end;
            self.lanes[*lane].cache.count_blocks(blocks.len());
            if matches!(stage, Stage::Runs { until, .. } if *until == blocks.end) {
                *stage = Stage::Unasked;
            }
        }
        self.batch = self.batch.run(lanes, blocks)?;
        Ok(self)
    }

    /// Brings to the host what held lanes and watched tensors wait for, and lets the held lanes decide.
    fn read_back(&mut self) -> Result<()> {
        let mut wanted = Vec::new();
        let mut watching = Vec::new();
        for (lane, Lane { watch, .. }) in self.lanes.iter().enumerate() {
            if let Watch::Due(tensor) = watch {
                watching.push(lane);
                wanted.push(Number::sum(tensor));
            }
        }
        let mut held = Vec::new();
        for (lane, Standing { stage, .. }) in self.standing.iter_mut().enumerate() {
            if let Stage::Held { numbers, .. } = stage {
                held.push((lane, numbers.len()));
                wanted.append(numbers);
            }
        }
        let mut values = read_back(&wanted)?.into_iter();
        for (lane, sum) in watching.into_iter().zip(values.by_ref()) {
            self.lanes[lane].watch = Watch::Known { is_finite: sum.is_finite() };
        }
        for (lane, count) in held {
            let numbers: Vec<_> = values.by_ref().take(count).collect();
            let (at, streams) = (self.standing[lane].at, self.batch.streams_of(lane)?);
            let visit = self.lanes[lane].cache.decide(at, &streams, &numbers, &self.batch.probe(lane))?;
            self.follow(lane, visit)?;
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Streams> {
        debug_assert!(self.standing.iter().all(|standing| matches!(standing.stage, Stage::Done)));
        // Without a comparison in the whole forward, what is watched is still to be looked at.
        self.read_back()?;
        self.batch.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use candle_core::{Device, Tensor};
    use serde_json::{Value, json};

    use super::*;
    use crate::block_list::Probe;
    use crate::image_cache::ImageCache;
    use crate::method::{self, CachingMethod};
    use crate::plan::ModelFacts;
    use crate::report::ContextReport;
    use crate::{CacheBackend, CacheConfig, CachePlan};

    const BLOCKS: usize = 12;

    struct Blocks;

    impl BlockList for Blocks {
        fn blocks(&self) -> usize {
            BLOCKS
        }

        fn run(&self, blocks: Range<usize>, streams: Streams) -> Result<Streams> {
            Ok(Streams { hidden: (&streams.hidden + blocks.len() as f64)?, ..streams })
        }

        fn modulated_input(&self, streams: &Streams) -> Result<Tensor> {
            Ok(streams.hidden.clone())
        }

        fn select(&self, _rows: &[usize]) -> Result<Self> {
            Ok(Self)
        }
    }

    /// A method that notes where it was asked.
    #[derive(Debug, Clone)]
    struct Noting(Box<dyn CachingMethod>, Arc<Mutex<Vec<usize>>>);

    impl CachingMethod for Noting {
        fn visit(&mut self, index: usize, streams: &Streams, probe: &dyn Probe) -> Result<Visit> {
            self.1.lock().unwrap().push(index);
            self.0.visit(index, streams, probe)
        }

        fn decide(&mut self, streams: &Streams, numbers: &[f32]) -> Result<Visit> {
            self.0.decide(streams, numbers)
        }

        fn snapshot(&self) -> Box<dyn CachingMethod> {
            Box::new(self.clone())
        }

        fn bytes(&self) -> usize {
            self.0.bytes()
        }

        fn reports(&self) -> Vec<ContextReport> {
            self.0.reports()
        }

        fn cached_steps(&self) -> usize {
            self.0.cached_steps()
        }
    }

    /// Where a method was asked in a computed step, and in a reused one.
    fn visits(backend: CacheBackend, keys: &Value) -> [Vec<usize>; 2] {
        let config = CacheConfig::parse(backend, keys.as_object().unwrap()).unwrap();
        let facts = ModelFacts {
            blocks: &[BLOCKS],
            tea_cache_coefficients: Some([0.0, 0.0, 0.0, 1.0, 0.0]),
            mag_ratios: Some(&[1.0]),
            ..Default::default()
        };
        let plan = CachePlan::new(&config, 9, facts).unwrap();
        let asked = Arc::<Mutex<Vec<usize>>>::default();
        let method = method::new(&plan, BLOCKS).unwrap();
        let mut cache = ImageCache::of(Box::new(Noting(method, Arc::clone(&asked))), BLOCKS);
        let mut forward = || {
            let hidden = Tensor::new(&[[[1.0f32]]], &Device::Cpu).unwrap();
            run_blocks(&Blocks, Streams { hidden, encoder: None }, &mut [Lane::new(1, &mut cache)]).unwrap();
            std::mem::take(&mut *asked.lock().unwrap())
        };
        let visits = [forward(), forward()];
        assert_eq!(cache.cached_forwards(), 1);
        visits
    }

    #[test]
    fn a_method_is_asked_where_it_has_something_to_see_and_nowhere_else() {
        let db_cache = |keys: Value| {
            let mut all = json!({"max_warmup_steps": 1, "Fn_compute_blocks": 2});
            all.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
            visits(CacheBackend::CacheDit, &all)
        };
        assert_eq!(db_cache(json!({})), [vec![0, 2, 12], vec![0, 2, 12]]);
        assert_eq!(db_cache(json!({"Bn_compute_blocks": 3})), [vec![0, 2, 9, 12], vec![0, 2, 9, 12]]);
        let prune = json!({"cache_type": "DBPrune", "Bn_compute_blocks": 7, "non_prune_block_ids": [3]});
        assert_eq!(db_cache(prune), [vec![0, 2, 3, 4, 5, 12], vec![0, 2, 3, 4, 5, 12]]);
        assert_eq!(visits(CacheBackend::TeaCache, &json!({})), [vec![0, 12], vec![0, 12]]);
        assert_eq!(visits(CacheBackend::MagCache, &json!({})), [vec![0, 12], vec![0, 12]]);
    }

    /// What the blocks add depends on what they get.
    struct Growing;

    impl BlockList for Growing {
        fn blocks(&self) -> usize {
            BLOCKS
        }

        fn run(&self, blocks: Range<usize>, streams: Streams) -> Result<Streams> {
            Ok(Streams { hidden: (&streams.hidden * 1.1f64.powi(blocks.len() as i32))?, ..streams })
        }

        fn modulated_input(&self, streams: &Streams) -> Result<Tensor> {
            Ok(streams.hidden.clone())
        }

        fn select(&self, _rows: &[usize]) -> Result<Self> {
            Ok(Self)
        }
    }

    #[test]
    fn what_fills_a_row_up_to_the_length_of_others_is_never_seen() {
        let keys = json!({"max_warmup_steps": 1, "residual_diff_threshold": 0.1});
        let config = CacheConfig::parse(CacheBackend::CacheDit, keys.as_object().unwrap()).unwrap();
        let plan = CachePlan::new(&config, 9, ModelFacts { blocks: &[BLOCKS], ..Default::default() }).unwrap();
        let cache = || ImageCache::of(method::new(&plan, BLOCKS).unwrap(), BLOCKS);
        let (mut short, mut long, mut alone) = (cache(), cache(), cache());
        for step in 0..9 {
            let own = [1.0 + 0.01 * step as f32, 2.0];
            let rows = [[own[0], own[1], 100.0 * step as f32], [3.0, 4.0, 5.0 * (step * step) as f32]];
            let hidden = Tensor::new(&rows, &Device::Cpu).unwrap().unsqueeze(2).unwrap();
            let mut lanes = [Lane::new(1, &mut short), Lane::new(1, &mut long)];
            lanes[0].limit_tokens(2);
            let hidden = run_blocks(&Growing, Streams { hidden, encoder: None }, &mut lanes).unwrap().hidden;
            assert_eq!(hidden.dims(), [2, 3, 1]);
            let entered = Tensor::new(&[own], &Device::Cpu).unwrap().unsqueeze(2).unwrap();
            let lanes = &mut [Lane::new(1, &mut alone)];
            let expected = run_blocks(&Growing, Streams { hidden: entered, encoder: None }, lanes).unwrap().hidden;
            let ours = hidden.narrow(0, 0, 1).unwrap().narrow(1, 0, 2).unwrap();
            let values = |tensor: &Tensor| tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(values(&ours), values(&expected), "step {step}");
        }
        assert!(alone.cached_forwards() > 0 && long.cached_forwards() < alone.cached_forwards());
        assert_eq!(short.cached_forwards(), alone.cached_forwards());
    }

    #[test]
    fn a_cache_that_does_not_move_on_is_an_error() {
        #[derive(Debug, Clone)]
        struct Stuck;

        impl CachingMethod for Stuck {
            fn visit(&mut self, index: usize, _: &Streams, _: &dyn Probe) -> Result<Visit> {
                Ok(Visit::Run { until: index, decides: false })
            }

            fn decide(&mut self, _: &Streams, _: &[f32]) -> Result<Visit> {
                candle_core::bail!("never asked")
            }

            fn snapshot(&self) -> Box<dyn CachingMethod> {
                Box::new(self.clone())
            }

            fn bytes(&self) -> usize {
                0
            }

            fn reports(&self) -> Vec<ContextReport> {
                Vec::new()
            }

            fn cached_steps(&self) -> usize {
                0
            }
        }

        let mut cache = ImageCache::of(Box::new(Stuck), BLOCKS);
        let hidden = Tensor::new(&[[[1.0f32]]], &Device::Cpu).unwrap();
        let lanes = &mut [Lane::new(1, &mut cache)];
        let error = run_blocks(&Blocks, Streams { hidden, encoder: None }, lanes).unwrap_err();
        assert!(error.to_string().contains("from block 0 to 0 of 12"), "{error}");
    }
}
