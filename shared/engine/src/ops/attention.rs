//! Attention: softmax(scale * Q K^T + mask) V, head by head, without a transpose or a copy of more than a head's keys.
//!
//! Heads lie side by side in the last axis, as the products before leave them and the one after takes them. A head's
//! keys are cut into panels, which is all that is moved; values are panels as they lie. A few rows of scores at
//! a time go from the first product through softmax into the second one, in the nearest cache.

use super::plan_op;
use crate::kernels::activation::Activation;
use crate::kernels::product::{Panels, Rows, Tail, WIDTH, product, product_at};
use crate::kernels::rows::softmax;
use crate::share::Output;
use std::cell::RefCell;
use tract_core::internal::{
    EvalContext, EvalOp, IntoTValue, TValue, TVec, Tensor, TractResult, bail, ensure, not_out_of_plan, tvec,
};
use tract_linalg::multithread::par_chunks_mut;

/// The most rows of scores that are computed at once: four tiles of a product.
const ROWS_AT_ONCE: usize = 24;

thread_local! {
    /// A head's keys and some scores, kept for the next head.
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// `q[batch, s, heads, d], k[batch, t, heads, d], v[batch, t, heads, e]`, and a mask that is added to the scores, whose
/// extents are those of `[batch, heads, s, t]` or 1.
#[derive(Clone, Debug)]
pub(crate) struct Attention {
    pub(crate) heads: usize,
    pub(crate) scale: f32,
    /// `[batch, s, t]`.
    pub(crate) extents: [usize; 3],
    /// The output's, which holds `[batch, s, heads, e]` whatever it is.
    pub(crate) shape: Vec<usize>,
    /// From one position of the mask to the next along `batch, heads, s`, where there is one; its rows are `t` long.
    pub(crate) mask: Option<[usize; 3]>,
}
plan_op!(Attention);

/// The operands.
struct Operands<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    mask: Option<&'a [f32]>,
}

impl EvalOp for Attention {
    not_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        Ok(tvec!(self.run(&inputs)?.into_tvalue()))
    }
}

impl Attention {
    #[allow(unsafe_code, reason = "zeroing what is written anyway takes time")]
    fn run(&self, inputs: &[TValue]) -> TractResult<Tensor> {
        let plain = inputs.iter().map(|i| i.try_as_plain_ram()?.as_slice::<f32>());
        let operands = match plain.collect::<TractResult<TVec<_>>>()?.as_slice() {
            [q, k, v] => Operands { q, k, v, mask: None },
            [q, k, v, mask] => Operands { q, k, v, mask: Some(mask) },
            other => bail!("{} operands, expected 3 or 4", other.len()),
        };
        let [batch, s, t] = self.extents;
        let len: usize = self.shape.iter().product();
        let (d, e) = (operands.q.len() / (batch * s * self.heads), len / (batch * s * self.heads));
        let fits = operands.q.len() == batch * s * self.heads * d
            && operands.k.len() == batch * t * self.heads * d
            && operands.v.len() == batch * t * self.heads * e
            && len == batch * s * self.heads * e
            && e.is_multiple_of(WIDTH)
            && operands.mask.is_some() == self.mask.is_some();
        ensure!(fits, "operands of other sizes than {self:?}");
        // SAFETY: each head of each item of the batch writes its columns of all rows, which together are all of it.
        let mut output = unsafe { Tensor::uninitialized::<f32>(&self.shape) }?;
        let mut plain = output.try_as_plain_ram_mut()?;
        let out = plain.as_slice_mut::<f32>()?;
        let job = Job { attention: self, operands: &operands, widths: [d, e], out: Output(out.as_mut_ptr()) };
        let mut heads = vec![(); batch * self.heads];
        par_chunks_mut(&mut heads, 1, batch * self.heads * s * t * (d + e), |first, heads| {
            (first..first + heads.len()).try_for_each(|i| job.head(i / self.heads, i % self.heads))
        })?;
        Ok(output)
    }
}

