//! A model of a given shape with random weights: as fast and as large as a real one, and made here. It writes words of the form
//! ` w123`, one for each token, so that a client sees every token.
//!
//! The file is the same on every machine: the weights come from a generator with a set seed.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;

/// Raised when the recipe changes, so that an old file is not taken for a new one.
const RECIPE: u32 = 1;
const SEED: u64 = 0x746f_6c6c_6761_7465;
/// What the weights spread around zero, as those of trained models of this size do.
const SPREAD: f32 = 0.02;
/// The last norm's weight. It makes the next word about as certain as a trained model's: flat logits over 150,000 words would cost
/// a sampler more than they do in real use.
const CERTAINTY: f32 = 8.0;
const ALIGNMENT: u64 = 32;
const SPECIAL: [&str; 3] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
const TEMPLATE: &str = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}\
{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// The shape of a `qwen2` model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    /// In the file's name.
    pub(crate) name: &'static str,
    layers: u32,
    width: u32,
    heads: u32,
    kv_heads: u32,
    feed_forward: u32,
    vocabulary: u32,
}

/// Qwen2.5-1.5B's shape: 984 MB in Q4_K_M.
pub(crate) const LARGE: Shape =
    Shape { name: "1.5b", layers: 28, width: 1536, heads: 12, kv_heads: 2, feed_forward: 8960, vocabulary: 151_936 };
/// For short runs: a few megabytes.
pub(crate) const TINY: Shape =
    Shape { name: "tiny", layers: 4, width: 256, heads: 4, kv_heads: 2, feed_forward: 1024, vocabulary: 4_096 };

/// The file of that shape in `folder`, made if it is not there.
pub(crate) fn ensure(folder: &Path, shape: Shape) -> anyhow::Result<PathBuf> {
    let path = folder.join(format!("random-{}-q4_k_m-{RECIPE}.gguf", shape.name));
    if !path.exists() {
        eprintln!("   writing {} (once)", path.display());
        std::fs::create_dir_all(folder)?;
        let beside = path.with_extension("new");
        write(&beside, shape).with_context(|| beside.display().to_string())?;
        std::fs::rename(&beside, &path)?;
    }
    Ok(path)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    F32,
    Q4K,
    Q6K,
}

impl Kind {
    /// GGML's number, values of a block, bytes of a block.
    fn layout(self) -> (u32, u64, u64) {
        match self {
            Kind::F32 => (0, 1, 4),
            Kind::Q4K => (12, 256, 144),
            Kind::Q6K => (14, 256, 210),
        }
    }
}

struct Tensor {
    name: String,
    /// Values of a row, and rows; one row for a vector.
    columns: u32,
    rows: u32,
    kind: Kind,
    /// What every value of a vector is.
    value: f32,
}

impl Tensor {
    fn bytes(&self) -> u64 {
        let (_, values, bytes) = self.kind.layout();
        u64::from(self.columns) * u64::from(self.rows) / values * bytes
    }
}

fn tensors(shape: Shape) -> Vec<Tensor> {
    let matrix = |name: String, columns, rows, kind| Tensor { name, columns, rows, kind, value: 0.0 };
    let vector = |name: String, columns, value| Tensor { name, columns, rows: 1, kind: Kind::F32, value };
    let (width, kv, layers) = (shape.width, shape.width / shape.heads * shape.kv_heads, shape.layers);
    let mut all = vec![
        matrix("token_embd.weight".to_owned(), width, shape.vocabulary, Kind::Q6K),
        vector("output_norm.weight".to_owned(), width, CERTAINTY),
    ];
    for layer in 0..layers {
        // What llama.cpp's Q4_K_M keeps in more bits.
        let more = layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
        let mixed = if more { Kind::Q6K } else { Kind::Q4K };
        let name = |rest: &str| format!("blk.{layer}.{rest}");
        all.push(vector(name("attn_norm.weight"), width, 1.0));
        all.push(vector(name("ffn_norm.weight"), width, 1.0));
        for (part, rows, kind) in [("attn_q", width, Kind::Q4K), ("attn_k", kv, Kind::Q4K), ("attn_v", kv, mixed)] {
            all.push(matrix(name(&format!("{part}.weight")), width, rows, kind));
            all.push(vector(name(&format!("{part}.bias")), rows, 0.0));
        }
        all.push(matrix(name("attn_output.weight"), width, width, Kind::Q4K));
        all.push(matrix(name("ffn_gate.weight"), width, shape.feed_forward, Kind::Q4K));
        all.push(matrix(name("ffn_up.weight"), width, shape.feed_forward, Kind::Q4K));
        all.push(matrix(name("ffn_down.weight"), shape.feed_forward, width, mixed));
    }
    all
}

