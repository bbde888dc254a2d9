"""How people really type: synonyms, fillers, capitals, punctuation and typos.

Every function takes the random generator first and works on one question. Applied while
examples are drawn, so that no two passes over the data see the same text.
"""

import re

# Words that may stand for one another. A phrase of several words is fine.
SYNONYMS = {
    "en": """how do i|how can i|how to|how do you|how would i|how should i|how do we|what is the way to|how does one
what is|what's|whats|what exactly is
where is|where's|where do i find|where can i find
i want to|i would like to|i'd like to|i wanna|we want to|i need to
can i|could i|may i|is it possible to|can we|am i able to
do i need|is it necessary to have|must i have|do we need
which|what
tell me|explain|let me know
show me|give me|let me see
Tollgate|tollgate|the gateway|Tollgate gateway
gateway|server|service
start|run|launch|boot|start up|fire up
stop|shut down|kill|quit|halt
config|configuration|settings|conf
key|api key|token|API key|access key
certificate|cert|TLS certificate|ssl cert
plugin|plug-in|extension|policy plugin
folder|directory|dir
answer|reply|response|output
request|call|query
error|error message|problem|failure
user|customer|person|colleague
change|edit|modify|update|alter
add|create|make|set up
delete|remove|drop
hide|mask|redact|censor
use|work with|utilize
big|large|huge
please|pls|plz
you|u
are|r
thanks|thank you|thx|ty
good|nice|great
cannot|can't|cant|can not
do not|don't|dont
does not|doesn't|doesnt
i am|i'm|im
gets|is getting|becomes
computer|machine|PC|laptop|box
supported|possible|available|allowed
connect|link|hook up
port|port number
people|users|everyone|folks
company|firm|business|team|office
really|actually|even
quickly|fast|soon
documentation|docs|manual
my|our
want|need|would like""",
    "id": """bagaimana|gimana|gmn|bgmn|gmana
bagaimana cara|gimana cara|cara|caranya|gimana caranya
tidak|gak|nggak|ga|enggak|tdk|ngga|kagak
saya|aku|gue|gw|sy|kami
kamu|anda|lo|lu|km|kau
di mana|dimana|dmn|ada di mana
apa saja|apa aja|apa sajakah
apakah|apa
yang|yg
dengan|dgn|sama
bisa|bs|dapat|bisakah
untuk|buat|utk|bwt
sudah|udah|udh|sdh|telah
belum|blm|blom
kalau|kalo|klo|jika|bila
kenapa|mengapa|knp|ngapa
memakai|pakai|pake|menggunakan|gunakan
ingin|mau|pengen|pingin|hendak
berapa|brp
juga|jg
dari|dr
tahu|tau
melihat|lihat|liat|ngeliat
perlu|butuh|harus
membuat|buat|bikin|bikinin
mengganti|ganti|ubah|mengubah|ngubah|gantiin
menjalankan|jalankan|jalanin|nyalain|run
menghentikan|menyetop|stop|matikan|matiin
menambah|menambahkan|tambah|nambah|nambahin
memasang|pasang|masang|instal|install
tolong|mohon|plis|pls|coba
terima kasih|makasih|thanks|trims
kunci|key|API key|api key|token
sertifikat|cert|certificate|sertifikat TLS
config|konfigurasi|pengaturan|setting|settingan
berkas|file|fail
folder|direktori|map
server|gateway|layanan
Tollgate|tollgate|gateway ini|Tollgate ini
jawaban|balasan|respons|hasil
permintaan|request|rikues
error|eror|galat|masalah
pengguna|user|orang
hapus|menghapus|buang|delete
menyamarkan|menyembunyikan|menyensor|sembunyikan|sensor
langsung|segera|seketika
sekarang|skrg|saat ini
banyak|byk
mengirim|kirim|ngirim
besar|gede
komputer|mesin|laptop|PC
kantor|perusahaan|tim
orang|org
bagus|baik|oke
dalam|dlm
karena|krn|soalnya
sebutkan|kasih tau|beritahu|sebutin
jelaskan|jelasin|terangkan|tolong jelaskan""",
}


def _table(text: str) -> dict[str, list[str]]:
    """Every phrase to the phrases that may replace it."""
    table = {}
    for line in text.split("\n"):
        words = line.split("|")
        for word in words:
            table.setdefault(word.lower(), []).extend(other for other in words if other != word)
    return table


TABLES = {lang: _table(text) for lang, text in SYNONYMS.items()}
PATTERNS = {
    lang: re.compile(
        r"(?<![\w/.-])(" + "|".join(re.escape(w) for w in sorted(table, key=len, reverse=True)) + r")(?![\w/.-])",
        re.IGNORECASE,
    )
    for lang, table in TABLES.items()
}

