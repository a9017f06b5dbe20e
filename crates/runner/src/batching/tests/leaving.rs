//! Clients that leave, time that runs out, previews on the way.

use super::fake_model::ROW_STEP_MILLIS;
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
    // Nine are made, four are held.
    assert_eq!(bench.statistics().previews_dropped, 5);
    assert_eq!(answer(ticket).unwrap().images.len(), 3);
}
