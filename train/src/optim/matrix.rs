//! The optimizer of the matrix group: one of three rules, of which two orthogonalise.

use rayon::prelude::*;
use serde::Serialize;

use super::newton_schulz::NewtonSchulz;
use super::{AdamW, Muon, NorMuon, Now};
use crate::Result;

/// Which rule updates the matrices, and its settings.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Matrix {
    /// Muon, with or without row equalisation.
    Muon(Muon),
    /// Muon with a second moment.
    NorMuon(NorMuon),
    /// As the other groups.
    AdamW(AdamW),
}

impl Matrix {
    /// What the rule is called.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Muon(Muon { row_equalisation: true, .. }) => "MuonEq-R",
            Self::Muon(_) => "Muon",
            Self::NorMuon(_) => "NorMuon",
            Self::AdamW(_) => "AdamW",
        }
    }

    /// Learning rate before the schedule.
    pub fn lr(&self) -> f64 {
        match self {
            Self::Muon(Muon { lr, .. }) | Self::NorMuon(NorMuon { lr, .. }) | Self::AdamW(AdamW { lr, .. }) => *lr,
        }
    }

    /// Decoupled weight decay before the schedule.
    pub fn weight_decay(&self) -> f64 {
        match self {
            Self::Muon(Muon { weight_decay, .. })
            | Self::NorMuon(NorMuon { weight_decay, .. })
            | Self::AdamW(AdamW { weight_decay, .. }) => *weight_decay,
        }
    }

    /// The iterations, for a rule that orthogonalises.
    ///
    /// # Errors
    /// If its coefficients are not for as many iterations as it has.
    pub fn newton_schulz(&self) -> Result<Option<NewtonSchulz>> {
        let (coefficients, steps) = match self {
            Self::Muon(rule) => (rule.coefficients, rule.newton_schulz_steps),
            Self::NorMuon(rule) => (rule.coefficients, rule.newton_schulz_steps),
            Self::AdamW(_) => return Ok(None),
        };
        NewtonSchulz::new(coefficients, steps).map(Some)
    }
}

/// A matrix whose update is orthogonalised, with what its rule remembers.
pub(super) struct Member<'a> {
    pub(super) w: &'a mut [f32],
    pub(super) gradient: &'a [f32],
    pub(super) momentum: &'a mut [f32],
    /// NorMuon's second moment; nothing for Muon.
    pub(super) moment: &'a mut [f32],
}

impl Matrix {
    /// A step of all matrices of one shape, orthogonalised as one stack. Each matrix is one thread's at a time.
    pub(super) fn step(&self, by: &NewtonSchulz, mut members: Vec<Member<'_>>, shape: [usize; 2], now: Now) {
        let size = shape[0] * shape[1];
        let mut stack = vec![0.0; members.len() * size];
        let pairs = members.par_iter_mut().zip(stack.par_chunks_exact_mut(size));
        pairs.for_each(|(Member { gradient, momentum, .. }, update)| match self {
            Self::Muon(rule) => rule.direction(update, gradient, momentum, shape[1], now.momentum),
            Self::NorMuon(_) => NorMuon::direction(update, gradient, momentum, now.momentum),
            Self::AdamW(_) => unreachable!("AdamW orthogonalises nothing"),
        });
        by.orthogonalize(&mut stack, shape);
        let pairs = members.par_iter_mut().zip(stack.par_chunks_exact_mut(size));
        pairs.for_each(|(Member { w, moment, .. }, update)| match self {
            Self::Muon(rule) => rule.apply(w, update, shape, now),
            Self::NorMuon(rule) => rule.apply(w, update, moment, shape, now),
            Self::AdamW(_) => unreachable!("AdamW orthogonalises nothing"),
        });
    }
}
