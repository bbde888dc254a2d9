//! The stages of a chat request, in their order.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tollgate_domain::{Attribute, ChatRequest, Content, Context, Principal, Refusal, RefusalKind, Share, Usage};
use tollgate_models::{EncodeError, Generation as Decoding, Job, Lease, Remote, Served, Task, Ticket};
use tracing::Span;

use crate::chain::Screened;
use crate::record::{End, Record};
use crate::reply::{Heard, Source, Start, Whole, retired_refusal};
use crate::tokens::OfTokens;
use crate::turn::{Answering, Failure, Place, Turn, provider_failure, submit_failure, too_long};
use crate::{Generation, Reply, Route, Session, authorize, tokens, trace};

/// Bytes and messages of a prompt that is encoded where it is.
pub(crate) const SHORT_PROMPT: usize = 1_024;
pub(crate) const SHORT_MESSAGES: usize = 8;

/// A tenant's share while no quota says otherwise.
const WEIGHT: u32 = 100;

pub(crate) async fn run(
    mut session: Session,
    request: ChatRequest,
    dialect: &'static str,
    is_stream: bool,
) -> Result<Reply, Refusal> {
    // authorize
    let asked = asked_model(&session, &request.model)?;
    let generation = session.generation.clone();
    let principal = &session.principal;
    let (route, model) = choose(&generation, principal, (dialect, asked.as_str()), Task::Generate)?;
    tokens::may_be_told(route, &request)?;

    // admit
    let span = trace::chat(&session.ids.span, &request, model.id(), is_stream);
    let stage = trace::stage(&span, "admit");
    let permit = admit(route)?;
    let deadline = Instant::now() + model.deadline();
    let names_tokens = !request.parameters.logit_bias.is_empty();
    let mut turn = Turn::new(&generation, model, (&session.ids.request_id, principal.tenant.as_str()), deadline, names_tokens);
    turn.keep_alive(session.keep_alive);
    let place = turn.place().await?;
    session.chain.settle(route, &principal.tenant)?;

    let answering = place.answering();
    let mut ctx = context(&session, route, answering.id(), deadline, (dialect, is_stream));
    let mut record = record(&session, route, &answering, span);
    session.timings.lap("admit");
    drop(stage);

    // compose, screen, generate
    let begun = prepare(&mut session, route, (&mut turn, place), &mut ctx, &mut record, request).await;
    let Begun { source, heard, answering } = begun.inspect_err(|refusal| {
        record.end = Some(End::failed(refusal));
    })?;
    session.timings.lap("queue");

    // what comes back is screened, formatted and recorded by the reply
    let is_fixed = matches!(source, Source::Fixed(_));
    let chain = session.chain.into_reply(route, &ctx).await.inspect_err(|refusal| {
        record.end = Some(End::failed(refusal));
    })?;
    let whole = if chain.formats() && !is_fixed { Whole::Needed(String::new()) } else { Whole::Streamed };
    let fallback = turn.fallback().map(str::to_owned);
    let timings = session.timings;
    Ok(Reply::new(Start { source, heard, chain, whole, record, timings, generation, answering, fallback, permit, deadline }))
}

/// The stages between admission and the reply.
async fn prepare(
    session: &mut Session,
    route: &Route,
    (turn, place): (&mut Turn, Place),
    ctx: &mut Context,
    record: &mut Record,
    mut request: ChatRequest,
) -> Result<Begun, Refusal> {
    let of_tokens = OfTokens::take(&mut request);
    let stage = trace::stage(&record.span, "compose");
    let request = session.chain.compose(route, ctx, request).await?;
    session.timings.lap("compose");
    drop(stage);
    let stage = trace::stage(&record.span, "screen");
    let screened = session.chain.filter_prompt(route, ctx, request, |flags| record.flag(flags)).await?;
    session.timings.lap("screen");
    drop(stage);
    let mut request = match screened {
        Screened::Answer(text) => {
            let source = Source::Fixed(Some(text));
            return Ok(Begun { source, heard: None, answering: place.answering() });
        }
        Screened::Request(request) => *request,
    };
    let _stage = trace::stage(&record.span, "encode");
    let constraint = session.chain.constraint(route, ctx).await?;
    request.format = one_format(request.format, constraint, &route.id)?;
    if request.format.is_some() {
        // Reply filters learn that what they see is JSON text.
        ctx.attributes.push(Attribute { name: "format".to_owned(), value: json_string("json") });
    }
    of_tokens.put_back(&mut request);
    cap_tokens(&mut request, route);
    let asked = Asked { request: Arc::new(request), memory: Arc::new(session.memory.take()), is_whole: !ctx.is_stream };
    begin(&session.encoders, (turn, place), record, &asked).await
}

/// What a model is asked, whichever it is. The body's memory is held until one has its prompt.
struct Asked {
    request: Arc<ChatRequest>,
    memory: Arc<Option<Share>>,
    is_whole: bool,
}

