//! The GPUs of several processes: sums and broadcasts by NCCL, on a stream of their own.
//!
//! NCCL is asked under a lock and polled, so that a thread that hears of a lost rank can end the communicator, and with it
//! work that would wait for that rank for ever.

use std::fmt;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::driver::Driver;
use super::gpu::Gpu;
use super::memory::Buffer;
use super::nccl::{Comm, failed};
use super::streams::{Event, Stream};
use crate::Result;

/// How often a communicator is asked whether something went wrong.
const WATCH: Duration = Duration::from_millis(500);

/// How long its end may take.
const END: Duration = Duration::from_secs(5);

/// The GPUs of several processes, seen from one of them.
#[derive(Debug)]
pub struct Communicator {
    gpu: Arc<Gpu>,
    /// What NCCL is asked for runs here, beside what the GPU computes.
    stream: Stream,
    shared: Arc<Shared>,
    /// Of work that the stream of all else has not waited for yet.
    held: Mutex<Vec<Buffer>>,
    /// Recorded when that stream waits.
    done: Event,
    to_abort: Abort,
}

/// Ends a communicator from another thread.
#[derive(Clone, Debug)]
pub struct Abort(Sender<String>);

impl Abort {
    /// Ends it soon: what it was asked for ends without a result, and nothing more is done.
    pub fn abort(&self, reason: &str) {
        // It may have ended.
        let _ = self.0.send(reason.to_owned());
    }
}

/// What the thread that watches has of a communicator too.
struct Shared(Mutex<Result<Comm, String>>);

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Shared").field(&self.lock().as_ref().err()).finish()
    }
}

impl Shared {
    /// The communicator, or why it was ended.
    fn lock(&self) -> MutexGuard<'_, Result<Comm, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends it, unless it has ended.
    fn end(&self, reason: &str) {
        let mut state = self.lock();
        if state.is_ok()
            && let Ok(comm) = std::mem::replace(&mut *state, Err(reason.to_owned()))
        {
            comm.abort();
        }
    }

    /// Asks NCCL, if the communicator has not ended. A failure ends it: nothing is to wait for this rank.
    fn ask<T>(&self, f: impl FnOnce(&Comm) -> Result<T, String>) -> Result<T> {
        let asked = self.lock().as_ref().map_err(Clone::clone).and_then(f);
        asked.map_err(|reason| {
            self.end(&reason);
            failed(reason)
        })
    }

    /// Waits until all that was asked for is queued on the stream.
    fn settle(&self, limit: Option<Duration>) -> Result<()> {
        let start = Instant::now();
        while !self.ask(Comm::is_settled)? {
            if let Some(limit) = limit.filter(|limit| start.elapsed() > *limit) {
                self.ask::<()>(|_| Err(format!("the GPUs did not meet within {} s", limit.as_secs_f64())))?;
            }
            match start.elapsed() < Duration::from_millis(1) {
                true => std::thread::yield_now(),
                false => std::thread::sleep(Duration::from_micros(100)),
            }
        }
        Ok(())
    }

    /// Ends it when it is told to, or when NCCL says that something went wrong; until it has ended.
    fn watch(&self, driver: &Driver, orders: &Receiver<String>) {
        // A failure shows where the GPU is used.
        let _ = driver.bind();
        loop {
            match orders.recv_timeout(WATCH) {
                Ok(reason) => self.end(&reason),
                Err(RecvTimeoutError::Disconnected) => return,
                // Its failure has ended it.
                Err(RecvTimeoutError::Timeout) => drop(self.ask(Comm::is_settled)),
            }
            if self.lock().is_err() {
                return;
            }
        }
    }
}

impl Communicator {
    /// Begins to meet the other ranks, which do the same with this id; [`Communicator::ready`] says when they are there.
    ///
    /// # Errors
    /// What NCCL or the driver say.
    ///
    /// # Panics
    /// If the id is none of [`unique_id`](super::unique_id)'s.
    pub fn start(gpu: &Arc<Gpu>, id: &[u8], rank: usize, world: usize) -> Result<Self> {
        let (stream, done) = (gpu.stream_ahead()?, gpu.event()?);
        gpu.driver().bind()?;
        let comm = Comm::start(id, rank, world).map_err(failed)?;
        let shared = Arc::new(Shared(Mutex::new(Ok(comm))));
        let (orders, received) = mpsc::channel();
        let (watched, driver) = (Arc::clone(&shared), Arc::clone(gpu.driver()));
        let watch = std::thread::Builder::new().name("ranks: NCCL".into());
        if let Err(error) = watch.spawn(move || watched.watch(&driver, &received)) {
            shared.end("there is no thread to watch it");
            return Err(failed(error.to_string()));
        }
        Ok(Self { gpu: gpu.apart(), stream, shared, held: Mutex::default(), done, to_abort: Abort(orders) })
    }

    /// Waits until all ranks are there.
    ///
    /// # Errors
    /// What NCCL says; if they are not there in time, or it was aborted.
    pub fn ready(&self, limit: Duration) -> Result<()> {
        self.shared.settle(Some(limit))
    }

    /// Whether nothing went wrong.
    ///
    /// # Errors
    /// What NCCL says; why it was aborted.
    pub fn check(&self) -> Result<()> {
        self.shared.ask(Comm::is_settled).map(drop)
    }

    /// What ends it from another thread.
    pub fn to_abort(&self) -> Abort {
        self.to_abort.clone()
    }

    /// Queues the sums of these parts of each rank, all of one length, in their place: once `ready` has happened.
    ///
    /// # Errors
    /// What NCCL or the driver say; why it was aborted.
    pub fn sum(&self, ready: &Event, parts: &[Buffer]) -> Result<()> {
        self.queue(ready, parts, |comm| parts.iter().try_for_each(|part| comm.sum(part, &self.stream)))
    }

    /// Queues that all get the parts that these ranks have, in their place: once `ready` has happened.
    ///
    /// # Errors
    /// As [`Communicator::sum`].
    pub fn broadcast(&self, ready: &Event, parts: &[(usize, Buffer)]) -> Result<()> {
        let buffers: Vec<Buffer> = parts.iter().map(|(_, part)| part.clone()).collect();
        self.queue(ready, &buffers, |comm| {
            parts.iter().try_for_each(|(from, part)| comm.broadcast(*from, part, &self.stream))
        })
    }

    fn queue(&self, ready: &Event, parts: &[Buffer], f: impl FnOnce(&Comm) -> Result<(), String>) -> Result<()> {
        self.stream.after(ready)?;
        self.held().extend_from_slice(parts);
        self.shared.ask(|comm| comm.group(|| f(comm)))?;
        // What is recorded on the stream next must come after it.
        self.shared.settle(None)
    }

    /// Lets what is queued from now on wait for all that was asked for.
    ///
    /// # Errors
    /// What the driver says; why it was aborted.
    pub fn wait(&self) -> Result<()> {
        self.shared.ask(|_| Ok(()))?;
        self.stream.mark(&self.done)?;
        self.gpu.after(&self.done)?;
        self.held().clear();
        Ok(())
    }

    fn held(&self) -> MutexGuard<'_, Vec<Buffer>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Communicator {
    /// Ends it with the others, or without them if they do not end theirs.
    fn drop(&mut self) {
        let ended = self.shared.ask(Comm::finalize).and_then(|()| self.shared.settle(Some(END)));
        if ended.is_ok()
            && let Ok(comm) = std::mem::replace(&mut *self.shared.lock(), Err("it is over".into()))
        {
            comm.destroy();
        }
    }
}
