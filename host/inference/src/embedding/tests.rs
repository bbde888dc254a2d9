//! Jobs through the engine, over an embedder that stops before each slice and says what it is given.

use std::sync::mpsc::{Receiver, Sender, channel};

use tollgate_backend::{BackendError, TokenKind, Vocabulary};

use super::*;

const PANICS: Token = 13;
const FAILS: Token = 14;
const IS_NO_NUMBER: Token = 15;
const MAX_TOKENS: u32 = 6;

struct Words(Vocabulary);

impl Tokenizer for Words {
    fn vocabulary(&self) -> &Vocabulary {
        &self.0
    }

    fn tokenize(&self, text: &str, _: bool) -> Result<Vec<Token>, BackendError> {
        Ok(text.bytes().map(Token::from).collect())
    }
}

struct Fake {
    ranks: bool,
    /// Told of every slice, before it is computed.
    seen: Sender<Vec<Vec<Token>>>,
    /// Lets a slice through.
    gate: Receiver<()>,
}

impl Fake {
    fn look(&self, texts: &[Vec<Token>]) -> Result<Vec<f32>, BackendError> {
        self.seen.send(texts.to_vec()).expect("the test listens");
        // The test is over if nobody opens it.
        let _ = self.gate.recv();
        let first = |text: &Vec<Token>| match text.first().copied().unwrap_or_default() {
            PANICS => panic!("as the test wants it"),
            FAILS => Err(BackendError::Failed("as the test wants it".to_owned())),
            IS_NO_NUMBER => Ok(f32::NAN),
            other => Ok(f32::from(u16::try_from(other).expect("small"))),
        };
        texts.iter().map(first).collect()
    }
}

impl Embedder for Fake {
    fn dimensions(&self) -> u32 {
        2
    }

    fn tokenizer(&self) -> Arc<dyn Tokenizer> {
        Arc::new(Words(Vocabulary::new([("a", TokenKind::Text)], Vec::new(), None, None)))
    }

    fn max_tokens(&self) -> u32 {
        MAX_TOKENS
    }

    fn memory(&self) -> Memory {
        Memory::default()
    }

    fn embed(&mut self, texts: &[Vec<Token>]) -> Result<Vec<Vec<f32>>, BackendError> {
        Ok(self.look(texts)?.into_iter().map(|first| vec![1.0, first]).collect())
    }

    fn ranks(&self) -> bool {
        self.ranks
    }

    fn rank(&mut self, query: &[Token], documents: &[Vec<Token>]) -> Result<Vec<f32>, BackendError> {
        let query = f32::from(u16::try_from(query.len()).expect("short"));
        Ok(self.look(documents)?.into_iter().map(|first| first - query).collect())
    }
}

struct Bench {
    // Dropped before the engine, which waits for a thread that may stand at the gate.
    gate: Sender<()>,
    seen: Receiver<Vec<Vec<Token>>>,
    engine: EmbeddingEngine,
}

impl Bench {
    /// Slices of four tokens, and of three texts.
    fn new(ranks: bool) -> Self {
        let ((tell, seen), (gate, opened)) = (channel(), channel());
        let fake = Fake { ranks, seen: tell, gate: opened };
        let settings = EmbeddingSettings { queue: 16, batch_tokens: 4, batch_texts: 3, ..EmbeddingSettings::default() };
        let engine = EmbeddingEngine::start("fake", Box::new(fake), settings).expect("it starts");
        Bench { gate, seen, engine }
    }

    fn submit_until(&self, tenant: &str, work: EmbedWork, deadline: Instant) -> Embedding {
        let ticket = self.engine.reserve(tenant).expect("a place");
        self.engine.submit(EmbedJob { work, ticket, deadline }).expect("it is taken")
    }

    fn submit(&self, tenant: &str, texts: &[&[Token]]) -> Embedding {
        let texts = texts.iter().map(|text| text.to_vec()).collect();
        self.submit_until(tenant, EmbedWork::Texts(texts), Instant::now() + Duration::from_secs(60))
    }

    /// Lets the thread go on for as long as the test takes.
    fn open(&self) {
        (0..1_000).for_each(|_| self.gate.send(()).expect("the thread lives"));
    }
}

fn vectors(firsts: &[f32]) -> Embedded {
    Embedded::Vectors(firsts.iter().map(|first| vec![1.0, *first]).collect())
}

#[tokio::test]
async fn a_big_job_takes_turns_with_small_ones() {
    let bench = Bench::new(false);
    let big = bench.submit("a", &[[1, 1].as_slice(); 10]);
    assert_eq!(bench.seen.recv().expect("a slice").len(), 2, "four tokens");
    let (other, own) = (bench.submit("b", &[&[2]]), bench.submit("a", &[&[3]]));
    bench.open();
    assert_eq!(other.outcome().await, Ok(vectors(&[2.0])));
    assert_eq!(own.outcome().await, Ok(vectors(&[3.0])));
    assert_eq!(big.outcome().await, Ok(vectors(&[1.0; 10])));
    let firsts: Vec<Token> = bench.seen.try_iter().map(|slice| slice[0][0]).collect();
    assert_eq!(firsts, [1, 2, 3, 1, 1, 1], "after the first slice");
    assert_eq!((bench.engine.gauges().steps(), bench.engine.gauges().waiting()), (7, 0));
}

