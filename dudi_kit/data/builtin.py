"""The corpus that ships with dudi-kit: four tasks in eight languages, made from small lexicons of hand-written phrases.

Concept ids, which are the same in every language, decide what a row says; `corpus/<language>.yaml` says it. Hence the
rows of all languages are parallel, and every row has its English version.

How the split works. A *composition* is the combination that a row asks the model to put together:

    sentiment    thing + quality           soup + tasty
    topic        person + verb + object    ravi + buy + fish
    translate    the same                  a composition is in the same split for both tasks and both directions
    qa           verb + two facts          buy + ravi's fish + dewi's bread

Compositions are ranked by a stable hash, balanced over groups (kinds of things, topics, verbs); the first ranks are the
test, the next the dev, the rest the train split, in all languages alike. What surrounds a composition (an intensifier,
a negation, a day, who is asked for, the direction) varies freely. So no held-out combination is ever trained on, not
even in another language, while each of its words is: held-out scores show composing, not remembering. And a row keeps
its split on every machine, since nothing is drawn at random.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib import resources
from itertools import chain, combinations, permutations, zip_longest
from typing import Any, NamedTuple

import yaml

from dudi_kit.recipe import languages

LANGUAGES = ("en", "id", "ms", "vi", "th", "ta", "tl", "my")
TASKS = ("sentiment", "topic", "qa", "translate")
SPLITS = ("train", "dev", "test")

Parts = tuple[str, ...]
"""Concept ids."""

PEOPLE = ("aung", "dewi", "amir", "linh", "mali", "maya", "ravi", "rosa")
TIMES = ("today", "yesterday", "this_morning", "last_week", "on_sunday", "on_monday")

THINGS_AND_QUALITIES: tuple[tuple[Parts, Parts, Parts], ...] = (
    # things, good qualities, bad qualities: each thing makes sense with each quality of its line
    (
        ("soup", "curry", "fish", "chicken", "bread", "mango"),
        ("tasty", "nutritious", "cheap"),
        ("bland", "expensive", "disappointing"),
    ),
    (
        ("hotel", "park", "beach", "village", "school", "market"),
        ("clean", "beautiful", "safe"),
        ("dirty", "noisy", "dangerous"),
    ),
    (
        ("film", "book", "story", "song", "game", "lesson"),
        ("interesting", "good"),
        ("boring", "disappointing", "confusing"),
    ),
    (
        ("bag", "phone", "umbrella", "bicycle", "chair", "hat"),
        ("durable", "useful", "cheap"),
        ("ugly", "expensive", "disappointing"),
    ),
    (
        ("teacher", "doctor", "driver", "seller", "guide", "nurse"),
        ("kind", "polite", "honest"),
        ("rude", "lazy", "selfish"),
    ),
)
GOOD = frozenset(chain.from_iterable(good for _, good, _ in THINGS_AND_QUALITIES))

AFFIRMING = ("plain", "very")
NEGATING = ("not", "not_at_all")

SPORTS = ("football", "badminton", "tennis", "volleyball", "basketball")
SUBJECTS = ("mathematics", "history", "science", "geography")
TICKETS = ("train_ticket", "plane_ticket", "bus_ticket")
SIGHTS = ("mountain", "river", "waterfall", "lake", "rainbow")
CITIES = ("bangkok", "manila", "hanoi", "jakarta", "yangon")
CLINICS = ("hospital", "clinic", "pharmacy")
FOODS = ("curry", "noodles", "porridge", "fish", "chicken", "bread", "mango")

EVENTS: dict[str, dict[str, Parts]] = {
    # topic: verb: objects; a verb of several topics (buy, go) tells nothing without its object
    "food": {
        "eat": FOODS,
        "cook": ("soup", "curry", "noodles", "porridge"),
        "buy": ("fish", "chicken", "bread", "mango"),
    },
    "sport": {"play": SPORTS, "watch": SPORTS},
    "education": {"study": SUBJECTS, "teach": SUBJECTS, "buy": ("notebook", "pencil")},
    "health": {
        "take": ("medicine", "vitamins"),
        "buy": ("medicine", "vitamins"),
        "meet": ("doctor", "dentist", "nurse"),
        "go": CLINICS,
    },
    "travel": {"go": CITIES, "buy": TICKETS, "book": TICKETS},
    "nature": {"see": SIGHTS, "photograph": SIGHTS, "plant": ("tree", "flowers", "bamboo")},
}
TOPICS = tuple(EVENTS)
TOPIC_OF: dict[Parts, str] = {
    (verb, thing): topic for topic, verbs in EVENTS.items() for verb, things in verbs.items() for thing in things
}

ASKED: dict[str, Parts] = {
    # verbs of the questions: objects
    "buy": ("fish", "chicken", "bread", "mango", "notebook", "pencil", "medicine", "vitamins", *TICKETS),
    "eat": FOODS,
    "cook": ("soup", "curry", "noodles", "porridge"),
    "play": SPORTS,
    "watch": SPORTS,
    "study": SUBJECTS,
    "teach": SUBJECTS,
    "go": ("market", "school", "beach", "park", "library", *CLINICS, *CITIES),
    "see": SIGHTS,
    "plant": ("tree", "flowers", "bamboo"),
}


class Sizes(NamedTuple):
    """How many rows of a task and language a split has; in the train split of `sentiment`, all there are: 540."""

    train: int
    dev: int = 30
    test: int = 48


SIZES = {"sentiment": Sizes(540), "topic": Sizes(480), "qa": Sizes(600), "translate": Sizes(600)}


@dataclass(frozen=True, slots=True)
class Item:
    """What a row says, before it is said in a language."""

    task: str

    composition: Parts
    """What is held out: in one split only."""

    manner: Parts
    """How the composition is asked for: pattern, time, question or direction."""

    @property
    def id(self) -> str:
        """Stable name of the row, the same in every language and independent of the split."""
        return f"{self.task}/{'.'.join(self.composition + self.manner)}"


def rows(split: str) -> Iterator[dict[str, str]]:
    """The rows of a split, all languages of an item together; tasks are mixed so that every prefix has a bit of all."""
    if split not in SPLITS:
        raise ValueError(f"the built-in corpus has no split {split!r}; choose one of {', '.join(SPLITS)}")
    return (
        {"id": item.id, "task": item.task, "language": language} | _say(item, language)._asdict()
        for item in items(split)
        for language in LANGUAGES
        if not (item.task == "translate" and language == "en")
    )


@cache
def items(split: str) -> tuple[Item, ...]:
    """The items of a split in the order of their rows."""
    found = chain(_sentiment(split), _topic(split), _qa(split), _translate(split))
    return tuple(sorted(found, key=lambda item: _hash("order", item.id)))


# Which items there are


def _sentiment(split: str) -> Iterator[Item]:
    groups: list[list[Parts]] = [
        [(thing, quality) for thing in things for quality in good + bad] for things, good, bad in THINGS_AND_QUALITIES
    ]
    for composition in _share(_ranked(groups), SIZES["sentiment"], split, rows_each=2):
        if split == "train":
            patterns: Parts = AFFIRMING + NEGATING
        else:
            patterns = tuple(min(kind, key=lambda p: _hash(p, *composition)) for kind in (AFFIRMING, NEGATING))
        yield from (Item("sentiment", composition, (pattern,)) for pattern in patterns)


def _topic(split: str) -> Iterator[Item]:
    return (Item("topic", event, (time,)) for event, time in _sentences("topic", split))


def _translate(split: str) -> Iterator[Item]:
    """Half the sentences each way, whatever their topic."""
    for number, (event, time) in enumerate(_sentences("translate", split)):
        turn = (number + number // len(TOPICS)) % 2
        yield Item("translate", event, (time, ("to_english", "from_english")[turn]))


def _sentences(task: str, split: str) -> list[tuple[Parts, str]]:
    """Events with their times, topics in turn; held-out events with one time each, so that all of them differ."""
    sizes = SIZES[task]
    share = _share(_ranked(_events()), sizes, split)
    if split != "train":
        return [(event, min(TIMES, key=lambda time: _hash(task, time, *event))) for event in share]
    groups = [[(*event, t) for event in share if TOPIC_OF[event[1:]] == topic for t in TIMES] for topic in TOPICS]
    return [(told[:-1], told[-1]) for told in _ranked(groups, task)[: sizes.train]]


def _events() -> list[list[Parts]]:
    return [
        [(person, verb, thing) for verb, things in verbs.items() for thing in things for person in PEOPLE]
        for verbs in EVENTS.values()
    ]


def _qa(split: str) -> Iterator[Item]:
    """Each pair of facts with two questions, whose answers differ: without the question, only half can be right."""
    sizes = SIZES["qa"]
    share = _share(_ranked(_facts()), sizes, split, rows_each=2)[: getattr(sizes, split) // 2]
    for number, composition in enumerate(share):
        kind = ("what", "who")[(number + number // len(ASKED)) % 2]
        yield from (Item("qa", composition, (kind, asked)) for asked in ("first", "second"))


def _facts() -> list[list[Parts]]:
    """By verb: two people with two objects, one order of telling each."""
    return [
        [
            min(((verb, p, a, q, b), (verb, q, b, p, a)), key=lambda told: _hash(*told))
            for p, q in combinations(PEOPLE, 2)
            for a, b in permutations(things, 2)
        ]
        for verb, things in ASKED.items()
    ]


def _share(ranked: list[Parts], sizes: Sizes, split: str, rows_each: int = 1) -> list[Parts]:
    """The compositions of a split: first the test's, then dev's, then train's."""
    test = sizes.test // rows_each
    dev = test + sizes.dev // rows_each
    return {"test": ranked[:test], "dev": ranked[test:dev], "train": ranked[dev:]}[split]


