//! Import, simplify, quantize, plan, write, verify: a model's way into a pack.

use crate::compress::{self, CompressionReport, Contract, Int8Report};
use crate::error::{ErrorKind, PackerError, guard};
use crate::evaluate::Dataset;
use crate::graphs::{PlannedModel, Way};
use crate::import::{Found, Imported, Port, Source, open_where_they_differ, output_ports};
use crate::int8::{Compute, Ranges, RoundedFilters};
use crate::manifest::{Parsed, manifest};
use crate::merge::{self, Known};
use crate::pin::{InputPin, InputPins, buckets};
use crate::portable::{Portable, PortableReport};
use crate::prune::{Prune, Unpruned};
use crate::quantize::{Quantizer, Weights};
use crate::report::{Report, WeightsReport, report};
use crate::simplify::simplify;
use crate::target::Target;
use crate::verify::{Path, ROUNDS, index_bound, verify, verify_int8, verify_simplified};
use glowplug_engine::target::TRACT_VERSION;
use glowplug_pack::manifest::option_of_rows;
use glowplug_pack::plan::PlanGraph;
use glowplug_pack::{Manifest, PackBuilder};
use std::collections::BTreeMap;
use tract_core::internal::TypedModel;

/// What [`pack`] is doing, for whoever shows progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Reading the ONNX file.
    Import,
    /// Graph passes that do not depend on the CPU.
    Simplify,
    /// Rounding weights to what the pack will hold.
    Quantize,
    /// Choosing kernels and prepacking weights.
    Plan,
    /// Laying out the file.
    Write,
    /// Loading it again and comparing outputs.
    Verify,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Stage; 6] =
        [Stage::Import, Stage::Simplify, Stage::Quantize, Stage::Plan, Stage::Write, Stage::Verify];

    /// `import`, `simplify`, `quantize`, `plan`, `write` or `verify`.
    #[must_use]
    pub fn name(self) -> &'static str {
        ["import", "simplify", "quantize", "plan", "write", "verify"][self as usize]
    }
}

/// How to pack.
pub struct PackOptions<'a> {
    /// The model's name, where the manifest file does not give another.
    pub name: String,
    /// Pinned inputs. Alternatives make several plans over one set of weights, the first being the default.
    pub inputs: Vec<InputPins>,
    /// The text of an M.toml.
    pub manifest: Option<&'a str>,
    /// The CPUs that the plans are for.
    pub target: Target,
    /// How weights are stored.
    pub weights: Weights,
    /// Samples that weights are rounded by, so that the outputs change least; not those that accuracy is measured on.
    pub calibration: Option<&'a Dataset>,
    /// Whole channels to remove before anything else, by what calibration shows of them.
    pub prune: Option<Prune>,
    /// What the pack has to keep.
    pub contract: Contract<'a>,
    /// Whether chunks are entropy-coded where that makes them shorter; with [`Weights::Auto`] they are.
    pub entropy: bool,
    /// What convolutions are computed in. Int8 needs calibration, which tells the ranges of activations, or a model that came
    /// with them.
    pub compute: Compute,
    /// Brings the files that the manifest names.
    pub read_asset: &'a mut dyn FnMut(&str) -> std::io::Result<Vec<u8>>,
    /// Is told of each stage as it begins, and what it is at.
    pub progress: &'a mut dyn FnMut(Stage, &str),
    /// Of the inputs that the pack is verified with.
    pub seed: u64,
}

/// A finished pack.
#[derive(Clone, Debug)]
pub struct Packed {
    /// The file.
    pub bytes: Vec<u8>,
    /// What was done.
    pub report: Report,
}

