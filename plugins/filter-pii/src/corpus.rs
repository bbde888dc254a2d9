//! Generated texts with planted values, for tests: what has to be masked, and what only looks like it. No value is a real person's.
//!
//! Generators and expectations are independent of the scanners. The same seed gives the same texts.

/// One text.
#[derive(Debug, Clone)]
pub struct Sample {
    /// As it is written.
    pub text: String,
    /// As it has to leave a filter that masks all kinds.
    pub masked: String,
    /// The values in it, in order. None: the text is clean and has to leave as it is.
    pub planted: Vec<String>,
}

/// `count` texts; two in five are clean look-alikes, the others hold one or two values and at times a look-alike.
#[must_use]
pub fn samples(count: usize, seed: u64) -> Vec<Sample> {
    let mut chance = Chance(seed);
    (0..count).map(|at| if at % 5 < 2 { clean(&mut chance) } else { planted(&mut chance) }).collect()
}

const FRAMES: [&str; 18] = [
    "Please contact {} before noon.",
    "My details: {}, thank you!",
    "Is {} still valid?",
    "She wrote \"{}\" on the form.",
    "Reach me via ({}) tomorrow.",
    "Note:\n{}\nand nothing else.",
    "Old value {}; new value unknown.",
    "It was {}",
    "Ref={} as agreed.",
    "Tolong hubungi {} ya.",
    "Data saya {} sudah benar?",
    "Alamat/nomor: {}.",
    "Kirim ke {} sekarang juga.",
    "- {}\n- selesai",
    "Ditulis '{}' di formulir.",
    "<b>{}</b>",
    "请联系{}谢谢",
    "👍{}👍",
];

const TAX_FRAMES: [&str; 4] = ["NPWP: {}.", "NPWP saya {} ya.", "My NPWP is {}, thanks.", "npwp {}"];

const LOCALS: [&str; 6] = ["nama.saya", "user_seven", "first-last", "x+tag", "o'brien", "ümit"];
const DOMAINS: [&str; 5] =
    ["example.com", "mail.example.co.id", "sub.domain.example.org", "beispiel-ä.example", "test.example.net"];
const OPERATORS: [&str; 6] = ["12", "13", "21", "52", "78", "95"];

/// SplitMix64.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// From `from` up to `to`, both included.
    fn number(&mut self, from: u64, to: u64) -> u64 {
        from + self.next() % (to - from + 1)
    }

    fn pick<'a>(&mut self, list: &[&'a str]) -> &'a str {
        let length = u64::try_from(list.len()).unwrap_or(1);
        let at = usize::try_from(self.next() % length).unwrap_or(0);
        list.get(at).copied().unwrap_or_default()
    }

    /// `count` digits from `least` to 9.
    fn digits(&mut self, count: usize, least: u64) -> String {
        (0..count).map(|_| self.number(least, 9).to_string()).collect()
    }

    fn letters(&mut self, count: usize, alphabet: &[&str]) -> String {
        (0..count).map(|_| self.pick(alphabet)).collect()
    }
}

fn clean(chance: &mut Chance) -> Sample {
    let sentences: Vec<String> = (0..chance.number(1, 3))
        .map(|_| {
            let value = look_alike(chance);
            chance.pick(&FRAMES).replace("{}", &value)
        })
        .collect();
    let text = sentences.join(" ");
    Sample { masked: text.clone(), text, planted: Vec::new() }
}

fn planted(chance: &mut Chance) -> Sample {
    let mut sample = Sample { text: String::new(), masked: String::new(), planted: Vec::new() };
    let mut counts: Vec<&'static str> = Vec::new();
    for _ in 0..chance.number(1, 2) {
        if chance.number(0, 2) == 0 {
            let sentence = format!("{} ", chance.pick(&FRAMES).replace("{}", &look_alike(chance)));
            sample.text.push_str(&sentence);
            sample.masked.push_str(&sentence);
        }
        let (label, frame, value) = value(chance);
        counts.push(label);
        let number = counts.iter().filter(|other| **other == label).count();
        sample.text.push_str(&frame.replace("{}", &value));
        sample.text.push(' ');
        sample.masked.push_str(&frame.replace("{}", &format!("[{label}_{number}]")));
        sample.masked.push(' ');
        sample.planted.push(value);
    }
    sample
}

