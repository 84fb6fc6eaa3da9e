//! Im2col: the patches of a convolution as the right side of a matrix product, made one panel at a time
//! while the product runs.

use super::plan_op;
use super::window::{Axis, axes};
use glowplug_pack::plan::Window;
use std::alloc::Layout;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::mem::MaybeUninit;
use std::sync::Arc;
use tract_core::internal::{
    EvalContext, EvalOp, ExoticFact, IntoArcTensor, IntoTValue, TDim, TValue, TVec, Tensor, TensorView,
    ToDim, TractResult, args_1, bail, ensure, f16, not_out_of_plan, tvec,
};
use tract_linalg::WeightType;
use tract_linalg::mmm::{EagerPackedInput, MMMInputFormat, MMMInputValue, PackedMatrixStorage};
use tract_linalg::pack::PackedFormat;

/// Patches of `x[N, C, H, W]`. Padding is zeros that are never stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Im2col {
    patches: Arc<Patches>,
    images: usize,
    group: usize,
}
plan_op!(Im2col);

/// The geometry that all matrices of one node share.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Patches {
    format: PackedFormat,
    vertical: Axis,
    horizontal: Axis,
    /// Channels of one group.
    channels: usize,
}

impl Im2col {
    /// Patches of `shape` = `[N, C, H, W]` under `window`, in `group` groups of channels.
    pub(crate) fn new(format: PackedFormat, window: &Window, group: usize, shape: [usize; 4]) -> Im2col {
        let [images, channels, height, width] = shape;
        let (vertical, horizontal) = axes(window, height, width);
        let patches = Patches { format, vertical, horizontal, channels: channels / group };
        Im2col { patches: Arc::new(patches), images, group }
    }
}

impl EvalOp for Im2col {
    not_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let input = args_1!(inputs).into_arc_tensor();
        let matrix = |i: usize| -> Box<dyn MMMInputValue> {
            let channel = i * self.patches.channels;
            Box::new(PatchMatrix { input: input.clone(), patches: self.patches.clone(), channel })
        };
        let values = (0..self.images * self.group).map(matrix).collect();
        let storage = PackedMatrixStorage::new_batched(&[self.images, self.group], values);
        Ok(tvec!(storage.into_tensor(input.datum_type()).into_tvalue()))
    }
}

impl Patches {
    fn k(&self) -> usize {
        self.channels * self.vertical.kernel * self.horizontal.kernel
    }

    fn mn(&self) -> usize {
        self.vertical.output * self.horizontal.output
    }

    /// Panel `i` of the patches of `planes` (`channels` of them): `panel[k, j]` is tap k of column j.
    fn fill(&self, i: usize, planes: &[f32], panel: &mut [MaybeUninit<f32>]) {
        let r = self.format.r;
        let columns = i * r..self.mn().min((i + 1) * r);
        let width = self.horizontal.output;
        let mut column = columns.start;
        while column < columns.end {
            let (oy, ox) = (column / width, column % width);
            let len = (width - ox).min(columns.end - column);
            self.fill_run(planes, (oy, ox), len, column - columns.start, panel);
            column += len;
        }
        if columns.len() < r {
            panel.chunks_exact_mut(r).for_each(|record| zero(&mut record[columns.len()..]));
        }
    }

    /// `len` neighbouring outputs from `(oy, ox)` on, into the panel's columns from `at` on.
    fn fill_run(
        &self,
        planes: &[f32],
        (oy, ox): (usize, usize),
        len: usize,
        at: usize,
        panel: &mut [MaybeUninit<f32>],
    ) {
        let (v, h) = (&self.vertical, &self.horizontal);
        let clips: TVec<Clip> = (0..h.kernel).map(|kx| Clip::of(h, ox, kx, len)).collect();
        let mut records = panel.chunks_exact_mut(self.format.r).map(|record| &mut record[at..at + len]);
        for plane in planes.chunks_exact(v.input * h.input) {
            for ky in 0..v.kernel {
                let row = v.at(oy, ky).map(|y| &plane[y * h.input..][..h.input]);
                for (clip, record) in clips.iter().zip(&mut records) {
                    match row {
                        Some(row) => clip.copy(row, h.stride, record),
                        None => zero(record),
                    }
                }
            }
        }
    }
}

/// Which outputs of a run see one horizontal tap inside of the input, and where the first of them sees it.
struct Clip {
    first: usize,
    end: usize,
    x: usize,
}

impl Clip {
    fn of(h: &Axis, ox: usize, kx: usize, len: usize) -> Clip {
        let at = h.origin(ox) + (kx * h.dilation).cast_signed();
        let first = (-at).max(0).cast_unsigned().div_ceil(h.stride).min(len);
        let end = (h.input.cast_signed() - at).max(0).cast_unsigned().div_ceil(h.stride).min(len).max(first);
        let x = (at + (first * h.stride).cast_signed()).max(0).cast_unsigned();
        Clip { first, end, x }
    }

