//! Fetched packs on this machine's own storage, so that a model that was evicted comes back without a transfer.
//!
//! One file per pack, named by its digest. A file is written from a region whose every chunk has been hashed, under a
//! temporary name, synced, and then renamed: there is the whole pack or nothing, whenever the machine stops. A file is
//! used by mapping it, after the checks that any local pack gets: structure, length, the hashes of its front part, and
//! that its digest is its name. Blobs are not hashed again unless that is asked for; nobody but this user can write into
//! the folder.
//!
//! A file holds what the pack is in memory. For most that is the pack itself; an entropy-coded one is kept decoded, so that
//! it is mapped as fast as any, with the hash of that at its end: the pack's own hashes are those of coded bytes.
//!
//! The cache is never in the way: what cannot be written is logged once, and from then on only read.

use crate::error::StoreError;
use crate::fetch::FetchGuard;
use crate::map;
use crate::model::{OpenedPack, Resolved};
use crate::names::{Digest, ModelName, Version};
use crate::packs::of_pack;
use glowplug_pack::{Header, Pack, PackError, Region};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// What files of packs end with.
const PACK: &str = ".glow";
/// What files that are being written begin with.
const TEMPORARY: &str = ".writing-";
/// A temporary file that nobody has written to for so long was left by a crash.
const LEFT_BEHIND: Duration = Duration::from_secs(15 * 60);

/// A folder of fetched packs, bounded in size; the least recently used go first. Processes may share a folder.
#[derive(Debug)]
pub struct PackCache {
    dir: PathBuf,
    max_bytes: u64,
    /// Whether all of a file is hashed before it is used.
    hash_all: bool,
    /// Set once writing failed.
    read_only: AtomicBool,
    /// Which pack a version is, as far as this process has seen. Versions never change.
    known: Mutex<HashMap<(ModelName, Version), Digest>>,
}

impl PackCache {
    /// A cache in `dir`, made by the first write, whose files take `max_bytes` together. Touches nothing.
    pub fn new(dir: impl Into<PathBuf>, max_bytes: u64) -> PackCache {
        let (read_only, known) = (AtomicBool::new(false), Mutex::default());
        PackCache { dir: dir.into(), max_bytes, hash_all: false, read_only, known }
    }

    /// The same cache, hashing all of a file before each use, so that damage to a blob is found too. Cost: one BLAKE3
    /// pass over the pack.
    #[must_use]
    pub fn hashing_all(mut self, hash_all: bool) -> PackCache {
        self.hash_all = hash_all;
        self
    }

    /// Remembers which pack a version is.
    pub(crate) fn learn(&self, model: &Resolved, digest: Digest) {
        self.known().insert((model.name.clone(), model.version.clone()), digest);
    }

    /// The pack that `model` means, if that is known, and the pack lies here.
    pub(crate) fn find(&self, model: &Resolved) -> Option<OpenedPack> {
        let known = || self.known().get(&(model.name.clone(), model.version.clone())).copied();
        self.open(&model.digest.or_else(known)?)
    }

    /// The pack with this digest, if it lies here: mapped, and from now on the most recently used. A file that is
    /// no such pack is removed.
    pub(crate) fn open(&self, digest: &Digest) -> Option<OpenedPack> {
        let started = Instant::now();
        let path = self.path(digest);
        let file = File::open(&path).ok()?;
        check_owner(&self.dir).inspect_err(|e| self.stop_writing(e)).ok()?;
        match read(&path, &file, digest, self.hash_all) {
            Ok((pack, region)) => {
                // Only the order of eviction depends on it.
                let _ = file.set_modified(SystemTime::now());
                let region = Arc::new(region);
                let fetch = FetchGuard::done(&pack, &region, started);
                Some(OpenedPack { pack: Arc::new(pack), region, fetch })
            }
            Err(error) => {
                tracing::warn!(%error, "a file of the cache is not used, and removed");
                let _ = fs::remove_file(&path);
                None
            }
        }
    }

    /// Writes a pack whose `region` is complete. Blocks. Never fails: what cannot be written is not cached.
    pub(crate) fn write(&self, pack: &Pack, region: &Region) {
        let (digest, bytes) = (Digest(pack.header().digest), file_bytes(pack));
        if bytes > self.max_bytes || self.read_only.load(Ordering::Relaxed) || self.path(&digest).is_file() {
            return;
        }
        let started = Instant::now();
        match self.try_write(pack, region, &digest) {
            Ok(()) => tracing::debug!(%digest, bytes, took = ?started.elapsed(), "cached"),
            Err(error) => self.stop_writing(&error),
        }
    }

    fn try_write(&self, pack: &Pack, region: &Region, digest: &Digest) -> io::Result<()> {
        create_private(&self.dir)?;
        check_owner(&self.dir)?;
        self.make_room(file_bytes(pack))?;
        let temporary = Temporary::create(&self.dir)?;
        write_pack(&temporary.file, pack, region)?;
        temporary.file.sync_all()?;
        fs::rename(&temporary.path, self.path(digest))?;
        File::open(&self.dir)?.sync_all()
    }

