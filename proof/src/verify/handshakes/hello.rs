//! ClientHellos: a real one, mutations of it, and handshakes in which all that the client says comes in fragments.

use std::io::{Cursor, Read, Write};
use std::net::Ipv4Addr;
use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use rustls::{ClientConfig, ClientConnection};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::verify::chance::Chance;
use crate::verify::wire::{PATIENCE, Wire};

/// Bytes of a record's head.
const HEAD: usize = 5;

fn connection(config: &Arc<ClientConfig>) -> anyhow::Result<ClientConnection> {
    Ok(ClientConnection::new(Arc::clone(config), ServerName::try_from("localhost")?)?)
}

fn written(client: &mut ClientConnection) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut bytes)?;
    }
    Ok(bytes)
}

/// A hello as a client says it, its record included.
pub(super) fn seed() -> anyhow::Result<Vec<u8>> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = config.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let hello = written(&mut connection(&Arc::new(config))?)?;
    ensure!(hello.len() > 100 && hello[0] == 0x16, "a hello of {} bytes", hello.len());
    Ok(hello)
}

/// One to eight changes. Half of the mutants have a record whose length is right, so that what is inside gets read.
pub(super) fn mutate(seed: &[u8], chance: &mut Chance) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..=chance.below(8) {
        let at = HEAD.min(bytes.len()) + chance.below(bytes.len().saturating_sub(HEAD).max(1));
        let at = at.min(bytes.len().saturating_sub(1));
        let end = (at + 1 + chance.below(64)).min(bytes.len());
        match chance.below(8) {
            0 => bytes[at] ^= 1 << chance.below(8),
            1 => bytes[at] = chance.next().to_le_bytes()[0],
            2 => bytes[at] = *chance.pick(&[0, 1, 0x7f, 0x80, 0xfe, 0xff]),
            3 => drop(bytes.drain(at..end)),
            4 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
            5 => {
                let random = (0..chance.below(300)).map(|_| chance.next().to_le_bytes()[0]).collect::<Vec<_>>();
                drop(bytes.splice(at..at, random));
            }
            6 => bytes.truncate(end),
            _ => bytes[chance.below(HEAD)] = chance.next().to_le_bytes()[0],
        }
        if bytes.len() <= HEAD {
            break;
        }
    }
    if chance.below(2) == 0 && bytes.len() > HEAD + 4 {
        let body = bytes.len() - HEAD;
        bytes[0] = 0x16;
        bytes[3..HEAD].copy_from_slice(&u16::try_from(body).unwrap_or(u16::MAX).to_be_bytes());
        let handshake = u32::try_from(body - 4).unwrap_or(0).to_be_bytes();
        bytes[HEAD + 1..HEAD + 4].copy_from_slice(&handshake[1..]);
    }
    bytes
}

/// The same records with at most `size` bytes in each; only those that are not encrypted may be cut.
fn cut(bytes: &[u8], size: usize) -> anyhow::Result<Vec<u8>> {
    let (mut cut, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let length = usize::from(*rest.get(3).context("a record's head")?) << 8 | usize::from(rest[4]);
        let (record, after) = rest.split_at(HEAD + length);
        let parts = if record[0] == 0x16 { record[HEAD..].chunks(size).collect() } else { vec![&record[HEAD..]] };
        for part in parts {
            cut.extend_from_slice(&record[..3]);
            cut.extend_from_slice(&u16::try_from(part.len())?.to_be_bytes());
            cut.extend_from_slice(part);
        }
        rest = after;
    }
    Ok(cut)
}

/// A handshake and a request whose plain records hold `record` bytes at most, written `write` bytes at a time.
pub(super) async fn in_fragments(wire: &Wire, record: usize, write: usize) -> anyhow::Result<()> {
    let mut client = connection(wire.http1_config())?;
    let mut stream = wire.tcp(Ipv4Addr::LOCALHOST).await?;
    let talking = async {
        while client.is_handshaking() {
            send(&mut stream, &cut(&written(&mut client)?, record)?, write).await?;
            receive(&mut stream, &mut client).await?;
        }
        client.writer().write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
        // What is left of the handshake is encrypted in TLS 1.3, and stays whole.
        let rest = written(&mut client)?;
        send(&mut stream, &rest, write).await?;
        let mut answer = vec![0; 512];
        loop {
            match client.reader().read(&mut answer) {
                Ok(count @ 12..) => {
                    ensure!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer[..count]));
                    return Ok(());
                }
                Ok(_) => bail!("the connection ended"),
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => receive(&mut stream, &mut client).await?,
                Err(error) => return Err(error.into()),
            }
        }
    };
    timeout(PATIENCE, talking).await.context("not in time")?
}

async fn send(stream: &mut TcpStream, bytes: &[u8], size: usize) -> anyhow::Result<()> {
    for part in bytes.chunks(size) {
        stream.write_all(part).await?;
        tokio::task::yield_now().await;
    }
    Ok(())
}

async fn receive(stream: &mut TcpStream, client: &mut ClientConnection) -> anyhow::Result<()> {
    let mut chunk = [0; 4_096];
    let count = stream.read(&mut chunk).await?;
    ensure!(count > 0, "closed in the handshake");
    let mut unread = Cursor::new(&chunk[..count]);
    while unread.position() < count as u64 {
        client.read_tls(&mut unread)?;
        client.process_new_packets()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mutants_differ_and_can_be_had_again() {
        let seed = seed().unwrap();
        let one = |number| mutate(&seed, &mut Chance(number));
        assert_eq!(one(7), one(7));
        assert!((0..200).filter(|number| one(*number) != seed).count() > 190);
    }

    #[test]
    fn a_cut_record_holds_the_same_bytes() {
        let seed = seed().unwrap();
        let cut = cut(&seed, 10).unwrap();
        let inside = cut.chunks(HEAD + 10).flat_map(|record| &record[HEAD..]).copied().collect::<Vec<_>>();
        assert_eq!(inside, seed[HEAD..]);
    }
}
