//! Objects as files under one directory: the key is the relative path.
//!
//! Writes are crash-safe: a temporary file beside the target, synced, then moved into place in one step. A reader,
//! or a machine that comes up again, finds the old bytes, the new bytes or nothing; never a part.

use crate::error::{StoreError, StoreErrorKind};
use crate::names::check_key;
use crate::object::{ETag, ObjectInfo, ObjectStore, PutOutcome, Sink, check_etag, clip};
use async_trait::async_trait;
use bytes::Bytes;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// What temporary files begin with. Not listed; not legal in a key.
const TEMPORARY: &str = ".glowplug-tmp-";

/// An [`ObjectStore`] in a directory. Other processes may use the same directory at the same time.
///
/// Unlike S3, a file system cannot hold both `a` and `a/b`: the second of them fails.
#[derive(Clone, Debug)]
pub struct DirectoryStore {
    root: PathBuf,
}

impl DirectoryStore {
    /// A store in `root`, which need not exist before the first write.
    pub fn new(root: impl Into<PathBuf>) -> DirectoryStore {
        DirectoryStore { root: root.into() }
    }

    /// The file of a key. `check_key` admits nothing that leads out of `root`.
    fn path(&self, key: &str) -> Result<PathBuf, StoreError> {
        check_key(key)?;
        if key.split('/').any(|part| part.starts_with(TEMPORARY)) {
            let text = format!("key {key:?}: names beginning with {TEMPORARY} are taken");
            return Err(StoreError::new(StoreErrorKind::Invalid, text));
        }
        Ok(key.split('/').fold(self.root.clone(), |path, part| path.join(part)))
    }

    async fn write(&self, key: &str, bytes: Bytes, place: Place) -> Result<PutOutcome, StoreError> {
        let (path, root) = (self.path(key)?, self.root.clone());
        let shown = path.clone();
        blocking(move || write_file(&root, &path, &bytes, place)).await.map_err(|e| io_error(&shown, &e))
    }
}

#[async_trait]
impl ObjectStore for DirectoryStore {
    async fn read(
        &self,
        key: &str,
        range: Option<Range<u64>>,
        if_match: Option<&ETag>,
        sink: &mut Sink<'_>,
    ) -> Result<ObjectInfo, StoreError> {
        let path = self.path(key)?;
        let (mut file, metadata) = open(&path)?;
        let (etag, total_len) = (etag(&metadata), metadata.len());
        check_etag(key, if_match, &etag)?;
        let range = clip(key, range, total_len)?;
        let bytes = blocking(move || read_range(&mut file, range)).await.map_err(|e| io_error(&path, &e))?;
        let info = ObjectInfo { etag, total_len };
        sink(&info, bytes)?;
        Ok(info)
    }

    async fn put_if_absent(&self, key: &str, bytes: Bytes) -> Result<PutOutcome, StoreError> {
        self.write(key, bytes, link).await
    }

    async fn put(&self, key: &str, bytes: Bytes) -> Result<(), StoreError> {
        self.write(key, bytes, replace).await.map(drop)
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let (root, prefix) = (self.root.clone(), prefix.to_owned());
        let shown = root.clone();
        blocking(move || list(&root, &prefix)).await.map_err(|e| io_error(&shown, &e))
    }

    fn local_file(&self, key: &str) -> Result<Option<File>, StoreError> {
        open(&self.path(key)?).map(|(file, _)| Some(file))
    }
}

/// Runs file work off the runtime's threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

fn open(path: &Path) -> Result<(File, Metadata), StoreError> {
    let file = File::open(path).map_err(|e| match e.kind() {
        // A part of the key is a file: below it there is nothing.
        io::ErrorKind::NotADirectory => not_found(path, "no such file"),
        _ => io_error(path, &e),
    })?;
    let metadata = file.metadata().map_err(|e| io_error(path, &e))?;
    if !metadata.is_file() {
        return Err(not_found(path, "not a file"));
    }
    Ok((file, metadata))
}

fn not_found(path: &Path, why: &str) -> StoreError {
    StoreError::new(StoreErrorKind::NotFound, format!("{}: {why}", path.display()))
}

/// A replaced file has another inode, and in most cases another time and length too.
fn etag(metadata: &Metadata) -> ETag {
    #[cfg(unix)]
    let inode = std::os::unix::fs::MetadataExt::ino(metadata);
    #[cfg(not(unix))]
    let inode = 0;
    let written = metadata.modified().ok().and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok());
    ETag::new(format!("\"{inode:x}-{:x}-{:x}\"", written.unwrap_or_default().as_nanos(), metadata.len()))
}

fn read_range(file: &mut File, range: Range<u64>) -> io::Result<Bytes> {
    let len = usize::try_from(range.end - range.start).map_err(io::Error::other)?;
    let mut bytes = vec![0; len];
    file.seek(SeekFrom::Start(range.start))?;
    file.read_exact(&mut bytes)?;
    Ok(bytes.into())
}

/// How a finished temporary file gets its name.
type Place = fn(&Temporary, &Path) -> io::Result<PutOutcome>;

/// A second name for the same file: the one step of a file system that fails if the name is taken.
fn link(temporary: &Temporary, path: &Path) -> io::Result<PutOutcome> {
    match fs::hard_link(&temporary.path, path) {
        Ok(()) => Ok(PutOutcome::Created),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && path.is_file() => Ok(PutOutcome::AlreadyExists),
        Err(e) => Err(e),
    }
}

fn replace(temporary: &Temporary, path: &Path) -> io::Result<PutOutcome> {
    fs::rename(&temporary.path, path).map(|()| PutOutcome::Created)
}

