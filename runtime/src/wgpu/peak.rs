//! What a GPU can do at most, measured: the yardstick of its benches.

use super::Wgpu;
use super::kernel::{Access, Kernel, params, wgsl};
use crate::Result;
use crate::clock::Clock;

params! {
    /// As in `peak.wgsl`.
    Params { rounds: u32 }
}

pub(super) static KERNEL: Kernel = Kernel::new::<Params>("peak", wgsl!("peak.wgsl"), &[Access::Write]);

/// Measured peaks of a GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Peak {
    /// 10⁹ multiplications and additions of f32 a second.
    pub gflops: f64,
    /// 10⁹ bytes a second that a copy within its memory reads and writes.
    pub gigabytes: f64,
}

/// Invocations of a run.
const INVOCATIONS: usize = 1 << 18;

/// Multiplications and additions of a round.
const FLOPS: f64 = 64.0;

/// Bytes of a copy.
const BYTES: u64 = 32 << 20;

/// Seconds that are enough to measure.
const ENOUGH: f64 = 0.05;

impl Wgpu {
    /// Measures what this GPU can do at most.
    ///
    /// # Errors
    /// Those of the GPU.
    pub async fn peak(&mut self) -> Result<Peak> {
        let y = self.act(1, INVOCATIONS, 1);
        let flops = |rounds: u32| f64::from(rounds) * FLOPS * INVOCATIONS as f64;
        let mut rounds = 4;
        let gflops = loop {
            let clock = Clock::start();
            let groups = (INVOCATIONS / 256) as u32;
            self.queue.dispatch(&KERNEL, &Params { rounds }, vec![y.all()], [groups, 1, 1]);
            self.settle().await?;
            let seconds = clock.seconds();
            if seconds > ENOUGH || rounds > 1 << 16 {
                break flops(rounds) / seconds / 1e9;
            }
            rounds *= 2;
        };
        let [from, to] = [(); 2].map(|()| self.take(BYTES));
        let mut copies = 1;
        let gigabytes = loop {
            let clock = Clock::start();
            (0..copies).for_each(|_| self.queue.copy((from.buffer(), 0), (to.buffer(), 0), BYTES));
            self.settle().await?;
            let seconds = clock.seconds();
            if seconds > ENOUGH || copies > 1 << 12 {
                break 2.0 * f64::from(copies) * BYTES as f64 / seconds / 1e9;
            }
            copies *= 2;
        };
        Ok(Peak { gflops, gigabytes })
    }
}
