//! Independent pieces of work: this crate makes them, the caller says where they run.

/// A piece of work that needs no other one.
pub type Job<'a> = Box<dyn FnOnce() + Send + 'a>;

/// Runs every job of a list, in any order or all at once, and returns when the last one is done.
pub type Run<'r> = dyn Fn(Vec<Job<'_>>) + 'r;

/// Runs the jobs one after another.
pub fn one_by_one(jobs: Vec<Job<'_>>) {
    jobs.into_iter().for_each(|job| job());
}

/// `f` of each item, in the order of the items.
pub(super) fn map<T: Send, R: Send>(items: Vec<T>, f: impl Fn(T) -> R + Sync, run: &Run<'_>) -> Vec<R> {
    let mut results: Vec<Option<R>> = Vec::new();
    results.resize_with(items.len(), || None);
    let jobs = items.into_iter().zip(&mut results).map(|(item, slot)| job(item, slot, &f)).collect();
    run(jobs);
    results.into_iter().map(|result| result.expect("`run` runs every job")).collect()
}

fn job<'a, T: Send + 'a, R: Send>(item: T, slot: &'a mut Option<R>, f: &'a (impl Fn(T) -> R + Sync)) -> Job<'a> {
    Box::new(move || *slot = Some(f(item)))
}
