//! What a recipe means, in numbers: the text of `recipe show`.

use std::collections::BTreeMap;
use std::fmt::Write;

use sixpack_formats::{ModelConfig, OptimizerGroup, TensorId};
use sixpack_runtime::count::{matmul_parameters, parameters, training_flops};

use crate::optim::{Coefficients, Matrix, fit};
use crate::recipe::Recipe;
use crate::schedule::{Progress, Schedule, When};

impl Recipe {
    /// The model's size, the arithmetic and memory of a step, the schedules at several points, and who updates what.
    pub fn explain(&self) -> String {
        let mut text = String::new();
        let mut line = |head: &str, body: String| {
            let _ = writeln!(text, "{head:<12}{body}");
        };
        let (model, recurs) = (&self.model, !self.model.recur_layers.is_empty());
        line("recipe", format!("`{}`, seed {}", self.name, self.seed));
        line(
            "parameters",
            format!(
                "{}; a token is multiplied by {}",
                count(parameters(model)),
                self.each(recurs, count, |r| matmul_parameters(model, r))
            ),
        );
        line("layers", self.each(recurs, |v| format!("{v:?}"), |r| model.virtual_layers(r)));
        let (sequences, len) = (self.sequences_per_step(), model.train_seq_len);
        let tokens = self.batch.tokens_per_step as u64;
        line(
            "step",
            format!(
                "{} tokens: {sequences} sequences of {len}, {} at once on each thread",
                count(tokens),
                self.batch.micro_batch
            ),
        );
        line(
            "arithmetic",
            format!(
                "{} per token, {} per step, attention scores not counted",
                self.each(recurs, flops, |r| training_flops(model, r, 1)),
                self.each(recurs, flops, |r| training_flops(model, r, tokens))
            ),
        );
        line("memory", self.memory());
        line("budget", self.budget_text());
        line("lr", format!("× {}", points(&self.schedule.lr)));
        if !matches!(self.optimizer.matrix, Matrix::AdamW(_)) {
            line("momentum", points(&self.schedule.momentum));
        }
        line("decay", format!("× {}", points(&self.schedule.weight_decay)));
        if recurs {
            line(
                "recurrence",
                match self.schedule.recurrence {
                    When::Step(step) => format!("of layers {:?} from step {step}", model.recur_layers),
                    When::Fraction(f) => format!("of layers {:?} from {}% of the run", model.recur_layers, percent(f)),
                },
            );
        }
        line(
            "data",
            format!(
                "blocks of {} shards a batch, drawn by blocks left to the power {}",
                ends(&self.data.shards),
                ends(&self.data.alpha)
            ),
        );
        line(
            "clip, EMA",
            format!(
                "gradients to a norm of {}; average of weights by {} a step",
                self.optimizer.grad_clip, self.optimizer.ema_decay
            ),
        );
        line("matrices", self.matrices_text());
        line("optimizers", String::new());
        self.groups_text(&mut text);
        text
    }

    /// A value without recurrence and, if there is any, with it.
    fn each<T>(&self, recurs: bool, show: impl Fn(T) -> String, value: impl Fn(bool) -> T) -> String {
        let plain = show(value(false));
        if recurs { format!("{plain} ({} with recurrence)", show(value(true))) } else { plain }
    }

    /// Bytes of the CPU engine: what stays, and what each thread adds.
    fn memory(&self) -> String {
        let model = &self.model;
        let all = parameters(model);
        // Weights here and in the engine, average, gradients, and two buffers of AdamW's; Muon remembers one and has
        // another while it stacks updates (NorMuon's second moment is small).
        let kept = 6 * all;
        let tokens = (self.batch.micro_batch.min(self.sequences_per_step()) * model.train_seq_len) as u64;
        // A thread's own gradients twice while they are handed over, and its activations.
        let thread = tokens.saturating_mul(activations(model)).saturating_add(2 * all);
        format!("about {} and {} for each thread on the CPU", bytes(4 * kept), bytes(thread.saturating_mul(4)))
    }

    fn budget_text(&self) -> String {
        let tokens = |steps: u64| count(steps.saturating_mul(self.batch.tokens_per_step as u64));
        let steps = self.budget.steps.map(|steps| format!("{} steps, {} tokens", count(steps), tokens(steps)));
        let time = self.budget.seconds.map(|seconds| match self.budget.reserve_seconds {
            0.0 => format!("{seconds} s"),
            reserve => format!("{seconds} s, of which {reserve} s are kept back"),
        });
        steps.into_iter().chain(time).collect::<Vec<_>>().join(" or ")
    }

