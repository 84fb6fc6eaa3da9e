//! Import, simplify, quantize, plan, write, verify: a model's way into a pack.

use crate::batch::Batch;
use crate::blocked::block;
use crate::compress::{CompressionReport, Contract, Int8Report};
use crate::encode::encode;
use crate::entropy::EntropyReport;
use crate::error::{ErrorKind, PackerError};
use crate::evaluate::{Dataset, bad};
use crate::import::{Imported, Port, Source, output_axes};
use crate::int8::{self, Calibration, Compute, Rounded};
use crate::manifest::{Parsed, manifest};
use crate::merge::{self, Known};
use crate::pin::{InputPin, InputPins, buckets};
use crate::portable::{Portable, PortableReport};
use crate::prune::{Prune, PruneReport, prune};
use crate::quantize::{Quantizer, Weights};
use crate::target::Target;
use crate::verify::{Path, ROUNDS, index_bound, verify, verify_bytes, verify_simplified};
use glowplug_engine::target::TRACT_VERSION;
use glowplug_pack::manifest::option_of_rows;
use glowplug_pack::plan::PlanGraph;
use glowplug_pack::{Encoding, Manifest, Pack, PackBuilder, Weight, element_count};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
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
    /// What convolutions are computed in. Int8 needs calibration, which tells the ranges of activations.
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

/// What [`pack`] did.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Report {
    /// The pack's identity.
    pub digest: String,
    /// The CPUs its default plan is for.
    pub target: String,
    /// How many plans it holds, one for each shape and target.
    pub plans: usize,
    /// How many nodes the default plan has, the bodies of loops included.
    pub nodes: usize,
    /// How many of each operator the default plan has.
    pub operators: BTreeMap<String, usize>,
    /// Bytes of the ONNX file.
    pub onnx_bytes: usize,
    /// Bytes of the pack.
    pub pack_bytes: usize,
    /// How weights are stored.
    pub weights: WeightsReport,
    /// What compression cost, where that was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compression: Option<CompressionReport>,
    /// What entropy coding did, where it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entropy: Option<EntropyReport>,
    /// The largest error of each output against the reference, relative to its largest value.
    pub max_relative_error: BTreeMap<String, f64>,
    /// Convolutions in bytes, where they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub int8: Option<Int8Report>,
    /// The portable graph, which serves where no plan does. Absent where the model has something in it that
    /// such a graph cannot say: `without_portable` tells what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub portable: Option<PortableReport>,
    /// Why there is no portable graph.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without_portable: Option<String>,
    /// How batches of a convolutional network are planned: image by image, or as a whole and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch: Option<String>,
}

/// How the weights of a pack are stored.
#[derive(Clone, Debug, Default, serde::Serialize)]
pub struct WeightsReport {
    /// `f32`, `f16`, `int8` or `auto`.
    pub encoding: String,
    /// How many weights are stored so; others are as the model has them.
    pub encoded: usize,
    /// How many weights there are.
    pub count: usize,
    /// Bytes of those that are encoded.
    pub encoded_bytes: u64,
    /// Bytes that these would take as f32.
    pub f32_bytes: u64,
    /// Weights that the encoding has no place for, each with why.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kept: Vec<String>,
}

impl WeightsReport {
    fn of(weights: Weights, quantizer: &Quantizer, table: &[Weight]) -> Result<WeightsReport, PackerError> {
        let mut report =
            WeightsReport { encoding: weights.to_string(), count: table.len(), ..WeightsReport::default() };
        report.kept = quantizer.kept().to_vec();
        for form in table.iter().map(|w| &w.form).filter(|form| form.encoding().is_some()) {
            report.encoded += 1;
            report.encoded_bytes += form.byte_len()?;
            report.f32_bytes += form.expanded()?.byte_len()?;
        }
        Ok(report)
    }
}

