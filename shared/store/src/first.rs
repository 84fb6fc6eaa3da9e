//! The first request of a fetch: front part and first weights in one stream.
//!
//! The front part is checked and handed out as soon as it is here, while the same body goes on into the region. So a
//! plan is built during the transfer, and weights follow the front without the pause that another request would cost.

use crate::cache::{Keep, PackCache};
use crate::error::{StoreError, StoreErrorKind};
use crate::fetch::{Admit, FetchGuard};
use crate::map;
use crate::model::{OpenedPack, Resolved};
use crate::names::Digest;
use crate::object::{ETag, ObjectInfo};
use crate::packs::{check_digest, of_pack};
use crate::parts::{Assembler, Part, Queue};
use crate::transfer::{Source, Transfer, Tries};
use glowplug_pack::header::FIRST_READ_BYTES;
use glowplug_pack::{ErrorKind, Header, Pack, PackError, Region};
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;
use tokio::sync::{oneshot, watch};

/// Enough of a file to hold the header of any sensible pack; the first request asks for no less.
pub(crate) const FIRST_READ: Range<u64> = 0..FIRST_READ_BYTES as u64;

/// What is to be opened, and by which rules.
#[derive(Clone)]
pub(crate) struct Opening {
    pub(crate) source: Source,
    pub(crate) model: Resolved,
    pub(crate) admit: Admit,
    pub(crate) cache: Option<Arc<PackCache>>,
}

/// What the front part led to.
enum Begun {
    Cached(OpenedPack),
    Fetching(Arc<Transfer>),
}

/// Reads the front part of a pack, then has the rest brought in the background.
pub(crate) async fn open(opening: Opening) -> Result<OpenedPack, StoreError> {
    let (cache, (give, mut begun)) = (opening.cache.clone(), oneshot::channel());
    // First it runs here, so that a caller who gives up ends it; once the front is here, on its own.
    let mut first = Box::pin(bring(opening, give));
    tokio::select! {
        biased;
        begun = &mut begun => match begun {
            Ok(Begun::Cached(pack)) => Ok(pack),
            Ok(Begun::Fetching(transfer)) => Ok(spawn(transfer, first, cache)),
            Err(_) => Err(first.await.err().unwrap_or_else(never)),
        },
        ended = &mut first => match (begun.try_recv(), ended) {
            (Ok(Begun::Cached(pack)), _) => Ok(pack),
            (Ok(Begun::Fetching(transfer)), ended) => Ok(spawn(transfer, std::future::ready(ended), cache)),
            (Err(_), ended) => Err(ended.err().unwrap_or_else(never)),
        },
    }
}

/// Reading ends with an error or after it told what it led to.
fn never() -> StoreError {
    StoreError::new(StoreErrorKind::Other, "a read of a pack's front that ended with nothing")
}

fn spawn(
    transfer: Arc<Transfer>,
    first: impl Future<Output = Result<(), StoreError>> + Send + 'static,
    cache: Option<Arc<PackCache>>,
) -> OpenedPack {
    let (done, outcome) = watch::channel(None);
    let (pack, region) = (transfer.pack.clone(), transfer.region.clone());
    let keep = cache.map(|cache| Keep { cache, pack: pack.clone() });
    let task = tokio::spawn(transfer.run(first, done)).abort_handle();
    let fetch = FetchGuard::running(&region, task, outcome, keep);
    OpenedPack { pack, region, fetch }
}

/// Makes requests until the front part is here, tells so, and goes on until all that the first request was for is.
async fn bring(opening: Opening, begun: oneshot::Sender<Begun>) -> Result<(), StoreError> {
    let source = opening.source.clone();
    let (mut tries, mut restarts) = (Tries::default(), 0);
    let mut intake = Intake::new(opening, begun);
    loop {
        let before = match intake.stage {
            Stage::Front(ref front) => front.bytes.len(),
            Stage::Body(transfer, assembler) => return transfer.finish(assembler, tries).await,
            Stage::Cached => return Ok(()),
        };
        let (range, etag) = intake.ask();
        let result =
            source.attempt(range.clone(), etag.as_ref(), |info, piece| intake.piece(info, &piece)).await;
        let error = match (result, &mut intake.stage) {
            (_, Stage::Cached) | (Ok(_), Stage::Body(..)) => continue,
            // The front part is longer than what was asked for.
            (Ok(info), Stage::Front(front)) if is_whole(front, before, &range, &info) => continue,
            (Ok(_), Stage::Front(_)) => source.too_short(&range),
            (Err(error), Stage::Body(_, assembler)) => {
                tries.failed(true, assembler.wrong(), error, source.options.retry).await?;
                continue;
            }
            (Err(error), Stage::Front(_)) => error,
        };
        // Spoiled on the way, or replaced between two requests: once more from the start, at once.
        if matches!(error.kind(), StoreErrorKind::Corrupt | StoreErrorKind::Changed) && restarts == 0 {
            tracing::warn!(%error, "reading the pack once more from its start");
            restarts += 1;
            intake.restart();
            continue;
        }
        tries.failed(false, None, error, source.options.retry).await?;
    }
}

/// Whether a body that began when `front` had `before` bytes brought all that `range` means.
fn is_whole(front: &Front, before: usize, range: &Range<u64>, info: &ObjectInfo) -> bool {
    let have = front.bytes.len();
    have > before && have as u64 >= range.end.min(info.total_len)
}

