//! Entropy-coded packs through the command and through every store: the same answers as plain ones, bit by bit, by plan and by
//! portable graph, and what is said of them is so.

use anyhow::{Context, Result, ensure};
use glowplug_cli::npz;
use glowplug_local::{CloudSpec, LocalCloud};
use glowplug_pack::{Pack, Tensor};
use glowplug_predict::{Model, ModelOptions, Timings};
use glowplug_processing::v2::NamedTensor;
use glowplug_store::{
    DirectoryStore, FetchOptions, MemoryStore, ModelName, ModelStore, ObjectStore, OpenedPack, PackCache,
    PackStore, Resolved, Version, open_bytes, open_file,
};
use glowplug_store_s3::{S3Credentials, S3Options, S3Store};
use glowplug_tests::{glowplug_fails, glowplug_json as json, glowplug_ok, repo};
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

/// ONNX files, each with an encoding of weights and the inputs of a golden.
const CASES: [(&str, &str, &str); 4] = [
    ("tests/data/quantized/images.onnx", "int8", "tests/data/quantized/images.npz"),
    ("tests/data/quantized/rows.onnx", "int8", "tests/data/quantized/rows.npz"),
    ("tests/data/models/mnist-cnn.onnx", "int8", "tests/data/goldens/mnist-cnn/input.npz"),
    ("tests/data/models/mnist-cnn.onnx", "f32", "tests/data/goldens/mnist-cnn/input.npz"),
];

fn inputs(path: &str) -> Result<Vec<NamedTensor>> {
    let all = npz::read(&repo(path))?;
    if !path.contains("quantized") {
        return Ok(all);
    }
    let named = all.into_iter().filter_map(|NamedTensor { name, tensor }| {
        Some(NamedTensor { name: name.strip_prefix("in.")?.to_owned(), tensor })
    });
    Ok(named.collect())
}

fn bits(outputs: Vec<NamedTensor>) -> Vec<(String, Tensor)> {
    outputs.into_iter().map(|o| (o.name, o.tensor)).collect()
}

fn answer(opened: OpenedPack, inputs: &[NamedTensor], portable: bool) -> Result<Vec<(String, Tensor)>> {
    let options = ModelOptions { portable, ..ModelOptions::default() };
    let model = Model::open(opened, &options)?;
    Ok(bits(model.infer(inputs.to_vec(), None, &mut Timings::default())?))
}

/// Plain and coded pack of a case, in `dir`, and what was said of the coded one.
fn packs(dir: &Path, onnx: &str, weights: &str) -> Result<([String; 2], Value)> {
    let onnx = repo(onnx).display().to_string();
    let [plain, coded] =
        ["plain", "coded"].map(|name| dir.join(format!("{name}.glow")).display().to_string());
    glowplug_ok(&["pack", &onnx, "-o", &plain, "--weights", weights])?;
    let report = json(&["pack", &onnx, "-o", &coded, "--weights", weights, "--entropy", "--json"])?;
    Ok(([plain, coded], report))
}

