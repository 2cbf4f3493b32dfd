//! Threads that wait for the next job of a step awake: a step of one token is a hundred jobs of a few microseconds, and
//! waking a thread that sleeps takes as long as a job.
#![cfg(not(target_arch = "wasm32"))]
#![allow(unsafe_code, reason = "a job borrows from the caller's stack")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a thread without a job stays awake: longer than what one thread does alone between two jobs of a step, short
/// enough to cost nothing when the model waits for its user.
const AWAKE: Duration = Duration::from_micros(100);

/// Looks at the clock once in so many looks for a job.
const LOOKS: usize = 64;

type Job<'a> = &'a (dyn Fn() + Sync + 'a);

/// Threads beside the caller's.
#[derive(Debug)]
pub(super) struct Team {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    /// The running job: a [`Job`] on its caller's stack, or null.
    job: AtomicPtr<Job<'static>>,
    /// Threads that may be looking at the job.
    inside: AtomicUsize,
    /// Jobs so far.
    number: AtomicUsize,
    asleep: AtomicUsize,
    sleep: Mutex<()>,
    wake: Condvar,
    panicked: AtomicBool,
    over: AtomicBool,
}

impl Team {
    /// So many threads.
    pub(super) fn new(threads: usize) -> std::io::Result<Self> {
        let mut team = Self { shared: Arc::default(), threads: Vec::new() };
        for i in 1..=threads {
            let shared = Arc::clone(&team.shared);
            let builder = std::thread::Builder::new().name(format!("sixpack {i}"));
            team.threads.push(builder.spawn(move || shared.work())?);
        }
        Ok(team)
    }

    /// Runs `job` on the calling thread, and at the same time on those of the others that are awake before it ends.
    ///
    /// # Panics
    /// If the job does, on any thread. Callers on several threads at once, and jobs that call this, get one thread each.
    pub(super) fn run(&self, job: Job<'_>) {
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. Nobody uses the job after `Running` is dropped, which is before this returns
        // or unwinds.
        let mut job: Job<'static> = unsafe { std::mem::transmute::<Job<'_>, Job<'static>>(job) };
        if shared.job.compare_exchange(std::ptr::null_mut(), &raw mut job, SeqCst, SeqCst).is_err() {
            return job();
        }
        let running = Running(shared);
        // One that panicked beside a caller that did is forgotten.
        shared.panicked.store(false, SeqCst);
        shared.number.fetch_add(1, SeqCst);
        if shared.asleep.load(SeqCst) > 0 {
            drop(shared.sleep.lock());
            shared.wake.notify_all();
        }
        job();
        drop(running);
        assert!(!shared.panicked.swap(false, SeqCst), "a thread of the pool panicked");
    }
}

/// A job others can see. Dropping it takes it away and waits until nobody looks at it.
struct Running<'a>(&'a Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.job.store(std::ptr::null_mut(), SeqCst);
        let mut looks = 0;
        while self.0.inside.load(SeqCst) > 0 {
            looks += 1;
            // The system may have taken the core from the thread that is waited for.
            if looks < 16 * LOOKS { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
    }
}

impl Shared {
    /// The life of a thread.
    fn work(&self) {
        let mut done = 0;
        while let Some(number) = self.wait(done) {
            done = number;
            // Inside first, then the look: whoever takes the job away after that sees this thread inside.
            self.inside.fetch_add(1, SeqCst);
            let job = self.job.load(SeqCst);
            if !job.is_null() {
                // SAFETY: the caller keeps the job until it has taken it away and nobody is inside.
                let job = unsafe { *job };
                if catch_unwind(AssertUnwindSafe(job)).is_err() {
                    self.panicked.store(true, SeqCst);
                }
            }
            self.inside.fetch_sub(1, SeqCst);
        }
    }

    /// Waits for a job after number `done`, at first awake; none when the team is dissolved.
    fn wait(&self, done: usize) -> Option<usize> {
        let since = Instant::now();
        loop {
            for _ in 0..LOOKS {
                let number = self.number.load(SeqCst);
                if self.over.load(SeqCst) {
                    return None;
                }
                if number != done {
                    return Some(number);
                }
                std::hint::spin_loop();
            }
            if since.elapsed() > AWAKE {
                let mut guard = self.sleep.lock().expect("nobody panics with it");
                self.asleep.fetch_add(1, SeqCst);
                while self.number.load(SeqCst) == done && !self.over.load(SeqCst) {
                    guard = self.wake.wait(guard).expect("nobody panics with it");
                }
                self.asleep.fetch_sub(1, SeqCst);
            }
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.over.store(true, SeqCst);
        drop(self.shared.sleep.lock());
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            // A panic was told to the caller of the job.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_is_done_once_awake_or_asleep() {
        let team = Team::new(3).unwrap();
        for round in 0..2000 {
            let (next, sum) = (AtomicUsize::new(0), AtomicUsize::new(0));
            team.run(&|| {
                while let task @ 0..40 = next.fetch_add(1, SeqCst) {
                    sum.fetch_add(task, SeqCst);
                }
            });
            assert_eq!(sum.into_inner(), 780, "round {round}");
            if round % 500 == 0 {
                std::thread::sleep(2 * AWAKE);
            }
        }
    }

    #[test]
    fn a_panic_is_passed_on_and_the_team_goes_on() {
        let team = Team::new(1).unwrap();
        let here = std::thread::current().id();
        for _ in 0..20 {
            let seen = AtomicUsize::new(0);
            let run = || {
                team.run(&|| {
                    seen.fetch_add(1, SeqCst);
                    // The caller waits for the other thread, which panics.
                    while std::thread::current().id() == here && seen.load(SeqCst) < 2 {
                        std::thread::yield_now();
                    }
                    assert_eq!(std::thread::current().id(), here, "on purpose");
                });
            };
            assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
        }
        team.run(&|| ());
    }

    #[test]
    fn jobs_within_jobs_run_alone() {
        let team = Team::new(1).unwrap();
        let count = AtomicUsize::new(0);
        team.run(&|| {
            team.run(&|| {
                count.fetch_add(1, SeqCst);
            });
        });
        assert!((1..=2).contains(&count.into_inner()));
    }
}
