//! Writes zip archives in which anything can be wrong.

use std::io::{Cursor, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// An entry, true or not.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    /// The name in the header before the data, if it is another.
    pub(super) local_name: Option<Vec<u8>>,
    /// What stands in the archive.
    pub(super) data: Vec<u8>,
    /// The length that both headers say it would have when extracted.
    pub(super) size: u32,
    /// The checksum, if it is a false one.
    pub(super) crc: Option<u32>,
    pub(super) method: u16,
    pub(super) flags: u16,
    pub(super) mode: u32,
    pub(super) content: Vec<u8>,
    /// An entry whose header and data are the data of this one.
    pub(super) holds: Option<Box<Entry>>,
}

impl Entry {
    /// An honest one.
    pub(super) fn stored(name: &str, content: &[u8]) -> Self {
        let mode = if name.ends_with('/') { 0o040_755 } else { 0o100_644 };
        Entry {
            name: name.as_bytes().to_vec(),
            local_name: None,
            data: content.to_vec(),
            size: content.len().try_into().unwrap(),
            crc: None,
            method: 0,
            flags: 0,
            mode,
            content: content.to_vec(),
            holds: None,
        }
    }

    fn common(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(20u16.to_le_bytes());
        bytes.extend(self.flags.to_le_bytes());
        bytes.extend(self.method.to_le_bytes());
        bytes.extend([0, 0, 0x21, 0]);
        bytes.extend(self.crc.unwrap_or_else(|| crc32(&self.content)).to_le_bytes());
        bytes.extend(u32::try_from(self.data.len()).unwrap().to_le_bytes());
        bytes.extend(self.size.to_le_bytes());
        bytes
    }
}

/// Header and data of an entry.
pub(super) fn local(entry: &Entry) -> Vec<u8> {
    let name = entry.local_name.as_ref().unwrap_or(&entry.name);
    let mut bytes = b"PK\x03\x04".to_vec();
    bytes.extend(entry.common());
    bytes.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
    bytes.extend([0, 0]);
    bytes.extend(name);
    bytes.extend(&entry.data);
    bytes
}

fn central(entry: &Entry, at: usize) -> Vec<u8> {
    let mut bytes = b"PK\x01\x02".to_vec();
    bytes.extend(((3u16 << 8) | 20).to_le_bytes());
    bytes.extend(entry.common());
    bytes.extend(u16::try_from(entry.name.len()).unwrap().to_le_bytes());
    bytes.extend([0; 8]);
    bytes.extend((entry.mode << 16).to_le_bytes());
    bytes.extend(u32::try_from(at).unwrap().to_le_bytes());
    bytes.extend(&entry.name);
    bytes
}

/// An archive of these entries.
pub(super) fn zip(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut directory = Vec::new();
    let mut count = 0u16;
    for entry in entries {
        let at = bytes.len();
        directory.extend(central(entry, at));
        count += 1;
        if let Some(inner) = &entry.holds {
            directory.extend(central(inner, at + 30 + entry.name.len()));
            count += 1;
        }
        bytes.extend(local(entry));
    }
    let at = u32::try_from(bytes.len()).unwrap();
    bytes.extend(&directory);
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    bytes.extend(count.to_le_bytes());
    bytes.extend(count.to_le_bytes());
    bytes.extend(u32::try_from(directory.len()).unwrap().to_le_bytes());
    bytes.extend(at.to_le_bytes());
    bytes.extend([0, 0]);
    bytes
}

/// `content` as the deflate method writes it.
pub(super) fn deflated(content: &[u8]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    zip.start_file("x", SimpleFileOptions::default().compression_method(CompressionMethod::Deflated)).unwrap();
    zip.write_all(content).unwrap();
    let bytes = zip.finish().unwrap().into_inner();
    let length = u32::from_le_bytes(bytes[18..22].try_into().unwrap()) as usize;
    let extra = usize::from(u16::from_le_bytes(bytes[28..30].try_into().unwrap()));
    bytes[31 + extra..31 + extra + length].to_vec()
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}
