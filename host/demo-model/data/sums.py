"""Sums and unit conversions: the questions, their wordings and their answers.

Small numbers only: sums and differences up to 99, products and quotients of the
multiplication tables up to 12. Anything larger is declined.
"""

from dataclasses import dataclass

SIGNS = {"+": ["+"], "-": ["-"], "x": ["x", "*", "×"], "/": [":", "/", "÷"]}
WORDS = {
    "en": {"+": ["plus", "and", "added to"], "-": ["minus", "take away", "less"], "x": ["times", "multiplied by", "x"], "/": ["divided by", "over"]},
    "id": {"+": ["tambah", "ditambah", "plus"], "-": ["kurang", "dikurangi", "dikurang", "min"], "x": ["kali", "dikali", "x"],
           "/": ["bagi", "dibagi"]},
}
FRAMES = {
    "en": ["{}", "{}", "{}", "what is {}", "what's {}", "how much is {}", "calculate {}", "compute {}", "can you calculate {}", "{} equals", "{} =", "{} = ?",
           "tell me {}", "what does {} make", "what do you get for {}", "solve {}", "work out {}", "please calculate {}", "my homework: {}", "i need {}",
           "sum: {}", "do you know {}", "what is the result of {}", "{} is", "result of {}", "quick maths: {}", "give me {}", "{} makes how much"],
    "id": ["{}", "{}", "{}", "berapa {}", "{} berapa", "{} sama dengan", "{} sama dengan berapa", "hitung {}", "tolong hitung {}", "hitungkan {}",
           "berapa hasil {}", "hasil dari {}", "hasil {}", "berapakah {}", "{} =", "{} = ?", "coba hitung {}", "PR saya: {}", "kamu tahu {}", "{} jadi berapa",
           "{} itu berapa", "jawab {}", "soal: {}", "mau tahu {}", "{} ada berapa", "kalau {} berapa"],
}
# Little stories: {0} first number, {1} second.
STORIES = {
    ("en", "+"): ["i have {0} apples and get {1} more", "i had {0} coins and found {1}, how many now", "add {0} and {1}", "the sum of {0} and {1}", "add {1} to {0}",
                  "{0} people are here and {1} more come, how many are there", "if you add {0} and {1} what do you get", "{0} eggs and {1} eggs together"],
    ("en", "-"): ["i have {0} apples and eat {1}, how many are left", "subtract {1} from {0}", "the difference of {0} and {1}", "take {1} from {0}",
                  "there were {0} birds and {1} flew away", "{0} sweets, {1} are gone, what is left", "i paid {1} out of {0}, how much remains"],
    ("en", "x"): ["multiply {0} by {1}", "the product of {0} and {1}", "{0} boxes with {1} pens each, how many pens", "{0} multiplied with {1}", "{0} rows of {1} chairs"],
    ("en", "/"): ["divide {0} by {1}", "share {0} sweets among {1} children", "split {0} into {1} parts", "{0} cakes for {1} people, how many each"],
    ("id", "+"): ["saya punya {0} apel dan dapat {1} lagi", "jumlahkan {0} dan {1}", "jumlah {0} dan {1}", "tambahkan {1} ke {0}", "tambahin {0} sama {1}",
                  "ada {0} orang lalu datang {1} lagi, jadi berapa", "punya {0} kelereng, nemu {1}, total berapa"],
    ("id", "-"): ["saya punya {0} apel dan dimakan {1}, sisa berapa", "kurangi {0} dengan {1}", "selisih {0} dan {1}", "{0} diambil {1} sisa berapa",
                  "ada {0} burung, {1} terbang, tinggal berapa", "uang {0} dipakai {1} sisanya berapa"],
    ("id", "x"): ["kalikan {0} dengan {1}", "hasil kali {0} dan {1}", "{0} kotak isinya {1} pensil, semua ada berapa", "perkalian {0} dan {1}"],
    ("id", "/"): ["bagi {0} dengan {1}", "{0} permen dibagi untuk {1} anak", "{0} dibagi rata untuk {1} orang", "pembagian {0} oleh {1}"],
}
def _indonesian_numbers() -> list[str]:
    """0 to 20 in words; the teens are two words."""
    ones = "nol satu dua tiga empat lima enam tujuh delapan sembilan".split()
    return [*ones, "sepuluh", "sebelas", *(f"{word} belas" for word in ones[2:]), "dua puluh"]


