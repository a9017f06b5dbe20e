//! How long a running image can be kept from its next step by requests that come and end.

use proptest::prelude::*;

use super::fake_model::{DECODE_MILLIS, ENCODE_MILLIS, ROW_STEP_MILLIS, TEXT};
use super::*;

fn text(seed: u64) -> Wanted {
    Wanted { prompt: format!("{TEXT} {seed}"), ..request(seed) }
}

/// Virtual milliseconds that an iteration takes.
fn iteration_millis(bench: &mut Bench) -> u64 {
    let before = bench.clock.now();
    bench.iterate(1);
    (bench.clock.now() - before).as_millis() as u64
}

#[test]
fn sixteen_new_prompts_are_encoded_one_per_iteration() {
    let mut bench = Bench::new(32);
    let runs = bench.submit(Wanted { steps: 40, ..request(1) });
    bench.iterate(1);
    let tickets: Vec<_> = (100..116).map(|seed| bench.submit(Wanted { steps: 30, ..text(seed) })).collect();
    for begun in 1..=16 {
        let millis = iteration_millis(&mut bench);
        assert_eq!(millis, ENCODE_MILLIS + (begun + 1) * ROW_STEP_MILLIS, "iteration {begun}");
        assert_eq!(bench.model.texts_and_decodings().0, begun as usize);
        let forwards = bench.model.forwards();
        assert_eq!(forwards.last().unwrap().images[0], (1, begun as usize + 1), "the running image makes its steps");
    }
    bench.run_out();
    assert!(answer(runs).is_ok() && tickets.into_iter().all(|ticket| answer(ticket).is_ok()));
}

#[test]
fn kept_texts_and_classes_wait_for_nobodys_encoding() {
    let mut bench = Bench::new(32);
    let first = bench.submit(Wanted { images: 3, ..text(10) });
    let second = bench.submit(Wanted { prompt: format!("{TEXT} new"), size: WIDE, ..request(20) });
    let third = bench.submit(Wanted { size: LARGE, ..request(30) });
    bench.iterate(1);
    // The first text was encoded for one image, and kept for two more.
    assert_eq!(bench.statistics().images_begun, 4);
    let positions = [&first, &second, &third].map(|ticket| ticket.progress().borrow().queue_position);
    assert_eq!(positions, [0, 1, 0]);
    bench.iterate(1);
    assert_eq!((bench.statistics().images_begun, bench.model.texts_and_decodings().0), (5, 2));
    bench.run_out();
}

#[test]
fn who_waits_to_be_encoded_is_not_passed_in_its_bucket() {
    let mut bench = Bench::new(32);
    let _tickets = [bench.submit(text(1)), bench.submit(text(2)), bench.submit(request(3))];
    bench.iterate(1);
    assert_eq!(bench.model.forwards()[0].images, [(1, 1)]);
    bench.iterate(1);
    assert_eq!(bench.model.forwards()[1].images, [(1, 2), (2, 1), (3, 1)]);
    bench.run_out();
}

#[test]
fn images_that_end_at_once_are_decoded_one_per_iteration() {
    let mut bench = Bench::new(17);
    let tickets: Vec<_> = (1..=16).map(|seed| bench.submit(Wanted { steps: 2, ..request(seed) })).collect();
    let other = bench.submit(Wanted { size: WIDE, steps: 40, ..request(50) });
    bench.iterate(3);
    assert_eq!(bench.model.texts_and_decodings().1, 1);
    // Whoever comes meanwhile finds no room until the rows of one are free, and gets them at once.
    let late = bench.submit(Wanted { steps: 2, ..request(60) });
    for decoded in 2..=16 {
        let millis = iteration_millis(&mut bench);
        assert!(millis <= 2 * ROW_STEP_MILLIS + DECODE_MILLIS, "{millis} ms in iteration {decoded}");
        assert_eq!(bench.model.texts_and_decodings().1, decoded);
    }
    bench.run_out();
    for ticket in tickets.into_iter().chain([other, late]) {
        assert!(answer(ticket).is_ok());
    }
}

#[test]
fn previews_that_are_due_at_once_are_made_one_per_iteration() {
    let mut bench = Bench::new(32);
    let stream = |seed| Wanted { steps: 20, ..request(seed) }.with_previews(PreviewCount::new(1).unwrap());
    let mut tickets: Vec<_> = (1..=16).map(|seed| bench.submit(stream(seed))).collect();
    let mut received: Vec<_> = tickets.iter_mut().map(|ticket| ticket.previews().unwrap()).collect();
    bench.iterate(9);
    for made in 1..=10 {
        let millis = iteration_millis(&mut bench);
        assert!(millis <= 16 * ROW_STEP_MILLIS + 2 * DECODE_MILLIS, "{millis} ms");
        assert!(bench.model.texts_and_decodings().1 >= made);
    }
    bench.run_out();
    let steps: Vec<_> = received.iter_mut().filter_map(|previews| Some(previews.try_recv().ok()?.step)).collect();
    assert_eq!(steps, (10..20).collect::<Vec<_>>(), "each shows its image as it was by then");
    // For those still waiting there was a picture instead.
    assert_eq!(bench.statistics().previews_dropped, 6);
    assert!(tickets.into_iter().all(|ticket| answer(ticket).is_ok()));
}

proptest! {
    /// Whatever comes when, an iteration encodes one text and decodes one picture at most.
    #[test]
    fn the_bound_holds_for_any_arrivals(
        arrivals in prop::collection::vec((1..4usize, 0..3usize, 1..5usize, 0..20usize, any::<bool>()), 1..24),
    ) {
        let sizes = [SMALL, WIDE, LARGE];
        let mut bench = Bench::new(6);
        let mut tickets = Vec::new();
        for iteration in 0..200 {
            for (index, (images, size, steps, _, is_text)) in
                arrivals.iter().enumerate().filter(|(_, arrival)| arrival.3 == iteration)
            {
                let seed = 10 * index as u64;
                let request = if *is_text { text(seed) } else { request(seed) };
                tickets.push(bench.submit(Wanted { images: *images, size: sizes[*size], steps: *steps, ..request }));
            }
            let (texts, decodings) = bench.model.texts_and_decodings();
            let millis = iteration_millis(&mut bench);
            let (texts_after, decodings_after) = bench.model.texts_and_decodings();
            prop_assert!(texts_after <= texts + 1 && decodings_after <= decodings + 1);
            prop_assert!(millis <= ENCODE_MILLIS + 6 * ROW_STEP_MILLIS + DECODE_MILLIS);
        }
        bench.run_out();
        for ticket in tickets {
            prop_assert!(answer(ticket).is_ok());
        }
    }
}
