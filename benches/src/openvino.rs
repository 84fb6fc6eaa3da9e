//! OpenVINO's C interface, as far as it is needed: import a compiled blob, run it.
//!
//! The safe `openvino` crate cannot import a blob, which is OpenVINO's fastest start, so the calls are made here.
#![allow(unsafe_code, reason = "OpenVINO has a C interface only")]

use crate::Named;
use anyhow::{Context, Result, bail, ensure};
use glowplug_pack::{Dtype, Tensor, TensorData};
use openvino_sys as ov;
use std::ffi::{CStr, CString, c_char, c_void};
use std::path::Path;
use std::ptr;

const CPU: &CStr = c"CPU";
/// Numbers of `ov_element_type_e`: the header's enum, which the bindings spell as constants of a module.
const ELEMENT_TYPES: [(ov::ov_element_type_e, Dtype); 3] = [
    (ov::ov_element_type_e::F32, Dtype::F32),
    (ov::ov_element_type_e::I64, Dtype::I64),
    (ov::ov_element_type_e::I32, Dtype::I32),
];

/// A model imported from a blob. What it was made of lives as long as the process: it is loaded once, and the
/// blob's weights are read where they lie.
pub struct Imported {
    request: *mut ov::ov_infer_request_t,
    outputs: Vec<String>,
}

/// Loads the library that `library` names, then imports `blob` with `threads` threads.
pub fn import(library: &Path, blob: Vec<u8>, threads: usize) -> Result<Imported> {
    ov::library::load_from(library).map_err(anyhow::Error::msg)?;
    let blob: &'static [u8] = blob.leak();
    let threads = CString::new(threads.to_string())?;
    let (mut core, mut model, mut request) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
    // SAFETY: every pointer out is a local of the right type, every string ends in zero, and the blob is never freed.
    unsafe {
        check("ov_core_create", ov::ov_core_create(&raw mut core))?;
        // A processor with bf16 would run the blob in bf16 otherwise, whatever it was compiled for.
        for (key, value) in [(c"INFERENCE_NUM_THREADS", &*threads), (c"INFERENCE_PRECISION_HINT", c"f32")] {
            check("set", ov::ov_core_set_property(core, CPU.as_ptr(), key.as_ptr(), value.as_ptr()))?;
        }
        let content = blob.as_ptr().cast::<c_char>();
        let imported = ov::ov_core_import_model(core, content, blob.len(), CPU.as_ptr(), &raw mut model);
        check("import", imported)?;
        check("request", ov::ov_compiled_model_create_infer_request(model, &raw mut request))?;
    }
    Ok(Imported { request, outputs: output_names(model)? })
}

fn output_names(model: *const ov::ov_compiled_model_t) -> Result<Vec<String>> {
    let mut count = 0;
    let mut names = Vec::new();
    // SAFETY: `model` is a live compiled model; a port's name is a C string that OpenVINO allocated for us.
    unsafe {
        check("outputs", ov::ov_compiled_model_outputs_size(model, &raw mut count))?;
        for index in 0..count {
            let (mut port, mut name) = (ptr::null_mut(), ptr::null_mut());
            check("output", ov::ov_compiled_model_output_by_index(model, index, &raw mut port))?;
            check("name", ov::ov_port_get_any_name(port, &raw mut name))?;
            names.push(CStr::from_ptr(name).to_str()?.to_owned());
        }
    }
    Ok(names)
}

impl Imported {
    /// One inference: inputs are borrowed, outputs copied.
    pub fn run(&mut self, inputs: &[Named]) -> Result<Vec<Named>> {
        let mut given = Vec::with_capacity(inputs.len());
        for (name, tensor) in inputs {
            let (name, tensor) = (CString::new(name.as_str())?, borrowed(tensor)?);
            // SAFETY: the request lives; the tensor lives until the end of this function, after the inference.
            check("set", unsafe { ov::ov_infer_request_set_tensor(self.request, name.as_ptr(), tensor) })?;
            given.push(tensor);
        }
        // SAFETY: the request lives and has all its inputs, or says that it has not.
        check("infer", unsafe { ov::ov_infer_request_infer(self.request) })?;
        let outputs = self.outputs.iter().enumerate().map(|(i, name)| Ok((name.clone(), self.output(i)?)));
        let outputs = outputs.collect();
        for tensor in given {
            // SAFETY: made by `borrowed` and not used any more; it never owned its bytes.
            unsafe { ov::ov_tensor_free(tensor) };
        }
        outputs
    }