    /// Removes packs, least recently used first, until `bytes` more fit, and what crashes left behind.
    fn make_room(&self, bytes: u64) -> io::Result<()> {
        let mut files = Vec::new();
        let mut total = bytes;
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            // Another process may have removed it meanwhile.
            let Ok(metadata) = entry.metadata() else { continue };
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let name = entry.file_name().to_string_lossy().into_owned();
            let age = SystemTime::now().duration_since(used).unwrap_or_default();
            if name.starts_with(TEMPORARY) && age > LEFT_BEHIND {
                remove(&entry.path())?;
            } else if name.ends_with(PACK) {
                files.push((used, metadata.len(), entry.path()));
                total += metadata.len();
            }
        }
        files.sort_unstable();
        for (_, len, path) in files {
            if total <= self.max_bytes {
                break;
            }
            // Who has it mapped keeps the mapping.
            remove(&path)?;
            total -= len;
        }
        Ok(())
    }

    fn stop_writing(&self, error: &io::Error) {
        if !self.read_only.swap(true, Ordering::Relaxed) {
            let dir = self.dir.display();
            tracing::warn!(%error, "the cache in {dir} takes no more packs: they will be fetched each time");
        }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(format!("{digest}{PACK}"))
    }

    /// Every use leaves the map whole, so a panic elsewhere is of no concern.
    fn known(&self) -> MutexGuard<'_, HashMap<(ModelName, Version), Digest>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A pack that is worth a place in a cache, once it is whole.
#[derive(Clone, Debug)]
pub(crate) struct Keep {
    pub(crate) cache: Arc<PackCache>,
    pub(crate) pack: Arc<Pack>,
}

impl Keep {
    /// Writes the pack, off the runtime's threads.
    pub(crate) async fn write(self, region: Arc<Region>) {
        let write = move || self.cache.write(&self.pack, &region);
        if let Err(error) = tokio::task::spawn_blocking(write).await {
            tracing::warn!(%error, "writing to the cache ended early");
        }
    }
}

/// The pack in a file of the cache, and a map of it.
fn read(path: &Path, file: &File, digest: &Digest, hash_all: bool) -> Result<(Pack, Region), StoreError> {
    let place = path.display().to_string();
    let (pack, region) = map::open_memory(&place, file, seal_bytes)?;
    if hash_all {
        verify(&pack, &region).map_err(|e| of_pack(&place, &e))?;
    }
    let found = Digest(pack.header().digest);
    if found != *digest {
        let text = format!("{}: the pack has digest {found}", path.display());
        return Err(StoreError::new(crate::StoreErrorKind::Corrupt, text));
    }
    Ok((pack, region))
}

/// Bytes behind a pack in a file of the cache.
fn seal_bytes(header: &Header) -> u64 {
    if header.is_coded() { size_of_val(&header.digest) as u64 } else { 0 }
}

/// Bytes of a pack's file in the cache.
fn file_bytes(pack: &Pack) -> u64 {
    pack.header().memory_len.saturating_add(seal_bytes(pack.header()))
}

/// Hashes all of a file: by the chunk table, or where that is of coded bytes, by the hash at its end.
fn verify(pack: &Pack, region: &Region) -> Result<(), PackError> {
    if !pack.header().is_coded() {
        return pack.verify_content(region, None);
    }
    let end = pack.header().memory_len;
    if pack.memory_hash(region)? != region.wait(end..file_bytes(pack), None)? {
        return Err(PackError::corrupt("its bytes do not have the hash that is written behind them"));
    }
    Ok(())
}

/// The front, and every chunk at its offset in memory. What lies between chunks is padding: zeros, and never read.
fn write_pack(mut file: &File, pack: &Pack, region: &Region) -> io::Result<()> {
    const ZEROS: [u8; 4096] = [0; 4096];
    file.write_all(pack.front())?;
    let mut at = pack.front().len() as u64;
    for chunk in pack.chunks().iter().filter(|chunk| chunk.offset >= pack.header().front_len) {
        while at < chunk.offset {
            let padding = usize::try_from(chunk.offset - at).map_or(ZEROS.len(), |n| n.min(ZEROS.len()));
            file.write_all(&ZEROS[..padding])?;
            at += padding as u64;
        }
        file.write_all(region.wait(chunk.range(), Some(Instant::now())).map_err(io::Error::other)?)?;
        at = chunk.range().end;
    }
    if pack.header().is_coded() {
        file.write_all(&pack.memory_hash(region).map_err(io::Error::other)?)?;
    }
    Ok(())
}

/// Removes a file that another process may have removed already.
fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// A folder that others cannot write to: what lies in it is trusted.
fn create_private(dir: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(dir)
}

/// Whether the folder belongs to this user, and nobody else can write to it: another user of the machine could
/// otherwise plant a pack with a digest that is asked for and other weights.
fn check_owner(dir: &Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let folder = fs::symlink_metadata(dir)?;
        // The owner of this process, without a call that only unsafe code can make.
        let own = fs::metadata("/proc/self").map_or(folder.uid(), |process| process.uid());
        if !folder.is_dir() || folder.uid() != own || folder.mode() & 0o022 != 0 {
            let (uid, mode) = (folder.uid(), folder.mode() & 0o7777);
            let text = format!(
                "{} has owner {uid} and mode {mode:o}, expected a folder of user {own} that nobody else can write to",
                dir.display()
            );
            return Err(io::Error::other(text));
        }
    }
    Ok(())
}

/// A file that is removed again unless it has been renamed.
struct Temporary {
    path: PathBuf,
    file: File,
}

impl Temporary {
    /// An empty file in `dir`, with a name that no other call and no other process uses.
    fn create(dir: &Path) -> io::Result<Temporary> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = dir.join(format!("{TEMPORARY}{}-{number}", std::process::id()));
            match File::create_new(&path) {
                Ok(file) => return Ok(Temporary { path, file }),
                // Left by a crashed process of the same id.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename there is nothing to remove.
        let _ = fs::remove_file(&self.path);
    }
}
