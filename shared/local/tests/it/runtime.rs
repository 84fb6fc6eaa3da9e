//! The Runtime API and the life cycle of processes.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use glowplug_local::{
    CloudSpec, FunctionErrorKind, LocalCloud, LocalErrorKind, LogStream, MAX_REQUEST_BYTES,
    MAX_RESPONSE_BYTES,
};
use serde_json::{Value, json};

use crate::harness::{ask, cloud, does, eventually, function, is_alive};

/// Invokes `f` and returns the kind and the document of its error.
async fn fails(cloud: &LocalCloud, event: Value) -> (FunctionErrorKind, Value) {
    let error = cloud.invoke("f", event.to_string()).await.unwrap().outcome.unwrap_err();
    (error.kind, serde_json::from_slice(&error.payload).unwrap())
}

#[tokio::test]
async fn a_process_is_cold_once_then_warm() {
    let (cloud, _) = cloud(|_| {}).await;
    let first = cloud.invoke("f", json!({"n": 1}).to_string()).await.unwrap();
    let second = cloud.invoke("f", json!({"n": 2}).to_string()).await.unwrap();
    assert!(first.init.is_some() && second.init.is_none());
    assert_ne!(first.request_id, second.request_id);
    let answers: Vec<Value> =
        [first, second].map(|r| serde_json::from_slice(&r.outcome.unwrap()).unwrap()).into();
    assert_eq!(answers[0]["event"], json!({"n": 1}));
    assert_eq!(answers[0]["pid"], answers[1]["pid"]);
}

#[tokio::test]
async fn the_headers_tell_the_truth() {
    let (cloud, _) = cloud(|spec| spec.functions[0].timeout = Duration::from_secs(7)).await;
    let before = std::time::SystemTime::now();
    let result = cloud.invoke("f", does("headers").to_string()).await.unwrap();
    let answer: Value = serde_json::from_slice(&result.outcome.unwrap()).unwrap();
    let header = |at: usize| answer["headers"][at].as_str().unwrap();
    let deadline = std::time::UNIX_EPOCH + Duration::from_millis(header(0).parse().unwrap());
    let left = deadline.duration_since(before).unwrap();
    assert!((Duration::from_millis(6900)..Duration::from_secs(12)).contains(&left), "{left:?}");
    assert_eq!(header(1), "arn:aws:lambda:us-east-1:000000000000:function:f");
    assert!(header(2).starts_with("Root=1-"), "{}", header(2));
    assert_eq!(header(3), result.request_id);
}

#[tokio::test]
async fn a_function_sees_lambdas_environment_and_no_other() {
    let (cloud, _) = cloud(|spec| drop(spec.functions[0].env.insert("MODEL".into(), "digits".into()))).await;
    let answer = ask(&cloud, does("env")).await;
    let env = &answer["env"];
    for (name, wanted) in [
        ("AWS_LAMBDA_FUNCTION_NAME", "f"),
        ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "1769"),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ACCESS_KEY_ID", "local"),
        ("AWS_SECRET_ACCESS_KEY", "local-secret"),
        ("AWS_ENDPOINT_URL_S3", &cloud.urls().s3),
        ("AWS_ENDPOINT_URL_SQS", &cloud.urls().sqs),
        ("_HANDLER", "bootstrap"),
        ("MODEL", "digits"),
    ] {
        assert_eq!(env[name], wanted, "{name}");
    }
    assert_eq!(env["LAMBDA_TASK_ROOT"], answer["cwd"]);
    let known = |name: &str| {
        name.starts_with("AWS_")
            || name.starts_with("LAMBDA_")
            || "_HANDLER LANG TZ PATH MODEL ROLE".contains(name)
    };
    let inherited: Vec<&String> = env.as_object().unwrap().keys().filter(|name| !known(name)).collect();
    assert!(inherited.is_empty(), "{inherited:?}");
}

