//! What is kept, and what is forgotten first.

use axum::body::HttpBody;
use serde_json::{Value, json};

use super::*;

/// Every answer in these tests takes 10 bytes.
fn answer() -> Ending {
    Ending::Succeeded(text("01234567"))
}

fn text(text: &str) -> Bytes {
    serde_json::to_vec(text).unwrap().into()
}

fn store(max_jobs: usize, memory_bytes: usize) -> JobStore {
    JobStore::new(JobLimits { max_jobs, retention: Duration::from_secs(60), memory_bytes })
}

fn add(store: &JobStore) -> (RunningJob, watch::Sender<Progress>) {
    let (sender, progress) = watch::channel(Progress { steps: 9, queue_position: 1, ..Progress::default() });
    let place = store.reserve(Client::default(), Duration::default).unwrap();
    (place.take(JobKind::ImageJob, None, "a-model", 7, progress).0, sender)
}

/// The id of a job of the client, which has ended with this answer.
fn ended(store: &JobStore, client: Client, answer: Ending) -> Result<String, ApiError> {
    let (_, progress) = watch::channel(Progress::default());
    let place = store.reserve(client, Duration::default)?;
    let job = place.take(JobKind::ImageJob, None, "a-model", 7, progress).0;
    store.end(&job.id, answer);
    Ok(job.id)
}

/// The job as a client reads it that takes all of it.
fn fetched(store: &JobStore, id: &str) -> Value {
    let job = store.fetch(JobKind::ImageJob, None, id).unwrap();
    let mut text = Vec::new();
    let mut pieces = std::pin::pin!(job.json().unwrap());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    while let std::task::Poll::Ready(Some(Ok(frame))) = pieces.as_mut().poll_frame(&mut context) {
        text.extend_from_slice(frame.data_ref().unwrap());
    }
    job.settled.into_iter().for_each(|settled| settled.cancel());
    serde_json::from_slice(&text).unwrap()
}

