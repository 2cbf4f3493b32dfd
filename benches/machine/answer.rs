//! What the plain interpreter answers: asked of a machine by the very calls that are timed, before they are.

use sixpack_formats::{Model, ModelConfig};
use sixpack_runtime::cpu::Reference;
use sixpack_runtime::model::nll;
use sixpack_runtime::{Batch, Error, Pass, Remember, Sampler, Sampling, Session, Weights, forward, now};

/// Tokens after a prompt that are checked.
const CHECKED: usize = 4;

/// What a window's tokens cost, in nats: the one after each of `ids`, all but the last.
pub(crate) fn window(model: &Model, ids: &[u32]) -> Vec<f64> {
    let mut plain = Reference::new();
    let weights = plain.load(model);
    let (inputs, targets) = (&ids[..ids.len() - 1], &ids[1..]);
    let batch = Batch { ids: inputs, sequences: 1, context: inputs.len() };
    let nll = forward(&model.config, &weights, &mut plain, &batch, Pass::FULL)
        .and_then(|h| nll(&model.config, &weights, &mut plain, &h, targets))
        .expect("tokens of the vocabulary");
    nll.data.into_iter().map(f64::from).collect()
}

/// A text that is read in a session: a prompt at once, the rest token by token.
pub(crate) struct Answer {
    ids: Vec<u32>,
    prompt: usize,
    /// Tokens there is room for, on which rotations depend.
    context: usize,
    /// What each token of the prompt but the first costs, in nats.
    nll: Vec<f32>,
    /// Logits after the prompt, twice, and after each token that follows it.
    logits: Vec<Vec<f32>>,
}

impl Answer {
    /// The plain interpreter's for the first `prompt` of `ids` and a few after them, in a session of `context` tokens.
    pub(crate) fn new(model: &Model, ids: &[u32], prompt: usize, context: usize) -> Self {
        let mut plain = Reference::new();
        let weights = plain.load(model);
        let ids = ids[..prompt + CHECKED].to_vec();
        let mut answer = Self { ids, prompt, context, nll: Vec::new(), logits: Vec::new() };
        (answer.nll, answer.logits) = answer.of(&model.config, &weights, &mut plain);
        answer
    }

    /// How far a machine is off, in nats and in logits; its choice of a token must be that of the host.
    pub(crate) fn difference<O: Remember<Error = Error>>(
        &self,
        config: &ModelConfig,
        weights: &Weights<O::Weight>,
        ops: &mut O,
    ) -> f32 {
        let (nll, logits) = self.of(config, weights, ops);
        assert_eq!((nll.len(), logits.len()), (self.nll.len(), self.logits.len()));
        let found = nll.iter().chain(logits.iter().flatten());
        let expected = self.nll.iter().chain(self.logits.iter().flatten());
        // Not a number is as far off as can be.
        let off = |(f, e): (&f32, &f32)| if f.is_finite() { (f - e).abs() } else { f32::INFINITY };
        found.zip(expected).map(off).fold(0.0, f32::max)
    }

    fn of<O: Remember<Error = Error>>(
        &self,
        config: &ModelConfig,
        weights: &Weights<O::Weight>,
        ops: &mut O,
    ) -> (Vec<f32>, Vec<Vec<f32>>) {
        let mut session = Session::new(config, weights, ops, self.context);
        let [mut sampler, mut hosts] = [(); 2].map(|()| Sampler::new(Sampling::default()).expect("sane options"));
        let (prompt, rest) = self.ids.split_at(self.prompt);
        let nll = now(session.read(prompt)).expect("room");
        let scored = now(session.logits()).expect("logits");
        // As prompts are read that nobody wants scored, which is what is timed.
        session.restart();
        session.feed(prompt).expect("room");
        let mut choose = |session: &mut Session<'_, O>| {
            let token = now(session.sample(&mut sampler)).expect("logits");
            let logits = now(session.logits()).expect("logits");
            assert_eq!(token, hosts.sample(&logits).expect("logits"), "the host chooses another token");
            logits
        };
        let mut logits = vec![scored, choose(&mut session)];
        for &id in rest {
            session.step(id).expect("room");
            logits.push(choose(&mut session));
        }
        (nll, logits)
    }
}
