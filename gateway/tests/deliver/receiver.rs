//! An HTTP receiver that does what it is told: takes, refuses, stalls, resets, redirects.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What it does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Does {
    /// Answers with this status.
    Answers(u16),
    /// Reads it, and says nothing.
    Stalls,
    /// Ends the connection in the middle of the answer.
    Resets,
    /// Sends elsewhere: to the port given.
    Redirects(u16),
}

/// A request.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) line: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
    pub(crate) met: Does,
}

impl Asked {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// The receiver. After its script it takes everything.
pub(crate) struct Receiver {
    pub(crate) port: u16,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    script: VecDeque<Does>,
    asked: Vec<Asked>,
    /// Streams that stall stay open.
    open: Vec<TcpStream>,
}

impl Receiver {
    pub(crate) fn new(script: &[Does]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let state = State { script: script.iter().copied().collect(), ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        Self { port, state }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/take", self.port)
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state.lock().expect("whole").asked.clone()
    }

    /// The requests that it took.
    pub(crate) fn took(&self) -> Vec<Asked> {
        self.asked().into_iter().filter(|asked| asked.met == Does::Answers(200)).collect()
    }

    /// Waits until something holds of all requests.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, holds: impl Fn(&[Asked]) -> bool) -> Vec<Asked> {
        let end = Instant::now() + PATIENCE;
        loop {
            let asked = self.asked();
            if holds(&asked) {
                return asked;
            }
            assert!(Instant::now() < end, "{what}: {asked:#?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// Longest wait for what has to come.
pub(crate) const PATIENCE: Duration = Duration::from_secs(25);

fn serve(stream: TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).unwrap_or(0) == 0 {
            return;
        }
        let mut headers = BTreeMap::new();
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header).unwrap_or(0) == 0 {
                return;
            }
            let Some((name, value)) = header.trim_end().split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let length = headers.get("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        let mut body = vec![0; length];
        if reader.read_exact(&mut body).is_err() {
            return;
        }
        let body = String::from_utf8(body).expect("UTF-8");
        let does = {
            let mut state = state.lock().expect("whole");
            let does = state.script.pop_front().unwrap_or(Does::Answers(200));
            let line = line.trim_end().to_owned();
            state.asked.push(Asked { line, headers, body, met: does });
            does
        };
        let stream = reader.get_mut();
        let answer = match does {
            Does::Answers(status) => {
                format!("HTTP/1.1 {status} X\r\ncontent-length: 2\r\n\r\n{{}}")
            }
            Does::Redirects(port) => format!(
                "HTTP/1.1 307 X\r\nlocation: http://127.0.0.1:{port}/\r\ncontent-length: 0\r\n\r\n"
            ),
            Does::Resets => {
                let _ = stream.write_all(b"HTTP/1.1 200 X\r\ncontent-le");
                let _ = stream.shutdown(Shutdown::Both);
                return;
            }
            Does::Stalls => {
                state.lock().expect("whole").open.push(stream.try_clone().expect("a stream"));
                return;
            }
        };
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}
