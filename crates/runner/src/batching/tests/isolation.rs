//! Images that fail, and those beside them that must not notice.

use super::fake_model::Fault;
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
fn a_batch_that_is_too_large_goes_on_image_by_image() {
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
