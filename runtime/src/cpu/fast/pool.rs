//! The user's threads.

#[cfg(not(target_arch = "wasm32"))]
use std::sync::Mutex;

#[cfg(not(target_arch = "wasm32"))]
use super::team::Team;
use crate::{Error, Result};

/// Work below this many elementary operations is done at once by the calling thread: waking another one takes longer.
const WORTH_A_THREAD: usize = 1 << 18;

/// A fixed number of threads. With one, everything runs on the caller's.
#[derive(Debug)]
pub(super) struct Pool {
    threads: usize,
    #[cfg(not(target_arch = "wasm32"))]
    team: Option<Team>,
}

impl Pool {
    pub(super) fn new(threads: usize) -> Result<Self> {
        if threads == 0 {
            let found = threads.to_string();
            return Err(Error::Option { field: "threads", expected: "at least 1".into(), found });
        }
        #[cfg(target_arch = "wasm32")]
        return Ok(Self { threads: 1 });
        #[cfg(not(target_arch = "wasm32"))]
        {
            let fail = |e: std::io::Error| Error::Threads { threads, reason: e.to_string() };
            let team = if threads == 1 { None } else { Some(Team::new(threads - 1).map_err(fail)?) };
            Ok(Self { threads, team })
        }
    }

    /// Rows of a task when each of `rows` takes `work` elementary operations: all of them, or a thread's share.
    pub(super) fn share(&self, rows: usize, work: usize) -> usize {
        let tasks = (rows * work / WORTH_A_THREAD).clamp(1, self.threads);
        rows.div_ceil(tasks).max(1)
    }

    /// Runs `f` on each task.
    pub(super) fn each<T: Send>(&self, tasks: impl Iterator<Item = T> + Send, f: impl Fn(T) + Sync) {
        #[cfg(not(target_arch = "wasm32"))]
        if let Some(team) = &self.team {
            let mut tasks = tasks;
            let (Some(first), second) = (tasks.next(), tasks.next()) else { return };
            let Some(second) = second else { return f(first) };
            // Whoever is free takes the next one: a thread the system has taken away holds up one task at most.
            let tasks = Mutex::new([first, second].into_iter().chain(tasks));
            let next = || tasks.lock().expect("taking a task does not panic").next();
            return team.run(&|| std::iter::from_fn(next).for_each(&f));
        }
        tasks.for_each(f);
    }

    /// Runs `f(first row, rows)` on the rows of `out`, `cols` wide, `tile` at a time.
    pub(super) fn rows(&self, out: &mut [f32], cols: usize, tile: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
        self.each(out.chunks_mut(tile * cols).enumerate(), |(i, rows)| f(i * tile, rows));
    }

    /// As [`Pool::rows`] for two outputs with rows of the same width.
    pub(super) fn rows_of_two(
        &self,
        out: (&mut [f32], &mut [f32]),
        cols: usize,
        tile: usize,
        f: impl Fn(usize, &mut [f32], &mut [f32]) + Sync,
    ) {
        let pairs = out.0.chunks_mut(tile * cols).zip(out.1.chunks_mut(tile * cols));
        self.each(pairs.enumerate(), |(i, (a, b))| f(i * tile, a, b));
    }
}
