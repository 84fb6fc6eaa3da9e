//! Faults on the way from S3 to the real function: each ends in the right answer or in an error that tells what is
//! wrong, in bounded time, and the next request is served.

use anyhow::{Context, Result, bail, ensure};
use glowplug_local::{
    CloudSpec, Fault, FaultKind, FunctionSpec, LocalCloud, LogLine, Reply, Route, Shape, post,
};
use glowplug_tests::{binary, glowplug_ok, repo};
use serde_json::{Value, json};
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const KEY: &str = "cls/1/model.glow";

/// One process of the api function, and a pack of 0.85 MB that takes a first request of 256 KiB and three more.
struct Lab {
    cloud: LocalCloud,
    lines: Arc<Mutex<Vec<LogLine>>>,
}

/// A pack of the vendored model of text orientation, under `name`: another name is another pack with equal answers.
fn pack(dir: &Path, name: &str) -> Result<Vec<u8>> {
    let (onnx, out) = (repo("tests/data/models/ppocr-cls.onnx"), dir.join(format!("{name}.glow")));
    let manifest = dir.join(format!("{name}.toml"));
    std::fs::write(&manifest, format!("[model]\nname = \"{name}\"\n"))?;
    let paths = [&onnx, &out, &manifest].map(|path| path.display().to_string());
    glowplug_ok(&[
        "pack",
        &paths[0],
        "-o",
        &paths[1],
        "--manifest",
        &paths[2],
        "--input",
        "x=f32[1,3,48,192]",
    ])?;
    Ok(std::fs::read(out)?)
}

async fn lab(binary: PathBuf, env: &[(&str, &str)], pack: &[u8]) -> Result<Lab> {
    let mut function = FunctionSpec::new("api", binary);
    let base = [
        ("GLOWPLUG_STORE", "s3://models"),
        ("GLOWPLUG_FETCH_PART_KB", "256"),
        ("GLOWPLUG_S3_PATH_STYLE", "true"),
        ("GLOWPLUG_LOG", "info,glowplug_store=debug"),
    ];
    function.env = base.iter().chain(env).map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    function.timeout = Duration::from_secs(25);
    let spec = CloudSpec {
        functions: vec![function],
        routes: vec![Route::new("/", "api")],
        buckets: vec!["models".into()],
        ..CloudSpec::default()
    };
    let lines = Arc::new(Mutex::new(Vec::new()));
    let sink = lines.clone();
    let sink = Arc::new(move |line| sink.lock().expect("no panic while locked").push(line));
    let cloud = LocalCloud::start(spec, sink).await?;
    cloud.buckets().put("models", KEY, pack.to_vec())?;
    Ok(Lab { cloud, lines })
}

impl Lab {
    fn inject(&self, nth: u32, kind: FaultKind) {
        self.cloud.buckets().inject(Fault { key: Some(KEY.into()), nth, kind });
    }

    fn store(&self, pack: Vec<u8>) -> Result<()> {
        self.cloud.buckets().put("models", KEY, pack)?;
        Ok(())
    }

    /// Bytes per second of each connection.
    fn slow(&self, rate: u64) {
        let shape = Shape { bytes_per_second: NonZeroU64::new(rate), ..Shape::default() };
        self.cloud.buckets().set_shape(shape);
    }

    async fn ask(&self) -> Result<Reply> {
        self.ask_version(1).await
    }

    async fn ask_version(&self, version: u32) -> Result<Reply> {
        let data = json!((0..3 * 48 * 192).map(|i| f64::from(i % 97) / 97.0).collect::<Vec<_>>());
        let tensor = json!({"name": "x", "shape": [1, 3, 48, 192], "datatype": "FP32", "data": data});
        let url = format!("{}/v2/models/cls/versions/{version}/infer", self.cloud.urls().gateway);
        Ok(post(&url, "application/json", json!({"inputs": [tensor]}).to_string()).await?)
    }

    /// The answer, which must be one.
    async fn answer(&self) -> Result<Value> {
        let reply = self.ask().await?;
        ensure!(reply.status == 200, "{}: {}", reply.status, String::from_utf8_lossy(&reply.body));
        let body: Value = serde_json::from_slice(&reply.body)?;
        Ok(body["outputs"][0]["data"].clone())
    }

    /// The error, which must be one: its status and text.
    async fn error(&self) -> Result<(u16, String)> {
        let reply = self.ask().await?;
        let body: Value = serde_json::from_slice(&reply.body)?;
        let text = body["error"].as_str().with_context(|| format!("{}: no error in {body}", reply.status))?;
        Ok((reply.status.as_u16(), text.to_owned()))
    }

    /// The answer of a request that is made again while the model is not to be had.
    async fn answer_at_last(&self) -> Result<Value> {
        let start = Instant::now();
        loop {
            match self.answer().await {
                Err(error) if start.elapsed() > Duration::from_secs(15) => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
                answer => return answer,
            }
        }
    }

    fn logged(&self, text: &str) -> Vec<LogLine> {
        let lines = self.lines.lock().expect("no panic while locked");
        lines.iter().filter(|line| line.text.contains(text)).cloned().collect()
    }

