//! Every operator that plans know, and every variant of it that ONNX can say, against ONNX Runtime: tests/data/ops.

use anyhow::{Context, Result, ensure};
use glowplug_cli::npz;
use glowplug_pack::plan::{Fused, Op, PlanGraph};
use glowplug_pack::{Buffer, Pack, Region};
use glowplug_processing::v2::NamedTensor;
use glowplug_tests::{assert_close, glowplug_ok, repo};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

/// Floats may differ by this much of the largest value in the reference.
const TOLERANCE: f32 = 1e-4;

/// What calibrated models are planned with, which operators by themselves are not.
const IN_BYTES: &str = "`pack --compute int8` writes it: tests/all/int8.rs compares it with whole numbers";

/// Variants that no ONNX model of ours leads to, with why.
const UNREACHED: [(&str, &str); 14] = [
    ("DepthwiseConv", "written by earlier packers; the engine's tests/plans.rs runs it"),
    ("DirectConv", "the same"),
    ("Fused::LeakyRelu", "written by earlier packers, which left LeakyRelu to the product before it"),
    ("QuantizeImage", IN_BYTES),
    ("DequantizeImage", IN_BYTES),
    ("Int8Conv", IN_BYTES),
    ("Int8DepthwiseConv", IN_BYTES),
    ("Int8MaxPool", IN_BYTES),
    ("Int8Function::HardSwish", IN_BYTES),
    ("Int8Function::Identity", IN_BYTES),
    ("Fused::AddTensor", "what tract fuses on other CPUs; here a product of ours takes its residual"),
    ("Function::RoundHalfUp", "ONNX rounds halves to even"),
    ("BinaryOp::Div", "the optimizer multiplies by the reciprocal"),
    ("Comparison::NotEqual", "ONNX has Not of Equal"),
];

#[test]
fn every_operator_answers_as_onnx_runtime_does() -> Result<()> {
    let table = std::fs::read_to_string(repo("tests/data/ops/ops.json"))?;
    let table: Value = serde_json::from_str(&table)?;
    let rows = table["models"].as_array().context("no list of models")?;
    let (mut variants, mut failed) = (BTreeSet::new(), Vec::new());
    for row in rows {
        let model = row["model"].as_str().context("a row without a model")?;
        match check(model, &row["plan"]) {
            Ok(seen) => variants.extend(seen),
            Err(e) => failed.push(format!("{model}: {e:#}")),
        }
    }
    ensure!(failed.is_empty(), "{} of {} models:\n{}", failed.len(), rows.len(), failed.join("\n"));
    let known = known()?;
    let expected = BTreeSet::from(UNREACHED.map(|(name, _why)| name.to_owned()));
    let missing: BTreeSet<_> = known.difference(&variants).cloned().collect();
    ensure!(missing == expected, "in no golden: {missing:?}, expected {expected:?}");
    Ok(())
}

/// Packs and runs one model and compares; gives the operators of its plan and their variants.
fn check(model: &str, expected: &Value) -> Result<BTreeSet<String>> {
    let temp = tempfile::tempdir()?;
    let path = |name: &str| temp.path().join(name).display().to_string();
    let (pack, input, output) = (path("m.glow"), path("in.npz"), path("out.npz"));
    let golden = |ending: &str| repo("tests/data/ops").join(format!("{model}.{ending}"));
    let report = glowplug_ok(&["pack", &golden("onnx").display().to_string(), "-o", &pack, "--json"])?;
    let report: Value = serde_json::from_str(&report)?;

    let (inputs, wanted) = parts(npz::read(&golden("npz"))?)?;
    npz::write(Path::new(&input), &inputs)?;
    glowplug_ok(&["run", &pack, "--input", &input, "--output", &output])?;
    assert_close(&npz::read(Path::new(&output))?, &wanted, TOLERANCE)?;

    let variants = variants(&pack)?;
    for op in expected.as_array().context("no operators in the table")? {
        let op = op.as_str().context("an operator that is no name")?;
        ensure!(variants.contains(op), "no {op} in {}", report["operators"]);
    }
    for op in report["operators"].as_object().context("no operators in the report")?.keys() {
        ensure!(variants.contains(op), "{op} is reported and not in the plan");
    }
    Ok(variants)
}

