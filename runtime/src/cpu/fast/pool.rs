//! The user's threads.

use crate::{Error, Result};

/// Work below this many elementary operations is done at once by the calling thread: waking another one takes longer.
const WORTH_A_THREAD: usize = 1 << 18;

/// A fixed number of threads. With one, everything runs on the caller's and rayon is not touched.
#[derive(Debug)]
pub(super) struct Pool {
    threads: usize,
    #[cfg(not(target_arch = "wasm32"))]
    rayon: Option<rayon::ThreadPool>,
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
            let start = || rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            let fail = |e: rayon::ThreadPoolBuildError| Error::Threads { threads, reason: e.to_string() };
            let rayon = if threads == 1 { None } else { Some(start().map_err(fail)?) };
            Ok(Self { threads, rayon })
        }
    }

    /// Rows of a task when each of `rows` takes `work` elementary operations: all of them, or a thread's share.
    pub(super) fn share(&self, rows: usize, work: usize) -> usize {
        let tasks = (rows * work / WORTH_A_THREAD).clamp(1, self.threads);
        rows.div_ceil(tasks).max(1)
    }

    /// Runs `f` on each task.
    pub(super) fn each<T: Send>(&self, tasks: impl Iterator<Item = T>, f: impl Fn(T) + Sync) {
        #[cfg(not(target_arch = "wasm32"))]
        if let Some(rayon) = &self.rayon {
            use rayon::iter::{IndexedParallelIterator, IntoParallelIterator, ParallelIterator};
            let tasks: Vec<T> = tasks.collect();
            if tasks.len() > 1 {
                rayon.install(|| tasks.into_par_iter().with_max_len(1).for_each(&f));
            } else {
                tasks.into_iter().for_each(&f);
            }
            return;
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
