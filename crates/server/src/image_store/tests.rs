//! A store in a temporary folder, at times the tests choose.

use std::time::UNIX_EPOCH;

use super::*;

const LIMITS: StoreLimits = StoreLimits { max_age: Duration::from_secs(100), max_bytes: 10 };

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(2_000_000_000 + seconds)
}

/// A store without the sweep of [`ImageStore::open`], which looks at the real clock.
fn store(folder: &Path) -> ImageStore {
    ImageStore { folder: folder.to_owned(), limits: LIMITS, index: Mutex::new(Index::scan(folder).unwrap()) }
}

fn save(store: &ImageStore, bytes: usize, now: SystemTime) -> ImageId {
    store.save(ImageFormat::Png, &[vec![7; bytes]], now).unwrap()[0]
}

fn is_there(store: &ImageStore, id: ImageId, now: SystemTime) -> bool {
    store.load(id, now).unwrap().is_some()
}

fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.collect()
}

#[test]
fn pictures_come_back_until_their_time_is_over() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let id = save(&store, 3, at(0));
    let image = store.load(id, at(40)).unwrap().unwrap();
    assert_eq!((image.file, image.remaining), (vec![7; 3], Duration::from_secs(60)));
    assert!(!is_there(&store, id, at(100)), "served although it is over");
    store.sweep(at(99)).unwrap();
    assert_eq!(store.usage(), StoreUsage { images: 1, bytes: 3 });
    store.sweep(at(100)).unwrap();
    assert_eq!(store.usage(), StoreUsage { images: 0, bytes: 0 });
    assert_eq!(names(folder.path()), [""; 0]);
}

#[test]
fn the_oldest_make_room() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let ids = [0, 1, 2].map(|second| save(&store, 3, at(second)));
    let new = save(&store, 4, at(3));
    assert_eq!(ids.map(|id| is_there(&store, id, at(4))), [false, true, true]);
    assert!(is_there(&store, new, at(4)));
    assert_eq!(store.usage(), StoreUsage { images: 3, bytes: 10 });
}

#[test]
fn what_never_fits_is_refused_and_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let kept = save(&store, 3, at(0));
    let error = store.save(ImageFormat::Png, &[vec![0; 6], vec![0; 5]], at(1)).unwrap_err().to_string();
    assert_eq!(error, "the pictures have 11 bytes; --output-max-bytes is 10");
    assert!(is_there(&store, kept, at(1)));
}

#[test]
fn another_server_finds_what_the_last_one_left_and_lets_it_age() {
    let folder = tempfile::tempdir().unwrap();
    let id = save(&store(folder.path()), 3, at(0));
    fs::write(folder.path().join("notes.txt"), "not ours").unwrap();
    let store = store(folder.path());
    assert_eq!(store.usage(), StoreUsage { images: 1, bytes: 3 });
    assert!(is_there(&store, id, at(50)));
    store.sweep(at(100)).unwrap();
    assert_eq!(names(folder.path()), ["notes.txt"]);
}

#[test]
fn incomplete_files_are_neither_served_nor_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let id = ImageId::new(ImageFormat::Png);
    let temporary = folder.path().join(format!(".{id}{TEMPORARY}"));
    File::create(&temporary).unwrap().set_modified(at(0)).unwrap();
    assert!(!is_there(&store, id, at(1)));
    store.sweep(at(99)).unwrap();
    assert!(temporary.exists(), "its writer may still be at work");
    store.sweep(at(100)).unwrap();
    assert!(!temporary.exists());
}

#[test]
fn a_folder_that_cannot_be_written_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    fs::remove_dir(folder.path()).unwrap();
    let error = store.save(ImageFormat::Png, &[vec![0; 3]], at(0)).unwrap_err();
    assert!(matches!(error, StoreError::Write { .. }), "{error}");
    assert_eq!(store.usage(), StoreUsage { images: 0, bytes: 0 });
    fs::write(folder.path(), "").unwrap();
    ImageStore::open(folder.path().to_owned(), LIMITS).unwrap_err();
}
