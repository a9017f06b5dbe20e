//! The settings that were found, timed and checked on pictures that the search did not see.

use super::goal::Goal;
use super::search::Finalist;
use super::trial::Trial;
use super::{Runner, Stage};
use crate::error::StudyError;
use crate::grid::Measure;
use crate::maker::PictureMaker;
use crate::profile::{Floor, Likenesses, Measured, ProfileSetting};
use crate::row::{PictureRow, Report, Row};

/// Pictures before the first that count.
pub(super) const WARM_UPS: usize = 1;

/// What a search came to.
#[derive(Debug)]
pub struct Tuned {
    /// One for each goal, in their order.
    pub winners: Vec<Result<Winner, Missed>>,
    /// Everything that was checked and reuses something, also what is no faster than no cache.
    pub settings: Vec<ProfileSetting>,
    /// What was measured in the check, with the uncached pictures first.
    pub report: Report,
    /// Pictures that were made in all.
    pub pictures_made: usize,
    /// Pictures that each setting was compared on, those of search and check together.
    pub pictures: usize,
}

/// Why no setting is the answer to a goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    /// Nothing that was checked reuses a step, or nothing was: what may be searched is too little for one setting.
    Untried,
    /// None is as alike, or as fast, as asked for.
    Goal,
    /// Some are as alike as asked for, and took no less time than no cache.
    Speed,
}

/// The best setting for a goal.
#[derive(Debug, Clone)]
pub struct Winner {
    /// With figures of all its pictures.
    pub setting: ProfileSetting,
    /// What became of those that the search did not see.
    pub held_out: HeldOut,
}

/// The pictures that the search did not see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct HeldOut {
    /// All of them.
    pub pictures: usize,
    /// Those as alike as the goal asks for; where it asks for speed, those of which so many fewer blocks ran.
    pub passed: usize,
}

/// A finalist with what the check has seen of it.
struct Checked {
    setting: ProfileSetting,
    unseen: Trial,
    /// Times fewer blocks that ran of each unseen picture.
    factors: Vec<f64>,
}

/// Times and checks the finalists.
pub(super) fn check<M: PictureMaker>(
    runner: &mut Runner<'_, M>,
    finalists: Vec<Finalist>,
) -> Result<Tuned, StudyError> {
    let tuning = runner.tuning;
    let measure = Measure::Timed { repeats: tuning.repeats, warm_ups: WARM_UPS };
    let mut grid = tuning.grid(&tuning.held_out_prompts, &tuning.held_out_seeds, measure);
    grid.settings = finalists.iter().map(|finalist| finalist.setting.clone()).collect();
    let outcome = runner.study(grid, Stage::Check)?;
    let Some((uncached, rows)) = outcome.report.rows.split_first() else { return Err(StudyError::NoPictures) };
    let checked = finalists.into_iter().zip(rows).map(|(finalist, row)| Checked::new(finalist, row, uncached));
    let mut checked: Vec<Checked> = checked.collect::<Result<_, _>>()?;
    // What reuses nothing is the same as no cache, and only ever faster by chance.
    checked.retain(|one| one.unseen.bound > 1.0);
    let winners = tuning.goals.iter().map(|goal| winner(*goal, &checked)).collect();
    Ok(Tuned {
        winners,
        settings: checked.iter().map(|one| one.setting.clone()).collect(),
        report: outcome.report,
        pictures_made: runner.done,
        pictures: tuning.prompts.len() * tuning.seeds.len()
            + tuning.held_out_prompts.len() * tuning.held_out_seeds.len(),
    })
}

impl Checked {
    fn new(finalist: Finalist, row: &Row, uncached: &Row) -> Result<Self, StudyError> {
        let Finalist { setting, keys, trial: searched } = finalist;
        let unseen = Trial::of(row)?;
        let all = searched.with(&unseen);
        let of = |pictures: &[f64]| Likenesses::of(pictures).ok_or(StudyError::NoPictures);
        let measured = Measured {
            // Without a clock that moves there is no factor.
            speedup: row.speedup.filter(|speedup| speedup.is_finite() && *speedup > 0.0).ok_or(StudyError::NotTimed)?,
            psnr_db: of(&all.psnr_db)?,
            ssim: of(&all.ssim)?,
            hit_rate: row.hit_rate,
        };
        let setting = ProfileSetting::new(setting.cache.backend(), keys, measured).map_err(StudyError::Profile)?;
        let blocks = uncached.pictures.iter().zip(&row.pictures);
        let factor = |(all, own): (&PictureRow, &PictureRow)| {
            all.executed_blocks as f64 / f64::max(own.executed_blocks as f64, 1.0)
        };
        Ok(Self { setting, unseen, factors: blocks.map(factor).collect() })
    }

    /// On the pictures that the search has seen and has not seen together, and on the latter alone.
    fn holds(&self, floor: Floor) -> bool {
        let HeldOut { pictures, passed } = self.held_out(floor);
        floor.is_held_in(&self.setting) && pictures - passed <= pictures / 20
    }

    /// Unseen pictures that are as alike.
    fn held_out(&self, floor: Floor) -> HeldOut {
        let pictures = self.unseen.psnr_db.iter().zip(&self.unseen.ssim);
        let passed = pictures.filter(|(psnr_db, ssim)| floor.is_held_by(**psnr_db, **ssim)).count();
        HeldOut { pictures: self.unseen.pictures(), passed }
    }
}

fn winner(goal: Goal, checked: &[Checked]) -> Result<Winner, Missed> {
    if checked.is_empty() {
        return Err(Missed::Untried);
    }
    match goal {
        Goal::Alike(floor) => {
            let holding: Vec<_> = checked.iter().filter(|one| one.holds(floor)).collect();
            let missed = if holding.is_empty() { Missed::Goal } else { Missed::Speed };
            let faster = holding.into_iter().filter(|one| one.setting.speedup() > 1.0);
            let best = largest(faster, |one| one.setting.speedup()).ok_or(missed)?;
            Ok(Winner { setting: best.setting.clone(), held_out: best.held_out(floor) })
        }
        Goal::Fast(factor) => {
            let fast = checked.iter().filter(|one| one.setting.speedup() >= factor);
            let best = largest(fast, |one| one.setting.psnr_db().p05).ok_or(Missed::Goal)?;
            let passed = best.factors.iter().filter(|own| **own >= factor).count();
            Ok(Winner { setting: best.setting.clone(), held_out: HeldOut { pictures: best.factors.len(), passed } })
        }
    }
}

/// Of equals the first.
fn largest<'a>(all: impl Iterator<Item = &'a Checked>, figure: impl Fn(&Checked) -> f64) -> Option<&'a Checked> {
    all.reduce(|best, other| if figure(other) > figure(best) { other } else { best })
}