struct Job<'a> {
    attention: &'a Attention,
    operands: &'a Operands<'a>,
    /// Values of one head: of queries and keys, and of values.
    widths: [usize; 2],
    out: Output<f32>,
}

impl Job<'_> {
    #[allow(unsafe_code, reason = "threads share the output")]
    fn head(&self, item: usize, head: usize) -> TractResult<()> {
        let Attention { heads, scale, extents: [_, s, t], mask, .. } = *self.attention;
        let [d, e] = self.widths;
        let (q_stride, v_stride) = (d * heads, e * heads);
        let panels = t.div_ceil(WIDTH);
        // Taken and not borrowed: a product may hand pieces to other threads and do another head while it waits.
        let mut scratch = SCRATCH.take();
        scratch.resize((panels * WIDTH * d + ROWS_AT_ONCE * t).max(scratch.len()), 0.0);
        let (keys, scores) = scratch.split_at_mut(panels * WIDTH * d);
        cut(&self.operands.k[item * t * q_stride + head * d..], q_stride, (t, d), keys);
        let keys = Panels { values: keys, panel: WIDTH * d, record: WIDTH, depth: d, columns: t };
        let values = &self.operands.v[item * t * v_stride + head * e..];
        let values = Panels { values, panel: WIDTH, record: v_stride, depth: t, columns: e };
        let tail = Tail { bias: None, residual: None, activation: Activation::Identity };
        let turns = s.div_ceil(ROWS_AT_ONCE);
        for turn in 0..turns {
            let (first, end) = (s * turn / turns, s * (turn + 1) / turns);
            let one_after_the_other = |values, count, stride| Rows {
                values,
                outer: 1,
                outer_stride: 0,
                inner: count,
                inner_stride: stride,
            };
            let count = end - first;
            let q = &self.operands.q[(item * s + first) * q_stride + head * d..];
            let scores = &mut scores[..count * t];
            product(&one_after_the_other(q, count, q_stride), &keys, &tail, scores, t)?;
            for (row, scores) in (first..end).zip(scores.chunks_exact_mut(t)) {
                let start = mask.map_or(0, |[b, h, r]| item * b + head * h + row * r);
                softmax(scores, scale, self.operands.mask.map(|mask| &mask[start..start + t]));
            }
            let at = (item * s + first) * v_stride + head * e;
            // SAFETY: rows `first` to `end` of this item of the batch lie inside of the output, of which only
            // this head's columns are written, and no other thread has this head of this item.
            unsafe {
                product_at(
                    &one_after_the_other(scores, count, t),
                    &values,
                    &tail,
                    self.out.0.add(at),
                    v_stride,
                )?;
            }
        }
        SCRATCH.set(scratch);
        Ok(())
    }
}

/// The first `d` values of `t` rows, as panels of 16 rows; rows that are not there are 0.
fn cut(rows: &[f32], stride: usize, (t, d): (usize, usize), panels: &mut [f32]) {
    for (p, panel) in panels.chunks_exact_mut(WIDTH * d).enumerate() {
        for lane in 0..WIDTH {
            let row = p * WIDTH + lane;
            let places = panel[lane..].iter_mut().step_by(WIDTH);
            if row < t {
                places.zip(&rows[row * stride..][..d]).for_each(|(place, value)| *place = *value);
            } else {
                places.for_each(|place| *place = 0.0);
            }
        }
    }
}

impl PartialEq for Attention {
    fn eq(&self, other: &Attention) -> bool {
        (self.heads, self.scale.to_bits(), self.extents, &self.shape, self.mask)
            == (other.heads, other.scale.to_bits(), other.extents, &other.shape, other.mask)
    }
}

