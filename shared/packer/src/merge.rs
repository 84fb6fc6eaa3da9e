//! Several plans over one set of weights: each weight is stored once, in the form that the default plan reads.
//!
//! tract chooses a kernel for each product by its shape, and kernels differ in how they want the left side cut. A
//! plan for another shape would bring a second copy of every weight whose product it gives to another kernel. It is
//! given to the default plan's kernel instead, which halves the pack and is often faster (MiniLM at 16 tokens, when its
//! products were tract's: 6.8 ms instead of 10.0). A plan for another target takes a kernel of its own for panels of the same height.

use crate::error::{ErrorKind, PackerError};
use glowplug_pack::manifest::Provenance;
use glowplug_pack::plan::{Fact, Kernel, Node, Op, Operand, PanelFormat, PlanGraph};
use glowplug_pack::{Form, Manifest, Pack, PackBuilder, PackError, Region, Weight, WeightId};
use std::collections::HashMap;
use std::ops::Range;

/// A matrix whatever its panels: its content, depth and rows.
type Matrix = (blake3::Hash, usize, usize);

/// How the default plan reads each matrix.
#[derive(Default)]
pub(crate) struct Known {
    forms: HashMap<Matrix, (WeightId, Kernel)>,
    /// Whether the plan to be added is for another target: it has kernels of its own for panels of one height.
    foreign: bool,
}

impl Known {
    /// The matrices of the default `plan`.
    pub(crate) fn of(plan: &PlanGraph, builder: &dyn Source) -> Result<Known, PackError> {
        let mut known = Known::default();
        for node in plan.bodies.iter().flat_map(|b| &b.nodes).chain(&plan.nodes) {
            if let Some((kernel, id)) = left_weight(node)
                && let Some(matrix) = matrix(builder, id)?
                && let Some(kernel) = plan.kernels.get(kernel)
            {
                known.forms.entry(matrix).or_insert_with(|| (id, kernel.clone()));
            }
        }
        Ok(known)
    }
}

/// Where weights come from.
pub(crate) trait Source {
    /// A weight and its bytes. Errors: no such weight.
    fn get(&self, id: WeightId) -> Result<(&Weight, &[u8]), PackError>;
}

impl Source for PackBuilder {
    fn get(&self, id: WeightId) -> Result<(&Weight, &[u8]), PackError> {
        let found = usize::try_from(id.0).ok().and_then(|i| self.weights().get(i)).zip(self.weight_bytes(id));
        found.ok_or_else(|| PackError::corrupt(format!("weight {} of {}", id.0, self.weights().len())))
    }
}

/// A finished pack.
struct File {
    pack: Pack,
    region: Region,
}

impl File {
    fn open(bytes: &[u8]) -> Result<File, PackError> {
        let (pack, region) = Pack::open(bytes)?;
        Ok(File { pack, region })
    }

    fn slice(&self, range: Range<u64>) -> Result<&[u8], PackError> {
        self.region.wait(range, None)
    }
}

impl Source for File {
    fn get(&self, id: WeightId) -> Result<(&Weight, &[u8]), PackError> {
        Ok((self.pack.weight(id)?, self.slice(self.pack.weight_range(id)?)?))
    }
}

