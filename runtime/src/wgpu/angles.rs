//! Cosines and sines of the rotation, computed by the host in f64: a GPU's own lose digits at large angles.

use super::machine::Machine;
use super::queue::Slice;
use crate::ops::Rope;

/// The table of the rotation that was asked for last.
#[derive(Debug, Default)]
pub(super) struct Angles {
    table: Option<(Rope, usize, wgpu::Buffer)>,
}

impl Angles {
    /// Cosine and sine of each position below `positions` and each pair, `[positions, dims/2, 2]`.
    pub(super) fn of(&mut self, machine: &Machine, rope: Rope, positions: usize) -> Slice {
        match &self.table {
            Some((known, enough, buffer)) if *known == rope && *enough >= positions => Slice::whole(buffer),
            _ => {
                // A growing sequence asks for one more each time.
                let positions = positions.next_power_of_two().max(64);
                let buffer = table(machine, rope, positions);
                let slice = Slice::whole(&buffer);
                self.table = Some((rope, positions, buffer));
                slice
            }
        }
    }
}

fn table(machine: &Machine, rope: Rope, positions: usize) -> wgpu::Buffer {
    let half = rope.dims / 2;
    let frequencies: Vec<f64> = (0..half).map(|i| rope.base.powf(-2.0 * i as f64 / rope.dims as f64)).collect();
    let angle = |position: usize| frequencies.iter().map(move |f| position as f64 * f);
    let values: Vec<[f32; 2]> = (0..positions).flat_map(angle).map(|a| [a.cos() as f32, a.sin() as f32]).collect();
    let buffer = machine.device.create_buffer(&wgpu::BufferDescriptor {
        label: Some("angles"),
        size: (8 * values.len() as u64).max(8),
        usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_DST,
        mapped_at_creation: false,
    });
    machine.queue.write_buffer(&buffer, 0, bytemuck::cast_slice(&values));
    buffer
}
