//! The audit goes to syslog: to the real rsyslog over all three ways, and to a server that comes
//! and goes.

use std::io::BufReader;
use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;

use govern::audit::Record;
use govern::audit::export::syslog;

use super::exports::records;
use super::house::{House, certificates};
use super::receiver::PATIENCE;
use super::world::{Folder, World, sinks, until};

/// rsyslog with an input of each kind, which writes what it understood to a file of its own.
struct Rsyslog {
    child: Child,
    ports: [u16; 3],
    out: String,
}

fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    let mut all = folders.map(|folder| folder.join("rsyslogd"));
    all.find(|file| file.exists()).expect("rsyslog is missing; run: tests/tools.sh services")
}

impl Rsyslog {
    fn start(folder: &Folder) -> Self {
        // Held until all three are known, so that they differ.
        let free: Vec<TcpListener> =
            (0..3).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
        let ports: Vec<u16> =
            free.iter().map(|held| held.local_addr().expect("an address").port()).collect();
        drop(free);
        let [udp, tcp, tls] = ports[..] else { panic!("three") };
        let (out, place) = (folder.file("rsyslog.out"), folder.0.display());
        let config = format!(
            r#"global(workDirectory="{place}" maxMessageSize="128k"
    defaultNetstreamDriverCAFile="{place}/ca.pem"
    defaultNetstreamDriverCertFile="{place}/cert.pem"
    defaultNetstreamDriverKeyFile="{place}/key.pem")
module(load="imudp")
module(load="imtcp")
template(name="understood" type="string"
    string="%inputname%\t%pri%\t%timereported:::date-rfc3339%\t%hostname%\t%app-name%\t%msgid%\t%structured-data%\t%msg%\n")
ruleset(name="take") {{ action(type="omfile" file="{out}" template="understood") }}
input(type="imudp" address="127.0.0.1" port="{udp}" name="udp" ruleset="take")
input(type="imtcp" address="127.0.0.1" port="{tcp}" name="tcp" ruleset="take")
input(type="imtcp" address="127.0.0.1" port="{tls}" name="tls" ruleset="take"
    streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="anon")
"#
        );
        let file = folder.file("rsyslog.conf");
        std::fs::write(&file, config).expect("written");
        let child = Command::new(program())
            .args(["-n", "-f", &file, "-i", &folder.file("rsyslog.pid")])
            .stdout(Stdio::null())
            .spawn()
            .expect("rsyslog runs");
        Self { child, ports: [udp, tcp, tls], out }
    }

    /// What came in through an input.
    fn took(&self, input: &str) -> Vec<Vec<String>> {
        let text = std::fs::read_to_string(&self.out).unwrap_or_default();
        let fields = |line: &str| line.split('\t').map(str::to_owned).collect::<Vec<_>>();
        let lines = text.lines().map(fields);
        lines.filter(|line| line[0] == input).collect()
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What rsyslog should have understood of a record.
fn understood(input: &str, record: &Record) -> Vec<String> {
    let message = syslog(record);
    let (head, rest) = message.split_once(" [").expect("structured data");
    let end = rest.find("\"] ").expect("its end");
    let words: Vec<&str> = head.split(' ').collect();
    let mut fields = vec![input.to_owned(), "110".to_owned()];
    fields.extend([words[1], words[2], words[3], words[5]].map(str::to_owned));
    fields.push(format!("[{}\"]", &rest[..end]));
    fields.push(record.body.clone());
    fields
}

#[tokio::test(flavor = "multi_thread")]
async fn rsyslog_understands_every_record() {
    let folder = Folder::new();
    certificates(&folder);
    let rsyslog = Rsyslog::start(&folder);
    let [udp, tcp, tls] = rsyslog.ports;
    let file = folder.file("audit.jsonl");
    let config = format!(
        "[audit]\nexport = [\"syslog:udp://127.0.0.1:{udp}\", \"syslog:tcp://127.0.0.1:{tcp}\", \
         \"syslog:tls://localhost:{tls}\", \"file:{file}\"]\n"
    );
    // UDP tells nobody of a loss: it has to be there first.
    until("rsyslog listens", async || std::net::TcpStream::connect(("127.0.0.1", tcp)).is_ok())
        .await;
    let house = House::start(&folder, &config, &[("SSL_CERT_FILE", &folder.file("ca.pem"))]);
    house.budget().await;
    for _ in 0..3 {
        house.chat().await;
    }
    let head = house.head().await as usize;
    let read = || std::fs::read_to_string(&file).unwrap_or_default();
    until("all is in the file", async || read().lines().count() >= head).await;
    let all = records(&read());
    for input in ["udp", "tcp", "tls"] {
        let count = all.len();
        until(input, async || rsyslog.took(input).len() >= count).await;
        let expect: Vec<_> = all.iter().map(|record| understood(input, record)).collect();
        assert_eq!(rsyslog.took(input), expect, "{input}");
    }
}

/// One message of a stream: its length, a space, so many bytes.
fn frame(from: &mut impl std::io::BufRead) -> Option<String> {
    let mut length = Vec::new();
    from.read_until(b' ', &mut length).ok()?;
    let length: usize = String::from_utf8(length).ok()?.trim_end().parse().ok()?;
    let mut message = vec![0; length];
    from.read_exact(&mut message).ok()?;
    String::from_utf8(message).ok()
}

/// A server that closes in the middle gets everything again, from the first message of the batch.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_back_misses_nothing() {
    let folder = Folder::new();
    let world = World::new(&folder).await;
    world.note(10).await;
    let head = world.head().await as usize;
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let (send, all) = channel();
    std::thread::spawn(move || {
        // Takes three messages and dies with the rest unread.
        let (stream, _) = listener.accept().expect("a connection");
        let mut from = BufReader::with_capacity(16, stream);
        for _ in 0..3 {
            frame(&mut from).expect("a message");
        }
        drop(from);
        let (stream, _) = listener.accept().expect("it comes back");
        let mut from = BufReader::new(stream);
        let messages = (0..head).map(|_| frame(&mut from).expect("a message"));
        send.send(messages.collect::<Vec<_>>()).expect("somebody waits");
    });
    let file = folder.file("audit.jsonl");
    let places = [format!("syslog:tcp://{address}"), format!("file:{file}")];
    let _deliver = world.deliver(sinks(&[&places[0], &places[1]]));
    let messages = tokio::task::spawn_blocking(move || all.recv_timeout(PATIENCE));
    let messages = messages.await.expect("it ends").expect("all messages");
    let read = || std::fs::read_to_string(&file).unwrap_or_default();
    until("the file", async || read().lines().count() == head).await;
    assert_eq!(messages, records(&read()).iter().map(syslog).collect::<Vec<_>>());
}

