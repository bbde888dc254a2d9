//! The streaming machine: whole, split, and what it holds.

use proptest::prelude::*;

use super::{MAX_HELD, Masker, Syntax};
use crate::corpus::{self, Sample};
use crate::kind::{Kind, Kinds};
use crate::ledger::Ledger;

fn masker(syntax: Syntax) -> Masker {
    Masker::new(Kind::ALL.into_iter().collect::<Kinds>(), syntax)
}

/// The masked text, from these pieces.
fn mask_pieces<'a>(syntax: Syntax, pieces: impl IntoIterator<Item = &'a str>) -> String {
    let (mut masker, mut ledger, mut out) = (masker(syntax), Ledger::default(), String::new());
    for piece in pieces {
        masker.push(piece, &mut ledger, &mut out);
        assert!(masker.held() < MAX_HELD, "{} characters are held", masker.held());
    }
    masker.finish(&mut ledger, &mut out);
    assert_eq!(masker.held(), 0);
    out
}

fn mask(text: &str) -> String {
    mask_pieces(Syntax::Plain, [text])
}

/// Every value, alone and within words and marks, becomes the placeholder and nothing around it changes.
fn assert_masked(label: &str, values: &[&str]) {
    for value in values {
        for (before, after) in
            [("", ""), ("see ", " now"), ("(", ")"), ("\"", "\","), ("=", ". Next"), ("是", "是"), ("\n", "\n")]
        {
            let text = format!("{before}{value}{after}");
            assert_eq!(mask(&text), format!("{before}[{label}_1]{after}"), "in {text:?}");
        }
    }
}

fn assert_clean(values: &[&str]) {
    for value in values {
        for (before, after) in [("", ""), ("see ", " now"), ("(", ")"), ("'", "'"), ("=", ". Next")] {
            let text = format!("{before}{value}{after}");
            assert_eq!(mask(&text), text);
        }
    }
}

#[test]
fn emails() {
    assert_masked(
        "EMAIL",
        &["a@b.co", "first.last+tag@mail.example.co.id", "_x@test.example", "o'neil@test.example", "ümit@exämple.example"],
    );
    assert_clean(&[
        "a@b",
        "a@b.c",
        "a@b.c1",
        "@b.co",
        "a@.co",
        "a@-b.co",
        "a..b@",
        "a.@b.co",
        "a@10.0.0.1",
        "a @b.co",
        "a@ b.co",
    ]);
    assert_eq!(mask("mail a@b.co, c@d.co; A@B.CO."), "mail [EMAIL_1], [EMAIL_2]; [EMAIL_1].");
    assert_eq!(mask("<mailto:a@b.co>"), "<mailto:[EMAIL_1]>");
    assert_eq!(mask("a@b.co-x"), "[EMAIL_1]-x");
    let local = "l".repeat(64);
    assert_eq!(mask(&format!("{local}@b.co")), "[EMAIL_1]");
    assert_clean(&[&format!("l{local}@b.co"), &format!("a@{}.{}", "d".repeat(30), "e".repeat(32))]);
    assert_eq!(mask(&format!("{local}@{}.{}", "d".repeat(30), "e".repeat(31))), "[EMAIL_1]");
}

#[test]
fn phones() {
    assert_masked(
        "PHONE",
        &[
            "+6281234567890",
            "+62 812-3456-7890",
            "+62.812.3456.7890",
            "+62 21 555 1234",
            "+1 (555) 010-4477",
            "+33 6 12 34 56 78",
            "+44 (0)20 7946 0123",
            "081234567890",
            "0812-3456-7890",
            "0812 3456 7890",
            "0812.3456.7890",
            "6281234567890",
            "62 812-3456-7890",
            "62-21-5551234",
            "(021) 555-1234",
            "(021)5551234",
            "(0274) 512345",
            "021-555 1234",
            "(555) 010-4477",
        ],
    );
    assert_clean(&[
        "8123456789",
        "08123456789012",
        "0812345",
        "08-12-2026",
        "0812-34",
        "62.812.345.678",
        "62812345",
        "+10.000.000",
        "+0812345678",
        "2+6281234567890",
        "ORD-081234567890",
        "081234567890-01",
        "x081234567890",
        "081234567890_1",
        "+1 555 010",
        "021 is one",
        "(081) 2",
        "f(2) 123-4567",
    ]);
    assert_eq!(mask("081234567890 2 kali"), "[PHONE_1] 2 kali");
    assert_eq!(mask("+62 812-3456-7890 10 kali"), "[PHONE_1] 10 kali");
    assert_eq!(mask("081234567890/081234567891,081234567890"), "[PHONE_1]/[PHONE_2],[PHONE_1]");
}

