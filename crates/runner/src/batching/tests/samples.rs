//! Samples beside requests: a turn of the worker is the unit, and what a request waits for is counted in turns.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use proptest::prelude::*;

use super::super::sample_queue::{MAX_WAITING_SAMPLES, SampleQueue};
use super::super::work_loop::{Message, Turn, WorkLoop};
use super::fake_model::{FakeImage, Fault, Forward};
use super::*;
use crate::request::{RgbImage, SampleFailure, SampleSink, UncachedImage};

/// What became of samples, in the order in which they ended: seed, and picture or failure.
type Ends = Vec<(u64, Result<Vec<u8>, SampleFailure>)>;

/// A worker whose turns the test takes.
struct Site {
    sender: SyncSender<Message>,
    messages: Receiver<Message>,
    samples: Arc<SampleQueue<FakeImage>>,
    parts: LoopParts<FakeModel>,
    clock: Arc<VirtualClock>,
    ends: Arc<Mutex<Ends>>,
}

impl Site {
    fn new(max_batch_rows: usize) -> Self {
        let clock = Arc::new(VirtualClock::default());
        let samples: Arc<SampleQueue<FakeImage>> = Arc::default();
        let ledger = WorkLedger::new(Arc::clone(samples.requests()));
        let parts = LoopParts {
            model: Arc::new(FakeModel::new(Arc::clone(&clock))),
            max_batch_rows,
            clock: Arc::<VirtualClock>::clone(&clock),
            shared: worker_shared(max_batch_rows, ledger),
        };
        let (sender, messages) = sync_channel(1000);
        Self { sender, messages, samples, parts, clock, ends: Arc::default() }
    }

    fn worker(&self) -> WorkLoop<'_, FakeModel> {
        WorkLoop::new(self.parts.clone(), Arc::clone(&self.samples), &self.messages)
    }

    fn submit(&self, wanted: &Wanted) -> Ticket {
        let request = wanted.planned();
        let (ticket, outcome) = ticket(&request);
        let entry = self.parts.shared.ledger.enter(Work::of(&request), request.owner, outcome.cancelled());
        let (accepted, spans) = (self.clock.now(), RequestSpans::accepted());
        let request = AcceptedRequest { request, outcome, entry, accepted, timeout: None, spans };
        assert!(self.sender.try_send(Message::Request(Box::new(request))).is_ok());
        ticket
    }

    fn sink(&self, seed: u64) -> SampleSink {
        let ends = Arc::clone(&self.ends);
        Box::new(move |made: Result<RgbImage, _>| ends.lock().unwrap().push((seed, made.map(|made| made.data))))
    }

    /// Whether it was taken.
    fn sample(&self, wanted: &Wanted) -> bool {
        self.samples.offer(uncached(wanted), self.sink(wanted.seed))
    }

    fn forwards(&self) -> Vec<Forward> {
        self.parts.model.forwards()
    }

    fn ends(&self) -> Ends {
        self.ends.lock().unwrap().clone()
    }

    fn run_out(&self, worker: &mut WorkLoop<'_, FakeModel>) {
        while worker.turn() == Turn::Worked {}
        assert_eq!(self.parts.model.living_images(), 0);
    }
}

fn uncached(wanted: &Wanted) -> UncachedImage {
    UncachedImage { spec: wanted.spec(), seed: wanted.seed, device: 0 }
}

/// What was made at which turn, but for samples.
fn of_requests(forwards: &[(usize, Forward)]) -> Vec<(usize, Forward)> {
    forwards.iter().filter(|(_, forward)| !forward.is_sample).cloned().collect()
}

