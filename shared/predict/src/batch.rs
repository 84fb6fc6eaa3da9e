//! Batches other than the plan's own: B rows run as `ceil(B / b)` runs of a plan pinned to b, the last one
//! padded with its own last row and cut.
//!
//! A convolutional network keeps its fusion that way, which a plan for B rows would lose.

use crate::error::{ErrorKind, PredictError};
use glowplug_pack::manifest::Axis;
use glowplug_pack::{Manifest, Tensor, TensorData};

type Result<T> = std::result::Result<T, PredictError>;

/// Runs `inputs`, in the manifest's order, through `run`, which takes exactly `shapes`.
///
/// Inputs `[B, ..]` whose leading axis the packer pinned (it was symbolic in ONNX) may have any B >= 1, the
/// same for all; outputs are then `[B, ..]`. Everything else goes to `run` as it is, which checks it.
/// Errors: B = 0; inputs that disagree on B; an input or output without a batch axis; `run`'s own.
/// Cost: one copy of each row and output where B differs from b, none otherwise.
pub fn run_batched(
    manifest: &Manifest,
    shapes: &[Vec<usize>],
    inputs: &[Tensor],
    run: impl Fn(&[Tensor]) -> Result<Vec<Tensor>>,
) -> Result<Vec<Tensor>> {
    let Some((rows, pinned)) = batch(manifest, shapes, inputs)? else { return run(inputs) };
    let mut parts: Vec<Vec<Tensor>> = manifest.outputs.iter().map(|_| Vec::new()).collect();
    for start in (0..rows).step_by(pinned) {
        let count = pinned.min(rows - start);
        let slices = inputs.iter().map(|t| take_rows(t, start, count, pinned)).collect::<Result<Vec<_>>>()?;
        let outputs = run(&slices)?;
        for (part, output) in parts.iter_mut().zip(outputs) {
            part.push(take_rows(&output, 0, count, count)?);
        }
    }
    parts.into_iter().map(concat_rows).collect()
}

/// Whether a tensor's leading axis is a batch.
fn batch_axis(axes: &[Axis]) -> bool {
    axes.first().is_some_and(|axis| axis.symbolic)
}

/// `(B, b)` where the inputs are a batch other than the plan's own.
fn batch(manifest: &Manifest, shapes: &[Vec<usize>], inputs: &[Tensor]) -> Result<Option<(usize, usize)>> {
    let bad = |text: String| Err(PredictError::new(ErrorKind::InvalidInput, text));
    let mut found: Option<(usize, usize, &str)> = None;
    for ((spec, shape), tensor) in manifest.inputs.iter().zip(shapes).zip(inputs) {
        let Some((&rows, rest)) = tensor.shape().split_first() else { return Ok(None) };
        let same = shape.first() == Some(&rows);
        let pinned = shape.first().filter(|_| batch_axis(&spec.axes) && shape.get(1..) == Some(rest));
        let Some(pinned) = pinned else {
            // Not a batch of this input: right as it is, or wrong in a way that the plan tells best.
            return if same || found.is_none() { Ok(None) } else { bad(no_batch_axis("input", &spec.name)) };
        };
        match found {
            Some((b, _, name)) if b != rows => {
                return bad(format!(
                    "input {:?} has a batch of {rows}, input {name:?} one of {b}",
                    spec.name
                ));
            }
            _ => found = Some((rows, *pinned, &spec.name)),
        }
    }
    let Some((rows, pinned, name)) = found.filter(|(rows, pinned, _)| rows != pinned) else {
        return Ok(None);
    };
    if rows == 0 || pinned == 0 {
        return bad(format!("input {name:?} has a batch of {rows}, expected at least 1"));
    }
    // The manifest's own shapes tell which outputs grow with the batch.
    let own = manifest.inputs.iter().find(|i| i.name == name).and_then(|i| i.axes.first()).map(|a| a.size);
    let grows = |axes: &[Axis]| batch_axis(axes) && axes.first().map(|a| a.size) == own;
    match manifest.outputs.iter().find(|o| !grows(&o.axes)) {
        Some(output) => bad(no_batch_axis("output", &output.name)),
        None => Ok(Some((rows, pinned))),
    }
}

fn no_batch_axis(side: &str, name: &str) -> String {
    format!("{side} {name:?} has no batch axis: this model takes only the batch it was packed for")
}

/// Rows `start..start + count` of `[B, ..]`, the last one repeated up to `padded` rows.
fn take_rows(tensor: &Tensor, start: usize, count: usize, padded: usize) -> Result<Tensor> {
    let rows = tensor.shape().first().copied().unwrap_or(0);
    if count == 0 || start + count > rows {
        let text = format!("rows {start} to {} of {tensor}", start + count);
        return Err(PredictError::new(ErrorKind::Internal, text));
    }
    let row = tensor.len() / rows;
    let pick = Rows { from: start * row, to: (start + count) * row, row, repeat: padded - count };
    let data = match tensor.data() {
        TensorData::F32(v) => TensorData::F32(pick.of(v)),
        TensorData::F16(v) => TensorData::F16(pick.of(v)),
        TensorData::I64(v) => TensorData::I64(pick.of(v)),
        TensorData::I32(v) => TensorData::I32(pick.of(v)),
        TensorData::I8(v) => TensorData::I8(pick.of(v)),
        TensorData::U8(v) => TensorData::U8(pick.of(v)),
        TensorData::Bool(v) => TensorData::Bool(pick.of(v)),
    };
    let mut shape = tensor.shape().to_vec();
    shape[0] = padded;
    Tensor::new(shape, data).map_err(|e| PredictError::new(ErrorKind::Internal, e.to_string()))
}

