//! End to end: the built binaries, as users run them.

/// What the command says when it is given nonsense.
mod cli_errors;
/// The functions in the local cloud: HTTP, uploads, queue, faults.
mod cloud;
/// Compression under a contract: calibration, metrics, what is refused.
mod contract;
/// The demo, and the golden pack of format version 1.
mod demo;
/// Entropy-coded packs: from every store the answers of plain ones.
mod entropy;
/// Faults between S3 and the function, and the cache.
mod faults;
/// Packs, runs and benches models through the command, against ONNX Runtime's outputs.
mod goldens;
/// Convolutions in bytes, against whole numbers; and how many of them a contract leaves.
mod int8;
mod integers;
/// Every operator of plans through the command, against ONNX Runtime's outputs.
mod ops;
/// The portable graph where no tuned plan fits.
mod portable;
/// Pruned models through the command, against ONNX Runtime with models cut by numpy.
mod pruned;
/// Weights in fewer bits through the command, against ONNX Runtime with weights rounded alike.
mod quantized;
/// `publish` into S3, and `dev`.
mod tools;
