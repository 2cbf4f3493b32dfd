//! Waiting for a machine, where a thread may.

/// Runs `future` to its end on this thread: a machine on the CPU is ready at once, a GPU is waited for.
///
/// Not for a GPU in a browser: its values arrive only while the event loop runs, which this would stop.
pub fn now<F: IntoFuture>(future: F) -> F::Output {
    pollster::block_on(future)
}