NUMBER_WORDS = {
    "en": (
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen twenty"
    ).split(),
    "id": _indonesian_numbers(),
}
TOO_BIG = {
    "en": "That is too big for me: I only do sums with small numbers.",
    "id": "Itu terlalu besar bagi saya: saya hanya bisa hitungan dengan angka kecil.",
}



@dataclass(frozen=True)
class Unit:
    """How many of the small unit one large unit holds, and what both are called."""

    factor: int
    large: dict
    small: dict
    most: int


UNITS = [
    Unit(60, {"en": ["hour", "hours"], "id": ["jam"]}, {"en": ["minutes"], "id": ["menit"]}, 12),
    Unit(60, {"en": ["minute", "minutes"], "id": ["menit"]}, {"en": ["seconds"], "id": ["detik"]}, 12),
    Unit(24, {"en": ["day", "days"], "id": ["hari"]}, {"en": ["hours"], "id": ["jam"]}, 10),
    Unit(7, {"en": ["week", "weeks"], "id": ["minggu"]}, {"en": ["days"], "id": ["hari"]}, 12),
    Unit(12, {"en": ["year", "years"], "id": ["tahun"]}, {"en": ["months"], "id": ["bulan"]}, 12),
    Unit(12, {"en": ["dozen", "dozen"], "id": ["lusin"]}, {"en": ["pieces"], "id": ["buah"]}, 10),
    Unit(1000, {"en": ["kilometre", "kilometres", "km", "kilometers"], "id": ["kilometer", "km"]}, {"en": ["metres", "m", "meters"], "id": ["meter", "m"]}, 20),
    Unit(1000, {"en": ["kilogram", "kilograms", "kg", "kilos"], "id": ["kilogram", "kg", "kilo"]}, {"en": ["grams", "g", "gram"], "id": ["gram", "g"]}, 20),
    Unit(100, {"en": ["metre", "metres", "m", "meters"], "id": ["meter", "m"]}, {"en": ["centimetres", "cm", "centimeters"], "id": ["sentimeter", "cm", "senti"]}, 20),
    Unit(10, {"en": ["centimetre", "centimetres", "cm", "centimeters"], "id": ["sentimeter", "cm"]}, {"en": ["millimetres", "mm", "millimeters"], "id": ["milimeter", "mm"]}, 20),
    Unit(1000, {"en": ["litre", "litres", "liters"], "id": ["liter"]}, {"en": ["millilitres", "ml", "milliliters"], "id": ["mililiter", "ml"]}, 20),
]
UNIT_FRAMES = {
    "en": ["how many {s} are in {n} {l}", "how many {s} is {n} {l}", "{n} {l} in {s}", "convert {n} {l} to {s}", "{n} {l} to {s}", "what is {n} {l} in {s}",
           "how many {s} are {n} {l}", "how many {s} do {n} {l} have", "{n} {l} is how many {s}", "turn {n} {l} into {s}", "{n} {l} = how many {s}",
           "i need {n} {l} as {s}", "how much is {n} {l} in {s}", "express {n} {l} in {s}"],
    "id": ["berapa {s} dalam {n} {l}", "{n} {l} berapa {s}", "{n} {l} sama dengan berapa {s}", "{n} {l} ada berapa {s}", "{n} {l} ke {s}",
           "ubah {n} {l} ke {s}", "konversi {n} {l} ke {s}", "{n} {l} jadi berapa {s}", "{n} {l} = berapa {s}", "kalau {n} {l} berapa {s}",
           "{n} {l} dalam {s}", "jadikan {n} {l} ke {s}", "{n} {l} tuh berapa {s}"],
}


