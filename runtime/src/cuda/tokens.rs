//! The tokens that kernels read, in the GPU's memory.

use super::gpu::Gpu;
use super::memory::Buffer;
use crate::Result;

/// Inputs and targets of the last pass. Those of the same number go to the same memory, so that a recorded pass runs on
/// the tokens that were written last.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    inputs: Option<(Vec<u32>, Buffer)>,
    targets: Option<(Vec<u32>, Buffer)>,
    by_token: Option<[Buffer; 2]>,
}

impl Tokens {
    pub(super) fn inputs(&mut self, gpu: &Gpu, ids: &[u32]) -> Result<Buffer> {
        if self.inputs.as_ref().is_none_or(|(known, _)| known != ids) {
            self.by_token = None;
        }
        place(&mut self.inputs, gpu, ids)
    }

    pub(super) fn targets(&mut self, gpu: &Gpu, ids: &[u32]) -> Result<Buffer> {
        place(&mut self.targets, gpu, ids)
    }

    /// For the gradient of a table of `vocab` rows: where the positions of each token begin in the list of all positions
    /// by token, `[vocab + 1]`, and that list. Of the inputs of the last pass.
    pub(super) fn by_token(&mut self, gpu: &Gpu, vocab: usize) -> Result<[Buffer; 2]> {
        let (ids, _) = self.inputs.as_ref().expect("a pass has embedded its tokens");
        match &self.by_token {
            Some(kept) if kept[0].len() == vocab + 1 && kept[1].len() == ids.len() => Ok(kept.clone()),
            _ => {
                let [starts, order] = sorted(ids, vocab);
                let kept = [gpu.ints(&starts)?, gpu.ints(&order)?];
                Ok(self.by_token.insert(kept).clone())
            }
        }
    }

    /// Writes the tokens of the next pass where those of the last one were.
    pub(super) fn bring(&mut self, gpu: &Gpu, inputs: &[u32], targets: &[u32], vocab: usize) -> Result<()> {
        place(&mut self.inputs, gpu, inputs)?;
        place(&mut self.targets, gpu, targets)?;
        let [starts, order] = sorted(inputs, vocab);
        match &self.by_token {
            Some(kept) if kept[0].len() == starts.len() && kept[1].len() == order.len() => {
                gpu.write_ints(&kept[0], &starts)?;
                gpu.write_ints(&kept[1], &order)
            }
            _ => {
                self.by_token = Some([gpu.ints(&starts)?, gpu.ints(&order)?]);
                Ok(())
            }
        }
    }
}

/// Memory with these tokens: that of the last ones, if there were as many.
fn place(kept: &mut Option<(Vec<u32>, Buffer)>, gpu: &Gpu, ids: &[u32]) -> Result<Buffer> {
    match kept {
        Some((known, buffer)) if known == ids => Ok(buffer.clone()),
        Some((known, buffer)) if known.len() == ids.len() => {
            gpu.write_ints(buffer, ids)?;
            ids.clone_into(known);
            Ok(buffer.clone())
        }
        _ => Ok(kept.insert((ids.to_vec(), gpu.ints(ids)?)).1.clone()),
    }
}

/// Positions by token, by counting; a token's own stay in order.
fn sorted(ids: &[u32], vocab: usize) -> [Vec<u32>; 2] {
    let mut starts = vec![0_u32; vocab + 1];
    ids.iter().for_each(|&id| starts[id as usize + 1] += 1);
    for t in 0..vocab {
        starts[t + 1] += starts[t];
    }
    let (mut next, mut order) = (starts.clone(), vec![0; ids.len()]);
    for (position, &id) in ids.iter().enumerate() {
        order[next[id as usize] as usize] = position as u32;
        next[id as usize] += 1;
    }
    [starts, order]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_listed_by_token() {
        let [starts, order] = sorted(&[2, 0, 2, 3, 0, 2], 5);
        assert_eq!(starts, [0, 2, 2, 5, 6, 6]);
        assert_eq!(order, [1, 4, 0, 2, 5, 3]);
    }
}
