//! The link to the local S3: how fast it is, and what goes wrong on it.
//!
//! Speed is per response, which is per connection in HTTP/1, and for all of them together, as on a machine's own
//! link. Faults are armed one by one and fire once.

use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream};
use tokio::time::{Instant, sleep_until};

/// How the link behaves; the default is as fast as it goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shape {
    /// Bytes per second of one connection, for GETs; `None` is unlimited.
    pub bytes_per_second: Option<NonZeroU64>,
    /// Bytes per second of all connections together, for GETs; `None` is unlimited.
    pub link_bytes_per_second: Option<NonZeroU64>,
    /// Wait before a GET or HEAD is answered.
    pub first_byte: Duration,
}

/// One thing that goes wrong, once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The key it concerns; `None` is any.
    pub key: Option<String>,
    /// Which GET of such a key it hits, counted from 1 since it was armed.
    pub nth: u32,
    /// What happens.
    pub kind: FaultKind,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// This status, 400..=599, with S3's error document.
    Status(u16),
    /// The connection is closed after so many bytes of the body.
    ResetAfter(u64),
    /// No more comes after so many bytes of the body, and the connection stays open.
    StallAfter(u64),
    /// The byte at this offset of the object is inverted.
    WrongByte(u64),
}

/// The shape and the armed faults, each with the GETs it has still to let pass.
pub(crate) struct Link {
    shape: Mutex<Shape>,
    faults: Mutex<Vec<Fault>>,
    wire: Arc<Wire>,
}

/// What all connections share: pieces take turns on it.
#[derive(Default)]
pub(crate) struct Wire {
    /// When the last piece that has a turn is through.
    busy_until: Mutex<Option<Instant>>,
}

/// Time that the wire may make up for: timers wake late, and what they lose is no property of the link.
const MADE_UP: Duration = Duration::from_millis(5);

impl Wire {
    /// When a piece of `bytes` that is handed in now is through, at `rate` bytes per second.
    fn through(&self, bytes: usize, rate: NonZeroU64) -> Instant {
        let mut busy_until = self.busy_until.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let idle_since = now.checked_sub(MADE_UP).unwrap_or(now);
        let start = busy_until.map_or(now, |until| until.max(idle_since));
        let through = start + Duration::from_secs_f64(bytes as f64 / rate.get() as f64);
        *busy_until = Some(through);
        through
    }
}

impl Link {
    pub(crate) fn new(shape: Shape) -> Self {
        Self { shape: Mutex::new(shape), faults: Mutex::default(), wire: Arc::default() }
    }

    pub(crate) fn set_shape(&self, shape: Shape) {
        *self.shape.lock().unwrap_or_else(PoisonError::into_inner) = shape;
    }

    pub(crate) fn shape(&self) -> Shape {
        *self.shape.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wire(&self) -> Arc<Wire> {
        Arc::clone(&self.wire)
    }

    pub(crate) fn inject(&self, fault: Fault) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
    }

    /// Counts one GET of a key, and returns the first armed fault that it hits.
    pub(crate) fn next_fault(&self, key: &str) -> Option<FaultKind> {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        for fault in faults.iter_mut().filter(|fault| fault.key.as_deref().is_none_or(|wanted| wanted == key))
        {
            fault.nth = fault.nth.saturating_sub(1);
        }
        let hit = faults.iter().position(|fault| fault.nth == 0)?;
        Some(faults.remove(hit).kind)
    }
}

/// The broken connection of `FaultKind::ResetAfter`.
#[derive(Debug, thiserror::Error)]
#[error("connection reset by an injected fault after {0} bytes")]
pub(crate) struct InjectedReset(u64);

/// What is left to send.
struct Rest {
    bytes: Bytes,
    sent: u64,
    reset_after: Option<u64>,
    stall_after: Option<u64>,
    shape: Shape,
    wire: Arc<Wire>,
    started: Instant,
}

/// The bytes of `object` in `range`, paced and spoiled.
pub(crate) fn body(
    object: &Bytes,
    range: Range<usize>,
    shape: Shape,
    wire: Arc<Wire>,
    fault: Option<FaultKind>,
) -> impl Stream<Item = Result<Bytes, InjectedReset>> + Send + Sync + 'static {
    let mut bytes = object.slice(range.clone());
    let (mut reset_after, mut stall_after) = (None, None);
    match fault {
        Some(FaultKind::WrongByte(offset)) => bytes = with_wrong_byte(bytes, range.start, offset),
        Some(FaultKind::ResetAfter(count)) => reset_after = Some(count),
        Some(FaultKind::StallAfter(count)) => stall_after = Some(count),
        Some(FaultKind::Status(_)) | None => {}
    }
    let rest = Rest { bytes, sent: 0, reset_after, stall_after, shape, wire, started: Instant::now() };
    stream::unfold(rest, |mut rest| async move { rest.next().await.map(|item| (item, rest)) })
}

