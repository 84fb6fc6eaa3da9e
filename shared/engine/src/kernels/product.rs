//! Rows times a matrix in panels: `out[r, c] = activation(bias[c] + sum over d of x[r, d] * w[d, c] + residual[r, c])`.
//!
//! The rows are read where they are: a product of activations packs nothing. The panels are those of tract's
//! kernels of height 16, so that one stored weight serves both. Tiles of six rows and 16 columns keep twelve
//! sums in registers; depth is cut so that a piece of a panel stays in the first cache while all rows pass by,
//! rows are cut so that they stay in the second, and the panel that comes next is fetched meanwhile: at 16 rows the
//! weights' way from memory takes as long as the arithmetic.

use super::activation::{Activation, activate};
use super::has_avx2;
use crate::share::Output;
use glowplug_pack::plan::FILTER_PANEL;
use tract_core::internal::{TractResult, ensure};
use tract_linalg::multithread::par_chunks_mut;

/// Columns of a panel.
pub(crate) const WIDTH: usize = FILTER_PANEL;
/// Rows of a tile.
const HEIGHT: usize = 6;
/// The most depth that is gone through at once: 24 KiB of a panel.
const MOST_DEPTH: usize = 384;
/// The most rows that are gone through at once.
pub(crate) const MOST_ROWS: usize = 192;
/// Products of fewer multiplications are not worth a second thread.
const SHARED_FROM: usize = 1 << 20;
/// The most pieces that a product is shared out in.
const MOST_PIECES: usize = 64;

/// The left side. Row `(o, i)` begins at `o * outer_stride + i * inner_stride`; rows may overlap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rows<'a> {
    pub(crate) values: &'a [f32],
    pub(crate) outer: usize,
    pub(crate) outer_stride: usize,
    pub(crate) inner: usize,
    pub(crate) inner_stride: usize,
}

impl Rows<'_> {
    pub(crate) fn count(&self) -> usize {
        self.outer * self.inner
    }

    fn start(&self, row: usize) -> usize {
        row / self.inner * self.outer_stride + row % self.inner * self.inner_stride
    }
}

/// The right side: element `(d, c)` is at `c / 16 * panel + d * record + c % 16`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Panels<'a> {
    pub(crate) values: &'a [f32],
    /// From one panel to the next.
    pub(crate) panel: usize,
    /// From one depth to the next.
    pub(crate) record: usize,
    pub(crate) depth: usize,
    pub(crate) columns: usize,
}

/// What becomes of the sums.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tail<'a> {
    /// One value for each column.
    pub(crate) bias: Option<&'a [f32]>,
    /// Added before the activation; rows as far apart as those of the output.
    pub(crate) residual: Option<&'a [f32]>,
    pub(crate) activation: Activation,
}

/// Writes the product's rows, `stride` apart. Shared with the threads of tract's executor where it is large.
/// Errors: operands of other sizes than they say.
#[allow(unsafe_code, reason = "threads share the output")]
pub(crate) fn product(
    rows: &Rows<'_>,
    panels: &Panels<'_>,
    tail: &Tail<'_>,
    out: &mut [f32],
    stride: usize,
) -> TractResult<()> {
    let written = rows.count().saturating_sub(1) * stride + panels.columns;
    ensure!(out.len() >= written, "{} places, {written} are written", out.len());
    // SAFETY: `out` is borrowed for as long as that takes, and is long enough.
    unsafe { product_at(rows, panels, tail, out.as_mut_ptr(), stride) }
}