#[test]
fn niks() {
    assert_masked("NIK", &["3174011505900001", "3174015505900001", "317401-150590-0001", "3174 0115 0590 0001"]);
    assert_clean(&[
        "2074011505900001",
        "3100011505900001",
        "3174001505900001",
        "3174013205900001",
        "3174017205900001",
        "3174010005900001",
        "3174011513900001",
        "3174011500900001",
        "3174011505900000",
        "317401150590001",
        "31740115059000011",
    ]);
}

#[test]
fn npwps() {
    assert_masked("NPWP", &["01.234.567.8-901.000"]);
    assert_clean(&["012345678901000", "01.234.567.8.901.000", "01.234.567.8-901.00", "0012345678901000"]);
    assert_eq!(mask("NPWP: 012345678901000 ok"), "NPWP: [NPWP_1] ok");
    assert_eq!(mask("npwp baru 0012345678901000"), "npwp baru [NPWP_1]");
    assert_eq!(mask("NPWP 01.234.567.8-901.000, ref 012345678901000"), "NPWP [NPWP_1], ref 012345678901000");
    assert_eq!(mask("NPWP 012345678901000 1 lembar"), "NPWP [NPWP_1] 1 lembar");
    let far = format!("NPWP {} 012345678901000", "x".repeat(32));
    assert_eq!(mask(&far), far);
}

#[test]
fn cards() {
    assert_masked(
        "CARD",
        &[
            "4111111111111111",
            "4111 1111 1111 1111",
            "4111-1111-1111-1111",
            "5500005555555559",
            "378282246310005",
            "3782 822463 10005",
            "6011111111111117",
            "3530111333300000",
            "30569309025904",
            "4222222222222",
        ],
    );
    assert_clean(&[
        "4111111111111112",
        "4111 1111-1111 1111",
        "41 11 11 11 11 11 11 11",
        "8411111111111111",
        "x4111111111111111",
        "41111111111111110000",
        "0000000000000000",
    ]);
    assert_eq!(mask("4111111111111111 123"), "[CARD_1] 123");
}

#[test]
fn ibans() {
    assert_masked(
        "IBAN",
        &[
            "DE89370400440532013000",
            "de89 3704 0044 0532 0130 00",
            "GB82 WEST 1234 5698 7654 32",
            "NL91ABNA0417164300",
            "NO9386011117947",
        ],
    );
    assert_clean(&[
        "DE88370400440532013000",
        "DE8937040044053201300",
        "DE893704004405320130000",
        "XX89370400440532013000",
        "DE89370400440532013000x",
        "xDE89370400440532013000",
        "DE89  3704 0044",
    ]);
    assert_eq!(mask("DE89 3704 0044 0532 0130 00 dan"), "[IBAN_1] dan");
}

#[test]
fn only_the_chosen_kinds_are_masked() {
    let kinds: Kinds = [Kind::Phone].into_iter().collect();
    let (mut masker, mut ledger, mut out) = (Masker::new(kinds, Syntax::Plain), Ledger::default(), String::new());
    masker.push("a@b.co 081234567890 4111111111111111", &mut ledger, &mut out);
    masker.finish(&mut ledger, &mut out);
    assert_eq!(out, "a@b.co [PHONE_1] 4111111111111111");
}

#[test]
fn words_leave_as_soon_as_they_end() {
    let (mut masker, mut ledger, mut out) = (masker(Syntax::Plain), Ledger::default(), String::new());
    masker.push("Hello wor", &mut ledger, &mut out);
    assert_eq!(out, "Hello ");
    masker.push("ld, call 0812", &mut ledger, &mut out);
    assert_eq!(out, "Hello world, call ");
    masker.push(" x", &mut ledger, &mut out);
    assert_eq!(out, "Hello world, call 0812 ");
}

