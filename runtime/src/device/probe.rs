//! How fast a machine decodes.

use sixpack_formats::ModelConfig;

use crate::clock::Clock;
use crate::ops::Remember;
use crate::session::Session;
use crate::{Error, Result, Sampler, Sampling, Weights};

/// Tokens before the clock starts: caches and clocks of a GPU warm up.
const WARM: usize = 3;

/// Tokens that are timed, at most.
const TIMED: usize = 32;

/// Seconds that are enough.
const ENOUGH: f64 = 0.1;

/// Tokens a second that the machine generates, one after another.
///
/// # Errors
/// Those of the machine.
pub(super) async fn speed<O>(config: &ModelConfig, weights: &Weights<O::Weight>, ops: &mut O) -> Result<f64>
where
    O: Remember,
    Error: From<O::Error>,
{
    let mut sampler = Sampler::new(Sampling::default())?;
    let mut session = Session::new(config, weights, ops, 1 + WARM + TIMED);
    // One token: a software adapter needs seconds to read more of a large model.
    session.prefill(&[0]).await?;
    for _ in 0..WARM {
        let token = session.sample(&mut sampler).await?;
        session.step(token)?;
    }
    let (clock, mut tokens) = (Clock::start(), 0);
    while tokens < TIMED && (tokens == 0 || clock.seconds() < ENOUGH) {
        let token = session.sample(&mut sampler).await?;
        session.step(token)?;
        tokens += 1;
    }
    // What was asked for last is still on its way.
    session.logits().await?;
    Ok(tokens as f64 / clock.seconds().max(1e-9))
}