/// A value of some kind: its label, a frame that suits it, its text.
fn value(chance: &mut Chance) -> (&'static str, &'static str, String) {
    let frame = chance.pick(&FRAMES);
    match chance.number(0, 5) {
        0 => ("EMAIL", frame, email(chance)),
        1 => ("PHONE", frame, phone(chance)),
        2 => ("NIK", frame, nik(chance)),
        3 => {
            let (needs_name, value) = npwp(chance);
            ("NPWP", if needs_name { chance.pick(&TAX_FRAMES) } else { frame }, value)
        }
        4 => ("CARD", frame, card(chance)),
        _ => ("IBAN", frame, iban(chance)),
    }
}

fn email(chance: &mut Chance) -> String {
    format!("{}{}@{}", chance.pick(&LOCALS), chance.number(10, 99_999), chance.pick(&DOMAINS))
}

fn phone(chance: &mut Chance) -> String {
    let operator = chance.pick(&OPERATORS);
    let (a, b, c) = (chance.digits(4, 1), chance.digits(4, 1), chance.digits(3, 1));
    match chance.number(0, 12) {
        0 => format!("+62 8{operator}-{a}-{b}"),
        1 => format!("+628{operator}{a}{b}"),
        2 => format!("08{operator}-{a}-{b}"),
        3 => format!("08{operator}{a}{c}"),
        4 => format!("08{operator} {a} {b}"),
        5 => format!("628{operator}{a}{b}"),
        6 => format!("08{operator}.{a}.{c}"),
        7 => format!("(021) {c}-{a}"),
        8 => format!("021-{c}{a}"),
        9 => format!("+1 ({c}) {c}-{a}"),
        10 => format!("+44 20 {a} {b}"),
        11 => format!("+62\u{a0}8{operator}\u{2011}{a}\u{2011}{b}"),
        _ => format!("(2{}) {c}-{a}", chance.digits(2, 1)),
    }
}

fn nik(chance: &mut Chance) -> String {
    let province = chance.pick(&["11", "12", "31", "32", "33", "34", "61", "73", "81", "92"]);
    let day = chance.number(1, 28) + if chance.number(0, 1) == 0 { 0 } else { 40 };
    let (month, year) = (chance.number(1, 12), chance.number(0, 99));
    let (regency, district) = (chance.number(1, 79), chance.number(1, 40));
    let head = format!("{province}{regency:02}{district:02}{day:02}{month:02}{year:02}");
    // No card has the number as well.
    let serial = (1..=9).map(|serial| format!("{head}{serial:04}")).find(|nik| luhn_rest(nik) != 0);
    serial.unwrap_or_default()
}

/// Whether it needs its name beside it, and its text.
fn npwp(chance: &mut Chance) -> (bool, String) {
    let digits: Vec<String> = [2, 3, 3, 1, 3, 3].iter().map(|count| chance.digits(*count, 0)).collect();
    let [a, b, c, d, e, f] = digits.as_slice() else { return (false, String::new()) };
    match chance.number(0, 2) {
        0 => (true, digits.concat()),
        1 => (true, format!("0{}", digits.concat())),
        _ => (false, format!("{a}.{b}.{c}.{d}-{e}.{f}")),
    }
}

fn card(chance: &mut Chance) -> String {
    let begin = chance.pick(&["4", "51", "55", "2221", "6011", "353", "37"]);
    let length = if begin == "37" { 15 } else { 16 };
    let body = format!("{begin}{}", chance.digits(length - 1 - begin.len(), 1));
    let check = (10 - luhn_rest(&format!("{body}0"))) % 10;
    let sizes: &[usize] = if begin == "37" { &[4, 6, 5] } else { &[4, 4, 4, 4] };
    grouped(&format!("{body}{check}"), sizes, chance.pick(&["", " ", "-"]))
}

fn iban(chance: &mut Chance) -> String {
    let (country, body) = match chance.number(0, 3) {
        0 => ("DE", chance.digits(18, 0)),
        1 => ("GB", format!("TEST{}", chance.digits(14, 0))),
        2 => ("NL", format!("BANK{}", chance.digits(10, 0))),
        _ => ("FR", chance.digits(23, 0)),
    };
    let check = 98 - rest_by_97(&format!("{body}{country}00"));
    grouped(&format!("{country}{check:02}{body}"), &[4; 7], chance.pick(&["", " "]))
}

