//! The optimizers, of all tensors at once.

use std::collections::BTreeMap;
use std::ops::Range;

use sixpack_formats::{OptimizerGroup, TensorSpec};
use sixpack_runtime::cuda::{Buffer, Direction, Elsewhere, Feed, Gpu, Group, Kind, Moments, Product, Recorded, Stack};

use super::layout::Layout;
use super::learner::{Rules, Tensors};
use super::ranks::Bucket;
use crate::loader::Rank;
use crate::optim::shard::owners;
use crate::optim::{AdamW, Groups, Matrix, NewtonSchulz, Now};
use crate::{Collective, Error, Result};

/// Factors of a group or a stack that change from step to step.
const FACTORS: usize = 4;

/// The optimizers' state, and how they go on.
#[derive(Debug)]
pub(super) struct Update {
    groups: Groups,
    newton_schulz: Option<NewtonSchulz>,
    storage: Kind,
    steps: u64,
    /// Momentum of matrices, and the mean of gradients of all else.
    first: Buffer,
    /// The mean of their squares; of matrices only where AdamW has them.
    second: Buffer,
    /// NorMuon's moments, a stack after the other.
    moments: Vec<Buffer>,
    /// The factor on gradients, and their norm before it.
    clip: Buffer,
    /// Factors that change: those of tables, of control tensors, then of each stack.
    now: Buffer,
    /// What brings those.
    feed: Feed,
    /// Whether a step was queued: kernels are loaded, memory is there.
    ran: bool,
    /// Up to where ranks give each other matrices, and what follows.
    recorded: [Option<Recorded>; 2],
    /// What this rank does of the stacks, where ranks share them.
    shares: Option<Shares>,
}

/// The part of each stack that a rank goes through.
#[derive(Debug)]
struct Shares {
    rank: Rank,
    /// Of each stack the first matrix, how many, and where they are among gradients.
    mine: Vec<(usize, usize, Elsewhere)>,
    /// Weights that each rank updates.
    of_ranks: Vec<Bucket>,
}

