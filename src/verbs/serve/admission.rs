//! Who is there: requests that arrive, so many that run at once, a queue for the next ones, and turns for those that run.

use std::sync::Arc;

use prometheus_client::metrics::gauge::Gauge;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout_at};

use super::error::ApiError;
use super::metrics::Metrics;
use crate::args::Limits;

/// The way in. First come, first served.
#[derive(Debug)]
pub(super) struct Admission {
    slots: Arc<Semaphore>,
    turns: Semaphore,
    max_queue: usize,
    timeout: f64,
    arriving: Gauge,
    waiting: Gauge,
    running: Gauge,
}

/// A request of which the head is here, until it has its place or its refusal.
#[derive(Debug)]
pub(super) struct Arrival {
    _counted: Counted,
}

/// A place among those that run, until it is dropped.
#[derive(Debug)]
pub(super) struct Slot {
    _counted: Counted,
    _permit: OwnedSemaphorePermit,
}

impl Admission {
    /// Nobody is in. `turns` requests compute at any moment; the gauges show how many are where.
    pub(super) fn new(limits: &Limits, turns: usize, metrics: &Metrics) -> Self {
        Self {
            slots: Arc::new(Semaphore::new(limits.max_running.into())),
            turns: Semaphore::new(turns),
            max_queue: limits.max_queue.into(),
            timeout: limits.timeout,
            arriving: metrics.arriving.clone(),
            waiting: metrics.waiting.clone(),
            running: metrics.running.clone(),
        }
    }

    /// Counts a request from now on, before anything of it is read.
    pub(super) fn arrive(&self) -> Arrival {
        Arrival { _counted: Counted::new(&self.arriving) }
    }

    /// Waits for a place to run.
    pub(super) async fn enter(&self, deadline: Instant) -> Result<Slot, ApiError> {
        let permit = match Arc::clone(&self.slots).try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let counted = Counted::new(&self.waiting);
                if counted.before >= self.max_queue {
                    return Err(ApiError::full(self.max_queue));
                }
                let permit = timeout_at(deadline, Arc::clone(&self.slots).acquire_owned()).await;
                permit.map_err(|_| ApiError::late(self.timeout))?.map_err(ApiError::internal)?
            }
        };
        Ok(Slot { _counted: Counted::new(&self.running), _permit: permit })
    }

    /// Waits for a turn on this thread, which is none of the server's own. Who has had one and comes back stands behind
    /// all that wait: so all go on at one pace.
    pub(super) fn turn(&self) -> SemaphorePermit<'_> {
        Handle::current().block_on(self.turns.acquire()).expect("the turns are never closed")
    }

    /// Whether nobody is there.
    pub(super) fn is_idle(&self) -> bool {
        // In the order in which a request goes through them, so that none is overlooked on its way.
        [&self.arriving, &self.waiting, &self.running].iter().all(|gauge| gauge.get() == 0)
    }
}

/// One more on a gauge, until it is dropped.
#[derive(Debug)]
struct Counted {
    gauge: Gauge,
    /// How many were before.
    before: usize,
}

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        let before = gauge.inc().max(0) as usize;
        Self { gauge: gauge.clone(), before }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}