def _ranked(groups: Iterable[list[Parts]], salt: str = "") -> list[Parts]:
    """Each group in the order of its hashes, then one of each group in turn, so that every prefix is balanced."""
    ordered = (sorted(group, key=lambda parts: _hash(salt, *parts)) for group in groups)
    return [parts for turn in zip_longest(*ordered) for parts in turn if parts is not None]


def _hash(*parts: str) -> str:
    return sha256(".".join(parts).encode()).hexdigest()


# How they are said

Corpus = dict[str, dict[str, Any]]
"""Section, concept id, phrase: a text, or the forms of a phrase by name where the language has several."""


class Said(NamedTuple):
    """An item in one language, with its English version."""

    prompt: str
    response: str
    english_prompt: str
    english_response: str


@cache
def corpus(language: str) -> Corpus:
    """The phrases of a language."""
    file = resources.files("dudi_kit.data") / "corpus" / f"{language}.yaml"
    return yaml.safe_load(file.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def _say(item: Item, language: str) -> Said:
    if item.task == "translate":
        return _say_translation(item, language)
    say = SAY[item.task]
    return Said(*say(corpus(language), item), *say(corpus("en"), item))


def _say_sentiment(words: Corpus, item: Item) -> tuple[str, str]:
    (thing, quality), (pattern,) = item.composition, item.manner
    sentence = words["patterns"][pattern].format(thing=words["things"][thing], quality=words["qualities"][quality])
    positive = (quality in GOOD) == (pattern in AFFIRMING)
    prompt = words["prompts"]["sentiment"].format(sentence=_capitalised(sentence))
    return prompt, words["labels"]["positive" if positive else "negative"]


def _say_topic(words: Corpus, item: Item) -> tuple[str, str]:
    topic = TOPIC_OF[item.composition[1:]]
    return words["prompts"]["topic"].format(sentence=_event(words, item)), words["topics"][topic]


def _say_qa(words: Corpus, item: Item) -> tuple[str, str]:
    verb, *told = item.composition
    kind, asked = item.manner
    people, things = ([words[section][key] for key in told[at::2]] for at, section in enumerate(("people", "objects")))
    phrases = words["verbs"][verb]
    facts = [phrases["fact"].format(person=person, object=thing) for person, thing in zip(people, things, strict=True)]
    at = ("first", "second").index(asked)
    question = phrases[kind].format(person=people[at], object=things[at])
    answer = things[at] if kind == "what" else people[at]
    return words["prompts"]["qa"].format(first=facts[0], second=facts[1], question=question), answer


SAY: dict[str, Callable[[Corpus, Item], tuple[str, str]]] = {
    "sentiment": _say_sentiment,
    "topic": _say_topic,
    "qa": _say_qa,
}


def _say_translation(item: Item, language: str) -> Said:
    direction = item.manner[-1]
    own, english = _event(corpus(language), item), _event(corpus("en"), item)
    source, target = (own, english) if direction == "to_english" else (english, own)
    instruction = corpus(language)["prompts"][direction].format(sentence=source)
    name = languages.LANGUAGES[language].name
    in_english = corpus("en")["prompts"][direction].format(sentence=source, language=name)
    return Said(instruction, target, in_english, target)


def _event(words: Corpus, item: Item) -> str:
    person, verb, thing = item.composition
    told: str = words["verbs"][verb]["told"]
    phrases = {"person": words["people"][person], "object": words["objects"][thing]}
    return _capitalised(told.format(**phrases, time=words["times"][item.manner[0]]))


def _capitalised(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
