//! The environment's defaults, and every way in which it can be wrong.

use super::*;

const LAMBDA: [(&str, &str); 5] = [
    ("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001"),
    ("AWS_LAMBDA_FUNCTION_NAME", "score"),
    ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST"),
    ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "3008"),
    ("GLOWPLUG_STORE", "s3://models-eu/packs"),
];

/// The environment of a healthy function with `changes` on top.
fn read(role: Role, changes: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::from_env(role, |name| {
        let all = LAMBDA.iter().chain(changes);
        all.rev().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    })
}

fn s3(bucket: &str, prefix: &str) -> Location {
    Location::S3 { bucket: bucket.into(), prefix: prefix.into() }
}

#[test]
fn defaults() {
    let config = read(Role::Api, &[]).expect("a healthy environment");
    assert_eq!(config.store, s3("models-eu", "packs"));
    assert_eq!(config.results, None);
    assert_eq!(config.models, []);
    assert_eq!(config.memory_budget_bytes, 2256 << 20);
    assert_eq!(config.threads, 2);
    assert_eq!(config.max_body_bytes, 6_291_456);
    assert_eq!((config.max_pixels, config.max_concurrency), (50_000_000, 4));
    assert_eq!((config.verify, config.log.as_str()), (Verify::Entry, "info"));
    assert_eq!(config.metrics_namespace, "Glowplug");
    assert_eq!(config.s3, S3Options::default());
    assert_eq!((config.fetch.part_bytes, config.fetch.connections, config.cache), (2 << 20, 4, None));
    assert_eq!(config.function.name, "score");
}

#[test]
fn everything_set() {
    let config = read(
        Role::Queue,
        &[
            ("GLOWPLUG_STORE", "file:///srv/models"),
            ("GLOWPLUG_RESULTS", "s3://results-eu/out/"),
            ("GLOWPLUG_MODELS", "mnist-cnn, ocr:3,lite0@blue"),
            ("GLOWPLUG_MEMORY_BUDGET_MB", "10240"),
            ("GLOWPLUG_THREADS", "64"),
            ("GLOWPLUG_MAX_BODY_BYTES", "209715200"),
            ("GLOWPLUG_MAX_PIXELS", "1"),
            ("GLOWPLUG_MAX_CONCURRENCY", "8"),
            ("GLOWPLUG_VERIFY", "always"),
            ("GLOWPLUG_LOG", "warn,glowplug_predict=debug"),
            ("AWS_LAMBDA_LOG_LEVEL", "DEBUG"),
            ("GLOWPLUG_METRICS_NAMESPACE", "Team/Vision"),
            ("AWS_ENDPOINT_URL", "http://127.0.0.1:4566"),
            ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9000"),
            ("GLOWPLUG_S3_PATH_STYLE", "true"),
            ("GLOWPLUG_FETCH_PART_KB", "16384"),
            ("GLOWPLUG_FETCH_CONNECTIONS", "8"),
            ("GLOWPLUG_CACHE_MB", "512"),
            ("GLOWPLUG_CACHE_DIR", "/mnt/packs"),
        ],
    )
    .expect("a healthy environment");
    assert_eq!(config.store, Location::Directory("/srv/models".into()));
    assert_eq!(config.results().expect("set"), &s3("results-eu", "out"));
    let spec = |name: &str, selector| ModelSpec { name: name.into(), selector };
    let expected = [
        spec("mnist-cnn", Selector::Alias("default".into())),
        spec("ocr", Selector::Version("3".into())),
        spec("lite0", Selector::Alias("blue".into())),
    ];
    assert_eq!(config.models, expected);
    assert_eq!((config.memory_budget_bytes, config.threads), (10_240 << 20, 64));
    assert_eq!((config.max_body_bytes, config.max_pixels, config.max_concurrency), (209_715_200, 1, 8));
    assert_eq!((config.verify, config.log.as_str()), (Verify::Always, "warn,glowplug_predict=debug"));
    assert_eq!(config.metrics_namespace, "Team/Vision");
    assert_eq!(config.s3, S3Options { endpoint: Some("http://127.0.0.1:9000".into()), path_style: true });
    assert_eq!(config.fetch, Fetch { part_bytes: 16 << 20, connections: 8 });
    assert_eq!(config.cache, Some(Cache { dir: "/mnt/packs".into(), max_bytes: 512 << 20 }));
}

#[test]
fn lambda_log_level_and_general_endpoint_are_honoured() {
    let changes = [("AWS_LAMBDA_LOG_LEVEL", "FATAL"), ("AWS_ENDPOINT_URL", "https://s3.example")];
    let config = read(Role::Api, &changes).expect("a healthy environment");
    assert_eq!(config.log, "error");
    assert_eq!(config.s3.endpoint.as_deref(), Some("https://s3.example"));
}

#[test]
fn an_empty_variable_is_missing() {
    let config = read(Role::Api, &[("GLOWPLUG_MODELS", ""), ("GLOWPLUG_THREADS", "  ")]).expect("defaults");
    assert_eq!((config.models.len(), config.threads), (0, 2));
    let error = read(Role::Api, &[("GLOWPLUG_STORE", "")]).expect_err("missing");
    assert_eq!(error.to_string(), "GLOWPLUG_STORE is missing, wanted file:///DIR or s3://BUCKET/PREFIX");
}

