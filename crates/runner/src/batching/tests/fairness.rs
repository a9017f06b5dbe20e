//! Who is stepped when.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::*;

fn steps_of(bench: &Bench, seed: u64) -> Vec<usize> {
    let forwards = bench.model.forwards();
    let has = |(_, forward): &(usize, &fake_model::Forward)| forward.images.iter().any(|(other, _)| *other == seed);
    forwards.iter().enumerate().filter(has).map(|(index, _)| index).collect()
}

#[test]
fn images_join_between_steps_and_leave_when_they_are_done() {
    let mut bench = Bench::new(8);
    let first = bench.submit(request(1));
    bench.iterate(2);
    let second = bench.submit(Wanted { steps: 3, guidance: Guidance::Rows(4.0), ..request(2) });
    bench.run_out();
    let batches: Vec<_> = bench.model.forwards().into_iter().map(|forward| forward.images).collect();
    assert_eq!(batches, [vec![(1, 1)], vec![(1, 2)], vec![(1, 3), (2, 1)], vec![(1, 4), (2, 2)], vec![(2, 3)]]);
    assert_eq!(picture(&answer(first).unwrap(), 0), (1, 4));
    assert_eq!(picture(&answer(second).unwrap(), 0), (2, 3));
    let statistics = bench.statistics();
    assert_eq!((statistics.images_begun, statistics.joins, statistics.finished), (2, 1, 2));
    // One row alone twice, three rows twice, two rows once.
    assert_eq!(statistics.batch_rows[..4], [0, 2, 1, 2]);
}

#[test]
fn the_images_of_a_request_are_admitted_one_by_one_and_come_back_in_order() {
    let mut bench = Bench::new(2);
    let ticket = bench.submit(Wanted { images: 3, prompt: fake_model::REUSING_PROMPT.to_owned(), ..request(5) });
    let progress = ticket.progress();
    bench.iterate(1);
    assert_eq!(bench.model.forwards()[0].images, [(5, 1), (6, 1)]);
    let shown = *progress.borrow();
    assert_eq!((shown.started, shown.step, shown.steps, shown.queue_position), (true, 2, 12, 0));
    bench.run_out();
    assert_eq!(progress.borrow().step, 12);
    assert_eq!(progress.borrow().cached, 6);
    let request = answer(ticket).unwrap();
    assert_eq!([0, 1, 2].map(|index| picture(&request, index)), [(5, 4), (6, 4), (7, 4)]);
}

#[test]
fn a_full_worker_keeps_the_order() {
    let mut bench = Bench::new(2);
    let guided = |seed| Wanted { guidance: Guidance::Rows(4.0), ..request(seed) };
    let tickets = [bench.submit(request(1)), bench.submit(guided(2)), bench.submit(request(3))];
    let other = bench.submit(Wanted { size: WIDE, ..request(4) });
    bench.iterate(2);
    // The third and the one of another bucket would fit beside the first, but the second was there before.
    assert!(bench.model.forwards().iter().all(|forward| forward.images.iter().all(|(seed, _)| *seed == 1)));
    let positions = tickets.each_ref().map(|ticket| ticket.progress().borrow().queue_position);
    assert_eq!((positions, other.progress().borrow().queue_position), ([0, 1, 2], 3));
    assert_eq!(bench.shared.ledger.totals().waiting, 3);
    bench.run_out();
    let first_steps = [1, 2, 3, 4].map(|seed| steps_of(&bench, seed)[0]);
    assert!(first_steps.is_sorted(), "{first_steps:?}");
    for ticket in tickets.into_iter().chain([other]) {
        answer(ticket).unwrap();
    }
}

#[test]
fn the_rows_of_all_buckets_together_are_the_workers() {
    let mut bench = Bench::new(4);
    let sizes = [SMALL, WIDE, LARGE];
    let _tickets: Vec<_> =
        (0..24).map(|seed| bench.submit(Wanted { size: sizes[seed % 3], ..request(seed as u64) })).collect();
    let mut most = 0;
    while !bench.steps.is_idle() {
        bench.iterate(1);
        most = most.max(bench.shared.ledger.totals().running_rows);
    }
    assert_eq!(most, 4);
}

