//! The queue and the loop on a fake model in virtual time: nothing here sleeps or looks at a clock.

mod fairness;
mod fake_model;
mod isolation;
mod leaving;
mod pool;
mod real_model;
mod samples;
mod stalls;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use afterimage_cache::CachePlan;
use afterimage_checkpoint::Quantization;
use afterimage_diffusion::families::Guidance;
use afterimage_diffusion::schedulers::SchedulerKind;

use self::fake_model::{FakeModel, VirtualClock};
use super::clock::Clock;
use super::loop_parts::{LoopParts, WorkerShared};
use super::request_spans::RequestSpans;
use super::running_request::AcceptedRequest;
use super::statistics::{Counters, EngineStatistics};
use super::step_loop::StepLoop;
use super::work_estimate::Work;
use super::work_ledger::WorkLedger;
use crate::request::{
    FinishedRequest, Hold, ImageSpec, Owner, PlannedRequest, PreviewCount, RequestFailure, Seeds, Size, Ticket, ticket,
};

const SMALL: Size = Size { width: 64, height: 64 };
const WIDE: Size = Size { width: 96, height: 64 };
const LARGE: Size = Size { width: 128, height: 128 };

/// A request of one unguided image of four steps.
fn request(seed: u64) -> Wanted {
    Wanted {
        prompt: String::new(),
        images: 1,
        seed,
        size: SMALL,
        steps: 4,
        guidance: Guidance::Rows(1.0),
        previews: PreviewCount::default(),
        owner: Owner::default(),
        hold: None,
    }
}

/// What tests choose of a request.
#[derive(Debug, Clone)]
struct Wanted {
    prompt: String,
    images: usize,
    seed: u64,
    size: Size,
    steps: usize,
    guidance: Guidance,
    previews: PreviewCount,
    owner: Owner,
    hold: Option<Hold>,
}

impl Wanted {
    fn with_previews(self, previews: PreviewCount) -> Self {
        Self { previews, ..self }
    }

    fn of(self, owner: u128) -> Self {
        Self { owner: Owner::new(owner), ..self }
    }

    fn spec(&self) -> Arc<ImageSpec> {
        Arc::new(ImageSpec {
            prompt: self.prompt.clone(),
            negative_prompt: None,
            size: self.size,
            steps: self.steps,
            guidance: self.guidance,
            scheduler: SchedulerKind::Ddim,
            cache: CachePlan::None,
        })
    }

    fn planned(&self) -> PlannedRequest {
        let seeds = Seeds::new(self.seed, self.images).unwrap();
        let (previews, owner, hold) = (self.previews, self.owner, self.hold.clone());
        PlannedRequest {
            spec: self.spec(),
            seeds,
            dtype: "f32",
            quantization: Quantization::None,
            previews,
            warnings: Vec::new(),
            owner,
            hold,
        }
    }
}

/// What a worker with an empty ledger writes to.
fn worker_shared(max_batch_rows: usize, ledger: WorkLedger) -> Arc<WorkerShared> {
    let counters = Counters::new(max_batch_rows);
    Arc::new(WorkerShared { ledger: Arc::new(ledger), counters, is_being_woken: AtomicBool::new(false), device: 0 })
}

/// A loop with what it writes to.
struct Bench {
    steps: StepLoop<FakeModel>,
    model: Arc<FakeModel>,
    clock: Arc<VirtualClock>,
    shared: Arc<WorkerShared>,
    timeout: Option<Duration>,
}

impl Bench {
    fn new(max_batch_rows: usize) -> Self {
        let clock = Arc::new(VirtualClock::default());
        let model = Arc::new(FakeModel::new(Arc::clone(&clock)));
        let shared = worker_shared(max_batch_rows, WorkLedger::default());
        let parts = LoopParts {
            model: Arc::clone(&model),
            max_batch_rows,
            clock: Arc::<VirtualClock>::clone(&clock),
            shared: Arc::clone(&shared),
        };
        Self { steps: StepLoop::new(parts), model, clock, shared, timeout: None }
    }

    fn submit(&mut self, wanted: Wanted) -> Ticket {
        let request = wanted.planned();
        let (ticket, outcome) = ticket(&request);
        let entry = self.shared.ledger.enter(Work::of(&request), request.owner, outcome.cancelled());
        self.steps.submit(AcceptedRequest {
            request,
            outcome,
            entry,
            accepted: self.clock.now(),
            timeout: self.timeout,
            spans: RequestSpans::accepted(),
        });
        ticket
    }

    fn iterate(&mut self, times: usize) {
        (0..times).for_each(|_| self.steps.iterate());
    }

    /// Iterates until nothing is left, and checks that nothing is.
    fn run_out(&mut self) {
        let mut iterations = 0;
        while !self.steps.is_idle() {
            self.steps.iterate();
            iterations += 1;
            assert!(iterations < 10_000, "the loop does not come to an end");
        }
        self.assert_empty();
    }

    /// No request, image, row or second of work is left.
    fn assert_empty(&self) {
        let totals = self.shared.ledger.totals();
        assert_eq!((totals.requests, totals.waiting, totals.running_rows), (0, 0, 0));
        assert_eq!(totals.seconds, 0.0);
        assert_eq!(self.model.living_images(), 0);
    }

    fn statistics(&self) -> EngineStatistics {
        let mut statistics = EngineStatistics::default();
        self.shared.counters.add_to(&mut statistics);
        statistics
    }
}

/// The answer of a request that is no longer in the loop.
fn answer(ticket: Ticket) -> Result<FinishedRequest, RequestFailure> {
    ticket.wait()
}

/// What the fake model made the picture from: seed and steps.
fn picture(finished: &FinishedRequest, index: usize) -> (u64, u8) {
    let (image, seed) = (&finished.images[index], finished.seeds.of(index));
    assert_eq!(u64::from(image.data[0]), seed, "the picture is another seed's");
    (seed, image.data[1])
}
