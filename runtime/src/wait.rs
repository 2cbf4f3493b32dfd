//! Waiting: for a machine, where a thread may, and for others, who have a turn.

use std::future::poll_fn;
use std::task::Poll;

/// Runs `future` to its end on this thread: a machine on the CPU is ready at once, a GPU is waited for.
///
/// Not for a GPU in a browser: its values arrive only while the event loop runs, which this would stop.
pub fn now<F: IntoFuture>(future: F) -> F::Output {
    pollster::block_on(future)
}

/// Waits once for whoever runs this: an event loop can hear what happened meanwhile, [`now`] goes on at once.
pub async fn turn() {
    let mut waited = false;
    poll_fn(|context| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Waker};

    use super::*;

    #[test]
    fn a_turn_is_one_wait() {
        let mut context = Context::from_waker(Waker::noop());
        let mut turns = pin!(async {
            turn().await;
            turn().await;
            7
        });
        assert_eq!(turns.as_mut().poll(&mut context), Poll::Pending);
        assert_eq!(turns.as_mut().poll(&mut context), Poll::Pending);
        assert_eq!(turns.as_mut().poll(&mut context), Poll::Ready(7));
        now(turn());
    }
}
