//! What is kept, and what is forgotten first.

use serde_json::{Value, json};

use super::*;

/// Every answer in these tests takes 10 bytes.
fn answer() -> Ending {
    Ending::Succeeded(text("01234567"))
}

fn text(text: &str) -> Arc<RawValue> {
    Arc::from(serde_json::value::to_raw_value(text).unwrap())
}

fn store(max_jobs: usize, memory_bytes: usize) -> JobStore {
    JobStore::new(JobLimits { max_jobs, retention: Duration::from_secs(60), memory_bytes })
}

fn add(store: &JobStore) -> (RunningJob, watch::Sender<Progress>) {
    let (sender, progress) = watch::channel(Progress { steps: 9, queue_position: 1, ..Progress::default() });
    (store.reserve().unwrap().take(None, "a-model", 7, progress).0, sender)
}

fn fetched(store: &JobStore, id: &str) -> Value {
    serde_json::to_value(store.with_pictures(None, id).unwrap()).unwrap()
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
    store.delete(None, &job.id).unwrap();
    assert!(job.signals.cancelled.is_cancelled() && !job.signals.forgotten.is_cancelled());
    assert!(!store.end(&job.id, answer()), "it stays cancelled");
    assert_eq!(fetched(&store, &job.id)["status"], "cancelled");
    store.delete(None, &job.id).unwrap();
    assert!(job.signals.forgotten.is_cancelled());
    assert!(store.with_pictures(None, &job.id).is_none() && store.delete(None, &job.id).is_none());
}

#[test]
fn a_full_store_takes_the_place_of_a_fetched_job_only() {
    let store = store(2, 1000);
    let ((first, _a), (second, _b)) = (add(&store), add(&store));
    store.end(&first.id, Ending::Failed(ApiError::JobFailed("no memory".to_owned()).tell()));
    store.end(&second.id, answer());
    assert!(matches!(store.reserve(), Err(ApiError::TooManyJobs { kept: 2 })));
    fetched(&store, &second.id);
    let place = store.reserve().unwrap();
    assert!(store.with_pictures(None, &second.id).is_none());
    assert!(store.reserve().is_err(), "the place is taken");
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
    assert!(store.with_pictures(None, second).is_none() && store.with_pictures(None, first).is_some());
    store.end(fourth, Ending::Succeeded(text(&"x".repeat(100))));
    assert!(store.with_pictures(None, first).is_none() && store.with_pictures(None, third).is_none());
    assert_eq!(fetched(&store, fourth)["status"], "succeeded");
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
        store.reserve().unwrap().take(owner, "a-model", 7, progress).0.id
    };
    let (first, second) = (add(Some(0)), add(Some(1)));
    assert!(store.with_pictures(Some(1), &first).is_none() && store.delete(Some(1), &first).is_none());
    assert!(store.list(Some(1), 9, Some(&first)).is_none());
    let (jobs, has_more) = store.list(Some(1), 9, None).unwrap();
    assert_eq!((jobs.len(), &jobs[0].id, has_more), (1, &second, false));
    assert!(store.with_pictures(Some(0), &first).is_some() && store.delete(Some(0), &first).is_some());
}
