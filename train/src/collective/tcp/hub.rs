//! Rank 0's middle: it puts together the parts of each operation and sends the result to all.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::frame::{Frame, Kind, from_bytes, join, to_bytes};
use super::link::Link;
use super::waiting::Waiting;

/// What reaches the hub.
pub(super) enum Event {
    /// A rank's part of an operation, or its farewell.
    Frame(usize, Frame),
    /// Nothing more will come from a rank.
    Gone(usize, String),
    /// Rank 0 is done.
    Close,
}

/// The parts that have arrived, and the ways to the other ranks.
pub(super) struct Hub {
    /// By rank; none to rank 0.
    pub(super) links: Vec<Option<Link>>,
    pub(super) waiting: Arc<Waiting>,
    /// How long a part of an operation may be missing when another is there.
    pub(super) patience: Duration,
}

impl Hub {
    /// Serves until rank 0 is done.
    pub(super) fn run(mut self, events: &Receiver<Event>) {
        let mut parts: Vec<VecDeque<Frame>> = self.links.iter().map(|_| VecDeque::new()).collect();
        let mut complete = Instant::now();
        let mut lost = false;
        loop {
            let event = match events.recv_timeout(self.patience / 8) {
                Ok(event) => event,
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => {
                    let late = parts.iter().position(VecDeque::is_empty);
                    let idle = parts.iter().all(VecDeque::is_empty);
                    if let Some(rank) = late.filter(|_| !idle && !lost && complete.elapsed() > self.patience) {
                        lost = true;
                        self.lose(rank, &format!("it did nothing for {} s", self.patience.as_secs_f64()));
                    }
                    continue;
                }
            };
            let loss = match event {
                Event::Close => {
                    // All at once, so that their ends are waited for together.
                    self.links.iter_mut().flatten().for_each(Link::finish);
                    return;
                }
                _ if lost => continue,
                Event::Gone(rank, reason) => Some((rank, reason)),
                Event::Frame(rank, frame) if frame.kind == Kind::Leave => {
                    Some((rank, format!("it ended: {}", frame.to_text())))
                }
                Event::Frame(rank, frame) => {
                    if parts.iter().all(VecDeque::is_empty) {
                        complete = Instant::now();
                    }
                    parts[rank].push_back(frame);
                    self.complete(&mut parts, &mut complete)
                }
            };
            if let Some((rank, reason)) = loss {
                lost = true;
                self.lose(rank, &reason);
            }
        }
    }

    /// Answers every operation of which all parts are there; a rank whose part does not fit is lost.
    fn complete(&self, parts: &mut [VecDeque<Frame>], complete: &mut Instant) -> Option<(usize, String)> {
        while parts.iter().all(|queue| !queue.is_empty()) {
            let frames: Vec<_> = parts.iter_mut().filter_map(VecDeque::pop_front).collect();
            let first = &frames[0];
            let fits = |frame: &Frame| {
                let same = (frame.kind, frame.number) == (first.kind, first.number);
                same && (frame.kind != Kind::Sum || frame.body.len() == first.body.len())
            };
            if let Some(rank) = frames.iter().position(|frame| !fits(frame)) {
                let name = |f: &Frame| format!("{:?} {} of {} bytes", f.kind, f.number, f.body.len());
                let expected = format!("it was expected to do {}, found {}", name(first), name(&frames[rank]));
                return Some((rank, expected));
            }
            let body = match first.kind {
                Kind::Sum => match sum(&frames) {
                    Some(body) => body,
                    None => return Some((0, "its part of a sum is no whole number of values".into())),
                },
                _ => join(frames.iter().map(|frame| frame.body.as_slice())),
            };
            let result = Frame::new(Kind::Result, first.number, body);
            self.links.iter().flatten().for_each(|link| link.send(result.clone()));
            self.waiting.close(result.number, result.body);
            *complete = Instant::now();
        }
        None
    }

    /// Tells all ranks that one was lost.
    fn lose(&mut self, rank: usize, reason: &str) {
        for (other, link) in self.links.iter_mut().enumerate() {
            match link {
                Some(link) if other == rank => link.cut(),
                Some(link) => link.send(Frame::text(Kind::Lost, rank as u64, reason)),
                None => {}
            }
        }
        self.waiting.lose(rank, reason);
    }
}

/// The sum of parts of one length, in the order of the ranks.
fn sum(frames: &[Frame]) -> Option<Vec<u8>> {
    let mut total = from_bytes(&frames[0].body)?;
    for frame in &frames[1..] {
        for (total, part) in total.iter_mut().zip(frame.body.as_chunks::<4>().0) {
            *total += f32::from_le_bytes(*part);
        }
    }
    Some(to_bytes(&total))
}