/// As [`product`], for an output that others write other columns of.
///
/// # Safety
/// `out` is valid for reads and writes of the panels' columns of every row, `stride` apart, and nobody else accesses
/// these meanwhile.
#[allow(unsafe_code, reason = "as the comment says")]
pub(crate) unsafe fn product_at(
    rows: &Rows<'_>,
    panels: &Panels<'_>,
    tail: &Tail<'_>,
    out: *mut f32,
    stride: usize,
) -> TractResult<()> {
    let (count, columns) = (rows.count(), panels.columns);
    if count == 0 || columns == 0 {
        return Ok(());
    }
    let last = |outer: usize, outer_stride: usize, inner: usize, inner_stride: usize| {
        (outer - 1) * outer_stride + (inner - 1) * inner_stride
    };
    let written = last(1, 0, count, stride) + columns;
    let read = last(rows.outer, rows.outer_stride, rows.inner, rows.inner_stride) + panels.depth;
    let weights = last(columns.div_ceil(WIDTH), panels.panel, panels.depth.max(1), panels.record) + WIDTH;
    ensure!(stride >= columns, "rows of {columns} values, {stride} apart");
    ensure!(rows.values.len() >= read, "{} values, {read} are read", rows.values.len());
    ensure!(
        panels.depth == 0 || panels.values.len() >= weights,
        "{} weights of {weights}",
        panels.values.len()
    );
    ensure!(tail.bias.is_none_or(|b| b.len() >= columns), "a bias of another length");
    ensure!(tail.residual.is_none_or(|r| r.len() >= written), "a residual of another length");
    let job = Job { rows, panels, tail, out: Output(out), stride, vectors: has_avx2() };
    let count_panels = columns.div_ceil(WIDTH);
    let by_panels = count_panels >= 8;
    let pieces = if by_panels { count_panels } else { count.div_ceil(HEIGHT) };
    if count * columns * panels.depth < SHARED_FROM || pieces < 2 {
        job.run(0..count, 0..count_panels);
        return Ok(());
    }
    let mut pieces_left = [(); MOST_PIECES].map(|()| 0u8);
    let pieces = pieces.min(MOST_PIECES);
    par_chunks_mut(&mut pieces_left[..pieces], 1, usize::MAX, |first, chunk| {
        let all = if by_panels { count_panels } else { count };
        let range = all * first / pieces..all * (first + chunk.len()) / pieces;
        if by_panels {
            job.run(0..count, range);
        } else {
            job.run(range, 0..count_panels);
        }
        Ok(())
    })
}

/// A product whose operands were found to be as large as they say.
struct Job<'a> {
    rows: &'a Rows<'a>,
    panels: &'a Panels<'a>,
    tail: &'a Tail<'a>,
    out: Output<f32>,
    stride: usize,
    vectors: bool,
}

/// A piece of depth: the first one begins the sums, the last one ends them.
#[derive(Clone, Copy)]
struct Depth {
    start: usize,
    end: usize,
    first: bool,
    last: bool,
}

