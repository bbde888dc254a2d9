//! Texts to vectors, and documents to scores by a query: what a model answers at once and whole.
//!
//! It goes the way of a chat as far as the stages are the same. The route's prompt filters see every text; its compose and format hooks
//! and its reply filters have no part in it, since there is neither a conversation nor a reply in words.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Semaphore;
use tollgate_domain::{
    ChatRequest, Content, Context, FinishReason, Message, Origin, Parameters, Refusal, RefusalKind, Role, Share, Shares, Usage,
};
use tollgate_models::{
    EmbedError, EmbedJob, EmbedWork, Embedded, EmbeddingEngine, GenerateError, Lease, Task, Ticket, operation,
};
use tollgate_plugins::Hook;

use crate::chain::Screened;
use crate::record::{End, Record};
use crate::reply::{PATIENCE, retired_refusal};
use crate::stages::{self, SHORT_MESSAGES, SHORT_PROMPT, internal};
use crate::turn::{Answering, Failure, Place, Turn, generate_failure, submit_failure};
use crate::{Route, Session, trace};

/// Bytes that a number of an answer takes, as it is and as it is written.
const BYTES_OF_NUMBER: u64 = 16;

/// What is asked of a model that embeds or ranks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbedRequest {
    /// The model's name as the client gave it; empty where it names none.
    pub model: String,
    /// What the model gets.
    pub input: EmbedInput,
    /// How many numbers a vector has to have, if the client says. It is never shortened: another number than the model's is refused.
    pub dimensions: Option<u32>,
}

/// What a model that embeds or ranks gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EmbedInput {
    /// Texts that get a vector each; at least one, and none empty.
    Texts(Vec<String>),
    /// Documents that get a score each; at least one, and none empty.
    Rank {
        /// What they are held to; not empty.
        query: String,
        /// The documents.
        documents: Vec<String>,
    },
}

/// What came of it.
#[derive(Debug)]
pub struct EmbedReply {
    /// Vectors of length 1 for texts, scores for documents, in their order.
    pub embedded: Embedded,
    /// Tokens of all texts; a query counts once for each document. What the model puts around a text is not counted.
    pub usage: Usage,
    /// The id of the model that answered.
    pub model: String,
    /// SHA-256 of its artifact, 64 hex digits.
    pub model_digest: String,
    /// Its id, where it answered in the place of the one that was meant.
    pub fallback: Option<String>,
    /// How long the stages took, as the value of a `Server-Timing` header.
    pub server_timing: String,
    /// What the answer takes of the memory for requests, to be held until it is sent.
    pub memory: Share,
}

/// A request on its way: its texts in a row, of which the first is the query where documents are ranked.
struct Asked {
    model: String,
    texts: Vec<String>,
    task: Task,
    dimensions: Option<u32>,
}

/// What every model is given that is tried. The body's memory is held as long.
struct Work {
    texts: Arc<Vec<String>>,
    task: Task,
    dimensions: Option<u32>,
    memory: Arc<Option<Share>>,
    /// Of which the answer's memory is taken.
    bodies: Arc<Shares>,
    tenant: String,
}

impl Asked {
    fn new(request: EmbedRequest, model: String) -> Self {
        let (texts, task) = match request.input {
            EmbedInput::Texts(texts) => (texts, Task::Embed),
            EmbedInput::Rank { query, mut documents } => {
                documents.insert(0, query);
                (documents, Task::Rerank)
            }
        };
        Asked { model, texts, task, dimensions: request.dimensions }
    }
}

pub(crate) async fn run(mut session: Session, request: EmbedRequest, dialect: &'static str) -> Result<EmbedReply, Refusal> {
    // authorize
    let name = stages::asked_model(&session, &request.model)?;
    let asked = Asked::new(request, name);
    let generation = session.generation.clone();
    let (route, model) = stages::choose(&generation, &session.principal, (dialect, asked.model.as_str()), asked.task)?;

    // admit
    let span = trace::embed(&session.ids.span, operation(asked.task), model.id());
    let stage = trace::stage(&span, "admit");
    let _permit = stages::admit(route)?;
    let deadline = Instant::now() + model.deadline();
    let ids = (&session.ids.request_id, session.principal.tenant.as_str());
    let mut turn = Turn::new(&generation, model, ids, deadline, false);
    let place = turn.place().await?;
    session.chain.settle(route, &session.principal.tenant)?;
    let answering = place.answering();
    let ctx = stages::context(&session, route, answering.id(), deadline, (dialect, false));
    let mut record = stages::record(&session, route, &answering, span);
    session.timings.lap("admit");
    drop(stage);

    // screen, encode, embed
    let made = make(&mut session, (route, &ctx), (&mut turn, place), &mut record, asked).await;
    let (embedded, answering, memory) = made.inspect_err(|refusal| {
        record.end = Some(End::failed(refusal));
    })?;
    record.end = Some(End::Finished(FinishReason::Stop));
    session.timings.lap("embed");
    Ok(EmbedReply {
        embedded,
        usage: record.usage,
        model: answering.id().to_owned(),
        model_digest: answering.digest().to_owned(),
        fallback: turn.fallback().map(str::to_owned),
        server_timing: session.timings.header(),
        memory,
    })
}

