//! The cache: a pack that was fetched once comes back by mapping; whatever happens to the folder, a request is served.

use glowplug_store::conformance::{Call, Fault, FaultyStore, coded_pack, sample_pack};
use glowplug_store::{
    MemoryStore, ModelName, ModelStore, ObjectStore, OpenedPack, PackCache, PackStore, Resolved,
    StoreErrorKind, Version,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn model(name: &str) -> Resolved {
    Resolved::exact(ModelName::new(name).unwrap(), Version::new("1").unwrap())
}

/// A store of the packs `a`, `b` and `c`, of 1 MB each, that can be cut off.
struct Lab {
    dir: tempfile::TempDir,
    objects: Arc<FaultyStore>,
    down: Arc<AtomicBool>,
}

impl Lab {
    async fn new() -> Lab {
        let memory = Arc::new(MemoryStore::new());
        for (seed, name) in [(1, "a"), (2, "b"), (3, "c")] {
            memory.put(&format!("{name}/1/model.glow"), sample_pack(name, 1_000_000, seed)).await.unwrap();
        }
        let down = Arc::new(AtomicBool::new(false));
        let decide = {
            let down = down.clone();
            move |_: &Call<'_>| down.load(Ordering::Relaxed).then_some(Fault::Refuse(StoreErrorKind::Denied))
        };
        let objects = Arc::new(FaultyStore::new(memory, decide));
        Lab { dir: tempfile::tempdir().unwrap(), objects, down }
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("cache/packs")
    }

    /// A store as a new process would open it.
    fn store(&self, max_bytes: u64) -> PackStore {
        PackStore::new(self.objects.clone()).with_cache(Arc::new(PackCache::new(self.folder(), max_bytes)))
    }

    /// Fetches a pack as a request does, and waits until it is cached, or will never be.
    async fn serve(&self, store: &PackStore, name: &str) -> OpenedPack {
        let opened = store.get(&model(name)).await.unwrap();
        opened.fetch.finished().await.unwrap();
        opened.pack.verify_content(&opened.region, None).unwrap();
        opened.fetch.keep();
        let (file, start) = (self.folder().join(file_of(&opened)), Instant::now());
        while !file.is_file() && start.elapsed() < Duration::from_millis(500) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        opened
    }
}

/// The files of a folder that is expected to hold packs only.
fn packs(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.ends_with(".glow"));
    names.sort();
    names
}

fn file_of(opened: &OpenedPack) -> String {
    format!("{}.glow", opened.pack.digest())
}

#[tokio::test]
async fn a_pack_that_served_once_comes_back_without_a_request() {
    let lab = Lab::new().await;
    let store = lab.store(1 << 30);
    let opened = lab.serve(&store, "a").await;
    assert_eq!(packs(&lab.folder()), [file_of(&opened)]);
    let calls = lab.objects.calls();
    lab.down.store(true, Ordering::Relaxed);
    let again = store.get(&model("a")).await.unwrap();
    again.pack.verify_content(&again.region, None).unwrap();
    assert_eq!((again.pack.digest(), lab.objects.calls()), (opened.pack.digest(), calls));
    // Another process knows the digest from an alias, or by a look at the header.
    let other = lab.store(1 << 30);
    let mut by_alias = model("a");
    by_alias.digest = Some(opened.pack.digest().parse().unwrap());
    other.get(&by_alias).await.unwrap();
    assert_eq!(other.get(&model("a")).await.unwrap_err().kind(), StoreErrorKind::Denied);
    lab.down.store(false, Ordering::Relaxed);
    let calls = lab.objects.calls();
    let again = other.get(&model("a")).await.unwrap();
    assert!(again.fetch.outcome().is_some() && lab.objects.calls() == calls + 1);
    again.pack.verify_content(&again.region, None).unwrap();
}

