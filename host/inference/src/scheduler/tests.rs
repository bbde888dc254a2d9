//! The scheduler over the scripted backend, driven step by step: no thread, no clock, no sleep.

mod adapters;
mod alike;
mod aside;
mod cache;
mod endings;
mod fixed;
mod shares;

use tollgate_backend_scripted::{Probe, Scripted, Settings};
use tollgate_domain::{ChatRequest, Message, Origin, Parameters, Piece, Role, TokenLogprobs};

use super::*;
use crate::chat::ChatCodec;
use crate::engine::{Adapter, Doorbell, Event, Finish, Generation, stream};
use crate::reply::Reply;
use crate::sampling::Sampling;

/// A scheduler with its backend, and a clock of its own.
struct Bench {
    scheduler: Scheduler,
    gauges: Arc<Gauges>,
    tickets: Arc<Tickets>,
    codec: ChatCodec,
    probe: Probe,
    now: Instant,
    arrived: u64,
}

/// What is asked; the rest is as it is most of the time.
#[derive(Debug, Clone)]
struct Ask {
    command: String,
    tenant: &'static str,
    weight: u32,
    parameters: Parameters,
    buffer: usize,
    seconds: u64,
    schema: Option<&'static str>,
    adapter: Option<Adapter>,
}

/// A reply, whole or not.
#[derive(Debug, Clone, Default, PartialEq)]
struct Heard {
    pieces: Vec<Piece>,
    logprobs: Vec<TokenLogprobs>,
    end: Option<Result<Finish, GenerateError>>,
}

const LIMITS: Limits = Limits {
    step_rows: 256,
    prefix_cache: true,
    stalled_reader: Duration::from_secs(30),
    deterministic: false,
    aside_bytes: 1 << 20,
};

fn ask(command: impl Into<String>) -> Ask {
    Ask {
        command: command.into(),
        tenant: "ann",
        weight: 1,
        parameters: Parameters { temperature: Some(0.0), ..Parameters::default() },
        buffer: 1024 * 1024,
        seconds: 600,
        schema: None,
        adapter: None,
    }
}

impl Bench {
    fn new(settings: Settings) -> Self {
        Bench::with(settings, true)
    }

    fn with(settings: Settings, prefix_cache: bool) -> Self {
        Bench::limited(settings, Limits { prefix_cache, ..LIMITS })
    }

    fn limited(settings: Settings, limits: Limits) -> Self {
        let backend = Scripted::new(settings);
        let codec = ChatCodec::new(&backend).expect("a codec");
        let (probe, gauges) = (backend.probe(), Arc::new(Gauges::default()));
        let tickets = Tickets::new(65_536, Arc::clone(&gauges));
        let (began, seen) = (Instant::now(), probe.clone());
        let clock = Box::new(move || began + seen.elapsed());
        let scheduler = Scheduler::new("test", Box::new(backend), limits, Arc::clone(&gauges), Arc::clone(&tickets), clock);
        Bench { scheduler, gauges, tickets, codec, probe, now: Instant::now(), arrived: 0 }
    }

    fn submit(&mut self, ask: &Ask) -> Generation {
        let request = ChatRequest {
            messages: vec![Message::text(Role::User, Origin::User, ask.command.clone())],
            tools: Vec::new(),
            parameters: Parameters::default(),
            format: None,
            model: "test".into(),
            fields: Vec::new(),
        };
        let prompt = self.codec.encode(&request, ask.schema).expect("a prompt");
        let sampling = Sampling::resolve(ask.parameters.clone()).expect("in range");
        let (writer, generation) = stream(ask.buffer, false, Doorbell::silent());
        self.arrived += 1;
        let salt = if ask.tenant == "ann" { Salt([1; 32]) } else { Salt([2; 32]) };
        self.scheduler.submit(Sequence::new(Request {
            tokens: prompt.tokens,
            constraint: prompt.constraint,
            reply: Reply::new(sampling.stop.clone(), self.codec.reasoning(), prompt.is_thinking),
            sampling,
            seed: self.arrived,
            salt,
            adapter: ask.adapter.clone(),
            ticket: self.tickets.take(ask.tenant).expect("a place"),
            weight: ask.weight,
            deadline: self.now + Duration::from_secs(ask.seconds),
            arrived: self.arrived,
            submitted: self.now,
            writer,
        }));
        generation
    }

    fn step(&mut self) -> Progress {
        self.scheduler.step(self.now)
    }

    /// Steps until nothing is left to do.
    fn run(&mut self) {
        for _ in 0..1_000_000 {
            if let Progress::Idle { .. } = self.step() {
                return;
            }
        }
        panic!("it never ends");
    }

    /// The whole reply to one request, with nothing else about.
    fn hear(&mut self, ask: &Ask) -> Heard {
        let mut generation = self.submit(ask);
        self.run();
        listen(&mut generation)
    }