#[tokio::test]
async fn a_handled_error_reaches_the_caller_and_the_process_lives_on() {
    let (cloud, _) = cloud(|_| {}).await;
    let pid = ask(&cloud, json!({})).await["pid"].clone();
    let error = json!({"errorType": "Model.NotFound", "errorMessage": "no such model"});
    assert_eq!(fails(&cloud, does("error")).await, (FunctionErrorKind::Handled, error));
    assert_eq!(ask(&cloud, json!({})).await["pid"], pid);
}

#[tokio::test]
async fn a_crash_answers_at_once_and_a_new_process_serves_the_next_event() {
    let (cloud, _) = cloud(|_| {}).await;
    let pid = ask(&cloud, json!({})).await["pid"].clone();
    for action in ["crash", "exit"] {
        let started = Instant::now();
        let (kind, document) = fails(&cloud, does(action)).await;
        assert_eq!((kind, &document["errorType"]), (FunctionErrorKind::Exit, &json!("Runtime.ExitError")));
        assert!(started.elapsed() < Duration::from_secs(60), "{action} took {:?}", started.elapsed());
    }
    let next = cloud.invoke("f", "{}").await.unwrap();
    assert!(next.init.is_some());
    let answer: Value = serde_json::from_slice(&next.outcome.unwrap()).unwrap();
    assert_ne!(answer["pid"], pid);
}

#[tokio::test]
async fn a_function_is_killed_at_its_deadline() {
    let (cloud, _) = cloud(|spec| spec.functions[0].timeout = Duration::from_millis(300)).await;
    let pid = ask(&cloud, json!({})).await["pid"].as_u64().unwrap();
    let started = Instant::now();
    let (kind, document) = fails(&cloud, does("hang")).await;
    assert!(started.elapsed() >= Duration::from_millis(300), "{:?}", started.elapsed());
    assert_eq!((kind, &document["errorType"]), (FunctionErrorKind::Timeout, &json!("Sandbox.Timedout")));
    assert!(document["errorMessage"].as_str().unwrap().ends_with("Task timed out after 0.30 seconds"));
    eventually("the late process is gone", || !is_alive(pid)).await;
    assert_ne!(ask(&cloud, json!({})).await["pid"], pid);
}

#[tokio::test]
async fn calls_out_of_turn_are_refused_one_by_one() {
    let (cloud, _) = cloud(|_| {}).await;
    // A foreign id, a stale id, init error after init, no such operation, next in mid-invocation.
    assert_eq!(ask(&cloud, does("protocol")).await["statuses"], json!([400, 400, 403, 404, 403]));
    // And the same id a second time.
    assert_eq!(ask(&cloud, does("protocol")).await["statuses"], json!([400, 400, 403, 404, 403, 400]));
}

#[tokio::test]
async fn payloads_are_limited_as_on_lambda() {
    let (cloud, _) = cloud(|_| {}).await;
    let largest = format!("\"{}\"", "x".repeat(MAX_REQUEST_BYTES - 2));
    assert_eq!(ask(&cloud, serde_json::from_str(&largest).unwrap()).await["event"].to_string(), largest);
    let error = cloud.invoke("f", format!("{largest} ")).await.unwrap_err();
    assert_eq!(error.kind(), LocalErrorKind::Payload);
    assert!(error.to_string().contains("has 6291457 bytes, wanted at most 6291456"), "{error}");

    let fits =
        cloud.invoke("f", json!({"do": "large", "bytes": MAX_RESPONSE_BYTES}).to_string()).await.unwrap();
    assert_eq!(fits.outcome.unwrap().len(), MAX_RESPONSE_BYTES);
    let (kind, document) = fails(&cloud, json!({"do": "large", "bytes": MAX_RESPONSE_BYTES + 1})).await;
    assert_eq!(
        (kind, &document["errorType"]),
        (FunctionErrorKind::TooLarge, &json!("Function.ResponseSizeTooLarge"))
    );
    let statuses = ask(&cloud, does("protocol")).await["statuses"].clone();
    assert_eq!(statuses.as_array().unwrap()[5..], [202, 413]);
}

