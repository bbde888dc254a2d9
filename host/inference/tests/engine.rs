//! The engine on its own thread: what only threads can get wrong.
#![allow(clippy::panic, reason = "a test may fail loudly")]

use std::time::{Duration, Instant};

use tollgate_backend_scripted::{Probe, Scripted, Settings as Script};
use tollgate_domain::{ChatRequest, Message, Origin, Parameters, Piece, Role};
use tollgate_inference::{
    Adapter, AdapterError, Engine, Event, Finish, GenerateError, Generation, Job, Settings, StartError, SubmitError,
};

fn start(script: Script, settings: Settings) -> (Engine, Probe) {
    let backend = Scripted::new(script);
    let probe = backend.probe();
    (Engine::start("scripted", Box::new(backend), settings).expect("started"), probe)
}

fn engine() -> Engine {
    start(Script::default(), Settings::default()).0
}

fn job(engine: &Engine, command: &str) -> Job {
    let request = ChatRequest {
        messages: vec![Message::text(Role::User, Origin::User, command)],
        tools: Vec::new(),
        parameters: Parameters::default(),
        format: None,
        model: "scripted".into(),
        fields: Vec::new(),
    };
    Job {
        prompt: engine.codec().encode(&request, None).expect("a prompt"),
        parameters: Parameters { temperature: Some(0.0), ..Parameters::default() },
        adapter: None,
        ticket: engine.reserve("ann").expect("a place"),
        weight: 1,
        deadline: Instant::now() + Duration::from_secs(60),
        is_whole: false,
    }
}

fn submit(engine: &Engine, command: &str) -> Generation {
    engine.submit(job(engine, command)).expect("taken")
}

/// The text and the end of a reply.
async fn hear(generation: &mut Generation) -> (String, Result<Finish, GenerateError>) {
    let mut text = String::new();
    let all = async {
        while let Some(event) = generation.next().await {
            match event {
                Event::Piece(Piece::Text(piece)) => text.push_str(&piece),
                Event::Piece(_) | Event::Logprobs(_) => {}
                Event::Done(finish) => return Ok(finish),
                Event::Failed(error) => return Err(error),
            }
        }
        panic!("a stream ends with an end")
    };
    let end = tokio::time::timeout(Duration::from_secs(60), all).await.expect("in time");
    (text, end)
}

/// Waits until `holds`, and not for ever.
async fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_come_from_the_thread() {
    let engine = engine();
    let (text, end) = hear(&mut submit(&engine, "say Hello, Tollgate")).await;
    assert_eq!(text, "Hello, Tollgate");
    assert!(end.is_ok());
    assert_eq!((engine.gauges().running(), engine.gauges().waiting()), (0, 0));
}

/// 16 streams are seen at 8 and more rows in a step.
#[tokio::test(flavor = "multi_thread")]
async fn sixteen_streams_are_decoded_together() {
    let (engine, probe) = start(Script { token_us: 200, ..Script::default() }, Settings::default());
    let mut streams = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let mut generation = submit(&engine, "count 60");
        streams.spawn(async move { hear(&mut generation).await });
    }
    while let Some(heard) = streams.join_next().await {
        assert!(heard.expect("no panic").0.ends_with("59 60"));
    }
    assert!(engine.gauges().rows_per_step().iter().skip(3).sum::<u64>() > 0);
    assert!(probe.steps().iter().any(|step| step.sampled >= 8));
}

/// Full means "no", at once, and a place that comes free is a place again.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_refuses_at_once() {
    // Slow, and with room for all that it says: it neither ends nor parks meanwhile.
    let script = Script { max_sequences: 1, context_tokens: 10_000_000, token_us: 100, ..Script::default() };
    let (engine, _) = start(script, Settings { queue: 4, stream_buffer_bytes: 1 << 30, ..Settings::default() });
    let running = submit(&engine, "forever");
    until("it runs", || engine.gauges().running() == 1).await;
    let queued = [submit(&engine, "say one"), submit(&engine, "say two")];
    let refused = engine.reserve("ann").expect_err("her share is taken");
    assert!(matches!(refused, SubmitError::QueueFull { retry_after_s: 1..=60 }), "{refused:?}");
    drop(engine.reserve("bob").expect("P-L5: others find a place"));
    drop(running);
    for mut generation in queued {
        assert!(hear(&mut generation).await.1.is_ok());
    }
    assert!(hear(&mut submit(&engine, "say three")).await.1.is_ok());
}

