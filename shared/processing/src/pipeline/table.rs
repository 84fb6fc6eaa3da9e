//! Rows of numbers, as CSV or JSON, to an f32 tensor.

use super::affine::Affine;
use super::media::{self, Media};
use super::text::check_len;
use super::{Limits, misplaced};
use crate::error::{ProcessingError, Result, quote};
use crate::v2::{parse_elements, parse_json};
use glowplug_pack::manifest::InputSpec;
use glowplug_pack::{Dtype, Tensor, TensorData, element_count};
use serde_json::value::RawValue;

/// What rows become: the input's shape, `[.., columns]`, one row per element of the leading axes.
#[derive(Debug)]
pub(super) struct TablePipeline {
    shape: Vec<usize>,
    rows: usize,
    columns: usize,
    affine: Affine,
}

impl TablePipeline {
    /// Errors have no input's name yet.
    pub(super) fn compile(input: &InputSpec) -> Result<TablePipeline> {
        let shape = input.shape();
        let Some((columns, leading)) = shape.split_last() else {
            return Err(ProcessingError::manifest(
                "csv needs an input with a last axis of columns, it is a scalar",
            ));
        };
        if input.dtype != Dtype::F32 {
            return Err(ProcessingError::manifest(format!("csv gives f32, the input is {}", input.dtype)));
        }
        let rows = element_count(leading)
            .ok_or_else(|| ProcessingError::manifest(format!("shape {shape:?} is too large")))?;
        if *columns > MAX_COLUMNS {
            let text = format!("{columns} columns, expected at most {MAX_COLUMNS}");
            return Err(ProcessingError::manifest(text));
        }
        let mut affine = Affine::identity(*columns, None);
        for (index, step) in input.pipeline.iter().enumerate().skip(1) {
            if !affine.push(index, step)? {
                return Err(misplaced(index, step, "is no step for csv rows"));
            }
        }
        Ok(TablePipeline { rows, columns: *columns, affine, shape })
    }

    pub(super) fn run(&self, content_type: Option<&str>, body: &[u8], limits: &Limits) -> Result<Tensor> {
        let accepted = [Media::Csv, Media::PlainText, Media::Json];
        let media = media::read(content_type, &accepted, "text/csv or application/json")?;
        let text = check_len(body, limits)?;
        let is_json = match media {
            Media::Json => true,
            Media::Untold => text.trim_start().starts_with('['),
            _ => false,
        };
        let mut values = if is_json { self.read_json(text)? } else { self.read_csv(text)? };
        if !self.affine.is_identity() {
            for row in values.chunks_exact_mut(self.columns.max(1)) {
                for (column, x) in row.iter_mut().enumerate() {
                    *x = self.affine.apply(column, f64::from(*x));
                }
            }
        }
        Tensor::from_f32(self.shape.clone(), values).map_err(|e| ProcessingError::invalid(e.to_string()))
    }

    fn read_json(&self, text: &str) -> Result<Vec<f32>> {
        parse_json(text, "a JSON array of numbers", |text| {
            let array: &RawValue = serde_json::from_str(text)?;
            Ok(match parse_elements(array.get(), Dtype::F32, &self.shape) {
                Ok(TensorData::F32(values)) => Ok(values),
                Ok(_) => Ok(Vec::new()),
                Err(e) => Err(e.within("rows")),
            })
        })
    }

    fn read_csv(&self, text: &str) -> Result<Vec<f32>> {
        let mut values = Vec::new();
        let mut rows = 0;
        for line in text.lines().filter(|l| !l.trim().is_empty()) {
            rows += 1;
            let before = values.len();
            for (column, cell) in (1..).zip(line.split(',')) {
                values.push(read_cell(cell).ok_or_else(|| {
                    let cell = quote(cell.trim());
                    ProcessingError::invalid(format!(
                        "row {rows} column {column} is {cell}, expected a finite number (and no header)"
                    ))
                })?);
            }
            let (found, wanted) = (values.len() - before, self.columns);
            if found != wanted {
                let text = format!("row {rows} has {found} columns, expected {wanted}");
                return Err(ProcessingError::invalid(text));
            }
        }
        if rows != self.rows {
            let wanted = self.rows;
            return Err(ProcessingError::invalid(format!("found {rows} rows, expected {wanted}")));
        }
        Ok(values)
    }
}

/// A bound on what a manifest can make us reserve.
const MAX_COLUMNS: usize = 1 << 20;

fn read_cell(cell: &str) -> Option<f32> {
    cell.trim().parse().ok().filter(|x: &f32| x.is_finite())
}
