//! A provider that does what a test says, over plain HTTP: one thread, and one for each connection, one request on each.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

#[derive(Default)]
struct State {
    answers: Vec<String>,
    seen: Vec<String>,
}

/// It ends with the test's process.
pub(super) struct Server {
    pub(super) port: u16,
    state: Arc<Mutex<State>>,
}

impl Server {
    /// Gives these answers, bytes as they are, one after the other, and the last of them for every further request.
    pub(super) fn start(answers: &[&str]) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let answers = answers.iter().map(|answer| (*answer).to_owned()).collect();
        let state = Arc::new(Mutex::new(State { answers, seen: Vec::new() }));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || {
                    let _ = serve(&stream, &state);
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
        Server { port, state }
    }

    /// The requests so far, heads and bodies.
    pub(super) fn seen(&self) -> Vec<String> {
        self.state.lock().unwrap().seen.clone()
    }
}

fn serve(stream: &TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    let mut request = String::new();
    while !request.ends_with("\r\n\r\n") {
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
    }
    let length = request.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body)?;
    request.push_str(std::str::from_utf8(&body).unwrap());
    let answer = {
        let mut state = state.lock().unwrap();
        state.seen.push(request);
        if state.answers.len() > 1 { state.answers.remove(0) } else { state.answers[0].clone() }
    };
    let mut writer = stream;
    writer.write_all(answer.as_bytes())
}
