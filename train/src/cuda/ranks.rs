//! Ranks that are GPUs: how they give each other gradients and weights.
//!
//! By NCCL where all of them have it and no two are one GPU; then the host waits for nothing. Otherwise by way of the host,
//! over what the ranks met by. They agree on one way before the first step.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sixpack_runtime::cuda::{Buffer, Communicator, Event, Gpu, nccl_version, unique_id};

use crate::collective::{Hear, Pending, exchange};
use crate::loader::Rank;
use crate::{Collective, Error, Result};

/// How long GPUs may take to meet, once their processes have.
const MEETING: Duration = Duration::from_secs(120);

/// Names in the environment a way that is to be taken: `host`, `after` for NCCL once a pass is over, or `overlap`.
const WAY: &str = "SIXPACK_RANKS";

/// Parts of a GPU's memory that travel together.
#[derive(Clone, Debug)]
pub struct Bucket {
    /// The parts.
    pub parts: Vec<Buffer>,
    /// When they are there; if it is not said, after all that is queued.
    pub ready: Option<Arc<Event>>,
}

/// Where a rank's gradients and weights go, and why there.
#[derive(Debug)]
pub struct Ranks<'a> {
    /// The ranks.
    pub all: Box<dyn Collective<Bucket> + 'a>,
    /// Whether buckets may travel while a pass goes on.
    pub overlap: bool,
    /// Whether each rank orthogonalises some of the matrices only.
    pub share: bool,
    /// The way, in words, where there are several.
    pub way: Option<String>,
    /// What may end.
    nccl: Option<(Arc<Communicator>, Lost)>,
}

/// The rank that was lost, and why.
type Lost = Arc<Mutex<Option<(usize, String)>>>;

/// What a rank says of its GPU.
#[derive(Serialize, Deserialize)]
struct Can {
    /// NCCL's version, or why there is none.
    nccl: Result<String, String>,
    /// What tells its GPU from all others.
    gpu: String,
    /// The way it was told to take.
    way: String,
}

impl<'a> Ranks<'a> {
    /// A single one.
    pub fn alone() -> Ranks<'static> {
        Ranks { all: Box::new(crate::Alone), overlap: false, share: false, way: None, nccl: None }
    }

    /// Whether the way is open: sums end without a result when it is ended.
    ///
    /// # Errors
    /// Why it was ended.
    pub fn check(&self) -> Result<()> {
        self.nccl.as_ref().map_or(Ok(()), |(communicator, lost)| said(lost, communicator.check()))
    }

    /// Agrees with the others on a way: by the host too where NCCL fails to start.
    ///
    /// # Errors
    /// If a rank was lost.
    pub fn meet(gpu: &Arc<Gpu>, all: &'a dyn Collective) -> Result<Self> {
        if all.rank().world == 1 {
            return Ok(Self::alone());
        }
        let way = std::env::var(WAY).unwrap_or_else(|_| "overlap".into());
        let nccl = nccl_version().map(ToOwned::to_owned);
        let of_all = exchange(all, &Can { nccl, gpu: gpu.facts().uuid.clone(), way })?;
        let met = match why_not(&of_all) {
            Some(reason) => Err(reason),
            None => Nccl::meet(gpu, all)?,
        };
        Ok(match met {
            Ok(nccl) => {
                let version = of_all[0].nccl.clone().unwrap_or_default();
                let overlap = of_all[0].way == "overlap";
                let when = if overlap { "while backward goes on" } else { "after backward" };
                let way = Some(format!("gradients go by NCCL {version}, {when}"));
                let open = Some((Arc::clone(&nccl.communicator), Arc::clone(&nccl.lost)));
                Self { all: Box::new(nccl), overlap, share: true, way, nccl: open }
            }
            Err(reason) => {
                // Each goes through all matrices, for itself: to the same bits.
                gpu.do_not_search();
                let all = ByHost { gpu: Arc::clone(gpu), all };
                let way = Some(format!("gradients go by way of the host: {reason}"));
                Self { all: Box::new(all), overlap: false, share: false, way, nccl: None }
            }
        })
    }
}

/// Why the ranks cannot go by NCCL, if they cannot: the same on all.
fn why_not(of_all: &[Can]) -> Option<String> {
    let first = &of_all[0];
    for (rank, can) in of_all.iter().enumerate() {
        let same = of_all[..rank].iter().position(|other| other.gpu == can.gpu);
        match (&can.nccl, &first.nccl) {
            _ if can.way != first.way => return Some(format!("rank {rank} has another {WAY} than rank 0")),
            _ if can.way == "host" => return Some(format!("{WAY} says so")),
            _ if !["overlap", "after"].contains(&can.way.as_str()) => {
                return Some(format!("{WAY}: expected overlap, after or host, found `{}`", can.way));
            }
            (Err(reason), _) => return Some(format!("rank {rank} has no NCCL ({reason})")),
            (Ok(own), Ok(others)) if own != others => {
                return Some(format!("rank {rank} has NCCL {own}, rank 0 {others}"));
            }
            _ => {}
        }
        if let Some(other) = same {
            return Some(format!("ranks {other} and {rank} are on one GPU"));
        }
    }
    None
}