/// A verified pack of an ONNX model.
///
/// The process is narrowed to the instruction sets of `options.target`, so that the pack runs on other machines than
/// this one.
/// Errors: see [`ErrorKind`]; every message names the node, input or output and what to do.
/// Cost: several times the model in memory; a second or so per 100 MB.
pub fn pack(onnx_bytes: &[u8], options: &mut PackOptions<'_>) -> Result<Packed, PackerError> {
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
    drop(source);
    let mut file = Writer::new(&imported, &decluttered, parsed, onnx_bytes, options);
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

/// Axes that have several extents are open, whatever the file says of them. `sides` are the ends of one side, for
/// each shape of the model.
fn open_where_they_differ(sides: &mut [&mut Vec<Port>]) {
    let shapes: Vec<Vec<Vec<usize>>> = sides.iter().map(|s| s.iter().map(Port::shape).collect()).collect();
    for side in sides {
        for (i, port) in side.iter_mut().enumerate() {
            for (a, axis) in port.axes.iter_mut().enumerate() {
                axis.symbolic |= shapes.iter().any(|s| s[i].get(a) != Some(&axis.size));
            }
        }
    }
}

/// What tract's passes make of an imported graph.
pub(crate) struct Graphs {
    pub(crate) decluttered: TypedModel,
    pub(crate) optimized: TypedModel,
}

impl Graphs {
    /// In f32 where `ranges` of activations are not given.
    pub(crate) fn of(decluttered: TypedModel, ranges: Option<&Calibration>) -> Result<Graphs, PackerError> {
        let plan = || {
            let planned = match ranges {
                None => block(&decluttered),
                Some(ranges) => int8::rewrite(&decluttered, ranges),
            };
            let optimized = planned.and_then(|model| crate::fuse::fuse(model)?.into_optimized());
            optimized.map_err(|e| PackerError::model("plan", &e))
        };
        let optimized = guard("plan", plan)?;
        Ok(Graphs { decluttered, optimized })
    }
}

/// The model for one set of shapes, and the way in which it is planned.
pub(crate) struct Planned {
    /// Rounded, where weights are.
    simplified: TypedModel,
    way: Way,
    /// Why a batch is not planned image by image.
    as_a_whole: Option<PackerError>,
}

pub(crate) enum Way {
    Whole(Box<Graphs>),
    ByImage(Box<Batch>),
}

impl Planned {
    pub(crate) fn of(
        imported: &Imported,
        simplified: TypedModel,
        quantizer: &Quantizer,
        by_image: bool,
        ranges: Option<&Calibration>,
    ) -> Result<Planned, PackerError> {
        let batch = if by_image { Batch::of(imported, &simplified, quantizer) } else { Ok(None) };
        match batch {
            Ok(Some(batch)) => {
                Ok(Planned { simplified, way: Way::ByImage(Box::new(batch)), as_a_whole: None })
            }
            Ok(None) => Planned::whole(simplified, None, ranges),
            Err(e) => Planned::whole(simplified, Some(e), ranges),
        }
    }

    fn whole(
        simplified: TypedModel,
        as_a_whole: Option<PackerError>,
        ranges: Option<&Calibration>,
    ) -> Result<Planned, PackerError> {
        let way = Way::Whole(Box::new(Graphs::of(simplified.clone(), ranges)?));
        Ok(Planned { simplified, way, as_a_whole })
    }

    pub(crate) fn encode(
        &self,
        encodings: &[Encoding],
        builder: &mut PackBuilder,
    ) -> Result<PlanGraph, PackerError> {
        match &self.way {
            Way::Whole(graphs) => encode(&graphs.decluttered, &graphs.optimized, encodings, builder),
            Way::ByImage(batch) => batch.encode(encodings, builder),
        }
    }
}

pub(crate) fn simplify(typed: &TypedModel) -> Result<TypedModel, PackerError> {
    guard("simplify", || typed.clone().into_decluttered().map_err(|e| PackerError::model("simplify", &e)))
}

/// tract panics on some models that contradict themselves. Such a model is an error, not the end of a tool.
pub(crate) fn guard<T>(stage: &str, f: impl FnOnce() -> Result<T, PackerError>) -> Result<T, PackerError> {
    catch_unwind(AssertUnwindSafe(f)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given");
        Err(PackerError::new(
            ErrorKind::Model,
            format!("{stage}: the model broke an assumption of tract: {text}"),
        ))
    })
}

