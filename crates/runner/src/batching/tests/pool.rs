//! The door in front of the workers: bounds, distribution, death and drain. The threads are real; the
//! tests wait for answers, never for a time.

use super::super::pool::{PoolLimits, SubmitError, WorkerPool, WorkerSeat};
use super::fake_model::{Fault, Forward};
use super::*;
use crate::request::{RgbImage, SampleFailure, SampleSink, UncachedImage};

const LIMITS: PoolLimits =
    PoolLimits { max_batch_rows: 4, max_queued_requests: 64, max_queued_seconds: 600.0, request_timeout: None };

fn pool(workers: usize, limits: PoolLimits) -> (WorkerPool<FakeModel>, Arc<FakeModel>) {
    let clock = Arc::new(VirtualClock::default());
    let model = Arc::new(FakeModel::new(Arc::clone(&clock)));
    let seats = (0..workers).map(|index| seat(index, &model)).collect();
    (WorkerPool::start(seats, limits, clock, &[request(0).spec()]).unwrap(), model)
}

/// A worker on a device of its own.
fn seat(index: usize, model: &Arc<FakeModel>) -> WorkerSeat<FakeModel> {
    WorkerSeat { name: format!("worker-{index}"), device: index, model: Arc::clone(model) }
}

/// Longer than any test: 16 GiB of steps would take the fake model days, and a dropped ticket ends it.
fn endless(seed: u64) -> Wanted {
    Wanted { steps: 1 << 34, ..request(seed) }
}

fn wait_until(is_so: impl Fn() -> bool) {
    while !is_so() {
        std::thread::yield_now();
    }
}

#[test]
fn accepted_work_is_finished_and_the_threads_end() {
    let (pool, model) = pool(2, LIMITS);
    let tickets: Vec<_> = (1..20).map(|seed| (seed, pool.submit(request(seed).planned()).unwrap())).collect();
    pool.drain();
    assert_eq!(pool.submit(request(99).planned()).err(), Some(SubmitError::Closed));
    assert!(!pool.is_ready());
    for (seed, ticket) in tickets {
        assert_eq!(picture(&answer(ticket).unwrap(), 0), (seed, 4));
    }
    wait_until(|| pool.has_ended());
    assert_eq!((pool.totals().requests, model.living_images()), (0, 0));
    assert_eq!(pool.statistics().finished, 19);
}

#[test]
fn one_forward_at_most_begins_after_a_client_has_left() {
    let (pool, model) = pool(1, PoolLimits { max_queued_seconds: f64::INFINITY, ..LIMITS });
    let stays = pool.submit(endless(1).planned()).unwrap();
    for seed in 2..20 {
        let leaves = pool.submit(endless(seed).planned()).unwrap();
        wait_until(|| pool.totals().running_rows == 2);
        drop(leaves);
        let begun = model.forwards().len();
        wait_until(|| pool.totals().requests == 1);
        let has_seed = |forward: &Forward| forward.images.iter().any(|(of, _)| *of == seed);
        let more = model.forwards()[begun..].iter().filter(|forward| has_seed(forward)).count();
        assert!(more <= 1, "{more} more forwards of seed {seed}");
    }
    drop(stays);
    wait_until(|| pool.totals().requests == 0);
}

#[test]
fn a_request_goes_to_the_worker_with_the_least_work() {
    let limits = PoolLimits { max_queued_seconds: f64::INFINITY, ..LIMITS };
    let (pool, _) = pool(2, limits);
    // Both workers have the same batch size; two endless requests do not end up with one of them.
    let heavy = [pool.submit(endless(1).planned()).unwrap(), pool.submit(endless(2).planned()).unwrap()];
    wait_until(|| pool.statistics().images_begun == 2);
    assert_eq!(pool.statistics().joins, 0);
    drop(heavy);
    wait_until(|| pool.totals().requests == 0);
}

#[test]
fn too_many_waiting_requests_are_refused() {
    let limits = PoolLimits { max_batch_rows: 1, max_queued_requests: 2, max_queued_seconds: f64::INFINITY, ..LIMITS };
    let (pool, _) = pool(1, limits);
    let runs = pool.submit(endless(1).planned()).unwrap();
    wait_until(|| pool.totals().running_rows == 1);
    let waiting = [pool.submit(request(2).planned()).unwrap(), pool.submit(request(3).planned()).unwrap()];
    let refused = pool.submit(request(4).planned()).err().unwrap();
    // Not before the running request has made its 2^34 steps of 10 ms.
    let SubmitError::QueueFull { retry_after } = refused else { unreachable!("{refused}") };
    assert!(retry_after > Duration::from_secs(100_000_000), "{retry_after:?}");
    drop(runs);
    for ticket in waiting {
        answer(ticket).unwrap();
    }
}

