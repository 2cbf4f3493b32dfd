//! Batches that are drawn ahead.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::Scope;

use sixpack_formats::tokenizer::ByteTables;

use super::text_bytes;
use crate::engine::Sequences;
use crate::loader::{Loader, Position};

/// Draws the batches of a loader on a thread of its own, while others are learned from. The loader of a run stays where the
/// last batch that was taken ended: what is drawn and not taken does not count.
#[derive(Debug)]
pub(super) struct Ahead(Receiver<Drawn>);

/// A batch.
#[derive(Debug)]
pub(super) struct Drawn {
    pub(super) batch: Sequences,
    /// Bytes of text of the targets; 0 where the byte tables are not known.
    pub(super) bytes: u64,
    /// Where the loader is after it.
    pub(super) position: Position,
}

impl Ahead {
    /// Starts to draw batches of so many sequences over all ranks. The thread ends when this value does.
    pub(super) fn start<'scope, 'a: 'scope>(
        scope: &'scope Scope<'scope, '_>,
        mut loader: Loader<'a>,
        count: usize,
        tables: Option<ByteTables>,
    ) -> Self {
        // One is ready while the next is drawn.
        let (give, take) = sync_channel(1);
        scope.spawn(move || {
            loop {
                let batch = loader.next_batch(count);
                let bytes = tables.as_ref().map_or(0, |tables| text_bytes(tables, &batch));
                if give.send(Drawn { batch, bytes, position: loader.position() }).is_err() {
                    break;
                }
            }
        });
        Self(take)
    }

    /// The next batch.
    pub(super) fn take(&self) -> Drawn {
        self.0.recv().expect("the loader's thread goes on until nobody takes its batches")
    }
}
