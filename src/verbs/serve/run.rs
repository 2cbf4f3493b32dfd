//! One request as it runs, on a thread of its own with an engine of its own.

use std::sync::Arc;

use sixpack_runtime::generate::{Limits, Listener, Wants};
use sixpack_runtime::{Engine, Sampler, Sampling, Scored, now};
use tokio::runtime::Handle;
use tokio::sync::SemaphorePermit;
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;
use tokio::time::{Instant, timeout_at};

use super::admission::Slot;
use super::answer::{Finish, Usage};
use super::app::App;
use super::assembly::{Assembly, Piece};
use super::error::ApiError;
use super::request::Completion;

/// What a run tells.
#[derive(Debug)]
pub(super) enum Event {
    /// More of a completion; with a reason to finish, the last of it.
    Piece { index: usize, piece: Piece, finish: Option<Finish> },
    /// All completions are finished.
    Done(Usage),
    /// It cannot go on.
    Failed(ApiError),
}

/// A prompt in tokens.
#[derive(Debug)]
pub(super) struct Ids {
    /// What the model reads.
    pub(super) ids: Vec<u32>,
    /// How many of them come before what the client gave: the beginning of a document.
    pub(super) hidden: usize,
}

/// A request that has its place.
pub(super) struct Run {
    pub(super) app: Arc<App>,
    pub(super) request: Completion,
    pub(super) prompts: Vec<Ids>,
    pub(super) arrived: Instant,
    pub(super) to: Sender<Event>,
    pub(super) slot: Slot,
}

/// Why a run ends early.
#[derive(Debug)]
enum End {
    /// The client has left.
    Gone,
    /// It took too long.
    Late,
    /// The server is shutting down.
    Shutdown,
    /// The machine failed.
    Failed(sixpack_runtime::Error),
}

impl From<sixpack_runtime::Error> for End {
    fn from(error: sixpack_runtime::Error) -> Self {
        Self::Failed(error)
    }
}

impl Run {
    /// Runs to the end and gives the last event; the place is free before the client is told.
    pub(super) fn run(self) -> Event {
        let metrics = &self.app.metrics;
        metrics.queue_seconds.observe(self.arrived.elapsed().as_secs_f64());
        let end = self.completions();
        metrics.request_seconds.observe(self.arrived.elapsed().as_secs_f64());
        let (how, event) = match end {
            Ok(usage) => ("done", Event::Done(usage)),
            Err(End::Gone) => ("client_left", Event::Done(Usage::default())),
            Err(End::Late) => ("timeout", Event::Failed(ApiError::late(self.app.limits.timeout))),
            Err(End::Shutdown) => ("shutdown", Event::Failed(ApiError::draining())),
            Err(End::Failed(error)) if error.is_of_gpu() => {
                ("failed", Event::Failed(ApiError::machine(&error.to_string())))
            }
            Err(End::Failed(error)) => ("failed", Event::Failed(ApiError::internal(error))),
        };
        metrics.ended(how);
        drop(self.slot);
        event
    }

    fn completions(&self) -> Result<Usage, End> {
        let mut engine = self.app.fork()?;
        let done = self.completions_on(&mut engine);
        let error = match &done {
            Err(End::Failed(error)) => Some(error),
            _ => None,
        };
        self.app.give_back(engine, error);
        done
    }

    fn completions_on(&self, engine: &mut Engine) -> Result<Usage, End> {
        let mut usage = Usage::default();
        let mut turn = None;
        for (i, prompt) in self.prompts.iter().enumerate() {
            usage.prompt_tokens += prompt.ids.len();
            self.app.metrics.prompt_tokens.inc_by(prompt.ids.len() as u64);
            for j in 0..self.request.n {
                let generated;
                (generated, turn) = self.completion(engine, prompt, (i * self.request.n + j, j), turn)?;
                usage.completion_tokens += generated;
            }
        }
        usage.total_tokens = usage.prompt_tokens + usage.completion_tokens;
        Ok(usage)
    }

    /// Waits until the client has taken so much that an event has room. A client that takes nothing at all loses its
    /// connection, and with it the channel closes.
    fn wait_to_send(&self, event: Event) -> Result<(), End> {
        Handle::current().block_on(async {
            tokio::select! {
                sent = timeout_at(self.app.deadline(self.arrived), self.to.send(event)) => match sent {
                    Ok(sent) => sent.map_err(|_| End::Gone),
                    Err(_) => Err(End::Late),
                },
                () = self.app.ended() => Err(End::Shutdown),
            }
        })
    }