#[test]
fn whoever_comes_to_a_full_queue_gets_its_share_of_it() {
    let limits = PoolLimits { max_batch_rows: 1, max_queued_requests: 4, max_queued_seconds: f64::INFINITY, ..LIMITS };
    let (pool, _) = pool(1, limits);
    let _runs = pool.submit(endless(1).of(1).planned()).unwrap();
    wait_until(|| pool.totals().running_rows == 1);
    let taken = |owner, wanted: u64| -> Vec<_> {
        (0..wanted).filter_map(|seed| pool.submit(endless(10 + seed).of(owner).planned()).ok()).collect()
    };
    let (hog, other) = (taken(1, 9), taken(2, 9));
    assert_eq!((hog.len(), other.len()), (4, 2));
    assert!(pool.submit(endless(30).of(1).planned()).is_err(), "the hog has more than its share");
    assert_eq!(taken(3, 1).len(), 1);
    drop((hog, other));
}

#[test]
fn whoever_leaves_takes_no_more_places_than_it_has() {
    let limits = PoolLimits { max_batch_rows: 1, max_queued_requests: 8, max_queued_seconds: f64::INFINITY, ..LIMITS };
    let (pool, model) = pool(1, limits);
    let clients = Arc::new(());
    let request = |seed| Wanted { hold: Some(Hold::new(Arc::clone(&clients))), ..endless(seed) };
    // Whoever bounds its client by what it holds has at most two of its requests in the queue, however quickly it leaves.
    for seed in 0..2000 {
        if Arc::strong_count(&clients) <= 2 {
            drop(pool.submit(request(seed).planned()).unwrap());
        }
        assert!(pool.totals().waiting <= 2);
    }
    wait_until(|| Arc::strong_count(&clients) == 1);
    assert_eq!((pool.totals().requests, model.living_images()), (0, 0));
}

#[test]
fn work_in_seconds_is_shared_too() {
    // 2^34 steps of 10 ms are 1.7e8 s.
    let (pool, _) = pool(1, PoolLimits { max_batch_rows: 1, max_queued_seconds: 1e9, ..LIMITS });
    let take = |owner, wanted: u64| -> Vec<_> {
        (0..wanted).filter_map(|seed| pool.submit(endless(10 + seed).of(owner).planned()).ok()).collect()
    };
    let (hog, other) = (take(1, 9), take(2, 9));
    assert_eq!((hog.len(), other.len()), (5, 2));
    let SubmitError::QueueFull { retry_after } = pool.submit(endless(30).of(2).planned()).err().unwrap() else {
        unreachable!("the other has its share")
    };
    assert!(retry_after.as_secs_f64() < pool.totals().seconds && retry_after.as_secs_f64() > 1e7, "{retry_after:?}");
    assert!(pool.seconds_to_first_of(Owner::new(2)) > 0.0);
    assert_eq!(pool.seconds_to_first_of(Owner::new(9)), 0.0);
    drop((hog, other));
}

#[test]
fn too_many_seconds_of_work_are_refused_with_the_time_until_there_is_room() {
    let (pool, _) = pool(1, PoolLimits { max_queued_seconds: 1e9, ..LIMITS });
    // 2^34 steps of 10 ms are 1.7e8 s.
    let running: Vec<_> = (1..6).map(|seed| pool.submit(endless(seed).planned()).unwrap()).collect();
    let refused = pool.submit(endless(7).planned()).err().unwrap();
    let SubmitError::QueueFull { retry_after } = refused else { unreachable!("{refused}") };
    let excess = 6.0 * 0.01 * f64::from(1u32 << 31) * 8.0 - 1e9;
    let wait = retry_after.as_secs_f64();
    assert!(wait <= excess + 1.0 && wait > 0.9 * excess, "{wait} s for {excess} s");
    assert_eq!(
        pool.estimate(&endless(8).planned()).map(f64::round),
        Some((0.01 * (1u64 << 34) as f64 + 0.005).round())
    );
    drop(running);
    wait_until(|| pool.totals().requests == 0);
    assert_eq!(pool.totals().seconds, 0.0);
}

#[test]
fn a_job_may_always_have_a_worker_that_does_nothing_else() {
    let (pool, _) = pool(1, PoolLimits { max_queued_seconds: 0.001, ..LIMITS });
    assert!(answer(pool.submit(request(1).planned()).unwrap()).is_ok());
}

#[test]
fn a_worker_that_dies_starts_again_once() {
    let (pool, model) = pool(1, LIMITS);
    model.break_image(1, Fault::Loop);
    assert!(matches!(answer(pool.submit(request(1).planned()).unwrap()), Err(RequestFailure::Failed(_))));
    wait_until(|| pool.statistics().worker_restarts == 1);
    assert!(pool.is_ready());
    model.mend();
    assert!(answer(pool.submit(request(2).planned()).unwrap()).is_ok());
    model.break_image(3, Fault::Loop);
    assert!(matches!(answer(pool.submit(request(3).planned()).unwrap()), Err(RequestFailure::Failed(_))));
    assert!(!pool.is_ready());
    assert_eq!(pool.submit(request(4).planned()).err(), Some(SubmitError::Closed));
    wait_until(|| pool.has_ended());
    assert_eq!((pool.totals().requests, model.living_images()), (0, 0));
}

