//! Runs a grid.
//!
//! A round gives every setting a turn, in which it makes all pictures of the grid; every second round goes backwards, so
//! that a machine that becomes slower or faster meanwhile favours nobody. The first round begins with the uncached pictures, which
//! all others are compared with, and its pictures are those that count; later ones are made for their seconds alone.

use std::sync::Arc;
use std::time::Duration;

use afterimage_runner::{FinishedRequest, PlannedRequest, RequestWarning, RgbImage, SubmitError};
use tokio::runtime::Runtime;

use crate::cancellation::Cancellation;
use crate::error::StudyError;
use crate::grid::{Grid, Measure};
use crate::maker::PictureMaker;
use crate::measurement::Measurement;
use crate::row::{Report, Row};
use crate::setting::Setting;

/// Until a maker that had no room is asked again.
const PATIENCE: Duration = Duration::from_millis(200);

/// A grid that the model can do.
pub struct Study<'m, M> {
    maker: &'m M,
    grid: Grid,
    /// The uncached pictures first.
    measurements: Vec<Measurement>,
    report: Report,
}

/// What happens meanwhile.
#[derive(Debug)]
pub enum Event<'a> {
    /// A picture is about to be made.
    Picture {
        /// Pictures made so far, warm-ups included.
        done: usize,
        /// In all.
        of: usize,
        /// The setting's name.
        setting: &'a str,
    },
    /// A setting has had its turn. Where there are several rounds, its row comes again after each, with more repeats.
    Row {
        /// Its place among the rows.
        index: usize,
        /// What is known of it now.
        row: &'a Row,
    },
}

/// What a study came to.
#[derive(Debug)]
pub struct Outcome {
    /// The rows of all settings that had at least one turn.
    pub report: Report,
    /// Why it ended early, if it did.
    pub ended: Result<(), StudyError>,
}

impl<'m, M: PictureMaker> Study<'m, M> {
    /// Checks everything that will be asked of the model.
    ///
    /// # Errors
    /// The first setting that it cannot use, or what is wrong with the pictures themselves.
    pub fn plan(maker: &'m M, grid: Grid) -> Result<Self, StudyError> {
        let uncached = Setting::uncached();
        let requests = grid.requests(&uncached.cache, maker).map_err(StudyError::Request)?;
        let Some(first) = requests.first() else { return Err(StudyError::NoPictures) };
        let model = maker.model();
        let report = Report {
            model: model.id.clone(),
            device: maker.device(),
            dtype: model.precision(),
            scheduler: first.spec().scheduler.as_str(),
            steps: first.spec().steps,
            guidance_scale: grid.request.guidance_scale.unwrap_or(model.default_guidance_scale),
            prompts: grid.prompts.clone(),
            seeds: grid.seeds.clone(),
            complete: false,
            rows: Vec::new(),
        };
        let mut measurements = vec![Measurement::new(uncached, requests)];
        for (index, setting) in grid.settings.iter().enumerate() {
            let refused = |source| StudyError::Setting { index, name: setting.name.clone(), source };
            measurements
                .push(Measurement::new(setting.clone(), grid.requests(&setting.cache, maker).map_err(refused)?));
        }
        Ok(Self { maker, grid, measurements, report })
    }

    /// What of the pictures is not as it was asked for; what a cache has to say comes with each setting's.
    pub fn warnings(&self) -> Vec<RequestWarning> {
        let mut warnings: Vec<RequestWarning> = Vec::new();
        for warning in self.measurements.iter().flat_map(|one| &one.requests).flat_map(PlannedRequest::warnings) {
            if !warnings.contains(warning) {
                warnings.push(warning.clone());
            }
        }
        warnings
    }

    /// Pictures that will be made, warm-ups included.
    pub fn pictures(&self) -> usize {
        let of_a_turn = self.measurements[0].requests.len();
        self.grid.measure.warm_ups() + self.grid.measure.rounds() * self.measurements.len() * of_a_turn
    }