/// GPUs that NCCL connects.
#[derive(Debug)]
struct Nccl<'a> {
    all: &'a dyn Collective,
    gpu: Arc<Gpu>,
    communicator: Arc<Communicator>,
    lost: Lost,
}

impl<'a> Nccl<'a> {
    /// Meets the other GPUs; why they do not meet is the same on all.
    fn meet(gpu: &Arc<Gpu>, all: &'a dyn Collective) -> Result<Result<Self, String>> {
        let me = all.rank();
        let text = |e: sixpack_runtime::Error| e.to_string();
        let id = if me.rank == 0 { unique_id().map_err(text) } else { Ok(Vec::new()) };
        let id = match exchange(all, &id)?.swap_remove(0) {
            Ok(id) => id,
            Err(reason) => return Ok(Err(format!("rank 0: {reason}"))),
        };
        let lost = Arc::new(Mutex::new(None));
        let started = Communicator::start(gpu, &id, me.rank, me.world).and_then(|communicator| {
            let (abort, told) = (communicator.to_abort(), Arc::clone(&lost));
            // A sum that a lost rank has no part in would never end.
            all.on_loss(Box::new(move |rank, reason| {
                *told.lock().unwrap_or_else(PoisonError::into_inner) = Some((rank, reason.to_owned()));
                abort.abort(&format!("rank {rank} was lost: {reason}"));
            }));
            communicator.ready(MEETING)?;
            Ok(communicator)
        });
        let of_all = exchange(all, &started.as_ref().map(drop).map_err(ToString::to_string))?;
        if let Some((rank, reason)) = of_all.into_iter().enumerate().find_map(|(rank, met)| Some((rank, met.err()?))) {
            return Ok(Err(format!("rank {rank}: {reason}")));
        }
        let communicator = Arc::new(started.map_err(Error::from)?);
        Ok(Ok(Self { all, gpu: Arc::clone(gpu), communicator, lost }))
    }

    /// What the communicator says; of one that was ended as a rank was lost, that.
    fn said<T>(&self, result: sixpack_runtime::Result<T>) -> Result<T> {
        said(&self.lost, result)
    }

    /// When a bucket is there.
    fn ready(&self, bucket: &Bucket) -> Result<Arc<Event>> {
        if let Some(ready) = &bucket.ready {
            return Ok(Arc::clone(ready));
        }
        let now = self.gpu.event()?;
        self.gpu.mark(&now)?;
        Ok(Arc::new(now))
    }

    /// What was started on some buckets: waiting lets the GPU wait.
    fn started<T: Send + 'static>(&self, buckets: T) -> Pending<T> {
        let (communicator, lost) = (Arc::clone(&self.communicator), Arc::clone(&self.lost));
        Pending::new(move || said(&lost, communicator.wait()).map(|()| buckets))
    }

    fn give(&self, of_ranks: &[(usize, &Bucket)]) -> Result<()> {
        let parts = of_ranks.iter().flat_map(|&(from, bucket)| bucket.parts.iter().map(move |p| (from, p.clone())));
        let parts: Vec<(usize, Buffer)> = parts.filter(|(_, part)| !part.is_empty()).collect();
        let mine = of_ranks.iter().find(|(from, _)| *from == self.all.rank().rank).or(of_ranks.first());
        let ready = self.ready(mine.expect("a bucket of some rank").1)?;
        self.said(self.communicator.broadcast(&ready, &parts))
    }
}

fn said<T>(lost: &Mutex<Option<(usize, String)>>, result: sixpack_runtime::Result<T>) -> Result<T> {
    result.map_err(|error| match lost.lock().unwrap_or_else(PoisonError::into_inner).clone() {
        Some((rank, reason)) => Error::Lost { rank, reason },
        None => error.into(),
    })
}