/// A backend with a bug: who was being served hears of it, and nobody is let in to wait for a thread that is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_dead_thread_ends_its_requests_and_takes_no_more() {
    let engine = engine();
    let mut others = [submit(&engine, "forever"), submit(&engine, "forever")];
    let mut fatal = submit(&engine, "panic");
    assert_eq!(hear(&mut fatal).await.1, Err(GenerateError::Stopped));
    for other in &mut others {
        assert_eq!(hear(other).await.1, Err(GenerateError::Stopped));
    }
    until("it is known to be dead", || !engine.is_alive()).await;
    assert!(matches!(engine.reserve("ann"), Err(SubmitError::Stopped)));
    engine.shutdown(Instant::now());
}

/// P-L3: a reader that goes away frees its row, also when nothing else happens.
#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_generation_frees_its_row() {
    let (engine, probe) = start(Script { token_us: 100, ..Script::default() }, Settings::default());
    for _ in 0..20 {
        let mut generation = submit(&engine, "forever");
        assert!(generation.next().await.is_some());
        drop(generation);
    }
    until("all rows are free", || engine.gauges().running() == 0 && probe.cells() == 0).await;
    let steps = engine.gauges().steps();
    assert!(hear(&mut submit(&engine, "say x")).await.1.is_ok());
    assert!(engine.gauges().steps() <= steps + 4, "nobody else was being served");
}