impl Eq for Attention {}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, reason = "summed up in f64, compared in f32")]
mod tests {
    use super::*;
    use tract_core::internal::Tensor;

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count).map(|i| ((i * 7919 + seed * 104_729) % 1009) as f32 / 504.0 - 1.0).collect()
    }

    /// As the formula has it, one score after the other, in f64.
    fn wanted(a: &Attention, o: &Operands<'_>) -> Vec<f32> {
        let Attention { heads, scale, extents: [batch, s, t], mask, .. } = *a;
        let (d, e) = (o.q.len() / (batch * s * heads), o.v.len() / (batch * t * heads));
        let mut out = vec![0.0; batch * s * heads * e];
        for b in 0..batch {
            for h in 0..heads {
                for i in 0..s {
                    let score = |j: usize| -> f64 {
                        let at = |n: usize, row: usize, c: usize| ((b * n + row) * heads + h) * d + c;
                        let dot = (0..d).map(|c| f64::from(o.q[at(s, i, c)]) * f64::from(o.k[at(t, j, c)]));
                        let mask = mask.zip(o.mask);
                        let mask = mask.map_or(0.0, |([mb, mh, mr], m)| m[b * mb + h * mh + i * mr + j]);
                        dot.sum::<f64>() * f64::from(scale) + f64::from(mask)
                    };
                    let scores: Vec<f64> = (0..t).map(score).collect();
                    let most = scores.iter().copied().fold(f64::MIN, f64::max);
                    let powers: Vec<f64> = scores.iter().map(|x| (x - most).exp()).collect();
                    let sum: f64 = powers.iter().sum();
                    for c in 0..e {
                        let value = |j: usize| f64::from(o.v[((b * t + j) * heads + h) * e + c]);
                        let mixed: f64 = powers.iter().enumerate().map(|(j, p)| p / sum * value(j)).sum();
                        out[((b * s + i) * heads + h) * e + c] = mixed as f32;
                    }
                }
            }
        }
        out
    }

    #[test]
    fn heads_are_attended_as_the_formula_says() {
        let cases = [
            (1, 1, 1, 1, 16, 16, None),
            (2, 3, 5, 7, 16, 32, Some([1, 1, 1])),
            (1, 4, 16, 16, 32, 32, Some([1, 0, 0])),
            (3, 2, 25, 33, 8, 48, Some([1, 0, 1])),
            (1, 12, 130, 130, 32, 32, Some([1, 0, 0])),
            (2, 2, 3, 40, 64, 16, Some([0, 0, 0])),
            (1, 2, 29, 17, 5, 16, Some([0, 1, 0])),
        ];
        for (batch, heads, s, t, d, e, mask) in cases {
            let mask = mask.map(|[b, h, r]: [usize; 3]| {
                let rows = [
                    if b == 1 { batch } else { 1 },
                    if h == 1 { heads } else { 1 },
                    if r == 1 { s } else { 1 },
                ];
                (rows, [b * rows[1] * rows[2] * t, h * rows[2] * t, r * t])
            });
            let attention = Attention {
                heads,
                scale: 0.7,
                extents: [batch, s, t],
                shape: vec![batch, s, heads * e],
                mask: mask.map(|(_, steps)| steps),
            };
            let (q, k) = (numbers(batch * s * heads * d, 1), numbers(batch * t * heads * d, 2));
            let v = numbers(batch * t * heads * e, 3);
            let m = mask.map(|(rows, _)| numbers(rows.iter().product::<usize>() * t, 4));
            let operands = Operands { q: &q, k: &k, v: &v, mask: m.as_deref() };
            let tensor = |values: &[f32], rows: usize| {
                Tensor::from_shape(&[batch, rows, values.len() / batch / rows], values).unwrap().into_tvalue()
            };
            let mut inputs = tvec![tensor(&q, s), tensor(&k, t), tensor(&v, t)];
            if let Some((m, (rows, _))) = m.as_ref().zip(mask) {
                inputs.push(Tensor::from_shape(&[rows[0], rows[1], rows[2], t], m).unwrap().into_tvalue());
            }
            let found = attention.run(&inputs).unwrap();
            let found = found.try_as_plain_ram().unwrap();
            for (i, (found, wanted)) in
                found.as_slice::<f32>().unwrap().iter().zip(wanted(&attention, &operands)).enumerate()
            {
                assert!((found - wanted).abs() < 2e-6, "{attention:?} at {i}: {found} {wanted}");
            }
        }
    }
}