impl Rest {
    async fn next(&mut self) -> Option<Result<Bytes, InjectedReset>> {
        if let Some(count) = self.reset_after.filter(|count| self.sent >= *count) {
            self.bytes.clear();
            self.reset_after = None;
            return Some(Err(InjectedReset(count)));
        }
        if self.bytes.is_empty() {
            return None;
        }
        if self.stall_after.is_some_and(|count| self.sent >= count) {
            std::future::pending::<()>().await;
        }
        let piece = self.bytes.split_to(self.piece());
        self.sent += piece.len() as u64;
        if let Some(rate) = self.shape.bytes_per_second {
            sleep_until(self.started + Duration::from_secs_f64(self.sent as f64 / rate.get() as f64)).await;
        }
        if let Some(rate) = self.shape.link_bytes_per_second {
            sleep_until(self.wire.through(piece.len(), rate)).await;
        }
        Some(Ok(piece))
    }

    /// The size of the next piece: about 5 ms worth of it on a slow link, so that the pace is even.
    fn piece(&self) -> usize {
        let rates = [self.shape.bytes_per_second, self.shape.link_bytes_per_second];
        let slowest = rates.into_iter().flatten().min();
        let at_most = slowest.map_or(256 * 1024, |rate| (rate.get() / 200).clamp(1024, 256 * 1024));
        let ends = [self.reset_after, self.stall_after].into_iter().flatten().map(|count| count - self.sent);
        usize::try_from(at_most.min(ends.min().unwrap_or(u64::MAX)))
            .unwrap_or(usize::MAX)
            .min(self.bytes.len())
    }
}

fn with_wrong_byte(bytes: Bytes, start: usize, offset: u64) -> Bytes {
    let position = usize::try_from(offset).ok().and_then(|offset| offset.checked_sub(start));
    let Some(position) = position.filter(|position| *position < bytes.len()) else { return bytes };
    let mut spoiled = BytesMut::from(bytes);
    spoiled[position] ^= 0xff;
    spoiled.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::StreamExt;

    async fn collect(range: Range<usize>, shape: Shape, fault: Option<FaultKind>) -> (Vec<u8>, bool) {
        let object = Bytes::from_static(b"0123456789");
        let (mut all, mut reset) = (Vec::new(), false);
        let mut stream = Box::pin(body(&object, range, shape, Arc::default(), fault));
        while let Some(item) = stream.next().await {
            item.map_or_else(|_| reset = true, |bytes| all.extend_from_slice(&bytes));
        }
        (all, reset)
    }

    #[tokio::test]
    async fn faults_spoil_what_they_name() {
        let fast = Shape::default();
        let wrong = |at| Some(FaultKind::WrongByte(at));
        for (range, fault, wanted, reset) in [
            (0..10, None, &b"0123456789"[..], false),
            (2..4, wrong(3), b"2\xcc", false),
            (2..4, wrong(1), b"23", false),
            (2..4, wrong(4), b"23", false),
            (0..10, Some(FaultKind::ResetAfter(4)), b"0123", true),
            (0..10, Some(FaultKind::ResetAfter(0)), b"", true),
            (0..3, Some(FaultKind::ResetAfter(7)), b"012", false),
        ] {
            assert_eq!(
                collect(range.clone(), fast, fault).await,
                (wanted.to_vec(), reset),
                "{range:?} {fault:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_slow_link_takes_its_time() {
        let object = Bytes::from(vec![7; 100_000]);
        let rate = NonZeroU64::new(500_000);
        let connection = Shape { bytes_per_second: rate, ..Shape::default() };
        let link = Shape { link_bytes_per_second: rate, ..Shape::default() };
        // Two bodies at once: side by side on a slow connection each, one after the other on a slow link.
        for (shape, least_ms) in [(connection, 199), (link, 390)] {
            let (wire, started) = (Arc::new(Wire::default()), Instant::now());
            let read = async || {
                let pieces = body(&object, 0..100_000, shape, wire.clone(), None).map(|b| b.unwrap().len());
                pieces.fold(0, async |a, b| a + b).await
            };
            assert_eq!(tokio::join!(read(), read()), (100_000, 100_000));
            let took = started.elapsed();
            let wanted = Duration::from_millis(least_ms)..Duration::from_secs(3);
            assert!(wanted.contains(&took), "{shape:?} took {took:?}");
        }
    }

    #[tokio::test]
    async fn a_stalled_body_brings_no_more_and_does_not_end() {
        let object = Bytes::from_static(b"0123456789");
        let fault = Some(FaultKind::StallAfter(4));
        let mut stream = Box::pin(body(&object, 0..10, Shape::default(), Arc::default(), fault));
        assert_eq!(stream.next().await.unwrap().unwrap(), "0123");
        let more = tokio::time::timeout(Duration::from_millis(50), stream.next()).await;
        assert!(more.is_err(), "{more:?}");
    }

    #[test]
    fn a_fault_counts_its_own_gets_and_fires_once() {
        let link = Link::new(Shape::default());
        link.inject(Fault { key: Some("a".into()), nth: 2, kind: FaultKind::Status(503) });
        link.inject(Fault { key: None, nth: 4, kind: FaultKind::Status(500) });
        let hits = ["a", "b", "a", "a", "a"].map(|key| link.next_fault(key));
        let status = |code| Some(FaultKind::Status(code));
        assert_eq!(hits, [None, None, status(503), status(500), None]);
    }
}