/// One pack with the plans of both, those of `other` tried first: packs of one model for different targets. It is
/// entropy-coded where `base` is.
///
/// Errors: a file that is no pack; packs of other inputs or outputs. Cost: a copy of both.
pub fn merge(base: &[u8], other: &[u8]) -> Result<Vec<u8>, PackerError> {
    let (base, other) = (File::open(base)?, File::open(other)?);
    let (manifest, theirs) = (base.pack.manifest(), other.pack.manifest());
    if (&manifest.inputs, &manifest.outputs, &manifest.buckets)
        != (&theirs.inputs, &theirs.outputs, &theirs.buckets)
    {
        return Err(PackerError::new(
            ErrorKind::Manifest,
            "the packs take or give other tensors: nothing to merge",
        ));
    }
    let mut builder = PackBuilder::new();
    builder.entropy(base.pack.header().is_coded());
    // In the table's order, so that what else refers to weights may stay as it is.
    for (i, weight) in base.pack.weights().iter().enumerate() {
        let (_, bytes) = base.get(WeightId(u32::try_from(i).unwrap_or(u32::MAX)))?;
        builder.weight(&weight.name, weight.place, weight.form.clone(), bytes)?;
    }
    if let Some(range) = base.pack.portable_range() {
        builder.portable(base.slice(range)?.to_vec());
    }
    let mut plans = Vec::new();
    let mut known = Known::default();
    for file in [&base, &other] {
        let mut own = Vec::new();
        for section in file.pack.plans() {
            let plan = PlanGraph::decode(section, file.pack.weights())?;
            own.push(add(plan, file, &known, &mut builder)?);
        }
        if let [default, ..] = own.as_slice() {
            known = Known { foreign: true, ..Known::of(default, &builder)? };
        }
        plans.splice(0..0, own);
    }
    let mut written = Vec::new();
    for plan in plans {
        plan.validate(builder.weights())?;
        let section = plan.encode();
        // Where a target has nothing of its own for a model, its plan is the other's.
        if !written.contains(&section) {
            builder.plan(section.clone());
            written.push(section);
        }
    }
    for name in manifest.assets.keys() {
        builder.asset(name, base.slice(base.pack.asset_range(name)?)?.to_vec())?;
    }
    Ok(builder.finish(with_provenance(manifest.clone(), &theirs.provenance))?)
}

/// `manifest` with what was measured of both.
fn with_provenance(mut manifest: Manifest, theirs: &Provenance) -> Manifest {
    let ours = &mut manifest.provenance;
    ours.unexecuted.extend(theirs.unexecuted.iter().cloned());
    for (name, error) in &theirs.max_relative_error {
        let worst = ours.max_relative_error.entry(name.clone()).or_insert(0.0);
        *worst = error.max(*worst);
    }
    manifest
}

/// The kernel and the left side of a product with one weight.
fn left_weight(node: &Node) -> Option<(usize, WeightId)> {
    match &node.op {
        Op::MatMul { kernel, a: Operand::Weight { weight }, .. } => Some((*kernel, *weight)),
        _ => None,
    }
}

/// What a weight in panels holds.
fn matrix(source: &dyn Source, id: WeightId) -> Result<Option<Matrix>, PackError> {
    let (Weight { form: Form::Panels { dtype, k, mn, r, panel_bytes }, .. }, bytes) = source.get(id)? else {
        return Ok(None);
    };
    let size = dtype.size();
    let mut hasher = blake3::Hasher::new();
    for row in 0..*mn {
        let panel = &bytes[row / r * panel_bytes..];
        let column = (0..*k).map(|depth| &panel[(depth * r + row % r) * size..][..size]);
        let values: Vec<u8> = column.flatten().copied().collect();
        hasher.update(&values);
    }
    Ok(Some((hasher.finalize(), *k, *mn)))
}

/// Adds `plan`, whose weights are in `from`, to `into`, its products in the forms of `known` where they can be.
pub(crate) fn add(
    mut plan: PlanGraph,
    from: &dyn Source,
    known: &Known,
    into: &mut PackBuilder,
) -> Result<PlanGraph, PackerError> {
    let PlanGraph { kernels, bodies, nodes, .. } = &mut plan;
    let mut moved = HashMap::new();
    for nodes in bodies.iter_mut().map(|b| &mut b.nodes).chain([nodes]) {
        let swaps = swaps(nodes, kernels, from, known)?;
        let kept = |node: usize| swaps.iter().all(|s| s.product != node);
        let ids =
            nodes.iter_mut().enumerate().filter(|(i, _)| kept(*i)).flat_map(|(_, n)| n.op.weights_mut());
        for id in ids {
            let new = match moved.get(id) {
                Some(new) => *new,
                None => {
                    let (weight, bytes) = from.get(*id)?;
                    into.weight(&weight.name, weight.place, weight.form.clone(), bytes)?
                }
            };
            moved.insert(*id, new);
            *id = new;
        }
        for swap in swaps {
            swap.apply(nodes, kernels);
        }
    }
    drop_unused_kernels(&mut plan);
    Ok(plan)
}