#[test]
fn what_one_owner_has_waiting_holds_up_no_other() {
    let mut bench = Bench::new(2);
    let hogs: Vec<_> = (0..20).map(|seed| bench.submit(request(seed).of(1))).collect();
    bench.iterate(1);
    let (second, third) = (bench.submit(request(100).of(2)), bench.submit(request(200).of(3)));
    bench.iterate(1);
    let positions = [&second, &third, &hogs[2]].map(|ticket| ticket.progress().borrow().queue_position);
    assert_eq!(positions, [1, 2, 3], "whoever has no rows is next");
    bench.run_out();
    let first_step = |seed| steps_of(&bench, seed)[0];
    assert!(first_step(100) < first_step(2) && first_step(200) < first_step(3));
    assert!((2..19).all(|seed| first_step(seed) <= first_step(seed + 1)), "an owner's own requests keep their order");
    assert!(hogs.into_iter().chain([second, third]).all(|ticket| answer(ticket).is_ok()));
}

#[test]
fn owners_take_turns_where_there_is_room_for_one() {
    let mut bench = Bench::new(1);
    let mut tickets: Vec<_> = (0..6).map(|seed| bench.submit(request(seed).of(1))).collect();
    bench.iterate(1);
    tickets.extend((100..103).map(|seed| bench.submit(request(seed).of(2))));
    bench.run_out();
    let mut begun: Vec<_> = bench.model.forwards().into_iter().map(|forward| forward.images[0].0).collect();
    begun.dedup();
    // The first had begun when the other owner came, and that one has waited for less than the first since.
    assert_eq!(begun, [0, 1, 100, 2, 101, 3, 102, 4, 5]);
    assert!(tickets.into_iter().all(|ticket| answer(ticket).is_ok()));
}

#[test]
fn owners_come_to_the_same_number_of_rows() {
    let mut bench = Bench::new(4);
    let long = |seed| Wanted { steps: 40, ..request(seed) };
    let mut tickets: Vec<_> = (0..8).map(|seed| bench.submit(long(seed).of(1))).collect();
    bench.iterate(1);
    tickets.extend((100..108).map(|seed| bench.submit(long(seed).of(2))));
    bench.iterate(60);
    let last = bench.model.forwards().pop().unwrap().images;
    assert_eq!(last.iter().filter(|(seed, _)| *seed >= 100).count(), 2, "{last:?}");
    bench.run_out();
}

#[test]
fn buckets_take_turns() {
    let mut bench = Bench::new(8);
    let _tickets =
        [SMALL, WIDE, LARGE].map(|size| bench.submit(Wanted { size, steps: 2, ..request(size.width as u64) }));
    bench.run_out();
    let order: Vec<_> = bench.model.forwards().into_iter().map(|forward| forward.size).collect();
    assert_eq!(order, [SMALL, WIDE, LARGE, SMALL, WIDE, LARGE]);
}

#[test]
fn images_of_different_phases_never_share_a_forward() {
    let mut bench = Bench::new(8);
    let two_phases = |seed| Wanted { prompt: fake_model::TWO_PHASES_PROMPT.to_owned(), ..request(seed) };
    let first = bench.submit(two_phases(1));
    bench.iterate(1);
    let tickets = [first, bench.submit(two_phases(2)), bench.submit(request(3))];
    bench.run_out();
    let forwards = bench.model.forwards().into_iter().map(|forward| (forward.phase, forward.images));
    let expected = [
        (0, vec![(1, 1)]),
        (0, vec![(1, 2), (2, 1), (3, 1)]),
        // The first image is past the middle of its steps and waits for a turn of its new phase.
        (0, vec![(2, 2), (3, 2)]),
        (1, vec![(1, 3), (2, 3)]),
        (0, vec![(3, 3)]),
        (1, vec![(1, 4), (2, 4)]),
        (0, vec![(3, 4)]),
    ];
    assert_eq!(forwards.collect::<Vec<_>>(), expected);
    for (ticket, seed) in tickets.into_iter().zip(1..) {
        assert_eq!(picture(&answer(ticket).unwrap(), 0), (seed, 4));
    }
    // Two joined the first; whoever enters another phase joins nobody.
    let statistics = bench.statistics();
    assert_eq!((statistics.joins, statistics.isolated_steps), (2, 0));
}