fn output_ports(imported: &Imported) -> Result<Vec<Port>, PackerError> {
    let outlets = imported.typed.outputs.iter().zip(&imported.outputs);
    let port = |(outlet, declared): (&tract_core::internal::OutletId, &tract_onnx::pb::ValueInfoProto)| {
        let name = declared.name.clone();
        let fact = imported.typed.outlet_fact(*outlet).map_err(|e| PackerError::model("import", &e))?;
        let unsupported =
            |what: String| PackerError::new(ErrorKind::Unsupported, format!("output {name:?} {what}"));
        let found = glowplug_pack::Dtype::ALL
            .into_iter()
            .find(|d| glowplug_engine::datum_type(*d) == fact.datum_type);
        let dtype = found.ok_or_else(|| unsupported(format!("is of type {:?}", fact.datum_type)))?;
        let shape = fact.shape.as_concrete();
        let shape = shape.ok_or_else(|| {
            let text = "which depends on the input's values: cut the model before the operator that gives it";
            unsupported(format!("has the open shape {:?}, {text}", fact.shape))
        })?;
        if element_count(shape).is_none() {
            return Err(unsupported(format!("has the shape {shape:?}, too large")));
        }
        let axes = output_axes(declared, shape);
        Ok(Port { name, dtype, axes })
    };
    outlets.map(port).collect()
}

/// Everything a pack is written from. It is written twice: what the verification measured goes into the
/// manifest, which comes first in the file.
pub(crate) struct Writer<'a, 'o> {
    /// The model at each shape, the default first.
    pub(crate) imported: &'a [Imported],
    /// The same, simplified.
    pub(crate) decluttered: &'a [TypedModel],
    /// The same, rounded and planned.
    graphs: Vec<Planned>,
    pub(crate) parsed: Parsed,
    onnx_bytes: &'a [u8],
    pub(crate) options: &'a mut PackOptions<'o>,
    quantizer: Quantizer,
    /// Or why the model has none.
    portable: Result<Portable, PackerError>,
    pub(crate) compression: Option<CompressionReport>,
    /// Where convolutions in bytes were asked for.
    pub(crate) int8: Option<Int8Report>,
    /// Where some convolutions are done in bytes.
    pub(crate) ranges: Option<Calibration>,
    /// Where channels were removed.
    pub(crate) unpruned: Option<Unpruned>,
}

/// What a pruned model is compared with, at the default shapes.
pub(crate) struct Unpruned {
    pub(crate) float: Variant,
    /// The same channels gone, and no weight re-solved.
    pub(crate) unrestored: Option<Variant>,
    pub(crate) report: PruneReport,
}

/// Another model of the same inputs and outputs: imported, and simplified.
pub(crate) struct Variant {
    pub(crate) imported: Imported,
    pub(crate) simplified: TypedModel,
}

impl Variant {
    fn of(source: &Source, pins: &[InputPin]) -> Result<Variant, PackerError> {
        let imported = guard("import", || source.import(pins))?;
        let simplified = simplify(&imported.typed)?;
        Ok(Variant { imported, simplified })
    }
}

impl Unpruned {
    /// The pruned model, and what it is compared with.
    fn of(
        source: &Source,
        pins: &[InputPin],
        how: Prune,
        options: &mut PackOptions<'_>,
    ) -> Result<(Source, Unpruned), PackerError> {
        let data = options.calibration.ok_or_else(|| bad("pruning needs calibration data"))?;
        let progress = &mut *options.progress;
        let pruned = prune(source, pins, data, how, &mut |detail| progress(Stage::Import, detail))?;
        let float = Variant::of(source, pins)?;
        // It is for measuring only.
        let unrestored = pruned.unrestored.filter(|_| options.contract.accuracy.is_some());
        let unrestored = unrestored.map(|source| Variant::of(&source, pins)).transpose()?;
        Ok((pruned.source, Unpruned { float, unrestored, report: pruned.report }))
    }
}