/// What the first request's bytes have become so far.
struct Intake {
    opening: Opening,
    stage: Stage,
    /// Where the range that was asked for last ends.
    asked_to: u64,
    begun: Option<oneshot::Sender<Begun>>,
    started: Instant,
}

enum Stage {
    /// Not yet the whole front part.
    Front(Front),
    /// The front part has been handed out; the chunks behind it go into the region.
    Body(Arc<Transfer>, Assembler),
    /// The rest is on this machine already.
    Cached,
}

#[derive(Default)]
struct Front {
    bytes: Vec<u8>,
    etag: Option<ETag>,
    header: Option<Header>,
}

impl Intake {
    fn new(opening: Opening, begun: oneshot::Sender<Begun>) -> Intake {
        let (stage, begun) = (Stage::Front(Front::default()), Some(begun));
        Intake { opening, stage, asked_to: 0, begun, started: Instant::now() }
    }

    fn restart(&mut self) {
        self.stage = Stage::Front(Front::default());
    }

    /// What to ask for next, and of which state of the object.
    fn ask(&mut self) -> (Range<u64>, Option<ETag>) {
        let Stage::Front(front) = &self.stage else { return (0..0, None) };
        let have = front.bytes.len() as u64;
        let front_len = front.header.as_ref().map_or(0, |header| header.front_len);
        self.asked_to = (have + FIRST_READ.end).max(front_len).max(self.opening.source.options.first_bytes);
        (have..self.asked_to, front.etag.clone())
    }

    fn piece(&mut self, info: &ObjectInfo, piece: &[u8]) -> Result<(), StoreError> {
        match &mut self.stage {
            Stage::Front(front) => {
                front.bytes.extend_from_slice(piece);
                front.etag.get_or_insert_with(|| info.etag.clone());
                self.look(info)
            }
            Stage::Body(transfer, assembler) => transfer.push(assembler, piece),
            Stage::Cached => Err(enough()),
        }
    }

    /// Goes on to the next stage if what is here suffices.
    fn look(&mut self, info: &ObjectInfo) -> Result<(), StoreError> {
        let Stage::Front(front) = &mut self.stage else { return Ok(()) };
        let have = front.bytes.len() as u64;
        if front.header.is_none() {
            match Header::parse(&front.bytes) {
                Err(e) if e.kind() == ErrorKind::Truncated && have < info.total_len => return Ok(()),
                Err(e) => return Err(of_pack(&self.opening.source.key, &e)),
                Ok(header) => {
                    let cached = self.opening.admit(&header, info)?;
                    front.header = Some(header);
                    if let Some(pack) = cached {
                        self.tell(Begun::Cached(pack));
                        self.stage = Stage::Cached;
                        return Err(enough());
                    }
                }
            }
        }
        if front.header.as_ref().is_none_or(|header| have < header.front_len) {
            return Ok(());
        }
        let (bytes, etag) = (std::mem::take(&mut front.bytes), info.etag.clone());
        let transfer = self.opening.begin(&bytes, etag, self.asked_to, self.started);
        let (transfer, assembler) = transfer.map_err(|e| of_pack(&self.opening.source.key, &e))?;
        self.tell(Begun::Fetching(transfer.clone()));
        self.stage = Stage::Body(transfer, assembler);
        self.piece(info, &bytes)
    }

    fn tell(&mut self, begun: Begun) {
        if let Some(sender) = self.begun.take() {
            // Whoever opened the pack has given up then, and drops this very future.
            let _ = sender.send(begun);
        }
    }
}

/// Ends a read whose rest is of no use.
fn enough() -> StoreError {
    StoreError::new(StoreErrorKind::Cancelled, "the rest of the pack is here already")
}

impl Opening {
    /// Whether the pack is the one that was meant, and may be loaded; and from the cache, if it lies there.
    fn admit(&self, header: &Header, info: &ObjectInfo) -> Result<Option<OpenedPack>, StoreError> {
        check_digest(&self.model, header)?;
        if header.file_len != info.total_len {
            let (key, found, told) = (&self.source.key, info.total_len, header.file_len);
            let text = format!("object {key:?} has {found} bytes, its header tells {told}");
            return Err(StoreError::new(StoreErrorKind::Corrupt, text));
        }
        (self.admit)(header.memory_len)?;
        Ok(self.cache.as_ref().and_then(|cache| cache.open(&Digest(header.digest))))
    }

    /// The transfer of the pack with this front, and what takes the chunks of the request that goes on, which ends at
    /// `asked_to`.
    fn begin(
        &self,
        front: &[u8],
        etag: ETag,
        asked_to: u64,
        started: Instant,
    ) -> Result<(Arc<Transfer>, Assembler), PackError> {
        let pack = Arc::new(Pack::parse(front)?);
        let chunks = pack.chunks();
        let region = Arc::new(Region::pending(map::anonymous(pack.memory_len()?)?, chunks.to_vec())?);
        let first = Part::first(0..chunks.partition_point(|chunk| chunk.stored().end <= asked_to));
        let queue = Queue::new(pack.clone(), region.clone(), &self.source.options, &first);
        let assembler = Assembler::new(pack.clone(), region.clone(), first.chunks.clone());
        let source = self.source.clone();
        let verify_ns = AtomicU64::new(0);
        Ok((Arc::new(Transfer { source, etag, region, pack, queue, first, started, verify_ns }), assembler))
    }
}
