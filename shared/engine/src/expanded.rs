//! Panels of f32 for the kernels, wherever they come from: from the pack as they lie there, or out of encoded ones, which
//! are expanded when they are first read and kept.
//!
//! A weight has one memory for all plans of its pack, all their clones and all threads. It is taken when the first panel
//! is read and filled by groups of panels, so that the first ones are used while the bytes of later ones arrive.

use crate::kernels::expand;
use crate::laid_out::LaidOutWeights;
use crate::panels::{deadline, has_helpers};
use crate::share::for_each;
use crate::values::floats;
use glowplug_pack::{EncodedPanel, Form, Pack, Region, WeightId};
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::collections::HashMap;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, Once, OnceLock, PoisonError};
use tract_core::internal::{TractErrorContext as _, TractResult, bail, ensure};

/// Panels that are expanded together. A product waits for as many at once, while others arrive.
pub(crate) const PANELS_AT_ONCE: usize = 8;

/// What the address of expanded values is a multiple of: a line of the cache.
const ALIGN: usize = 64;

/// The weights of a pack that were asked for so far.
#[derive(Default)]
pub(crate) struct ExpandedWeights {
    expanded: Mutex<HashMap<WeightId, Arc<Expanded>>>,
    /// Those that are read as bytes, in the order of their kernels.
    pub(crate) bytes: LaidOutWeights,
}

impl ExpandedWeights {
    /// The panels of weight `id`. Errors: a plain weight. Takes no memory for values.
    pub(crate) fn panels(&self, pack: &Pack, region: &Arc<Region>, id: WeightId) -> TractResult<FloatPanels> {
        let range = pack.weight_range(id)?;
        match &pack.weight(id)?.form {
            Form::Panels { panel_bytes, .. } => {
                let panel_bytes = *panel_bytes;
                Ok(FloatPanels(Source::Stored { region: region.clone(), range, panel_bytes }))
            }
            Form::EncodedPanels { panel, panel_bytes, .. } => {
                // A panic of whoever held the lock cannot leave the table half-changed.
                let mut known = self.expanded.lock().unwrap_or_else(PoisonError::into_inner);
                let expanded = match known.get(&id) {
                    Some(expanded) => expanded.clone(),
                    None => {
                        let to = match pack.weight(id)?.form.expanded()? {
                            Form::Panels { panel_bytes, .. } => panel_bytes,
                            other => bail!("{other:?}"),
                        };
                        let made = Expanded::new(region.clone(), range, (*panel, *panel_bytes), to)?;
                        known.entry(id).or_insert(Arc::new(made)).clone()
                    }
                };
                Ok(FloatPanels(Source::Expanded(expanded)))
            }
            form => bail!("a weight of {form:?} where panels are wanted"),
        }
    }
}

/// The panels of a matrix as f32. Clones are cheap and share everything.
#[derive(Clone)]
pub(crate) struct FloatPanels(Source);

#[derive(Clone)]
enum Source {
    /// As they lie in the pack.
    Stored {
        region: Arc<Region>,
        /// Their bytes in the file.
        range: Range<u64>,
        panel_bytes: usize,
    },
    Expanded(Arc<Expanded>),
}

/// A matrix in panels of 16 columns: a product's, or the filters of a convolution.
#[derive(Clone)]
pub(crate) struct Matrix {
    pub(crate) panels: FloatPanels,
    /// Rows, all that one column is summed over: `C * kh * kw` of filters.
    pub(crate) depth: usize,
    /// Output channels.
    pub(crate) columns: usize,
}

impl FloatPanels {
    /// Panels of a pack, as they lie there.
    #[cfg(test)]
    pub(crate) fn stored(region: Arc<Region>, range: Range<u64>, panel_bytes: usize) -> FloatPanels {
        FloatPanels(Source::Stored { region, range, panel_bytes })
    }