    fn is_at_rest(&self) -> bool {
        (self.gauges.waiting(), self.gauges.running(), self.gauges.parked(), self.gauges.cells()) == (0, 0, 0, 0)
    }
}

/// What has come by now.
fn listen(generation: &mut Generation) -> Heard {
    let mut heard = Heard::default();
    while let Some(event) = generation.try_next() {
        match event {
            Event::Logprobs(tokens) => heard.logprobs.extend(tokens),
            Event::Piece(piece) => heard.pieces.push(piece),
            Event::Done(finish) => heard.end = Some(Ok(finish)),
            Event::Failed(error) => heard.end = Some(Err(error)),
        }
    }
    heard
}

impl Heard {
    fn text(&self) -> String {
        self.pieces.iter().map(Piece::as_str).collect()
    }

    fn finish(&self) -> &Finish {
        self.end.as_ref().expect("an end").as_ref().expect("a good one")
    }

    fn error(&self) -> &GenerateError {
        self.end.as_ref().expect("an end").as_ref().expect_err("a bad one")
    }
}

/// P-L5: a tenant with one request is not behind another's hundred.
#[test]
fn a_quiet_tenant_is_next() {
    let mut bench = Bench::new(Settings { max_sequences: 2, ..Settings::default() });
    let mut noisy: Vec<Generation> = (0..100).map(|_| bench.submit(&ask("count 10"))).collect();
    bench.step();
    let mut quiet = bench.submit(&Ask { tenant: "bob", ..ask("say hi") });
    while listen(&mut quiet).end.is_none() {
        assert_eq!(bench.step(), Progress::Worked);
    }
    let served = noisy.iter_mut().filter_map(|reply| listen(reply).end).count();
    assert!(served <= 4, "{served} of the others were served before");
}

/// P-L5: a tenant that has every sequence gives up those over its share, and says the same in the end as if it had not.
#[test]
fn nobody_keeps_all_sequences() {
    let whole = Bench::new(Settings::default()).hear(&ask("count 200"));
    let mut bench = Bench::new(Settings { max_sequences: 4, ..Settings::default() });
    let mut noisy: Vec<Generation> = (0..12).map(|_| bench.submit(&ask("count 200"))).collect();
    for _ in 0..10 {
        bench.step();
    }
    let mut quiet: Vec<Generation> = (0..3).map(|_| bench.submit(&Ask { tenant: "bob", ..ask("forever") })).collect();
    for _ in 0..120 {
        bench.step();
        assert_eq!(bench.gauges.running(), 4);
    }
    assert!(quiet[..2].iter_mut().all(|reply| !listen(reply).pieces.is_empty()), "two of four are bob's by now");
    assert_eq!(bench.gauges.preemptions(), 2, "nobody is sent back and forth");
    assert!(listen(&mut quiet[2]).pieces.is_empty(), "nor is a share more than a share");
    drop(quiet);
    bench.run();
    assert!(noisy.iter_mut().all(|reply| listen(reply).pieces == whole.pieces));
    assert!(bench.is_at_rest());
}

/// P-L5: the same where cells are what is short.
#[test]
fn nobody_keeps_all_cells() {
    // Later in their replies two have all the cells with no more than their share of sequences.
    for steps in [5, 10, 60] {
        let mut bench = Bench::new(Settings { max_sequences: 4, context_tokens: 600, ..Settings::default() });
        let mut noisy = ["a", "b", "c", "d"].map(|letter| bench.submit(&ask(format!("say {}", letter.repeat(150)))));
        for _ in 0..steps {
            bench.step();
        }
        let mut quiet = bench.submit(&Ask { tenant: "bob", ..ask(format!("say {}", "y".repeat(160))) });
        assert!((2..4).contains(&bench.gauges.running()), "{}", bench.gauges.running());
        let before = bench.gauges.preemptions();
        for _ in 0..60 {
            bench.step();
        }
        assert!(bench.gauges.preemptions() > before, "after {steps} steps");
        assert!(!listen(&mut quiet).pieces.is_empty(), "after {steps} steps");
        bench.run();
        assert!(noisy.iter_mut().all(|reply| listen(reply).text().len() == 150), "all of it in the end");
        assert!(bench.is_at_rest());
    }
}