    async fn wait_for_log(&self, text: &str) -> Result<LogLine> {
        let start = Instant::now();
        loop {
            if let Some(line) = self.logged(text).pop() {
                return Ok(line);
            }
            ensure!(start.elapsed() < Duration::from_secs(15), "never logged: {text}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// The pack, and what its model answers when all is well.
async fn reference() -> Result<(Vec<u8>, Value)> {
    let temp = tempfile::tempdir()?;
    let pack = pack(temp.path(), "cls")?;
    let lab = lab(binary("glowplug-api")?, &[], &pack).await?;
    let answer = lab.answer().await?;
    ensure!(answer.as_array().is_some_and(|a| a.len() == 2), "{answer}");
    lab.cloud.shutdown().await;
    Ok((pack, answer))
}

#[tokio::test(flavor = "multi_thread")]
async fn what_passes_ends_in_the_right_answer() -> Result<()> {
    let (good, wanted) = reference().await?;
    let faults: [(&str, &[(u32, FaultKind)]); 5] = [
        ("reset in the front", &[(1, FaultKind::ResetAfter(3000)), (2, FaultKind::ResetAfter(0))]),
        ("reset in the weights", &[(1, FaultKind::ResetAfter(200_000)), (3, FaultKind::ResetAfter(100_000))]),
        (
            "overload",
            &[(1, FaultKind::Status(503)), (2, FaultKind::Status(500)), (4, FaultKind::Status(429))],
        ),
        ("stalled in the front", &[(1, FaultKind::StallAfter(1000))]),
        ("stalled ranges", &[(2, FaultKind::StallAfter(50_000)), (3, FaultKind::StallAfter(0))]),
    ];
    for (what, faults) in faults {
        let lab = lab(binary("glowplug-api")?, &[], &good).await?;
        for (nth, kind) in faults {
            lab.inject(*nth, *kind);
        }
        let start = Instant::now();
        let answer = lab.answer().await.context(what)?;
        ensure!(answer == wanted, "{what}: {answer}, expected {wanted}");
        ensure!(start.elapsed() < Duration::from_secs(20), "{what}: {:?}", start.elapsed());
        lab.cloud.shutdown().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_the_object_is_told_and_a_right_one_serves() -> Result<()> {
    let (good, wanted) = reference().await?;
    let lab = lab(binary("glowplug-api")?, &[], &good).await?;
    let len = good.len();
    let mut wrong_byte = good.clone();
    wrong_byte[600_000] ^= 1;
    let mut wrong_front = good.clone();
    wrong_front[3000] ^= 1;
    for (pack, texts) in [
        (wrong_byte, ["wrong twice", "section blobs", "chunk", "the chunk table wants"]),
        (wrong_front, [KEY, "section", "chunk", "its hash is"]),
        (good[..len - 1000].to_vec(), [KEY, "bytes, its header tells", &len.to_string(), "model cls/1"]),
        (good[..200].to_vec(), [KEY, "model cls/1", "200", "bytes"]),
    ] {
        lab.store(pack)?;
        let start = Instant::now();
        let (status, error) = lab.error().await?;
        ensure!(texts.iter().all(|text| error.contains(text)), "{error:?} does not hold {texts:?}");
        ensure!((500..=503).contains(&status) && start.elapsed() < Duration::from_secs(10), "{status}");
        lab.store(good.clone())?;
        ensure!(lab.answer_at_last().await? == wanted, "another answer after {error}");
        // Empties the slot for the next case: its process goes, as after a crash.
        let pid = lab.wait_for_log("asking for bytes").await?.process;
        signal(pid, "-KILL")?;
        // Until it was waited for: before, the next request could still be given to it.
        while signal(pid, "-0").is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        lab.lines.lock().expect("no panic while locked").clear();
    }
    lab.cloud.shutdown().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_names_the_object_and_is_not_repeated() -> Result<()> {
    let (good, wanted) = reference().await?;
    // Of the front; of a range.
    for nth in [1, 2] {
        let lab = lab(binary("glowplug-api")?, &[], &good).await?;
        lab.inject(nth, FaultKind::Status(403));
        let start = Instant::now();
        let (status, error) = lab.error().await?;
        ensure!(error.contains(&format!("s3://models/{KEY}")) && error.contains("403"), "{error}");
        ensure!(!error.contains("tries") && start.elapsed() < Duration::from_secs(5), "{status} {error}");
        ensure!(lab.answer_at_last().await? == wanted);
        lab.cloud.shutdown().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_replaced_in_mid_download_is_an_error_and_then_the_new_one() -> Result<()> {
    let (good, wanted) = reference().await?;
    let lab = lab(binary("glowplug-api")?, &[], &good).await?;
    // 0.65 s for each part, so that the last ones are asked for after the object has changed.
    lab.slow(400_000);
    let other = {
        let temp = tempfile::tempdir()?;
        pack(temp.path(), "other")?
    };
    let (first, replaced) = tokio::join!(lab.ask(), async {
        lab.wait_for_log("asking for bytes").await?;
        tokio::time::sleep(Duration::from_millis(200)).await;
        lab.store(other)
    });
    replaced?;
    let first = first?;
    let text = String::from_utf8_lossy(&first.body).into_owned();
    // Its four requests may all have been answered before the change: then it is the old model's right answer.
    ensure!(first.status == 200 || (first.status == 503 && text.contains("has changed")), "{text}");
    lab.slow(1 << 40);
    ensure!(lab.answer_at_last().await? == wanted);
    lab.cloud.shutdown().await;
    Ok(())
}

/// A process that Lambda freezes between two of its instructions, for longer than any patience of its requests, while
/// the other end gives up the connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_process_frozen_in_mid_download_serves_when_it_is_thawed() -> Result<()> {
    let (good, wanted) = reference().await?;
    for stalled in [false, true] {
        let lab = lab(binary("glowplug-api")?, &[], &good).await?;
        lab.slow(300_000);
        if stalled {
            lab.inject(1, FaultKind::StallAfter(150_000));
        }
        let answered = async { (lab.answer().await, Instant::now()) };
        let ((answer, answered), thawed) = tokio::join!(answered, async {
            let pid = lab.wait_for_log("asking for bytes").await?.process;
            tokio::time::sleep(Duration::from_millis(300)).await;
            signal(pid, "-STOP")?;
            tokio::time::sleep(Duration::from_secs(4)).await;
            let thawed = Instant::now();
            signal(pid, "-CONT")?;
            Ok::<_, anyhow::Error>(thawed)
        });
        ensure!(answer? == wanted);
        ensure!(answered > thawed?, "all of it came before the freeze");
        lab.cloud.shutdown().await;
    }
    Ok(())
}

fn signal(pid: u32, signal: &str) -> Result<()> {
    let status = std::process::Command::new("kill").args([signal, &pid.to_string()]).status()?;
    ensure!(status.success(), "kill {signal} {pid}: {status}");
    Ok(())
}

/// The files of a folder that may not be there yet.
fn packs(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.extension().is_some_and(|e| e == "glow")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cached_pack_serves_the_next_process_and_a_torn_one_does_not() -> Result<()> {
    let (good, wanted) = reference().await?;
    let temp = tempfile::tempdir()?;
    let dir = temp.path().join("cache");
    let folder = dir.display().to_string();
    let env = [("GLOWPLUG_CACHE_MB", "16"), ("GLOWPLUG_CACHE_DIR", folder.as_str())];
    let first = lab(binary("glowplug-api")?, &env, &good).await?;
    ensure!(first.answer().await? == wanted);
    first.wait_for_log("\"cached\"").await?;
    let [file] = &packs(&dir)[..] else { bail!("{:?}", packs(&dir)) };
    ensure!(std::fs::read(file)?.len() == good.len());
    first.cloud.shutdown().await;
    // Another process; what is behind the front of the object is wrong by now, and not asked for.
    let second = lab(binary("glowplug-api")?, &env, &good).await?;
    let mut wrong = good.clone();
    wrong[600_000] ^= 1;
    second.store(wrong)?;
    ensure!(second.answer().await? == wanted);
    ensure!(second.logged("asking for bytes").len() == 1, "more than the header was asked for");
    second.cloud.shutdown().await;
    // A third finds the file torn: from the store again, and then cached again.
    std::fs::File::options().write(true).open(file)?.set_len(500_000)?;
    let third = lab(binary("glowplug-api")?, &env, &good).await?;
    ensure!(third.answer().await? == wanted);
    third.wait_for_log("a file of the cache is not used").await?;
    third.wait_for_log("\"cached\"").await?;
    third.cloud.shutdown().await;
    Ok(())
}

/// A limit on the size of files stands in for storage that is full: it is what a test can set without rights.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn full_storage_costs_one_warning_and_no_request() -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let (good, wanted) = reference().await?;
    let temp = tempfile::tempdir()?;
    let wrapper = temp.path().join("limited-api");
    let api = binary("glowplug-api")?.canonicalize()?;
    let script = format!("#!/bin/sh\ntrap '' XFSZ\nulimit -f 100\nexec '{}'\n", api.display());
    std::fs::write(&wrapper, script)?;
    std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755))?;
    let dir = temp.path().join("cache");
    let folder = dir.display().to_string();
    let env = [("GLOWPLUG_CACHE_MB", "16"), ("GLOWPLUG_CACHE_DIR", folder.as_str())];
    let lab = lab(wrapper, &env, &good).await?;
    ensure!(lab.answer().await? == wanted);
    lab.wait_for_log("takes no more packs").await?;
    // Another model would be written too, and is only served.
    lab.cloud.buckets().put("models", "cls/2/model.glow", good)?;
    ensure!(lab.ask_version(2).await?.status == 200);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let left = std::fs::read_dir(&dir)?.count();
    ensure!(lab.logged("takes no more packs").len() == 1 && left == 0, "{left} files are left");
    lab.cloud.shutdown().await;
    Ok(())
}