/// GPT-2's letters for bytes, then pairs of small letters (each a merge), the special tokens, then words up to `size`.
fn vocabulary(size: u32) -> (Vec<String>, Vec<i32>, Vec<String>, u32) {
    let mut next = 256;
    let mut tokens = (0_u32..256)
        .map(|byte| {
            let is_visible = (33..=126).contains(&byte) || (161..=172).contains(&byte) || (174..=255).contains(&byte);
            let letter = if is_visible { byte } else { next };
            next += u32::from(!is_visible);
            char::from_u32(letter).map_or_else(String::new, String::from)
        })
        .collect::<Vec<_>>();
    let mut merges = Vec::new();
    for first in 'a'..='z' {
        for second in 'a'..='z' {
            merges.push(format!("{first} {second}"));
            tokens.push(format!("{first}{second}"));
        }
    }
    let mut kinds = vec![1_i32; tokens.len()];
    let first_special = u32::try_from(tokens.len()).unwrap_or(u32::MAX);
    for special in SPECIAL {
        tokens.push(special.to_owned());
        kinds.push(3);
    }
    for word in 0..size.saturating_sub(u32::try_from(tokens.len()).unwrap_or(u32::MAX)) {
        tokens.push(format!("\u{120}w{word}"));
        kinds.push(1);
    }
    (tokens, kinds, merges, first_special)
}

/// The metadata as it is written: how many entries, and their bytes.
#[derive(Default)]
struct Metadata {
    entries: u64,
    bytes: Vec<u8>,
}

impl Metadata {
    fn key(&mut self, key: &str, kind: u32) {
        self.entries += 1;
        self.text(key);
        self.bytes.extend(kind.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.bytes.extend((text.len() as u64).to_le_bytes());
        self.bytes.extend(text.as_bytes());
    }

    fn number(&mut self, key: &str, value: u32) {
        self.key(key, 4);
        self.bytes.extend(value.to_le_bytes());
    }

    fn real(&mut self, key: &str, value: f32) {
        self.key(key, 6);
        self.bytes.extend(value.to_le_bytes());
    }

    fn string(&mut self, key: &str, value: &str) {
        self.key(key, 8);
        self.text(value);
    }

    fn strings(&mut self, key: &str, values: &[String]) {
        self.key(key, 9);
        self.bytes.extend(8_u32.to_le_bytes());
        self.bytes.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|value| self.text(value));
    }

    fn integers(&mut self, key: &str, values: &[i32]) {
        self.key(key, 9);
        self.bytes.extend(5_u32.to_le_bytes());
        self.bytes.extend((values.len() as u64).to_le_bytes());
        values.iter().for_each(|value| self.bytes.extend(value.to_le_bytes()));
    }
}

fn metadata(shape: Shape) -> Metadata {
    let (tokens, kinds, merges, special) = vocabulary(shape.vocabulary);
    let mut out = Metadata::default();
    out.string("general.architecture", "qwen2");
    out.string("general.name", &format!("random {}", shape.name));
    out.number("general.file_type", 15);
    out.number("general.quantization_version", 2);
    out.number("qwen2.context_length", 32_768);
    out.number("qwen2.embedding_length", shape.width);
    out.number("qwen2.block_count", shape.layers);
    out.number("qwen2.feed_forward_length", shape.feed_forward);
    out.number("qwen2.attention.head_count", shape.heads);
    out.number("qwen2.attention.head_count_kv", shape.kv_heads);
    out.real("qwen2.attention.layer_norm_rms_epsilon", 1e-6);
    out.real("qwen2.rope.freq_base", 1e6);
    out.string("tokenizer.ggml.model", "gpt2");
    out.string("tokenizer.ggml.pre", "qwen2");
    out.strings("tokenizer.ggml.tokens", &tokens);
    out.integers("tokenizer.ggml.token_type", &kinds);
    out.strings("tokenizer.ggml.merges", &merges);
    out.number("tokenizer.ggml.bos_token_id", special);
    out.number("tokenizer.ggml.eos_token_id", special + 2);
    out.number("tokenizer.ggml.padding_token_id", special);
    out.key("tokenizer.ggml.add_bos_token", 7);
    out.bytes.push(0);
    out.string("tokenizer.chat_template", TEMPLATE);
    out
}

