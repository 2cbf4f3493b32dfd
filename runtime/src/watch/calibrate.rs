//! The inputs of every matrix product: what Hessians are made of.

use std::fmt;

use super::{Watch, Watched};
use crate::ops::{Ops, Site};

/// A decorator that shows the input of each `linear` before it is multiplied, the head's too.
pub type Calibrate<'a, O> = Watched<'a, O, Inputs<'a, <O as Ops>::Act>>;

/// Whoever looks at the inputs.
pub struct Inputs<'a, A> {
    see: &'a mut dyn FnMut(Site, &A),
}

impl<A> fmt::Debug for Inputs<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inputs")
    }
}

impl<O: Ops> Watch<O> for Inputs<'_, O::Act> {
    fn linear(&mut self, site: Site, x: &O::Act) {
        (self.see)(site, x);
    }
}

impl<'a, O: Ops> Watched<'a, O, Inputs<'a, O::Act>> {
    /// Runs on `inner` and shows `see` the input `[B, T, in]` of each matrix product.
    pub fn new(inner: &'a mut O, see: &'a mut dyn FnMut(Site, &O::Act)) -> Self {
        Self::with(inner, Inputs { see })
    }
}