/// A verified pack of an ONNX model.
///
/// The process is narrowed to the instruction sets of `options.target`, so that the pack runs on other machines than
/// this one.
/// Errors: see [`ErrorKind`]; every message names the node, input or output and what to do.
/// Cost: several times the model in memory; a second or so per 100 MB.
pub fn pack(onnx_bytes: &[u8], options: &mut PackOptions<'_>) -> Result<Packed, PackerError> {
    compress::check(options)?;
    options.target.choose()?;
    // Coarser steps save bytes by nothing else.
    options.entropy |= options.weights == Weights::Auto;
    let pins = buckets(&options.inputs)?;
    (options.progress)(Stage::Import, "");
    let source = guard("import", || Source::read(onnx_bytes))?;
    let (source, pruned) = match options.prune {
        None => (source, None),
        Some(how) => {
            let (smaller, unpruned) =
                Unpruned::of(&source, pins.first().map_or(&[], Vec::as_slice), how, options)?;
            (smaller, Some(unpruned))
        }
    };
    let imported = |pins: &Vec<InputPin>| guard("import", || source.import(pins));
    let mut imported = pins.iter().map(imported).collect::<Result<Vec<_>, _>>()?;
    let parsed = ends(&mut imported, options)?;
    let Some(first) = imported.first() else { return Err(no_shapes()) };
    (options.progress)(Stage::Simplify, "");
    let decluttered = imported.iter().map(|i| simplify(&i.typed)).collect::<Result<Vec<_>, _>>()?;
    let quantized = source.quantized.clone();
    drop(source);
    let mut file = Writer::new(&imported, &decluttered, parsed, onnx_bytes, options);
    file.came_quantized = quantized;
    file.unpruned = pruned;
    let judge = file.compress()?;
    file.stage(Stage::Write, "");
    let mut written = file.write(BTreeMap::new())?;
    file.stage(Stage::Verify, "");
    let mut errors = BTreeMap::new();
    if file.options.target.runs_here() {
        if file.quantizer.rounds() {
            for (imported, simplified) in imported.iter().zip(&decluttered) {
                let (typed, inputs, rounds) =
                    (imported.typed.clone(), &imported.inputs, (file.options.seed, ROUNDS));
                guard("verify", || verify_simplified(typed, simplified.clone(), inputs, rounds))?;
            }
        }
        for (index, imported) in imported.iter().enumerate() {
            file.verify_tuned(index, &mut written, imported, &mut errors)?;
        }
        file.measure(judge, &written.bytes)?;
        file.verify_portable(written, first, &mut errors)?;
    }
    let written = file.write(errors.clone())?;
    file.check_contract(&written.bytes)?;
    let report = report(&written, onnx_bytes.len(), errors, &file)?;
    Ok(Packed { bytes: written.bytes, report })
}

/// What a pack of the model will say of itself before anything is planned, and the files that its manifest names: for whoever
/// makes tensors of raw data while there is no pack yet. Errors: as [`pack()`] for the file, its inputs and its manifest.
pub fn describe(
    onnx_bytes: &[u8],
    options: &mut PackOptions<'_>,
) -> Result<(Manifest, BTreeMap<String, Vec<u8>>), PackerError> {
    let source = guard("import", || Source::read(onnx_bytes))?;
    let pins = buckets(&options.inputs)?;
    let imported = pins.iter().map(|pins| guard("import", || source.import(pins)));
    let parsed = ends(&mut imported.collect::<Result<Vec<_>, _>>()?, options)?;
    Ok((parsed.manifest, parsed.assets))
}

fn no_shapes() -> PackerError {
    PackerError::new(ErrorKind::Internal, "no shapes to plan for")
}

/// The manifest of a model at all its shapes, whose axes are open where these differ.
fn ends(imported: &mut [Imported], options: &mut PackOptions<'_>) -> Result<Parsed, PackerError> {
    let mut outputs = imported.iter().map(output_ports).collect::<Result<Vec<_>, _>>()?;
    open_where_they_differ(&mut imported.iter_mut().map(|i| &mut i.inputs).collect::<Vec<_>>());
    open_where_they_differ(&mut outputs.iter_mut().collect::<Vec<_>>());
    let (Some(first), Some(outputs)) = (imported.first(), outputs.first()) else { return Err(no_shapes()) };
    let mut parsed = manifest(options.manifest, &options.name, &first.inputs, outputs, options.read_asset)?;
    if imported.len() > 1 {
        parsed.manifest.buckets =
            imported.iter().map(|i| i.inputs.iter().map(Port::shape).collect()).collect();
    }
    for (i, input) in first.inputs.iter().enumerate() {
        let rows = index_bound(&first.typed, i).map(|rows| (option_of_rows(&input.name), rows.to_string()));
        parsed.manifest.provenance.options.extend(rows);
    }
    Ok(parsed)
}

fn keep_worst(errors: &mut BTreeMap<String, f64>, found: BTreeMap<String, f64>) {
    for (name, error) in found {
        let worst = errors.entry(name).or_insert(0.0);
        *worst = error.max(*worst);
    }
}

/// Everything a pack is written from. It is written twice: what the verification measured goes into the
/// manifest, which comes first in the file.
pub(crate) struct Writer<'a, 'o> {
    /// The model at each shape, the default first.
    pub(crate) imported: &'a [Imported],
    /// The same, simplified.
    pub(crate) decluttered: &'a [TypedModel],
    /// The same, rounded and planned.
    graphs: Vec<PlannedModel>,
    pub(crate) parsed: Parsed,
    onnx_bytes: &'a [u8],
    pub(crate) options: &'a mut PackOptions<'o>,
    quantizer: Quantizer,
    /// Or why the model has none.
    pub(crate) portable: Result<Portable, PackerError>,
    pub(crate) compression: Option<CompressionReport>,
    /// Where convolutions in bytes were asked for.
    pub(crate) int8: Option<Int8Report>,
    /// Where some convolutions are done in bytes.
    pub(crate) ranges: Option<Ranges>,
    /// Where channels were removed.
    pub(crate) unpruned: Option<Unpruned>,
    /// What was quantized in the file.
    pub(crate) came_quantized: Found,
}