impl Update {
    pub(super) fn new(gpu: &Gpu, storage: Kind, groups: Groups, layout: &Layout) -> Result<Self> {
        let newton_schulz = groups.matrix.newton_schulz()?;
        let moments = layout.stacks.iter().map(|(stack, _)| {
            let side = if matches!(groups.matrix, Matrix::NorMuon(_)) { stack.rows.max(stack.cols) } else { 0 };
            gpu.zeros(Kind::F32, stack.count * side)
        });
        Ok(Self {
            newton_schulz,
            storage,
            steps: 0,
            first: gpu.zeros(Kind::F32, layout.len())?,
            second: gpu.zeros(Kind::F32, layout.len())?,
            moments: moments.collect::<Result<_, _>>()?,
            clip: gpu.zeros(Kind::F32, 2)?,
            now: gpu.zeros(Kind::F32, (2 + layout.stacks.len()) * FACTORS)?,
            feed: Feed::new(gpu, Kind::F32)?,
            ran: false,
            recorded: [None, None],
            shares: None,
            groups,
        })
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    /// Each tensor's buffers, as the CPU's optimizers name them, and where they are.
    fn places(&self, layout: &Layout) -> Vec<(String, Buffer)> {
        let adamw = ["mean", "square"];
        let mut found = Vec::new();
        for (id, place) in layout.places() {
            let orthogonalised =
                place.group == OptimizerGroup::Matrix && !matches!(self.groups.matrix, Matrix::AdamW(_));
            let [first, second] = if orthogonalised { ["momentum", ""] } else { adamw };
            found.push((format!("{first}.{id}"), self.first.part(place.range.clone())));
            if !second.is_empty() {
                found.push((format!("{second}.{id}"), self.second.part(place.range.clone())));
            }
            let stacks = layout.stacks.iter().zip(&self.moments);
            let own = stacks.into_iter().find(|((_, range), _)| range.contains(&place.range.start));
            if let (Some(((stack, range), moments)), Matrix::NorMuon(_)) = (own, &self.groups.matrix) {
                let (side, number) =
                    (stack.rows.max(stack.cols), (place.range.start - range.start) / place.range.len());
                found.push((format!("moment.{id}"), moments.part(number * side..(number + 1) * side)));
            }
        }
        found
    }

    pub(super) fn buffers(&self, gpu: &Gpu, layout: &Layout) -> Result<BTreeMap<String, Vec<f32>>> {
        self.places(layout).into_iter().map(|(name, at)| Ok((name, gpu.read(&at)?))).collect()
    }

    pub(super) fn restore(
        &mut self,
        gpu: &Gpu,
        layout: &Layout,
        steps: u64,
        mut take: impl FnMut(&str) -> Option<Vec<f32>>,
    ) -> Result<()> {
        for (name, at) in self.places(layout) {
            let found = take(&name).ok_or_else(|| Error::MissingTensor(name.clone()))?;
            if found.len() != at.len() {
                return Err(Error::TensorLength { name, expected: at.len(), found: found.len() });
            }
            gpu.write(&at, &found)?;
        }
        self.steps = steps;
        Ok(())
    }

    /// Where the norm of the gradients of the last step is, before they were clipped.
    pub(super) fn grad_norm(&self) -> Buffer {
        self.clip.part(1..2)
    }

    /// Whether this rank goes through a part of each stack only.
    pub(super) fn is_shared(&self) -> bool {
        self.shares.is_some() || matches!(self.groups.matrix, Matrix::AdamW(_))
    }

    /// From now on goes through this rank's part of each stack only.
    pub(super) fn share(
        &mut self,
        gpu: &Gpu,
        layout: &Layout,
        tensors: &Tensors,
        table: &[TensorSpec],
        rank: Rank,
    ) -> Result<()> {
        let owners = owners(table, &self.groups.matrix, rank.world);
        let mut mine = Vec::new();
        let mut of_ranks = vec![Bucket { parts: Vec::new(), ready: None }; rank.world];
        for (stack, range) in &layout.stacks {
            let (members, starts) = (layout.members(range), layout.starts(range));
            let size = stack.rows * stack.cols;
            for (owner, bucket) in of_ranks.iter_mut().enumerate() {
                // They follow each other.
                let first = members.iter().position(|id| owners[id] == owner).unwrap_or(0);
                let count = members.iter().filter(|id| owners[id] == owner).count();
                if count > 0 {
                    let at = range.start + first * size;
                    bucket.parts.push(tensors.weights.part(at..at + count * size));
                }
                if owner == rank.rank {
                    mine.push((first, count, Elsewhere::new(gpu, &starts[first..first + count], size)?));
                }
            }
        }
        self.shares = Some(Shares { rank, mine, of_ranks });
        (self.ran, self.recorded) = (false, [None, None]);
        Ok(())
    }

    /// Queues a step by the gradients there are, of all ranks with the same.
    pub(super) fn step(
        &mut self,
        (gpu, rules): (&Gpu, Rules),
        layout: &Layout,
        tensors: &Tensors,
        now: Now,
        all: &dyn Collective<Bucket>,
    ) -> Result<()> {
        self.steps += 1;
        let factors = self.factors(layout, now);
        let brought = self.feed.bring(factors.len(), |to| {
            to.iter_mut().zip(&factors).for_each(|(to, factor)| *to = factor.to_bits());
            Ok(())
        })?;
        gpu.copy(&brought, &self.now)?;
        let mut recorded = std::mem::take(&mut self.recorded);
        let run = |recorded: &mut Option<Recorded>, queue: &dyn Fn() -> sixpack_runtime::Result<()>| {
            if let Some(recorded) = recorded {
                return gpu.replay(recorded);
            }
            // The first time loads kernels and takes memory; the second is written down.
            if !self.ran || !gpu.settings().reuse {
                return queue();
            }
            gpu.replay(recorded.insert(gpu.record(queue)?))
        };
        run(&mut recorded[0], &|| self.queue(gpu, layout, tensors, rules))?;
        if let Some(shares) = &self.shares {
            assert_eq!(shares.rank, all.rank(), "the ranks that shared the stacks");
            all.gather(shares.of_ranks.clone())?.wait()?;
            run(&mut recorded[1], &|| follow(gpu, layout, tensors, rules))?;
        }
        (self.recorded, self.ran) = (recorded, true);
        Ok(())
    }

    /// What changes from step to step, of tables, of control tensors, then of each stack.
    fn factors(&self, layout: &Layout, now: Now) -> Vec<f32> {
        let adamw = |rule: &AdamW| {
            let lr = rule.lr * f64::from(now.lr_scale);
            let correct = |beta: f64| 1.0 - beta.powf(self.steps as f64);
            let keep = 1.0 - lr * rule.weight_decay * f64::from(now.decay_scale);
            [(lr / correct(rule.betas[0])) as f32, (1.0 / correct(rule.betas[1]).sqrt()) as f32, keep as f32, 0.0]
        };
        let stack = |stack: &Stack| {
            let lr = self.groups.matrix.lr() * f64::from(now.lr_scale);
            // NorMuon's decay is of the rate with the shape's factor in it.
            let rate = match &self.groups.matrix {
                Matrix::AdamW(rule) => return adamw(rule),
                Matrix::Muon(_) => lr,
                Matrix::NorMuon(_) => lr * crate::optim::height([stack.rows, stack.cols]),
            };
            let keep = 1.0 - rate * self.groups.matrix.weight_decay() * f64::from(now.decay_scale);
            [now.momentum, lr as f32, keep as f32, 0.0]
        };
        let tables = [adamw(&self.groups.token), adamw(&self.groups.scalar)];
        tables.into_iter().chain(layout.stacks.iter().map(|(s, _)| stack(s))).flatten().collect()
    }

    fn queue(&self, gpu: &Gpu, layout: &Layout, tensors: &Tensors, rules: Rules) -> sixpack_runtime::Result<()> {
        gpu.clip(&tensors.gradients, rules.grad_clip as f32, &self.clip)?;
        let now = |which: usize| self.now.part(which * FACTORS..(which + 1) * FACTORS);
        let [_, tables, controls] = &layout.groups;
        let shadow = Some(tensors.read.part(tables.clone()));
        self.adamw(gpu, &Group { shadow, ..self.group(tensors, tables) }, tables, &self.groups.token, &now(0))?;
        self.adamw(gpu, &self.group(tensors, controls), controls, &self.groups.scalar, &now(1))?;
        for (i, (stack, range)) in layout.stacks.iter().enumerate() {
            let whole = (0, stack.count, tensors.elsewhere[i].clone());
            let (first, count, elsewhere) = self.shares.as_ref().map_or(whole, |shares| shares.mine[i].clone());
            if count == 0 {
                continue;
            }
            let (stack, size) = (Stack { count, ..*stack }, stack.rows * stack.cols);
            let range = range.start + first * size..range.start + (first + count) * size;
            let group = Group {
                gradients: tensors.gradients.clone(),
                shadow: Some(tensors.read.clone()),
                elsewhere: Some(elsewhere),
                ..self.group(tensors, &range)
            };
            let side = self.moments[i].len() / layout.stacks[i].0.count;
            let moments = self.moments[i].part(first * side..(first + count) * side);
            match &self.groups.matrix {
                Matrix::AdamW(rule) => self.adamw(gpu, &group, &range, rule, &now(2 + i))?,
                _ => self.stack(gpu, &group, (stack, &range), &moments, &now(2 + i))?,
            }
        }
        match &self.shares {
            Some(_) => Ok(()),
            None => gpu.ema(&tensors.average, &tensors.weights, rules.ema_decay as f32),
        }
    }

    /// Tensors that lie alike among weights and gradients, and are read as they are.
    fn group(&self, tensors: &Tensors, range: &Range<usize>) -> Group {
        let part = |all: &Buffer| all.part(range.clone());
        let (weights, gradients) = (part(&tensors.weights), part(&tensors.gradients));
        Group { weights, gradients, shadow: None, elsewhere: None, clip: self.clip.clone() }
    }

    fn adamw(
        &self,
        gpu: &Gpu,
        group: &Group,
        range: &Range<usize>,
        rule: &AdamW,
        now: &Buffer,
    ) -> sixpack_runtime::Result<()> {
        let part = |all: &Buffer| all.part(range.clone());
        let by = Moments { keep: rule.betas.map(|beta| beta as f32), eps: rule.eps as f32 };
        gpu.adamw(group, [&part(&self.first), &part(&self.second)], now, by)
    }

    fn stack(
        &self,
        gpu: &Gpu,
        group: &Group,
        (stack, range): (Stack, &Range<usize>),
        moments: &Buffer,
        now: &Buffer,
    ) -> sixpack_runtime::Result<()> {
        let direction = match &self.groups.matrix {
            Matrix::Muon(rule) => Direction { averaged: false, equal: rule.row_equalisation },
            _ => Direction { averaged: true, equal: false },
        };
        let update = gpu.empty(self.storage, stack.elements())?;
        gpu.muon_direction(group, &self.first.part(range.clone()), now, direction, &update, stack)?;
        let by = self.newton_schulz.as_ref().expect("made for a rule that orthogonalises");
        let update = orthogonalize(gpu, by, update, stack)?;
        let (factors, cautious) = match &self.groups.matrix {
            Matrix::NorMuon(rule) => {
                (Some(gpu.normuon_factors(&update, moments, rule.beta2 as f32, stack)?), rule.cautious)
            }
            Matrix::Muon(rule) => (None, rule.cautious),
            Matrix::AdamW(_) => unreachable!("AdamW has no stacks"),
        };
        let height = crate::optim::height([stack.rows, stack.cols]) as f32;
        gpu.muon_apply(group, (&update, factors.as_ref()), now, (height, cautious), stack)
    }
}

/// What follows when all ranks have all matrices: passes are to read them, and they enter the average.
fn follow(gpu: &Gpu, layout: &Layout, tensors: &Tensors, rules: Rules) -> sixpack_runtime::Result<()> {
    for ((_, range), elsewhere) in layout.stacks.iter().zip(&tensors.elsewhere) {
        gpu.convert(&tensors.weights.part(range.clone()), Some(elsewhere), &tensors.read)?;
    }
    gpu.ema(&tensors.average, &tensors.weights, rules.ema_decay as f32)
}

/// Brings the singular values of each matrix of a stack close to 1.
fn orthogonalize(gpu: &Gpu, by: &NewtonSchulz, mut x: Buffer, stack: Stack) -> sixpack_runtime::Result<Buffer> {
    let (scale, epsilon) = by.scale();
    gpu.muon_normalize(&x, [scale as f32, epsilon as f32], stack)?;
    let Stack { count, rows, cols } = stack;
    let (side, tall) = (rows.min(cols), rows > cols);
    let room = |elements: usize| gpu.empty(x.kind(), elements);
    let (gram, polynomial, mut next) =
        (room(count * side * side)?, room(count * side * side)?, room(stack.elements())?);
    for &[a, b, c] in by.triples() {
        // A = XᵀX or XXᵀ, whichever is smaller; bA + cA²; aX + X(bA + cA²).
        let (turned, inner) = if tall { (0, rows) } else { (1, cols) };
        let sizes = [count, side, side, inner];
        gpu.stacked(Product { of: [&x, &x], turned: Some(turned), factor: 1.0, plus: None, sizes }, &gram)?;
        let (plus, sizes) = (Some((&gram, b)), [count, side, side, side]);
        gpu.stacked(Product { of: [&gram, &gram], turned: None, factor: c, plus, sizes }, &polynomial)?;
        let of = if tall { [&x, &polynomial] } else { [&polynomial, &x] };
        let (plus, sizes) = (Some((&x, a)), [count, rows, cols, side]);
        gpu.stacked(Product { of, turned: None, factor: 1.0, plus, sizes }, &next)?;
        std::mem::swap(&mut x, &mut next);
    }
    Ok(x)
}
