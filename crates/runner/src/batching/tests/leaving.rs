//! Clients that leave, time that runs out, previews on the way.

use super::fake_model::{DECODE_MILLIS, ROW_STEP_MILLIS};
use super::*;

/// A request of three images, two at a time, beside another; its client leaves after `iterations`.
fn leaves_after(iterations: usize) {
    let mut bench = Bench::new(3);
    let stays = bench.submit(request(1));
    let leaves = bench.submit(Wanted { images: 3, ..request(10) });
    bench.iterate(iterations);
    let before = bench.model.forwards().len();
    let was_done = bench.statistics().finished;
    drop(leaves);
    bench.iterate(1);
    let after = bench.model.forwards();
    let is_stepped = after[before..].iter().any(|forward| forward.images.iter().any(|(seed, _)| *seed >= 10));
    assert!(!is_stepped, "stepped after its client left, {iterations} iterations in");
    bench.run_out();
    if was_done == 0 || iterations < 8 {
        assert_eq!(picture(&answer(stays).unwrap(), 0), (1, 4));
        assert_eq!(bench.statistics().cancelled, 1);
    }
}

#[test]
fn a_client_may_leave_at_any_point() {
    // Before it begins, between all steps, with two of three images done.
    (0..8).for_each(leaves_after);
}

#[test]
fn a_waiting_request_may_leave() {
    let mut bench = Bench::new(1);
    let runs = bench.submit(request(1));
    let waits = bench.submit(request(2));
    let last = bench.submit(request(3));
    bench.iterate(1);
    assert_eq!(last.progress().borrow().queue_position, 2);
    drop(waits);
    bench.iterate(1);
    assert_eq!(last.progress().borrow().queue_position, 1);
    bench.run_out();
    assert!(answer(runs).is_ok() && answer(last).is_ok());
    assert!(bench.model.forwards().iter().all(|forward| forward.images[0].0 != 2));
}

#[test]
fn time_runs_from_acceptance_also_while_waiting() {
    let mut bench = Bench::new(1);
    bench.timeout = Some(Duration::from_millis(5 * ROW_STEP_MILLIS));
    let (first, second) = (bench.submit(request(1)), bench.submit(request(2)));
    bench.run_out();
    assert!(answer(first).is_ok());
    let timeout = Duration::from_millis(5 * ROW_STEP_MILLIS);
    assert_eq!(answer(second).unwrap_err(), RequestFailure::TimedOut { timeout });
    assert_eq!(bench.statistics().timed_out, 1);
}

#[test]
fn a_request_that_is_done_in_time_is_not_hurt_by_the_clock() {
    let mut bench = Bench::new(1);
    bench.timeout = Some(Duration::from_secs(1));
    let ticket = bench.submit(request(1));
    bench.run_out();
    bench.clock.advance(10_000);
    let timings = answer(ticket).unwrap().timings;
    assert_eq!((timings.queue_seconds, timings.denoise_seconds, timings.decode_seconds), (0.0, 0.040, 0.005));
}

#[test]
fn previews_come_at_even_steps_of_every_image_one_by_one() {
    let mut bench = Bench::new(8);
    let previews = PreviewCount::new(1).unwrap();
    let mut ticket = bench.submit(Wanted { images: 2, ..request(1) }.with_previews(previews));
    let mut received = ticket.previews().unwrap();
    assert!(ticket.previews().is_none(), "there is one receiver");
    bench.run_out();
    let got: Vec<_> = std::iter::from_fn(|| received.try_recv().ok()).collect();
    let shown: Vec<_> = got.iter().map(|preview| (preview.image, preview.number, preview.step)).collect();
    assert_eq!(shown, [(0, 0, 2), (1, 0, 3)]);
    assert_eq!(got[1].pixels.data[..2], [2, 3]);
    assert!(answer(ticket).is_ok());
}

#[test]
fn previews_that_nobody_takes_are_dropped_and_counted() {
    let mut bench = Bench::new(8);
    let ticket =
        bench.submit(Wanted { images: 3, steps: 24, ..request(1) }.with_previews(PreviewCount::new(3).unwrap()));
    bench.run_out();
    // Of nine, four are made and held, and the others are not made.
    assert_eq!(bench.statistics().previews_dropped, 5);
    assert_eq!(bench.model.texts_and_decodings().1, 4 + 3);
    assert_eq!(answer(ticket).unwrap().images.len(), 3);
}

#[test]
fn previews_are_part_of_the_work() {
    let three = PreviewCount::new(3).unwrap();
    let mut bench = Bench::new(8);
    bench.steps.warm_up(&[request(0).spec()]).unwrap();
    let mut ticket = bench.submit(Wanted { images: 2, steps: 8, ..request(1) }.with_previews(three));
    let _received = ticket.previews();
    let seconds = |bench: &Bench| bench.shared.ledger.totals().seconds;
    let of = |steps: u64, decodes: u64| (steps * ROW_STEP_MILLIS + decodes * DECODE_MILLIS) as f64 / 1000.0;
    assert!((seconds(&bench) - of(16, 8)).abs() < 1e-9, "{}", seconds(&bench));
    let (mut began, mut estimate) = (bench.clock.now(), seconds(&bench));
    while !bench.steps.is_idle() {
        bench.iterate(1);
        let took = (bench.clock.now() - began).as_secs_f64();
        // What was made went from the estimate; a preview that comes too late goes unmade.
        assert!(seconds(&bench) <= estimate - took + 1e-9, "{} of {estimate} after {took}", seconds(&bench));
        (began, estimate) = (bench.clock.now(), seconds(&bench));
    }
}

#[test]
fn previews_that_nobody_could_take_are_not_made() {
    let two = PreviewCount::new(2).unwrap();
    let mut bench = Bench::new(8);
    let mut deaf = bench.submit(Wanted { steps: 9, ..request(1) }.with_previews(two));
    drop(deaf.previews());
    // Out of time in the middle of the third step of both, after which previews are due.
    bench.timeout = Some(Duration::from_millis(5 * ROW_STEP_MILLIS));
    let mut late = bench.submit(Wanted { steps: 9, ..request(2) }.with_previews(two));
    let _received = late.previews();
    bench.run_out();
    assert!(bench.model.forwards().iter().any(|forward| forward.images == [(1, 3), (2, 3)]));
    assert_eq!(bench.model.texts_and_decodings().1, 1, "the picture of the one that is still there");
    assert!(answer(deaf).is_ok() && answer(late).is_err());
}

#[test]
fn what_is_given_up_keeps_its_place_until_the_loop_has_let_it_go() {
    let held = Arc::new(());
    let hold = || Some(Hold::new(Arc::clone(&held)));
    let mut bench = Bench::new(1);
    let runs = bench.submit(Wanted { hold: hold(), ..request(1) });
    let waits = bench.submit(Wanted { hold: hold(), ..request(2) });
    bench.iterate(1);
    let before = bench.shared.ledger.totals();
    drop(waits);
    let after = bench.shared.ledger.totals();
    assert_eq!((after.waiting, after.requests, Arc::strong_count(&held)), (1, 2, 3), "its place is still taken");
    assert!(after.seconds < before.seconds, "but it takes no more time");
    bench.iterate(1);
    assert_eq!((bench.shared.ledger.totals().waiting, Arc::strong_count(&held)), (0, 2));
    bench.run_out();
    assert_eq!(Arc::strong_count(&held), 1);
    assert!(answer(runs).is_ok());
}