#[test]
fn work_left_is_estimated_from_measured_steps() {
    let mut bench = Bench::new(8);
    let _first = bench.submit(Wanted { guidance: Guidance::Rows(4.0), ..request(1) });
    bench.iterate(1);
    // Three of four steps and the decoding are left; the first step of two rows was 20 ms.
    let seconds = bench.shared.ledger.totals().seconds;
    assert!((seconds - 0.060).abs() < 1e-9, "{seconds}");
    assert_eq!(bench.shared.ledger.totals().running_rows, 2);
    bench.run_out();
}

#[test]
fn the_warm_up_gives_first_estimates_and_leaves_nothing() {
    let bench = Bench::new(8);
    bench.steps.warm_up(&[request(0).spec(), Wanted { size: WIDE, ..request(0) }.spec()]).unwrap();
    let buckets = bench.shared.ledger.buckets();
    assert_eq!(buckets.iter().map(|bucket| bucket.size).collect::<Vec<_>>(), [SMALL, WIDE]);
    assert_eq!((buckets[0].seconds_per_row_step, buckets[0].decode_seconds), (0.010, 0.005));
    bench.assert_empty();
}

/// A request and the iteration before which it arrives.
fn arrivals() -> impl Strategy<Value = Vec<(Wanted, usize)>> {
    let size = prop_oneof![Just(SMALL), Just(WIDE), Just(LARGE)];
    let prompt = prop_oneof![Just(""), Just(fake_model::TWO_PHASES_PROMPT)];
    let parts = (1..4usize, size, 1..7usize, prop_oneof![Just(1.0), Just(4.0)], prompt, 0..30usize);
    prop::collection::vec(parts, 1..16).prop_map(|requests| {
        let arrival = |(index, (images, size, steps, scale, prompt, before)): (usize, (_, _, _, _, &str, _))| {
            let (prompt, guidance) = (prompt.to_owned(), Guidance::Rows(scale));
            (Wanted { prompt, images, size, steps, guidance, ..request(10 * index as u64) }, before)
        };
        requests.into_iter().enumerate().map(arrival).collect()
    })
}

proptest! {
    /// Whatever arrives when: rows stay within the bound, images wait no longer than the stated bound,
    /// a bucket's images begin in order, every step is made once, and every client gets its pictures.
    #[test]
    fn the_rules_hold_for_any_arrivals(arrivals in arrivals(), max_batch_rows in 2..9usize) {
        let mut bench = Bench::new(max_batch_rows);
        let mut tickets = Vec::new();
        for iteration in 0..30 {
            for (request, _) in arrivals.iter().filter(|(_, before)| *before == iteration) {
                tickets.push((request.clone(), bench.submit(request.clone())));
            }
            bench.iterate(1);
            prop_assert!(bench.shared.ledger.totals().running_rows <= max_batch_rows);
        }
        bench.run_out();

        let forwards = bench.model.forwards();
        let mut last_seen = HashMap::new();
        for (index, forward) in forwards.iter().enumerate() {
            prop_assert!(forward.rows <= max_batch_rows, "{forward:?}");
            for (seed, _) in &forward.images {
                let Some(last) = last_seen.insert(*seed, index) else { continue };
                let others = forwards[last + 1..index].iter().map(|forward| (forward.size, forward.phase));
                let distinct: HashSet<_> = others.clone().collect();
                prop_assert!(others.count() == distinct.len(), "others had two turns between two steps of an image");
            }
        }
        for (request, ticket) in tickets {
            let finished = answer(ticket).unwrap();
            prop_assert_eq!(finished.images.len(), request.images);
            for index in 0..request.images {
                prop_assert_eq!(picture(&finished, index), (request.seed + index as u64, request.steps as u8));
                prop_assert_eq!(steps_of(&bench, request.seed + index as u64).len(), request.steps);
            }
        }
        for size in [SMALL, WIDE, LARGE] {
            let begins = |forward: &fake_model::Forward| forward.size == size;
            let begun: Vec<_> = forwards.iter().filter(|forward| begins(forward))
                .flat_map(|forward| forward.images.iter().filter(|(_, step)| *step == 1).map(|(seed, _)| *seed))
                .collect();
            let mut submitted: Vec<_> = (0..30).flat_map(|iteration| {
                arrivals.iter().filter(move |(request, before)| *before == iteration && request.size == size)
            }).flat_map(|(request, _)| (0..request.images as u64).map(|index| request.seed + index)).collect();
            submitted.truncate(begun.len());
            prop_assert_eq!(begun, submitted);
        }
    }
}
