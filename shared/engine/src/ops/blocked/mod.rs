//! Images with their channels in blocks of eight: `[N, ceil(C / 8), H, W, 8]`.
//!
//! A convolution over such an image needs no patches laid out for a matrix product: at every position the values
//! of eight channels lie side by side, so filters meet them where they are, and what it gives is stored a vector at
//! a time. Lanes beyond C hold anything; nobody reads them but lane by lane.
//!
//! Read `lanes` first (what a vector is), then `conv`, `depthwise`, `layout` and `planes`.

mod conv;
mod depthwise;
mod lanes;
mod layout;
mod planes;
mod steps;
#[cfg(test)]
mod tests;

pub(crate) use conv::BlockedConv;
pub(crate) use depthwise::BlockedDepthwiseConv;
pub(crate) use layout::{BlockChannels, UnblockChannels};
pub(crate) use planes::{PerChannel, PlaneReduce, PlaneReducer};

/// What a shape that the plan's rules exclude is answered with.
fn not_blocked(shape: &[usize]) -> tract_core::internal::TractError {
    tract_core::internal::format_err!("a tensor of shape {shape:?}, expected channels in blocks")
}
