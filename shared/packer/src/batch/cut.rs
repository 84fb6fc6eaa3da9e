//! Where a network is cut in two: what is done image by image, and what all images do together.

use super::{Wire, Wires};
use std::collections::HashMap;
use tract_core::internal::*;
use tract_core::ops::cnn::{Conv, Deconv, PoolSpec};
use tract_core::ops::einsum::EinSum;
use tract_core::ops::scan::Scan;

/// A weight that an image reads for fewer positions than this is read for all images at once: bringing it costs more
/// than the product, and the images' values are few.
const FEW_POSITIONS: usize = 16;

/// The two parts of a network.
pub(super) struct Cut {
    /// For one image.
    pub(super) body: TypedModel,
    /// For the whole batch, if there is anything to do for it.
    pub(super) tail: Option<TypedModel>,
    pub(super) wires: Wires,
}

/// What a node means for the cut.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// A weight meets many positions of each image.
    Many,
    /// As `Many`, over a window.
    Window,
    /// A weight meets few positions of each image.
    Few,
    /// A loop, which cannot be within a loop.
    Loop,
    /// Anything else goes with what it reads.
    Any,
}

impl Cut {
    /// `whole` takes `images` at once, `one` is the same network for one image.
    ///
    /// Errors: something that is not as many times as large for the batch as for one image; a loop before a
    /// convolution.
    pub(super) fn of(whole: &TypedModel, one: TypedModel, images: usize) -> TractResult<Cut> {
        let graph = Graph::of(whole, images)?;
        let tail = graph.tail()?;
        let matching = Matching::of(whole, &one, images);
        let (mut taken, mut given) = (Vec::new(), Vec::new());
        for id in &graph.order {
            for outlet in outlets(whole, *id).filter(|_| graph.depends[*id] && !tail[*id]) {
                matching.check(outlet)?;
                let crosses = whole.outlet_successors(outlet).iter().any(|to| tail[to.node]);
                let is_input = whole.inputs.contains(&outlet);
                if crosses {
                    taken.push(outlet);
                }
                if (crosses && !is_input) || whole.outputs.contains(&outlet) {
                    given.push(outlet);
                }
            }
        }
        let position = |of: &[OutletId], outlet: &OutletId| of.iter().position(|o| o == outlet);
        let tail_outputs: Vec<OutletId> =
            whole.outputs.iter().copied().filter(|o| position(&given, o).is_none()).collect();
        let tail_inputs = taken.iter().map(|o| {
            let input = position(&whole.inputs, o).map(Wire::Input);
            input.or_else(|| position(&given, o).map(Wire::Loop)).context("a value from nowhere")
        });
        let outputs = whole.outputs.iter().map(|o| {
            let from_loop = position(&given, o).map(Wire::Loop);
            from_loop.or_else(|| position(&tail_outputs, o).map(Wire::Tail)).context("an output from nowhere")
        });
        let wires = Wires {
            tail: tail_inputs.collect::<TractResult<_>>()?,
            outputs: outputs.collect::<TractResult<_>>()?,
        };
        ensure!(!given.is_empty(), "nothing is done image by image");
        let body_outputs = given.iter().map(|o| matching.image(*o)).collect::<TractResult<Vec<_>>>()?;
        let tail = (!tail_outputs.is_empty()).then(|| behind(whole, &taken, &tail_outputs)).transpose()?;
        Ok(Cut { body: one.with_output_outlets(&body_outputs)?, tail, wires })
    }
}

fn outlets(model: &TypedModel, node: usize) -> impl Iterator<Item = OutletId> {
    (0..model.node(node).outputs.len()).map(move |slot| OutletId::new(node, slot))
}

/// `model` from `inputs` to `outputs`.
fn behind(model: &TypedModel, inputs: &[OutletId], outputs: &[OutletId]) -> TractResult<TypedModel> {
    let mut model = model.clone();
    let mut sources = Vec::new();
    for (i, outlet) in inputs.iter().enumerate() {
        let fact = model.outlet_fact(*outlet)?.without_value();
        let name = format!("{}.batch.{i}", model.node(outlet.node).name);
        let source = model.add_source(name, fact)?;
        for inlet in model.outlet_successors(*outlet).to_vec() {
            model.add_edge(source, inlet)?;
        }
        sources.push(source);
    }
    model.set_input_outlets(&sources)?;
    model.select_output_outlets(outputs)?;
    Ok(model)
}

/// The batch's graph, as far as its outputs need it.
struct Graph<'a> {
    model: &'a TypedModel,
    images: usize,
    order: Vec<usize>,
    /// By node: whether it depends on an input.
    depends: Vec<bool>,
}

