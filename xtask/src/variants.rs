//! Components that no toolchain makes on purpose, from the probe's module: tests of the plugin host need them.

use anyhow::Context;
use wasm_encoder::reencode::Reencode;
use wasm_encoder::{ConstExpr, GlobalSection, GlobalType, Module, ValType};

/// The module with one more global of type v128, which the snapshot tool refuses: `init` then runs in every request.
pub(crate) fn without_snapshot(module: &[u8]) -> anyhow::Result<Vec<u8>> {
    struct OneGlobalMore;

    impl Reencode for OneGlobalMore {
        type Error = std::convert::Infallible;

        fn parse_global_section(
            &mut self,
            globals: &mut GlobalSection,
            section: wasmparser::GlobalSectionReader<'_>,
        ) -> Result<(), wasm_encoder::reencode::Error<Self::Error>> {
            wasm_encoder::reencode::utils::parse_global_section(self, globals, section)?;
            let kind = GlobalType { val_type: ValType::V128, mutable: true, shared: false };
            globals.global(kind, &ConstExpr::v128_const(0));
            Ok(())
        }
    }

    let mut out = Module::new();
    OneGlobalMore
        .parse_core_module(&mut out, wasmparser::Parser::new(0), module)
        .ok()
        .context("the module cannot be written again")?;
    Ok(out.finish())
}

/// The component under an earlier, unknown version of the contract.
pub(crate) fn of_another_world(component: &[u8]) -> Vec<u8> {
    let (from, to) = (b"@0.1.0-draft".as_slice(), b"@0.0.9-draft".as_slice());
    let mut out = component.to_vec();
    let mut at = 0;
    while let Some(found) = out.get(at..).and_then(|rest| rest.windows(from.len()).position(|window| window == from)) {
        if let Some(place) = out.get_mut(at + found..at + found + to.len()) {
            place.copy_from_slice(to);
        }
        at += found + to.len();
    }
    out
}