/// P-L3: whoever goes is out at the next step, in the queue, in prefill and in decode, and nothing of it stays.
#[test]
fn three_hundred_cancels_leave_nothing_behind() {
    let long = format!("say {}", "x".repeat(300));
    for round in 0..100 {
        let mut bench = Bench::new(Settings { max_sequences: 2, step_rows: 16, ..Settings::default() });

        let prefill = bench.submit(&ask(long.clone()));
        for _ in 0..=round % 10 {
            bench.step();
        }
        assert_eq!((bench.gauges.running(), bench.gauges.decoded_tokens()), (1, 0));
        drop(prefill);
        bench.step();
        assert!(bench.is_at_rest() && bench.probe.cells() == 0, "prefill, round {round}");

        let mut decode = bench.submit(&ask("forever"));
        let mut pieces = 0;
        while pieces <= round {
            bench.step();
            pieces += listen(&mut decode).pieces.len();
        }
        assert_eq!(bench.gauges.running(), 1);
        drop(decode);
        bench.step();
        assert!(bench.is_at_rest() && bench.probe.cells() == 0, "decode, round {round}");

        let blockers = [bench.submit(&ask("forever")), bench.submit(&ask("forever"))];
        let queued = bench.submit(&ask("say never"));
        for _ in 0..=round % 10 {
            bench.step();
        }
        assert_eq!((bench.gauges.running(), bench.gauges.waiting()), (2, 1));
        drop(queued);
        bench.step();
        assert_eq!((bench.gauges.running(), bench.gauges.waiting()), (2, 0), "queue, round {round}");
        drop(blockers);
        bench.step();
        assert!(bench.is_at_rest() && bench.probe.cells() == 0, "after all, round {round}");
    }
}

#[test]
fn sixteen_streams_share_their_steps() {
    let mut bench = Bench::new(Settings { max_sequences: 16, ..Settings::default() });
    let mut replies: Vec<Generation> = (0..16).map(|_| bench.submit(&ask("count 30"))).collect();
    bench.run();
    assert!(replies.iter_mut().all(|reply| listen(reply).text().ends_with("29 30")));
    let full = bench.probe.steps().iter().filter(|step| step.sampled >= 8).count();
    assert!(full >= 30, "{full}");
    assert!(bench.gauges.rows_per_step().iter().skip(3).sum::<u64>() >= 30);
}

/// P-L4: a reader that stalls parks its own row alone; it goes on exactly where it was, or is closed after 30 s.
#[test]
fn a_stalled_reader_is_parked_and_others_go_on() {
    let whole = Bench::new(Settings::default()).hear(&ask("count 300"));
    for sequences in [1, 4] {
        // With a single place, the parked one loses its own to the others.
        let mut bench = Bench::new(Settings { max_sequences: sequences, ..Settings::default() });
        let mut stalled = bench.submit(&Ask { buffer: 4_096, ..ask("count 300") });
        let mut other = bench.submit(&ask("count 100"));
        bench.run();
        assert_eq!((bench.gauges.running(), bench.gauges.parked()), (0, 1));
        assert!(listen(&mut other).text().ends_with("99 100"));
        let mut heard = listen(&mut stalled);
        assert!(heard.end.is_none() && heard.pieces.len() < 300);
        while heard.end.is_none() {
            bench.run();
            let more = listen(&mut stalled);
            assert!(!more.pieces.is_empty() || more.end.is_some(), "it goes on");
            heard.pieces.extend(more.pieces);
            heard.end = more.end;
        }
        assert_eq!(heard.pieces, whole.pieces);
        assert_eq!(heard.finish().usage.completion, whole.finish().usage.completion);
        assert!(bench.is_at_rest());
    }
}

#[test]
fn a_reader_that_never_comes_back_is_closed() {
    let mut bench = Bench::new(Settings::default());
    let mut stalled = bench.submit(&Ask { buffer: 4_096, ..ask("forever") });
    bench.run();
    let Progress::Idle { until: Some(until) } = bench.step() else { panic!("it waits") };
    assert_eq!(until, bench.now + Duration::from_secs(30));
    bench.now = until - Duration::from_millis(1);
    bench.step();
    assert_eq!(bench.gauges.parked(), 1);
    bench.now = until;
    bench.step();
    assert!(bench.is_at_rest() && bench.probe.cells() == 0);
    assert_eq!(*listen(&mut stalled).error(), GenerateError::Stalled);
}

/// A deadline ends a request wherever it is.
#[test]
fn deadlines_hold_in_the_queue_and_after() {
    let mut bench = Bench::new(Settings { max_sequences: 1, ..Settings::default() });
    let mut running = bench.submit(&Ask { seconds: 20, ..ask("forever") });
    let mut queued = bench.submit(&Ask { seconds: 10, ..ask("say late") });
    bench.step();
    bench.now += Duration::from_secs(10);
    bench.step();
    assert_eq!(*listen(&mut queued).error(), GenerateError::Deadline);
    assert_eq!((bench.gauges.waiting(), bench.gauges.running()), (0, 1));
    bench.now += Duration::from_secs(10);
    bench.step();
    assert_eq!(*listen(&mut running).error(), GenerateError::Deadline);
    assert!(bench.is_at_rest());
}