/// A file, and what was found while it was written.
pub(crate) struct Written {
    pub(crate) bytes: Vec<u8>,
    plans: Vec<PlanGraph>,
    weights: WeightsReport,
    portable: Option<PortableReport>,
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
        }
    }

    pub(crate) fn stage(&mut self, stage: Stage, detail: &str) {
        (self.options.progress)(stage, detail);
    }

    /// `quantizer`, and the weights of the convolutions that are done in bytes by `ranges`, if there are any.
    pub(crate) fn with_bytes(
        &self,
        quantizer: Quantizer,
        ranges: Option<&Calibration>,
    ) -> Result<Quantizer, PackerError> {
        let Some(ranges) = ranges else { return Ok(quantizer) };
        let model = quantizer.apply(self.decluttered[0].clone())?;
        let rounded = guard("quantize", || {
            Rounded::of(&model, ranges).map_err(|e| PackerError::model("quantize", &e))
        })?;
        Ok(quantizer.with_bytes(rounded))
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
        let graphs = graphs.map(|(i, model)| Planned::of(i, model, &quantizer, by_image, ranges));
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
            let found =
                guard("verify", || verify_bytes(&written.bytes, reference, &imported.inputs, rounds))?;
            keep_worst(&mut report.relative_error, found);
            return Ok(());
        }
        let check = |bytes: &[u8]| {
            let (reference, inputs) = (reference.clone(), &imported.inputs);
            guard("verify", || verify(bytes, &Path::Tuned, reference, inputs, rounds))
        };
        let mut found = check(&written.bytes);
        if let (Err(why), Some(Planned { simplified, way: Way::ByImage(_), .. })) =
            (&found, self.graphs.get(index))
        {
            self.graphs[index] = Planned::whole(simplified.clone(), Some(why.clone()), None)?;
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
    fn batch(&self) -> Option<String> {
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

impl Report {
    /// What changed by merging other plans into the pack. Errors: `bytes` are no pack.
    pub fn refresh(&mut self, bytes: &[u8]) -> Result<(), PackerError> {
        let pack = Pack::parse(bytes)?;
        (self.digest, self.pack_bytes, self.plans) = (pack.digest(), bytes.len(), pack.plans().count());
        self.max_relative_error.clone_from(&pack.manifest().provenance.max_relative_error);
        if self.entropy.is_some() {
            self.entropy = Some(EntropyReport::of(bytes)?);
        }
        Ok(())
    }
}

fn report(
    written: &Written,
    onnx_bytes: usize,
    max_relative_error: BTreeMap<String, f64>,
    file: &Writer<'_, '_>,
) -> Result<Report, PackerError> {
    let Written { bytes, plans, weights, portable } = written;
    let mut operators = BTreeMap::new();
    let nodes =
        |plan: &PlanGraph| plan.nodes.len() + plan.bodies.iter().map(|b| b.nodes.len()).sum::<usize>();
    let default = plans.first();
    let bodies = default.into_iter().flat_map(|p| &p.bodies).flat_map(|b| &b.nodes);
    for node in default.into_iter().flat_map(|p| &p.nodes).chain(bodies) {
        *operators.entry(node.op.name().to_owned()).or_insert(0) += 1;
    }
    Ok(Report {
        digest: Pack::parse(bytes)?.digest(),
        target: default.map(|p| p.head.target.clone()).unwrap_or_default(),
        plans: plans.len(),
        nodes: default.map(nodes).unwrap_or_default(),
        operators,
        onnx_bytes,
        pack_bytes: bytes.len(),
        weights: weights.clone(),
        compression: file.compression.clone(),
        entropy: file.options.entropy.then(|| EntropyReport::of(bytes)).transpose()?,
        max_relative_error,
        int8: file.int8.clone(),
        portable: portable.clone(),
        without_portable: file.portable.as_ref().err().map(ToString::to_string),
        batch: file.batch(),
    })
}
