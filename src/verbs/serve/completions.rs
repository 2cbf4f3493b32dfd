//! `/v1/completions`: from a request to its answer.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{FromRequest, Request, State};
use axum::http::{StatusCode, header};
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, StreamExt};
use serde::Serialize;
use tokio::sync::mpsc::{OwnedPermit, Receiver, channel};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout_at};

use super::answer::{Choice, Head};
use super::app::App;
use super::error::ApiError;
use super::request::{Completion, Prompt};
use super::run::{Event, Ids, Run};

/// Events that a client may be behind the run.
const AHEAD: usize = 64;

/// Answers a request.
pub(super) async fn complete(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let arrived = Instant::now();
    let deadline = app.deadline(arrived);
    // Before the server is asked whether it is about to end: it waits for all that it has not refused.
    let arrival = app.admission.arrive();
    app.takes_requests()?;
    let body = timeout_at(deadline, body(&app, request)).await.map_err(|_| ApiError::body_too_slow())??;
    let request = Completion::parse(&body, &app.limits)?;
    if request.model != app.model.name {
        return Err(ApiError::unknown_model(&request.model, &app.model.name));
    }
    let reader = Arc::clone(&app);
    let read = spawn_blocking(move || {
        let prompts: Result<Vec<Ids>, ApiError> = request.prompts.iter().map(|p| ids(&reader, p)).collect();
        prompts.map(|prompts| (request, prompts))
    });
    let (request, prompts) = read.await.map_err(ApiError::internal)??;
    let slot = app.admission.enter(deadline).await?;
    if let Some(reason) = app.failed() {
        return Err(ApiError::machine(reason));
    }
    let answering = Answering::new(&app, &request);
    // However far the client is behind, there is room for the last event.
    let (to, events) = channel(AHEAD + 1);
    let last = to.clone().try_reserve_owned().map_err(ApiError::internal)?;
    start(Run { app, request, prompts, arrived, to, slot }, last);
    drop(arrival);
    if answering.stream { Ok(answering.streamed(events)) } else { answering.whole(events).await }
}

/// Runs on a thread of its own. A run that breaks off says so: half an answer must not look like a whole one.
fn start(run: Run, last: OwnedPermit<Event>) {
    let running = spawn_blocking(move || run.run());
    tokio::spawn(async move {
        last.send(running.await.unwrap_or_else(|error| Event::Failed(ApiError::internal(error))));
    });
}

/// The body of a request, if it is one of JSON.
pub(super) async fn body(app: &App, request: Request) -> Result<Bytes, ApiError> {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    // A web page of another origin cannot send this without asking first.
    if !content_type.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
        return Err(ApiError::content_type());
    }
    Bytes::from_request(request, &()).await.map_err(|rejection| match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => ApiError::body_too_large(app.limits.max_body),
        _ => ApiError::body(rejection.body_text()),
    })
}

/// The tokens of a prompt. A text begins a document, as in `sixpack run`.
fn ids(app: &App, prompt: &Prompt) -> Result<Ids, ApiError> {
    let tokens = match prompt {
        Prompt::Ids(ids) => Ids { ids: ids.clone(), hidden: 0 },
        Prompt::Text(text) => {
            let mut ids: Vec<u32> = app.tokenizer.bos_id().into_iter().collect();
            let hidden = ids.len();
            ids.extend(app.tokenizer.encode(text));
            Ids { ids, hidden }
        }
    };
    let vocab = app.model.vocab_size;
    if let Some(id) = tokens.ids.iter().find(|&&id| id as usize >= vocab) {
        return Err(ApiError::field("prompt", format_args!("expected token ids below {vocab}, found {id}")));
    }
    if tokens.ids.is_empty() {
        return Err(ApiError::field("prompt", "expected at least one token, found none"));
    }
    let limit = app.limits.max_prompt_tokens;
    if tokens.ids.len() > limit {
        return Err(ApiError::too_much("prompt", "tokens", limit, tokens.ids.len()));
    }
    Ok(tokens)
}

/// How an answer is made from what the run tells.
struct Answering {
    head: Head,
    choices: usize,
    logprobs: bool,
    stream: bool,
    usage: bool,
}

impl Answering {
    fn new(app: &App, request: &Completion) -> Self {
        Self {
            head: Head::new(app),
            choices: request.prompts.len() * request.n,
            logprobs: request.logprobs.is_some(),
            stream: request.stream,
            usage: request.include_usage,
        }
    }

    /// Everything at once.
    async fn whole(self, mut events: Receiver<Event>) -> Result<Response, ApiError> {
        let mut choices: Vec<Choice> = (0..self.choices).map(Choice::new).collect();
        while let Some(event) = events.recv().await {
            match event {
                Event::Piece { index, piece, finish } => choices[index].add(piece, finish, self.logprobs),
                Event::Done(usage) => return Ok(Json(self.head.whole(choices, usage)).into_response()),
                Event::Failed(error) => return Err(error),
            }
        }
        Err(ApiError::internal("the run broke off"))
    }

    /// As it comes. Where the client leaves, the stream is dropped and with it the receiver, which the run sees.
    fn streamed(self, mut events: Receiver<Event>) -> Response {
        let events = stream::poll_fn(move |context| events.poll_recv(context));
        let lines = events.flat_map(move |event| stream::iter(self.lines(event)));
        Sse::new(lines.map(Ok::<_, Infallible>)).keep_alive(KeepAlive::default()).into_response()
    }

    /// What a client is sent for an event.
    fn lines(&self, event: Event) -> Vec<sse::Event> {
        match event {
            Event::Piece { index, piece, finish } => {
                let mut choice = Choice::new(index);
                choice.add(piece, finish, self.logprobs);
                vec![line(&self.head.chunk(choice, self.usage))]
            }
            Event::Done(usage) => {
                let usage = self.usage.then(|| line(&self.head.usage(usage)));
                usage.into_iter().chain([sse::Event::default().data("[DONE]")]).collect()
            }
            Event::Failed(error) => vec![line(&error.json())],
        }
    }
}

/// One event of a stream.
fn line(data: &impl Serialize) -> sse::Event {
    sse::Event::default().json_data(data).expect("answers are made of strings and numbers")
}
