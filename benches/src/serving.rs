//! A rival's Lambda function: what a good engineer would write around another engine. The model comes from S3 in one
//! request while the function starts; an API Gateway event with a V2 infer document is answered with one.
//!
//! The local S3 speaks plain HTTP, so no function pays for TLS here; on AWS all would, alike.

use crate::Named;
use crate::engine::Engine;
use anyhow::{Context, Result, bail};
use aws_config::BehaviorVersion;
use aws_sdk_s3::config::StalledStreamProtectionConfig;
use aws_smithy_http_client::Builder;
use glowplug_pack::{Tensor, TensorData};
use lambda_runtime::{LambdaEvent, service_fn};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Mutex;

/// The part of API Gateway's event that matters.
#[derive(Deserialize)]
struct HttpEvent {
    body: String,
}

/// Its answer.
#[derive(Serialize)]
struct HttpAnswer {
    #[serde(rename = "statusCode")]
    status: u16,
    headers: BTreeMap<String, String>,
    body: String,
}

/// A V2 infer document, in or out.
#[derive(Serialize, Deserialize)]
struct Document {
    #[serde(alias = "inputs")]
    outputs: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    name: String,
    datatype: String,
    shape: Vec<usize>,
    data: Data,
}

/// Elements as JSON numbers; which type they become is the datatype's business.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Data {
    Integers(Vec<i64>),
    Floats(Vec<f32>),
}

/// The whole program of a rival's function: `MODEL_BUCKET` and `MODEL_KEY` name the model.
pub fn main<E: Engine + Send>(load: impl FnOnce(Vec<u8>) -> Result<E>) -> ExitCode {
    let served = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(serve(load)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("error: {error:#}\n"));
            ExitCode::FAILURE
        }
    }
}

async fn serve<E: Engine + Send>(load: impl FnOnce(Vec<u8>) -> Result<E>) -> Result<()> {
    let engine = Mutex::new(load(download().await?)?);
    let engine = &engine;
    let handle = async |event: LambdaEvent<HttpEvent>| {
        let mut engine = engine.lock().map_err(|_| "the engine panicked")?;
        answer(&mut *engine, &event.payload.body).map_err(|e| lambda_runtime::Error::from(format!("{e:#}")))
    };
    lambda_runtime::run(service_fn(handle)).await.map_err(|e| anyhow::anyhow!("{e}"))
}

/// The model's bytes, in one request over one connection.
async fn download() -> Result<Vec<u8>> {
    let variable = |name: &str| std::env::var(name).with_context(|| format!("{name} is not set"));
    let config = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(Builder::new().build_http())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .load()
        .await;
    let options = aws_sdk_s3::config::Builder::from(&config).force_path_style(true).build();
    let client = aws_sdk_s3::Client::from_conf(options);
    let request = client.get_object().bucket(variable("MODEL_BUCKET")?).key(variable("MODEL_KEY")?);
    let object = request.send().await?;
    let mut body = object.body;
    let mut bytes = Vec::with_capacity(usize::try_from(object.content_length.unwrap_or(0))?);
    while let Some(piece) = body.try_next().await? {
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

fn answer(engine: &mut impl Engine, body: &str) -> Result<HttpAnswer> {
    let document: Document = serde_json::from_str(body)?;
    let inputs = document.outputs.into_iter().map(tensor).collect::<Result<Vec<_>>>()?;
    let outputs = engine.run(&inputs)?.into_iter().map(entry).collect::<Result<Vec<_>>>()?;
    Ok(HttpAnswer {
        status: 200,
        headers: BTreeMap::new(),
        body: serde_json::to_string(&Document { outputs })?,
    })
}

fn tensor(entry: Entry) -> Result<Named> {
    #[allow(clippy::cast_precision_loss, reason = "JSON may write a float without a point")]
    let data = match (entry.datatype.as_str(), entry.data) {
        ("FP32", Data::Floats(v)) => TensorData::F32(v),
        ("FP32", Data::Integers(v)) => TensorData::F32(v.into_iter().map(|x| x as f32).collect()),
        ("INT64", Data::Integers(v)) => TensorData::I64(v),
        ("INT32", Data::Integers(v)) => {
            TensorData::I32(v.into_iter().map(i32::try_from).collect::<Result<_, _>>()?)
        }
        (other, _) => bail!("input {:?} is {other}, wanted FP32, INT64 or INT32", entry.name),
    };
    Ok((entry.name, Tensor::new(entry.shape, data)?))
}

fn entry((name, tensor): Named) -> Result<Entry> {
    let shape = tensor.shape().to_vec();
    let (datatype, data) = match tensor.data() {
        TensorData::F32(v) => ("FP32", Data::Floats(v.clone())),
        TensorData::I64(v) => ("INT64", Data::Integers(v.clone())),
        TensorData::I32(v) => ("INT32", Data::Integers(v.iter().map(|x| i64::from(*x)).collect())),
        other => bail!("output {name:?} is {}, which no measured model has", other.dtype()),
    };
    Ok(Entry { name, datatype: datatype.to_owned(), shape, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Doubling;

    impl Engine for Doubling {
        fn run(&mut self, inputs: &[Named]) -> Result<Vec<Named>> {
            let (name, tensor) = &inputs[0];
            let doubled = tensor.as_f32()?.iter().map(|x| x * 2.0).collect();
            Ok(vec![(name.clone(), Tensor::new(tensor.shape(), TensorData::F32(doubled))?)])
        }
    }

    #[test]
    fn a_v2_document_is_answered_with_one() {
        let body = r#"{"inputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[1,2.5]}]}"#;
        let answer = answer(&mut Doubling, body).unwrap();
        let expected = r#"{"outputs":[{"name":"x","datatype":"FP32","shape":[1,2],"data":[2.0,5.0]}]}"#;
        assert_eq!((answer.status, answer.body.as_str()), (200, expected));
        let wrong = body.replace("FP32", "BYTES");
        assert!(super::answer(&mut Doubling, &wrong).is_err());
    }
}