#[test]
fn json_stays_json() {
    for (text, masked) in [
        (r#"{"to":"a@b.co","n":4111111111111111}"#, r#"{"to":"[EMAIL_1]","n":"[CARD_1]"}"#),
        (r#"{"t":"x\n081234567890\t3174011505900001\"a@b.co\""}"#, r#"{"t":"x\n[PHONE_1]\t[NIK_1]\"[EMAIL_1]\""}"#),
        (r#"{"t":"\u00e9081234567890 \u0812-3456-7890"}"#, r#"{"t":"\u00e9[PHONE_1] \u0812-3456-7890"}"#),
        (r#"["wa.me\/6281234567890"]"#, r#"["wa.me\/[PHONE_1]"]"#),
        (r#"[1.5e10,-2,true,"2026-05-01"]"#, r#"[1.5e10,-2,true,"2026-05-01"]"#),
    ] {
        let out = mask_pieces(Syntax::Json, text.split_inclusive(|_: char| true));
        assert_eq!(out, masked);
        assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok(), "{out}");
    }
}

/// The figures of a corpus: planted values that were masked, planted in all, masked in all.
fn count(samples: &[Sample]) -> (usize, usize, usize) {
    let (mut hit, mut planted, mut found) = (0, 0, 0);
    for sample in samples {
        let (mut masker, mut ledger, mut out) = (masker(Syntax::Plain), Ledger::default(), String::new());
        masker.push(&sample.text, &mut ledger, &mut out);
        masker.finish(&mut ledger, &mut out);
        hit += sample.planted.iter().filter(|value| !out.contains(value.as_str())).count();
        planted += sample.planted.len();
        found += ledger.take_flags().iter().map(|flag| usize::try_from(flag.count).expect("a few")).sum::<usize>();
    }
    (hit, planted, found)
}

/// The issue's measure: every planted value masked, nothing else, at least 98 in 100 masks right.
#[test]
#[allow(clippy::print_stderr, clippy::cast_precision_loss, reason = "the figures are part of what the test is for")]
fn the_corpus_is_masked_exactly() {
    let samples = corpus::samples(1_000, 1);
    let clean = samples.iter().filter(|sample| sample.planted.is_empty()).count();
    assert!(clean >= 300, "{clean} clean texts");
    let (hit, planted, found) = count(&samples);
    let (recall, precision) = (hit as f64 / planted as f64, hit as f64 / found as f64);
    eprintln!("texts=1000 clean={clean} planted={planted} masked={found} recall={recall:.4} precision={precision:.4}");
    assert_eq!(hit, planted, "a planted value was missed");
    assert!(precision >= 0.98, "precision {precision}");
    for sample in &samples {
        assert_eq!(mask(&sample.text), sample.masked, "{:?}", sample.text);
    }
}

/// P-W9: cut at every character boundary, the same text leaves, and never six characters of a planted value in a row.
#[test]
fn no_cut_changes_or_leaks_anything() {
    for sample in corpus::samples(1_000, 1) {
        for (at, _) in sample.text.char_indices() {
            let (head, tail) = sample.text.split_at(at);
            assert_eq!(mask_pieces(Syntax::Plain, [head, tail]), sample.masked, "cut at {at}");
        }
        let each = mask_pieces(Syntax::Plain, sample.text.split_inclusive(|_: char| true));
        assert_eq!(each, sample.masked, "cut everywhere");
        // What was released at any time is a beginning of this, since a release is only ever added to.
        for value in &sample.planted {
            let chars: Vec<char> = value.chars().collect();
            for six in chars.windows(6) {
                let six: String = six.iter().collect();
                assert!(!each.contains(&six), "{six:?} of a value left in {each:?}");
            }
        }
    }
}

/// Pieces of values and what may stand between them.
fn nasty() -> impl Strategy<Value = Vec<&'static str>> {
    let alphabet = [
        "0",
        "1",
        "2",
        "8",
        "08",
        "081234567890",
        "62",
        "+62",
        "+",
        "(",
        ")",
        "(021) ",
        " ",
        "-",
        ".",
        ",",
        "@",
        "a",
        "Z",
        "_",
        "'",
        "é",
        "是",
        "👍",
        "a@b.co",
        "x.y",
        "b.co",
        "DE89",
        "DE89370400440532013000",
        "4111 1111 1111 1111",
        "4111",
        "1111",
        "3174011505900001",
        "NPWP",
        "npwp ",
        "01.234.567.8-901.000",
        "012345678901000",
        "\u{a0}",
        "\u{2011}",
        "\n",
        "\"",
        "\\",
        "\\u",
        "[",
        "]",
        "[EMAIL_1]",
    ];
    prop::collection::vec(prop::sample::select(alphabet.to_vec()), 0..60)
}

proptest! {
    /// However a text is cut, the same leaves; little is held; and what left has nothing more to mask.
    #[test]
    fn any_cut_of_any_text_gives_the_same(parts in nasty(), sizes in prop::collection::vec(1..9_usize, 1..40)) {
        let text = parts.concat();
        for syntax in [Syntax::Plain, Syntax::Json] {
            let whole = mask_pieces(syntax, [text.as_str()]);
            prop_assert_eq!(&mask_pieces(syntax, parts.iter().copied()), &whole);
            let mut pieces = Vec::new();
            let mut chars = text.chars().peekable();
            for size in sizes.iter().cycle() {
                if chars.peek().is_none() {
                    break;
                }
                pieces.push(chars.by_ref().take(*size).collect::<String>());
            }
            prop_assert_eq!(&mask_pieces(syntax, pieces.iter().map(String::as_str)), &whole);
        }
    }

    /// Text without a digit and without an `@` is never touched.
    #[test]
    fn words_are_never_touched(text in "[a-zA-Z .,;:!?'\"()\\[\\]_%+é是\n-]{0,300}") {
        prop_assert_eq!(mask(&text), text);
    }
}