impl Job<'_> {
    /// The rows `rows` of the panels `panels`.
    fn run(&self, rows: std::ops::Range<usize>, panels: std::ops::Range<usize>) {
        let depth = self.panels.depth;
        let pieces = depth.div_ceil(MOST_DEPTH).max(1);
        let blocks = rows.len().div_ceil(MOST_ROWS).max(1);
        let row = |i: usize| rows.start + rows.len() * i / blocks;
        for i in 0..blocks {
            for piece in 0..pieces {
                let at = |i: usize| depth * i / pieces;
                let d = Depth {
                    start: at(piece),
                    end: at(piece + 1),
                    first: piece == 0,
                    last: piece + 1 == pieces,
                };
                self.block(row(i)..row(i + 1), panels.clone(), d);
            }
        }
    }

    #[allow(unsafe_code, reason = "vector functions need their instruction sets")]
    fn block(&self, rows: std::ops::Range<usize>, panels: std::ops::Range<usize>, depth: Depth) {
        #[cfg(target_arch = "x86_64")]
        if self.vectors {
            // SAFETY: `vectors` says that the CPU has them; `product` checked all sizes.
            unsafe { avx2::block(self, rows, panels, depth) };
            return;
        }
        self.plain(rows, panels, depth);
    }

    /// The columns of panel `panel` that the output has.
    fn columns_of(&self, panel: usize) -> usize {
        (self.panels.columns - panel * WIDTH).min(WIDTH)
    }

    /// As the vectors do it, one value after the other.
    #[allow(unsafe_code, reason = "threads share the output")]
    fn plain(&self, rows: std::ops::Range<usize>, panels: std::ops::Range<usize>, depth: Depth) {
        for panel in panels {
            let (column, columns) = (panel * WIDTH, self.columns_of(panel));
            for row in rows.clone() {
                let at = row * self.stride + column;
                // SAFETY: `product` checked that row and column lie inside of the output; no other thread has
                // this row of this panel.
                let out = unsafe { std::slice::from_raw_parts_mut(self.out.0.add(at), columns) };
                let mut sums = [0.0; WIDTH];
                if !depth.first {
                    sums[..columns].copy_from_slice(out);
                } else if let Some(bias) = self.tail.bias {
                    sums[..columns].copy_from_slice(&bias[column..column + columns]);
                }
                let x = &self.rows.values[self.rows.start(row)..][depth.start..depth.end];
                let w = &self.panels.values[panel * self.panels.panel..];
                for (d, x) in (depth.start..depth.end).zip(x) {
                    let w = &w[d * self.panels.record..][..WIDTH];
                    sums.iter_mut().zip(w).for_each(|(sum, w)| *sum += x * w);
                }
                if depth.last {
                    if let Some(residual) = self.tail.residual {
                        sums.iter_mut().zip(&residual[at..at + columns]).for_each(|(sum, r)| *sum += r);
                    }
                    sums.iter_mut().for_each(|sum| *sum = activate(self.tail.activation, *sum));
                }
                out.copy_from_slice(&sums[..columns]);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "the innermost loops check nothing")]
mod avx2 {
    use super::super::activation::Activation;
    use super::super::vector;
    use super::{Depth, HEIGHT, Job, WIDTH};
    use std::arch::x86_64::*;
    use std::ops::Range;

    /// Lines that are fetched ahead of a panel which is read once.
    const AHEAD: usize = 24;

    /// # Safety
    /// The CPU has AVX2 and FMA; rows, panels and depth are the job's, all of whose sizes were checked; nobody else
    /// has these rows of these panels.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn block(job: &Job<'_>, rows: Range<usize>, panels: Range<usize>, depth: Depth) {
        // SAFETY: passed on.
        unsafe {
            match rows.len() {
                1 => few::<1, 4>(job, rows.start, panels, depth),
                2 => few::<2, 3>(job, rows.start, panels, depth),
                3 => few::<3, 2>(job, rows.start, panels, depth),
                _ => many(job, rows, panels, depth),
            }
        }
    }

    /// Few rows: several panels at once, so that there are sums enough for the adders to be busy.
    ///
    /// # Safety
    /// As for [`block`].
    #[target_feature(enable = "avx2,fma")]
    unsafe fn few<const ROWS: usize, const PANELS: usize>(
        job: &Job<'_>,
        row: usize,
        panels: Range<usize>,
        depth: Depth,
    ) {
        let mut panel = panels.start;
        // SAFETY: passed on; panels stay within their range.
        unsafe {
            while panel + PANELS <= panels.end {
                tile::<ROWS, PANELS, true>(job, row, panel, depth, 0, 0);
                panel += PANELS;
            }
            while panel < panels.end {
                tile::<ROWS, 1, true>(job, row, panel, depth, 0, 0);
                panel += 1;
            }
        }
    }

    /// Tiles of equal height, one more or less.
    ///
    /// # Safety
    /// As for [`block`].
    #[target_feature(enable = "avx2,fma")]
    unsafe fn many(job: &Job<'_>, rows: Range<usize>, panels: Range<usize>, depth: Depth) {
        let tiles = rows.len().div_ceil(HEIGHT);
        let lines = WIDTH.div_ceil(tiles);
        for panel in panels {
            for i in 0..tiles {
                // The next panel is there already.
                let lines = if i * lines < WIDTH { lines } else { 0 };
                let at = |i: usize| rows.start + rows.len() * i / tiles;
                let (row, height) = (at(i), at(i + 1) - at(i));
                // SAFETY: passed on; tiles stay within the rows.
                unsafe {
                    match height {
                        6 => tile::<6, 1, false>(job, row, panel, depth, i, lines),
                        5 => tile::<5, 1, false>(job, row, panel, depth, i, lines),
                        4 => tile::<4, 1, false>(job, row, panel, depth, i, lines),
                        3 => tile::<3, 1, false>(job, row, panel, depth, i, lines),
                        // Four rows and more are never cut that low.
                        _ => {
                            (row..row + height)
                                .for_each(|row| few::<1, 1>(job, row, panel..panel + 1, depth));
                        }
                    }
                }
            }
        }
    }

    /// `ROWS` rows of `PANELS` panels. Tile `turn` of a panel fetches `lines` lines of the next panel for every 16
    /// steps of depth; where panels are read `ONCE`, each fetches its own.
    ///
    /// # Safety
    /// As for [`block`].
    #[target_feature(enable = "avx2,fma")]
    unsafe fn tile<const ROWS: usize, const PANELS: usize, const ONCE: bool>(
        job: &Job<'_>,
        row: usize,
        panel: usize,
        depth: Depth,
        turn: usize,
        lines: usize,
    ) {
        let (record, step, column) = (job.panels.record, job.panels.panel, panel * WIDTH);
        let columns: [usize; PANELS] = std::array::from_fn(|p| job.columns_of(panel + p));
        let places: [usize; ROWS] = std::array::from_fn(|r| (row + r) * job.stride + column);
        let mut sums = [[[_mm256_setzero_ps(); 2]; PANELS]; ROWS];
        // SAFETY: every row starts and ends inside of the values, every panel is there to its full width, the
        // output and what is shaped like it has every row's columns: all checked by `product`. Partial panels
        // are read and written by mask. What is only fetched may lie anywhere.
        unsafe {
            if !depth.first {
                for (sums, place) in sums.iter_mut().zip(places) {
                    for p in 0..PANELS {
                        sums[p] = read(job.out.0.add(place + p * WIDTH), columns[p]);
                    }
                }
            } else if let Some(bias) = job.tail.bias {
                for p in 0..PANELS {
                    let bias = read(bias.as_ptr().add(column + p * WIDTH), columns[p]);
                    sums.iter_mut().for_each(|sums| sums[p] = bias);
                }
            }
            let x: [*const f32; ROWS] =
                std::array::from_fn(|r| job.rows.values.as_ptr().add(job.rows.start(row + r)));
            let w = job.panels.values.as_ptr().add(panel * step);
            let mut next = w.wrapping_add(
                step + (depth.start + turn * lines * (depth.end - depth.start) / WIDTH) * record,
            );
            macro_rules! step {
                ($d:expr) => {{
                    let d = $d;
                    for p in 0..PANELS {
                        let w = w.add(p * step + d * record);
                        if ONCE {
                            _mm_prefetch::<_MM_HINT_T0>(w.wrapping_add(AHEAD * record).cast());
                        }
                        let (low, high) = (_mm256_loadu_ps(w), _mm256_loadu_ps(w.add(8)));
                        for r in 0..ROWS {
                            let x = _mm256_broadcast_ss(&*x[r].add(d));
                            sums[r][p][0] = _mm256_fmadd_ps(x, low, sums[r][p][0]);
                            sums[r][p][1] = _mm256_fmadd_ps(x, high, sums[r][p][1]);
                        }
                    }
                }};
            }
            let mut d = depth.start;
            while d + 16 <= depth.end {
                if !ONCE {
                    for _ in 0..lines {
                        _mm_prefetch::<_MM_HINT_T1>(next.cast());
                        next = next.wrapping_add(record);
                    }
                }
                for _ in 0..4 {
                    step!(d);
                    step!(d + 1);
                    step!(d + 2);
                    step!(d + 3);
                    d += 4;
                }
            }
            while d < depth.end {
                step!(d);
                d += 1;
            }
            for (sums, place) in sums.iter().zip(places) {
                for p in 0..PANELS {
                    write(job.out.0.add(place + p * WIDTH), columns[p], sums[p]);
                }
            }
            if depth.last && (job.tail.residual.is_some() || job.tail.activation != Activation::Identity) {
                for place in places {
                    for (p, columns) in columns.iter().enumerate() {
                        finish(job, place + p * WIDTH, *columns);
                    }
                }
            }
        }
    }

    /// The residual and the activation of up to 16 sums, which are still in the nearest cache. A function of its own:
    /// the sums of a tile stay in registers only as long as nothing else needs them.
    ///
    /// # Safety
    /// As for [`block`]; `columns` values from `place` on belong to the tile.
    #[target_feature(enable = "avx2,fma")]
    #[inline(never)]
    unsafe fn finish(job: &Job<'_>, place: usize, columns: usize) {
        // SAFETY: passed on.
        unsafe {
            let [mut low, mut high] = read(job.out.0.add(place), columns);
            if let Some(residual) = job.tail.residual {
                let more = read(residual.as_ptr().add(place), columns);
                (low, high) = (_mm256_add_ps(low, more[0]), _mm256_add_ps(high, more[1]));
            }
            let activation = job.tail.activation;
            let values = [vector::activate(activation, low), vector::activate(activation, high)];
            write(job.out.0.add(place), columns, values);
        }
    }

    /// Which of 16 lanes are below `columns`.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn masks(columns: usize) -> [__m256i; 2] {
        let columns = i32::try_from(columns).unwrap_or(i32::MAX);
        let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        [
            _mm256_cmpgt_epi32(_mm256_set1_epi32(columns), lanes),
            _mm256_cmpgt_epi32(_mm256_set1_epi32(columns - 8), lanes),
        ]
    }

    /// # Safety
    /// `from` is valid for reads of `columns` floats, or of 16 where that is less.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    unsafe fn read(from: *const f32, columns: usize) -> [__m256; 2] {
        // SAFETY: masked lanes are not read.
        unsafe {
            if columns == WIDTH {
                return [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))];
            }
            let [low, high] = masks(columns);
            [_mm256_maskload_ps(from, low), _mm256_maskload_ps(from.wrapping_add(8), high)]
        }
    }

    /// # Safety
    /// `to` is valid for writes of `columns` floats, or of 16 where that is less.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    unsafe fn write(to: *mut f32, columns: usize, values: [__m256; 2]) {
        // SAFETY: masked lanes are not written.
        unsafe {
            if columns == WIDTH {
                _mm256_storeu_ps(to, values[0]);
                _mm256_storeu_ps(to.add(8), values[1]);
                return;
            }
            let [low, high] = masks(columns);
            _mm256_maskstore_ps(to, low, values[0]);
            _mm256_maskstore_ps(to.wrapping_add(8), high, values[1]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers of a few bits: sums of them are exact, whatever their order.
    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        let mut state = seed as u64 * 2 + 1;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            i16::try_from(state >> 59).unwrap_or_default() - 16
        };
        (0..count).map(|_| f32::from(next()) / 8.0).collect()
    }

    struct Case {
        outer: usize,
        inner: usize,
        inner_stride: usize,
        depth: usize,
        columns: usize,
        gap: usize,
        parts: (bool, bool),
        activation: Activation,
    }

    /// `product` and the definition agree on every element, and nothing else is written.
    fn check(case: &Case, seed: usize) {
        let Case { outer, inner, inner_stride, depth, columns, gap, parts, activation } = *case;
        let outer_stride = (inner - 1) * inner_stride + depth + 3;
        let x = numbers(outer * outer_stride, seed);
        let rows = Rows { values: &x, outer, outer_stride, inner, inner_stride };
        let (panel, record) = (depth * WIDTH + 16, WIDTH);
        let w = numbers(columns.div_ceil(WIDTH) * panel, seed + 1);
        let panels = Panels { values: &w, panel, record, depth, columns };
        let (bias, stride) = (numbers(columns, seed + 2), columns + gap);
        let residual = numbers(rows.count() * stride, seed + 3);
        let tail = Tail {
            bias: parts.0.then_some(bias.as_slice()),
            residual: parts.1.then_some(residual.as_slice()),
            activation,
        };
        let mut out = vec![-99.0; rows.count() * stride];
        product(&rows, &panels, &tail, &mut out, stride).unwrap();
        for (i, found) in out.iter().enumerate() {
            let (r, c) = (i / stride, i % stride);
            let (wanted, tolerance) = if c < columns {
                let at = r / inner * outer_stride + r % inner * inner_stride;
                let term = |d: usize| x[at + d] * w[c / WIDTH * panel + d * record + c % WIDTH];
                let sum: f32 = (0..depth).map(term).sum();
                let sum = sum + if parts.0 { bias[c] } else { 0.0 } + if parts.1 { residual[i] } else { 0.0 };
                // What is lost of a value before the activation is lost after it.
                (activate(activation, sum), 1e-6 * sum.abs().max(1.0))
            } else {
                (-99.0, 0.0)
            };
            assert!(
                (found - wanted).abs() <= tolerance,
                "row {r} column {c} of {outer} x {inner} by {depth} by {columns}: {found}, expected {wanted}"
            );
        }
    }

    #[test]
    fn products_of_all_edges_are_what_the_definition_says() {
        let activations = [
            Activation::Identity,
            Activation::Relu,
            Activation::Gelu,
            Activation::GeluTanh,
            Activation::Silu,
        ];
        let mut seed = 0;
        for count in [1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 16, 23, 193] {
            for columns in [1, 7, 8, 9, 15, 16, 17, 31, 48, 65, 130] {
                for depth in [0, 1, 3, 15, 16, 17, 33, 385, 800] {
                    seed += 1;
                    if (seed % 3 != 0 && depth > 64) || (count > 16 && columns > 65) {
                        continue;
                    }
                    let outer = if count % 3 == 0 { 3 } else { 1 };
                    check(
                        &Case {
                            outer,
                            inner: count / outer,
                            inner_stride: if seed % 2 == 0 { depth } else { 5 },
                            depth,
                            columns,
                            gap: seed % 4,
                            parts: (seed % 5 != 0, seed % 7 < 3),
                            activation: activations[seed % activations.len()],
                        },
                        seed,
                    );
                }
            }
        }
    }

    #[test]
    fn threads_share_a_large_product() {
        use tract_linalg::multithread::{Executor, multithread_tract_scope};
        for (count, columns) in [(40, 200), (400, 20)] {
            let case = Case {
                outer: 1,
                inner: count,
                inner_stride: 300,
                depth: 300,
                columns,
                gap: 0,
                parts: (true, true),
                activation: Activation::Relu,
            };
            multithread_tract_scope(Executor::multithread(3), || check(&case, count));
        }
    }

    #[test]
    fn plain_code_agrees_with_the_vectors() {
        let (count, depth, columns) = (9usize, 70usize, 37usize);
        let x = numbers(count * depth, 1);
        let rows = Rows { values: &x, outer: 1, outer_stride: 0, inner: count, inner_stride: depth };
        let w = numbers(columns.div_ceil(WIDTH) * depth * WIDTH, 2);
        let panels = Panels { values: &w, panel: depth * WIDTH, record: WIDTH, depth, columns };
        let tail = Tail { bias: None, residual: None, activation: Activation::Gelu };
        let run = |vectors: bool| {
            let mut out = vec![0.0; count * columns];
            let job = Job {
                rows: &rows,
                panels: &panels,
                tail: &tail,
                out: Output(out.as_mut_ptr()),
                stride: columns,
                vectors,
            };
            job.run(0..count, 0..columns.div_ceil(WIDTH));
            out
        };
        for (plain, vector) in run(false).iter().zip(run(has_avx2())) {
            assert!((plain - vector).abs() <= 1e-5, "{plain} {vector}");
        }
    }

    #[test]
    fn operands_of_other_sizes_are_refused() {
        let values = [0.0; 64];
        let rows = Rows { values: &values, outer: 1, outer_stride: 0, inner: 4, inner_stride: 16 };
        let panels = Panels { values: &values, panel: 0, record: WIDTH, depth: 4, columns: 4 };
        let tail = Tail { bias: None, residual: None, activation: Activation::Identity };
        let run = |rows: Rows<'_>, panels: Panels<'_>, tail: Tail<'_>, len: usize, stride: usize| {
            product(&rows, &panels, &tail, &mut vec![0.0; len], stride)
        };
        run(rows, panels, tail, 16, 4).unwrap();
        run(rows, panels, tail, 15, 4).unwrap_err();
        run(rows, panels, tail, 16, 3).unwrap_err();
        run(Rows { inner_stride: 21, ..rows }, panels, tail, 16, 4).unwrap_err();
        run(Rows { outer: 2, outer_stride: 17, ..rows }, panels, tail, 32, 4).unwrap_err();
        run(rows, Panels { depth: 5, ..panels }, tail, 16, 4).unwrap_err();
        run(rows, Panels { columns: 17, panel: 16, ..panels }, tail, 68, 17).unwrap_err();
        run(rows, panels, Tail { bias: Some(&values[..3]), ..tail }, 16, 4).unwrap_err();
        run(rows, panels, Tail { residual: Some(&values[..15]), ..tail }, 16, 4).unwrap_err();
    }
}