/// What must stay.
fn look_alike(chance: &mut Chance) -> String {
    let hex = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "a", "b", "c", "d", "e", "f"];
    let (four, six) = (chance.digits(4, 3), chance.digits(6, 3));
    let (day, month) = (chance.number(1, 28), chance.number(1, 12));
    match chance.number(0, 27) {
        0 => format!("ORD-2026-0812{six}"),
        1 => format!("INV/2026/{six}"),
        2 => format!("#1{four}{six}"),
        3 => format!("2026-{month:02}-{day:02}"),
        4 => format!("{day:02}-{month:02}-1945 10:30"),
        5 => format!("{day:02}.{month:02}.2026"),
        6 => format!("Rp 62.{}.000.000", chance.number(100, 999)),
        7 => format!("${}", chance.pick(&["1,234,567.89", "12.50", "4,000,000,000,000"])),
        8 => "+10.000.000".to_owned(),
        9 => format!("v2.{}.0-rc.1", chance.number(10, 20)),
        10 => format!("10.0.{}.{four}", chance.number(10_000, 19_999)),
        11 => format!("{}.{}.234.56", chance.pick(&["62", "192", "10", "08"]), chance.number(0, 255)),
        12 => format!("2001:db8::8a2e:370:{four}"),
        13 => chance.letters(40, &hex),
        14 => chance.letters(64, &hex),
        15 => format!(
            "{}-{}-4{}-a{}-{}",
            chance.letters(8, &hex),
            four,
            chance.letters(3, &hex),
            chance.letters(3, &hex),
            six.repeat(2)
        ),
        16 => chance.pick(&["978-602-8519-93-9", "9786028519939", "0-306-40615-2"]).to_owned(),
        17 => chance.pick(&["081-23-45", "1500-888", "0812345", "08123456789012", "8123456789", "00812345678901"]).to_owned(),
        18 => chance
            .pick(&["root@localhost", "user@host1", "a@b.c", "svc@10.0.0.1", "@handle", "pkg@1.2.3", "nama @ tempat.test"])
            .to_owned(),
        19 | 20 => {
            let body = format!("4{}{}", chance.digits(3, 3), chance.digits(11, 3));
            let wrong = (11 - luhn_rest(&format!("{body}0"))) % 10;
            grouped(&format!("{body}{wrong}"), &[4, 4, 4, 4], chance.pick(&["", " ", "-"]))
        }
        21 => format!("317401{}{month:02}90{four}", chance.number(32, 40)),
        22 => format!("317401{day:02}{}90{four}", chance.number(13, 99)),
        23 => format!("99{six}{four}{four}"),
        24 => {
            let body = chance.digits(18, 0);
            let check = 98 - rest_by_97(&format!("{body}DE00"));
            format!("DE{:02}{body}", if check > 50 { check - 1 } else { check + 1 })
        }
        25 => format!("-6.{six}, 106.{six}"),
        26 => format!("49015420{six}8"),
        _ => format!("17{six}{four}{four}{}", chance.digits(3, 3)),
    }
}

fn grouped(value: &str, sizes: &[usize], gap: &str) -> String {
    let mut rest = value;
    let mut parts = Vec::new();
    for size in sizes {
        let (head, tail) = rest.split_at_checked(*size).unwrap_or((rest, ""));
        parts.push(head);
        rest = tail;
    }
    parts.retain(|part| !part.is_empty());
    parts.join(gap)
}

/// The last digit of the Luhn sum: 0 for a valid number.
fn luhn_rest(digits: &str) -> u32 {
    let values = digits.chars().rev().filter_map(|c| c.to_digit(10));
    values.zip([1, 2].into_iter().cycle()).map(|(digit, weight)| digit * weight).map(|sum| sum / 10 + sum % 10).sum::<u32>() % 10
}

/// The remainder by 97 with letters as 10 to 35.
fn rest_by_97(text: &str) -> u32 {
    let digits: String = text.chars().filter_map(|c| c.to_digit(36)).map(|value| value.to_string()).collect();
    digits.chars().filter_map(|c| c.to_digit(10)).fold(0, |rest, digit| (rest * 10 + digit) % 97)
}