    /// Continues `prompt` as completion `index`, the `j`th of its prompt. Gives the number of tokens, and the turn on.
    fn completion<'a>(
        &'a self,
        engine: &mut Engine,
        prompt: &'a Ids,
        (index, j): (usize, usize),
        turn: Option<SemaphorePermit<'a>>,
    ) -> Result<(usize, Option<SemaphorePermit<'a>>), End> {
        let (request, tokenizer) = (&self.request, &self.app.tokenizer);
        let stop: Vec<u32> = [tokenizer.bos_id(), tokenizer.eos_id()].into_iter().flatten().collect();
        let limits = Limits { max_tokens: request.max_tokens, context: self.app.model.context, stop: &stop };
        let seed = request.sampling.seed.wrapping_add(j as u64);
        let mut sampler = Sampler::new(Sampling { seed, ..request.sampling })?;
        let assembly = Assembly::new(tokenizer, &request.stop);
        let mut voice = Voice {
            run: self,
            prompt,
            index,
            assembly,
            scores: Some(Vec::new()),
            generated: 0,
            last: None,
            turn,
            end: None,
        };
        // The machine is the CPU or a GPU of this host: a thread may wait for it.
        if voice.next_turn() {
            now(engine.generate(&prompt.ids, &limits, &mut sampler, &mut voice))?;
        }
        voice.finish()
    }
}

/// Hears tokens, speaks pieces.
struct Voice<'a> {
    run: &'a Run,
    prompt: &'a Ids,
    index: usize,
    assembly: Assembly<'a>,
    /// Scores of the prompt, until the text begins.
    scores: Option<Vec<Scored>>,
    generated: usize,
    /// When the last token came.
    last: Option<Instant>,
    turn: Option<SemaphorePermit<'a>>,
    end: Option<End>,
}

impl<'a> Voice<'a> {
    /// Lets others compute, and says whether this run is to go on.
    fn next_turn(&mut self) -> bool {
        let Run { app, to, arrived, .. } = self.run;
        // Not held while the next one is waited for.
        self.turn = None;
        self.turn = Some(app.admission.turn());
        self.end = if to.is_closed() {
            Some(End::Gone)
        } else if app.is_ending() {
            Some(End::Shutdown)
        } else if Instant::now() >= app.deadline(*arrived) {
            Some(End::Late)
        } else {
            None
        };
        self.end.is_none()
    }

    /// The prompt has been read: it is said where it is to be echoed.
    fn begin(&mut self) {
        if let Some(scores) = self.scores.take()
            && self.run.request.echo
        {
            self.assembly.echo(&self.prompt.ids[self.prompt.hidden..], &scores);
        }
    }

    /// Gives the client more. Where it has not taken what was given before, others compute while it is waited for.
    fn say(&mut self, piece: Piece, finish: Option<Finish>) {
        if finish.is_none() && piece == Piece::default() {
            return;
        }
        let sent = match self.run.to.try_send(Event::Piece { index: self.index, piece, finish }) {
            Ok(()) => Ok(()),
            Err(TrySendError::Closed(_)) => Err(End::Gone),
            Err(TrySendError::Full(event)) => {
                self.turn = None;
                self.run.wait_to_send(event)
            }
        };
        self.end = sent.err();
    }

    fn finish(mut self) -> Result<(usize, Option<SemaphorePermit<'a>>), End> {
        if let Some(end) = self.end {
            return Err(end);
        }
        self.begin();
        let piece = self.assembly.finish();
        let whole = self.generated == self.run.request.max_tokens && !self.assembly.stopped();
        self.say(piece, Some(if whole { Finish::Length } else { Finish::Stop }));
        match self.end {
            Some(end) => Err(end),
            None => Ok((self.generated, self.turn)),
        }
    }
}

impl Listener for Voice<'_> {
    fn wants(&self) -> Wants {
        let Completion { logprobs, echo, .. } = self.run.request;
        Wants { cost: false, prompt: logprobs.filter(|_| echo), text: logprobs }
    }

    fn on_read(&mut self, scores: Vec<Scored>) -> bool {
        if let Some(all) = &mut self.scores {
            all.extend(scores);
        }
        self.next_turn()
    }

    fn on_token(&mut self, token: u32, score: Option<Scored>) -> bool {
        self.begin();
        let metrics = &self.run.app.metrics;
        let at = Instant::now();
        match self.last.replace(at) {
            Some(last) => metrics.token_seconds.observe((at - last).as_secs_f64()),
            None => metrics.first_token_seconds.observe((at - self.run.arrived).as_secs_f64()),
        }
        metrics.generated_tokens.inc();
        self.generated += 1;
        let go_on = self.assembly.push(token, score.as_ref());
        let piece = self.assembly.ready();
        self.say(piece, None);
        // The last token needs no turn after it.
        go_on && self.end.is_none() && (self.generated == self.run.request.max_tokens || self.next_turn())
    }
}
