//! Recurrence: loops and what tract fuses of an LSTM.

use super::ops::same;
use super::{Encoded, Encoder};
use glowplug_pack::plan::{Op, ScanInput, ScanOutput, ScanSlot};
use tract_core::internal::*;
use tract_core::ops::lstm_cell::LstmEpilogue;
use tract_core::ops::scan::{InputMapping, OptScan, OutputMapping, ScanInfo};

pub(super) fn lstm_cell<'a>(_: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    node.op_is::<LstmEpilogue>().then(|| Ok(same(node, Op::LstmCell)))
}

/// A loop. Its states begin anew in every run of a plan, as ONNX has it.
pub(super) fn scan<'a>(e: &mut Encoder<'a>, node: &'a TypedNode) -> Option<TractResult<Encoded>> {
    node.op_as::<OptScan>().map(|scan| {
        ensure!(scan.skip == 0, "a loop that skips its first {} results", scan.skip);
        let inputs = scan.input_mapping.iter().map(input).collect::<TractResult<_>>()?;
        let outputs = scan.output_mapping.iter().map(output).collect::<TractResult<_>>()?;
        let body = e.body(&node.name, scan.plan.model())?;
        Ok(same(node, Op::Scan { body, inputs, outputs }))
    })
}

/// Whether a loop goes backward.
fn reverse(info: &ScanInfo) -> TractResult<bool> {
    ensure!(info.chunk.abs() == 1, "a loop over {} positions at a time", info.chunk);
    Ok(info.chunk < 0)
}

fn input(mapping: &InputMapping) -> TractResult<ScanInput> {
    Ok(match mapping {
        InputMapping::Full => ScanInput::Full,
        InputMapping::State => ScanInput::State,
        InputMapping::Scan(info) => ScanInput::Position { axis: info.axis, reverse: reverse(info)? },
    })
}

fn output(mapping: &OutputMapping<TDim>) -> TractResult<ScanOutput> {
    let slot = |(slot, info): &(usize, ScanInfo)| {
        TractResult::Ok(ScanSlot { slot: *slot, axis: info.axis, reverse: reverse(info)? })
    };
    let positions = mapping.scan.as_ref().map(slot).transpose()?;
    Ok(ScanOutput { state: mapping.state, positions, last: mapping.last_value_slot })
}