/// Clients that send their next request once they have an answer, four at a time, so that one always waits; then the rest.
/// Returns the forwards before the last answer, and how many samples were taken and how many refused.
fn never_empty_queue(site: &Site, samples: bool) -> (Vec<Forward>, usize, usize) {
    let mut worker = site.worker();
    let wanted = |number: u64| Wanted {
        images: 1 + (number % 3) as usize,
        size: [SMALL, WIDE][(number % 2) as usize],
        steps: 2 + (number % 4) as usize,
        ..request(4 * number)
    };
    let mut open: Vec<_> = (1..=4).map(|number| (wanted(number), site.submit(&wanted(number)))).collect();
    let (mut sent, mut taken, mut refused) = (4, 0, 0);
    while !open.is_empty() {
        assert_eq!(worker.turn(), Turn::Worked);
        let done = |ticket: &Ticket, wanted: &Wanted| ticket.progress().borrow().step == wanted.steps * wanted.images;
        let gone: Vec<_> = open.iter().map(|(wanted, ticket)| done(ticket, wanted)).collect();
        // An image that has made its steps is still to be decoded: it is done once the ledger has let it go.
        if site.parts.shared.ledger.totals().requests == open.len() {
            continue;
        }
        let first = gone.iter().position(|gone| *gone).unwrap();
        let (answered, ticket) = open.remove(first);
        let finished = answer(ticket).unwrap();
        for index in 0..answered.images {
            assert_eq!(picture(&finished, index).1 as usize, answered.steps);
            let again = Wanted { seed: finished.seeds.of(index), ..answered.clone() };
            match samples.then(|| site.sample(&again)) {
                Some(true) => taken += 1,
                Some(false) => refused += 1,
                None => {}
            }
        }
        if sent < 60 {
            sent += 1;
            open.push((wanted(sent), site.submit(&wanted(sent))));
        }
    }
    let forwards = site.forwards();
    site.run_out(&mut worker);
    (forwards, taken, refused)
}

#[test]
fn a_queue_that_never_empties_is_served_as_if_there_were_no_samples() {
    let (without, with) = (Site::new(3), Site::new(3));
    let (alone, ..) = never_empty_queue(&without, false);
    let (beside, taken, refused) = never_empty_queue(&with, true);
    assert_eq!(beside, alone, "a sample moved a request");
    let pictures: usize = (1..=60).map(|number| 1 + number % 3).sum();
    assert_eq!((taken, taken + refused), (MAX_WAITING_SAMPLES, pictures));
    let is_refused = |end: &Result<_, _>| matches!(end, Err(SampleFailure::QueueFull));
    let (late, made): (Vec<_>, Vec<_>) = with.ends().into_iter().partition(|(_, end)| is_refused(end));
    assert_eq!((made.len(), late.len()), (taken, refused), "those that were taken are made once there is time");
    assert!(made.iter().all(|(seed, made)| u64::from(made.as_ref().unwrap()[0]) == *seed));
}

#[test]
fn a_sample_pauses_between_steps_and_goes_on_where_it_was() {
    let site = Site::new(8);
    let mut worker = site.worker();
    assert!(site.sample(&request(9)));
    // It is begun, and makes a step.
    assert_eq!([worker.turn(), worker.turn()], [Turn::Worked, Turn::Worked]);
    let ticket = site.submit(&request(1));
    (0..4).for_each(|_| assert_eq!(worker.turn(), Turn::Worked));
    assert!(answer(ticket).is_ok());
    site.run_out(&mut worker);
    let steps: Vec<_> = site.forwards().iter().map(|forward| forward.images[0]).collect();
    assert_eq!(steps, [(9, 1), (1, 1), (1, 2), (1, 3), (1, 4), (9, 2), (9, 3), (9, 4)]);
    // What the same request would have got.
    let again = site.submit(&request(9));
    site.run_out(&mut worker);
    assert_eq!(site.ends(), [(9, Ok(answer(again).unwrap().images[0].data.clone()))]);
}

#[test]
fn samples_show_in_no_figure_of_the_requests() {
    let site = Site::new(8);
    let mut worker = site.worker();
    assert!(site.sample(&Wanted { prompt: format!("{}s", fake_model::TEXT), ..request(9) }));
    worker.turn();
    worker.turn();
    assert_eq!(site.parts.shared.ledger.totals(), WorkLedger::default().totals());
    site.run_out(&mut worker);
    assert_eq!(site.ends().len(), 1);
    let mut statistics = EngineStatistics::default();
    site.parts.shared.counters.add_to(&mut statistics);
    assert_eq!(statistics, EngineStatistics { batch_rows: vec![0; 9], ..EngineStatistics::default() });
    assert!(site.parts.shared.ledger.buckets().is_empty(), "estimates are made of requests");
    assert_eq!(site.parts.model.texts_and_decodings().0, 0, "no text is kept for a sample");
}