fn write(path: &Path, shape: Shape) -> anyhow::Result<()> {
    let (metadata, tensors) = (metadata(shape), tensors(shape));
    let mut head = Vec::new();
    head.extend(b"GGUF");
    head.extend(3_u32.to_le_bytes());
    head.extend((tensors.len() as u64).to_le_bytes());
    head.extend(metadata.entries.to_le_bytes());
    head.extend(&metadata.bytes);
    let mut offset = 0;
    for tensor in &tensors {
        let dimensions = if tensor.rows == 1 { vec![tensor.columns] } else { vec![tensor.columns, tensor.rows] };
        head.extend((tensor.name.len() as u64).to_le_bytes());
        head.extend(tensor.name.as_bytes());
        head.extend(u32::try_from(dimensions.len())?.to_le_bytes());
        dimensions.iter().for_each(|length| head.extend(u64::from(*length).to_le_bytes()));
        head.extend(tensor.kind.layout().0.to_le_bytes());
        head.extend(u64::to_le_bytes(offset));
        offset += tensor.bytes().next_multiple_of(ALIGNMENT);
    }
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    out.write_all(&head)?;
    pad(&mut out, head.len() as u64)?;
    let mut random = Random(SEED);
    for tensor in &tensors {
        write_tensor(&mut out, tensor, &mut random)?;
        pad(&mut out, tensor.bytes())?;
    }
    out.flush()?;
    Ok(())
}

fn pad(out: &mut impl Write, written: u64) -> std::io::Result<()> {
    let missing = written.next_multiple_of(ALIGNMENT) - written;
    (0..missing).try_for_each(|_| out.write_all(&[0]))
}

/// Blocks whose scales are set and whose quanta are random: no weight is out of range or not a number.
fn write_tensor(out: &mut impl Write, tensor: &Tensor, random: &mut Random) -> std::io::Result<()> {
    let (_, values, bytes) = tensor.kind.layout();
    let blocks = u64::from(tensor.columns) * u64::from(tensor.rows) / values;
    let mut block = vec![0_u8; usize::try_from(bytes).unwrap_or_default()];
    for _ in 0..blocks {
        match tensor.kind {
            Kind::F32 => block.copy_from_slice(&tensor.value.to_le_bytes()),
            Kind::Q4K => {
                // All eight sub-blocks have the scale 32 and the minimum 32; a quantum of 0 to 15 spreads by 4.61 around 7.5.
                let scale = SPREAD / (32.0 * 4.61);
                block[0..2].copy_from_slice(&half(scale));
                block[2..4].copy_from_slice(&half(7.5 * scale));
                block[4..12].fill(160);
                block[12..16].fill(0);
                random.fill(&mut block[16..]);
            }
            Kind::Q6K => {
                // All sixteen sub-blocks have the scale 8; a quantum of -32 to 31 spreads by 18.5.
                random.fill(&mut block[..192]);
                block[192..208].fill(8);
                block[208..].copy_from_slice(&half(SPREAD / (8.0 * 18.5)));
            }
        }
        out.write_all(&block)?;
    }
    Ok(())
}

/// A number between 2^-14 and 1 as 16-bit float.
fn half(value: f32) -> [u8; 2] {
    let bits = value.to_bits();
    let exponent = (bits >> 23) - 112;
    let rounded = (exponent << 10) + ((bits >> 13) & 0x3ff) + ((bits >> 12) & 1);
    u16::try_from(rounded).unwrap_or(u16::MAX).to_le_bytes()
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            let bytes = (mixed ^ (mixed >> 31)).to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_is_the_nearest() {
        assert_eq!(half(1.0 / 1024.0), 0x1400_u16.to_le_bytes());
        assert_eq!(half(0.5), 0x3800_u16.to_le_bytes());
        assert_eq!(half(0.000_135_574_84), 0x0871_u16.to_le_bytes());
    }

    #[test]
    fn the_large_one_has_the_size_of_a_real_one() {
        let bytes = tensors(LARGE).iter().map(Tensor::bytes).sum::<u64>();
        assert!((970_000_000..1_000_000_000).contains(&bytes), "{bytes}");
    }
}
