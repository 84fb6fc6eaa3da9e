//! What a consumer loses by channels, and weights that make up for them: least squares over calibration.
//!
//! With the centred second moments `H` of a consumer's inputs, its outputs change by `tr(D H D^T)` when its weights
//! change by `D`. Removed are the inputs of one channel after the other, each time those whose loss is least when all others are
//! re-solved: `tr(W_g (G_gg)^-1 W_g^T)` with `G = H^-1` (optimal brain surgeon, Hassibi and Stork 1993). Then
//! `G -= G_:g (G_gg)^-1 G_g:` is the inverse for what is left, and `W -= W_g (G_gg)^-1 G_g:` its weights.
//!
//! H of few rows has directions in which nothing was seen. So it is drawn to its diagonal, the more the fewer rows there are.

/// Sums over rows of inputs, for their centred second moments.
#[derive(Clone)]
pub(super) struct Sums {
    pub(super) n: usize,
    rows: f64,
    inputs: Vec<f64>,
    squares: Vec<f64>,
    /// Of the outputs that are wanted, and of products of these with the inputs, `[outputs, n]`.
    outputs: Vec<f64>,
    products: Vec<f64>,
}

impl Sums {
    pub(super) fn new(n: usize, outputs: usize) -> Sums {
        Sums {
            n,
            rows: 0.0,
            inputs: vec![0.0; n],
            squares: vec![0.0; n * n],
            outputs: vec![0.0; outputs],
            products: vec![0.0; n * outputs],
        }
    }

    /// Adds rows: how many, their sums, `x^T x`; and of `y` the sums and `y^T x`.
    pub(super) fn add(
        &mut self,
        rows: usize,
        (inputs, squares): (impl IntoIterator<Item = f64>, impl IntoIterator<Item = f64>),
        (outputs, products): (impl IntoIterator<Item = f64>, impl IntoIterator<Item = f64>),
    ) {
        self.rows += f64::from(u32::try_from(rows).unwrap_or(u32::MAX));
        fn add(to: &mut [f64], more: impl IntoIterator<Item = f64>) {
            to.iter_mut().zip(more).for_each(|(to, more)| *to += more);
        }
        add(&mut self.inputs, inputs);
        add(&mut self.squares, squares);
        add(&mut self.outputs, outputs);
        add(&mut self.products, products);
    }

    /// Those of some of the inputs.
    pub(super) fn only(&self, inputs: &[usize]) -> Sums {
        let of = |row: &[f64]| inputs.iter().map(|i| row[*i]).collect::<Vec<f64>>();
        Sums {
            n: inputs.len(),
            rows: self.rows,
            inputs: of(&self.inputs),
            squares: inputs.iter().flat_map(|i| of(&self.squares[i * self.n..(i + 1) * self.n])).collect(),
            outputs: self.outputs.clone(),
            products: self.products.chunks_exact(self.n).flat_map(of).collect(),
        }
    }

    /// `H`, drawn to its diagonal, for each row that was seen.
    pub(super) fn moments(&self) -> Vec<f64> {
        let n = self.n;
        let rows = self.rows.max(1.0);
        let mut h = self.squares.clone();
        for i in 0..n {
            for j in 0..n {
                h[i * n + j] = (h[i * n + j] - self.inputs[i] * self.inputs[j] / rows) / rows;
            }
        }
        let drawn = self.drawn();
        for i in 0..n {
            for j in 0..n {
                if i != j {
                    h[i * n + j] *= 1.0 - drawn;
                }
            }
        }
        let trace: f64 = (0..n).map(|i| h[i * n + i]).sum();
        // What never varies has no inverse.
        let least = (trace / count(n) * 1e-7).max(1e-12);
        (0..n).for_each(|i| h[i * n + i] = h[i * n + i].max(0.0) + least);
        h
    }

    /// How far `H` is drawn to its diagonal, of 1.
    fn drawn(&self) -> f64 {
        let n = count(self.n);
        (n / (n + self.rows)).powi(2)
    }

    /// What is to be added to `weights [outputs, n]` and to the outputs, so that they come nearest to those wanted. `None`
    /// where the moments are no numbers.
    pub(super) fn correction(&self, weights: &[f32]) -> Option<(Vec<f64>, Vec<f64>)> {
        let (n, rows) = (self.n, self.rows.max(1.0));
        let outputs = self.outputs.len();
        // Products of the outputs' errors with the inputs, centred.
        let mut errors = vec![0.0; outputs * n];
        for o in 0..outputs {
            let row = &weights[o * n..(o + 1) * n];
            let mean: f64 =
                self.outputs[o] - row.iter().zip(&self.inputs).map(|(w, x)| f64::from(*w) * x).sum::<f64>();
            let error = &mut errors[o * n..(o + 1) * n];
            error.copy_from_slice(&self.products[o * n..(o + 1) * n]);
            for (w, squares) in row.iter().zip(self.squares.chunks_exact(n)) {
                error.iter_mut().zip(squares).for_each(|(e, s)| *e -= f64::from(*w) * s);
            }
            error.iter_mut().zip(&self.inputs).for_each(|(e, x)| *e -= mean * x / rows);
            error.iter_mut().for_each(|e| *e *= (1.0 - self.drawn()) / rows);
        }
        let inverse = inverse(self.moments(), n)?;
        let mut change = vec![0.0; outputs * n];
        for (change, error) in change.chunks_exact_mut(n).zip(errors.chunks_exact(n)) {
            for (e, row) in error.iter().zip(inverse.chunks_exact(n)) {
                change.iter_mut().zip(row).for_each(|(c, g)| *c += e * g);
            }
        }
        let bias = (0..outputs).map(|o| {
            let at = o * n..(o + 1) * n;
            let found = weights[at.clone()].iter().zip(&change[at]).zip(&self.inputs);
            let found: f64 = found.map(|((w, c), x)| (f64::from(*w) + c) * x).sum();
            (self.outputs[o] - found) / rows
        });
        let bias: Vec<f64> = bias.collect();
        change.iter().chain(&bias).all(|v| v.is_finite()).then_some((change, bias))
    }
}