#[test]
fn each_bad_value_names_variable_value_and_range() {
    let table = [
        ("GLOWPLUG_STORE", "models", "file:///DIR or s3://BUCKET/PREFIX"),
        ("GLOWPLUG_STORE", "file://relative", "file:///DIR"),
        ("GLOWPLUG_STORE", "file:///a/../b", "file:///DIR"),
        ("GLOWPLUG_STORE", "s3://", "s3://BUCKET/PREFIX"),
        ("GLOWPLUG_STORE", "s3://Bad_Bucket/x", "s3://BUCKET/PREFIX"),
        ("GLOWPLUG_STORE", "s3://good-bucket/a//b", "s3://BUCKET/PREFIX"),
        ("GLOWPLUG_STORE", "https://bucket/x", "s3://BUCKET/PREFIX"),
        ("GLOWPLUG_RESULTS", "s3://x", "s3://BUCKET/PREFIX"),
        ("GLOWPLUG_MODELS", "a,,b", "a comma list of NAME, NAME:VERSION or NAME@ALIAS"),
        ("GLOWPLUG_MODELS", "a,a@default", "without doubles"),
        ("GLOWPLUG_MODELS", "a:", "each part 1 to 64"),
        ("GLOWPLUG_MODELS", "../etc", "each part 1 to 64"),
        ("GLOWPLUG_MEMORY_BUDGET_MB", "0", "1..=10240"),
        ("GLOWPLUG_MEMORY_BUDGET_MB", "10241", "1..=10240"),
        ("GLOWPLUG_THREADS", "0", "1..=64"),
        ("GLOWPLUG_THREADS", "two", "1..=64"),
        ("GLOWPLUG_MAX_BODY_BYTES", "209715201", "1..=209715200"),
        ("GLOWPLUG_MAX_BODY_BYTES", "-1", "1..=209715200"),
        ("GLOWPLUG_MAX_PIXELS", "99999999999999999999", "1..=1000000000"),
        ("GLOWPLUG_MAX_CONCURRENCY", "65", "1..=64"),
        ("GLOWPLUG_VERIFY", "never", "entry or always"),
        ("GLOWPLUG_LOG", "info,x=loud", "a level or directives"),
        ("AWS_LAMBDA_LOG_LEVEL", "LOUD", "TRACE DEBUG INFO WARN ERROR FATAL"),
        ("GLOWPLUG_METRICS_NAMESPACE", "AWS/Lambda", "not starting with AWS/"),
        ("GLOWPLUG_METRICS_NAMESPACE", "a b", "1 to 255 of"),
        ("AWS_ENDPOINT_URL_S3", "localhost:9000", "http://HOST[:PORT]"),
        ("AWS_ENDPOINT_URL", "http://", "http://HOST[:PORT]"),
        ("GLOWPLUG_S3_PATH_STYLE", "yes", "true or false"),
        ("GLOWPLUG_FETCH_PART_KB", "255", "256..=65536"),
        ("GLOWPLUG_FETCH_CONNECTIONS", "33", "1..=32"),
        ("GLOWPLUG_CACHE_MB", "10241", "0..=10240"),
        ("GLOWPLUG_CACHE_DIR", "tmp/packs", "an absolute path"),
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "lots", "1..=1048576"),
    ];
    for (variable, value, wanted) in table {
        let error = read(Role::Api, &[(variable, value)]).expect_err(value);
        let text = error.to_string();
        assert!(text.starts_with(&format!("{variable} is {value:?}, wanted ")), "{text}");
        assert!(text.contains(wanted), "{text}");
        assert_eq!(error.problems().len(), 1, "{text}");
    }
}

#[test]
fn all_problems_are_reported_at_once() {
    let error = Config::from_env(Role::Upload, |name| (name == "GLOWPLUG_THREADS").then(|| "0".into()));
    let error = error.expect_err("an empty environment");
    let variables: Vec<_> = error.problems().iter().map(|problem| problem.variable).collect();
    let expected = [
        "AWS_LAMBDA_RUNTIME_API",
        "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_VERSION",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE",
        "GLOWPLUG_RESULTS",
        "GLOWPLUG_STORE",
        "GLOWPLUG_THREADS",
    ];
    assert_eq!(variables, expected);
}

#[test]
fn results_are_required_where_answers_are_written() {
    for role in [Role::Upload, Role::Queue] {
        let error = read(role, &[]).expect_err("no results");
        assert!(error.to_string().starts_with("GLOWPLUG_RESULTS is missing"), "{error}");
    }
    let api = read(Role::Api, &[]).expect("not needed");
    assert!(api.results().expect_err("not set").to_string().contains("GLOWPLUG_RESULTS is missing"));
}

#[test]
fn threads_follow_memory() {
    for (memory, threads) in
        [("128", 1), ("1769", 1), ("2048", 1), ("3538", 2), ("10240", 6), ("1048576", 64)]
    {
        let config = read(Role::Api, &[("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", memory)]).expect("healthy");
        assert_eq!(config.threads, threads, "{memory} MB");
    }
}

#[test]
fn locations_print_as_they_are_written() {
    for text in ["file:///srv/models", "s3://models-eu", "s3://models-eu/a/b"] {
        assert_eq!(Location::parse(text).expect(text).to_string(), text);
    }
}
