//! Just enough of ONNX's protobuf to write a model file.

/// Types of tensors.
pub(crate) const FLOAT: u64 = 1;
pub(crate) const INT64: u64 = 7;
pub(crate) const HALF: u64 = 10;

/// A message that is being written.
#[derive(Default)]
pub(crate) struct Message(pub(crate) Vec<u8>);

impl Message {
    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(u8::try_from(number & 0x7f).expect("seven bits") | 0x80);
            number >>= 7;
        }
        self.0.push(u8::try_from(number).expect("seven bits"));
    }

    /// A field that is a number.
    pub(crate) fn number(mut self, field: u64, number: u64) -> Self {
        self.varint(field << 3);
        self.varint(number);
        self
    }

    /// A field that is text, bytes or a message.
    pub(crate) fn bytes(mut self, field: u64, bytes: &[u8]) -> Self {
        self.varint((field << 3) | 2);
        self.varint(u64::try_from(bytes.len()).expect("short"));
        self.0.extend_from_slice(bytes);
        self
    }
}

/// A graph that is being put together.
#[derive(Default)]
pub(crate) struct Graph(Message);

impl Graph {
    fn add(&mut self, field: u64, message: &Message) {
        self.0 = std::mem::take(&mut self.0).bytes(field, &message.0);
    }

    /// A node; its attributes are numbers or lists of numbers.
    pub(crate) fn node(&mut self, operator: &str, inputs: &[&str], output: &str, attributes: &[(&str, &[i64])]) {
        let mut node = Message::default();
        for input in inputs {
            node = node.bytes(1, input.as_bytes());
        }
        node = node.bytes(2, output.as_bytes()).bytes(4, operator.as_bytes());
        for (name, values) in attributes {
            let mut attribute = Message::default().bytes(1, name.as_bytes());
            // These are lists; all others are numbers.
            if matches!(*name, "perm" | "axes") {
                for value in *values {
                    attribute = attribute.number(8, value.cast_unsigned());
                }
                attribute = attribute.number(20, 7);
            } else {
                attribute = attribute.number(3, values[0].cast_unsigned()).number(20, 2);
            }
            node = node.bytes(5, &attribute.0);
        }
        self.add(1, &node);
    }

    /// A constant of floats.
    pub(crate) fn floats(&mut self, name: &str, shape: &[u64], values: &[f32]) {
        let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, shape, FLOAT, &raw);
    }

    /// A constant of integers.
    pub(crate) fn integers(&mut self, name: &str, shape: &[u64], values: &[i64]) {
        let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.constant(name, shape, INT64, &raw);
    }

    fn constant(&mut self, name: &str, shape: &[u64], element: u64, raw: &[u8]) {
        let mut tensor = Message::default();
        for size in shape {
            tensor = tensor.number(1, *size);
        }
        self.add(5, &tensor.number(2, element).bytes(8, name.as_bytes()).bytes(9, raw));
    }

    /// An input; a dimension of 0 is open.
    pub(crate) fn input(&mut self, name: &str, element: u64, shape: &[u64]) {
        self.add(11, &described(name, element, shape));
    }

    /// An output.
    pub(crate) fn output(&mut self, name: &str, element: u64, shape: &[u64]) {
        self.add(12, &described(name, element, shape));
    }

    /// The bytes of a model file.
    pub(crate) fn model(self) -> Vec<u8> {
        let graph = self.0.bytes(2, b"tiny");
        let operators = Message::default().bytes(1, b"").number(2, 17);
        Message::default().number(1, 8).bytes(7, &graph.0).bytes(8, &operators.0).0
    }
}

fn described(name: &str, element: u64, shape: &[u64]) -> Message {
    let mut dimensions = Message::default();
    for (at, size) in shape.iter().enumerate() {
        let open = format!("{name}-{at}");
        let dimension =
            if *size > 0 { Message::default().number(1, *size) } else { Message::default().bytes(2, open.as_bytes()) };
        dimensions = dimensions.bytes(1, &dimension.0);
    }
    let tensor = Message::default().number(1, element).bytes(2, &dimensions.0);
    Message::default().bytes(1, name.as_bytes()).bytes(2, &Message::default().bytes(1, &tensor.0).0)
}
