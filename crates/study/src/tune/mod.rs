//! Searches the cache settings of a model for the fastest that keeps pictures as alike as is asked for.
//!
//! The search goes from coarse to fine. Settings all over the space make the pictures of one prompt; around the best of
//! them for each [`Goal`], neighbours make more pictures, as long as that finds better ones; the best then make all pictures of the
//! search. Up to here speed is counted, in blocks that run, so that the same search finds the same settings on any machine.
//! What is left of it is timed and compared on pictures that the search never saw: the winner of a goal is the fastest there
//! of which 19 of 20 pictures are as alike as asked for, of all of them and of those that were not seen.

mod candidate;
mod goal;
mod search;
mod trial;
mod verdict;

use afterimage_runner::ImageRequest;

use crate::cancellation::Cancellation;
use crate::error::StudyError;
use crate::grid::{Grid, Measure};
use crate::maker::PictureMaker;
use crate::study::{Event, Outcome, Study};
use search::Search;

pub use goal::Goal;
pub use verdict::{HeldOut, Missed, Tuned, Winner};

/// What is searched for, and on which pictures.
#[derive(Debug, Clone)]
pub struct Tuning {
    /// What every picture is made of; prompt, seed and cache of it are the search's.
    pub request: ImageRequest,
    /// What is to be found; a setting may be the answer to several.
    pub goals: Vec<Goal>,
    /// What the search draws, each with every seed. Coarse rounds draw the first of them.
    pub prompts: Vec<String>,
    /// See `prompts`.
    pub seeds: Vec<u64>,
    /// What the settings that were found are checked on, each with every seed of its own.
    pub held_out_prompts: Vec<String>,
    /// See `held_out_prompts`.
    pub held_out_seeds: Vec<u64>,
    /// Pictures that the search may make, those for checking not included.
    pub budget: usize,
    /// Rounds of the check; medians of their seconds count.
    pub repeats: usize,
}

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress<'a> {
    /// Pictures made.
    pub done: usize,
    /// The most that there may still be to make, with those.
    pub of: usize,
    /// What is being done.
    pub stage: Stage,
    /// The setting whose picture is made.
    pub setting: &'a str,
}

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Settings are searched.
    Search,
    /// Those found are timed, and checked on what the search did not see.
    Check,
}

impl Tuning {
    /// Whether the uncached pictures can be made, before anything is.
    ///
    /// # Errors
    /// The field that cannot be served, or that there is nothing to make.
    pub fn check(&self, maker: &impl PictureMaker) -> Result<(), StudyError> {
        for (prompts, seeds) in [(&self.prompts, &self.seeds), (&self.held_out_prompts, &self.held_out_seeds)] {
            Study::plan(maker, self.grid(prompts, seeds, Measure::Counted))?;
        }
        Ok(())
    }

    /// Searches. Blocks; not for threads of an async runtime.
    ///
    /// # Errors
    /// If it is cancelled, or a picture cannot be made: nothing of it is kept then.
    pub fn run<M: PictureMaker>(
        &self,
        maker: &M,
        cancellation: &Cancellation,
        watch: &mut dyn FnMut(Progress<'_>),
    ) -> Result<Tuned, StudyError> {
        let mut runner = Runner { maker, cancellation, watch, tuning: self, done: 0 };
        let finalists = Search::new(&mut runner).run()?;
        verdict::check(&mut runner, finalists)
    }

    fn grid(&self, prompts: &[String], seeds: &[u64], measure: Measure) -> Grid {
        Grid {
            settings: Vec::new(),
            request: self.request.clone(),
            prompts: prompts.to_vec(),
            seeds: seeds.to_vec(),
            measure,
            kept_pictures: 0,
        }
    }

    /// The most pictures that the check may take.
    fn pictures_of_check(&self) -> usize {
        let pictures = self.held_out_prompts.len() * self.held_out_seeds.len();
        verdict::WARM_UPS + pictures * (1 + search::FINALISTS * self.goals.len()) * self.repeats
    }
}

/// Makes the pictures of all stages, and counts them.
struct Runner<'a, M> {
    maker: &'a M,
    cancellation: &'a Cancellation,
    watch: &'a mut dyn FnMut(Progress<'_>),
    tuning: &'a Tuning,
    done: usize,
}

impl<M: PictureMaker> Runner<'_, M> {
    fn study(&mut self, grid: Grid, stage: Stage) -> Result<Outcome, StudyError> {
        let study = Study::plan(self.maker, grid)?;
        let (before, pictures) = (self.done, study.pictures());
        let of = match stage {
            Stage::Search => self.tuning.budget + self.tuning.pictures_of_check(),
            Stage::Check => before + pictures,
        };
        let mut outcome = study.run(self.cancellation, &mut |event| {
            if let Event::Picture { done, setting, .. } = event {
                (self.watch)(Progress { done: before + done, of: of.max(before + done), stage, setting });
            }
        });
        self.done = before + pictures;
        std::mem::replace(&mut outcome.ended, Ok(()))?;
        Ok(outcome)
    }
}