#[tokio::test]
async fn the_least_recently_used_pack_goes_when_the_folder_is_full() {
    let lab = Lab::new().await;
    let store = lab.store(2_500_000);
    let (a, b) = (lab.serve(&store, "a").await, lab.serve(&store, "b").await);
    let clock = |opened: &OpenedPack, seconds| {
        let file = fs::File::open(lab.folder().join(file_of(opened))).unwrap();
        file.set_modified(std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).unwrap();
    };
    clock(&a, 1000);
    clock(&b, 2000);
    // A use makes `a` the younger one.
    store.get(&model("a")).await.unwrap();
    let c = lab.serve(&store, "c").await;
    let mut wanted = [file_of(&a), file_of(&c)];
    wanted.sort();
    assert_eq!(packs(&lab.folder()), wanted);
    // A pack larger than the cache is not cached, and evicts nobody.
    let small = lab.store(500_000);
    lab.serve(&small, "b").await;
    assert_eq!(packs(&lab.folder()), wanted);
}

#[tokio::test]
async fn torn_and_damaged_files_are_found_before_they_are_used() {
    let lab = Lab::new().await;
    let store = lab.store(1 << 30);
    let path = {
        let opened = lab.serve(&store, "a").await;
        lab.folder().join(file_of(&opened))
    };
    let good = fs::read(&path).unwrap();
    let mut front = good.clone();
    front[100] ^= 1;
    let other = sample_pack("b", 1_000_000, 2).to_vec();
    for (what, bytes) in [
        ("empty", Vec::new()),
        ("torn", good[..good.len() - 1].to_vec()),
        ("torn front", good[..5000].to_vec()),
        ("longer", [&good[..], &[0]].concat()),
        ("front", front),
        ("another pack", other),
    ] {
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
        // The right bytes all the same, from the store; and the file is replaced by a good one.
        let opened = lab.serve(&store, "a").await;
        assert_eq!(format!("{}.glow", opened.pack.digest()), path.file_name().unwrap().to_str().unwrap());
        assert!(fs::read(&path).unwrap() == good, "{what}");
    }
}

#[tokio::test]
async fn a_blob_damaged_on_the_disk_is_found_where_all_is_hashed() {
    let lab = Lab::new().await;
    let opened = lab.serve(&lab.store(1 << 30), "a").await;
    let path = lab.folder().join(file_of(&opened));
    let mut damaged = fs::read(&path).unwrap();
    *damaged.last_mut().unwrap() ^= 1;
    fs::remove_file(&path).unwrap();
    fs::write(&path, &damaged).unwrap();
    // As with any local file, the front alone is hashed by default.
    let trusting = lab.store(1 << 30).get(&model("a")).await.unwrap();
    assert!(trusting.pack.verify_content(&trusting.region, None).is_err());
    let cache = PackCache::new(lab.folder(), 1 << 30).hashing_all(true);
    let careful = PackStore::new(lab.objects.clone()).with_cache(Arc::new(cache));
    lab.serve(&careful, "a").await;
    assert!(fs::read(&path).unwrap() != damaged);
}

#[tokio::test]
async fn what_cannot_be_written_is_fetched_each_time_and_nothing_fails() {
    let lab = Lab::new().await;
    // A file is in the place of the folder: as with a full disk, every write fails.
    fs::create_dir(lab.dir.path().join("cache")).unwrap();
    fs::write(lab.folder(), "in the way").unwrap();
    let store = lab.store(1 << 30);
    for name in ["a", "a", "b"] {
        lab.serve(&store, name).await;
    }
    assert_eq!(fs::read(lab.folder()).unwrap(), b"in the way");
}

#[cfg(unix)]
#[tokio::test]
async fn a_folder_that_others_can_write_to_is_not_trusted() {
    use std::os::unix::fs::PermissionsExt;
    let lab = Lab::new().await;
    let store = lab.store(1 << 30);
    let opened = lab.serve(&store, "a").await;
    let mode = |mode| fs::set_permissions(lab.folder(), fs::Permissions::from_mode(mode)).unwrap();
    assert_eq!(fs::metadata(lab.folder()).unwrap().permissions().mode() & 0o777, 0o700);
    mode(0o777);
    let calls = lab.objects.calls();
    let store = lab.store(1 << 30);
    for _ in 0..2 {
        let again = store.get(&model("a")).await.unwrap();
        again.fetch.finished().await.unwrap();
    }
    assert_eq!(lab.objects.calls(), calls + 2, "the planted file was used");
    lab.serve(&store, "b").await;
    assert_eq!(packs(&lab.folder()), [file_of(&opened)]);
    mode(0o700);
}