    fn output(&self, index: usize) -> Result<Tensor> {
        let (mut tensor, mut data) = (ptr::null_mut(), ptr::null_mut::<c_void>());
        let mut shape = ov::ov_shape_t { rank: 0, dims: ptr::null_mut() };
        let mut element = ov::ov_element_type_e::DYNAMIC;
        // SAFETY: the request lives; shape and data are those of a live tensor: `rank` extents, and as many
        // elements as they multiply to. The tensor and the shape are freed once, after the copy.
        unsafe {
            let got = ov::ov_infer_request_get_output_tensor_by_index(self.request, index, &raw mut tensor);
            check("output tensor", got)?;
            check("shape", ov::ov_tensor_get_shape(tensor, &raw mut shape))?;
            check("type", ov::ov_tensor_get_element_type(tensor, &raw mut element))?;
            check("data", ov::ov_tensor_data(tensor, &raw mut data))?;
            let rank = usize::try_from(shape.rank)?;
            let dims = if rank == 0 { &[] } else { std::slice::from_raw_parts(shape.dims, rank) };
            let dims = dims.iter().map(|d| Ok(usize::try_from(*d)?)).collect::<Result<Vec<_>>>()?;
            let known = ELEMENT_TYPES.iter().find(|(e, _)| *e == element);
            let (_, dtype) = known.context("an output has a type that no measured model has")?;
            let count = glowplug_pack::element_count(&dims).context("an output is too large")?;
            let bytes = std::slice::from_raw_parts(data.cast::<u8>(), count * dtype.size());
            let copy = Tensor::from_le_bytes(*dtype, dims, bytes);
            ov::ov_shape_free(&raw mut shape);
            ov::ov_tensor_free(tensor);
            Ok(copy?)
        }
    }
}

/// An OpenVINO tensor over the bytes of ours; the caller frees it before ours goes.
fn borrowed(tensor: &Tensor) -> Result<*mut ov::ov_tensor_t> {
    let data = match tensor.data() {
        TensorData::F32(v) => v.as_ptr().cast::<c_void>(),
        TensorData::I64(v) => v.as_ptr().cast(),
        TensorData::I32(v) => v.as_ptr().cast(),
        other => bail!("an input is {}, which no measured model takes", other.dtype()),
    };
    let known = ELEMENT_TYPES.iter().find(|(_, d)| *d == tensor.data().dtype());
    let (element, _) = known.context("an input has a type that no measured model takes")?;
    let dims = tensor.shape().iter().map(|d| Ok(i64::try_from(*d)?)).collect::<Result<Vec<_>>>()?;
    let mut shape = ov::ov_shape_t { rank: 0, dims: ptr::null_mut() };
    let mut made = ptr::null_mut();
    // SAFETY: `dims` holds as many extents as told; OpenVINO only reads from an input's bytes, and they are as many
    // as the shape says.
    unsafe {
        check("shape", ov::ov_shape_create(i64::try_from(dims.len())?, dims.as_ptr(), &raw mut shape))?;
        let status = ov::ov_tensor_create_from_host_ptr(*element, shape, data.cast_mut(), &raw mut made);
        ov::ov_shape_free(&raw mut shape);
        check("tensor", status)?;
    }
    Ok(made)
}

fn check(what: &str, status: ov::ov_status_e) -> Result<()> {
    if status == ov::ov_status_e::OK {
        return Ok(());
    }
    // SAFETY: the message is a C string of the library's, or null.
    let message = unsafe { ov::ov_get_last_err_msg() };
    ensure!(!message.is_null(), "OpenVINO, {what}: {status:?}");
    // SAFETY: not null, as just seen.
    let message = unsafe { CStr::from_ptr(message) }.to_string_lossy();
    bail!("OpenVINO, {what}: {status:?}: {}", message.trim())
}
