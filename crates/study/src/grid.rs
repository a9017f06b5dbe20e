//! What is measured.

use afterimage_cache::CacheConfig;
use afterimage_runner::{ImageRequest, PlannedRequest, PreviewCount, RequestError};

use crate::error::StudyError;
use crate::maker::PictureMaker;
use crate::setting::Setting;

/// Settings over prompts and seeds.
#[derive(Debug, Clone)]
pub struct Grid {
    /// Each is compared with the uncached pictures, which are no setting of their own.
    pub settings: Vec<Setting>,
    /// What every picture is made of; prompt, seed and cache of it are the grid's.
    pub request: ImageRequest,
    /// Each is drawn with every seed.
    pub prompts: Vec<String>,
    /// Of the pictures of a prompt.
    pub seeds: Vec<u64>,
    /// With or without a clock.
    pub measure: Measure,
    /// So many pictures of a setting stay in its row, with what the cache did step by step.
    pub kept_pictures: usize,
}

/// How it is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Seconds and likeness. Every setting has a turn in each of `repeats` rounds, in alternating order, and the median
    /// counts.
    Timed {
        /// Rounds, at least one.
        repeats: usize,
        /// Uncached pictures before the first round that do not count.
        warm_ups: usize,
    },
    /// Blocks and forwards that ran, once, without a clock: the same figures on every machine.
    Counted,
}

impl Measure {
    pub(crate) fn rounds(self) -> usize {
        match self {
            Self::Timed { repeats, .. } => repeats.max(1),
            Self::Counted => 1,
        }
    }

    pub(crate) fn warm_ups(self) -> usize {
        match self {
            Self::Timed { warm_ups, .. } => warm_ups,
            Self::Counted => 0,
        }
    }
}

impl Grid {
    /// Whether the uncached pictures can be made.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check(&self, maker: &impl PictureMaker) -> Result<(), StudyError> {
        self.requests(&CacheConfig::None, maker).map(drop).map_err(StudyError::Request)
    }

    /// Takes out the settings that this model cannot use, such as TeaCache where nobody measured its coefficients; returns their
    /// names, and why.
    pub fn take_out_unusable(&mut self, maker: &impl PictureMaker) -> Vec<(String, RequestError)> {
        let mut unusable = Vec::new();
        let settings = std::mem::take(&mut self.settings);
        for setting in settings {
            match self.requests(&setting.cache, maker) {
                Ok(_) => self.settings.push(setting),
                Err(error) => unusable.push((setting.name, error)),
            }
        }
        unusable
    }

    /// Prompt and seed of every picture of a setting.
    pub(crate) fn pictures(&self) -> impl Iterator<Item = (&str, u64)> {
        self.prompts.iter().flat_map(|prompt| self.seeds.iter().map(move |seed| (&**prompt, *seed)))
    }

    /// The requests for all pictures with this cache.
    pub(crate) fn requests(
        &self,
        cache: &CacheConfig,
        maker: &impl PictureMaker,
    ) -> Result<Vec<PlannedRequest>, RequestError> {
        let request = |(prompt, seed): (&str, u64)| {
            maker.plan(ImageRequest {
                prompt: prompt.to_owned(),
                seed,
                images: 1,
                cache: cache.clone(),
                previews: PreviewCount::default(),
                ..self.request.clone()
            })
        };
        self.pictures().map(request).collect()
    }
}
