//! A small HTTP/1.1 server that does what a test says: one thread, and one for each connection.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

/// What is done with one request.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// These bytes, then the end of the connection.
    Bytes(Vec<u8>),
    /// These bytes, then the next request.
    Keep(Vec<u8>),
    /// These bytes, then nothing until the client leaves.
    Hold(Vec<u8>),
    /// The first bytes, then the others again and again until the client leaves.
    Flood(Vec<u8>, Vec<u8>),
}

impl Act {
    /// 200 with a body that the end of the connection ends.
    pub(crate) fn answer(media_type: &str, body: &str) -> Act {
        Act::Bytes(format!("HTTP/1.1 200 OK\r\ncontent-type: {media_type}\r\nconnection: close\r\n\r\n{body}").into_bytes())
    }

    /// 200 with a chunked body, on a connection that stays open.
    pub(crate) fn keep(media_type: &str, body: &str) -> Act {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {media_type}\r\ntransfer-encoding: chunked\r\n\r\n");
        Act::Keep(format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len()).into_bytes())
    }
}

#[derive(Default)]
struct State {
    acts: Vec<Act>,
    seen: Vec<String>,
    connections: usize,
}

pub(crate) struct Server {
    pub(crate) port: u16,
    state: Arc<Mutex<State>>,
}

impl Server {
    /// Does these one after the other, and the last of them for every further request.
    pub(crate) fn start(acts: Vec<Act>) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State { acts, ..State::default() }));
        let shared = Arc::clone(&state);
        // It ends with the test's process.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                state.lock().unwrap().connections += 1;
                std::thread::spawn(move || {
                    // A client that leaves is what half of the tests are about.
                    let _ = serve(&stream, &state);
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
        Server { port, state }
    }

    /// The requests so far, heads and bodies.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.state.lock().unwrap().seen.clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.lock().unwrap().connections
    }
}

fn serve(stream: &TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut writer = stream;
    while let Some(request) = read(&mut reader)? {
        let act = {
            let mut state = state.lock().unwrap();
            state.seen.push(request);
            if state.acts.len() > 1 { state.acts.remove(0) } else { state.acts[0].clone() }
        };
        match act {
            Act::Bytes(bytes) => return writer.write_all(&bytes),
            Act::Keep(bytes) => writer.write_all(&bytes)?,
            Act::Hold(bytes) => {
                writer.write_all(&bytes)?;
                // Until the client leaves: it has nothing more to say.
                return reader.read(&mut [0]).map(|_| ());
            }
            Act::Flood(first, again) => {
                writer.write_all(&first)?;
                loop {
                    writer.write_all(&again)?;
                }
            }
        }
    }
    Ok(())
}

/// One request, or `None` at the end of the connection.
fn read(reader: &mut impl BufRead) -> std::io::Result<Option<String>> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? == 0 {
            return Ok(None);
        }
    }
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some(head + &String::from_utf8(body).unwrap()))
}