/// The stages between admission and the answer.
async fn make(
    session: &mut Session,
    (route, ctx): (&Route, &Context),
    (turn, mut place): (&mut Turn, Place),
    record: &mut Record,
    mut asked: Asked,
) -> Result<(Embedded, Answering, Share), Refusal> {
    let stage = trace::stage(&record.span, "screen");
    if route.with(Hook::FilterPrompt).next().is_some() {
        let count = asked.texts.len();
        let request = chat_of(&mut asked);
        let screened = session.chain.filter_prompt(route, ctx, request, |flags| record.flag(flags)).await?;
        asked.texts = texts_of(screened, count)?;
    }
    session.timings.lap("screen");
    drop(stage);
    let work = Work {
        texts: Arc::new(asked.texts),
        task: asked.task,
        dimensions: asked.dimensions,
        memory: Arc::new(session.memory.take()),
        bodies: Arc::clone(&session.bodies),
        tenant: session.principal.tenant.clone(),
    };
    loop {
        let answering = place.answering();
        record.answers(&answering);
        let made = match place {
            Place::Local(lease, ticket) => local(&session.encoders, &lease, ticket, turn, record, &work).await,
            Place::Remote(..) => Err(internal("a provider's model was asked to embed").into()),
        };
        match made {
            Ok((embedded, memory)) => return Ok((embedded, answering, memory)),
            Err(failure) => turn.pass_on(failure)?,
        }
        place = turn.place().await?;
    }
}

/// The texts as a policy sees them: what the user says, a message each.
fn chat_of(asked: &mut Asked) -> ChatRequest {
    let texts = std::mem::take(&mut asked.texts).into_iter();
    ChatRequest {
        messages: texts.map(|text| Message::text(Role::User, Origin::User, text)).collect(),
        tools: Vec::new(),
        parameters: Parameters::default(),
        format: None,
        model: asked.model.clone(),
        fields: Vec::new(),
    }
}

/// The texts as the policies left them. They may rewrite a text, and may not add or drop one: each has its place in the answer.
fn texts_of(screened: Screened, count: usize) -> Result<Vec<String>, Refusal> {
    let request = match screened {
        Screened::Request(request) => *request,
        Screened::Answer(_) => {
            let message = "A policy of this gateway stopped this request.";
            let detail = "a prompt filter answered in words, which texts to be embedded have no place for";
            return Err(Refusal::new(RefusalKind::Blocked, "blocked_by_policy", message).detail(detail));
        }
    };
    let texts = request.messages.into_iter().map(text_of).collect::<Option<Vec<_>>>();
    texts.filter(|texts| texts.len() == count && texts.iter().all(|text| !text.is_empty())).ok_or_else(|| {
        let message = "A policy of this gateway failed, so the request was refused.";
        let detail = "a prompt filter added, dropped or emptied a text that was to be embedded";
        Refusal::unavailable("plugin_failed", message, 1).detail(detail)
    })
}

/// What a message says; nothing where it is more than text.
fn text_of(message: Message) -> Option<String> {
    let mut parts = message.parts.into_iter().map(|part| match part.content {
        Content::Text(text) => Some(text),
        Content::Blob(_) => None,
    });
    let first = parts.next()??;
    parts.try_fold(first, |all, more| Some(all + &more?))
}

/// The answer of a model that runs here. Dropping the future ends the work on it.
async fn local(
    encoders: &Arc<Semaphore>,
    lease: &Lease,
    ticket: Ticket,
    turn: &Turn,
    record: &mut Record,
    work: &Work,
) -> Result<(Embedded, Share), Failure> {
    let engine = lease.embedding().cloned().ok_or_else(|| internal("a model that embeds nothing was asked to"))?;
    has_dimensions(work.dimensions, engine.dimensions())?;
    let of_text = if work.task == Task::Embed { engine.dimensions() } else { 1 };
    let room = room(&work.bodies, &work.tenant, work.texts.len(), of_text)?;
    let stage = trace::stage(&record.span, "encode");
    let (encoded, ticket) = encode(encoders, lease, &engine, ticket, work).await?;
    let (work_of_model, prompt) = encoded.map_err(|error| failure(&error, work.task))?;
    drop(stage);
    record.usage = Usage { prompt, ..Usage::default() };
    record.is_embedded = true;
    let _stage = trace::stage(&record.span, "embed");
    let deadline = turn.deadline();
    let job = EmbedJob { work: work_of_model, ticket, deadline };
    let embedding = engine.submit(job).map_err(|error| submit_failure(&error))?;
    let embedded = tokio::select! {
        biased;
        embedded = embedding.outcome() => embedded,
        () = turn.retired() => return Err(retired_refusal().into()),
        () = tokio::time::sleep_until((deadline + PATIENCE).into()) => Err(EmbedError::Late),
    };
    let embedded = embedded.map_err(|error| failure(&error, work.task))?;
    let is_whole = match &embedded {
        Embedded::Vectors(vectors) => {
            work.task == Task::Embed
                && vectors.len() == work.texts.len()
                && vectors.iter().flatten().all(|number| number.is_finite())
        }
        Embedded::Scores(scores) => {
            work.task == Task::Rerank && scores.len() + 1 == work.texts.len() && scores.iter().all(|score| score.is_finite())
        }
    };
    if is_whole {
        Ok((embedded, room))
    } else {
        Err(model_failed("it made other numbers than were asked for, or none that are finite"))
    }
}

