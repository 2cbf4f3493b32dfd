//! NCCL's stream and the GPU's own wait for each other where they must, and a wait that is missing is found. On a communicator of
//! one rank; each mistake on a GPU of its own, as work that fails leaves it of no use.

use std::sync::Arc;
use std::time::Duration;

use sixpack_runtime::Result;
use sixpack_runtime::cuda::{Buffer, Communicator, Event, Gpu, Kind, Settings, unique_id};

/// A GPU, a communicator on it, memory to add up, and an event.
struct Things {
    gpu: Arc<Gpu>,
    communicator: Communicator,
    x: Buffer,
    ready: Event,
}

impl Things {
    fn on(device: usize) -> Self {
        let gpu = Gpu::open(device, Settings::default()).unwrap().apart();
        let communicator = Communicator::start(&gpu, &unique_id().unwrap(), 0, 1).unwrap();
        communicator.ready(Duration::from_secs(60)).unwrap();
        let (x, ready) = (gpu.floats(Kind::F32, &[1.0, 2.0]).unwrap(), gpu.event().unwrap());
        Self { gpu, communicator, x, ready }
    }

    fn sum(&self) -> Result<()> {
        self.communicator.sum(&self.ready, std::slice::from_ref(&self.x))
    }
}

/// What goes wrong, on this GPU.
fn wrong(device: usize, f: impl FnOnce(&Things) -> Result<()>) -> String {
    f(&Things::on(device)).unwrap_err().to_string()
}

/// Devices from here on are not those on which other mistakes are made.
const FIRST: usize = 28;

pub(crate) fn waits() {
    let right = Things::on(FIRST);
    let recorded = |marked_first: bool, on: &Things| {
        on.gpu.record(|| {
            if marked_first {
                on.gpu.mark_for_others(&on.ready)?;
            }
            on.gpu.zero(&on.x)?;
            if marked_first { Ok(()) } else { on.gpu.mark_for_others(&on.ready) }
        })
    };
    right.gpu.mark(&right.ready).unwrap();
    right.sum().unwrap();
    right.communicator.wait().unwrap();
    assert_eq!(right.gpu.read(&right.x).unwrap(), [1.0, 2.0]);
    // An event in a graph is one of each replay.
    let graph = recorded(false, &right).unwrap();
    for _ in 0..3 {
        right.gpu.replay(&graph).unwrap();
        right.sum().unwrap();
        right.communicator.wait().unwrap();
    }
    assert_eq!(right.gpu.read(&right.x).unwrap(), [0.0, 0.0]);
    right.communicator.to_abort().abort("rank 3 was lost");
    let error = loop {
        match right.communicator.wait() {
            Ok(()) => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => break error.to_string(),
        }
    };
    assert_eq!(error, "NCCL: rank 3 was lost");
    assert_eq!(right.sum().unwrap_err().to_string(), error);

    let writes = "memory that another stream writes, and neither waits for the other";
    let too_early = wrong(FIRST + 1, |on| {
        on.gpu.mark(&on.ready)?;
        on.gpu.zero(&on.x)?;
        on.sum()
    });
    assert!(too_early.contains(writes), "{too_early}");
    let not_waited_for = wrong(FIRST + 2, |on| {
        on.gpu.mark(&on.ready)?;
        on.sum()?;
        on.gpu.zero(&on.x)
    });
    assert!(not_waited_for.contains(writes), "{not_waited_for}");
    let marked_too_early_in_a_graph = wrong(FIRST + 3, |on| {
        on.gpu.replay(&recorded(true, on)?)?;
        on.sum()
    });
    assert!(marked_too_early_in_a_graph.contains(writes), "{marked_too_early_in_a_graph}");
}