    /// Values from one panel to the next.
    pub(crate) fn stride(&self) -> usize {
        match &self.0 {
            Source::Stored { panel_bytes, .. } => panel_bytes / size_of::<f32>(),
            Source::Expanded(expanded) => expanded.stride,
        }
    }

    /// Where they begin in the file.
    pub(crate) fn start(&self) -> u64 {
        match &self.0 {
            Source::Stored { range, .. } => range.start,
            Source::Expanded(expanded) => expanded.range.start,
        }
    }

    /// The values of `panels`, once their bytes are there. Errors: bytes that do not come until this run's deadline.
    pub(crate) fn get(&self, panels: Range<usize>) -> TractResult<&[f32]> {
        match &self.0 {
            Source::Stored { region, range, panel_bytes } => {
                let at = |panel: usize| range.start + panel as u64 * *panel_bytes as u64;
                let bytes = at(panels.start)..at(panels.end);
                ensure!(bytes.end <= range.end, "panels {panels:?} end behind the weight");
                floats(region.wait(bytes, deadline())?)
            }
            Source::Expanded(expanded) => expanded.get(panels),
        }
    }
}

impl PartialEq for FloatPanels {
    fn eq(&self, other: &FloatPanels) -> bool {
        match (&self.0, &other.0) {
            (Source::Stored { region, range, .. }, Source::Stored { region: r, range: other, .. }) => {
                Arc::ptr_eq(region, r) && range == other
            }
            (Source::Expanded(a), Source::Expanded(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

/// An encoded weight and what it becomes.
pub(crate) struct Expanded {
    region: Arc<Region>,
    /// The encoded bytes in the file.
    range: Range<u64>,
    layout: EncodedPanel,
    /// From one encoded panel to the next.
    panel_bytes: usize,
    panels: usize,
    /// From one expanded panel to the next; at least `k * r`.
    stride: usize,
    /// Of the values of all panels.
    size: Layout,
    /// Taken when the first panel is asked for: a plan that is only built costs nothing.
    memory: OnceLock<Memory>,
    /// Whether each [`PANELS_AT_ONCE`] panels are in the memory.
    groups: Vec<Once>,
}

impl Expanded {
    /// Panels of `layout`, `panel_bytes` apart, expanded to `to_bytes` each. Errors: sizes that contradict each other.
    fn new(
        region: Arc<Region>,
        range: Range<u64>,
        (layout, panel_bytes): (EncodedPanel, usize),
        to_bytes: usize,
    ) -> TractResult<Expanded> {
        let panels = usize::try_from(range.end - range.start)? / panel_bytes.max(1);
        let stride = to_bytes / size_of::<f32>();
        ensure!(
            layout.byte_len().is_some_and(|len| len <= panel_bytes) && layout.k * layout.r <= stride,
            "panels of {panel_bytes} bytes for {layout:?}, {to_bytes} expanded"
        );
        let values = panels.checked_mul(stride).filter(|n| *n > 0).context("no values, or too many")?;
        let size = Layout::array::<f32>(values)?.align_to(ALIGN)?;
        let groups = (0..panels.div_ceil(PANELS_AT_ONCE)).map(|_| Once::new()).collect();
        Ok(Expanded {
            region,
            range,
            layout,
            panel_bytes,
            panels,
            stride,
            size,
            memory: OnceLock::new(),
            groups,
        })
    }

    /// The values of `panels`. Errors: no such panels; bytes that do not come until this run's deadline.
    #[allow(unsafe_code, reason = "readers of panels that are there share the memory with who writes others")]
    fn get(&self, panels: Range<usize>) -> TractResult<&[f32]> {
        ensure!(
            panels.start <= panels.end && panels.end <= self.panels,
            "{panels:?} of {} panels",
            self.panels
        );
        let groups = panels.start / PANELS_AT_ONCE..panels.end.div_ceil(PANELS_AT_ONCE);
        let memory = self.memory.get_or_init(|| Memory::new(self.size));
        if !self.groups[groups.clone()].iter().all(Once::is_completed) {
            self.fill(memory, &groups)?;
        }
        let (start, len) = (panels.start * self.stride, panels.len() * self.stride);
        // SAFETY: the panels lie inside of the memory, whose length is that of all panels. Their groups are complete:
        // whoever filled them wrote all of their values before, which `Once` made visible to this thread, and nobody
        // writes to a group again. Others may be written meanwhile, to which this slice does not reach.
        Ok(unsafe { std::slice::from_raw_parts(memory.values.as_ptr().add(start), len) })
    }

    /// Fills those of `groups` that are missing, as their bytes arrive.
    fn fill(&self, memory: &Memory, groups: &Range<usize>) -> TractResult<()> {
        // All are told before one is waited for. Other threads know no deadline: they begin when all bytes are there.
        let all = self.bytes(groups.start).start..self.bytes(groups.end - 1).end;
        self.region.want(&all);
        if has_helpers() {
            let bytes = self.region.wait(all, deadline())?;
            let of_groups = bytes.chunks(PANELS_AT_ONCE * self.panel_bytes).collect::<Vec<_>>();
            for_each(groups.len(), |i| self.fill_group(memory, groups.start + i, of_groups[i]));
            return Ok(());
        }
        for group in groups.clone() {
            self.fill_group(memory, group, self.region.wait(self.bytes(group), deadline())?);
        }
        Ok(())
    }

    fn group(&self, group: usize) -> Range<usize> {
        group * PANELS_AT_ONCE..((group + 1) * PANELS_AT_ONCE).min(self.panels)
    }

    /// A group's encoded bytes in the file.
    fn bytes(&self, group: usize) -> Range<u64> {
        let at = |panel: usize| self.range.start + panel as u64 * self.panel_bytes as u64;
        let panels = self.group(group);
        at(panels.start)..at(panels.end)
    }

    /// Writes a group's values out of its encoded bytes, if nobody did yet; whoever comes meanwhile waits.
    #[allow(unsafe_code, reason = "the one writer of memory that readers of other groups share")]
    fn fill_group(&self, memory: &Memory, group: usize, bytes: &[u8]) {
        self.groups[group].call_once_force(|_| {
            for (panel, encoded) in self.group(group).zip(bytes.chunks(self.panel_bytes)) {
                // SAFETY: the panel lies inside of the memory, whose length is that of all panels, and is in no other
                // group. `Once` lets one thread in at a time, and `get` hands out no reference to a group before
                // that thread is done. What was never written is no f32: so the panel is zeroed through the pointer
                // before there is a reference to it.
                let values = unsafe {
                    let start = memory.values.as_ptr().add(panel * self.stride);
                    start.write_bytes(0, self.stride);
                    std::slice::from_raw_parts_mut(start, self.stride)
                };
                expand::panel(&self.layout, encoded, &mut values[..self.layout.k * self.layout.r]);
            }
        });
    }
}

/// Uninitialised memory for values, in lines of the cache.
struct Memory {
    values: NonNull<f32>,
    layout: Layout,
}

impl Memory {
    /// Aborts where there is no memory, as collections do.
    #[allow(unsafe_code, reason = "memory that threads fill piece by piece cannot be a Vec")]
    fn new(layout: Layout) -> Memory {
        // SAFETY: `Expanded::new`, which made the layout, refuses one without a value.
        let block = unsafe { alloc(layout) };
        let Some(values) = NonNull::new(block.cast()) else { handle_alloc_error(layout) };
        Memory { values, layout }
    }
}

#[allow(unsafe_code, reason = "frees what `new` allocated")]
impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, freed only here.
        unsafe { dealloc(self.values.as_ptr().cast(), self.layout) };
    }
}

// SAFETY: owned heap memory without thread affinity.
#[allow(unsafe_code, reason = "as the SAFETY comment says")]
unsafe impl Send for Memory {}
// SAFETY: `&Memory` offers nothing but a pointer; `Expanded` tells who may read and write through it when.
#[allow(unsafe_code, reason = "as the SAFETY comment says")]
unsafe impl Sync for Memory {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::panels::{Waits, with_waits};
    use glowplug_pack::header::{CHUNK_BYTES, Chunk};
    use glowplug_pack::manifest::ModelInfo;
    use glowplug_pack::{
        Buffer, Dtype, Encoding, ErrorKind, Manifest, PackBuilder, PackError, Place, SectionKind,
    };
    use std::time::{Duration, Instant};

    const PANELS: usize = 21;

    /// Encoded panels of depth 5, and what they become.
    fn sample(encoding: Encoding) -> (EncodedPanel, usize, Vec<u8>, Vec<f32>) {
        let layout = EncodedPanel { encoding, k: 5, r: 16 };
        let panel_bytes = layout.byte_len().unwrap().next_multiple_of(64);
        let stride = 128;
        let (mut bytes, mut values) = (Vec::new(), Vec::new());
        for panel in 0..PANELS {
            let mut rounded = vec![0.0; 80];
            for i in 0..16 {
                let channel: Vec<f32> =
                    (0..5).map(|d| ((panel * 37 + d * 11 + i * 3) % 23) as f32 - 11.3).collect();
                for (d, value) in encoding.round(&channel).unwrap().into_iter().enumerate() {
                    rounded[d * 16 + i] = value;
                }
            }
            bytes.extend(layout.encode(&rounded).unwrap());
            bytes.resize((panel + 1) * panel_bytes, 0xee);
            rounded.resize(stride, 0.0);
            values.extend(rounded);
        }
        (layout, panel_bytes, bytes, values)
    }

    fn expanded(region: Arc<Region>, len: usize, layout: EncodedPanel, panel_bytes: usize) -> Expanded {
        Expanded::new(region, 0..len as u64, (layout, panel_bytes), 512).unwrap()
    }

    #[test]
    fn any_panels_are_what_they_were_encoded_from() {
        for encoding in [Encoding::F16, Encoding::Int8] {
            let (layout, panel_bytes, bytes, values) = sample(encoding);
            let region = Arc::new(Region::complete(Buffer::copy_of(&bytes).unwrap()));
            for panels in [20..21, 3..4, 0..8, 7..9, 0..21, 5..5] {
                let expanded = expanded(region.clone(), bytes.len(), layout, panel_bytes);
                let wanted = &values[panels.start * 128..panels.end * 128];
                assert!(expanded.get(panels.clone()).unwrap() == wanted, "{encoding} {panels:?}");
                // Once more, from memory; then all, some of which are there.
                assert!(expanded.get(panels.clone()).unwrap() == wanted);
                assert!(expanded.get(0..21).unwrap() == values);
            }
            let all = expanded(region, bytes.len(), layout, panel_bytes);
            assert!(all.get(0..22).is_err() && all.get(22..22).is_err());
            assert!(all.memory.get().is_none_or(|m| m.values.addr().get().is_multiple_of(64)));
        }
    }

    #[test]
    fn threads_that_ask_at_once_get_the_same_memory() {
        let (layout, panel_bytes, bytes, values) = sample(Encoding::Int8);
        let region = Arc::new(Region::complete(Buffer::copy_of(&bytes).unwrap()));
        for _ in 0..50 {
            let expanded = expanded(region.clone(), bytes.len(), layout, panel_bytes);
            let barrier = std::sync::Barrier::new(6);
            let places: Vec<_> = std::thread::scope(|scope| {
                let ask = |first: usize| {
                    let (expanded, barrier, values) = (&expanded, &barrier, &values);
                    scope.spawn(move || {
                        barrier.wait();
                        for start in (first..PANELS).step_by(3) {
                            let end = (start + 5).min(PANELS);
                            assert!(expanded.get(start..end).unwrap() == &values[start * 128..end * 128]);
                        }
                        expanded.get(0..PANELS).unwrap().as_ptr().addr()
                    })
                };
                let threads: Vec<_> = (0..6).map(ask).collect();
                threads.into_iter().map(|t| t.join().unwrap()).collect()
            });
            assert!(places.iter().all(|place| *place == places[0]));
        }
    }

    /// The first panels are there while later ones are on their way, and a deadline ends the wait for those.
    #[test]
    fn panels_are_waited_for_group_by_group() {
        let (layout, panel_bytes, bytes, values) = sample(Encoding::F16);
        // A pack in which the first group ends with a chunk.
        let first = 8 * panel_bytes;
        let (mut builder, front) = (PackBuilder::new(), vec![0; CHUNK_BYTES - first]);
        let plain = Form::Plain { dtype: Dtype::U8, shape: vec![front.len()] };
        builder.weight("front", Place::Blobs, plain, &front).unwrap();
        let form = Form::encoded_panels(layout, PANELS * 16).unwrap();
        let id = builder.weight("w", Place::Blobs, form, &bytes).unwrap();
        let model = ModelInfo { name: "m".into(), licence: None };
        let file = builder.finish(Manifest { model, ..Manifest::default() }).unwrap();
        let pack = Pack::parse(&file).unwrap();
        let region =
            Arc::new(Region::pending(Buffer::zeroed(file.len()).unwrap(), pack.chunks().to_vec()).unwrap());
        let blobs = pack.header().section(SectionKind::Blobs).unwrap().chunks.clone();
        let deliver = |index: usize| {
            let Chunk { offset, len, .. } = pack.chunks()[index];
            region.deliver(index, &file[usize::try_from(offset).unwrap()..][..len]).unwrap();
        };
        let table = ExpandedWeights::default();
        let expanded = table.panels(&pack, &region, id).unwrap();
        // Whoever asks for the weight next shares what it becomes.
        assert!(table.panels(&pack, &region, id).unwrap() == expanded);
        let until = |ms| Waits { deadline: Some(Instant::now() + Duration::from_millis(ms)), helpers: false };
        let kind = |e: &tract_core::internal::TractError| e.downcast_ref::<PackError>().map(PackError::kind);
        let e = with_waits(until(1), || expanded.get(0..1).map(<[f32]>::to_vec)).unwrap_err();
        assert_eq!(kind(&e), Some(ErrorKind::Timeout));
        deliver(blobs.start);
        assert!(expanded.get(0..8).unwrap() == &values[..8 * 128]);
        let e = with_waits(until(1), || expanded.get(0..9).map(<[f32]>::to_vec)).unwrap_err();
        assert_eq!(kind(&e), Some(ErrorKind::Timeout));
        assert!(region.is_wanted(blobs.end - 1));
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| expanded.get(0..PANELS).unwrap() == values);
            std::thread::sleep(Duration::from_millis(5));
            deliver(blobs.end - 1);
            assert!(waiter.join().unwrap());
        });
    }

    #[test]
    fn threads_of_one_run_share_the_work() {
        let (layout, panel_bytes, bytes, values) = sample(Encoding::Int8);
        let region = Arc::new(Region::complete(Buffer::copy_of(&bytes).unwrap()));
        let team = crate::team::Team::new(3);
        for _ in 0..20 {
            let expanded = expanded(region.clone(), bytes.len(), layout, panel_bytes);
            let work = || expanded.get(0..PANELS).unwrap() == values;
            assert!(crate::team::run(Some(&team), None, work));
        }
    }

    #[test]
    fn sizes_that_contradict_each_other_are_refused() {
        let region = Arc::new(Region::complete(Buffer::zeroed(1024).unwrap()));
        let layout = EncodedPanel { encoding: Encoding::Int8, k: 5, r: 16 };
        for (panel_bytes, to_bytes) in [(128, 512), (192, 256), (2048, 512)] {
            assert!(Expanded::new(region.clone(), 0..1024, (layout, panel_bytes), to_bytes).is_err());
        }
    }
}
