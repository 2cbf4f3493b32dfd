//! Work that lets the event loop have its turns.
//!
//! A future that asks to be polled again at once would be, by a promise's job, before any message is read. Here it waits
//! for a promise of JavaScript's that takes a whole turn, so that "stop" can be heard.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use js_sys::{Function, Promise};
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::JsFuture;

/// Whether the future was woken, and whom that wakes.
#[derive(Default)]
struct Bell {
    rung: AtomicBool,
    outer: Mutex<Option<Waker>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung.store(true, Ordering::Relaxed);
        if let Some(outer) = self.outer.lock().ok().and_then(|mut outer| outer.take()) {
            outer.wake();
        }
    }
}

/// Runs `future` to its end; `turn` gives a promise of the event loop's next turn.
///
/// # Errors
/// What `turn` throws.
pub(crate) async fn in_turns<F: Future>(turn: &Function, future: F) -> Result<F::Output, JsValue> {
    let bell = Arc::new(Bell::default());
    let waker = Waker::from(Arc::clone(&bell));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Ok(output);
        }
        if !bell.rung.load(Ordering::Relaxed) {
            poll_fn(|context| {
                if bell.rung.load(Ordering::Relaxed) {
                    return Poll::Ready(());
                }
                if let Ok(mut outer) = bell.outer.lock() {
                    *outer = Some(context.waker().clone());
                }
                Poll::Pending
            })
            .await;
        } else {
            JsFuture::from(Promise::resolve(&turn.call0(&JsValue::NULL)?)).await?;
        }
        bell.rung.store(false, Ordering::Relaxed);
    }
}
