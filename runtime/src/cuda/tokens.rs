//! The tokens that kernels read, in the GPU's memory.

use std::ops::Range;

use super::gpu::Gpu;
use super::memory::{Buffer, Kind};
use crate::Result;

/// Inputs and targets of the last pass. Those of the same number go to the same memory, so that a recorded pass runs on
/// the tokens that were written last.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    inputs: Option<(Vec<u32>, Buffer)>,
    targets: Option<(Vec<u32>, Buffer)>,
    by_token: Option<[Buffer; 2]>,
    /// All of them, where they come from a [`Feed`](super::Feed).
    whole: Option<Buffer>,
}

/// Where the tokens of a pass are among the words that a step brings; each begins at a multiple of 256 bytes.
pub(super) struct Sections {
    inputs: Range<usize>,
    targets: Range<usize>,
    starts: Range<usize>,
    order: Range<usize>,
}

impl Sections {
    /// Of so many inputs, each with a target, from a table of `vocab` rows.
    pub(super) fn of(tokens: usize, vocab: usize) -> Self {
        let mut end = 0_usize;
        let mut section = |len: usize| {
            let start = end.next_multiple_of(64);
            end = start + len;
            start..end
        };
        Self { inputs: section(tokens), targets: section(tokens), starts: section(vocab + 1), order: section(tokens) }
    }

    /// Words of all.
    pub(super) fn words(&self) -> usize {
        self.order.end.next_multiple_of(64)
    }

    /// Writes all that the pass reads.
    pub(super) fn write(&self, inputs: &[u32], targets: &[u32], to: &mut [u32]) {
        to[self.inputs.clone()].copy_from_slice(inputs);
        to[self.targets.clone()].copy_from_slice(targets);
        let (before, order) = to.split_at_mut(self.order.start);
        sort(inputs, &mut before[self.starts.clone()], &mut order[..inputs.len()]);
    }
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
                let (mut starts, mut order) = (vec![0; vocab + 1], vec![0; ids.len()]);
                sort(ids, &mut starts, &mut order);
                let kept = [gpu.ints(&starts)?, gpu.ints(&order)?];
                Ok(self.by_token.insert(kept).clone())
            }
        }
    }

    /// Takes the tokens of the next pass from what a step has brought: to where those of the last one were.
    pub(super) fn take(
        &mut self,
        gpu: &Gpu,
        [inputs, targets]: [&[u32]; 2],
        sections: &Sections,
        brought: &Buffer,
    ) -> Result<()> {
        let whole = match &self.whole {
            Some(whole) if whole.len() == brought.len() => whole,
            _ => self.whole.insert(gpu.empty(Kind::Int, brought.len())?),
        };
        gpu.copy(brought, whole)?;
        let part = |section: &Range<usize>| whole.part(section.clone());
        self.by_token = Some([part(&sections.starts), part(&sections.order)]);
        for (kept, ids, section) in
            [(&mut self.inputs, inputs, &sections.inputs), (&mut self.targets, targets, &sections.targets)]
        {
            let mut known = kept.take().map(|(known, _)| known).unwrap_or_default();
            ids.clone_into(&mut known);
            *kept = Some((known, part(section)));
        }
        Ok(())
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
fn sort(ids: &[u32], starts: &mut [u32], order: &mut [u32]) {
    starts.fill(0);
    ids.iter().for_each(|&id| starts[id as usize + 1] += 1);
    for t in 1..starts.len() {
        starts[t] += starts[t - 1];
    }
    let mut next = starts.to_vec();
    for (position, &id) in ids.iter().enumerate() {
        order[next[id as usize] as usize] = position as u32;
        next[id as usize] += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_listed_by_token() {
        let inputs = [2, 0, 2, 3, 0, 2];
        let sections = Sections::of(6, 5);
        let mut words = vec![9; sections.words()];
        sections.write(&inputs, &[1; 6], &mut words);
        assert_eq!(words[sections.inputs.clone()], inputs);
        assert_eq!(words[sections.targets.clone()], [1; 6]);
        assert_eq!(words[sections.starts.clone()], [0, 2, 2, 5, 6, 6]);
        assert_eq!(words[sections.order.clone()], [1, 4, 0, 2, 5, 3]);
    }
}
