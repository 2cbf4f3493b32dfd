//! How the ranks find each other: rank 0 listens until all others have said who they are.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Limits;
use super::frame::{Frame, Kind};
use crate::collective::launch::Meeting;
use crate::loader::Rank;
use crate::{Error, Result};

/// The first word of the handshake; another one is of another program.
const PROTOCOL: &str = "sixpack ranks 1";

/// A stranger gets this long to say who it is.
const HELLO: Duration = Duration::from_secs(2);
const MAX_HELLO: u64 = 4096;

/// Between two tries to reach rank 0, or to find somebody at the door.
const PAUSE: Duration = Duration::from_millis(20);

/// What a rank takes the run for.
#[derive(Debug, Serialize, Deserialize)]
struct Hello {
    protocol: String,
    version: String,
    world: usize,
}

impl Hello {
    fn new(rank: Rank) -> Self {
        Self { protocol: PROTOCOL.into(), version: env!("CARGO_PKG_VERSION").into(), world: rank.world }
    }
}

/// Rank 0: waits for all others, and lets them begin.
pub(super) fn wait_for_all(rank: Rank, meeting: &Meeting, limits: Limits) -> Result<Vec<Option<TcpStream>>> {
    let fail = |reason: String| Error::Join { meeting: meeting.to_string(), reason };
    let listener = listen(meeting).map_err(|e| fail(format!("cannot listen: {e}")))?;
    listener.set_nonblocking(true).map_err(|e| fail(e.to_string()))?;
    let mut links: Vec<Option<TcpStream>> = (0..rank.world).map(|_| None).collect();
    let deadline = Instant::now() + limits.join;
    let found = loop {
        let Some(missing) = (1..rank.world).find(|&r| links[r].is_none()) else { break Ok(()) };
        match listener.accept() {
            Ok((stream, _)) => {
                let Some((stream, number, hello)) = greet(stream) else { continue };
                if let Err(error) = admit(rank, number, &hello, &links) {
                    tell(&stream, number, &error);
                    break Err(error);
                }
                links[number] = Some(stream);
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => std::thread::sleep(PAUSE),
            Err(e) if e.kind() == ErrorKind::WouldBlock => {
                let seconds = limits.join.as_secs_f64();
                break Err(fail(format!("rank {missing} of {} did not come within {seconds} s", rank.world)));
            }
            Err(e) => break Err(fail(format!("cannot listen: {e}"))),
        }
    };
    let connected = links.iter().enumerate().filter_map(|(r, stream)| Some((r, stream.as_ref()?)));
    match found {
        Ok(()) => {
            for (other, mut stream) in connected {
                let welcome = Frame::new(Kind::Welcome, 0, Vec::new());
                welcome.write(&mut stream).map_err(|e| Error::Lost { rank: other, reason: e.to_string() })?;
            }
            Ok(links)
        }
        Err(error) => {
            connected.for_each(|(other, stream)| tell(stream, other, &error));
            Err(error)
        }
    }
}

/// Another rank: reaches rank 0 and waits to be let in.
pub(super) fn reach_first(rank: Rank, meeting: &Meeting, limits: Limits) -> Result<TcpStream> {
    let fail = |reason: String| Error::Join { meeting: meeting.to_string(), reason };
    let deadline = Instant::now() + limits.join;
    let mut stream = loop {
        match connect(meeting, limits.join.min(HELLO)) {
            Ok(stream) => break stream,
            Err(_) if Instant::now() < deadline => std::thread::sleep(PAUSE),
            Err(e) => {
                return Err(fail(format!("rank 0 could not be reached within {} s: {e}", limits.join.as_secs_f64())));
            }
        }
    };
    let hello = serde_json::to_vec(&Hello::new(rank)).expect("plain values serialise");
    let closed = |e: std::io::Error| match e.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => fail("rank 0 does not answer".into()),
        _ => fail("rank 0 closed the connection".into()),
    };
    Frame::new(Kind::Hello, rank.rank as u64, hello).write(&mut stream).map_err(closed)?;
    // Rank 0 answers when all are there, or by then.
    stream.set_read_timeout(Some(limits.join + limits.silence)).map_err(closed)?;
    let answer = Frame::read_up_to(&mut stream, MAX_HELLO).map_err(closed)?;
    match answer.kind {
        Kind::Welcome => Ok(stream),
        _ => Err(Error::Join { meeting: meeting.to_string(), reason: answer.to_text() }),
    }
}

/// Connects to the first of a name's addresses that answers.
fn connect(meeting: &Meeting, timeout: Duration) -> std::io::Result<TcpStream> {
    let mut last = std::io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in (meeting.host.as_str(), meeting.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Listens at an address that is given as one; at a name on all, as a machine may know itself as 127.0.1.1.
fn listen(meeting: &Meeting) -> std::io::Result<TcpListener> {
    let port = meeting.port;
    match meeting.host.parse::<IpAddr>() {
        Ok(address) => TcpListener::bind((address, port)),
        Err(_) if meeting.host == "localhost" => TcpListener::bind((Ipv4Addr::LOCALHOST, port)),
        Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)),
    }
}

/// Hears who somebody is; nothing if it is no rank.
fn greet(mut stream: TcpStream) -> Option<(TcpStream, usize, Hello)> {
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(HELLO)).ok()?;
    let frame = Frame::read_up_to(&mut stream, MAX_HELLO).ok().filter(|frame| frame.kind == Kind::Hello)?;
    let hello: Hello = serde_json::from_slice(&frame.body).ok().filter(|h: &Hello| h.protocol == PROTOCOL)?;
    Some((stream, usize::try_from(frame.number).ok()?, hello))
}

/// Refuses a rank that takes the run for another one.
fn admit(rank: Rank, number: usize, hello: &Hello, links: &[Option<TcpStream>]) -> Result<()> {
    let differs = |what: &str, expected: String, found: String| {
        Err(Error::RanksDiffer { rank: number, what: what.into(), expected, found })
    };
    let ours = Hello::new(rank);
    if hello.version != ours.version {
        return differs("its version of sixpack", ours.version, hello.version.clone());
    }
    if hello.world != ours.world {
        return differs("its number of ranks", ours.world.to_string(), hello.world.to_string());
    }
    match links.get(number) {
        Some(None) if number > 0 => Ok(()),
        Some(_) => differs("its number", "a rank that is not there yet".into(), format!("{number} a second time")),
        None => differs("its number", format!("a rank below {}", rank.world), number.to_string()),
    }
}

/// Says why the run does not begin, to one that may be gone.
fn tell(mut stream: &TcpStream, rank: usize, error: &Error) {
    let _ = Frame::text(Kind::Lost, rank as u64, &error.to_string()).write(&mut stream);
}