/// The different processes that answer `count` events at once, each of which takes a while.
async fn pids(cloud: &LocalCloud, count: usize) -> BTreeSet<u64> {
    let asked = (0..count).map(|_| ask(cloud, json!({"do": "sleep", "ms": 150})));
    let answers = futures_util::future::join_all(asked).await;
    answers.iter().map(|answer| answer["pid"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn busy_functions_scale_out_up_to_the_limit() {
    let (cloud, _) = cloud(|spec| spec.functions[0].max_processes = 3).await;
    assert_eq!(pids(&cloud, 2).await.len(), 2);
    let three = pids(&cloud, 8).await;
    assert_eq!(three.len(), 3);
    // Warm processes are used before new ones are started.
    let one = ask(&cloud, json!({})).await["pid"].as_u64().unwrap();
    assert!(three.contains(&one));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_event_is_forgotten_in_a_crowd() {
    let (cloud, _) = cloud(|spec| spec.functions[0].max_processes = 3).await;
    // Some crash, some come one after the other, some at once: each gets its own answer.
    let asked = (0..300).map(|n| {
        let cloud = &cloud;
        async move {
            let event = if n % 100 == 99 { does("crash") } else { json!({"n": n}) };
            let outcome = cloud.invoke("f", event.to_string()).await.unwrap().outcome;
            let answer =
                outcome.map(|bytes| serde_json::from_slice::<Value>(&bytes).unwrap()["event"]["n"].clone());
            (n, answer.map_err(|error| error.kind))
        }
    });
    let answers =
        tokio::time::timeout(Duration::from_secs(60), futures_util::future::join_all(asked)).await.unwrap();
    for (n, answer) in answers {
        let wanted = if n % 100 == 99 { Err(FunctionErrorKind::Exit) } else { Ok(json!(n)) };
        assert_eq!(answer, wanted, "event {n}");
    }
}

#[tokio::test]
async fn every_failure_of_init_is_told_and_the_next_event_tries_again() {
    for (role, kind, error_type) in [
        ("init-error", FunctionErrorKind::Init, "Config.Missing"),
        ("init-exit", FunctionErrorKind::Init, "Runtime.ExitError"),
        ("init-hang", FunctionErrorKind::InitTimeout, "Sandbox.Timedout"),
    ] {
        let mut bad = function("f", role);
        bad.init_timeout = Duration::from_millis(400);
        let (cloud, _) = cloud(|spec| spec.functions = vec![bad]).await;
        for _ in 0..2 {
            let (found, document) = fails(&cloud, json!({})).await;
            assert_eq!((found, &document["errorType"]), (kind, &json!(error_type)), "{role}");
        }
        cloud.shutdown().await;
    }
}

#[tokio::test]
async fn a_file_that_is_no_program_is_an_init_error() {
    let folder = tempdir();
    let text = folder.join("bootstrap");
    std::fs::write(&text, "not a program").unwrap();
    let (cloud, _) = cloud(|spec| spec.functions[0].binary = text).await;
    let (kind, document) = fails(&cloud, json!({})).await;
    assert_eq!(
        (kind, &document["errorType"]),
        (FunctionErrorKind::Init, &json!("Runtime.InvalidEntrypoint"))
    );
    std::fs::remove_dir_all(folder).unwrap();
}

fn tempdir() -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("glowplug-local-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[tokio::test]
async fn streams_are_passed_on_with_their_errors() {
    let (cloud, _) = cloud(|_| {}).await;
    let whole = cloud.invoke("f", does("stream").to_string()).await.unwrap().outcome.unwrap();
    assert!(whole.ends_with(b"\0\0\0\0\0\0\0\0first second"), "{whole:?}");
    let error = json!({"errorType": "Stream.Broken", "errorMessage": "Index"});
    assert_eq!(fails(&cloud, does("stream-error")).await, (FunctionErrorKind::Handled, error));
    let (kind, document) = fails(&cloud, does("stream-break")).await;
    assert_eq!((kind, &document["errorType"]), (FunctionErrorKind::Exit, &json!("Runtime.ExitError")));
    ask(&cloud, json!({})).await;
}

#[tokio::test]
async fn a_stream_that_is_late_is_a_timeout() {
    let (cloud, _) = cloud(|spec| spec.functions[0].timeout = Duration::from_millis(300)).await;
    assert_eq!(fails(&cloud, does("stream-hang")).await.0, FunctionErrorKind::Timeout);
    ask(&cloud, json!({})).await;
}

#[tokio::test]
async fn an_idle_process_that_dies_is_replaced() {
    let (cloud, _) = cloud(|spec| spec.functions[0].max_processes = 1).await;
    let pid = ask(&cloud, json!({})).await["pid"].as_u64().unwrap();
    let raw = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    rustix::process::kill_process(raw, rustix::process::Signal::KILL).unwrap();
    eventually("the process is gone", || !is_alive(pid)).await;
    assert_ne!(ask(&cloud, json!({})).await["pid"], pid);
}

#[tokio::test]
async fn output_is_forwarded_line_by_line() {
    let (cloud, output) = cloud(|_| {}).await;
    let pid = ask(&cloud, json!({"n": 1})).await["pid"].as_u64().unwrap();
    eventually("the line is here", || !output.events().is_empty()).await;
    let line = output.lines().into_iter().find(|line| line.text == r#"GOT {"n":1}"#).unwrap();
    assert_eq!((line.function.as_str(), u64::from(line.process), line.stream), ("f", pid, LogStream::Stdout));
    // A panic's last words go to stderr and are not lost with the process.
    fails(&cloud, json!({"do": "sleep"})).await;
    eventually("the panic is told", || output.lines().iter().any(|line| line.stream == LogStream::Stderr))
        .await;
}

#[tokio::test]
async fn no_process_is_left_behind() {
    for wait in [true, false] {
        let (cloud, _) = cloud(|_| {}).await;
        let answer = ask(&cloud, does("grandchild")).await;
        let pids = ["pid", "grandchild"].map(|name| answer[name].as_u64().unwrap());
        assert!(pids.iter().all(|pid| is_alive(*pid)));
        if wait {
            cloud.shutdown().await;
            assert!(!is_alive(pids[0]), "the function outlived the shutdown");
        } else {
            drop(cloud);
        }
        eventually("both are gone", || !pids.iter().any(|pid| is_alive(*pid))).await;
    }
}

#[tokio::test]
async fn a_crash_takes_what_the_process_started_along() {
    let (cloud, _) = cloud(|_| {}).await;
    let grandchild = ask(&cloud, does("grandchild")).await["grandchild"].as_u64().unwrap();
    fails(&cloud, does("crash")).await;
    eventually("the grandchild is gone", || !is_alive(grandchild)).await;
}

#[tokio::test]
async fn a_shutdown_answers_what_still_runs() {
    let (cloud, output) = cloud(|spec| spec.functions[0].max_processes = 1).await;
    let stop = async {
        eventually("one is being worked on", || output.events().len() == 1).await;
        cloud.shutdown().await;
    };
    let (running, waiting, ()) = tokio::join!(fails(&cloud, does("hang")), fails(&cloud, does("hang")), stop);
    assert_eq!([running.0, waiting.0], [FunctionErrorKind::Shutdown; 2]);
    assert_eq!(fails(&cloud, json!({})).await.0, FunctionErrorKind::Shutdown);
}

#[tokio::test]
async fn what_is_not_there_is_named() {
    let (cloud, _) = cloud(|_| {}).await;
    let error = cloud.invoke("g", "{}").await.unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (LocalErrorKind::NotFound, "no function named \"g\"")
    );
    let spec = CloudSpec { gateway_port: port_of(&cloud.urls().gateway), ..CloudSpec::default() };
    let error = LocalCloud::start(spec, std::sync::Arc::new(|_| {})).await.err().unwrap();
    assert_eq!(error.kind(), LocalErrorKind::Io);
    assert!(error.to_string().starts_with("the gateway cannot listen on 127.0.0.1:"), "{error}");
}

fn port_of(url: &str) -> u16 {
    url.rsplit(':').next().unwrap().parse().unwrap()
}