#[test]
fn a_worker_that_dies_once_it_is_chosen_leaves_the_request_to_the_next() {
    let (pool, _) = pool(3, LIMITS);
    pool.cut_off(0);
    // The other two still take work when the lightest worker, which looks alive, turns out not to.
    for seed in 1..5 {
        assert_eq!(picture(&answer(pool.submit(request(seed).planned()).unwrap()).unwrap(), 0), (seed, 4));
    }
    pool.cut_off(1);
    assert!(answer(pool.submit(request(5).planned()).unwrap()).is_ok());
    pool.cut_off(2);
    assert_eq!(pool.submit(request(6).planned()).err(), Some(SubmitError::Closed));
    wait_until(|| pool.has_ended());
    let totals = pool.totals();
    assert_eq!((totals.requests, totals.seconds), (0, 0.0), "what was not taken counts nowhere");
}

#[test]
fn the_others_go_on_when_a_worker_is_dead() {
    let (pool, model) = pool(2, LIMITS);
    model.break_image(1, Fault::Loop);
    // Both start again once; then one stays dead.
    while pool.is_ready() {
        assert!(answer(pool.submit(request(1).planned()).unwrap()).is_err());
    }
    model.mend();
    assert!(pool.is_open());
    for seed in 2..6 {
        assert!(answer(pool.submit(request(seed).planned()).unwrap()).is_ok());
    }
}

/// Hands the picture to the receiver.
fn sink() -> (SampleSink, std::sync::mpsc::Receiver<Result<RgbImage, SampleFailure>>) {
    let (sender, receiver) = std::sync::mpsc::channel();
    let sink = move |made| {
        let _ = sender.send(made);
    };
    (Box::new(sink), receiver)
}

fn uncached(device: usize, seed: u64) -> UncachedImage {
    UncachedImage { spec: request(seed).spec(), seed, device }
}

#[test]
fn samples_wait_for_their_device_and_for_no_other() {
    let clock = Arc::new(VirtualClock::default());
    let model = Arc::new(FakeModel::new(Arc::clone(&clock)));
    let on = |device, index| WorkerSeat { device, ..seat(index, &model) };
    let limits = PoolLimits { max_queued_seconds: f64::INFINITY, ..LIMITS };
    let pool = WorkerPool::start(vec![on(0, 0), on(0, 1), on(1, 2)], limits, clock, &[]).unwrap();
    let runs = pool.submit(endless(1).planned()).unwrap();
    wait_until(|| pool.totals().running_rows == 1);
    let ((waits, waiting), (goes, going)) = (sink(), sink());
    pool.sample(uncached(0, 8), waits);
    pool.sample(uncached(1, 9), goes);
    assert_eq!(going.recv().unwrap().unwrap().data[..2], [9, 4]);
    assert!(waiting.try_recv().is_err());
    drop(runs);
    assert_eq!(waiting.recv().unwrap().unwrap().data[..2], [8, 4]);
    let forwards = model.forwards();
    let last_of_the_request = forwards.iter().rposition(|forward| forward.images[0].0 == 1).unwrap();
    let first_of_the_sample = forwards.iter().position(|forward| forward.images[0].0 == 8).unwrap();
    assert!(last_of_the_request < first_of_the_sample);
}

#[test]
fn a_pool_that_drains_gives_samples_up_at_once() {
    let (pool, model) = pool(1, PoolLimits { max_queued_seconds: f64::INFINITY, ..LIMITS });
    let runs = pool.submit(endless(1).planned()).unwrap();
    wait_until(|| pool.totals().running_rows == 1);
    let (waits, waiting) = sink();
    pool.sample(uncached(0, 8), waits);
    pool.drain();
    assert_eq!(waiting.recv(), Ok(Err(SampleFailure::Closed)), "while the request still runs");
    let (late, refused) = sink();
    pool.sample(uncached(0, 9), late);
    assert_eq!(refused.recv(), Ok(Err(SampleFailure::Closed)));
    drop(runs);
    wait_until(|| pool.has_ended());
    assert_eq!(model.living_images(), 0);
}

#[test]
fn a_warm_up_that_fails_is_an_error_of_the_start() {
    let clock = Arc::new(VirtualClock::default());
    let model = Arc::new(FakeModel::new(Arc::clone(&clock)));
    model.break_image(0, Fault::Begin);
    let started = WorkerPool::start(vec![seat(0, &model)], LIMITS, clock, &[request(0).spec()]);
    assert!(started.err().unwrap().to_string().contains("cannot begin"));
}
