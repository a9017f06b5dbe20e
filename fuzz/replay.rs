// Included by the tests that replay the seeds: in five crates, none of which the others could test with.

/// Every file below `fuzz/seeds/TARGET`.
fn replay(target: &str, read: fn(&[u8])) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds").join(target);
    let seeds: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!seeds.is_empty(), "{}", folder.display());
    seeds.iter().for_each(|seed| read(&std::fs::read(seed).unwrap()));
}
