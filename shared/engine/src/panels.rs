//! Prepacked weights as tract's matrix kernels ask for them: panel by panel, straight from the region.

use glowplug_pack::Region;
use std::alloc::Layout;
use std::cell::Cell;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Instant;
use tract_core::internal::{ExoticFact, ToDim, TractResult, bail, ensure, f16};
use tract_linalg::mmm::{MMMInputFormat, MMMInputValue, PackedExoticFact};
use tract_linalg::pack::PackedFormat;

thread_local! {
    static WAITS: Cell<Waits> = const { Cell::new(Waits { deadline: None, helpers: false }) };
}

/// How this thread's run waits for bytes. Operators are called by tract, which has no place to pass it along;
/// a run begins and ends on one thread, and what helpers do for it needs no waiting.
#[derive(Clone, Copy)]
pub(crate) struct Waits {
    /// Until when; for ever where absent.
    pub(crate) deadline: Option<Instant>,
    /// Whether other threads take part in the run.
    pub(crate) helpers: bool,
}

/// Until when this thread's operators wait for bytes.
pub(crate) fn deadline() -> Option<Instant> {
    WAITS.get().deadline
}

/// Whether matrix kernels may be called on other threads than this one.
pub(crate) fn has_helpers() -> bool {
    WAITS.get().helpers
}

/// Puts back how this thread waited, also in a panic.
struct Before(Waits);

impl Drop for Before {
    fn drop(&mut self) {
        WAITS.set(self.0);
    }
}

/// Runs `f`, waiting for bytes as `waits` says.
pub(crate) fn with_waits<R>(waits: Waits, f: impl FnOnce() -> R) -> R {
    let _before = Before(WAITS.replace(waits));
    f()
}

/// One matrix of a pack, cut into panels. Cloning is cheap; nothing is copied.
#[derive(Clone)]
pub(crate) struct RegionPanels {
    region: Arc<Region>,
    /// Offset in the file of panel 0.
    start: u64,
    /// From one panel to the next.
    panel_bytes: u64,
    /// Bytes of a panel that a kernel may read.
    read_bytes: u64,
    align: usize,
    mn: usize,
    fact: PackedExoticFact,
}

impl RegionPanels {
    /// `ceil(mn / r)` panels of depth `k` from `start` on, `panel_bytes` apart.
    /// Errors: a layout that reads past its own panel.
    pub(crate) fn new(
        region: Arc<Region>,
        start: u64,
        panel_bytes: usize,
        format: &PackedFormat,
        k: usize,
        mn: usize,
    ) -> TractResult<RegionPanels> {
        let read_bytes = (k + format.end_padding_record) * format.r * format.dt.size_of();
        ensure!(read_bytes <= panel_bytes, "panels of {panel_bytes} bytes, {read_bytes} are read");
        let fact = PackedExoticFact { format: Box::new(format.clone()), mn: mn.to_dim(), k };
        let (panel_bytes, read_bytes) = (panel_bytes as u64, read_bytes as u64);
        Ok(RegionPanels { region, start, panel_bytes, read_bytes, align: format.alignment(), mn, fact })
    }
}

impl MMMInputValue for RegionPanels {
    fn format(&self) -> &dyn MMMInputFormat {
        &*self.fact.format
    }

    fn scratch_panel_buffer_layout(&self) -> Option<Layout> {
        None
    }

    /// The address of panel `i`, once its bytes are there. It stays valid as long as the region does, which
    /// `self` holds, because verified bytes never change.
    fn panel_bytes(&self, i: usize, _buffer: Option<*mut u8>) -> TractResult<*const u8> {
        ensure!(i < self.panels_count(), "panel {i} of {}", self.panels_count());
        let start = self.start + i as u64 * self.panel_bytes;
        let bytes = self.region.wait(start..start + self.read_bytes, deadline())?;
        let address = bytes.as_ptr();
        ensure!(
            address.addr().is_multiple_of(self.align),
            "panel {i} is not aligned to {} bytes",
            self.align
        );
        Ok(address)
    }

    fn mn(&self) -> usize {
        self.mn
    }

    fn k(&self) -> usize {
        self.fact.k
    }

    fn exotic_fact(&self) -> &dyn ExoticFact {
        &self.fact
    }

    fn extract_at_mn_f16(&self, _mn: usize, _slice: &mut [f16]) -> TractResult<()> {
        bail!("panels of a pack are read whole")
    }

    fn extract_at_mn_f32(&self, _mn: usize, _slice: &mut [f32]) -> TractResult<()> {
        bail!("panels of a pack are read whole")
    }
}

impl PartialEq for RegionPanels {
    fn eq(&self, other: &RegionPanels) -> bool {
        Arc::ptr_eq(&self.region, &other.region) && self.start == other.start && self.fact == other.fact
    }
}

impl Eq for RegionPanels {}

impl Hash for RegionPanels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.start.hash(state);
    }
}

impl fmt::Display for RegionPanels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {} of the pack", self.fact, self.start)
    }
}

impl fmt::Debug for RegionPanels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
