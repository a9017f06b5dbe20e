//! The settings that were found, timed and checked on pictures that the search did not see.

use super::goal::Goal;
use super::search::Finalist;
use super::trial::Trial;
use super::{Runner, Stage};
use crate::error::StudyError;
use crate::grid::Measure;
use crate::maker::PictureMaker;
use crate::profile::{Floor, Likenesses, Measured, ProfileSetting};
use crate::row::{Report, Row};

/// Pictures before the first that count.
pub(super) const WARM_UPS: usize = 1;

/// What a search came to.
#[derive(Debug)]
pub struct Tuned {
    /// One for each goal, in their order; `None` where no setting met it.
    pub winners: Vec<Option<Winner>>,
    /// Everything that was checked and is faster than no cache.
    pub settings: Vec<ProfileSetting>,
    /// What was measured in the check, with the uncached pictures first.
    pub report: Report,
    /// Pictures that were made in all.
    pub pictures_made: usize,
    /// Pictures that each setting was compared on, those of search and check together.
    pub pictures: usize,
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
    /// Those as alike as the goal asks for; where it asks for speed, as 19 of 20 that the search has seen.
    pub passed: usize,
}

/// A finalist with what the check has seen of it.
struct Checked {
    setting: ProfileSetting,
    searched: Trial,
    unseen: Trial,
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
    let rows = outcome.report.rows.iter().skip(1);
    let checked = finalists.into_iter().zip(rows).map(|(finalist, row)| Checked::new(finalist, row));
    let checked: Vec<Checked> = checked.collect::<Result<_, _>>()?;
    let winners = tuning.goals.iter().map(|goal| winner(*goal, &checked)).collect();
    let faster = checked.iter().filter(|one| one.setting.speedup() > 1.0);
    Ok(Tuned {
        winners,
        settings: faster.map(|one| one.setting.clone()).collect(),
        report: outcome.report,
        pictures_made: runner.done,
        pictures: tuning.prompts.len() * tuning.seeds.len()
            + tuning.held_out_prompts.len() * tuning.held_out_seeds.len(),
    })
}

impl Checked {
    fn new(finalist: Finalist, row: &Row) -> Result<Self, StudyError> {
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
        Ok(Self { setting, searched, unseen })
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

fn winner(goal: Goal, checked: &[Checked]) -> Option<Winner> {
    let (best, floor) = match goal {
        Goal::Alike(floor) => {
            let holding = checked.iter().filter(|one| one.holds(floor) && one.setting.speedup() > 1.0);
            (largest(holding, |one| one.setting.speedup())?, floor)
        }
        Goal::Fast(factor) => {
            let fast = checked.iter().filter(|one| one.setting.speedup() >= factor);
            let best = largest(fast, |one| one.setting.psnr_db().p05)?;
            let seen = Likenesses::of(&best.searched.psnr_db)?;
            (best, Floor::of_psnr(seen.p05))
        }
    };
    Some(Winner { setting: best.setting.clone(), held_out: best.held_out(floor) })
}

/// Of equals the first.
fn largest<'a>(all: impl Iterator<Item = &'a Checked>, figure: impl Fn(&Checked) -> f64) -> Option<&'a Checked> {
    all.reduce(|best, other| if figure(other) > figure(best) { other } else { best })
}