/// Memory for an answer of so many numbers for each text: a request of a few bytes may ask for many MiB.
fn room(bodies: &Arc<Shares>, tenant: &str, texts: usize, numbers: u32) -> Result<Share, Refusal> {
    let texts = u64::try_from(texts).unwrap_or(u64::MAX);
    let bytes = texts.saturating_mul(u64::from(numbers)).saturating_mul(BYTES_OF_NUMBER);
    bodies.take(tenant, bytes).ok_or_else(|| {
        let message = "The gateway has no memory for so many vectors now. Send fewer texts at once, or try again in a moment.";
        let detail = format!("[requests] bodies_mib has no {bytes} bytes left for this tenant's answer");
        Refusal::unavailable("overloaded", message, 1).detail(detail)
    })
}

/// A vector has as many numbers as its model makes.
fn has_dimensions(asked: Option<u32>, made: u32) -> Result<(), Refusal> {
    if asked.is_none_or(|asked| asked == made) {
        return Ok(());
    }
    let message = format!("`dimensions` has to be {made} or absent: this model's vectors cannot be shortened.");
    Err(Refusal::invalid("unsupported_parameter", message).field("dimensions"))
}

/// What the model is given, and how many tokens that is.
type Encoded = Result<(EmbedWork, u32), EmbedError>;

/// The tokens of the texts; place and memory are held for as long as that takes, which a client that goes away does not end.
async fn encode(
    encoders: &Arc<Semaphore>,
    lease: &Lease,
    engine: &EmbeddingEngine,
    ticket: Ticket,
    work: &Work,
) -> Result<(Encoded, Ticket), Refusal> {
    let permit = stages::encoder(encoders)?;
    let bytes = work.texts.iter().map(String::len).fold(0_usize, usize::saturating_add);
    let is_short = work.texts.len() <= SHORT_MESSAGES && bytes <= SHORT_PROMPT;
    let (lease, engine) = (lease.clone(), engine.clone());
    let (texts, task, memory) = (Arc::clone(&work.texts), work.task, Arc::clone(&work.memory));
    let encode = move || {
        let _held = (permit, memory, lease);
        (tokenize(&engine, &texts, task), ticket)
    };
    // Long texts take milliseconds, which the async workers do not have (P-L8).
    if is_short {
        return Ok(encode());
    }
    tokio::task::spawn_blocking(encode).await.map_err(|_| internal("the encoder panicked"))
}

fn tokenize(engine: &EmbeddingEngine, texts: &[String], task: Task) -> Encoded {
    let (query, texts) = match texts.split_first() {
        Some((query, documents)) if task == Task::Rerank => (Some(engine.tokenize(query)?), documents),
        _ => (None, texts),
    };
    let beside = query.as_ref().map_or(0, Vec::len);
    let most = engine.max_tokens();
    let mut lists = Vec::with_capacity(texts.len());
    let mut total = 0_usize;
    for (index, text) in texts.iter().enumerate() {
        let list = engine.tokenize(text)?;
        let tokens = beside.saturating_add(list.len());
        if tokens > most as usize {
            return Err(EmbedError::TooLong { index, tokens, most });
        }
        total = total.saturating_add(tokens);
        lists.push(list);
    }
    let work = match query {
        Some(query) => EmbedWork::Rank { query, documents: lists },
        None => EmbedWork::Texts(lists),
    };
    Ok((work, u32::try_from(total).unwrap_or(u32::MAX)))
}

fn failure(error: &EmbedError, task: Task) -> Failure {
    match error {
        EmbedError::TooLong { index, tokens, most } => too_long(*index, *tokens, *most, task).into(),
        EmbedError::Late => {
            let refusal = Refusal::unavailable("deadline", "The answer took too long.", 1);
            refusal.detail(error.to_string()).into()
        }
        EmbedError::Stopped => generate_failure(&GenerateError::Stopped),
        other => model_failed(&other.to_string()),
    }
}

fn model_failed(detail: &str) -> Failure {
    Failure::new(Refusal::unavailable("model_failed", "The model failed.", 1).detail(detail), Some("failed"))
}

fn too_long(index: usize, tokens: usize, most: u32, task: Task) -> Refusal {
    let over = tokens.saturating_sub(most as usize);
    let (field, has) = match task {
        Task::Rerank => ("documents", "and the query have"),
        Task::Embed | Task::Generate => ("input", "has"),
    };
    let message = format!("`{field}[{index}]` {has} {tokens} tokens, {over} more than the {most} that this model takes.");
    Refusal::invalid("context_length_exceeded", message).field(format!("{field}[{index}]"))
}

#[cfg(test)]
mod tests;
