"""Draws the demo model's training conversations and writes its held-out questions.

    python -m data.generate heldout eval/heldout.jsonl
    python -m data.generate sample 20

A conversation is a list of {"role", "content"} messages. What is held out (some wordings of
every intent, some topics of the unknown, some combinations of frames and entities, some sums)
and what `eval/free.jsonl` asks never appears in a drawn conversation.
"""

import hashlib
import json
import random
import re
import sys
from pathlib import Path

from data import facts, followups, style, sums, unknown

HERE = Path(__file__).resolve().parent
EVAL = HERE.parent / "eval"
LANGS = ("en", "id")
SMALL_TALK = set(
    "hello how_are_you thanks bye help who human complaint compliment joke languages mood ack live".split()
)


def rank(text: str) -> int:
    """A number that depends on the text alone: the split does not change when lines are added elsewhere."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def plain(text: str) -> str:
    """A question without capitals, punctuation and double spaces, to compare wordings."""
    return re.sub(r"\s+", " ", re.sub(r"[^\w+*/:=×÷-]+", " ", text.lower())).strip(" -:=")


def read_intents(lang: str) -> dict[str, tuple[str, list[str], list[str]]]:
    """All blocks of a language: `@ name`, `= answer` (in one of the name's blocks), wordings.

    By name: the answer, the wordings of which some are held out, and those of `learnt*.txt`, which were
    written after the held-out ones were frozen and are all learnt.
    """
    answers, wordings, later, name = {}, {}, {}, None
    for path in sorted((HERE / lang).glob("*.txt")):
        target = later if path.name.startswith("learnt") else wordings
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith("@ "):
                name = line[2:]
                target.setdefault(name, {})
            elif line.startswith("= "):
                assert name not in answers, f"{path}: {name} has two answers"
                answers[name] = line[2:]
            elif line.strip():
                target[name][line.strip()] = True
    unknown_names = later.keys() - wordings.keys()
    assert not unknown_names, f"{lang}: {unknown_names} have no answer"
    return {name: (answers[name], list(own), list(later.get(name, {}))) for name, own in wordings.items()}


def shared_wordings(intents, with_later: bool) -> set[str]:
    """Wordings that both languages have."""
    english, indonesian = (
        {plain(w) for _, own, later in intents[lang].values() for w in own + (later if with_later else [])}
        for lang in LANGS
    )
    return english & indonesian


def user(text: str) -> dict:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict:
    return {"role": "assistant", "content": text}


class Data:
    """Everything that can be asked, split into what is learnt and what is held out."""

    def __init__(self):
        self.answers, self.learnt, self.held = {}, {}, {}
        intents = {lang: read_intents(lang) for lang in LANGS}
        self.shared = shared_wordings(intents, with_later=False)
        for lang in LANGS:
            self.answers[lang] = {name: answer for name, (answer, _, _) in intents[lang].items()}
            self.split_intents(lang, intents[lang])
        shared = shared_wordings(intents, with_later=True)
        # The same words in both languages ("ok", "SSE") are English unless the talk is Indonesian.
        self.only_indonesian = {
            name: [w for w in own if plain(w) not in shared] for name, own in self.learnt["id"].items()
        }
        self.frames = {lang: self.fact_frames(lang) for lang in LANGS}
        self.split_topics()
        self.held["sums"] = held_sums()
        self.reserved = {plain(q["messages"][-1]["content"]) for q in self.heldout()} | free_questions()
        self.names = {lang: [n for n in self.learnt[lang] if n != "unknown"] for lang in LANGS}
        self.talk = {lang: [n for n in self.names[lang] if n in SMALL_TALK] for lang in LANGS}
        self.facts = {lang: [n for n in self.names[lang] if n.startswith("fact/")] for lang in LANGS}
        self.about_tollgate = {
            lang: [n for n in self.names[lang] if n not in SMALL_TALK and "/" not in n] for lang in LANGS
        }

    def split_intents(self, lang, intents):
        """Hold out four wordings of an intent, two of a single fact, a sixteenth of the unknown."""
        self.learnt[lang], self.held[lang] = {}, {}
        for name, (_, wordings, later) in intents.items():
            count = len(wordings) // 16 if name == "unknown" else 2 if name.startswith("fact/") else 4
            ordered = sorted(wordings, key=lambda w: (plain(w) in self.shared, rank(f"{lang}/{name}/{w}")))
            self.held[lang][name] = ordered[:count]
            held = {plain(wording) for wording in ordered[:count]}
            self.learnt[lang][name] = ordered[count:] + [w for w in later if plain(w) not in held]

    def split_topics(self):
        self.topics, self.held_topics = {}, {}
        for lang in LANGS:
            ordered = sorted(unknown.TOPICS[lang], key=lambda t: rank(f"{lang}/topic/{t}"))
            self.held_topics[lang], self.topics[lang] = ordered[:24], ordered[24:]

    def fact_frames(self, lang):
        """Per group, every (question, answer) of its frames and entities."""
        groups = {"capital": [], "day": [], "month": []}
        aliases = facts.COUNTRY_ALIASES[lang]
        for row in facts.CAPITALS:
            country, city = (row[0], row[2]) if lang == "en" else (row[1], row[3])
            answer = facts.CAPITAL_ANSWER[lang].format(country, city)
            for name in [country, *aliases.get(country, [])]:
                groups["capital"] += [(frame.format(name), answer) for frame in facts.CAPITAL_FRAMES[lang]]
        for group, table, names in (
            ("day", facts.DAY_FRAMES, facts.DAYS[lang]),
            ("month", facts.MONTH_FRAMES, facts.MONTHS[lang]),
        ):
            for (kind, frame_lang), (answer, frames) in table.items():
                step = -1 if kind.endswith("before") else 1
                for index, name in enumerate(names):
                    other = names[(index + step) % len(names)]
                    if frame_lang == lang:
                        groups[group] += [(frame.format(name), answer.format(name, other)) for frame in frames]
        return groups

    def held_frames(self, lang):
        """One in sixteen of the combinations, at most 24 of a group."""
        for group, pairs in self.frames[lang].items():
            held = [pair for pair in pairs if rank(f"{lang}/{pair[0]}") % 16 == 0]
            yield group, sorted(held, key=lambda pair: rank(pair[0]))[:24]

    def heldout(self) -> list[dict]:
        """The held-out questions with their right answers."""
        rows = []

        def add(lang, key, question, answer, before=()):
            style_rng = random.Random(rank(question))
            shown = style.casing(style_rng, question) + style_rng.choice(["", "?"])
            rows.append({"lang": lang, "key": key, "messages": [*before, user(shown)], "answers": [answer]})

        for lang in LANGS:
            unknown_answer = self.answers[lang]["unknown"]
            for name, wordings in self.held[lang].items():
                for wording in wordings:
                    add(lang, name, wording, self.answers[lang][name])
            for group, pairs in self.held_frames(lang):
                for question, answer in pairs:
                    add(lang, group, question, answer)
            for index, topic in enumerate(self.held_topics[lang]):
                frame = unknown.FRAMES[lang][index * 2 % len(unknown.FRAMES[lang])]
                add(lang, "unknown", frame.format(topic, "this"), unknown_answer)
            for first, target, wordings in followups.FOLLOWUPS[lang]:
                name = first.split()[0]
                before = [user(self.learnt[lang][name][0]), assistant(self.answers[lang][name])]
                add(lang, f"{name}>{target}", min(wordings, key=rank), self.answers[lang][target], before)
        for lang, question, answer, number in self.held["sums"]:
            row = {"lang": lang, "key": "sum", "messages": [user(question)], "answers": [answer], "number": number}
            rows.append(row)
        return rows


def held_sums():
    """Sums and conversions whose exact text is never drawn for training."""
    rng, rows = random.Random(20261120), []
    for lang in LANGS:
        for index in range(60):
            if index % 3 == 2:
                question, answer, number = sums.unit_pair(rng, lang)
            else:
                a, sign, b = sums.pick(rng)
                question, answer = sums.question(rng, lang, a, sign, b), sums.answer(a, sign, b)
                number = sums.value(a, sign, b)
            rows.append((lang, question, answer, number))
    return rows


def free_questions() -> set[str]:
    path = EVAL / "free.jsonl"
    if not path.exists():
        return set()
    rows = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {plain(row["messages"][-1]["content"]) for row in rows}


class Draw:
    """Draws conversations; one per generator, so that several can run with seeds of their own."""

    def __init__(self, data: Data, seed: int):
        self.data, self.rng = data, random.Random(seed)

    def wording(self, lang: str, name: str, first: bool) -> str:
        source = self.data.only_indonesian if lang == "id" and first else self.data.learnt[lang]
        return self.rng.choice(source[name])

    def intent(self, lang: str, name: str, first: bool):
        """A question of an intent as somebody would type it, and its answer."""
        text = self.wording(lang, name, first)
        talk = name in SMALL_TALK
        dressed = style.dress(
            self.rng, lang, text, synonyms=name not in ("hello", "ack", "unknown"), fillers=0.1 if talk else 0.25
        )
        return dressed, self.data.answers[lang][name], name, None

    def sum(self, lang: str):
        rng, roll = self.rng, self.rng.random()
        if roll < 0.22:
            question, answer, _ = sums.unit_pair(rng, lang)
            number = None
        elif roll < 0.29:
            triple, number = sums.pick_big(rng), None
            question = sums.question(rng, lang, *triple)
            answer = sums.TOO_BIG[lang if re.search("[a-wyz]", question) else "en"]
        else:
            triple = sums.pick(rng)
            number = sums.value(*triple)
            question, answer = sums.question(rng, lang, *triple), sums.answer(*triple)
        dressed = style.dress(rng, lang, question, synonyms=False, fillers=0.1, typos=0.05)
        return dressed, answer, "sum", number

    def fact(self, lang: str):
        rng, roll = self.rng, self.rng.random()
        if roll < 0.5:
            return self.intent(lang, rng.choice(self.data.facts[lang]), True)
        group = "capital" if roll < 0.82 else "day" if roll < 0.93 else "month"
        question, answer = rng.choice(self.data.frames[lang][group])
        return style.dress(rng, lang, question, synonyms=False, fillers=0.12, typos=0.15), answer, group, None

    def unknown(self, lang: str):
        rng, data = self.rng, self.data
        roll = rng.random()
        if roll < 0.45:
            return self.intent(lang, "unknown", True)
        if roll < 0.85:
            text = rng.choice(unknown.FRAMES[lang]).format(*rng.choices(data.topics[lang], k=2))
        elif roll < 0.93:
            text = rng.choice(facts.CAPITAL_FRAMES[lang]).format(rng.choice(facts.UNKNOWN_PLACES[lang]))
        else:
            frames, things = facts.UNKNOWN_FRAMES[lang]
            text = rng.choice(frames).format(rng.choice(things))
        return style.dress(rng, lang, text, synonyms=rng.random() < 0.5), data.answers[lang]["unknown"], "unknown", None

    def turn(self, lang: str, first: bool):
        """One question out of the whole mixture: (question, answer, key, number)."""
        rng = self.rng
        while True:
            kind = rng.choices(["tollgate", "talk", "sum", "fact", "unknown"], [47, 14, 17, 10, 12])[0]
            if kind == "tollgate":
                drawn = self.intent(lang, rng.choice(self.data.about_tollgate[lang]), first)
            elif kind == "talk":
                drawn = self.intent(lang, rng.choice(self.data.talk[lang]), first)
            else:
                drawn = getattr(self, kind)(lang)
            if plain(drawn[0]) not in self.data.reserved:
                return drawn

    def follow(self, lang: str, key: str, number, answer: str):
        """A question that leans on the last answer, or None if there is none for it."""
        rng, data = self.rng, self.data
        if rng.random() < 0.1 and key != "again":
            return style.dress(rng, lang, rng.choice(followups.AGAIN[lang]), False), answer, "again", None
        other = "id" if lang == "en" else "en"
        if rng.random() < 0.1 and key in data.answers[lang] and key in data.answers[other]:
            return (
                style.dress(rng, lang, rng.choice(followups.OTHER_LANGUAGE[lang]), False),
                data.answers[other][key],
                "again",
                None,
            )
        if number is not None and key == "sum" and number <= 50:
            return self.go_on(lang, number)
        if key == "capital":
            row = rng.choice(facts.CAPITALS)
            country, city = (row[0], row[2]) if lang == "en" else (row[1], row[3])
            name = rng.choice([country, *facts.COUNTRY_ALIASES[lang].get(country, [])])
            text = rng.choice(facts.CAPITAL_FOLLOWUPS[lang]).format(name)
            return (
                style.dress(rng, lang, text, False),
                facts.CAPITAL_ANSWER[lang].format(country, city),
                "capital",
                None,
            )
        rows = [row for row in followups.FOLLOWUPS[lang] if key in row[0].split()]
        if not rows:
            return None
        _, target, wordings = rng.choice(rows)
        held = min(wordings, key=rank)
        text = rng.choice([w for w in wordings if w != held])
        return style.dress(rng, lang, text, rng.random() < 0.5, fillers=0.15), data.answers[lang][target], target, None

    def go_on(self, lang: str, number: int):
        rng = self.rng
        sign = rng.choice("++-" + ("x" if number <= 12 else ""))
        operand = rng.randint(0, number) if sign == "-" else rng.randint(0, 12)
        text = rng.choice(sums.GO_ON[lang][sign]).format(operand)
        total = sums.value(number, sign, operand)
        return (
            style.dress(rng, lang, text, False, fillers=0.1, typos=0.03),
            sums.answer(number, sign, operand),
            "sum",
            total,
        )

    def filler_text(self, lang: str, words: int) -> str:
        """Sentences about anything, to pad a long message."""
        parts, count = [], 0
        while count < words:
            source = self.rng.random()
            if source < 0.5:
                text = self.rng.choice(unknown.FRAMES[lang]).format(*self.rng.choices(self.data.topics[lang], k=2))
            elif source < 0.8:
                text = self.rng.choice(self.data.learnt[lang]["unknown"])
            else:
                text = self.rng.choice(self.data.answers[lang][self.rng.choice(self.data.names[lang])].split(". "))
            parts.append(text[:1].upper() + text[1:].rstrip(".") + ".")
            count += len(text.split())
        return " ".join(parts)

    def conversation(self, most_turns: int = 14) -> list[dict]:
        """One training conversation; a third of them start with a system message."""
        rng = self.rng
        lang = rng.choice(LANGS)
        turns = rng.choices([1, 2, 3, 4, rng.randint(5, most_turns)], [62, 25, 7, 4, 2])[0]
        messages = []
        if rng.random() < 0.33:
            messages.append({"role": "system", "content": self.system(lang)})
        last = None
        for index in range(turns):
            drawn = None
            if last is not None and rng.random() < 0.5:
                drawn = self.follow(lang, last[2], last[3], last[1])
                if drawn and plain(drawn[0]) in self.data.reserved:
                    drawn = None
            elif last is not None and rng.random() < 0.06:
                lang = rng.choice(LANGS)
            drawn = drawn or self.turn(lang, index == 0)
            question = drawn[0]
            if turns == 1 and rng.random() < 0.025:
                question = self.filler_text(lang, rng.randint(20, 260)) + rng.choice(["\n\n", "\n", " "]) + question
            messages += [user(question), assistant(drawn[1])]
            last = drawn
        return messages

    def system(self, lang: str) -> str:
        rng = self.rng
        lines = rng.choices(followups.SYSTEMS, k=rng.choices([1, 2, 3], [70, 22, 8])[0])
        text = rng.choice([" ", "\n"]).join(lines)
        if rng.random() < 0.02:
            text += "\n" + self.filler_text(lang, rng.randint(20, 160))
        return text


def corpus(data: Data):
    """What the tokenizer learns from: every wording and answer, and a sample of drawn talk."""
    for lang in LANGS:
        for name, wordings in data.learnt[lang].items():
            yield from wordings
            yield from [data.answers[lang][name]] * 8
        yield from data.topics[lang]
    yield from followups.SYSTEMS
    draw = Draw(data, 1)
    for _ in range(6000):
        yield from (message["content"] for message in draw.conversation())


def main():
    command, argument = sys.argv[1], sys.argv[2]
    data = Data()
    if command == "heldout":
        lines = [json.dumps(row, ensure_ascii=False) for row in data.heldout()]
        Path(argument).write_text("\n".join(lines) + "\n", encoding="utf-8")
        learnt = sum(len(wordings) for lang in LANGS for wordings in data.learnt[lang].values())
        print(f"{len(lines)} held-out questions, {learnt} learnt wordings")
    else:
        draw = Draw(data, 7)
        for _ in range(int(argument)):
            print(*(f"{m['role'][:1]}: {m['content']}" for m in draw.conversation()), "", sep="\n")


if __name__ == "__main__":
    main()