impl<'a> Graph<'a> {
    fn of(model: &'a TypedModel, images: usize) -> TractResult<Graph<'a>> {
        let order = model.eval_order()?;
        let mut depends = vec![false; model.nodes.len()];
        for id in &order {
            let is_input = model.inputs.iter().any(|o| o.node == *id);
            depends[*id] = is_input || model.node(*id).inputs.iter().any(|o| depends[o.node]);
        }
        Ok(Graph { model, images, order, depends })
    }

    /// By node: whether it is done for all images together.
    fn tail(&self) -> TractResult<Vec<bool>> {
        let roles: Vec<Role> = self.model.nodes.iter().map(|node| self.role(node)).collect();
        // Whether many positions come after it.
        let mut before = vec![false; roles.len()];
        for id in self.order.iter().rev() {
            let many = before[*id] || matches!(roles[*id], Role::Many | Role::Window);
            self.model.node(*id).inputs.iter().for_each(|o| before[o.node] |= many);
        }
        let mut tail = vec![false; roles.len()];
        for id in &self.order {
            let node = self.model.node(*id);
            let starts = roles[*id] == Role::Loop || (roles[*id] == Role::Few && !before[*id]);
            tail[*id] = self.depends[*id] && (starts || node.inputs.iter().any(|o| tail[o.node]));
            ensure!(
                !(tail[*id] && roles[*id] == Role::Window),
                "the convolution {:?} comes after a loop",
                node.name
            );
        }
        Ok(tail)
    }

    fn role(&self, node: &TypedNode) -> Role {
        if node.op_is::<Scan>() {
            return Role::Loop;
        }
        let window = node.op_as::<Conv>().map(|conv| &conv.pool_spec);
        let window = window.or_else(|| node.op_as::<Deconv>().map(|deconv| &deconv.pool_spec));
        let found = match window {
            Some(spec) => self.positions(node, spec),
            None => self.rows(node),
        };
        match (found, window) {
            (None, _) => Role::Any,
            (Some(positions), _) if positions < FEW_POSITIONS => Role::Few,
            (Some(_), Some(_)) => Role::Window,
            (Some(_), None) => Role::Many,
        }
    }

    /// How many positions a convolution gives for each image.
    fn positions(&self, node: &TypedNode, spec: &PoolSpec) -> Option<usize> {
        let shape = node.outputs[0].fact.shape.as_concrete()?;
        let first = spec.data_format.h_axis();
        Some(shape.get(first..first + spec.rank())?.iter().product())
    }

    /// How many rows of each image a product multiplies with its weight, if it has one.
    fn rows(&self, node: &TypedNode) -> Option<usize> {
        let product = node.op_as::<EinSum>()?;
        let [a, b] = node.inputs[..] else { return None };
        let weight = match (self.depends[a.node], self.depends[b.node]) {
            (true, false) => 1,
            (false, true) => 0,
            _ => return None,
        };
        let shape = node.outputs[0].fact.shape.as_concrete()?;
        let rows = product.axes.iter_all_axes().filter(|axis| axis.inputs[weight].is_empty());
        let rows: usize = rows.flat_map(|axis| &axis.outputs[0]).map(|i| shape[*i]).product();
        Some(rows.div_ceil(self.images))
    }
}

/// A value's shape for the batch, and what it is for one image.
struct Shapes<'a> {
    whole: &'a [usize],
    /// In the model for one image.
    outlet: OutletId,
    one: &'a [usize],
}

/// The batch's values among those of one image, by their names.
struct Matching<'a> {
    whole: &'a TypedModel,
    one: HashMap<&'a str, &'a TypedNode>,
    images: usize,
}

impl<'a> Matching<'a> {
    fn of(whole: &'a TypedModel, one: &'a TypedModel, images: usize) -> Matching<'a> {
        let one = one.nodes.iter().map(|node| (&*node.name, node)).collect();
        Matching { whole, one, images }
    }

    /// The shapes of a value, for the batch and for one image, where it has the same name in both.
    fn shapes(&self, outlet: OutletId) -> TractResult<Option<Shapes<'_>>> {
        let node = self.whole.node(outlet.node);
        let Some(same) = self.one.get(&*node.name) else { return Ok(None) };
        let Some(one) = same.outputs.get(outlet.slot) else { return Ok(None) };
        let whole = node.outputs[outlet.slot].fact.shape.as_concrete().context("an open shape")?;
        let one = one.fact.shape.as_concrete().context("an open shape")?;
        Ok(Some(Shapes { whole, outlet: OutletId::new(same.id, outlet.slot), one }))
    }

    /// Errors: a value that is not as many times as large as for one image.
    fn check(&self, outlet: OutletId) -> TractResult<()> {
        let Some(Shapes { whole, one, .. }) = self.shapes(outlet)? else { return Ok(()) };
        let name = &self.whole.node(outlet.node).name;
        let volume = |shape: &[usize]| shape.iter().product::<usize>();
        let fits = volume(whole) == self.images * volume(one);
        ensure!(fits, "{name:?} gives {whole:?} for {} images and {one:?} for one", self.images);
        Ok(())
    }

    /// The value for one image of a value that has the images along its first axis.
    fn image(&self, outlet: OutletId) -> TractResult<OutletId> {
        let name = &self.whole.node(outlet.node).name;
        let shapes = self.shapes(outlet)?;
        let Shapes { whole, outlet, one } = shapes.with_context(|| format!("no {name:?} for one image"))?;
        let fits = whole.split_first() == one.split_first().map(|(_, rest)| (&self.images, rest))
            && one.first() == Some(&1);
        ensure!(fits, "{name:?} gives {whole:?} for {} images and {one:?} for one", self.images);
        Ok(outlet)
    }
}
