//! Constants of an ONNX graph: the tensors that lie in the file.

use std::collections::HashSet;
use tract_onnx::pb;
use tract_onnx::pb::tensor_proto::{DataLocation, DataType};

/// Constants are initializers, and no inputs besides: older files declare them as both, others have nodes that give them.
pub(crate) fn plain_constants(graph: &mut pb::GraphProto) {
    for node in std::mem::take(&mut graph.node) {
        match (node.op_type.as_str(), node.attribute.as_slice(), node.output.as_slice()) {
            ("Constant", [pb::AttributeProto { name, t: Some(tensor), .. }], [output]) if name == "value" => {
                graph.initializer.push(pb::TensorProto { name: output.clone(), ..tensor.clone() });
            }
            _ => graph.node.push(node),
        }
    }
    let constants: HashSet<&String> = graph.initializer.iter().map(|i| &i.name).collect();
    graph.input.retain(|input| !constants.contains(&input.name));
}

/// The extents of a constant; 0 for one that is none.
pub(crate) fn dims(tensor: &pb::TensorProto) -> Vec<usize> {
    tensor.dims.iter().map(|d| usize::try_from(*d).unwrap_or_default()).collect()
}

/// How many values the extents of `tensor` say that it has. `None` where that overflows.
fn count(tensor: &pb::TensorProto) -> Option<usize> {
    dims(tensor).iter().try_fold(1usize, |product, d| product.checked_mul(*d))
}

/// `values`, if there are as many as `tensor` should have.
fn whole<T>(tensor: &pb::TensorProto, values: Vec<T>) -> Option<Vec<T>> {
    (count(tensor) == Some(values.len())).then_some(values)
}

fn lies_in_the_file(tensor: &pb::TensorProto) -> bool {
    tensor.data_location != Some(DataLocation::External.into())
}

/// The values of an f32 tensor that lies in the file, if it is whole.
pub(crate) fn floats(tensor: &pb::TensorProto) -> Option<Vec<f32>> {
    if tensor.data_type != i32::from(DataType::Float) || !lies_in_the_file(tensor) {
        return None;
    }
    let values = if tensor.raw_data.is_empty() {
        tensor.float_data.clone()
    } else {
        tensor.raw_data.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    };
    whole(tensor, values)
}

/// The values of a tensor of integers of at most 32 bits that lies in the file, if it is whole.
pub(crate) fn integers(tensor: &pb::TensorProto) -> Option<Vec<i32>> {
    let raw = &tensor.raw_data;
    let dtype = DataType::try_from(tensor.data_type).ok()?;
    integer_range(dtype).filter(|_| lies_in_the_file(tensor))?;
    // Of four bits two lie in a byte, the lower ones first; in `int32_data` too.
    let halves = |byte: u8| match dtype {
        DataType::Int4 => [byte << 4, byte & 0xf0].map(|high| i32::from(high.cast_signed() >> 4)),
        _ => [byte & 0xf, byte >> 4].map(i32::from),
    };
    let mut values: Vec<i32> = match dtype {
        DataType::Int4 | DataType::Uint4 => {
            let bytes: Vec<u8> = if raw.is_empty() {
                tensor.int32_data.iter().map(|v| v.to_le_bytes()[0]).collect()
            } else {
                raw.clone()
            };
            bytes.into_iter().flat_map(halves).collect()
        }
        _ if raw.is_empty() => tensor.int32_data.clone(),
        DataType::Int8 => raw.iter().map(|b| i32::from(b.cast_signed())).collect(),
        DataType::Uint8 => raw.iter().map(|b| i32::from(*b)).collect(),
        DataType::Int16 => raw.as_chunks().0.iter().map(|b| i32::from(i16::from_le_bytes(*b))).collect(),
        DataType::Uint16 => raw.as_chunks().0.iter().map(|b| i32::from(u16::from_le_bytes(*b))).collect(),
        _ => raw.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b)).collect(),
    };
    if matches!(dtype, DataType::Int4 | DataType::Uint4) {
        // An odd number of them leaves half a byte.
        let wanted = count(tensor)?;
        if values.len() == wanted.saturating_add(1) {
            values.pop();
        }
    }
    whole(tensor, values)
}