#[tokio::test]
async fn texts_of_no_length_take_turns_too() {
    let bench = Bench::new(false);
    let empty: &[Token] = &[];
    let big = bench.submit("a", &[empty; 7]);
    assert_eq!(bench.seen.recv().expect("a slice").len(), 3);
    let other = bench.submit("b", &[&[2]]);
    bench.open();
    assert_eq!(other.outcome().await, Ok(vectors(&[2.0])));
    assert_eq!(big.outcome().await, Ok(vectors(&[0.0; 7])));
    assert_eq!(bench.seen.try_iter().map(|slice| slice.len()).collect::<Vec<_>>(), [3, 1, 1], "after the first slice");
}

#[tokio::test]
async fn what_nobody_waits_for_is_not_computed() {
    let bench = Bench::new(false);
    let first = bench.submit("a", &[&[1]]);
    bench.seen.recv().expect("it has begun");
    drop(bench.submit("a", &[&[2]]));
    let late = bench.submit_until("a", EmbedWork::Texts(vec![vec![3]]), Instant::now());
    bench.open();
    assert_eq!(first.outcome().await, Ok(vectors(&[1.0])));
    assert_eq!(late.outcome().await, Err(EmbedError::Late));
    assert_eq!(bench.submit("a", &[&[4]]).outcome().await, Ok(vectors(&[4.0])));
    assert_eq!(bench.seen.try_iter().collect::<Vec<_>>(), [[[4]]]);
}

#[tokio::test]
async fn a_failure_is_the_jobs_alone() {
    let bench = Bench::new(false);
    bench.open();
    for (token, words) in [(PANICS, "panicked"), (FAILS, "as the test wants it"), (IS_NO_NUMBER, "not made of numbers")] {
        let error = bench.submit("a", &[&[1], &[token]]).outcome().await.expect_err("it fails");
        assert!(matches!(error, EmbedError::Failed(_)) && error.to_string().contains(words), "{error}");
    }
    assert_eq!(bench.submit("a", &[&[1]]).outcome().await, Ok(vectors(&[1.0])));
    assert!(bench.engine.is_alive());
    assert_eq!(bench.submit("a", &[]).outcome().await, Ok(vectors(&[])));
}

#[tokio::test]
async fn what_the_model_does_not_do_is_refused_before_it_waits() {
    let bench = Bench::new(false);
    let long = bench.submit("a", &[&[1], &[1; 7]]).outcome().await;
    assert_eq!(long, Err(EmbedError::TooLong { index: 1, tokens: 7, most: MAX_TOKENS }));
    let soon = Instant::now() + Duration::from_secs(60);
    let rank = EmbedWork::Rank { query: vec![1], documents: vec![vec![1]] };
    assert!(matches!(bench.submit_until("a", rank, soon).outcome().await, Err(EmbedError::Unsupported(_))));
    assert_eq!(bench.engine.tokenize("ab"), Ok(vec![97, 98]));

    let bench = Bench::new(true);
    bench.open();
    assert!(matches!(bench.submit("a", &[&[1]]).outcome().await, Err(EmbedError::Unsupported(_))));
    let rank = |documents| EmbedWork::Rank { query: vec![1, 1], documents };
    let scores = bench.submit_until("a", rank(vec![vec![5], vec![3], vec![9]]), soon).outcome().await;
    assert_eq!(scores, Ok(Embedded::Scores(vec![3.0, 1.0, 7.0])));
    assert_eq!(bench.seen.try_iter().map(|slice| slice.len()).collect::<Vec<_>>(), [1, 1, 1], "the query is computed each time");
    let long = bench.submit_until("a", rank(vec![vec![1; 5]]), soon).outcome().await;
    assert_eq!(long, Err(EmbedError::TooLong { index: 0, tokens: 7, most: MAX_TOKENS }));
}

#[tokio::test]
async fn places_are_bounded_and_the_end_is_told() {
    let bench = Bench::new(false);
    let held: Vec<Ticket> = (0..16).map_while(|_| bench.engine.reserve("a").ok()).collect();
    assert!((1..16).contains(&held.len()), "a tenant has its share of them");
    assert!(matches!(bench.engine.reserve("a"), Err(SubmitError::QueueFull { .. })));
    drop(held);
    let ticket = bench.engine.reserve("a").expect("a place");
    bench.engine.shutdown(Instant::now());
    assert!(!bench.engine.is_alive());
    assert!(matches!(bench.engine.reserve("a"), Err(SubmitError::Stopped)));
    let job = EmbedJob { work: EmbedWork::Texts(Vec::new()), ticket, deadline: Instant::now() };
    assert!(matches!(bench.engine.submit(job), Err(SubmitError::Stopped)));
    let weak = bench.engine.downgrade();
    drop(bench);
    assert!(weak.upgrade().is_none());
    let (answer, embedding) = Answer::new();
    drop(answer);
    assert_eq!(embedding.outcome().await, Err(EmbedError::Stopped));
}
