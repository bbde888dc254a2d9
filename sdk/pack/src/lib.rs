//! From what a compiler writes to what the gateway serves: a component that brings its golden cases.

use tollgate_cases::{Problems, SECTION, Set};
use wasm_encoder::{ComponentSection, CustomSection};
use wasmparser::{Encoding, Parser, Payload};
use wit_component::ComponentEncoder;

/// Why something cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// It is neither a core module nor a component.
    #[error("it is no WebAssembly file")]
    NotWasm,
    /// Its sections cannot be read.
    #[error("the component is malformed: {0}")]
    Malformed(#[from] wasmparser::BinaryReaderError),
    /// No component comes of the core module.
    #[error("the core module does not become a component: {0}")]
    Module(String),
    /// The cases are wrong.
    #[error(transparent)]
    Cases(#[from] Problems),
    /// The component brings cases.
    #[error("it has cases already, in a section `{0}`")]
    HasCases(String),
}

/// A component of a core module that wit-bindgen made the bindings of (its WIT is in a section of the module's).
///
/// # Errors
/// [`PackError::Module`]: it imports or exports what the WIT inside, if there is any, does not have.
pub fn component(module: &[u8]) -> Result<Vec<u8>, PackError> {
    let mut encoder = ComponentEncoder::default();
    encoder
        .validate(true)
        .module(module)
        .and_then(ComponentEncoder::encode)
        .map_err(|error| PackError::Module(format!("{error:#}")))
}

/// Puts golden cases into a component, a custom section for each file: `(name, text)`, as [`tollgate_cases::sources`] finds them.
///
/// # Errors
/// The cases are wrong, or the component has some already.
pub fn add_cases(files: &[(String, String)], component: &mut Vec<u8>) -> Result<(), PackError> {
    if files.is_empty() {
        return Ok(());
    }
    Set::read(files)?;
    for payload in Parser::new(0).parse_all(component) {
        if let Payload::CustomSection(section) = payload?
            && section.name().starts_with(SECTION)
        {
            return Err(PackError::HasCases(section.name().to_owned()));
        }
    }
    for (name, text) in files {
        let name = format!("{SECTION}{name}");
        CustomSection { name: name.into(), data: text.as_bytes().into() }.append_to_component(component);
    }
    Ok(())
}

/// Whatever a compiler wrote, as a component with these cases: a core module becomes one, a component is taken as it is.
///
/// # Errors
/// It is neither, or see [`component`] and [`add_cases`].
pub fn pack(wasm: &[u8], cases: &[(String, String)]) -> Result<Vec<u8>, PackError> {
    let first = Parser::new(0).parse_all(wasm).next();
    let Some(Ok(Payload::Version { encoding, .. })) = first else { return Err(PackError::NotWasm) };
    let mut packed = match encoding {
        Encoding::Component => wasm.to_vec(),
        Encoding::Module => component(wasm)?,
    };
    add_cases(cases, &mut packed)?;
    Ok(packed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cases() -> Vec<(String, String)> {
        vec![("a.toml".to_owned(), "[[case]]\nname = 'x'\nauthenticate = 'abstain'".to_owned())]
    }

    #[test]
    fn modules_become_components_and_bring_their_cases_once() {
        for text in ["(module)", "(component)"] {
            let packed = pack(&wat::parse_str(text).unwrap(), &cases()).unwrap();
            assert!(Parser::is_component(&packed));
            let named =
                |payload| matches!(payload, Ok(Payload::CustomSection(section)) if section.name() == "tollgate:cases/a.toml");
            assert_eq!(Parser::new(0).parse_all(&packed).filter_map(|payload| named(payload).then_some(())).count(), 1);
            let twice = pack(&packed, &cases()).unwrap_err().to_string();
            assert_eq!(twice, "it has cases already, in a section `tollgate:cases/a.toml`");
            assert_eq!(pack(&packed, &[]).unwrap(), packed);
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert_eq!(pack(b"", &[]).unwrap_err().to_string(), "it is no WebAssembly file");
        assert_eq!(pack(b"#!/bin/sh", &[]).unwrap_err().to_string(), "it is no WebAssembly file");
        let module = wat::parse_str("(module (import \"a\" \"b\" (func)))").unwrap();
        assert!(matches!(pack(&module, &[]), Err(PackError::Module(_))));
        let wrong = vec![("a.toml".to_owned(), "[[case]]".to_owned())];
        assert!(pack(&wat::parse_str("(component)").unwrap(), &wrong).is_err());
    }
}
