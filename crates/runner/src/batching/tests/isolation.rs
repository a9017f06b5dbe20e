//! Images that fail, and those beside them that must not notice.

use super::fake_model::{Fault, Memory};
use super::*;

/// Three requests of which the middle one has a fault; the outer two must get the same pictures as
/// without it.
fn beside(fault: Fault) -> (RequestFailure, EngineStatistics) {
    let pixels = |request: FinishedRequest| request.images.into_iter().map(|image| image.data).collect::<Vec<_>>();
    let run = |fault: Option<Fault>| {
        let mut bench = Bench::new(8);
        if let Some(fault) = fault {
            bench.model.break_image(3, fault);
        }
        let tickets =
            [1, 2, 5].map(|seed| bench.submit(Wanted { images: if seed == 2 { 2 } else { 1 }, ..request(seed) }));
        bench.run_out();
        (tickets.map(answer), bench.statistics())
    };
    let ([first, _, last], _) = run(None);
    let ([first_beside, failed, last_beside], statistics) = run(Some(fault));
    assert_eq!(pixels(first.unwrap()), pixels(first_beside.unwrap()));
    assert_eq!(pixels(last.unwrap()), pixels(last_beside.unwrap()));
    assert_eq!((statistics.finished, statistics.failed), (2, 1));
    (failed.unwrap_err(), statistics)
}

#[test]
fn an_error_fails_the_request_at_fault_only() {
    let (error, statistics) = beside(Fault::Error(2));
    let reason = "step 2 of 4, seed 3: seed 3 is broken".to_owned();
    assert_eq!(error, RequestFailure::Failed(reason));
    assert_eq!(statistics.isolated_steps, 1);
}

#[test]
fn a_panic_fails_the_request_at_fault_only() {
    let (error, statistics) = beside(Fault::Panic(4));
    assert_eq!(error, RequestFailure::Failed("step 4 of 4, seed 3: seed 3 panics".to_owned()));
    assert_eq!(statistics.isolated_steps, 1);
}

#[test]
fn latents_that_are_not_finite_name_the_step() {
    let (error, statistics) = beside(Fault::NotFinite(3));
    assert_eq!(error, RequestFailure::Failed("step 3 of 4, seed 3: the latents are not finite".to_owned()));
    assert_eq!(statistics.isolated_steps, 0);
}

#[test]
fn latents_that_are_not_finite_at_the_end_are_not_decoded() {
    let (error, statistics) = beside(Fault::NotFinite(4));
    assert_eq!(error, RequestFailure::Failed("step 4 of 4, seed 3: the latents are not finite".to_owned()));
    assert_eq!(statistics.isolated_steps, 0);
}

#[test]
fn an_image_that_cannot_begin_or_be_decoded_fails_its_request_only() {
    assert_eq!(beside(Fault::Begin).0, RequestFailure::Failed("cannot begin".to_owned()));
    assert_eq!(beside(Fault::Decode).0, RequestFailure::Failed("cannot decode".to_owned()));
}

#[test]
fn images_that_fail_only_together_go_on_image_by_image() {
    let mut bench = Bench::new(8);
    bench.model.break_image(1, Fault::Shared);
    let tickets = [1, 2].map(|seed| bench.submit(request(seed)));
    bench.run_out();
    for (ticket, seed) in tickets.into_iter().zip([1, 2]) {
        assert_eq!(picture(&answer(ticket).unwrap(), 0), (seed, 4));
    }
    assert_eq!(bench.statistics().isolated_steps, 4);
}

#[test]
fn an_image_alone_fails_without_a_second_try() {
    let mut bench = Bench::new(8);
    bench.model.break_image(1, Fault::Panic(1));
    let ticket = bench.submit(request(1));
    bench.run_out();
    assert!(matches!(answer(ticket), Err(RequestFailure::Failed(_))));
    assert_eq!(bench.model.forwards().len(), 1);
}

/// Rows of the forwards that were asked for.
fn forward_rows(bench: &Bench) -> Vec<usize> {
    bench.model.forwards().iter().map(|forward| forward.rows).collect()
}