#[test]
fn a_request_of_another_worker_on_the_device_goes_before() {
    let site = Site::new(8);
    let mut worker = site.worker();
    let other = WorkLedger::new(Arc::clone(site.samples.requests()));
    assert!(site.sample(&request(9)));
    worker.turn();
    let (wanted, other) = (request(1).planned(), Arc::new(other));
    let (_ticket, outcome) = ticket(&wanted);
    let entry = other.enter(Work::of(&wanted), wanted.owner, outcome.cancelled());
    assert_eq!((worker.turn(), site.forwards().len()), (Turn::Idle, 0));
    drop(entry);
    site.run_out(&mut worker);
    assert_eq!(site.ends().len(), 1);
}

#[test]
fn a_sample_that_fails_ends_alone() {
    let site = Site::new(8);
    let mut worker = site.worker();
    for (seed, fault) in
        [(1, Fault::Begin), (2, Fault::Error(2)), (3, Fault::Panic(1)), (4, Fault::NotFinite(2)), (5, Fault::Decode)]
    {
        site.parts.model.break_image(seed, fault);
        assert!(site.sample(&request(seed)));
    }
    assert!(site.samples.offer(uncached(&request(6)), Box::new(|_| unreachable!("a sink that panics"))));
    assert!(site.sample(&request(7)));
    site.run_out(&mut worker);
    let failed: Vec<_> = site.ends().iter().map(|(seed, made)| (*seed, made.is_err())).collect();
    assert_eq!(failed, [(1, true), (2, true), (3, true), (4, true), (5, true), (7, false)]);
}

#[test]
fn closing_ends_samples_at_once_and_requests_are_finished() {
    let site = Site::new(8);
    let mut worker = site.worker();
    (1..=3).for_each(|seed| assert!(site.sample(&request(seed))));
    worker.turn();
    worker.turn();
    let ticket = site.submit(&request(9));
    worker.turn();
    site.samples.close();
    assert!(!site.sample(&request(4)));
    assert_eq!(site.ends(), [1, 2, 3, 4].map(|seed| (seed, Err(SampleFailure::Closed))));
    assert_eq!(site.parts.model.living_images(), 1, "the request's");
    site.run_out(&mut worker);
    assert!(answer(ticket).is_ok());
    assert_eq!(site.forwards().iter().filter(|forward| forward.is_sample).count(), 1);
}

proptest! {
    /// Whatever comes when, requests make their steps at the turns at which they would without samples.
    #[test]
    fn samples_move_no_step_of_a_request(
        arrivals in prop::collection::vec((0..60usize, 1..3usize, 1..6usize, any::<bool>()), 1..16),
        offers in prop::collection::vec(0..60usize, 1..30),
    ) {
        let run = |offers: &[usize]| {
            let site = Site::new(4);
            let mut worker = site.worker();
            let (mut tickets, mut forwards, mut taken) = (Vec::new(), Vec::new(), 0);
            for turn in 0..200 {
                for (number, (_, images, steps, wide)) in
                    arrivals.iter().enumerate().filter(|(_, (when, ..))| *when == turn)
                {
                    let size = if *wide { WIDE } else { SMALL };
                    let seed = 10 * number as u64;
                    tickets.push(site.submit(&Wanted { images: *images, steps: *steps, size, ..request(seed) }));
                }
                for _ in offers.iter().filter(|when| **when == turn) {
                    taken += usize::from(site.sample(&request(250)));
                }
                let before = site.forwards().len();
                worker.turn();
                forwards.extend(site.forwards().drain(before..).map(|forward| (turn, forward)));
            }
            site.run_out(&mut worker);
            let all_answered = tickets.into_iter().all(|ticket| answer(ticket).is_ok());
            let made = site.ends().iter().filter(|(_, made)| made.is_ok()).count();
            (forwards, all_answered && made == taken)
        };
        let ((without, _), (with, is_complete)) = (run(&[]), run(&offers));
        prop_assert!(is_complete);
        prop_assert_eq!(of_requests(&with), of_requests(&without));
    }
}