/// Elements `from..to`, then the last `row` of them `repeat` times more.
struct Rows {
    from: usize,
    to: usize,
    row: usize,
    repeat: usize,
}

impl Rows {
    fn of<T: Copy>(&self, v: &[T]) -> Vec<T> {
        let mut taken = v[self.from..self.to].to_vec();
        for _ in 0..self.repeat {
            taken.extend_from_slice(&v[self.to - self.row..self.to]);
        }
        taken
    }
}

/// `[B1, ..]`, `[B2, ..]`, .. as `[B1 + B2 + .., ..]`.
fn concat_rows(parts: Vec<Tensor>) -> Result<Tensor> {
    let internal = |text: String| PredictError::new(ErrorKind::Internal, text);
    let mut parts = parts.into_iter();
    let first = parts.next().ok_or_else(|| internal("an output is missing".into()))?;
    let (mut shape, mut data) = first.into_parts();
    for part in parts {
        let (s, d) = part.into_parts();
        shape[0] += s[0];
        append(&mut data, d).map_err(internal)?;
    }
    Tensor::new(shape, data).map_err(|e| internal(e.to_string()))
}

fn append(data: &mut TensorData, more: TensorData) -> std::result::Result<(), String> {
    match (data, more) {
        (TensorData::F32(a), TensorData::F32(b)) => a.extend(b),
        (TensorData::F16(a), TensorData::F16(b)) => a.extend(b),
        (TensorData::I64(a), TensorData::I64(b)) => a.extend(b),
        (TensorData::I32(a), TensorData::I32(b)) => a.extend(b),
        (TensorData::I8(a), TensorData::I8(b)) => a.extend(b),
        (TensorData::U8(a), TensorData::U8(b)) => a.extend(b),
        (TensorData::Bool(a), TensorData::Bool(b)) => a.extend(b),
        (a, b) => return Err(format!("an output changed from {} to {}", a.dtype(), b.dtype())),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use glowplug_pack::Dtype;
    use glowplug_pack::manifest::{InputSpec, OutputSpec};
    use std::cell::Cell;

    fn manifest(b: usize, out_symbolic: bool) -> Manifest {
        let axes = |symbolic| {
            let axis = |name: &str, size, symbolic| Axis { name: name.into(), size, symbolic };
            vec![axis("N", b, symbolic), axis("C", 2, false)]
        };
        let input = |name: &str| InputSpec {
            name: name.into(),
            dtype: Dtype::F32,
            axes: axes(true),
            pipeline: vec![],
            pad: None,
        };
        let output = OutputSpec {
            name: "sum".into(),
            dtype: Dtype::F32,
            axes: axes(out_symbolic),
            post: vec![],
            labels: None,
        };
        Manifest { inputs: vec![input("x"), input("y")], outputs: vec![output], ..Manifest::default() }
    }

    fn shapes(b: usize) -> Vec<Vec<usize>> {
        vec![vec![b, 2], vec![b, 2]]
    }

    fn rows(n: usize) -> Tensor {
        Tensor::from_f32([n, 2], (0..n * 2).map(|i| i as f32).collect()).unwrap()
    }

    /// x + y, counting runs and insisting on the pinned shape.
    fn add(b: usize, runs: &Cell<usize>) -> impl Fn(&[Tensor]) -> Result<Vec<Tensor>> + '_ {
        move |t| {
            runs.set(runs.get() + 1);
            assert_eq!(t[0].shape(), [b, 2]);
            let sum = t[0].as_f32().unwrap().iter().zip(t[1].as_f32().unwrap()).map(|(a, b)| a + b).collect();
            Ok(vec![Tensor::from_f32([b, 2], sum).unwrap()])
        }
    }

    #[test]
    fn any_batch_is_run_in_pieces_of_the_pinned_one() {
        for (b, rows_in, wanted_runs) in [(1, 5, 5), (4, 4, 1), (4, 5, 2), (4, 3, 1), (4, 8, 2)] {
            let runs = Cell::new(0);
            let out =
                run_batched(&manifest(b, true), &shapes(b), &[rows(rows_in), rows(rows_in)], add(b, &runs))
                    .unwrap();
            assert_eq!(runs.get(), wanted_runs, "{rows_in} rows, pinned {b}");
            assert_eq!(out[0].shape(), [rows_in, 2]);
            let wanted: Vec<f32> = (0..rows_in * 2).map(|i| 2.0 * i as f32).collect();
            assert_eq!(out[0].as_f32().unwrap(), wanted);
        }
    }

    #[test]
    fn what_is_no_batch_is_told() {
        let runs = Cell::new(0);
        let go = |out_symbolic, x, y| {
            run_batched(&manifest(1, out_symbolic), &shapes(1), &[rows(x), rows(y)], add(1, &runs))
                .unwrap_err()
                .to_string()
        };
        assert_eq!(go(true, 2, 3), "input \"y\" has a batch of 3, input \"x\" one of 2");
        assert!(go(false, 2, 2).starts_with("output \"sum\" has no batch axis"));
        assert!(go(true, 0, 0).contains("a batch of 0, expected at least 1"));
    }
}
