//! Pictures in a temporary folder, at times the tests choose.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::folder::TEMPORARY;
use super::*;

const LIMITS: StoreLimits = StoreLimits { max_age: Duration::from_secs(100), max_bytes: 10 };

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(2_000_000_000 + seconds)
}

/// Without the sweep of [`PictureFolder::open`], which looks at the real clock.
fn store(folder: &Path) -> PictureFolder {
    PictureFolder::unchecked(folder.to_owned(), LIMITS).unwrap()
}

fn save(store: &PictureFolder, bytes: usize, now: SystemTime) -> ImageId {
    save_of(Owner::default(), store, bytes, now)
}

fn save_of(owner: Owner, store: &PictureFolder, bytes: usize, now: SystemTime) -> ImageId {
    store.save(owner, ImageFormat::Png, &[vec![7; bytes]], now).unwrap()[0]
}

fn is_there(store: &PictureFolder, id: ImageId, now: SystemTime) -> bool {
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
    let mut image = store.load(id, at(40)).unwrap().unwrap();
    let mut file = Vec::new();
    image.file.read_to_end(&mut file).unwrap();
    assert_eq!((file, image.bytes, image.remaining), (vec![7; 3], 3, Duration::from_secs(60)));
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
fn pictures_of_one_client_do_not_make_room_for_those_of_a_greedy_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let (hog, other) = (Owner::new(1), Owner::new(2));
    let kept = save_of(other, &store, 3, at(0));
    let of_hog: Vec<_> = (1..9).map(|second| save_of(hog, &store, 3, at(second))).collect();
    assert!(is_there(&store, kept, at(9)), "the oldest of all");
    assert_eq!(of_hog.iter().filter(|id| is_there(&store, **id, at(9))).count(), 2);
    // A sweep reads the folder, which does not say whose the pictures are.
    store.sweep(at(10)).unwrap();
    save_of(hog, &store, 3, at(11));
    assert!(is_there(&store, kept, at(12)));
    let more = save_of(other, &store, 2, at(13));
    assert!([kept, more].iter().all(|id| is_there(&store, *id, at(14))));
    assert!(store.usage().bytes <= 10);
}

#[test]
fn what_never_fits_is_refused_and_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let kept = save(&store, 3, at(0));
    let error =
        store.save(Owner::default(), ImageFormat::Png, &[vec![0; 6], vec![0; 5]], at(1)).unwrap_err().to_string();
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
    let error = store.save(Owner::default(), ImageFormat::Png, &[vec![0; 3]], at(0)).unwrap_err();
    assert!(matches!(error, StoreError::Write(_)), "{error}");
    assert_eq!(store.usage(), StoreUsage { images: 0, bytes: 0 });
    fs::write(folder.path(), "").unwrap();
    assert!(!error.to_string().contains(folder.path().to_str().unwrap()), "{error}");
    PictureFolder::open(folder.path().to_owned(), LIMITS).unwrap_err();
}

#[test]
fn others_on_the_machine_cannot_read_what_is_made_here() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("pictures");
    let store = PictureFolder::open(folder.clone(), LIMITS).unwrap();
    let id = save(&store, 3, at(0));
    let others = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o027;
    assert_eq!((others(&folder), others(&folder.join(id.to_string()))), (0, 0));
}

#[test]
fn a_folder_has_one_server_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let store = PictureFolder::open(folder.path().to_owned(), LIMITS).unwrap();
    let error = PictureFolder::open(folder.path().to_owned(), LIMITS).unwrap_err();
    assert_eq!(error.to_string(), "another server uses it; each needs a folder of its own");
    drop(store);
    PictureFolder::open(folder.path().to_owned(), LIMITS).unwrap();
}

#[test]
fn only_plain_files_are_pictures() {
    let parent = tempfile::tempdir().unwrap();
    let (folder, secret) = (parent.path().join("pictures"), parent.path().join("secret"));
    let store = PictureFolder::open(folder.clone(), LIMITS).unwrap();
    fs::write(&secret, "of somebody else").unwrap();
    let (link, pipe) = (ImageId::new(ImageFormat::Png), ImageId::new(ImageFormat::Png));
    std::os::unix::fs::symlink(&secret, folder.join(link.to_string())).unwrap();
    // Whoever opens it would wait until somebody writes.
    let made = std::process::Command::new("mkfifo").arg(folder.join(pipe.to_string())).status().unwrap();
    assert!(made.success());
    assert!([link, pipe].iter().all(|id| !is_there(&store, *id, SystemTime::now())));
    store.sweep(SystemTime::now()).unwrap();
    assert_eq!(store.usage(), StoreUsage::default());
}

#[test]
fn what_is_told_of_a_folder_needs_no_lock_of_its_writers() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    save(&store, 3, at(0));
    let _index = store.index();
    assert_eq!(store.usage(), StoreUsage { images: 1, bytes: 3 });
}

#[tokio::test]
async fn how_much_there_is_is_told_while_the_disk_hangs() {
    let folder = tempfile::tempdir().unwrap();
    // Without the patience of a store: a busy machine may take longer.
    let id = save(&PictureFolder::open(folder.path().to_owned(), LIMITS).unwrap(), 3, SystemTime::now());
    let store = ImageStore::open(folder.path().to_owned(), LIMITS, Duration::from_millis(20)).unwrap();
    let files: Arc<[Vec<u8>]> = Arc::new([vec![7; 3]]);
    let hanging = store.hang().await;
    assert!(matches!(store.save(Owner::default(), ImageFormat::Png, files).await, Err(StoreError::Disk(_))));
    assert_eq!((store.usage(), store.is_stuck()), (StoreUsage { images: 1, bytes: 3 }, true));
    drop(hanging);
    while store.is_stuck() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let file = Arc::new(patiently(async || store.load(id).await).await.unwrap().file);
    assert_eq!(patiently(async || store.read(Arc::clone(&file), 3).await).await, [7; 3]);
}

/// What a busy machine is too slow for is asked again.
async fn patiently<T>(ask: impl AsyncFn() -> Result<T, StoreError>) -> T {
    loop {
        match ask().await {
            Err(StoreError::Disk(DiskFault::TimedOut { .. } | DiskFault::Busy)) => {}
            done => return done.unwrap(),
        }
    }
}