/// A file, and what was found while it was written.
pub(crate) struct Written {
    pub(crate) bytes: Vec<u8>,
    pub(crate) plans: Vec<PlanGraph>,
    pub(crate) weights: WeightsReport,
    pub(crate) portable: Option<PortableReport>,
}

impl<'a, 'o> Writer<'a, 'o> {
    fn new(
        imported: &'a [Imported],
        decluttered: &'a [TypedModel],
        parsed: Parsed,
        onnx_bytes: &'a [u8],
        options: &'a mut PackOptions<'o>,
    ) -> Self {
        let (graphs, quantizer, compression, int8, ranges) = Default::default();
        let portable = Err(PackerError::new(ErrorKind::Internal, "not planned yet"));
        Writer {
            imported,
            decluttered,
            graphs,
            parsed,
            onnx_bytes,
            options,
            quantizer,
            portable,
            compression,
            int8,
            ranges,
            unpruned: None,
            came_quantized: Found::default(),
        }
    }

    pub(crate) fn stage(&mut self, stage: Stage, detail: &str) {
        (self.options.progress)(stage, detail);
    }

    /// `quantizer`, and the weights of the convolutions that are done in bytes by `ranges`, if there are any.
    pub(crate) fn with_bytes(
        &self,
        quantizer: Quantizer,
        ranges: Option<&Ranges>,
    ) -> Result<Quantizer, PackerError> {
        let Some(ranges) = ranges else { return Ok(quantizer) };
        let model = quantizer.apply(self.decluttered[0].clone())?;
        let rounded = guard("quantize", || {
            RoundedFilters::of(&model, ranges).map_err(|e| PackerError::model("quantize", &e))
        })?;
        Ok(quantizer.with_convolutions(rounded))
    }

    /// Plans the model with the weights that `quantizer` rounded.
    pub(crate) fn plan(&mut self, quantizer: Quantizer) -> Result<(), PackerError> {
        // What another CPU has to run is not compared here, so nothing shows that images may be taken apart.
        let by_image = self.options.target.runs_here() && self.ranges.is_none();
        let quantizer = self.with_bytes(quantizer, self.ranges.as_ref())?;
        let rounded = self.decluttered.iter().map(|model| quantizer.apply(model.clone()));
        let rounded = rounded.collect::<Result<Vec<_>, _>>()?;
        let graphs = self.imported.iter().zip(rounded);
        let ranges = self.ranges.as_ref();
        let graphs = graphs.map(|(i, model)| PlannedModel::of(i, model, &quantizer, by_image, ranges));
        self.graphs = graphs.collect::<Result<Vec<_>, _>>()?;
        self.portable = Portable::of(&self.imported[0], &self.graphs[0].simplified, &quantizer);
        self.quantizer = quantizer;
        Ok(())
    }

    pub(crate) fn write(&self, errors: BTreeMap<String, f64>) -> Result<Written, PackerError> {
        let mut builder = PackBuilder::new();
        builder.entropy(self.options.entropy);
        let mut plans: Vec<PlanGraph> = Vec::new();
        let mut known = Known::default();
        let encodings = self.quantizer.encodings();
        for graphs in &self.graphs {
            let plan = if plans.is_empty() {
                let plan = graphs.encode(encodings, &mut builder)?;
                known = Known::of(&plan, &builder)?;
                plan
            } else {
                let mut own = PackBuilder::new();
                let plan = graphs.encode(encodings, &mut own)?;
                merge::add(plan, &own, &known, &mut builder)?
            };
            plan.validate(builder.weights())?;
            builder.plan(plan.encode());
            plans.push(plan);
        }
        let portable = match &self.portable {
            Ok(portable) => {
                let (section, report) = portable.section(&builder, &plans)?;
                builder.portable(section);
                Some(report)
            }
            Err(_) => None,
        };
        for (name, bytes) in &self.parsed.assets {
            builder.asset(name, bytes.clone())?;
        }
        let weights = WeightsReport::of(self.options.weights, &self.quantizer, builder.weights())?;
        Ok(Written { bytes: builder.finish(self.manifest(errors))?, plans, weights, portable })
    }