    /// What sets the rule of the matrices apart, beside its rate and its decay.
    fn matrices_text(&self) -> String {
        let (steps, coefficients, cautious) = match self.optimizer.matrix {
            Matrix::Muon(rule) => (rule.newton_schulz_steps, rule.coefficients, rule.cautious),
            Matrix::NorMuon(rule) => (rule.newton_schulz_steps, rule.coefficients, rule.cautious),
            Matrix::AdamW(rule) => return format!("AdamW with betas {:?}, eps {}", rule.betas, rule.eps),
        };
        let coefficients = match coefficients {
            Coefficients::Constant => "constant coefficients".to_owned(),
            Coefficients::PolarExpress => "coefficients of Polar Express".to_owned(),
            Coefficients::Fitted => {
                let fit = fit::minimax(steps);
                let error = (1e4 * fit.error).ceil() / 1e4;
                format!("coefficients fitted to bring values from {:.4} on to 1 ± {error}", fit.lower)
            }
        };
        let beta2 = match self.optimizer.matrix {
            Matrix::NorMuon(rule) => format!(", beta2 {}", rule.beta2),
            Matrix::Muon(_) | Matrix::AdamW(_) => String::new(),
        };
        let decay = if cautious { ", cautious decay" } else { "" };
        let name = self.optimizer.matrix.name();
        format!("{name} by {steps} Newton–Schulz steps, {coefficients}{beta2}{decay}")
    }

    /// One line for each kind of tensor: the layer's number stands as `*`.
    fn groups_text(&self, text: &mut String) {
        let mut kinds: Vec<(String, OptimizerGroup)> = Vec::new();
        let mut sums: BTreeMap<String, (usize, usize)> = BTreeMap::new();
        for spec in self.model.tensors() {
            let name = spec.name();
            let kind = match spec.id {
                TensorId::Block(layer, _) => name.replacen(&format!(".{layer}."), ".*.", 1),
                TensorId::ValueLayerScale(j) => name.replacen(&format!(".{j}"), ".*", 1),
                _ => name,
            };
            if !sums.contains_key(&kind) {
                kinds.push((kind.clone(), spec.group));
            }
            let sum = sums.entry(kind).or_default();
            *sum = (sum.0 + 1, sum.1 + spec.elements());
        }
        kinds.sort_by_key(|(_, group)| *group);
        for (kind, group) in kinds {
            let (tensors, elements) = sums[&kind];
            let o = &self.optimizer;
            let (rule, lr, decay) = match group {
                OptimizerGroup::Matrix => {
                    (format!("matrix, {}", o.matrix.name()), o.matrix.lr(), o.matrix.weight_decay())
                }
                OptimizerGroup::Token => ("token, AdamW".to_owned(), o.token.lr, o.token.weight_decay),
                OptimizerGroup::Scalar => ("scalar, AdamW".to_owned(), o.scalar.lr, o.scalar.weight_decay),
            };
            let elements = count(elements as u64);
            let _ = writeln!(text, "  {rule:<17} lr {lr:<6} decay {decay:<5} {tensors:>3} × {kind:<28}{elements:>12}");
        }
    }
}

/// Values that a token leaves behind for the backward pass, in all layers and the head.
fn activations(model: &ModelConfig) -> u64 {
    let layers = model.virtual_layers(true).len();
    // Of width d: mix, norm, query twice, attention twice, projection, sum, norm, MLP, sum; of the keys' width: key
    // twice, value. The head keeps its logits and makes their gradient.
    (layers * (11 * model.model_dim + 3 * model.kv_dim() + model.mlp_hidden()) + 2 * model.vocab_size) as u64
}

/// A schedule at several points.
fn points(schedule: &Schedule) -> String {
    if let [point] = schedule.points[..] {
        return format!("{}", point.value);
    }
    let last = match schedule.points.last().map(|p| p.at) {
        Some(When::Step(step)) => Some(step),
        _ => None,
    };
    let at = |share: f64| match last {
        Some(last) => {
            let step = (last as f64 * share).round() as u64;
            (Progress { step, fraction: 0.0 }, format!("step {step}"))
        }
        None => (Progress { step: 0, fraction: share }, format!("{}%", percent(share))),
    };
    let show = |share| {
        let (now, when) = at(share);
        let value = (schedule.value(now) * 1e4).round() / 1e4;
        format!("{value} at {when}")
    };
    [0.0, 0.25, 0.5, 0.75, 0.9, 1.0].map(show).join(", ")
}

/// The first and the last value of a schedule.
fn ends(schedule: &Schedule) -> String {
    match schedule.points[..] {
        [only] => format!("{}", only.value),
        [first, .., last] => format!("{} to {}", first.value, last.value),
        [] => String::new(),
    }
}

fn percent(fraction: f64) -> f64 {
    (fraction * 1e3).round() / 10.0
}

/// `34401371` as `34,401,371`.
fn count(n: u64) -> String {
    let digits = n.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(|c| String::from_utf8_lossy(c)).collect();
    groups.join(",")
}

fn flops(n: f64) -> String {
    let (size, unit) = if n >= 1e12 {
        (1e12, "TFLOP")
    } else if n >= 1e9 {
        (1e9, "GFLOP")
    } else {
        (1e6, "MFLOP")
    };
    format!("{:.3} {unit}", n / size)
}

fn bytes(n: u64) -> String {
    if n >= 1_000_000_000 { format!("{:.1} GB", n as f64 / 1e9) } else { format!("{:.0} MB", n as f64 / 1e6) }
}