fn write_file(root: &Path, path: &Path, bytes: &[u8], place: Place) -> io::Result<PutOutcome> {
    let parent = path.parent().unwrap_or(root);
    fs::create_dir_all(parent)?;
    let temporary = Temporary::create(parent, bytes)?;
    let outcome = place(&temporary, path)?;
    drop(temporary);
    sync_directories(root, parent)?;
    Ok(outcome)
}

/// Makes new names outlive a crash, from the file's directory up to the root.
fn sync_directories(root: &Path, parent: &Path) -> io::Result<()> {
    let up_to_root = parent.ancestors().take_while(|dir| dir.starts_with(root));
    up_to_root.into_iter().try_for_each(|dir| File::open(dir)?.sync_all())
}

/// A file that is removed again unless it has been renamed.
struct Temporary {
    path: PathBuf,
}

impl Temporary {
    /// A synced file of `bytes` in `dir`, with a name that no other call and no other process uses.
    fn create(dir: &Path, bytes: &[u8]) -> io::Result<Temporary> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (mut file, temporary) = loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = dir.join(format!("{TEMPORARY}{}-{number}", std::process::id()));
            match File::create_new(&path) {
                Ok(file) => break (file, Temporary { path }),
                // Left by a crashed process of the same id.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        };
        file.write_all(bytes)?;
        file.sync_all()?;
        Ok(temporary)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename there is nothing to remove; otherwise a left-over is unlisted and harmless.
        let _ = fs::remove_file(&self.path);
    }
}

fn list(root: &Path, prefix: &str) -> io::Result<Vec<String>> {
    let mut keys = Vec::new();
    walk(root, "", prefix, &mut keys)?;
    keys.sort_unstable();
    Ok(keys)
}

/// Adds the keys below `dir`, whose own key (with a slash behind it) is `base`. Folders that `prefix` rules out
/// are not opened; links to folders are not followed, so there are no loops.
fn walk(dir: &Path, base: &str, prefix: &str, keys: &mut Vec<String>) -> io::Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !name.starts_with(TEMPORARY)) else { continue };
        let key = format!("{base}{name}");
        if entry.file_type()?.is_dir() {
            let below = format!("{key}/");
            if below.starts_with(prefix) || prefix.starts_with(&below) {
                walk(&entry.path(), &below, prefix, keys)?;
            }
        } else if key.starts_with(prefix) && check_key(&key).is_ok() && entry.path().is_file() {
            keys.push(key);
        }
    }
    Ok(())
}

fn io_error(path: &Path, error: &io::Error) -> StoreError {
    use io::ErrorKind as Io;
    let kind = match error.kind() {
        Io::NotFound => StoreErrorKind::NotFound,
        Io::PermissionDenied | Io::ReadOnlyFilesystem => StoreErrorKind::Denied,
        Io::UnexpectedEof => StoreErrorKind::Corrupt,
        Io::Interrupted | Io::TimedOut => StoreErrorKind::Unavailable,
        Io::NotADirectory | Io::IsADirectory | Io::AlreadyExists => StoreErrorKind::Invalid,

        _ => StoreErrorKind::Other,
    };
    StoreError::new(kind, format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, DirectoryStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = DirectoryStore::new(dir.path());
        (dir, store)
    }

    #[tokio::test]
    async fn what_a_crash_left_is_neither_listed_nor_in_the_way() {
        let (dir, store) = store();
        for number in 0..50 {
            let left = format!("{TEMPORARY}{}-{number}", std::process::id());
            fs::write(dir.path().join(left), "half of an obj").unwrap();
        }
        assert_eq!(store.list("").await.unwrap(), Vec::<String>::new());
        assert_eq!(store.put_if_absent("a", "whole".into()).await.unwrap(), PutOutcome::Created);
        assert_eq!(store.list("").await.unwrap(), ["a"]);
        let error = store.get(&format!("{TEMPORARY}1-1"), None, None).await.unwrap_err();
        assert_eq!(error.kind(), StoreErrorKind::Invalid);
    }

    #[tokio::test]
    async fn no_temporary_file_stays() {
        let (dir, store) = store();
        store.put("x/a", "1".into()).await.unwrap();
        store.put_if_absent("x/a", "2".into()).await.unwrap();
        store.put_if_absent("x/b", "3".into()).await.unwrap();
        fs::create_dir(dir.path().join("x/folder")).unwrap();
        assert!(store.put("x/folder", "4".into()).await.is_err());
        assert!(store.put_if_absent("x/folder", "4".into()).await.is_err());
        let mut names: Vec<_> =
            fs::read_dir(dir.path().join("x")).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["a", "b", "folder"]);
    }

    #[tokio::test]
    async fn a_file_in_the_place_of_a_folder_is_an_error_with_its_path() {
        let (_dir, store) = store();
        store.put("a", "x".into()).await.unwrap();
        let error = store.put("a/b", "y".into()).await.unwrap_err();
        assert!(error.to_string().contains("a/b"), "{error}");
        assert_eq!(store.get("a", None, None).await.unwrap().bytes, "x");
        assert_eq!(store.get("a/b", None, None).await.unwrap_err().kind(), StoreErrorKind::NotFound);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn others_may_read_as_the_umask_says() {
        use std::os::unix::fs::PermissionsExt;
        let (dir, store) = store();
        store.put("new", "x".into()).await.unwrap();
        fs::write(dir.path().join("plain"), "x").unwrap();
        let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode("new"), mode("plain"));
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn links_to_folders_make_no_loop() {
        let (dir, store) = store();
        store.put("x/a", "1".into()).await.unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("x/loop")).unwrap();
        assert_eq!(store.list("").await.unwrap(), ["x/a"]);
    }
}