/// A product that changes its kernel.
struct Swap {
    product: usize,
    /// What makes its right side.
    right: usize,
    weight: WeightId,
    kernel: Kernel,
}

impl Swap {
    fn apply(self, nodes: &mut [Node], kernels: &mut Vec<Kernel>) {
        let kernel = kernels.iter().position(|k| *k == self.kernel).unwrap_or_else(|| {
            kernels.push(self.kernel.clone());
            kernels.len() - 1
        });
        if let Op::MatMul { kernel: used, a, .. } = &mut nodes[self.product].op {
            (*used, *a) = (kernel, Operand::Weight { weight: self.weight });
        }
        let right = &mut nodes[self.right];
        if let (
            Op::Prepack { format, .. } | Op::Im2col { format, .. },
            [Fact::Panels { format: given, .. }],
        ) = (&mut right.op, right.outputs.as_mut_slice())
        {
            (*format, *given) = (self.kernel.b, self.kernel.b);
        }
    }
}

/// The products among `nodes`, those of a plan or of one of its loops, whose weight the default plan reads in another
/// form. All that share a right side change together, or none does.
fn swaps(
    nodes: &[Node],
    kernels: &[Kernel],
    from: &dyn Source,
    known: &Known,
) -> Result<Vec<Swap>, PackError> {
    let mut by_right: HashMap<usize, Vec<Option<Swap>>> = HashMap::new();
    for (index, node) in nodes.iter().enumerate() {
        for input in &node.inputs {
            if matches!(nodes[input.node].op, Op::Prepack { .. } | Op::Im2col { .. }) {
                let swap = swap((nodes, index), kernels, from, known)?.filter(|s| s.right == input.node);
                by_right.entry(input.node).or_default().push(swap);
            }
        }
    }
    let format = |s: &Swap| -> PanelFormat { s.kernel.b };
    let agreed = by_right.into_values().filter_map(|group| {
        let group: Vec<Swap> = group.into_iter().collect::<Option<_>>()?;
        let first = group.first().map(format)?;
        group.iter().all(|s| format(s) == first).then_some(group)
    });
    Ok(agreed.flatten().collect())
}

/// What `nodes[product]` would change to.
fn swap(
    (nodes, product): (&[Node], usize),
    kernels: &[Kernel],
    from: &dyn Source,
    known: &Known,
) -> Result<Option<Swap>, PackError> {
    let node = &nodes[product];
    let (Some((_, id)), Op::MatMul { b: Operand::Input { index, .. }, .. }) = (left_weight(node), &node.op)
    else {
        return Ok(None);
    };
    let (Some(right), Some(matrix)) = (node.inputs.get(*index), matrix(from, id)?) else { return Ok(None) };
    let Some((weight, theirs)) = known.forms.get(&matrix) else { return Ok(None) };
    let same_height = |k: &&Kernel| (k.a.r, k.a.dtype) == (theirs.a.r, theirs.a.dtype);
    let kernel = if known.foreign { kernels.iter().find(same_height) } else { Some(theirs) };
    let kernel = kernel.cloned();
    Ok(kernel.map(|kernel| Swap { product, right: right.node, weight: *weight, kernel }))
}

/// Kernels that no product calls any more: a CPU without them would refuse the plan for nothing.
fn drop_unused_kernels(plan: &mut PlanGraph) {
    let bodies = plan.bodies.iter_mut().flat_map(|b| &mut b.nodes);
    let mut used: Vec<&mut usize> = bodies
        .chain(&mut plan.nodes)
        .filter_map(|n| match &mut n.op {
            Op::MatMul { kernel, .. } => Some(kernel),
            _ => None,
        })
        .collect();
    let mut kept = Vec::new();
    for index in &mut used {
        let kernel = plan.kernels[**index].clone();
        **index = kept.iter().position(|k| *k == kernel).unwrap_or_else(|| {
            kept.push(kernel);
            kept.len() - 1
        });
    }
    plan.kernels = kept;
}
