//! Opening a pack that belongs to no store: a file by its path, or bytes in memory. For tools and tests.

use crate::error::{StoreError, StoreErrorKind};
use crate::fetch::FetchGuard;
use crate::map;
use crate::model::OpenedPack;
use glowplug_pack::{Pack, Region};
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Maps the pack in a file. Reads and hashes the front part only.
///
/// # Errors
/// `NotFound`; `Other`: the file cannot be opened or mapped; `Corrupt`: it is no valid pack.
pub fn open_file(path: &Path) -> Result<OpenedPack, StoreError> {
    let started = Instant::now();
    let file = File::open(path).map_err(|e| {
        let missing = e.kind() == std::io::ErrorKind::NotFound;
        let kind = if missing { StoreErrorKind::NotFound } else { StoreErrorKind::Other };
        StoreError::new(kind, format!("cannot open the pack: {e}"))
    })?;
    let (pack, region) = map::open(&path.display().to_string(), &file, |_| Ok(()))?;
    Ok(opened(pack, region, started))
}

/// A pack that is in memory already. Copies it once, for its alignment.
///
/// # Errors
/// `Corrupt`: `bytes` is no valid pack.
pub fn open_bytes(bytes: &[u8]) -> Result<OpenedPack, StoreError> {
    let started = Instant::now();
    let (pack, region) = Pack::open(bytes).map_err(|e| StoreError::of_pack("bytes", &e))?;
    Ok(opened(pack, Arc::new(region), started))
}

fn opened(pack: Pack, region: Arc<Region>, started: Instant) -> OpenedPack {
    let fetch = FetchGuard::done(&pack, &region, started);
    OpenedPack { pack: Arc::new(pack), region, fetch }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_pack_or_not_there_is_told() {
        assert_eq!(open_bytes(b"no pack").unwrap_err().kind(), StoreErrorKind::Corrupt);
        let dir = tempfile::tempdir().unwrap();
        let missing = open_file(&dir.path().join("x.glow")).unwrap_err();
        assert_eq!(missing.kind(), StoreErrorKind::NotFound);
        std::fs::write(dir.path().join("y.glow"), b"").unwrap();
        assert_eq!(open_file(&dir.path().join("y.glow")).unwrap_err().kind(), StoreErrorKind::Corrupt);
    }
}
