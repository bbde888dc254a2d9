//! Small ONNX models, whole and spoiled.

use std::io::Cursor;

use proptest::prelude::*;

use super::*;
use crate::testing::{refusal, spoiled};

/// Fields of a message, one after the other.
#[derive(Clone, Default)]
struct Proto(Vec<u8>);

impl Proto {
    fn raw(mut self, mut value: u64) -> Self {
        while value >= 0x80 {
            self.0.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
            value >>= 7;
        }
        self.0.push(u8::try_from(value).unwrap());
        self
    }

    fn number(self, field: u64, value: u64) -> Self {
        self.raw(field << 3).raw(value)
    }

    fn bytes(self, field: u64, bytes: &[u8]) -> Self {
        let mut proto = self.raw(field << 3 | 2).raw(bytes.len() as u64);
        proto.0.extend(bytes);
        proto
    }

    fn text(self, field: u64, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    fn message(self, field: u64, message: &Proto) -> Self {
        self.bytes(field, &message.0)
    }
}

fn proto() -> Proto {
    Proto::default()
}

fn node(operator: &str, domain: &str) -> Proto {
    proto().text(1, "x").text(2, "y").text(4, operator).text(7, domain)
}

/// An input of f32 [batch, ?, 4].
fn port(name: &str) -> Proto {
    let shape = [proto().text(2, "batch"), proto().number(1, u64::MAX), proto().number(1, 4)];
    let shape = shape.iter().fold(proto(), |shape, dim| shape.message(1, dim));
    proto().text(1, name).message(2, &proto().message(1, &proto().number(1, 1).message(2, &shape)))
}

/// Two f32 in the file.
fn weight() -> Proto {
    proto().bytes(1, &[2, 1]).number(2, 1).text(8, "w").bytes(9, &[0; 8])
}

/// Two f32 in another file.
fn outside(location: &str, offset: &str, length: &str) -> Proto {
    let entry = |key, value| proto().text(1, key).text(2, value);
    let weight = proto().number(1, 2).number(2, 1).text(8, "e").number(14, 1);
    weight.message(13, &entry("location", location)).message(13, &entry("offset", offset)).message(13, &entry("length", length))
}

fn graph() -> Proto {
    proto().message(1, &node("Add", "")).message(5, &weight()).message(11, &port("x")).message(12, &port("y"))
}

fn model(graph: &Proto) -> Proto {
    let opset = proto().text(1, "").number(2, 17);
    proto().number(1, 8).text(2, "pytorch").message(8, &opset).message(14, &proto().text(1, "k").text(2, "v")).message(7, graph)
}

fn good() -> Vec<u8> {
    let inner = proto().message(1, &node("Constant", "").message(5, &proto().message(5, &weight())));
    let outer = node("If", "com.microsoft").message(5, &proto().message(6, &inner));
    model(&graph().message(1, &outer).message(5, &outside("model.onnx_data", "16", "8"))).0
}

fn open(bytes: &[u8]) -> Result<Onnx, FormatError> {
    read(&mut Cursor::new(bytes))
}

#[test]
fn what_is_written_is_read() {
    let onnx = open(&good()).unwrap();
    assert_eq!((onnx.ir_version, onnx.producer.as_str(), onnx.nodes), (8, "pytorch", 3));
    assert_eq!(onnx.opsets, [(String::new(), 17)]);
    let dims = vec![Dim::Named("batch".to_owned()), Dim::Unknown, Dim::Fixed(4)];
    assert_eq!(onnx.inputs, [Port { name: "x".to_owned(), element: 1, dims }]);
    assert_eq!(onnx.outputs[0].name, "y");
    assert_eq!(onnx.initializers[0], Initializer { name: "w".to_owned(), bytes: 8 });
    assert_eq!((onnx.initializers.len(), onnx.initializer_bytes), (2, 24), "the constant is no initializer, but has bytes");
    assert_eq!(onnx.domains.iter().collect::<Vec<_>>(), ["", "com.microsoft"]);
    assert_eq!(onnx.metadata["k"], "v");
    assert_eq!(onnx.external, [External { location: "model.onnx_data".to_owned(), offset: 16, length: 8 }]);
}

/// P-M5: weights come from plain files beside the model, and only from inside them.
#[test]
fn external_weights_stay_inside_the_folder() {
    let onnx = open(&good()).unwrap();
    check_external(&onnx, |name| (name == "model.onnx_data").then_some(24)).unwrap();
    let said = check_external(&onnx, |_| Some(23)).unwrap_err().to_string();
    assert!(said.contains("8 bytes from 16, the file has 23"), "{said}");
    assert!(check_external(&onnx, |_| None).unwrap_err().to_string().contains("does not lie beside it"));
    let places = ["", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b", "C:x", "x\0", "x\n", ".hidden", "*/_ORT_MEM_ADDR_/*"];
    for place in places.into_iter().map(str::to_owned).chain([String::from("x").repeat(256)]) {
        let said = refusal(read, &model(&graph().message(5, &outside(&place, "0", "8"))).0);
        assert!(said.contains("they are in a file beside the model"), "{place:?}: {said}");
        let constant = node("A", "").message(5, &proto().message(5, &outside(&place, "0", "8")));
        assert!(open(&model(&graph().message(1, &constant)).0).is_err(), "{place:?}");
    }
    let beyond = outside("w", "18446744073709551615", "8");
    let onnx = open(&model(&graph().message(5, &beyond)).0).unwrap();
    assert!(check_external(&onnx, |_| Some(u64::MAX)).is_err(), "the end is not a number");
    for (offset, length, words) in [("-1", "8", "it is a count"), ("+1", "8", "it is a count"), ("0", "9", "its shape has 8")] {
        let said = refusal(read, &model(&graph().message(5, &outside("w", offset, length))).0);
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn hostile_models_are_refused_in_words() {
    let opset = |domain, version| proto().text(1, domain).number(2, version);
    let with = |part: &Proto| model(&graph().message(5, part)).0;
    let tensor =
        |dims: &[u64], element| dims.iter().fold(proto().number(2, element).text(8, "t"), |tensor, dim| tensor.number(1, *dim));
    let nested =
        |depth| (0..depth).fold(graph(), |inner, _| proto().message(1, &node("If", "").message(5, &proto().message(6, &inner))));
    let nested = |depth| model(&nested(depth).message(12, &port("y"))).0;
    let bare = |field, bytes: &[u8]| model(&graph()).bytes(field, bytes).0;
    let segment = weight().bytes(3, b"");
    let cases = [
        (Vec::new(), "it has no graph"),
        (b"PK\x03\x04".to_vec(), "the model has a field without a valid number"),
        (vec![0x0b], "the unknown wire type 3"),
        (vec![0x00], "without a valid number"),
        (vec![0x08, 0x80], "a number in the model ends after it"),
        (vec![0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], "more than 64 bits"),
        (vec![0x3a, 0xff, 0xff, 0xff, 0xff, 0x0f], "it is cut short: field 7 of the model ends at byte"),
        (vec![0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], "has the length 18446744073709551615"),
        (vec![0x3a, 0x02, 0x0a, 0x01], "field 1 of a graph ends at byte"),
        (proto().bytes(7, &[0x0a, 0x05]).bytes(99, &[0; 9]).0, "field 1 of a graph ends after it"),
        (proto().bytes(1, b"x").0, "field 1 of the model is of the wrong type"),
        (model(&graph()).message(7, &graph()).0, "field 7 of the model is there twice"),
        (proto().number(1, 2).message(7, &graph()).0, "it is of the ONNX format 2"),
        (proto().number(1, 8).message(7, &graph()).0, "it imports no operators"),
        (model(&proto()).0, "its graph gives nothing"),
        (model(&graph()).message(8, &opset("my.ops", 1)).0, "it needs operators of `my.ops`"),
        (model(&graph()).message(8, &opset("ai.onnx", 1)).0, "imports the operators of `` twice"),
        (model(&graph()).message(8, &opset("ai.onnx.ml", 0)).0, "version 0 of `ai.onnx.ml`"),
        (model(&graph().message(1, &node("Evil", "my.ops"))).0, "it needs operators of `my.ops`"),
        (model(&graph().message(1, &node("EPContext", "com.microsoft"))).0, "the operator `EPContext`"),
        (model(&graph().message(1, &proto())).0, "a node has no operator"),
        (model(&graph().message(1, &node("A", "").text(7, ""))).0, "field 7 of a node is there twice"),
        (model(&graph().message(15, &proto())).0, "sparse weights"),
        (bare(20, b""), "needed to train it"),
        (bare(25, b""), "functions of its own"),
        (bare(14, b"\x0a\x01k"), "the metadata `k` is there twice"),
        (nested(9), "nested more than 8 deep"),
        (with(&segment), "in segments"),
        (with(&weight().number(2, 1)), "field 2 of a tensor is there twice"),
        (with(&weight().bytes(4, &[0; 8])), "its data in more than one place"),
        (with(&tensor(&[1 << 40], 1)), "tensor `t` has 1099511627776 elements in 0 bytes"),
        (with(&tensor(&[u64::MAX], 1)), "a negative dimension"),
        (with(&tensor(&[1 << 62, 4], 1)), "more elements than can be counted"),
        (with(&tensor(&[1; 17], 1)), "more than 16 times"),
        (with(&tensor(&[3], 1).bytes(9, &[0; 8])), "`t` has 8 bytes; its shape has 12"),
        (with(&tensor(&[2], 0).bytes(9, &[0; 8])), "the unknown type 0"),
        (with(&tensor(&[2], 8).text(6, "a")), "1 texts for 2 elements"),
        (with(&tensor(&[2], 1).text(6, "a")), "texts, and elements of another type"),
        (with(&weight().number(14, 2)), "the unknown place 2"),
    ];
    for (at, (bytes, words)) in cases.iter().enumerate() {
        let said = refusal(read, bytes);
        assert!(said.contains(words), "{at}: {said:?} lacks {words:?}");
    }
    assert!(open(&nested(8)).is_ok());
    assert!(open(&with(&tensor(&[3], 22).bytes(9, &[0; 2]))).is_ok(), "three int4 are two bytes");
    assert!(open(&with(&tensor(&[2], 8).text(6, "a").text(6, "b"))).is_ok());
}

/// What is accepted names no file outside the folder, and weighs no more than there is data for.
fn hold(bytes: &[u8]) {
    let Ok(onnx) = open(bytes) else { return };
    let outside = onnx.external.iter().map(|weight| weight.length).fold(0, u64::saturating_add);
    assert!(onnx.initializer_bytes.saturating_sub(outside) <= 16 * bytes.len() as u64);
    for weight in &onnx.external {
        assert!(!weight.location.contains(['/', '\\', '\0']) && !weight.location.starts_with('.'), "{weight:?}");
    }
    assert!(onnx.domains.iter().all(|domain| DOMAINS.contains(&domain.as_str())));
}

proptest! {
    /// P-M4: any bytes end in an answer.
    #[test]
    fn random_bytes_end_in_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        hold(&bytes);
        hold(&model(&Proto(bytes)).0);
    }

    /// P-M4: so does a model that was tampered with.
    #[test]
    fn spoiled_files_end_in_an_answer(bytes in spoiled(good())) {
        hold(&bytes);
    }
}
