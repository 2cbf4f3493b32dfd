//! The backward pass: what ran is written down, and gone through in reverse.
//!
//! candle's own `backward` adds every gradient to a tensor of zeros, and splits that addition over a pool of spinning
//! threads of its own, which a caller cannot size: about a third of a step's profile samples. Here a first gradient is
//! moved, further ones are added in place, and all stays on one thread.

use std::collections::HashMap;
use std::fmt;

use candle_core::{CpuStorage, CustomOp1, CustomOp2, CustomOp3, InplaceOp2, Layout, Result, Tensor, TensorId, bail};

use crate::vector::add;

/// By the tensors they are the gradients of.
type Gradients = HashMap<TensorId, Tensor>;

/// An operation with its arguments.
enum Call {
    One(Box<dyn CustomOp1>, Tensor),
    Two(Box<dyn CustomOp2>, [Tensor; 2]),
    Three(Box<dyn CustomOp3>, [Tensor; 3]),
}

/// Operations and their results in the order they ran, if they are written down.
#[derive(Default)]
pub(crate) struct Tape {
    calls: Option<Vec<(Call, Tensor)>>,
}

impl fmt::Debug for Tape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tape({:?} calls)", self.calls.as_ref().map(Vec::len))
    }
}

impl Tape {
    /// A tape that writes down.
    pub(crate) fn recording() -> Self {
        Self { calls: Some(Vec::new()) }
    }

    pub(crate) fn one(&mut self, x: &Tensor, op: impl CustomOp1 + 'static) -> Result<Tensor> {
        let y = x.apply_op1_no_bwd(&op)?;
        self.write(&y, || Call::One(Box::new(op), x.clone()));
        Ok(y)
    }

    pub(crate) fn two(&mut self, a: &Tensor, b: &Tensor, op: impl CustomOp2 + 'static) -> Result<Tensor> {
        let y = a.apply_op2_no_bwd(b, &op)?;
        self.write(&y, || Call::Two(Box::new(op), [a.clone(), b.clone()]));
        Ok(y)
    }

    pub(crate) fn three(&mut self, a: &Tensor, b: &Tensor, c: &Tensor, op: impl CustomOp3 + 'static) -> Result<Tensor> {
        let y = a.apply_op3_no_bwd(b, c, &op)?;
        self.write(&y, || Call::Three(Box::new(op), [a.clone(), b.clone(), c.clone()]));
        Ok(y)
    }

    fn write(&mut self, result: &Tensor, call: impl FnOnce() -> Call) {
        if let Some(calls) = &mut self.calls {
            calls.push((call(), result.clone()));
        }
    }

    /// Gradients of every tensor that `output` was computed from and that no recorded call made: the leaves.
    /// `gradient` is that of `output`. Memory is given back as the tape is gone through.
    pub(crate) fn backward(self, output: &Tensor, gradient: Tensor) -> Result<Gradients> {
        self.backward_watched(output, gradient, &mut |_, _| Ok(()))
    }

    /// [`Tape::backward`]; `see` is told the gradient of each result, by its tensor's id, once it is complete.
    pub(crate) fn backward_watched(
        self,
        output: &Tensor,
        gradient: Tensor,
        see: &mut dyn FnMut(TensorId, &Tensor) -> Result<()>,
    ) -> Result<Gradients> {
        self.walk(output, gradient, see, &mut |_, _| Ok(()))
    }

    /// [`Tape::backward`], which gives away the gradient of each of these leaves once it is complete, and says at once
    /// which have none.
    pub(crate) fn backward_by_leaf(
        self,
        output: &Tensor,
        gradient: Tensor,
        leaves: impl Iterator<Item = TensorId>,
        give: &mut dyn FnMut(TensorId, Option<Tensor>) -> Result<()>,
    ) -> Result<()> {
        let mut uses: HashMap<TensorId, usize> = leaves.map(|id| (id, 0)).collect();
        for argument in self.calls.iter().flatten().flat_map(|(call, _)| call.arguments()) {
            uses.entry(argument.id()).and_modify(|uses| *uses += 1);
        }
        for (&id, _) in uses.iter().filter(|&(_, &uses)| uses == 0) {
            give(id, None)?;
        }
        let mut done = |call: &Call, gradients: &mut Gradients| {
            for argument in call.arguments() {
                let Some(uses) = uses.get_mut(&argument.id()) else { continue };
                *uses -= 1;
                if *uses == 0 {
                    give(argument.id(), gradients.remove(&argument.id()))?;
                }
            }
            Ok(())
        };
        self.walk(output, gradient, &mut |_, _| Ok(()), &mut done).map(drop)
    }

    /// Goes through the calls in reverse; `done` is told each with the gradients there are after it.
    fn walk(
        self,
        output: &Tensor,
        gradient: Tensor,
        see: &mut dyn FnMut(TensorId, &Tensor) -> Result<()>,
        done: &mut dyn FnMut(&Call, &mut Gradients) -> Result<()>,
    ) -> Result<Gradients> {
        let Some(mut calls) = self.calls else { bail!("backward of operations that were not recorded") };
        let mut gradients = HashMap::from([(output.id(), gradient)]);
        while let Some((call, result)) = calls.pop() {
            if let Some(g) = gradients.remove(&result.id()) {
                see(result.id(), &g)?;
                call.backward(&result, &g, &mut gradients)?;
            }
            done(&call, &mut gradients)?;
        }
        Ok(gradients)
    }
}