/// P-L4: a stalled reader is parked, the thread sleeps, and the reader wakes it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_reader_parks_and_comes_back() {
    let (engine, _) = start(Script::default(), Settings { stream_buffer_bytes: 8 * 1024, ..Settings::default() });
    let mut stalled = submit(&engine, "count 2000");
    until("it is parked", || engine.gauges().parked() == 1).await;
    assert_eq!(hear(&mut submit(&engine, "say others go on")).await.0, "others go on");
    let (text, end) = hear(&mut stalled).await;
    assert!(text.ends_with("1999 2000") && end.is_ok());
    assert_eq!(text.split(' ').count(), 2_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_stays_away_is_closed() {
    let settings = Settings { stream_buffer_bytes: 1_024, stalled_reader: Duration::from_millis(20), ..Settings::default() };
    let (engine, probe) = start(Script::default(), settings);
    let mut stalled = submit(&engine, "forever");
    // It holds cells from its first step until it is closed.
    until("it is closed", || engine.gauges().decoded_tokens() > 0 && probe.cells() == 0).await;
    assert_eq!(hear(&mut stalled).await.1, Err(GenerateError::Stalled));
}

/// A stop answers whoever waits: those that can finish do, the rest are told.
#[tokio::test(flavor = "multi_thread")]
async fn a_shutdown_answers_every_waiter() {
    let (engine, _) =
        start(Script { max_sequences: 2, context_tokens: 1_000_000, token_us: 100, ..Script::default() }, Settings::default());
    let mut endless = submit(&engine, "forever");
    let mut short = submit(&engine, "count 20");
    let mut queued = submit(&engine, "forever");
    let late = job(&engine, "say x");
    let stopping = engine.clone();
    let stopped = tokio::task::spawn_blocking(move || stopping.shutdown(Instant::now() + Duration::from_secs(1)));
    // They are read meanwhile, as in life: otherwise they would be parked.
    let (endless, short, queued) = tokio::join!(hear(&mut endless), hear(&mut short), hear(&mut queued));
    assert_eq!(endless.1, Err(GenerateError::Stopped));
    assert_eq!(queued.1, Err(GenerateError::Stopped));
    assert!(short.0.ends_with("19 20") && short.1.is_ok());
    stopped.await.expect("no panic");
    assert_eq!(engine.submit(late).expect_err("stopped"), SubmitError::Stopped);
    assert_eq!(engine.reserve("ann").expect_err("stopped"), SubmitError::Stopped);
    assert_eq!(engine.gauges().running(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_handle_ends_the_thread() {
    let engine = engine();
    let other = engine.clone();
    let mut generation = submit(&engine, "forever");
    drop(engine);
    assert!(generation.next().await.is_some(), "one handle is left");
    tokio::task::spawn_blocking(move || drop(other)).await.expect("no panic");
    assert_eq!(hear(&mut generation).await.1, Err(GenerateError::Stopped));
}

/// P-M6: what is out of range is refused by name, before anything is queued.
#[tokio::test]
async fn hostile_jobs_are_refused() {
    let (engine, _) = start(Script { context_tokens: 60, ..Script::default() }, Settings::default());
    let field = |job: Job| match engine.submit(job) {
        Err(SubmitError::Parameter { field, .. }) => field,
        other => panic!("{other:?}"),
    };
    for weight in [0, 1_001] {
        assert_eq!(field(Job { weight, ..job(&engine, "say x") }), "weight");
    }
    let parameters = Parameters { temperature: Some(f32::NAN), ..Parameters::default() };
    assert_eq!(field(Job { parameters, ..job(&engine, "say x") }), "temperature");
    // A prompt of another engine, with more room.
    let ticket = engine.reserve("ann").expect("a place");
    let long = Job { ticket, ..job(&self::engine(), &"x".repeat(100)) };
    assert!(matches!(engine.submit(long), Err(SubmitError::TooLong { limit: 59, .. })));
    assert_eq!(engine.gauges().waiting(), 0);
}

#[test]
fn settings_out_of_range_do_not_start() {
    let refused = |settings| Engine::start("x", Box::new(Scripted::new(Script::default())), settings).expect_err("refused");
    assert!(matches!(refused(Settings { step_rows: 0, ..Settings::default() }), StartError::Setting { field: "step_rows", .. }));
    assert!(matches!(refused(Settings { queue: 65_537, ..Settings::default() }), StartError::Setting { field: "queue", .. }));
}

fn adapter(engine: &Engine, word: &str) -> Adapter {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("word");
    std::fs::write(&path, word).expect("written");
    engine.load_adapter(&path, 1.0, Instant::now() + Duration::from_secs(60)).expect("loaded")
}

/// P-M13: an adapter that is replaced stays with the replies that began with it, and goes with the last of them.
#[tokio::test]
async fn adapters_come_and_go_while_the_model_serves() {
    let (engine, probe) = start(Script::default(), Settings::default());
    let first = adapter(&engine, "a-");
    let ask = |adapter: Option<&Adapter>, command: &str| {
        engine.submit(Job { adapter: adapter.cloned(), ..job(&engine, command) }).expect("taken")
    };
    let mut stream = ask(Some(&first), "forever");
    let mut text = String::new();
    let second = adapter(&engine, "b-");
    drop(first);
    for round in 0..200 {
        if let Some(Event::Piece(piece)) = stream.next().await {
            text.push_str(piece.as_str());
        }
        if round % 20 == 0 {
            assert_eq!(hear(&mut ask(Some(&second), "say one two")).await.0, "b-one b-two");
            assert_eq!(hear(&mut ask(None, "say one two")).await.0, "one two");
        }
    }
    let (whole, _) = text.rsplit_once(' ').expect("more than a word");
    assert!(whole.split(' ').count() > 20 && whole.split(' ').all(|word| word.starts_with("a-")), "{whole}");
    assert_eq!(probe.adapters(), 2, "the first one is in use");
    drop(stream);
    // By its end, the thread has seen that the stream is gone.
    assert_eq!(hear(&mut ask(Some(&second), "say so")).await.0, "b-so");
    assert_eq!(probe.adapters(), 1);

    let soon = || Instant::now() + Duration::from_secs(60);
    let missing = engine.load_adapter("missing".as_ref(), 1.0, soon()).expect_err("there is no file");
    assert!(matches!(missing, AdapterError::Backend(_)), "{missing}");
    engine.shutdown(Instant::now());
    let late = engine.load_adapter("missing".as_ref(), 1.0, soon()).expect_err("nobody is there");
    assert_eq!(late, AdapterError::Stopped);
}