#[tokio::test]
async fn what_a_crash_left_is_removed_and_what_is_being_written_is_not() {
    let lab = Lab::new().await;
    let store = lab.store(1 << 30);
    fs::create_dir_all(lab.folder()).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::PermissionsExt::set_mode(
        &mut fs::metadata(lab.folder()).unwrap().permissions(),
        0o700,
    );
    for (name, age) in [(".writing-1-1", 3600), (".writing-1-2", 1)] {
        let file = fs::File::create(lab.folder().join(name)).unwrap();
        file.set_modified(std::time::SystemTime::now() - Duration::from_secs(age)).unwrap();
    }
    lab.serve(&store, "a").await;
    assert!(!lab.folder().join(".writing-1-1").exists() && lab.folder().join(".writing-1-2").exists());
}

/// Two processes, as far as the cache can tell: nothing is shared but the folder.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_processes_that_share_a_folder_do_not_hurt_each_other() {
    let lab = Arc::new(Lab::new().await);
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let lab = lab.clone();
            tokio::spawn(async move {
                // Room for one pack and a half: all the time somebody evicts what somebody else has mapped.
                let store = lab.store(1_500_000);
                for round in 0..12 {
                    let name = ["a", "b", "c"][round % 3];
                    let opened = store.get(&model(name)).await.unwrap();
                    opened.fetch.finished().await.unwrap();
                    opened.fetch.keep();
                    tokio::time::sleep(Duration::from_millis(2)).await;
                    opened.pack.verify_content(&opened.region, None).unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let store = lab.store(1 << 30);
    for name in ["a", "b", "c"] {
        let opened = store.get(&model(name)).await.unwrap();
        opened.fetch.finished().await.unwrap();
        opened.pack.verify_content(&opened.region, None).unwrap();
    }
}

/// Kept decoded, so that it is mapped; and told from a damaged one by the hash at the file's end.
#[tokio::test]
async fn an_entropy_coded_pack_is_kept_decoded() {
    let lab = Lab::new().await;
    let file = coded_pack("coded", 1_000_000, 4);
    lab.objects.put("coded/1/model.glow", file.clone()).await.unwrap();
    let store = lab.store(1 << 30);
    let opened = lab.serve(&store, "coded").await;
    let (memory_len, path) = (opened.pack.header().memory_len, lab.folder().join(file_of(&opened)));
    assert!(memory_len > file.len() as u64 + 300_000);
    assert_eq!(fs::metadata(&path).unwrap().len(), memory_len + 32);
    let hashing = || {
        let cache = PackCache::new(lab.folder(), 1 << 30).hashing_all(true);
        PackStore::new(lab.objects.clone()).with_cache(Arc::new(cache))
    };
    let read = |opened: &OpenedPack| {
        let chunks = opened.pack.chunks().iter();
        chunks.map(|c| opened.region.wait(c.range(), None).unwrap().to_vec()).collect::<Vec<_>>()
    };
    let mut by_alias = model("coded");
    by_alias.digest = Some(opened.pack.digest().parse().unwrap());
    lab.down.store(true, Ordering::Relaxed);
    for store in [lab.store(1 << 30), hashing()] {
        let again = store.get(&by_alias).await.unwrap();
        assert_eq!(again.fetch.outcome().unwrap().unwrap().bytes, file.len() as u64);
        assert!(again.region.is_complete() && read(&again) == read(&opened));
        again.pack.verify_content(&again.region, None).unwrap();
    }
    // Damage to a weight is found where all is hashed, and the file removed; a file cut short always.
    let whole = fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    let at = usize::try_from(memory_len).unwrap() - 5000;
    damaged[at] ^= 1;
    fs::write(&path, &damaged).unwrap();
    lab.store(1 << 30).get(&by_alias).await.unwrap();
    assert_eq!(hashing().get(&by_alias).await.unwrap_err().kind(), StoreErrorKind::Denied);
    assert!(!path.exists());
    for bytes in [&whole[..whole.len() - 1], &whole[..whole.len() - 32], &file[..]] {
        fs::write(&path, bytes).unwrap();
        assert_eq!(lab.store(1 << 30).get(&by_alias).await.unwrap_err().kind(), StoreErrorKind::Denied);
        assert!(!path.exists());
    }
}
