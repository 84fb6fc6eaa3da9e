//! The ends of a model: its inputs as the ONNX file declares them and as they are pinned, its outputs as they follow.

use super::Imported;
use crate::error::{ErrorKind, PackerError};
use crate::pin::InputPin;
use glowplug_pack::manifest::Axis;
use glowplug_pack::{Dtype, element_count};
use std::collections::{HashMap, HashSet};
use tract_onnx::pb;
use tract_onnx::pb::tensor_shape_proto::dimension::Value as Dim;
use tract_onnx::tract_hir::internal::OutletId;

/// One input as the file declares it and as it was pinned.
#[derive(Clone, Debug)]
pub(crate) struct Port {
    pub(crate) name: String,
    pub(crate) dtype: Dtype,
    pub(crate) axes: Vec<Axis>,
}

impl Port {
    /// The pinned extents.
    pub(crate) fn shape(&self) -> Vec<usize> {
        self.axes.iter().map(|a| a.size).collect()
    }
}

/// The graph's inputs (not its initializers), pinned.
pub(super) fn ports(graph: &pb::GraphProto, pins: &[InputPin]) -> Result<Vec<Port>, PackerError> {
    let initialized: HashSet<&str> = graph.initializer.iter().map(|i| &*i.name).collect();
    let inputs: Vec<_> = graph.input.iter().filter(|i| !initialized.contains(&*i.name)).collect();
    for (i, pin) in pins.iter().enumerate() {
        if !inputs.iter().any(|input| input.name == pin.name) {
            let names: Vec<_> = inputs.iter().map(|i| &*i.name).collect();
            return Err(PackerError::new(
                ErrorKind::Pin,
                format!(
                    "--input {pin}: the model has no input {:?}, its inputs are {}",
                    pin.name,
                    names.join(", ")
                ),
            ));
        }
        if pins[..i].iter().any(|p| p.name == pin.name) {
            return Err(PackerError::new(
                ErrorKind::Pin,
                format!("--input {pin}: {:?} is pinned twice", pin.name),
            ));
        }
    }
    one_extent_per_symbol(&inputs, pins)?;
    inputs.into_iter().map(|input| port(input, pins.iter().find(|p| p.name == input.name))).collect()
}

/// An axis that has one name in several inputs has one extent. Errors: pins that say otherwise.
fn one_extent_per_symbol(inputs: &[&pb::ValueInfoProto], pins: &[InputPin]) -> Result<(), PackerError> {
    let mut seen: HashMap<String, (usize, &str)> = HashMap::new();
    for pin in pins {
        let input = inputs.iter().find(|input| input.name == pin.name);
        let r#type = input.and_then(|input| input.r#type.as_ref()?.value.as_ref());
        let Some(pb::type_proto::Value::TensorType(tensor)) = r#type else { continue };
        let declared = tensor.shape.iter().flat_map(|shape| &shape.dim).map(Declared::of);
        for (declared, extent) in declared.zip(&pin.dims) {
            let Declared::Open(Some(symbol)) = declared else { continue };
            let (first, of) = *seen.entry(symbol.clone()).or_insert((*extent, &pin.name));
            if first != *extent {
                let text = format!(
                    "--input {pin}: axis {symbol:?} is {extent} here and {first} in input {of:?}, expected one extent"
                );
                return Err(PackerError::new(ErrorKind::Pin, text));
            }
        }
    }
    Ok(())
}

fn port(input: &pb::ValueInfoProto, pin: Option<&InputPin>) -> Result<Port, PackerError> {
    let name = input.name.clone();
    let Some(pb::type_proto::Value::TensorType(tensor)) =
        input.r#type.as_ref().and_then(|t| t.value.as_ref())
    else {
        return Err(PackerError::new(ErrorKind::Unsupported, format!("input {name:?} is not a tensor")));
    };
    let dtype = dtype_of(tensor.elem_type).ok_or_else(|| {
        PackerError::new(
            ErrorKind::Unsupported,
            format!(
                "input {name:?} has the ONNX element type {}, expected one of f32, f16, i64, i32, i8, u8, bool",
                tensor.elem_type
            ),
        )
    })?;
    let declared: Option<Vec<Declared>> =
        tensor.shape.as_ref().map(|s| s.dim.iter().map(Declared::of).collect());
    let axes = match pin {
        Some(pin) => pinned_axes(pin, dtype, declared.as_deref())?,
        None => unpinned_axes(&name, dtype, declared.as_deref())?,
    };
    Ok(Port { name, dtype, axes })
}

/// The axes of an output of `shape`, named and marked as open as the file declares them. A declaration of
/// another rank, or of other fixed extents, says nothing.
fn output_axes(output: &pb::ValueInfoProto, shape: &[usize]) -> Vec<Axis> {
    let declared: Vec<Declared> = match output.r#type.as_ref().and_then(|t| t.value.as_ref()) {
        Some(pb::type_proto::Value::TensorType(tensor)) => {
            tensor.shape.iter().flat_map(|s| s.dim.iter().map(Declared::of)).collect()
        }
        _ => Vec::new(),
    };
    let same_rank = declared.len() == shape.len();
    let axis = |(i, size): (usize, &usize)| match declared.get(i).filter(|_| same_rank) {
        Some(open @ Declared::Open(_)) => open.axis(i, *size),
        _ => Declared::Fixed(*size).axis(i, *size),
    };
    shape.iter().enumerate().map(axis).collect()
}