def value(a: int, sign: str, b: int) -> int:
    return {"+": a + b, "-": a - b, "x": a * b, "/": a // b if b else 0}[sign]


def pick(rng) -> tuple[int, str, int]:
    """A sum within the model's range; every pair of small numbers comes up often."""
    sign = rng.choices("+-x/", [40, 25, 25, 10])[0]
    if sign == "+":
        return (rng.randint(0, 20), "+", rng.randint(0, 20)) if rng.random() < 0.6 else two_digits(rng)
    if sign == "-":
        top = 20 if rng.random() < 0.6 else 99
        a = rng.randint(0, top)
        return a, "-", rng.randint(0, a)
    a, b = rng.randint(0, 12), rng.randint(1, 12)
    return (a, "x", b) if sign == "x" else (a * b, "/", b)


def two_digits(rng) -> tuple[int, str, int]:
    a = rng.randint(1, 98)
    return a, "+", rng.randint(1, 99 - a)


def pick_big(rng) -> tuple[int, str, int]:
    """A sum beyond the model's range."""
    sign = rng.choice("+-x/")
    if sign == "x":
        return rng.randint(13, 9999), "x", rng.randint(2, 999)
    return rng.randint(100, 99999), sign, rng.randint(100 if sign != "/" else 2, 9999)


def expression(rng, lang: str, a: int, sign: str, b: int) -> str:
    """`7 + 5`, `7+5`, `7 plus 5` or `seven plus five`."""
    style = rng.random()
    if style < 0.5:
        symbol = rng.choice(SIGNS[sign])
        space = rng.choice([" ", " ", ""])
        return f"{a}{space}{symbol}{space}{b}"
    word = rng.choice(WORDS[lang][sign])
    if style > 0.9 and max(a, b) <= 20:
        return f"{NUMBER_WORDS[lang][a]} {word} {NUMBER_WORDS[lang][b]}"
    return f"{a} {word} {b}"


def question(rng, lang: str, a: int, sign: str, b: int) -> str:
    if rng.random() < 0.15 and a > 1 and b > 1:
        return rng.choice(STORIES[lang, sign]).format(a, b)
    return rng.choice(FRAMES[lang]).format(expression(rng, lang, a, sign, b))


def answer(a: int, sign: str, b: int) -> str:
    """The same in both languages; the division sign is the one that is read everywhere."""
    return f"{a} {sign} {b} = {value(a, sign, b)}."


def unit_pair(rng, lang: str) -> tuple[str, str, int]:
    """A conversion: question, answer and its number."""
    unit = rng.choice(UNITS)
    amount = rng.randint(1, unit.most)
    large_names, small_names = unit.large[lang], unit.small[lang]
    plural = large_names[1:] if lang == "en" and amount != 1 else large_names[:1] + large_names[2:]
    large = rng.choice(plural or large_names)
    if lang == "id":
        large = rng.choice(large_names)
    number = rng.choice([str(amount)] * 4 + ([NUMBER_WORDS[lang][amount]] if amount <= 20 else []))
    asked = rng.choice(UNIT_FRAMES[lang]).format(n=number, l=large, s=rng.choice(small_names))
    result = amount * unit.factor
    shown = large_names[0] if amount == 1 or lang == "id" else large_names[1]
    return asked, f"{amount} {shown} = {result} {small_names[0]}.", result


# Second turns that go on from the last result.
GO_ON = {
    "en": {"+": ["plus {}", "and plus {}", "add {}", "add {} to that", "now add {}", "+ {}", "and {} more"], "-": ["minus {}", "take away {}", "subtract {}", "now minus {}", "- {}"],
           "x": ["times {}", "and times {}", "multiply that by {}", "now times {}", "x {}"]},
    "id": {"+": ["tambah {}", "lalu tambah {}", "ditambah {}", "terus tambah {}", "+ {}", "tambahkan {}"], "-": ["kurang {}", "dikurangi {}", "lalu kurangi {}", "terus kurang {}", "- {}"],
           "x": ["kali {}", "dikali {}", "lalu kalikan {}", "terus kali {}", "x {}"]},
}