/// A reply that has begun.
struct Begun {
    source: Source,
    /// What was heard of it already.
    heard: Option<Heard>,
    answering: Answering,
}

/// Asks the model that has a `place` for the request, and, where it fails before its first token, those after it.
async fn begin(
    encoders: &Arc<Semaphore>,
    (turn, mut place): (&mut Turn, Place),
    record: &mut Record,
    asked: &Asked,
) -> Result<Begun, Refusal> {
    loop {
        let answering = place.answering();
        record.answers(&answering);
        let begun = match place {
            Place::Local(lease, ticket) => local(encoders, &lease, ticket, turn, record, asked).await,
            Place::Remote(remote, share) => answer_of(&remote, share, turn, asked).await.map(|source| (source, None)),
        };
        match begun {
            Ok((source, heard)) => return Ok(Begun { source, heard, answering }),
            Err(failure) => turn.pass_on(failure)?,
        }
        place = turn.place().await?;
    }
}

/// A reply of a model that runs here. Only where another one could answer is its first token waited for.
async fn local(
    encoders: &Arc<Semaphore>,
    lease: &Lease,
    ticket: Ticket,
    turn: &Turn,
    record: &mut Record,
    asked: &Asked,
) -> Result<(Source, Option<Heard>), Failure> {
    let (decoding, prompt) = generate(encoders, lease, asked, ticket, turn.deadline()).await?;
    record.usage = Usage { prompt, ..Usage::default() };
    let mut source = Source::Decoding(decoding);
    if !turn.has_more() {
        return Ok((source, None));
    }
    match source.hear(turn.retired(), turn.deadline()).await {
        Heard::Failed(failure) => Err(failure),
        heard => Ok((source, Some(heard))),
    }
}

/// A reply of a provider's, its first piece included.
async fn answer_of(remote: &Remote, share: Share, turn: &Turn, asked: &Asked) -> Result<Source, Failure> {
    let reply = tokio::select! {
        biased;
        reply = remote.chat(&asked.request, turn.deadline()) => reply,
        () = turn.retired() => return Err(retired_refusal().into()),
    };
    reply.map(|reply| Source::Remote(Box::new(reply), share)).map_err(|error| provider_failure(&error))
}

/// The name that is asked for: what the request says, else the key's default.
pub(crate) fn asked_model(session: &Session, named: &str) -> Result<String, Refusal> {
    if !named.is_empty() {
        return Ok(named.to_owned());
    }
    let default = session.principal.default_model.clone();
    default.ok_or_else(|| Refusal::invalid("missing_model", "The request names no model.").field("model"))
}

/// The route of a request in a dialect for the name that is asked for, and the model that is meant, which has to be there for `task`.
pub(crate) fn choose<'a>(
    generation: &'a Generation,
    principal: &Principal,
    (dialect, asked): (&str, &str),
    task: Task,
) -> Result<(&'a Route, &'a Served), Refusal> {
    authorize::may_chat(principal)?;
    let route = generation.routes.find(dialect, asked, &principal.roles, &principal.tenant).ok_or_else(no_route)?;
    let target = route.model.as_deref().unwrap_or(asked);
    let model = generation.models.find(target).ok_or_else(|| authorize::no_such_model(asked))?;
    authorize::may_use(principal, asked, model.names())?;
    authorize::fits(task, model.task())?;
    Ok((&**route, model))
}

fn no_route() -> Refusal {
    Refusal::new(RefusalKind::Forbidden, "no_route", "No route of this gateway takes this request.")
}

/// A place among the requests that the route takes at once.
pub(crate) fn admit(route: &Route) -> Result<Option<OwnedSemaphorePermit>, Refusal> {
    let Some(concurrency) = &route.concurrency else { return Ok(None) };
    concurrency.clone().try_acquire_owned().map(Some).map_err(|_| {
        let busy = Refusal::new(RefusalKind::RateLimited, "concurrency", "Too many requests at once on this route.");
        Refusal { retry_after: Some(1), ..busy }
    })
}

pub(crate) fn context(
    session: &Session,
    route: &Route,
    model: &str,
    deadline: Instant,
    (dialect, is_stream): (&str, bool),
) -> Context {
    let received_at_ms = session.ids.received_at_ms;
    let deadline = session.timings.elapsed().saturating_add(deadline.saturating_duration_since(Instant::now()));
    let deadline = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
    let template = route.template.as_ref().map(|name| Attribute { name: "template".to_owned(), value: json_string(name) });
    Context {
        request_id: session.ids.request_id.to_string(),
        received_at_ms,
        deadline_ms: received_at_ms.saturating_add(deadline),
        listener: session.listener.clone(),
        dialect: dialect.to_owned(),
        route: route.id.clone(),
        principal: session.principal.clone(),
        model: model.to_owned(),
        is_stream,
        conversation: None,
        attributes: template.into_iter().collect(),
    }
}

fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

pub(crate) fn record(session: &Session, route: &Route, model: &Answering, span: Span) -> Record {
    Record {
        request_id: session.ids.request_id.to_string(),
        tenant: session.principal.tenant.clone(),
        principal: session.principal.id.clone(),
        route: route.id.clone(),
        model: model.id().to_owned(),
        generation: session.generation.number,
        began: Instant::now(),
        usage: Usage::default(),
        flags: Vec::new(),
        end: None,
        timing: None,
        is_embedded: false,
        metrics: Arc::clone(model.metrics()),
        span,
    }
}

/// The client's format or the route's, not both.
fn one_format(client: Option<String>, route: Option<String>, route_id: &str) -> Result<Option<String>, Refusal> {
    match (client, route) {
        (Some(_), Some(_)) => {
            let message = format!("`response_format` cannot be used here: the route `{route_id}` has a format of its own.");
            Err(Refusal::invalid("format_conflict", message).field("response_format"))
        }
        (client, route) => Ok(client.or(route)),
    }
}

fn cap_tokens(request: &mut ChatRequest, route: &Route) {
    if let Some(limit) = route.max_tokens {
        request.parameters.max_tokens = Some(request.parameters.max_tokens.map_or(limit, |asked| asked.min(limit)));
    }
}

/// Encodes and queues; returns the decoding and how many tokens the prompt has. Place and memory are held for as long as the
/// encoder runs, which a client that goes away does not end.
async fn generate(
    encoders: &Arc<Semaphore>,
    model: &Lease,
    asked: &Asked,
    ticket: Ticket,
    deadline: Instant,
) -> Result<(Decoding, u32), Failure> {
    let Asked { request, memory, is_whole } = asked;
    let (request, memory, is_whole) = (Arc::clone(request), Arc::clone(memory), *is_whole);
    let parameters = model.parameters(request.parameters.clone());
    let engine = model.engine().cloned().ok_or_else(|| internal("a model that generates nothing was asked to chat"))?;
    let (lease, codec) = (model.clone(), engine.clone());
    let permit = encoder(encoders)?;
    let is_short = is_short(&request);
    let encode = move || {
        let _held = (permit, memory, lease);
        (codec.codec().encode(&request, None), ticket)
    };
    // Long texts and schemas take milliseconds, which the async workers do not have (P-L8); for a short one the way to another
    // thread and back takes longer than the work.
    let (prompt, ticket) = if is_short {
        encode()
    } else {
        tokio::task::spawn_blocking(encode).await.map_err(|_| internal("the encoder panicked"))?
    };
    let prompt = prompt.map_err(|error| encode_refusal(&error))?;
    let tokens = u32::try_from(prompt.tokens()).unwrap_or(u32::MAX);
    let job = Job { prompt, parameters, adapter: model.adapter(), ticket, weight: WEIGHT, deadline, is_whole };
    let decoding = engine.submit(job).map_err(|error| submit_failure(&error))?;
    Ok((decoding, tokens))
}

/// A place among those whose texts become tokens.
pub(crate) fn encoder(encoders: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Refusal> {
    let busy = || Refusal::unavailable("overloaded", "The gateway is at its limit. Try again in a moment.", 1);
    Arc::clone(encoders).try_acquire_owned().map_err(|_| busy().detail("too many prompts are being encoded"))
}

/// Whether a request is encoded in some tens of microseconds.
fn is_short(request: &ChatRequest) -> bool {
    let bytes = request.messages.iter().flat_map(|message| &message.parts).map(|part| match &part.content {
        Content::Text(text) => text.len(),
        Content::Blob(_) => usize::MAX,
    });
    request.format.is_none()
        && request.messages.len() <= SHORT_MESSAGES
        && bytes.fold(0_usize, usize::saturating_add) <= SHORT_PROMPT
}

pub(crate) fn internal(detail: &str) -> Refusal {
    Refusal::unavailable("internal", "The gateway could not serve this request.", 1).detail(detail)
}

fn encode_refusal(error: &EncodeError) -> Refusal {
    match error {
        EncodeError::TooLong { tokens, limit } => too_long(*tokens, *limit),
        EncodeError::Schema(error) => {
            Refusal::invalid("invalid_schema", format!("The schema cannot be used: {error}.")).field("response_format")
        }
        EncodeError::Images => Refusal::invalid("unsupported_content", "This model takes text only.").field("messages"),
        EncodeError::TooLarge { limit } => {
            Refusal::new(RefusalKind::TooLarge, "prompt_too_large", format!("The messages have more than {limit} bytes."))
                .field("messages")
        }
        other => Refusal::invalid("unusable_prompt", "The model's chat template does not take these messages.")
            .detail(other.to_string()),
    }
}