#[test]
fn a_job_shows_its_progress_its_previews_and_its_result() {
    let store = store(4, 1000);
    let (job, sender) = add(&store);
    let mut object = fetched(&store, &job.id);
    assert!(object["id"].take().as_str().unwrap().starts_with("job_"));
    assert!(object["created_at"].take().as_u64().unwrap() > 1_700_000_000);
    insta::assert_json_snapshot!(object, @r#"
    {
      "id": null,
      "object": "image.job",
      "status": "queued",
      "created_at": null,
      "finished_at": null,
      "expires_at": null,
      "model": "a-model",
      "seed": 7,
      "progress": {
        "step": 0,
        "total": 9,
        "cached": 0,
        "queue_position": 1
      },
      "error": null,
      "partial_images": [],
      "result": null
    }
    "#);

    sender.send_replace(Progress { started: true, step: 5, steps: 9, cached: 2, queue_position: 0 });
    for (image, preview) in [(1, "one"), (0, "early"), (0, "late")] {
        store.show(&job.id, image, text(preview));
    }
    let object = fetched(&store, &job.id);
    assert_eq!((&object["status"], &object["progress"]["step"]), (&json!("running"), &json!(5)));
    assert_eq!(object["partial_images"], json!(["late", "one"]));

    drop(sender);
    assert!(store.end(&job.id, answer()));
    let object = fetched(&store, &job.id);
    assert_eq!((&object["status"], &object["result"]), (&json!("succeeded"), &json!("01234567")));
    assert_eq!((&object["partial_images"], &object["progress"]["cached"]), (&json!([]), &json!(2)));
    let seconds = |key: &str| object[key].as_u64().unwrap();
    assert_eq!(seconds("expires_at"), seconds("finished_at") + 60);
}

#[test]
fn an_unfinished_job_is_cancelled_and_an_ended_one_forgotten() {
    let store = store(4, 1000);
    let (job, _sender) = add(&store);
    store.delete(JobKind::ImageJob, None, &job.id).unwrap();
    assert!(job.signals.cancelled.is_cancelled() && !job.signals.forgotten.is_cancelled());
    assert!(!store.end(&job.id, answer()), "it stays cancelled");
    assert_eq!(fetched(&store, &job.id)["status"], "cancelled");
    store.delete(JobKind::ImageJob, None, &job.id).unwrap();
    assert!(job.signals.forgotten.is_cancelled());
    assert!(
        store.fetch(JobKind::ImageJob, None, &job.id).is_none()
            && store.delete(JobKind::ImageJob, None, &job.id).is_none()
    );
}

#[test]
fn a_full_store_takes_the_place_of_a_fetched_job_only() {
    let store = store(2, 1000);
    let reserve = || store.reserve(Client::default(), Duration::default);
    let ((first, _a), (second, _b)) = (add(&store), add(&store));
    store.end(&first.id, Ending::Failed(ApiError::JobFailed("no memory".to_owned()).tell()));
    store.end(&second.id, answer());
    assert!(store.fetch(JobKind::ImageJob, None, &second.id).is_some() && store.unfetched() == 2, "it is on its way");
    assert!(matches!(reserve(), Err(ApiError::TooManyJobs { kept: 2, .. })));
    fetched(&store, &second.id);
    let place = reserve().unwrap();
    assert!(store.fetch(JobKind::ImageJob, None, &second.id).is_none());
    assert!(reserve().is_err(), "the place is taken");
    drop(place);
    add(&store);
    assert_eq!(fetched(&store, &first.id)["error"]["code"], "job_failed");
}

#[test]
fn pictures_over_the_bound_go_fetched_ones_first() {
    let store = store(9, 25);
    let jobs = [(); 4].map(|()| add(&store));
    let [first, second, third, fourth] = jobs.each_ref().map(|(job, _)| job.id.as_str());
    store.end(first, answer());
    store.end(second, answer());
    fetched(&store, second);
    store.end(third, answer());
    assert!(
        store.fetch(JobKind::ImageJob, None, second).is_none() && store.fetch(JobKind::ImageJob, None, first).is_some()
    );
    store.end(fourth, Ending::Succeeded(text(&"x".repeat(100))));
    assert!(
        store.fetch(JobKind::ImageJob, None, first).is_none() && store.fetch(JobKind::ImageJob, None, third).is_none()
    );
    assert_eq!(fetched(&store, fourth)["status"], "succeeded");
}

#[test]
fn one_clients_unfetched_jobs_keep_no_other_out() {
    let store = store(4, 1000);
    let [hog, other] = [1, 2].map(Client::new);
    let jobs = |client, wanted| (0..wanted).filter_map(|_| ended(&store, client, answer()).ok()).count();
    assert_eq!((jobs(hog, 9), jobs(other, 9)), (4, 2));
    let Err(ApiError::TooManyJobs { retry_after, kept: 6 }) = ended(&store, hog, answer()) else {
        panic!("it has more")
    };
    assert!((59..=60).contains(&retry_after.as_secs()), "as long as they are kept: {retry_after:?}");
    assert_eq!(jobs(Client::new(3), 9), 1, "a third of four places");
}

#[test]
fn who_is_refused_costs_nobody_a_job() {
    let store = store(4, 1000);
    let [hog, other] = [1, 2].map(Client::new);
    let of_other = ended(&store, other, answer()).unwrap();
    while ended(&store, hog, answer()).is_ok() {}
    let more = ended(&store, other, answer()).unwrap();
    let last = ended(&store, Client::new(3), answer()).unwrap();
    for id in [&of_other, &more, &last] {
        fetched(&store, id);
    }
    let kept = || store.kept().jobs.len();
    let before = kept();
    assert!(ended(&store, hog, answer()).is_ok(), "with all that were fetched, a place is free");
    assert!(kept() < before);
    let before = kept();
    assert!(ended(&store, hog, answer()).is_err());
    assert_eq!(kept(), before);
}

#[test]
fn the_wait_for_a_place_is_that_until_enough_jobs_are_forgotten() {
    let store = store(3, 1000);
    let ids = [(); 3].map(|()| ended(&store, Client::new(1), answer()).unwrap());
    for (id, ago) in ids.iter().zip([50, 20, 5]) {
        let mut kept = store.kept();
        let position = kept.position(id).unwrap();
        let Phase::Ended { at, .. } = &mut kept.jobs[position].phase else { unreachable!() };
        *at -= ago;
    }
    let wait =
        |client: u128, work_left: u64| match store.reserve(Client::new(client), || Duration::from_secs(work_left)) {
            Err(ApiError::TooManyJobs { retry_after, .. }) => retry_after.as_secs(),
            _ => 0,
        };
    assert!((9..=10).contains(&wait(1, 0)), "until the first is forgotten");
    let (_, progress) = watch::channel(Progress::default());
    let _unfinished =
        store.reserve(Client::new(2), Duration::default).unwrap().take(JobKind::ImageJob, None, "a-model", 7, progress);
    assert!((39..=40).contains(&wait(1, 0)), "until two are: there is one more than places");
    assert!((39..=40).contains(&wait(2, 0)), "two are more than half of three");
}

#[test]
fn one_clients_results_push_out_no_others() {
    let store = store(99, 50);
    let [hog, other] = [1, 2].map(Client::new);
    let kept: Vec<_> = (0..2).map(|_| ended(&store, other, answer()).unwrap()).collect();
    let of_hog: Vec<_> = (0..9).map(|_| ended(&store, hog, answer()).unwrap()).collect();
    let is_kept = |id: &String| store.kept().position(id).is_some();
    assert!(kept.iter().all(is_kept), "the oldest of all");
    assert_eq!(of_hog.iter().filter(|id| is_kept(id)).count(), 3);
    ended(&store, hog, Ending::Succeeded(text(&"x".repeat(100)))).unwrap();
    assert!(
        kept.iter().all(is_kept) && !of_hog.iter().any(is_kept),
        "a result over all bounds is its client's own matter"
    );
}

#[test]
fn previews_are_bounded_like_results() {
    let store = store(99, 25);
    let jobs = [(); 4].map(|()| add(&store));
    for (job, _) in &jobs {
        store.show(&job.id, 0, text("01234567"));
    }
    let bytes = || store.kept().jobs.iter().map(KeptJob::bytes).sum::<usize>();
    assert_eq!(bytes(), 20, "what does not fit is not kept");
    store.show(&jobs[0].0.id, 0, text("76543210"));
    assert_eq!(bytes(), 20, "a later preview takes the place of an earlier one");
}

#[test]
fn pages_go_from_the_newest_to_the_oldest() {
    let store = store(9, 1000);
    let jobs = [(); 3].map(|()| add(&store));
    let [first, second, third] = jobs.each_ref().map(|(job, _)| job.id.as_str());
    let page = |limit, after| {
        let (jobs, has_more) = store.list(None, limit, after)?;
        Some((jobs.into_iter().map(|job| job.id).collect::<Vec<_>>(), has_more))
    };
    assert_eq!(page(2, None).unwrap(), (vec![third.to_owned(), second.to_owned()], true));
    assert_eq!(page(2, Some(second)).unwrap(), (vec![first.to_owned()], false));
    assert_eq!(page(2, Some(first)).unwrap(), (Vec::new(), false));
    assert_eq!(page(2, Some("job_0")), None);
}

#[test]
fn a_job_is_its_keys_alone() {
    let store = store(9, 1000);
    let add = |owner| {
        let (_, progress) = watch::channel(Progress::default());
        store
            .reserve(Client::default(), Duration::default)
            .unwrap()
            .take(JobKind::ImageJob, owner, "a-model", 7, progress)
            .0
            .id
    };
    let (first, second) = (add(Some(0)), add(Some(1)));
    assert!(
        store.fetch(JobKind::ImageJob, Some(1), &first).is_none()
            && store.delete(JobKind::ImageJob, Some(1), &first).is_none()
    );
    assert!(store.list(Some(1), 9, Some(&first)).is_none());
    let (jobs, has_more) = store.list(Some(1), 9, None).unwrap();
    assert_eq!((jobs.len(), &jobs[0].id, has_more), (1, &second, false));
    assert!(
        store.fetch(JobKind::ImageJob, Some(0), &first).is_some()
            && store.delete(JobKind::ImageJob, Some(0), &first).is_some()
    );
}

#[test]
fn a_sweep_is_no_image_job_but_shares_their_places() {
    let store = store(1, 1000);
    let (_sender, progress) = watch::channel(Progress::default());
    let place = store.reserve(Client::default(), Duration::default).unwrap();
    let sweep = place.take(JobKind::CacheSweep, None, "a-model", 7, progress).0.id;
    assert!(sweep.starts_with("sweep_") && store.reserve(Client::default(), Duration::default).is_err());
    store.show(&sweep, 0, text("a row"));
    assert!(store.fetch(JobKind::ImageJob, None, &sweep).is_none());
    assert!(store.delete(JobKind::ImageJob, None, &sweep).is_none());
    assert!(store.list(None, 9, None).unwrap().0.is_empty());
    assert_eq!(store.fetch(JobKind::CacheSweep, None, &sweep).unwrap().parts, [text("a row")]);
    assert!(store.delete(JobKind::CacheSweep, None, &sweep).is_some());
}

#[test]
fn a_sweep_without_a_report_keeps_its_rows() {
    let failure = || Ending::Failed(ApiError::JobFailed("no memory".to_owned()).tell());
    for (kind, ending, kept) in [
        (JobKind::CacheSweep, Ending::Cancelled, vec![text("early"), text("late")]),
        (JobKind::CacheSweep, failure(), vec![text("early"), text("late")]),
        (JobKind::CacheSweep, answer(), Vec::new()),
        (JobKind::ImageJob, Ending::Cancelled, Vec::new()),
    ] {
        let store = store(4, 20);
        let (_sender, progress) = watch::channel(Progress::default());
        let place = store.reserve(Client::default(), Duration::default).unwrap();
        let id = place.take(kind, None, "a-model", 7, progress).0.id;
        store.show(&id, 1, text("late"));
        store.show(&id, 0, text("early"));
        assert!(store.end(&id, ending));
        assert_eq!(store.fetch(kind, None, &id).unwrap().parts, kept);
        // They take memory as results do, and go like them.
        ended(&store, Client::default(), Ending::Succeeded(text(&"x".repeat(15)))).unwrap();
        assert_eq!(store.fetch(kind, None, &id).is_some(), kept.is_empty() && kind == JobKind::ImageJob);
    }
}
