//! One end of a connection: a thread that writes what is queued, and a thread that hands on what arrives.

use std::io::{BufReader, ErrorKind};
use std::net::{Shutdown, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use super::frame::{Frame, Kind};

/// How long the end of a connection waits for the other end's. Closing at once, with signs of life still arriving, would
/// take from the other end what it has not yet read.
const LINGER: Duration = Duration::from_secs(2);

/// A connection to one rank.
#[derive(Debug)]
pub(super) struct Link {
    queue: Option<Sender<Frame>>,
    stream: TcpStream,
    threads: Vec<JoinHandle<()>>,
    /// Closed by the reader when nothing more will arrive.
    ended: Mutex<Receiver<()>>,
}

impl Link {
    /// Begins to write and to read. `hand_on` gets every frame but signs of life, and at last why there are no more.
    /// Silence of the other end for longer than `silence` is an end; a sign of life goes out at a quarter of that.
    pub(super) fn start(
        stream: TcpStream,
        silence: Duration,
        mut hand_on: impl FnMut(Result<Frame, String>) + Send + 'static,
    ) -> std::io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(silence))?;
        stream.set_write_timeout(Some(silence))?;
        let (reading, writing) = (stream.try_clone()?, stream.try_clone()?);
        let (queue, queued) = mpsc::channel();
        let (end, ended) = mpsc::channel();
        let reader = std::thread::Builder::new().name("ranks: reading".into()).spawn(move || {
            let reason = read(&reading, silence, &mut hand_on);
            drop(end);
            hand_on(Err(reason));
        })?;
        let writer = std::thread::Builder::new().name("ranks: writing".into()).spawn(move || {
            let close = match write(&writing, &queued, silence / 4) {
                Ok(()) => Shutdown::Write,
                // The reader finds out too.
                Err(_) => Shutdown::Both,
            };
            // It may be closed already.
            let _ = writing.shutdown(close);
        })?;
        Ok(Self { queue: Some(queue), stream, threads: vec![reader, writer], ended: Mutex::new(ended) })
    }

    /// Where to put what is to be sent. It is lost where the connection is.
    pub(super) fn send(&self, frame: Frame) {
        if let Some(queue) = &self.queue {
            // The reader has said why.
            let _ = queue.send(frame);
        }
    }

    /// Ends this side of the connection once all that is queued was sent.
    pub(super) fn finish(&mut self) {
        self.queue = None;
    }

    /// Ends the connection without waiting for anything.
    pub(super) fn cut(&mut self) {
        self.queue = None;
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Drop for Link {
    /// Sends what is queued.
    fn drop(&mut self) {
        self.finish();
        let writer = self.threads.pop();
        writer.map(JoinHandle::join);
        if let Ok(ended) = self.ended.get_mut() {
            let _ = ended.recv_timeout(LINGER);
        }
        let _ = self.stream.shutdown(Shutdown::Both);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

/// Hands on frames until there are no more; returns why.
fn read(stream: &TcpStream, silence: Duration, hand_on: &mut impl FnMut(Result<Frame, String>)) -> String {
    let mut reader = BufReader::with_capacity(1 << 16, stream);
    loop {
        match Frame::read(&mut reader) {
            Ok(Frame { kind: Kind::Beat, .. }) => {}
            Ok(frame) => hand_on(Ok(frame)),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return format!("it was silent for {} s", silence.as_secs_f64());
            }
            Err(e) if e.kind() == ErrorKind::InvalidData => return e.to_string(),
            Err(_) => return "its connection was closed".into(),
        }
    }
}

/// Writes what is queued, and signs of life, until the queue is closed.
fn write(mut stream: &TcpStream, queued: &Receiver<Frame>, beat: Duration) -> std::io::Result<()> {
    loop {
        match queued.recv_timeout(beat) {
            Ok(frame) => frame.write(&mut stream)?,
            Err(RecvTimeoutError::Timeout) => Frame::new(Kind::Beat, 0, Vec::new()).write(&mut stream)?,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
}
