//! Where a run's time goes, node by node: for whoever wants to know why a plan is as fast as it is.

use std::cell::RefCell;

thread_local! {
    static RECORD: RefCell<Option<Vec<NodeTime>>> = const { RefCell::new(None) };
}

/// How long one node took.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeTime {
    /// The name it had in the ONNX file.
    pub node: String,
    /// The plan's operator.
    pub operator: &'static str,
    /// Milliseconds, the check of its outputs included.
    pub ms: f64,
}

/// What `f` gives, and the time of each node of the tuned plans that it ran on this thread, in order. The nodes of
/// a loop's body count as the loop. A plan made from the portable graph is tract's to run and leaves no times.
pub fn record<R>(f: impl FnOnce() -> R) -> (R, Vec<NodeTime>) {
    let before = RECORD.replace(Some(Vec::new()));
    let result = f();
    (result, RECORD.replace(before).unwrap_or_default())
}

/// Takes the record, so that graphs within a node leave none; `None` where nobody wants one.
pub(crate) fn take() -> Option<Vec<NodeTime>> {
    RECORD.take()
}

/// Gives it back.
pub(crate) fn put(record: Vec<NodeTime>) {
    RECORD.set(Some(record));
}