/// A datagram has an end: what is longer says how much is missing, and holds up nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_record_is_cut_for_a_datagram_only() {
    let folder = Folder::new();
    let world = World::new(&folder).await;
    let body = format!("{{\"word\":\"{}\"}}", "ü".repeat(60_000));
    let note = govern::ledger::writer::Note { body: body.clone(), ..Default::default() };
    world.governor.note(note);
    world.note(1).await;
    let head = world.head().await as usize;
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let [udp, tcp] = [socket.local_addr(), listener.local_addr()].map(|a| a.expect("an address"));
    let (send, streams) = channel();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a connection");
        let mut from = BufReader::new(stream);
        let messages = (0..head).map(|_| frame(&mut from).expect("a message"));
        send.send(messages.collect::<Vec<_>>()).expect("somebody waits");
    });
    let places = [format!("syslog:udp://{udp}"), format!("syslog:tcp://{tcp}")];
    let _deliver = world.deliver(sinks(&[&places[0], &places[1]]));
    let (datagrams, whole) = tokio::task::spawn_blocking(move || {
        let mut datagram = vec![0; 70_000];
        let mut next = || {
            let length = socket.recv(&mut datagram).expect("a datagram");
            String::from_utf8(datagram[..length].to_vec()).expect("UTF-8")
        };
        (
            (0..head).map(|_| next()).collect::<Vec<_>>(),
            streams.recv_timeout(PATIENCE).expect("all messages"),
        )
    })
    .await
    .expect("messages");
    let long = |all: &[String]| all.iter().find(|text| text.contains("üü")).expect("there").clone();
    let (cut, whole_one) = (long(&datagrams), long(&whole));
    assert!(whole_one.ends_with(&body));
    assert!(cut.len() <= 65_000 && cut.len() > 64_900, "{}", cut.len());
    let (head_of_cut, text) = cut.split_once("\"] ").expect("structured data");
    let missing: usize =
        head_of_cut.rsplit_once(" cut=\"").expect("it says so").1.parse().expect("bytes");
    assert_eq!(text.len() + missing, body.len());
    assert!(body.starts_with(text));
    let others =
        |all: Vec<String>| all.into_iter().filter(|text| !text.contains("üü")).collect::<Vec<_>>();
    assert_eq!(others(datagrams), others(whole));
}