/// `in.<name>` and `out.<name>`, each as the model calls it.
pub(crate) fn parts(tensors: Vec<NamedTensor>) -> Result<(Vec<NamedTensor>, Vec<NamedTensor>)> {
    let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
    for NamedTensor { name, tensor } in tensors {
        let (side, name) = name.split_once('.').with_context(|| format!("a member called {name:?}"))?;
        let side = if side == "in" { &mut inputs } else { &mut outputs };
        side.push(NamedTensor { name: name.to_owned(), tensor });
    }
    Ok((inputs, outputs))
}

/// Names of all operators of the pack's plan and of its loops, and the variants of what they hold.
fn variants(pack: &str) -> Result<BTreeSet<String>> {
    let region = Arc::new(Region::complete(Buffer::copy_of(&std::fs::read(pack)?)?));
    let pack = Pack::from_complete(&region)?;
    let plan = pack.plans().next().context("no plan")?;
    let plan = PlanGraph::decode(plan, pack.weights())?;
    let bodies = plan.bodies.iter().flat_map(|body| &body.nodes);
    let mut names = BTreeSet::new();
    for node in plan.nodes.iter().chain(bodies) {
        names.insert(node.op.name().to_owned());
        names.extend(held(&node.op));
    }
    Ok(names)
}

/// `Enum::Variant` of everything that an operator holds.
fn held(op: &Op) -> Vec<String> {
    let word = |text: String| text.split([' ', '{', '(']).next().unwrap_or_default().to_owned();
    let fused = |f: &Fused| {
        let op = match f {
            Fused::Scalar { op, .. } | Fused::PerRow { op, .. } | Fused::PerColumn { op, .. } => {
                Some(format!("BinaryOp::{op:?}"))
            }
            Fused::AddTensor { .. } | Fused::LeakyRelu { .. } => None,
        };
        [Some(format!("Fused::{}", word(format!("{f:?}")))), op].into_iter().flatten().collect::<Vec<_>>()
    };
    match op {
        Op::MatMul { a, b, fused: f, .. } => {
            let operands = [a, b].map(|o| format!("Operand::{}", word(format!("{o:?}"))));
            operands.into_iter().chain(f.iter().flat_map(fused)).collect()
        }
        Op::Chain { steps } => {
            let step = |s: &glowplug_pack::plan::Step| {
                [format!("BinaryOp::{:?}", s.op), format!("Share::{:?}", s.share)]
            };
            steps.iter().flat_map(step).collect()
        }
        Op::BlockedConv { steps, .. } | Op::BlockedDepthwiseConv { steps, .. } => {
            steps.iter().map(|s| format!("ConvStep::{}", word(format!("{s:?}")))).collect()
        }
        Op::Binary { op } => vec![format!("BinaryOp::{op:?}")],
        Op::Unary { op } => vec![format!("UnaryOp::{op:?}")],
        Op::Compare { op } => vec![format!("Comparison::{op:?}")],
        Op::Logic { op } => vec![format!("Logic::{op:?}")],
        Op::Function { op } => vec![format!("Function::{op:?}")],
        Op::Reduce { reducer, .. } => vec![format!("Reducer::{reducer:?}")],
        Op::Pad { mode, .. } => vec![format!("PadMode::{}", word(format!("{mode:?}")))],
        Op::Dense { activation, .. } => vec![format!("Activation::{activation:?}")],
        Op::Scan { inputs, .. } => {
            inputs.iter().map(|i| format!("ScanInput::{}", word(format!("{i:?}")))).collect()
        }
        _ => vec![],
    }
}

/// All operators and variants, read off the tables of tags in the source: a new one without a golden is found.
fn known() -> Result<BTreeSet<String>> {
    let source = std::fs::read_to_string(repo("shared/pack/src/plan/op.rs"))?;
    let mut names = BTreeSet::new();
    for table in source.split("wire_enum!(").skip(1) {
        let (table, _) = table.split_once(");").context("a table that does not end")?;
        let (name, rows) = table.split_once('{').context("a table without rows")?;
        for row in rows.split("=> ").skip(1) {
            let variant = row.split([' ', '{']).next().context("a row without a variant")?;
            let prefix = if name.trim() == "Op" { String::new() } else { format!("{}::", name.trim()) };
            names.insert(format!("{prefix}{variant}"));
        }
    }
    ensure!(names.contains("MatMul") && names.contains("UnaryOp::Gelu"), "tables of another form: {names:?}");
    Ok(names)
}