#[allow(clippy::cast_precision_loss, reason = "far below 2^53")]
pub(super) fn count(n: usize) -> f64 {
    n as f64
}

/// The inverse of a positive definite matrix. `None` where it is none.
fn inverse(mut h: Vec<f64>, n: usize) -> Option<Vec<f64>> {
    // L of H = L L^T, in the lower half.
    for k in 0..n {
        let (above, below) = h.split_at_mut((k + 1) * n);
        let row = &mut above[k * n..];
        let d = row[k] - row[..k].iter().map(|v| v * v).sum::<f64>();
        if !(d.is_finite() && d > 0.0) {
            return None;
        }
        let d = d.sqrt();
        row[k] = d;
        for other in below.chunks_exact_mut(n) {
            let dot: f64 = other[..k].iter().zip(&row[..k]).map(|(a, b)| a * b).sum();
            other[k] = (other[k] - dot) / d;
        }
    }
    // L^-1, row by row: row i is (e_i - sum_(k<i) L_ik row_k) / L_ii.
    let mut l = vec![0.0; n * n];
    for i in 0..n {
        let (done, rest) = l.split_at_mut(i * n);
        let row = &mut rest[..n];
        row[i] = 1.0;
        for k in 0..i {
            let factor = h[i * n + k];
            row[..=k].iter_mut().zip(&done[k * n..=k * n + k]).for_each(|(r, d)| *r -= factor * d);
        }
        row[..=i].iter_mut().for_each(|r| *r /= h[i * n + i]);
    }
    // L^-T L^-1.
    let mut inverse = vec![0.0; n * n];
    for row in 0..n {
        let l = &l[row * n..=row * n + row];
        for (i, factor) in l.iter().enumerate() {
            inverse[i * n..=i * n + row].iter_mut().zip(l).for_each(|(v, l)| *v += factor * l);
        }
    }
    Some(inverse)
}

/// In which order channels go, of `each` inputs one, the least missed first; and the mean square by which all outputs
/// together differ, once that many are gone. `None` where the moments are no numbers.
pub(super) fn order(sums: &Sums, weights: &[f32], each: usize) -> Option<(Vec<usize>, Vec<f64>)> {
    let n = sums.n;
    let mut inverse = inverse(sums.moments(), n)?;
    // [n, outputs]: a channel's weights lie together.
    let outputs = weights.len() / n;
    let mut w: Vec<f64> =
        (0..n).flat_map(|i| (0..outputs).map(move |o| f64::from(weights[o * n + i]))).collect();
    let mut left: Vec<usize> = (0..n / each).collect();
    let (mut gone, mut losses) = (Vec::new(), vec![0.0]);
    let mut loss = 0.0;
    while left.len() > 1 {
        let mut least: Option<(f64, usize)> = None;
        for (at, channel) in left.iter().enumerate() {
            let found = missed(&inverse, &w, (n, outputs), channel * each, each)?;
            if least.is_none_or(|(than, _)| found < than) {
                least = Some((found, at));
            }
        }
        let (found, at) = least?;
        let channel = left.remove(at);
        loss += found.max(0.0);
        gone.push(channel);
        losses.push(loss);
        // One input after the other: together they are the block.
        for g in channel * each..(channel + 1) * each {
            let row = inverse[g * n..(g + 1) * n].to_vec();
            let d = row[g];
            let weights = w[g * outputs..(g + 1) * outputs].to_vec();
            for channel in left.iter().copied().chain([channel]) {
                for i in channel * each..(channel + 1) * each {
                    let factor = row[i] / d;
                    if factor == 0.0 || i == g {
                        continue;
                    }
                    inverse[i * n..(i + 1) * n].iter_mut().zip(&row).for_each(|(v, r)| *v -= factor * r);
                    w[i * outputs..(i + 1) * outputs]
                        .iter_mut()
                        .zip(&weights)
                        .for_each(|(w, g)| *w -= factor * g);
                }
            }
        }
    }
    Some((gone, losses))
}

/// What is lost when the inputs `from..from + each` go: the terms of one after the other.
fn missed(inverse: &[f64], w: &[f64], (n, outputs): (usize, usize), from: usize, each: usize) -> Option<f64> {
    let square = |w: &[f64]| w.iter().map(|v| v * v).sum::<f64>();
    if each == 1 {
        let d = inverse[from * n + from];
        let found = square(&w[from * outputs..(from + 1) * outputs]) / d;
        return found.is_finite().then_some(found);
    }
    let mut block: Vec<f64> = (0..each)
        .flat_map(|i| inverse[(from + i) * n + from..(from + i) * n + from + each].to_vec())
        .collect();
    let mut w = w[from * outputs..(from + each) * outputs].to_vec();
    let mut loss = 0.0;
    for g in 0..each {
        let (d, row) = (block[g * each + g], block[g * each..(g + 1) * each].to_vec());
        let (done, rest) = w.split_at_mut((g + 1) * outputs);
        let own = &done[g * outputs..];
        loss += square(own) / d;
        for (i, other) in (g + 1..each).zip(rest.chunks_exact_mut(outputs)) {
            let factor = row[i] / d;
            block[i * each..(i + 1) * each].iter_mut().zip(&row).for_each(|(v, r)| *v -= factor * r);
            other.iter_mut().zip(own).for_each(|(w, g)| *w -= factor * g);
        }
    }
    loss.is_finite().then_some(loss)
}