/// The least and the largest value of a type of integers that tensors are quantized to.
pub(crate) fn integer_range(dtype: DataType) -> Option<(i64, i64)> {
    let signed = |bits: u32| (-(1i64 << (bits - 1)), (1i64 << (bits - 1)) - 1);
    let unsigned = |bits: u32| (0, (1i64 << bits) - 1);
    Some(match dtype {
        DataType::Int4 => signed(4),
        DataType::Uint4 => unsigned(4),
        DataType::Int8 => signed(8),
        DataType::Uint8 => unsigned(8),
        DataType::Int16 => signed(16),
        DataType::Uint16 => unsigned(16),
        DataType::Int32 => signed(32),
        _ => return None,
    })
}

/// Whether values of a type are integers of at most 16 bits: what weights are quantized to.
pub(crate) fn is_small_integer(dtype: DataType) -> bool {
    integer_range(dtype).is_some_and(|(_, most)| most < 1 << 16)
}

/// A constant of f32.
#[allow(clippy::cast_possible_wrap, reason = "extents of a tensor in memory")]
pub(crate) fn tensor(name: &str, dims: &[usize], values: &[f32]) -> pb::TensorProto {
    pb::TensorProto {
        name: name.to_owned(),
        dims: dims.iter().map(|d| *d as i64).collect(),
        data_type: DataType::Float.into(),
        raw_data: values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(data_type: DataType, dims: &[i64], raw: &[u8], each: &[i32]) -> pb::TensorProto {
        pb::TensorProto {
            data_type: data_type.into(),
            dims: dims.to_vec(),
            raw_data: raw.to_vec(),
            int32_data: each.to_vec(),
            ..Default::default()
        }
    }

    #[test]
    fn integers_are_read_as_they_lie() {
        let of = |dtype, dims: &[i64], raw: &[u8]| integers(&stored(dtype, dims, raw, &[]));
        assert_eq!(of(DataType::Int8, &[2], &[0xff, 0x7f]), Some(vec![-1, 127]));
        assert_eq!(of(DataType::Uint8, &[2], &[0xff, 0x7f]), Some(vec![255, 127]));
        assert_eq!(of(DataType::Int16, &[1], &[0xfe, 0xff]), Some(vec![-2]));
        assert_eq!(of(DataType::Uint16, &[1], &[0xfe, 0xff]), Some(vec![65534]));
        assert_eq!(of(DataType::Int32, &[1], &[0xfe, 0xff, 0xff, 0xff]), Some(vec![-2]));
        assert_eq!(of(DataType::Int4, &[3], &[0x8f, 0x07]), Some(vec![-1, -8, 7]));
        assert_eq!(of(DataType::Uint4, &[4], &[0x8f, 0x07]), Some(vec![15, 8, 7, 0]));
        let each = |dtype, values: &[i32]| integers(&stored(dtype, &[2], &[], values));
        assert_eq!(each(DataType::Int8, &[-3, 4]), Some(vec![-3, 4]));
        assert_eq!(each(DataType::Uint4, &[0x52]), Some(vec![2, 5]));
        // Half a tensor is none, and nothing but integers is.
        assert_eq!(of(DataType::Int8, &[3], &[1, 2]), None);
        assert_eq!(of(DataType::Int4, &[1], &[1, 2]), None);
        assert_eq!(of(DataType::Int8, &[i64::MAX, 8], &[1, 2]), None);
        assert_eq!(of(DataType::Float, &[1], &[0; 4]), None);
        assert_eq!(of(DataType::Int64, &[1], &[0; 8]), None);
    }
}
