//! The operations of this rank that have no result yet.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::collective::Hear;
use crate::{Error, Result};

/// A result, or the rank that was lost and why.
pub(super) type Answer = Result<Arc<Vec<u8>>, (usize, String)>;

/// What is waited for, and by whom.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<State>);

#[derive(Default)]
struct State {
    /// Operations started.
    started: u64,
    lost: Option<(usize, String)>,
    open: BTreeMap<u64, Sender<Answer>>,
    /// Who is to hear of a loss.
    hear: Vec<Hear>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").field("started", &self.started).field("lost", &self.lost).finish_non_exhaustive()
    }
}

impl Waiting {
    /// Opens the next operation and sends this rank's part of it, so that parts go out in order.
    pub(super) fn open(&self, send: impl FnOnce(u64)) -> Result<Receiver<Answer>> {
        let mut state = self.state();
        if let Some((rank, reason)) = state.lost.clone() {
            return Err(Error::Lost { rank, reason });
        }
        let (answer, answered) = mpsc::channel();
        let number = state.started;
        state.started += 1;
        state.open.insert(number, answer);
        send(number);
        Ok(answered)
    }

    /// Gives an operation its result.
    pub(super) fn close(&self, number: u64, result: Arc<Vec<u8>>) {
        if let Some(answer) = self.state().open.remove(&number) {
            // Nobody waits where an error ended the work.
            let _ = answer.send(Ok(result));
        }
    }

    /// Ends all operations, those to come too. The first loss counts: others follow from it.
    pub(super) fn lose(&self, rank: usize, reason: &str) {
        let mut state = self.state();
        let lost = state.lost.get_or_insert_with(|| (rank, reason.to_owned())).clone();
        for answer in std::mem::take(&mut state.open).into_values() {
            let _ = answer.send(Err(lost.clone()));
        }
        let hear = std::mem::take(&mut state.hear);
        drop(state);
        hear.into_iter().for_each(|hear| hear(lost.0, &lost.1));
    }

    /// Has `hear` told of a loss: at once if there was one.
    pub(super) fn on_loss(&self, hear: Hear) {
        let mut state = self.state();
        match state.lost.clone() {
            None => state.hear.push(hear),
            Some((rank, reason)) => {
                drop(state);
                hear(rank, &reason);
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What it holds is whole between any two statements.
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Waits for an operation's result.
pub(super) fn wait(answered: &Receiver<Answer>) -> Result<Arc<Vec<u8>>> {
    match answered.recv() {
        Ok(Ok(result)) => Ok(result),
        Ok(Err((rank, reason))) => Err(Error::Lost { rank, reason }),
        Err(_) => unreachable!("operations are closed before they are dropped"),
    }
}
