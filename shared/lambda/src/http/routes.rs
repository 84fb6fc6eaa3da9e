//! The paths of the Open Inference Protocol, as a table.

use percent_encoding::percent_decode_str;

use super::{Payload, Request, media};
use crate::{
    Error, ErrorKind,
    name::{NAME_RULE, clip, is_name},
};

/// A model, and the version if the path names one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ModelRef {
    /// The model's name.
    pub name: String,
    /// Its version; without one, the alias `default` counts.
    pub version: Option<String>,
}

/// Method, path, and what it leads to.
type Row<T> = (&'static str, &'static [&'static str], T);

/// Paths behind `/v2`.
const SERVER: &[Row<fn() -> Request>] = &[
    ("GET", &[], || Request::ServerMetadata),
    ("GET", &["health", "live"], || Request::ServerLive),
    ("GET", &["health", "ready"], || Request::ServerReady),
];

/// Paths behind `/v2/models/{name}` and `/v2/models/{name}/versions/{version}`.
const MODEL: &[Row<Action>] = &[
    ("GET", &[], Action::Tell(Request::ModelMetadata)),
    ("GET", &["ready"], Action::Tell(Request::ModelReady)),
    ("POST", &["infer"], Action::Run(Request::Infer, media::INFER)),
    ("POST", &["predict"], Action::Run(Request::Predict, media::PREDICT)),
];

/// What is done with a model.
#[derive(Clone, Copy)]
pub(crate) enum Action {
    /// Something is told of it.
    Tell(fn(ModelRef) -> Request),
    /// It runs on a body of one of these media types.
    Run(fn(ModelRef, Payload) -> Request, &'static [&'static str]),
}

/// A path that was found.
pub(crate) enum Route {
    Server(fn() -> Request),
    Model(Action, ModelRef),
}

/// Finds the way of `path`. What precedes the first `v2` is a stage or a base path and is ignored; a stage that is called
/// `v2` itself is told by `stage`.
pub(crate) fn find(method: &str, path: &str, stage: Option<&str>) -> Result<Route, Error> {
    let segments = decode(path)?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let staged = || segments.split_first().filter(|(first, _)| Some(**first) == stage);
    let found = route(method, &segments).or_else(|| route(method, staged()?.1));
    found.unwrap_or_else(|| Err(Error::not_found(format!("path {:?} is unknown", clip(path)))))
}

/// The segments of a path, decoded one by one, so that an encoded slash cannot make two of one.
fn decode(path: &str) -> Result<Vec<String>, Error> {
    let path = path.strip_prefix('/').unwrap_or(path);
    let path = path.strip_suffix('/').unwrap_or(path);
    let segment = |segment: &str| percent_decode_str(segment).decode_utf8().map(Into::into);
    let segments: Result<_, _> = path.split('/').map(segment).collect();
    segments.map_err(|_| Error::invalid(format!("path {:?} is not UTF-8 once decoded", clip(path))))
}

/// The way behind the first `v2`; `None` if there is no such path.
fn route(method: &str, segments: &[&str]) -> Option<Result<Route, Error>> {
    let start = segments.iter().position(|segment| *segment == "v2")?;
    match &segments[start + 1..] {
        ["models", name, "versions", version, rest @ ..] => model(method, rest, name, Some(version)),
        ["models", name, rest @ ..] => model(method, rest, name, None),
        rest => Some(row(SERVER, method, rest)?.map(Route::Server)),
    }
}

fn model(method: &str, rest: &[&str], name: &str, version: Option<&str>) -> Option<Result<Route, Error>> {
    let model = || {
        let version = version.map(|text| checked(text, "model version")).transpose()?;
        Ok(ModelRef { name: checked(name, "model name")?, version })
    };
    Some(row(MODEL, method, rest)?.and_then(|action| Ok(Route::Model(action, model()?))))
}

/// The row for a path; an error if the path is there, but not for this method.
fn row<T: Copy>(table: &[Row<T>], method: &str, path: &[&str]) -> Option<Result<T, Error>> {
    let rows = || table.iter().filter(|row| row.1 == path);
    let allowed = rows().next()?.0;
    let found = rows().find(|row| row.0 == method);
    Some(found.map(|row| row.2).ok_or_else(|| {
        let text = format!("method is {:?}, wanted {allowed}", clip(method));
        Error::new(ErrorKind::MethodNotAllowed, text).with_header("allow", allowed.to_owned())
    }))
}

fn checked(text: &str, noun: &str) -> Result<String, Error> {
    let bad = || Error::invalid(format!("{noun} is {:?}, wanted {NAME_RULE}", clip(text)));
    is_name(text).then(|| text.to_owned()).ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The request that a path leads to, with an empty body.
    fn request(route: Route) -> Request {
        match route {
            Route::Server(make) => make(),
            Route::Model(Action::Tell(make), model) => make(model),
            Route::Model(Action::Run(make, _), model) => make(model, Payload::default()),
        }
    }

    fn told(request: &Request) -> String {
        let (what, model) = match request {
            Request::ServerMetadata => return "Server".into(),
            Request::ServerLive => return "Live".into(),
            Request::ServerReady => return "Ready".into(),
            Request::ModelMetadata(model) => ("Model", model),
            Request::ModelReady(model) => ("ModelReady", model),
            Request::Infer(model, _) => ("Infer", model),
            Request::Predict(model, _) => ("Predict", model),
        };
        let version = model.version.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
        format!("{what} {}{version}", model.name)
    }

    fn check(method: &str, path: &str, stage: Option<&str>, expected: &str) {
        let found = match find(method, path, stage) {
            Ok(route) => told(&request(route)),
            Err(error) => error.kind().status().as_str().to_owned(),
        };
        assert_eq!(found, expected, "{method} {path} at stage {stage:?}");
    }

    #[test]
    fn every_path_of_the_protocol() {
        check("GET", "/v2", None, "Server");
        check("GET", "/v2/", None, "Server");
        check("GET", "/v2/health/live", None, "Live");
        check("GET", "/v2/health/ready", None, "Ready");
        check("GET", "/v2/models/mnist-cnn", None, "Model mnist-cnn");
        check("GET", "/v2/models/mnist-cnn/versions/3", None, "Model mnist-cnn 3");
        check("GET", "/v2/models/mnist-cnn/ready", None, "ModelReady mnist-cnn");
        check("GET", "/v2/models/mnist-cnn/versions/3/ready", None, "ModelReady mnist-cnn 3");
        check("POST", "/v2/models/mnist-cnn/infer", None, "Infer mnist-cnn");
        check("POST", "/v2/models/mnist-cnn/versions/3/infer", None, "Infer mnist-cnn 3");
        check("POST", "/v2/models/mnist-cnn/predict", None, "Predict mnist-cnn");
        check("POST", "/v2/models/mnist-cnn/versions/3/predict", None, "Predict mnist-cnn 3");
    }

    #[test]
    fn stages_and_base_paths_are_ignored() {
        check("GET", "/prod/v2/health/live", Some("prod"), "Live");
        check("GET", "/team/models/v2/models/a", None, "Model a");
        check("GET", "/v2/health/live", Some("v2"), "Live");
        check("GET", "/v2/v2/health/live", Some("v2"), "Live");
        check("GET", "/v2/v2", Some("v2"), "Server");
        check("GET", "/v2/v2/health/live", Some("prod"), "404");
        check("GET", "/v2/models/v2", None, "Model v2");
    }

    #[test]
    fn segments_are_decoded_one_by_one() {
        check("GET", "/v2/models/mnist%2Dcnn", None, "Model mnist-cnn");
        check("GET", "/v2/models/a%2Finfer", None, "400");
        check("GET", "/v2/models/%2e%2e", None, "400");
        check("GET", "/v2/models/a/versions/%00", None, "400");
        check("GET", "/v2/models/%FF", None, "400");
        check("GET", "/v2/models/", None, "404");
        check("GET", "/v2/models//ready", None, "400");
        check("GET", "//v2", None, "Server");
    }

    #[test]
    fn unknown_paths() {
        for path in
            ["", "/", "/v1/models/a", "/v2/nothing", "/v2/models/a/b", "/V2", "/v2/models/a/versions/1/2"]
        {
            check("GET", path, None, "404");
        }
    }

    #[test]
    fn wrong_methods_are_told_the_right_one() {
        for (method, path, allow) in [
            ("POST", "/v2", "GET"),
            ("GET", "/v2/models/a/infer", "POST"),
            ("DELETE", "/v2/models/a", "GET"),
            ("OPTIONS", "/v2/models/a/predict", "POST"),
        ] {
            let error = find(method, path, None).map(request).expect_err(path);
            assert_eq!(error.kind(), ErrorKind::MethodNotAllowed, "{method} {path}");
            assert_eq!(error.header(), Some(("allow", allow.to_owned())));
        }
    }
}