impl Collective<Bucket> for Nccl<'_> {
    fn rank(&self) -> Rank {
        self.all.rank()
    }

    fn sum(&self, bucket: Bucket) -> Result<Pending<Bucket>> {
        self.said(self.communicator.sum(&*self.ready(&bucket)?, &bucket.parts))?;
        Ok(self.started(bucket))
    }

    fn broadcast(&self, from: usize, bucket: Bucket) -> Result<Pending<Bucket>> {
        self.give(&[(from, &bucket)])?;
        Ok(self.started(bucket))
    }

    fn gather(&self, of_ranks: Vec<Bucket>) -> Result<Pending<Vec<Bucket>>> {
        self.give(&of_ranks.iter().enumerate().collect::<Vec<_>>())?;
        Ok(self.started(of_ranks))
    }

    fn exchange(&self, value: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.all.exchange(value)
    }

    fn leave(&self, reason: &str) {
        self.all.leave(reason);
    }

    fn on_loss(&self, hear: Hear) {
        self.all.on_loss(hear);
    }
}

/// GPUs whose numbers go by way of the host.
#[derive(Debug)]
struct ByHost<'a> {
    gpu: Arc<Gpu>,
    all: &'a dyn Collective,
}

/// A bucket's numbers, after all that is queued.
fn read(gpu: &Gpu, bucket: &Bucket) -> Result<Vec<f32>> {
    let mut values = Vec::new();
    for part in &bucket.parts {
        values.extend(gpu.read(part)?);
    }
    Ok(values)
}

fn write(gpu: &Gpu, bucket: &Bucket, mut values: &[f32]) -> Result<()> {
    for part in &bucket.parts {
        let (these, rest) = values.split_at(part.len());
        gpu.write(part, these)?;
        values = rest;
    }
    Ok(())
}

impl ByHost<'_> {
    /// The numbers of one rank's bucket: this rank's, or as many zeros.
    fn of(&self, from: usize, bucket: &Bucket) -> Result<Vec<f32>> {
        match from == self.all.rank().rank {
            true => read(&self.gpu, bucket),
            false => Ok(vec![0.0; bucket.parts.iter().map(Buffer::len).sum()]),
        }
    }
}

impl Collective<Bucket> for ByHost<'_> {
    fn rank(&self) -> Rank {
        self.all.rank()
    }

    fn sum(&self, bucket: Bucket) -> Result<Pending<Bucket>> {
        let (gpu, sum) = (Arc::clone(&self.gpu), self.all.sum(read(&self.gpu, &bucket)?)?);
        Ok(Pending::new(move || write(&gpu, &bucket, &sum.wait()?).map(|()| bucket)))
    }

    fn broadcast(&self, from: usize, bucket: Bucket) -> Result<Pending<Bucket>> {
        let (gpu, given) = (Arc::clone(&self.gpu), self.all.broadcast(from, self.of(from, &bucket)?)?);
        Ok(Pending::new(move || write(&gpu, &bucket, &given.wait()?).map(|()| bucket)))
    }

    fn gather(&self, of_ranks: Vec<Bucket>) -> Result<Pending<Vec<Bucket>>> {
        let mine = of_ranks.iter().enumerate().map(|(from, bucket)| self.of(from, bucket)).collect::<Result<_>>()?;
        let (gpu, given) = (Arc::clone(&self.gpu), self.all.gather(mine)?);
        Ok(Pending::new(move || {
            let given = given.wait()?;
            of_ranks.iter().zip(given).try_for_each(|(bucket, values)| write(&gpu, bucket, &values))?;
            Ok(of_ranks)
        }))
    }

    fn exchange(&self, value: &[u8]) -> Result<Vec<Vec<u8>>> {
        self.all.exchange(value)
    }

    fn leave(&self, reason: &str) {
        self.all.leave(reason);
    }

    fn on_loss(&self, hear: Hear) {
        self.all.on_loss(hear);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_rank_that_cannot_decides_for_all() {
        let can = |nccl: Result<&str, &str>, gpu: &str, way: &str| Can {
            nccl: nccl.map(Into::into).map_err(Into::into),
            gpu: gpu.into(),
            way: way.into(),
        };
        let first = || can(Ok("2.27.3"), "a", "overlap");
        assert_eq!(why_not(&[first(), can(Ok("2.27.3"), "b", "overlap")]), None);
        let cases = [
            (can(Err("no libnccl.so.2"), "b", "overlap"), "rank 1 has no NCCL (no libnccl.so.2)"),
            (can(Ok("2.26.2"), "b", "overlap"), "rank 1 has NCCL 2.26.2, rank 0 2.27.3"),
            (can(Ok("2.27.3"), "a", "overlap"), "ranks 0 and 1 are on one GPU"),
            (can(Ok("2.27.3"), "b", "host"), "rank 1 has another SIXPACK_RANKS than rank 0"),
        ];
        for (second, expected) in cases {
            assert_eq!(why_not(&[first(), second]).as_deref(), Some(expected));
        }
        assert_eq!(why_not(&[can(Ok("2.27.3"), "a", "host")]).as_deref(), Some("SIXPACK_RANKS says so"));
    }
}