BEFORE = {
    "en": """hi, |hello, |hey, |hey |ok |ok so |so |so, |well, |um |sorry, |excuse me, |quick question: |question: |
one question: |i have a question: |please tell me |pls |please, |sorry if this is a stupid question, |
i am new to this: |just wondering, |i was wondering, |can you tell me, |do you know: |help: |help! |urgent: |
ok, next: |now |and |also, |another thing: |hi there, |good morning, |dear bot, |my colleague asks: |
my boss wants to know: |we were asking ourselves: |i'd like to know: |maybe you know: |hmm, |ok then, |
last question: |for my project: |i can't figure it out: |i tried everything. |i looked everywhere. |yo |
first of all: |btw |by the way, |listen, |tell me, |i forgot: |silly question but |once again: """,
    "id": """halo, |hai, |permisi, |permisi kak, |kak, |min, |gan, |bang, |pak, |mas, |mbak, |bro, |maaf, |maaf mau tanya, |
mau tanya, |mau nanya dong, |numpang tanya, |tanya dong, |ijin bertanya, |izin bertanya, |oke, |ok, |nah, |
terus, |trus |lalu, |jadi, |eh, |hmm, |tolong, |tolong dong, |pertanyaan: |satu pertanyaan: |bantu dong, |
saya pemula, |maaf kalau pertanyaannya bodoh, |penasaran, |teman saya tanya, |bos saya tanya, |selamat pagi, |
pagi kak, |siang min, |saya bingung, |aku bingung, |sudah dicari tapi tidak ketemu, |udah coba semua, |btw |
oh ya, |oh iya |sekalian, |kakak, |darurat: |cepat ya, |ada yang tahu, |kira-kira |kalau boleh tahu, |
pengen tau, |saya lupa, |dengar-dengar, |buat proyek saya, """,
}
AFTER = {
    "en": """, please| please| pls|, thanks| thanks| then| again| exactly| actually| here| now| today|, can you tell me|
, do you know|, any idea|, i need it soon|, i'm stuck|, help| btw|, quick| lol|, my boss is waiting|
 in your case| for me|, i am a beginner|, it's for work| i wonder|, no idea| with this thing| on this machine|
 at all| by the way|, sir| man| mate| or not| right""",
    "id": """ ya| ya kak| dong| sih| nih| kak| min| gan| bang| pak| mas| bro| tolong|, tolong| tolong ya|, makasih|
, terima kasih| deh| tuh| kah| sebenarnya| sekarang| di sini|, saya bingung|, ada yang tahu|, bisa bantu|
 mohon bantuannya| gitu|, penting nih|, bos sudah nunggu|, saya pemula| lagi| wkwk| hehe| kira-kira| btw|
 ya min| dong kak|, urgent| ga sih| apa gimana""",
}
BEFORE = {lang: [part for part in text.replace("\n", "").split("|") if part] for lang, text in BEFORE.items()}
AFTER = {lang: [part for part in text.replace("\n", "").split("|") if part] for lang, text in AFTER.items()}

SMALL_WORDS = {
    "en": set("the a an is are do does i my it to of in for on me there that this can you".split()),
    "id": set("yang itu ini di ke dari ya sih dong apa ada untuk saya cara".split()),
}
ENDINGS = ["", "?", "!", ".", "??", " ?", "...", "?!", "!!"]
ENDING_WEIGHTS = [46, 36, 3, 6, 3, 2, 2, 1, 1]
KEYBOARD = ["qwertyuiop", "asdfghjkl", "zxcvbnm"]


def swap_synonyms(rng, lang: str, text: str, chance: float) -> str:
    def change(match):
        if rng.random() > chance:
            return match.group(0)
        return rng.choice(TABLES[lang][match.group(0).lower()])

    return PATTERNS[lang].sub(change, text)


def drop_small_word(rng, lang: str, text: str) -> str:
    words = text.split(" ")
    small = [i for i, word in enumerate(words) if word.lower() in SMALL_WORDS[lang]]
    if len(words) > 3 and small:
        del words[rng.choice(small)]
    return " ".join(words)


def drop_word(rng, text: str) -> str:
    """Leave out any word of a longer question: what it asks should show in the others."""
    words = text.split(" ")
    if len(words) > 4:
        del words[rng.randrange(len(words))]
    return " ".join(words)


def neighbour(rng, letter: str) -> str:
    for row in KEYBOARD:
        place = row.find(letter.lower())
        if place >= 0:
            return row[max(0, min(len(row) - 1, place + rng.choice([-1, 1])))]
    return letter


def typo(rng, text: str) -> str:
    """One slip of the finger in a word; digits stay as they are."""
    places = [i for i in range(1, len(text) - 1) if text[i].isalpha() and text[i + 1].isalpha()]
    if len(places) < 4:
        return text
    at = rng.choice(places)
    kind = rng.randrange(5)
    if kind == 0:
        return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    if kind == 1:
        return text[:at] + text[at + 1 :]
    if kind == 2:
        return text[:at] + text[at] + text[at:]
    if kind == 3:
        return text[:at] + neighbour(rng, text[at]) + text[at + 1 :]
    space = text.find(" ", at)
    return text if space < 0 else text[:space] + text[space + 1 :]


def casing(rng, text: str) -> str:
    """Mostly natural: a capital in front, names as written; often lower; sometimes all capitals."""
    kind = rng.random()
    if kind < 0.46:
        return text[:1].upper() + text[1:]
    if kind < 0.80:
        return text.lower()
    if kind < 0.92:
        return text.upper()
    return text


def ending(rng) -> str:
    return rng.choices(ENDINGS, ENDING_WEIGHTS)[0]


def dress(rng, lang: str, text: str, synonyms: bool = True, fillers: float = 0.22, typos: float = 0.18) -> str:
    """A question as somebody would type it."""
    if synonyms:
        text = swap_synonyms(rng, lang, text, 0.28 if rng.random() < 0.6 else 0.0)
        if rng.random() < 0.08:
            text = drop_small_word(rng, lang, text)
        elif rng.random() < 0.08:
            text = drop_word(rng, text)
    roll = rng.random()
    if roll < fillers * 0.65:
        text = rng.choice(BEFORE[lang]) + text
    elif roll < fillers:
        text = text + rng.choice(AFTER[lang])
    if rng.random() < typos:
        for _ in range(rng.choice([1, 1, 1, 1, 2])):
            text = typo(rng, text)
    text = casing(rng, text)
    return text if text[-1:] in "?!." else text + ending(rng)