/// The outputs of an imported model, in order. Errors: a type that packs do not have; a shape that is open, or too large.
pub(crate) fn output_ports(imported: &Imported) -> Result<Vec<Port>, PackerError> {
    let outlets = imported.typed.outputs.iter().zip(&imported.outputs);
    let port = |(outlet, declared): (&OutletId, &pb::ValueInfoProto)| {
        let name = declared.name.clone();
        let fact = imported.typed.outlet_fact(*outlet).map_err(|e| PackerError::model("import", &e))?;
        let unsupported =
            |what: String| PackerError::new(ErrorKind::Unsupported, format!("output {name:?} {what}"));
        let found = Dtype::ALL.into_iter().find(|d| glowplug_engine::datum_type(*d) == fact.datum_type);
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

/// Axes that have several extents are open, whatever the file says of them. `sides` are the ends of one side, for
/// each shape of the model.
pub(crate) fn open_where_they_differ(sides: &mut [&mut Vec<Port>]) {
    let shapes: Vec<Vec<Vec<usize>>> = sides.iter().map(|s| s.iter().map(Port::shape).collect()).collect();
    for side in sides {
        for (i, port) in side.iter_mut().enumerate() {
            for (a, axis) in port.axes.iter_mut().enumerate() {
                axis.symbolic |= shapes.iter().any(|s| s[i].get(a) != Some(&axis.size));
            }
        }
    }
}

fn dtype_of(onnx: i32) -> Option<Dtype> {
    use pb::tensor_proto::DataType;
    Some(match DataType::try_from(onnx).ok()? {
        DataType::Float => Dtype::F32,
        DataType::Float16 => Dtype::F16,
        DataType::Int64 => Dtype::I64,
        DataType::Int32 => Dtype::I32,
        DataType::Int8 => Dtype::I8,
        DataType::Uint8 => Dtype::U8,
        DataType::Bool => Dtype::Bool,
        _ => return None,
    })
}

/// An extent as the file gives it.
enum Declared {
    Fixed(usize),
    Open(Option<String>),
}

impl Declared {
    fn of(dim: &pb::tensor_shape_proto::Dimension) -> Declared {
        match &dim.value {
            Some(Dim::DimValue(n)) if *n > 0 => {
                usize::try_from(*n).map_or(Declared::Open(None), Declared::Fixed)
            }
            Some(Dim::DimParam(symbol)) if !symbol.is_empty() && symbol != "?" => {
                Declared::Open(Some(symbol.clone()))
            }
            _ => Declared::Open(None),
        }
    }

    fn axis(&self, i: usize, size: usize) -> Axis {
        match self {
            Declared::Fixed(_) => Axis { name: format!("d{i}"), size, symbolic: false },
            Declared::Open(symbol) => {
                Axis { name: symbol.clone().unwrap_or_else(|| format!("d{i}")), size, symbolic: true }
            }
        }
    }

    /// As the flag spells it, with `?` where nothing is known.
    fn flag(&self) -> String {
        match self {
            Declared::Fixed(n) => n.to_string(),
            Declared::Open(_) => "?".to_owned(),
        }
    }
}

fn pinned_axes(
    pin: &InputPin,
    dtype: Dtype,
    declared: Option<&[Declared]>,
) -> Result<Vec<Axis>, PackerError> {
    let bad = |why: String| PackerError::new(ErrorKind::Pin, format!("--input {pin}: {why}"));
    if pin.dtype != dtype {
        return Err(bad(format!("the model's {:?} is {dtype}, found {}", pin.name, pin.dtype)));
    }
    let Some(declared) = declared else {
        return Ok(pin.dims.iter().enumerate().map(|(i, n)| Declared::Open(None).axis(i, *n)).collect());
    };
    if declared.len() != pin.dims.len() {
        return Err(bad(format!(
            "the model's {:?} has {} axes, found {}",
            pin.name,
            declared.len(),
            pin.dims.len()
        )));
    }
    for (i, (d, n)) in declared.iter().zip(&pin.dims).enumerate() {
        match d {
            Declared::Fixed(wanted) if wanted != n => {
                return Err(bad(format!("axis {i} of the model's {:?} is {wanted}, found {n}", pin.name)));
            }
            _ => {}
        }
    }
    Ok(declared.iter().zip(&pin.dims).enumerate().map(|(i, (d, n))| d.axis(i, *n)).collect())
}

/// A leading open axis is the batch and becomes 1; any other has to be pinned.
fn unpinned_axes(name: &str, dtype: Dtype, declared: Option<&[Declared]>) -> Result<Vec<Axis>, PackerError> {
    let Some(declared) = declared else {
        let text = format!("input {name:?} has no shape: give it with --input '{name}={dtype}[...]'");
        return Err(PackerError::new(ErrorKind::Pin, text));
    };
    let size = |(i, d): (usize, &Declared)| match d {
        Declared::Fixed(n) => Ok(*n),
        Declared::Open(_) if i == 0 => Ok(1),
        Declared::Open(symbol) => {
            let axis = symbol.as_ref().map_or_else(|| i.to_string(), |s| format!("{i} ({s:?})"));
            let mut dims: Vec<_> = declared.iter().map(Declared::flag).collect();
            if dims[0] == "?" {
                dims[0] = "1".into();
            }
            let flag = format!("--input '{name}={dtype}[{}]'", dims.join(","));
            Err(PackerError::new(
                ErrorKind::Pin,
                format!("axis {axis} of input {name:?} is open: pin it with {flag}, a number for each ?"),
            ))
        }
    };
    declared.iter().enumerate().map(|(i, d)| Ok(d.axis(i, size((i, d))?))).collect()
}