    fn copy(&self, row: &[f32], stride: usize, record: &mut [MaybeUninit<f32>]) {
        zero(&mut record[..self.first]);
        zero(&mut record[self.end..]);
        if self.first < self.end {
            let inside = &mut record[self.first..self.end];
            let values = row[self.x..].iter().step_by(stride);
            inside.iter_mut().zip(values).for_each(|(out, v)| _ = out.write(*v));
        }
    }
}

fn zero(values: &mut [MaybeUninit<f32>]) {
    values.iter_mut().for_each(|v| _ = v.write(0.0));
}

/// One matrix: the patches of one group of one image.
#[derive(Clone, PartialEq, Eq)]
struct PatchMatrix {
    input: Arc<Tensor>,
    patches: Arc<Patches>,
    /// The group's first channel, counted over all images.
    channel: usize,
}

impl PatchMatrix {
    fn planes(&self) -> TractResult<&[f32]> {
        let plane = self.patches.vertical.input * self.patches.horizontal.input;
        let (start, len) = (self.channel * plane, self.patches.channels * plane);
        let values = self.input.try_as_plain_ram()?;
        ensure!(values.len() >= start + len, "{} values, expected {}", values.len(), start + len);
        Ok(&values.as_slice::<f32>()?[start..start + len])
    }
}

impl MMMInputValue for PatchMatrix {
    /// Not a `PackedFormat`: so the product walks the left side inside and makes each panel once.
    fn format(&self) -> &dyn MMMInputFormat {
        &*self.patches
    }

    fn scratch_panel_buffer_layout(&self) -> Option<Layout> {
        Some(self.patches.format.single_panel_layout(self.k(), size_of::<f32>()))
    }

    #[allow(unsafe_code, reason = "the scratch panel comes as a raw pointer")]
    fn panel_bytes(&self, i: usize, buffer: Option<*mut u8>) -> TractResult<*const u8> {
        let Some(buffer) = buffer else { bail!("no scratch panel") };
        let len = self.k() * self.patches.format.r;
        // SAFETY: tract passes the scratch it allocated for `scratch_panel_buffer_layout`, which is aligned to
        // at least 4 bytes and holds `k + end_padding` records of r floats; nothing else refers to it while
        // the panel is made; `MaybeUninit` needs no initialised bytes.
        let panel = unsafe { std::slice::from_raw_parts_mut(buffer.cast::<MaybeUninit<f32>>(), len) };
        self.patches.fill(i, self.planes()?, panel);
        Ok(buffer)
    }

    fn k(&self) -> usize {
        self.patches.k()
    }

    fn mn(&self) -> usize {
        self.patches.mn()
    }

    fn exotic_fact(&self) -> &dyn ExoticFact {
        &*self.patches
    }

    fn extract_at_mn_f16(&self, _mn: usize, _slice: &mut [f16]) -> TractResult<()> {
        bail!("patches are made panel by panel")
    }

    fn extract_at_mn_f32(&self, _mn: usize, _slice: &mut [f32]) -> TractResult<()> {
        bail!("patches are made panel by panel")
    }
}

impl MMMInputFormat for Patches {
    fn prepare_tensor(&self, _t: &Tensor, _k_axis: usize, _mn_axis: usize) -> TractResult<Tensor> {
        bail!("patches are made panel by panel")
    }

    fn prepare_one_view(
        &self,
        _t: &TensorView,
        _k: usize,
        _mn: usize,
    ) -> TractResult<Box<dyn MMMInputValue>> {
        bail!("patches are made panel by panel")
    }

    fn precursor(&self) -> WeightType {
        self.format.precursor()
    }

    fn r(&self) -> usize {
        self.format.r
    }

    fn k_alignment(&self) -> usize {
        1
    }

    fn mem_size(&self, k: TDim, mn: TDim) -> TDim {
        self.format.mem_size(k, mn)
    }

    fn extract_at_mn_f16(&self, _data: &EagerPackedInput, _mn: usize, _slice: &mut [f16]) -> TractResult<()> {
        bail!("patches are made panel by panel")
    }

    fn extract_at_mn_f32(&self, _data: &EagerPackedInput, _mn: usize, _slice: &mut [f32]) -> TractResult<()> {
        bail!("patches are made panel by panel")
    }
}

impl ExoticFact for Patches {
    fn buffer_sizes(&self) -> TVec<TDim> {
        tvec!(MMMInputFormat::mem_size(self, self.k().to_dim(), self.mn().to_dim()))
    }
}

impl fmt::Display for Patches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "patches in {}", self.format)
    }
}

impl Hash for PatchMatrix {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.patches, self.channel).hash(state);
    }
}

impl fmt::Display for PatchMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from channel {}", self.patches, self.channel)
    }
}

impl fmt::Debug for PatchMatrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