/// The pictures of images made together on a device that has memory for so many rows.
fn pictures_within(memory: Option<usize>) -> (Vec<Vec<u8>>, Bench) {
    let mut bench = Bench::new(8);
    if let Some(rows) = memory {
        bench.model.set_memory(Memory { rows, unused: 0, decoding: 1 });
    }
    let tickets: Vec<_> = (1..8).map(|seed| bench.submit(request(seed))).collect();
    bench.run_out();
    let pictures = tickets.into_iter().map(|ticket| answer(ticket).unwrap().images[0].data.clone()).collect();
    (pictures, bench)
}

#[test]
fn a_batch_that_is_too_large_is_made_in_parts_from_then_on() {
    let (expected, together) = pictures_within(None);
    assert_eq!(forward_rows(&together), [7; 4]);
    let (found, bench) = pictures_within(Some(2));
    assert_eq!(found, expected);
    let (tries, later) = ([7, 3, 1, 1, 1, 1, 1, 1, 1], [1; 7]);
    assert_eq!(forward_rows(&bench), [&tries[..], &later, &later, &later].concat());
    let statistics = bench.statistics();
    assert_eq!((statistics.forwards_too_large, statistics.isolated_steps, statistics.failed), (2, 0, 0));
    assert_eq!(statistics.batch_rows[1..=7], [28, 0, 0, 0, 0, 0, 0]);
    // Three rows are tried after seven, and fit.
    let (found, bench) = pictures_within(Some(3));
    assert_eq!((found, &forward_rows(&bench)[..5]), (expected, &[7, 3, 3, 1, 3][..]));
}

#[test]
fn only_an_image_that_does_not_fit_by_itself_fails() {
    let mut bench = Bench::new(8);
    bench.model.set_memory(Memory { rows: 1, unused: 0, decoding: 1 });
    let guided = Wanted { guidance: Guidance::Rows(4.0), ..request(2) };
    let tickets = [request(1), guided, request(3)].map(|wanted| bench.submit(wanted));
    bench.run_out();
    let [first, guided, last] = tickets.map(answer);
    assert_eq!((picture(&first.unwrap(), 0), picture(&last.unwrap(), 0)), ((1, 4), (3, 4)));
    let RequestFailure::Failed(reason) = guided.unwrap_err() else { panic!("it fails") };
    let start = "step 1 of 4, seed 2: the device has no memory left for this picture; a smaller size needs less (";
    assert!(reason.starts_with(start) && reason.contains("CUDA_ERROR_OUT_OF_MEMORY"), "{reason}");
    assert_eq!(bench.statistics().failed, 1);
}

#[test]
fn what_the_device_keeps_is_given_back_before_an_image_fails() {
    let mut bench = Bench::new(8);
    let ticket = bench.submit(request(1));
    // Before it begins, in its second step, and before it is decoded.
    for (memory, iterations) in [
        (Memory { rows: 1, unused: 1, decoding: 1 }, 1),
        (Memory { rows: 1, unused: 1, decoding: 1 }, 2),
        (Memory { rows: 2, unused: 1, decoding: 2 }, 1),
    ] {
        bench.model.set_memory(memory);
        bench.iterate(iterations);
    }
    bench.assert_empty();
    assert_eq!(picture(&answer(ticket).unwrap(), 0), (1, 4));
    assert_eq!((bench.model.frees(), bench.statistics().forwards_too_large), (3, 1));
}

#[test]
fn later_images_are_tried_together_again() {
    let mut bench = Bench::new(8);
    bench.model.set_memory(Memory { rows: 4, unused: 3, decoding: 1 });
    for (seeds, rows) in [([1, 2], vec![2, 1, 1, 1, 1, 1, 1, 1, 1]), ([3, 4], vec![2; 4])] {
        let before = bench.model.forwards().len();
        let tickets = seeds.map(|seed| bench.submit(request(seed)));
        bench.run_out();
        tickets.into_iter().for_each(|ticket| drop(answer(ticket).unwrap()));
        assert_eq!(forward_rows(&bench)[before..], rows);
    }
}