#[test]
fn coded_packs_are_smaller_and_say_so() -> Result<()> {
    for (onnx, weights, _) in CASES {
        let place = format!("{onnx} in {weights}");
        let temp = tempfile::tempdir()?;
        let ([plain, coded], report) = packs(temp.path(), onnx, weights)?;
        let len = |path: &str| Ok::<_, anyhow::Error>(std::fs::metadata(path)?.len());
        ensure!(len(&coded)? < len(&plain)?, "{place}: {} of {}", len(&coded)?, len(&plain)?);
        let entropy = &report["entropy"];
        let (stored, decoded) = (entropy["stored_bytes"].as_u64(), entropy["decoded_bytes"].as_u64());
        ensure!(stored < decoded && entropy["coded"].as_u64() > Some(0), "{place}: {report}");
        ensure!(entropy["decode_mb_s"].as_f64().is_some_and(|speed| speed > 0.0), "{place}: {report}");

        let (of_plain, of_coded) =
            (json(&["inspect", &plain, "--json"])?, json(&["inspect", &coded, "--json"])?);
        ensure!(of_plain["format_version"] == 1 && of_coded["format_version"] == 2, "{place}: {of_coded}");
        ensure!(of_plain["coded_chunks"] == 0 && of_coded["coded_chunks"] == entropy["coded"], "{of_coded}");
        ensure!(of_coded["manifest"]["provenance"]["options"]["entropy"] == "true", "{of_coded}");
        ensure!(of_plain["manifest"]["provenance"]["options"]["entropy"].is_null(), "{of_plain}");
        ensure!(of_plain["bytes"] == of_plain["decoded_bytes"], "{of_plain}");
        let text = glowplug_ok(&["inspect", &coded])?;
        ensure!(text.contains("chunks entropy-coded") && text.contains("decoded"), "{text}");
        for pack in [&plain, &coded] {
            glowplug_ok(&["verify", pack])?;
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn coded_packs_answer_as_plain_ones_from_every_store() -> Result<()> {
    let spec = CloudSpec { buckets: vec!["models".into()], ..CloudSpec::default() };
    let cloud = LocalCloud::start(spec, Arc::new(|_| ())).await?;
    let credentials = S3Credentials::fixed("local", "local-secret");
    let s3 = Arc::new(S3Store::connect(S3Options::local(&cloud.urls().s3, "models", credentials)?)?);
    for (index, (onnx, weights, golden)) in CASES.into_iter().enumerate() {
        let temp = tempfile::tempdir()?;
        let ([plain, coded], _) = packs(temp.path(), onnx, weights)?;
        let inputs = inputs(golden)?;
        let bytes = std::fs::read(&coded)?;
        let model = Resolved::exact(ModelName::new(format!("m{index}"))?, Version::new("1")?);
        let cache = Arc::new(PackCache::new(temp.path().join("cache"), 1 << 30));
        let options = FetchOptions { part_bytes: 1, ..FetchOptions::default() };
        let directory: Arc<dyn ObjectStore> = Arc::new(DirectoryStore::new(temp.path().join("store")));
        let streamed = PackStore::new(Arc::new(MemoryStore::new())).with_options(options).with_cache(cache);
        let stores = [
            ("directory", PackStore::new(directory)),
            ("memory", streamed.clone()),
            ("s3", PackStore::new(s3.clone())),
        ];
        for portable in [false, true] {
            let place = format!("{onnx} in {weights}, portable {portable}");
            let wanted = answer(open_file(Path::new(&plain))?, &inputs, portable)?;
            ensure!(!wanted.is_empty(), "{place}: no outputs");
            let check = |from: &str, opened: OpenedPack| {
                let found = answer(opened, &inputs, portable).with_context(|| format!("{place}, {from}"))?;
                ensure!(found == wanted, "{place}: the pack from {from} answers otherwise");
                Ok(())
            };
            check("a file", open_file(Path::new(&coded))?)?;
            check("bytes", open_bytes(&bytes)?)?;
            for (name, store) in &stores {
                store.publish(&model.name, &model.version, bytes.clone().into()).await?;
                let opened = store.get(&model).await.with_context(|| format!("{place}, {name}"))?;
                ensure!(opened.pack.header().is_coded(), "{place}: {name}");
                check(name, opened)?;
            }
        }
        // What was fetched once comes from the cache, decoded.
        let opened = streamed.get(&model).await?;
        opened.fetch.finished().await?;
        opened.fetch.keep();
        let file = temp.path().join(format!("cache/{}.glow", opened.pack.digest()));
        for _ in 0..1000 {
            if !file.is_file() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        }
        ensure!(std::fs::metadata(&file)?.len() == opened.pack.header().memory_len + 32);
        let again = streamed.get(&model).await?;
        ensure!(again.fetch.outcome().is_some(), "not from the cache");
        ensure!(answer(again, &inputs, false)? == answer(open_file(Path::new(&plain))?, &inputs, false)?);
    }
    Ok(())
}

#[test]
fn plans_for_other_targets_are_merged_into_coded_packs() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let path = |name: &str| temp.path().join(name).display().to_string();
    let onnx = repo("tests/data/quantized/rows.onnx").display().to_string();
    let base = ["pack", &onnx, "--target", "common,avx512", "-o"];
    let (plain, coded) = (path("plain.glow"), path("coded.glow"));
    glowplug_ok(&[&base[..], &[&plain]].concat())?;
    glowplug_ok(&[&base[..], &[&coded, "--entropy"]].concat())?;
    let read = |path: &str| Ok::<_, anyhow::Error>(Pack::open(&std::fs::read(path)?)?);
    let ((plain, _), (coded, _)) = (read(&plain)?, read(&coded)?);
    ensure!(coded.header().is_coded() && coded.plans().count() == 2 && coded.weights() == plain.weights());
    Ok(())
}

#[test]
fn a_damaged_coded_pack_is_told() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let (onnx, weights, _) = CASES[2];
    let ([_, coded], _) = packs(temp.path(), onnx, weights)?;
    let good = std::fs::read(&coded)?;
    let pack = Pack::parse(&good)?;
    let chunk = pack.chunks().iter().find(|chunk| chunk.is_coded()).context("nothing is coded")?;
    let start = usize::try_from(chunk.stored().start)?;
    // Its code lengths, and a byte of its streams.
    for at in [start + 1, start + chunk.stored_len / 2] {
        let mut bad = good.clone();
        bad[at] ^= 0xff;
        std::fs::write(&coded, &bad)?;
        glowplug_fails(1, &["verify", &coded]).with_context(|| format!("damage at {at}"))?;
    }
    std::fs::write(&coded, &good[..good.len() - 1])?;
    glowplug_fails(1, &["verify", &coded])?;
    Ok(())
}
