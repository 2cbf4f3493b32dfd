//! Ranks on processors, over TCP: every other rank is connected to rank 0, which puts everything together.
//!
//! Made to prove the logic of a run on several ranks, and for a few machines without GPUs: what rank 0 sends and receives
//! grows with the number of ranks. A rank is lost when its connection closes, or when it gives no sign of life for a
//! while; then every operation of all others fails with that rank's number.

mod frame;
mod hub;
mod join;
mod link;
mod waiting;

use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use super::launch::Meeting;
use super::{Collective, Hear, Pending};
use crate::loader::Rank;
use crate::{Error, Result};
use frame::{Frame, Kind, from_bytes, split, to_bytes};
use hub::{Event, Hub};
use link::Link;
use waiting::{Waiting, wait};

/// How long ranks wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For all to be there.
    pub join: Duration,
    /// For a sign of life of a rank that is there.
    pub silence: Duration,
    /// For a rank that gives signs of life, but does not do what others wait for.
    pub patience: Duration,
}

impl Limits {
    /// So long for a rank to come and for its signs of life, and thirty times as long for one that is busy: measuring a
    /// size or writing a checkpoint may take minutes.
    pub fn of(limit: Duration) -> Self {
        Self { join: limit, silence: limit, patience: 30 * limit }
    }
}

impl Default for Limits {
    /// Of a minute.
    fn default() -> Self {
        Self::of(Duration::from_secs(60))
    }
}

/// The ranks of a run, connected by TCP.
#[derive(Debug)]
pub struct Tcp {
    rank: Rank,
    waiting: Arc<Waiting>,
    way: Way,
}

/// Where this rank's parts go.
#[derive(Debug)]
enum Way {
    /// Rank 0's: to its hub.
    Hub(Sender<Event>, Option<JoinHandle<()>>),
    /// To rank 0.
    Link(Link),
}

impl Tcp {
    /// Meets the other ranks; returns when all are there.
    ///
    /// # Errors
    /// If they cannot be reached or do not come, or if one is of another version or takes the run for one of another
    /// number of ranks.
    pub fn join(rank: Rank, meeting: &Meeting, limits: Limits) -> Result<Self> {
        let waiting = Arc::new(Waiting::default());
        let system = |e: std::io::Error| Error::Join { meeting: meeting.to_string(), reason: e.to_string() };
        if rank.rank > 0 {
            let stream = join::reach_first(rank, meeting, limits)?;
            let told = Arc::clone(&waiting);
            let hand_on = move |frame: Result<Frame, String>| match frame {
                Ok(frame) if frame.kind == Kind::Result => told.close(frame.number, frame.body),
                Ok(frame) if frame.kind == Kind::Lost => told.lose(frame.number as usize, &frame.to_text()),
                Ok(frame) => told.lose(0, &format!("it sent {:?} where a result was expected", frame.kind)),
                Err(reason) => told.lose(0, &reason),
            };
            let link = Link::start(stream, limits.silence, hand_on).map_err(system)?;
            return Ok(Self { rank, waiting, way: Way::Link(link) });
        }
        let (sender, events) = mpsc::channel();
        let streams = join::wait_for_all(rank, meeting, limits)?;
        let links = streams.into_iter().enumerate().map(|(other, stream)| {
            let Some(stream) = stream else { return Ok(None) };
            let hub = sender.clone();
            let hand_on = move |frame: Result<Frame, String>| {
                let event = frame.map_or_else(|reason| Event::Gone(other, reason), |frame| Event::Frame(other, frame));
                // It ends before its connections do.
                let _ = hub.send(event);
            };
            Link::start(stream, limits.silence, hand_on).map(Some)
        });
        let links = links.collect::<std::io::Result<_>>().map_err(system)?;
        let hub = Hub { links, waiting: Arc::clone(&waiting), patience: limits.patience };
        let serve = move || hub.run(&events);
        let serving = std::thread::Builder::new().name("ranks: hub".into()).spawn(serve).map_err(system)?;
        Ok(Self { rank, waiting, way: Way::Hub(sender, Some(serving)) })
    }

    /// Starts an operation with this rank's part.
    fn start(&self, kind: Kind, body: Vec<u8>) -> Result<Pending<Arc<Vec<u8>>>> {
        let answered = self.waiting.open(|number| self.send(Frame::new(kind, number, body)))?;
        Ok(Pending::new(move || wait(&answered)))
    }

    fn send(&self, frame: Frame) {
        match &self.way {
            Way::Hub(hub, _) => {
                // It lives as long as this value.
                let _ = hub.send(Event::Frame(0, frame));
            }
            Way::Link(link) => link.send(frame),
        }
    }
}

impl Collective for Tcp {
    fn rank(&self) -> Rank {
        self.rank
    }

    fn sum(&self, bucket: Vec<f32>) -> Result<Pending> {
        let length = bucket.len();
        let sum = self.start(Kind::Sum, to_bytes(&bucket))?;
        Ok(Pending::new(move || numbers(0, &sum.wait()?, length)))
    }

    fn broadcast(&self, from: usize, bucket: Vec<f32>) -> Result<Pending> {
        let length = bucket.len();
        let body = if self.rank.rank == from { to_bytes(&bucket) } else { Vec::new() };
        let all = self.start(Kind::Gather, body)?;
        Ok(Pending::new(move || {
            let all = all.wait()?;
            let parts = split(&all).ok_or_else(|| nonsense(0, "no list of parts"))?;
            numbers(from, parts.get(from).copied().unwrap_or_default(), length)
        }))
    }

    fn gather(&self, of_ranks: Vec<Vec<f32>>) -> Result<Pending<Vec<Vec<f32>>>> {
        let lengths: Vec<usize> = of_ranks.iter().map(Vec::len).collect();
        let all = self.start(Kind::Gather, to_bytes(&of_ranks[self.rank.rank]))?;
        Ok(Pending::new(move || {
            let all = all.wait()?;
            let parts = split(&all).ok_or_else(|| nonsense(0, "no list of parts"))?;
            let parts = parts.into_iter().zip(lengths).enumerate();
            parts.map(|(rank, (part, length))| numbers(rank, part, length)).collect()
        }))
    }

    fn exchange(&self, value: &[u8]) -> Result<Vec<Vec<u8>>> {
        let all = self.start(Kind::Gather, value.to_vec())?.wait()?;
        let parts = split(&all).ok_or_else(|| nonsense(0, "no list of parts"))?;
        Ok(parts.into_iter().map(<[u8]>::to_vec).collect())
    }

    fn leave(&self, reason: &str) {
        self.send(Frame::text(Kind::Leave, 0, reason));
    }

    fn on_loss(&self, hear: Hear) {
        self.waiting.on_loss(hear);
    }
}

impl Drop for Tcp {
    /// Sends what is still to be sent, and ends the connections.
    fn drop(&mut self) {
        if let Way::Hub(hub, serving) = &mut self.way {
            let _ = hub.send(Event::Close);
            serving.take().map(JoinHandle::join);
        }
    }
}

/// The numbers a rank sent, which must be so many.
fn numbers(rank: usize, bytes: &[u8], length: usize) -> Result<Vec<f32>> {
    let numbers = from_bytes(bytes).filter(|numbers| numbers.len() == length);
    numbers.ok_or_else(|| nonsense(rank, format!("{} bytes for {length} numbers", bytes.len())))
}

/// A rank sent what it should not have.
pub(super) fn nonsense(rank: usize, found: impl std::fmt::Display) -> Error {
    Error::Lost { rank, reason: format!("it sent what was not expected: {found}") }
}