    /// Makes all pictures, one at a time. Blocks; not for threads of an async runtime.
    pub fn run(mut self, cancellation: &Cancellation, watch: &mut dyn FnMut(Event<'_>)) -> Outcome {
        let ended = self.measure(cancellation, watch);
        let rows = self.measurements.iter().filter(|one| one.has_row()).map(|one| one.row(&self.measurements[0]));
        self.report.rows = rows.collect();
        self.report.complete = ended.is_ok();
        Outcome { report: self.report, ended }
    }

    fn measure(&mut self, cancellation: &Cancellation, watch: &mut dyn FnMut(Event<'_>)) -> Result<(), StudyError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let easel = Easel { maker: self.maker, runtime, cancellation };
        let mut counter = Counter { done: 0, of: self.pictures() };
        for _ in 0..self.grid.measure.warm_ups() {
            watch(counter.next(&self.measurements[0].setting.name));
            easel.make(&self.measurements[0].requests[0])?;
        }
        let mut references = Vec::new();
        for round in 0..self.grid.measure.rounds() {
            for turn in 0..self.measurements.len() {
                let index = if round % 2 == 0 { turn } else { self.measurements.len() - 1 - turn };
                self.turn(index, round, &easel, &mut references, &mut counter, watch)?;
                let row = self.measurements[index].row(&self.measurements[0]);
                watch(Event::Row { index, row: &row });
            }
        }
        Ok(())
    }

    /// All pictures of one setting.
    fn turn(
        &mut self,
        index: usize,
        round: usize,
        easel: &Easel<'_, M>,
        references: &mut Vec<Arc<RgbImage>>,
        counter: &mut Counter,
        watch: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), StudyError> {
        let measurement = &mut self.measurements[index];
        for (picture, of) in self.grid.pictures().enumerate() {
            watch(counter.next(&measurement.setting.name));
            let finished = easel.make(&measurement.requests[picture])?;
            let timings = finished.timings;
            let is_timed = matches!(self.grid.measure, Measure::Timed { .. });
            if round == 0 {
                if index == 0 && is_timed {
                    references.extend(finished.images.first().cloned().map(Arc::new));
                }
                let reference = references.get(picture).map(|image| &**image);
                measurement.add(of, finished, reference, picture < self.grid.kept_pictures)?;
            }
            if is_timed {
                let all = timings.encode_seconds + timings.denoise_seconds + timings.decode_seconds;
                measurement.time(picture, timings.denoise_seconds, all);
            }
        }
        measurement.end_round();
        Ok(())
    }
}

/// Pictures made and to be made.
struct Counter {
    done: usize,
    of: usize,
}

impl Counter {
    fn next<'a>(&mut self, setting: &'a str) -> Event<'a> {
        self.done += 1;
        Event::Picture { done: self.done - 1, of: self.of, setting }
    }
}

/// Where pictures are waited for.
struct Easel<'a, M> {
    maker: &'a M,
    runtime: Runtime,
    cancellation: &'a Cancellation,
}

impl<M: PictureMaker> Easel<'_, M> {
    fn make(&self, request: &PlannedRequest) -> Result<FinishedRequest, StudyError> {
        self.runtime.block_on(async {
            tokio::select! {
                // Its ticket is dropped then, which cancels the picture.
                biased;
                () = self.cancellation.cancelled() => Err(StudyError::Cancelled),
                finished = self.made(request) => finished,
            }
        })
    }

    async fn made(&self, request: &PlannedRequest) -> Result<FinishedRequest, StudyError> {
        loop {
            match self.maker.submit(request.clone()) {
                Ok(ticket) => return Ok(ticket.finished().await?),
                Err(SubmitError::QueueFull { .. }) => tokio::time::sleep(PATIENCE).await,
                Err(error) => return Err(error.into()),
            }
        }
    }
}