impl Call {
    fn arguments(&self) -> &[Tensor] {
        match self {
            Self::One(_, x) => std::slice::from_ref(x),
            Self::Two(_, arguments) => arguments,
            Self::Three(_, arguments) => arguments,
        }
    }

    /// Adds the gradients of the arguments, given that of the result.
    fn backward(&self, result: &Tensor, g: &Tensor, gradients: &mut Gradients) -> Result<()> {
        match self {
            Self::One(op, x) => accumulate(gradients, x, op.bwd(x, result, g)?),
            Self::Two(op, [a, b]) => {
                let (da, db) = op.bwd(a, b, result, g)?;
                accumulate(gradients, a, da)?;
                accumulate(gradients, b, db)
            }
            Self::Three(op, [a, b, c]) => {
                let (da, db, dc) = op.bwd(a, b, c, result, g)?;
                accumulate(gradients, a, da)?;
                accumulate(gradients, b, db)?;
                accumulate(gradients, c, dc)
            }
        }
    }
}

/// Adds a gradient to what there is. Every op returns tensors of its own, or passes on the one it was given, which
/// nothing else holds any more: they may be written to.
fn accumulate(gradients: &mut Gradients, of: &Tensor, gradient: Option<Tensor>) -> Result<()> {
    let Some(gradient) = gradient else { return Ok(()) };
    match gradients.get(&of.id()) {
        Some(sum) => sum.inplace_op2(&gradient, &AddInPlace),
        None => {
            gradients.insert(of.id(), gradient);
            Ok(())
        }
    }
}

struct AddInPlace;

impl InplaceOp2 for AddInPlace {
    fn name(&self) -> &'static str {
        "add_in_place"
    }

    fn cpu_fwd(&self, sum: &mut CpuStorage, layout: &Layout, x: &CpuStorage, x_layout: &Layout) -> Result<()> {
        let x = super::ops::values(x, x_layout)?;
        match (sum, layout.contiguous_offsets()) {
            (CpuStorage::F32(sum), Some((start, end))) if end - start == x.len() => {
                add(&mut sum[start..end], x);
                Ok(())
            }
            _ => bail!("expected two contiguous gradients of {} values", x.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use candle_core::{Device, Shape};

    use super::*;

    /// `x · w`, element by element, that notes when it goes backward.
    struct Noted(&'static str, Arc<Mutex<Vec<String>>>);

    impl CustomOp2 for Noted {
        fn name(&self) -> &'static str {
            self.0
        }

        fn cpu_fwd(&self, x: &CpuStorage, xl: &Layout, w: &CpuStorage, wl: &Layout) -> Result<(CpuStorage, Shape)> {
            let (x, w) = (crate::ops::values(x, xl)?, crate::ops::values(w, wl)?);
            Ok((CpuStorage::F32(x.iter().zip(w).map(|(x, w)| x * w).collect()), xl.shape().clone()))
        }

        fn bwd(&self, x: &Tensor, w: &Tensor, _: &Tensor, g: &Tensor) -> Result<(Option<Tensor>, Option<Tensor>)> {
            self.1.lock().unwrap().push(format!("back through {}", self.0));
            Ok((Some((w * g)?), Some((x * g)?)))
        }
    }

    #[test]
    fn leaves_are_given_away_after_their_first_use_and_before_what_came_earlier() {
        let notes = Arc::new(Mutex::new(Vec::new()));
        let leaf = |x: f32| Tensor::new(&[x], &Device::Cpu).unwrap();
        let leaves = [("x", leaf(2.0)), ("shared", leaf(3.0)), ("late", leaf(5.0)), ("unused", leaf(7.0))];
        let [x, shared, late, _] = leaves.each_ref().map(|(_, tensor)| tensor);
        let mut tape = Tape::recording();
        let noted = |name| Noted(name, Arc::clone(&notes));
        let first = tape.two(x, shared, noted("first")).unwrap();
        let second = tape.two(&first, late, noted("second")).unwrap();
        let third = tape.two(&second, shared, noted("third")).unwrap();
        let ids = leaves.iter().map(|(_, tensor)| tensor.id());
        let mut give = |id, gradient: Option<Tensor>| {
            let (name, _) = leaves.iter().find(|(_, tensor)| tensor.id() == id).unwrap();
            let gradient = gradient.map(|g| g.to_vec1::<f32>().unwrap());
            notes.lock().unwrap().push(format!("{name}: {gradient:?}"));
            Ok(())
        };
        tape.backward_by_leaf(&third, leaf(1.0), ids, &mut give).unwrap();
        let mut notes = notes.lock().unwrap();
        // x · shared · late · shared.
        assert_eq!(notes[0], "unused: None");
        assert_eq!(
            notes[1..5],
            ["back through third", "back through second", "late: Some([18.0])", "back through first"]
        );
        // Those of one call come in the order of its arguments.
        assert_eq!(notes.split_off(5), ["x: Some([45.0])", "shared: Some([60.0])"]);
    }
}