    /// Checks plan `index` of the file just written. A batch whose images cannot be told apart that way is planned as
    /// a whole, and the file is written again.
    fn verify_tuned(
        &mut self,
        index: usize,
        written: &mut Written,
        imported: &Imported,
        errors: &mut BTreeMap<String, f64>,
    ) -> Result<(), PackerError> {
        let rounds = (self.options.seed, ROUNDS);
        let reference = self.quantizer.reference(&imported.typed)?;
        if let (Some(report), Some(_)) = (&mut self.int8, &self.ranges) {
            let found = guard("verify", || verify_int8(&written.bytes, reference, &imported.inputs, rounds))?;
            keep_worst(&mut report.relative_error, found);
            return Ok(());
        }
        let check = |bytes: &[u8]| {
            let (reference, inputs) = (reference.clone(), &imported.inputs);
            guard("verify", || verify(bytes, &Path::Tuned, reference, inputs, rounds))
        };
        let mut found = check(&written.bytes);
        if let (Err(why), Some(PlannedModel { simplified, way: Way::ByImage(_), .. })) =
            (&found, self.graphs.get(index))
        {
            self.graphs[index] = PlannedModel::whole(simplified.clone(), Some(why.clone()), None)?;
            *written = self.write(BTreeMap::new())?;
            found = check(&written.bytes);
        }
        keep_worst(errors, found?);
        Ok(())
    }

    /// Checks the portable graph of the file just written, at the pinned shapes and at one other extent of
    /// each axis that it leaves open. A graph that is wrong at another extent is fixed to the pinned shapes.
    fn verify_portable(
        &mut self,
        written: Written,
        imported: &Imported,
        errors: &mut BTreeMap<String, f64>,
    ) -> Result<(), PackerError> {
        let Ok(portable) = &self.portable else { return Ok(()) };
        let seed = self.options.seed;
        let mut check = |bytes: &[u8], reference: TypedModel, inputs: &[Port], rounds: u64| {
            let portable = || verify(bytes, &Path::Portable, reference, inputs, (seed, rounds));
            let found = guard("verify", portable)?;
            keep_worst(errors, found);
            Ok::<_, PackerError>(())
        };
        let others = portable.others(imported);
        let elsewhere = others.into_iter().try_for_each(|other| {
            let reference = self.quantizer.reference(&other.typed);
            let checked = reference.and_then(|model| check(&written.bytes, model, &other.inputs, 1));
            checked.map_err(|e| (other.name, e))
        });
        let bytes = match elsewhere {
            Ok(()) => written.bytes,
            Err((axis, e)) => {
                let why = vec![format!("{axis}: {e}")];
                self.portable = Portable::fixed(imported, &self.graphs[0].simplified, why);
                if self.portable.is_err() {
                    return Ok(());
                }
                self.write(BTreeMap::new())?.bytes
            }
        };
        check(&bytes, self.quantizer.reference(&imported.typed)?, &imported.inputs, ROUNDS)
    }

    /// How batches are planned, in a line; nothing where there is none.
    pub(crate) fn batch(&self) -> Option<String> {
        let why = self.graphs.iter().find_map(|planned| planned.as_a_whole.as_ref());
        let by_image = self.graphs.iter().any(|planned| matches!(planned.way, Way::ByImage(_)));
        let whole = why.map(|why| format!("as a whole: {why:.300}"));
        whole.or_else(|| by_image.then(|| "image by image".to_owned()))
    }

    fn manifest(&self, max_relative_error: BTreeMap<String, f64>) -> Manifest {
        let mut manifest = self.parsed.manifest.clone();
        let provenance = &mut manifest.provenance;
        provenance.source_digest = format!("blake3:{}", blake3::hash(self.onnx_bytes).to_hex());
        provenance.tract = TRACT_VERSION.to_owned();
        provenance.packer = env!("CARGO_PKG_VERSION").to_owned();
        provenance.max_relative_error = max_relative_error;
        for input in &self.options.inputs {
            if let [pin, ..] = input.pins.as_slice() {
                provenance.options.insert(format!("input {}", pin.name), input.to_string());
            }
        }
        if !self.options.target.runs_here() {
            provenance.unexecuted.push(self.options.target.to_string());
        }
        provenance.options.insert("seed".to_owned(), self.options.seed.to_string());
        provenance.options.insert("weights".to_owned(), self.options.weights.to_string());
        provenance.options.extend(self.compression.iter().flat_map(CompressionReport::told));
        provenance.options.extend(self.came_quantized.quantized.told());
        if self.options.entropy {
            provenance.options.insert("entropy".to_owned(), "true".to_owned());
        }
        if !self.quantizer.kept().is_empty() {
            provenance.options.insert("weights kept".to_owned(), self.quantizer.kept().join("; "));
        }
        let without = match &self.portable {
            Ok(portable) => portable.fixed_axes(),
            Err(e) => Some(format!("none: {e}")),
        };
        if let Some(int8) = &self.int8 {
            provenance.options.extend(int8.told());
        }
        provenance.options.extend(without.map(|why| ("portable".to_owned(), why)));
        provenance.options.extend(self.batch().map(|how| ("batch".to_owned(), how)));
        manifest
    }
}
