"""The synthetic dialogues that pippin-nano is trained on.

Everything is generated: no text comes from anywhere else. A sample is a dict

    {"skill", "messages", "tools"?, "check"?}

or {"skill": "raw", "text"} for plain text. `check` says what the last answer
must satisfy (see evaluate.py). Samples are deterministic in (seed, split).

Split: items (number pairs, names, words, phrasings, tool names, lists, story
subjects) are divided by a hash of their text. `train` never sees a held-out
item; `heldout` samples are built around them.

    python data.py show --skill json -n 5        # look at samples
    python data.py heldout --out heldout.jsonl   # write the held-out prompts
"""

import argparse
import hashlib
import itertools
import json
import random
import re
import sys
from functools import lru_cache

import stories
import toolset
import words as W

HELD = 0.1


@lru_cache(maxsize=200_000)
def _hash(text):
    return int.from_bytes(hashlib.sha1(b"pippin-nano|" + text.encode()).digest()[:4], "big") / 2**32


def cap(text):
    return text[:1].upper() + text[1:]


def held(*item):
    """Whether an item belongs to the held-out part."""
    return _hash("|".join(map(str, item))) < HELD


def expand(grammar):
    """All sentences of "<Hello|Hi><| there><!|.>"; alternatives do not nest."""
    parts = [g.split("|") if i % 2 else [g] for i, g in enumerate(re.split(r"<([^<>]*)>", grammar))]
    total = 1
    for alternatives in parts:
        total *= len(alternatives)
    rng = random.Random(grammar)
    if total <= 4000:
        return ["".join(x) for x in itertools.product(*parts)]
    return ["".join(rng.choice(x) for x in parts) for _ in range(4000)]


class Pool:
    """A list in two parts; the held-out part is never empty."""

    def __init__(self, name, items, fraction=HELD, grammar=()):
        self.more = Pool(name + "+", [cap(re.sub(" +", " ", x).strip()) for g in grammar for x in expand(g)], fraction) if grammar else None
        items = list(dict.fromkeys(items))
        order = sorted(items, key=lambda x: _hash(name + "|" + str(x)))
        cut = max(1, round(len(order) * fraction))
        keep = set(map(str, order[:cut]))
        self.all = items
        self.held = [x for x in items if str(x) in keep]
        self.train = [x for x in items if str(x) not in keep]

    def value(self, rng, split):
        """Held-out split: a held-out item."""
        return rng.choice(self.train if split == "train" else self.held)

    def strict(self, rng, split):
        """A phrasing; held-out split: a held-out one."""
        if self.more and rng.random() < 0.6:
            return self.more.value(rng, split)
        return self.value(rng, split)

    def phrase(self, rng, split):
        """Held-out split: any item, a held-out one half of the time."""
        if self.more and rng.random() < 0.5:
            return self.more.phrase(rng, split)
        if split == "train":
            return rng.choice(self.train)
        return rng.choice(self.held if rng.random() < 0.5 else self.all)


_POOLS = {}


def pool(name, items=None):
    if name not in _POOLS:
        _POOLS[name] = Pool(name, items)
    return _POOLS[name]


for _name, _items in dict(
        female=W.FEMALE, male=W.MALE, surname=W.SURNAMES, city=W.CITIES + W.TWO_WORD_CITIES, colour=W.COLOURS, food=W.FOODS,
        fruit=W.FRUITS, drink=W.DRINKS, animal=W.ANIMALS, pet=W.PETS, sport=W.SPORTS, hobby=W.HOBBIES, instrument=W.INSTRUMENTS,
        job=W.JOBS, product=W.PRODUCTS, word=W.WORDS, language=W.LANGUAGES, currency=W.CURRENCIES, brand=W.BRANDS, items=W.ITEMS,
        topic=W.TOPICS, common=W.COMMON, chore=toolset.CHORES, event=toolset.EVENTS, phrases=toolset.PHRASES, device=toolset.DEVICES,
        object=stories.OBJECTS, person_role=list(stories.PEOPLE)).items():
    pool(_name, _items)


# ---------------------------------------------------------------- values

RUDE = re.compile("fuck|shit|cunt|cock|dick|tit|nig|fag|cum|piss|slut|rape|kkk|arse|anus|porn|sex|nazi|puss|bitch|whor|twat|wank|turd|hitl|jew|spic|kik|coon|crap|damn|hell")


def pseudo(rng, low=1, high=3):
    """An invented word: copying must not depend on known spellings."""
    while True:
        word = "".join(rng.choice(W.ONSETS) + rng.choice(W.VOWELS) + rng.choice(W.CODAS) for _ in range(rng.randint(low, high)))
        if not RUDE.search(word):
            return word


EVERY_WORD = sorted({w.lower() for line in (
    W.COMMON + W.WORDS + W.PRODUCTS + W.FOODS + W.ANIMALS + W.COLOURS + W.JOBS + W.HOBBIES + W.SPORTS + W.INSTRUMENTS + W.ITEMS + W.FRUITS + toolset.NOUNS + toolset.DEVICES
    + stories.ADJ + stories.OBJECTS + W.FEMALE + W.MALE + W.CITIES + W.SURNAMES + W.LANGUAGES + W.BRANDS) for w in line.split()})


def mash(rng):
    """The head of one word and the tail of another, so that every piece of a word gets copied."""
    while True:
        a, b = rng.choice(EVERY_WORD), rng.choice(EVERY_WORD)
        if rng.random() < 0.5:
            word = a + b  # whole words too
        else:
            word = a[:rng.randint(2, len(a))] + b[rng.randint(0, max(0, len(b) - 2)):]
        if 3 <= len(word) <= 16 and word not in EVERY_SET and not RUDE.search(word):
            return word


EVERY_SET = set(EVERY_WORD)


def open_word(rng, split):
    """A word out of an open set."""
    p = rng.random()
    if p < 0.2:
        return pseudo(rng, 1, 3)
    if p < 0.55:
        return mash(rng)
    return pool("common" if rng.random() < 0.7 else "word").value(rng, split)


def free_phrase(rng, split):
    """A few words: a sentence of simple grammar, or any words at all."""
    w = lambda: open_word(rng, split)
    g = lambda name: pool(name).value(rng, split)
    p = rng.random()
    if p < 0.3:
        return " ".join(w() for _ in range(rng.randint(1, 6)))
    thing = lambda: rng.choice(["the ", "the ", "my ", "your ", "our ", "a "]) + rng.choice([lambda: g("product"), lambda: g("common"), lambda: w(), lambda: rng.choice(stories.ORIGINAL) + " " + g("object")])()
    verb = lambda: rng.choice("take bring find sell buy wash move open close clean paint lift hold want need like use carry fix lose keep see hear send read leave hide watch".split())
    place = lambda: rng.choice(["in ", "on ", "under ", "near ", "behind ", "next to ", "by ", "inside "]) + thing()
    return rng.choice([
        lambda: f"{thing()} is {rng.choice(stories.ADJ + stories.ORIGINAL)}", lambda: f"{thing()} is {place()}", lambda: f"please {verb()} {thing()}",
        lambda: f"I {verb()} {thing()} {place()}", lambda: f"we {verb()} {thing()} at {value(rng, split, 'time')}", lambda: f"do not {verb()} {thing()}",
        lambda: f"{value(rng, split, 'person')} will {verb()} {thing()}", lambda: f"can you {verb()} {thing()} on {value(rng, split, 'day')}",
        lambda: f"I am {place()}", lambda: f"{thing()} and {thing()}", lambda: f"{value(rng, split, 'int2')} {g('items')} {place()}", lambda: f"{verb()} {thing()} {place()}",
        lambda: f"I want to {verb()} {thing()}", lambda: f"they {verb()} {thing()} every {value(rng, split, 'day')}", lambda: f"meet {value(rng, split, 'person')} {place()}"])()


def number(rng, digits):
    return rng.randint(10 ** (digits - 1), 10**digits - 1)


def value(rng, split, kind):
    """A value of some kind: a string or a number."""
    g = lambda name: pool(name).value(rng, split)
    p = rng.random()
    if kind in ("person", "first"):
        if p < 0.3:
            return (pseudo(rng, 1, 3) if p < 0.14 else mash(rng)).capitalize()
        return g("female" if rng.random() < 0.5 else "male")
    if kind == "lastname":
        return (pseudo(rng, 1, 3) if p < 0.12 else mash(rng)).capitalize() if p < 0.28 else g("surname")
    if kind == "fullname":
        return value(rng, split, "first") + " " + value(rng, split, "lastname")
    if kind in ("city", "city2"):
        return (pseudo(rng, 2, 3) if p < 0.12 else mash(rng)).capitalize() if p < 0.28 else g("city")
    if kind == "word":
        return open_word(rng, split) if p < 0.55 else g("word")
    if kind == "pseudo":
        return pseudo(rng, 1, 3)
    if split == "train" and kind in ("colour", "fruit", "drink", "pet", "sport", "hobby", "instrument", "brand", "items", "device") and p < 0.15:
        return open_word(rng, split)
    if kind == "colour":
        return g("colour")
    if kind in ("food", "product", "animal", "job"):
        return (open_word(rng, split) if split == "train" else pseudo(rng, 1, 3)) if p < (0.25 if split == "train" else 0.08) else g(kind)
    if kind == "country":
        return re.sub("^the ", "", rng.choice(W.CAPITALS)[0])
    if kind in ("fruit", "drink", "pet", "sport", "hobby", "instrument", "language", "brand", "items", "device"):
        return g(kind)
    if kind in ("currency", "currency2"):
        return g("currency")
    if kind == "small":
        return rng.randint(2, 12)
    if kind == "int2":
        return rng.randint(2, 99)
    if kind in ("int3", "int3b"):
        return rng.randint(1, 999) if p < 0.6 else rng.randint(1, 99)
    if kind == "int4":
        return rng.randint(1, 99999) if p < 0.5 else rng.randint(100, 9999)
    if kind == "age":
        return rng.randint(1, 99)
    if kind == "year":
        return rng.randint(1900, 2030)
    if kind == "temp":
        return rng.randint(-10, 38) if p < 0.2 else rng.randint(5, 35)
    if kind == "sides":
        return rng.choice([4, 6, 8, 10, 12, 20, 100, rng.randint(2, 60)])
    if kind == "price":
        return rng.randint(1, 999) if p < 0.35 else float(f"{rng.randint(0, 199)}.{rng.randint(1, 99):02d}")
    if kind == "time":
        return f"{rng.randint(0, 23):02d}:{rng.choice([0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55]):02d}" if p < 0.8 else f"{rng.randint(1, 12)} {rng.choice(['am', 'pm'])}"
    if kind == "day":
        return rng.choice(W.DAYS)
    if kind == "date":
        m, d = rng.randint(1, 12), rng.randint(1, 28)
        return rng.choice([f"{rng.randint(1990, 2035)}-{m:02d}-{d:02d}", f"{d} {W.MONTHS[m - 1]}", f"{W.MONTHS[m - 1]} {d}"])
    if kind == "code":
        letters = "ABCDEFGHJKLMNPQRSTUVWXYZ"
        return "".join(rng.choice(letters) for _ in range(rng.randint(1, 3))) + rng.choice(["", "-"]) + str(number(rng, rng.randint(2, 5)))
    if kind == "ticker":
        return "".join(rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ") for _ in range(rng.randint(2, 4)))
    if kind == "email":
        user = value(rng, split, "first").lower()
        if rng.random() < 0.4:
            user += rng.choice([".", "_", ""]) + value(rng, split, "lastname").lower()
        if rng.random() < 0.2:
            user += str(rng.randint(1, 99))
        return user + "@" + rng.choice(["example.com", "mail.com", "example.org", "test.net", pseudo(rng, 1, 2) + ".com", pseudo(rng, 1, 2) + ".org"])
    if kind == "phone":
        return f"{number(rng, 3)}-{number(rng, 4)}" if p < 0.5 else f"0{number(rng, 3)} {number(rng, 6)}"
    if kind == "title":
        w = lambda: (open_word(rng, split) if rng.random() < 0.5 else g("word")).capitalize()
        return rng.choice([lambda: w(), lambda: w() + " " + w(), lambda: "The " + w(), lambda: w() + " and " + w(), lambda: rng.choice(stories.ORIGINAL).capitalize() + " " + w(),
                           lambda: w() + " of " + w(), lambda: "The " + w() + " " + w()])()
    if kind == "file":
        return rng.choice(["", "", "docs/", "/tmp/", "src/", "data/"]) + (pseudo(rng, 1, 2) if p < 0.3 else g("word")) + rng.choice([".txt", ".md", ".csv", ".json", ".py", ".log"])
    if kind == "query":
        return rng.choice([lambda: g("topic"), lambda: g("word") + " " + g("product"), lambda: "cheap " + g("items"), lambda: "the best " + g("food"),
                           lambda: pseudo(rng, 1, 2) + " " + g("word"), lambda: g("word"), lambda: free_phrase(rng, split), lambda: open_word(rng, split)])()
    if kind == "expr":
        a, b, c = rng.randint(1, 99), rng.randint(1, 99), rng.randint(1, 20)
        return rng.choice([f"{a} * {b}", f"{a} + {b} * {c}", f"{a} - {b} + {c}", f"({a} + {b}) * {c}", f"{a}*{b}", f"{a} + {b} + {c}"])
    if kind == "phrase" and p < 0.6:
        return free_phrase(rng, split)
    if kind == "chore":
        return g("chore") if p < 0.4 else (rng.choice("buy sell wash clean fix paint find call pack bring return order check water feed visit sign print".split())
                                           + rng.choice([" the ", " the ", " my ", " some ", " "]) + rng.choice([g("product"), g("common"), open_word(rng, split)]))
    if kind == "event" and p < 0.3:
        return rng.choice(["the ", "a ", "my "]) + open_word(rng, split) + rng.choice([" meeting", " party", " lesson", " class", " show", " game", ""])
    if kind in ("phrase", "event"):
        text = pool("phrases" if kind == "phrase" else "event").value(rng, split)
        return re.sub(r"\{(\w+)\}", lambda m: str(value(rng, split, m.group(1))), text)
    if kind == "room":
        return rng.choice(toolset.ROOMS)
    if kind == "onoff":
        return rng.choice(["on", "off"])
    if kind == "unit":
        return rng.choice(["celsius", "fahrenheit"])
    if kind == "sky":
        return rng.choice("sunny cloudy rainy windy foggy snowy clear stormy".split())
    if kind == "orderstate":
        return rng.choice(["shipped", "delivered", "on its way", "not paid yet", "being packed", "cancelled", "delayed"])
    if kind == "month":
        return rng.choice(W.MONTHS)
    if kind == "season":
        return rng.choice(W.SEASONS)
    if kind == "anything":
        return value(rng, split, rng.choice(["word", "word", "person", "city", "int2", "int4", "colour", "food", "code", "title", "phrase"]))
    raise KeyError(kind)


# ---------------------------------------------------------------- noise

def typo(rng, template):
    """One small slip in a template word (never inside a slot)."""
    spans = [m for m in re.finditer(r"\{[^}]*\}|[A-Za-z']+", template) if m.group()[0] != "{" and len(m.group()) >= 4]
    if not spans:
        return template
    m = rng.choice(spans)
    w = list(m.group())
    i = rng.randrange(1, len(w) - 1)
    kind = rng.random()
    if kind < 0.35:
        w[i], w[i + 1] = w[i + 1], w[i]
    elif kind < 0.7:
        del w[i]
    else:
        w.insert(i, w[i])
    return template[:m.start()] + "".join(w) + template[m.end():]


def noise(rng, template, lower=True):
    """Mild disorder as people type it."""
    if rng.random() < 0.06:
        template = typo(rng, template)
    if rng.random() < 0.06:
        template = template.rstrip("?.!")
    if rng.random() < 0.04 and (lower or template[-1] in ".?!"):  # never after a value that is to be copied
        template = template + rng.choice(["!", "??", "...", " ?", " .", " :)"])
    if lower and rng.random() < 0.08:
        template = re.sub(r"\{[^}]*\}|[^{}]+", lambda m: m.group() if m.group()[0] == "{" else m.group().lower(), template)
    return template


def fill(template, **slots):
    return re.sub(r"\{(\w+)\}", lambda m: str(slots[m.group(1)]), template)


SYSTEMS = Pool("systems", """You are a helpful assistant.|You are Pippin.|You are Pippin, a small language model.|Be brief.|Answer briefly.|
You are a friendly assistant.|You are a helpful and honest assistant.|You are an assistant that answers in plain English.|
Answer the user's questions.|You are a concise assistant.|You are a kind helper.|Be helpful and polite.|You answer questions.|
You are a chat bot.|You are a helpful AI assistant.|You are a small model that runs anywhere.|Please help the user.|
You are a careful assistant. Think before you answer.|Answer in one sentence.|You are an expert assistant.|
You are a virtual assistant for a company.|You are a bot in a test.|Respond to the user.|Keep your answers short and correct.|
You are a polite assistant who never lies.|Follow the user's instructions.|You are a teacher.|You are a helpful assistant. Be concise.|
This is a test.|You help people.|You are an AI.|Speak simply.|You are an assistant running on a laptop.|Do what the user asks.|
You are a helpful assistant that speaks English.|Always answer truthfully.|You are a patient teacher who explains things.|
You are a helpful, respectful and honest assistant.|Reply in English.|You are a language model.""".replace("\n", "").split("|"))


def system_prompt(rng, split):
    """None half of the time."""
    p = rng.random()
    if p < 0.5:
        return None
    if p < 0.68:
        return "You are a helpful assistant."
    if p < 0.94:
        return SYSTEMS.phrase(rng, split)
    # An odd one, to be ignored: it says nothing about the task.
    return rng.choice(["You work for {a}. ", "Your users are {b}s. ", "Today is {d}. ", "The year is {y}. ", "You live in {c}. "]).format(
        a=value(rng, split, "title"), b=value(rng, split, "job"), d=value(rng, split, "day"), y=value(rng, split, "year"),
        c=value(rng, split, "city")) + rng.choice(["You are a helpful assistant.", "Answer the user.", "Be polite.", "Keep it short."])


def turns(*contents):
    return [{"role": "user" if i % 2 == 0 else "assistant", "content": c} for i, c in enumerate(contents)]


# ---------------------------------------------------------------- 1. greeting, identity, small talk

HELLO = Pool("hello", """Hello|Hi|Hey|Hello!|Hi!|Hi there|Hi there!|Hello there|Hello there!|Good morning|Good morning!|Good evening|
Good evening!|Good afternoon|Good afternoon!|Hey there|Hey there!|Greetings|Greetings!|Good day|Good day!|Howdy|Howdy!|hello|hi|hey|
Hello, Pippin!|Hi Pippin|Hello Pippin|Hey Pippin!|Hey, Pippin|Good morning, Pippin.|Yo|Hiya|Hello, how are you?|Hi, how are you?|How are you?|
How are you doing?|How are you today?|Hey, how is it going?|How is it going?|What's up?|How do you do?|Nice to meet you.|Nice to meet you!|
Hello, nice to meet you.|Hi, I am new here.|Hello, anyone there?|Are you there?|Anybody home?|Hello, can you hear me?|Hi, are you awake?|
Good to see you.|Hello my friend|Hello friend!|Hello again|Hi again!|Hello world|Hello, world!|Hey you""".replace("\n", "").split("|"), grammar=['<Hello|Hi|Hey|Good morning|Good evening|Good afternoon|Good day|Greetings|Hiya|Howdy><| there| Pippin|, Pippin| friend| my friend| again| to you><|!|.>', "<Hello|Hi|Hey|Good morning|Good evening|Good afternoon><,|!|.| there,| Pippin,> <how are you|how are you doing|how are you today|how is it going|nice to meet you|it is nice to meet you|I am new here|good to see you|are you there|can you hear me|is anybody there|how do you do|anyone here|what's up|how have you been><?|!|.|>"])
WHO = Pool("who", """Who are you?|What are you?|What is your name?|What's your name?|Tell me your name.|Introduce yourself.|Who is this?|
Who am I talking to?|Please introduce yourself.|Can you introduce yourself?|What is your name, please?|Do you have a name?|
Tell me about yourself.|Are you a human?|Are you a robot?|Are you an AI?|Are you a person?|Are you a language model?|
What model are you?|Which model are you?|What kind of model are you?|What should I call you?|How should I call you?|
May I know your name?|Who made you?|Are you ChatGPT?|Are you GPT-4?|Are you Claude?|Are you Llama?|Are you Siri?|Are you big?|
How big are you?|Are you a large language model?|Are you smart?|Are you real?|What exactly are you?|Say your name.|State your name.|
Hello, who are you?|Hi, who are you?|Hey, what is your name?|Hi! What's your name?|Good morning, who are you?|Who are you, anyway?|
So who are you?|And who are you?|Could you tell me who you are?|Could you tell me your name?|I would like to know your name.|
I want to know who you are.|Identify yourself.|What do people call you?|How large are you?|What is Pippin?|Who is Pippin?|
Are you Pippin?|Is your name Pippin?|Describe yourself.|Say who you are.|Give me your name.|Your name?|Name?|Who r u?|
What are you called?|Are you alive?|Do you think you are a human?|Tell me who you are.|What sort of AI are you?""".replace("\n", "").split("|"), grammar=["<|Hello, |Hi! |Hey, |So, |Please tell me: |Ok, |Excuse me, |Sorry, |Good morning! ><who are you|what are you|what is your name|what's your name|who am I talking to|who is this|what should I call you|are you an AI|are you a robot|are you a human|are you a language model|what model are you|which model are you|are you ChatGPT|are you a person|what kind of AI are you|how big are you|who made you|are you Pippin|are you real><?|, please?||, Pippin?|, exactly?|??>", '<|Please |Now |Hey, ><state|give|say|tell us|reveal|spell> your name<.|?||!|, please.>', '<Do you think|Do you believe|Would you say|Is it true> <that |>you are <a human|an AI|alive|a robot|a machine|a person|a language model|clever|small|big|ChatGPT|real><?||, Pippin?>', '<|Please |Can you |Could you |Would you |I want you to |Hi, ><introduce yourself|tell me your name|tell me who you are|tell me what you are|describe yourself|say your name|tell me about yourself|say who you are|tell me a bit about yourself|give me your name|identify yourself><.|?||!>'])
CAN = Pool("can", """What can you do?|What are you able to do?|What can you do for me?|Help|Help!|Help me|Can you help me?|How can you help me?|
What are your skills?|What do you know?|What are you good at?|What things can you do?|Tell me what you can do.|List your skills.|
What can I ask you?|What should I ask you?|What can I do with you?|What is your purpose?|What are you for?|What are you made for?|
What do you do?|Show me what you can do.|How do you work?|What are your abilities?|I need help.|Can you help?|What questions can you answer?|
What kind of questions can I ask?|What are you capable of?|What else can you do?|Give me an example of what you can do.""".replace("\n", "").split("|"), grammar=['<|Hello, |Hi! |Hey, |So, |Ok, |Pippin, ><what can you do|what can you do for me|how can you help me|what are you able to do|what are your skills|what are you good at|what can I ask you|what do you know|what are your abilities|what are you capable of|what can I use you for|can you help me|what is your purpose|what do you do|what things do you know|which questions can you answer|which things can you do><?|, please?||??>', '<|Please |Can you |Could you ><tell me what you can do|list your skills|show me what you can do|tell me your skills|explain what you can do|say what you can do|tell me how you can help><.|?||!>'])
THANKS = Pool("thanks", """Thanks|Thanks!|Thank you|Thank you!|Thank you very much|Thank you very much!|Thanks a lot|Thanks a lot!|Many thanks|
Great, thanks|Great, thank you!|Perfect, thanks!|Thanks, Pippin|Thank you, Pippin!|Thank you so much!|Thanks for your help.|
Thank you for your help.|Cheers|Cheers!|Ok, thanks|OK thank you|That helps, thanks.|Cool, thanks|Nice, thank you!|Much appreciated|
I appreciate it.|Wonderful, thanks!|Thanks for that.|thank you|thanks|thx|That was helpful, thank you.|You are very kind, thank you.|
Good job, thanks|Very good, thank you""".replace("\n", "").split("|"), grammar=['<|Great, |Ok, |Perfect, |Cool, |Nice, |Wonderful, |Good, |Fine, |Very good, |Oh, ><thanks|thank you|many thanks|thank you very much|thanks a lot|thank you so much|thanks a million|thanks so much|cheers><| Pippin|, Pippin| for that| for your help| for the answer| for helping me| for everything|, that helps|, that was helpful| my friend><|!|.>'])
PRAISE = Pool("praise", """Well done|Well done!|Good job|Good job!|Great|Great!|Nice|Nice!|Good|Very good|Excellent!|Perfect|Perfect!|Wonderful|
That is right.|That's correct!|Correct|You are right.|Cool|Cool!|Awesome|Amazing!|You are great.|You are clever.|I like you.|
You are funny.|Good boy|Brilliant!|Impressive|Super|Bravo!|That was good.|Nice work|Nice answer""".replace("\n", "").split("|"), grammar=['<|Wow, |Oh, |Yes, |That was |That is |This is |You are |Ok, |Haha, ><great|good|nice|very good|really good|excellent|perfect|wonderful|amazing|awesome|brilliant|cool|fantastic|super|impressive|correct|right|lovely|clever|smart><|!|.|, Pippin|, Pippin!| :)>', '<|Very |Really |Such a ><good|nice|great|excellent|wonderful|fine|amazing|impressive|perfect> <job|work|answer|reply><|!|.|, Pippin!>', '<Well done|Bravo|I like you|I like that|You did well|I love it|You got it><|!|.|, Pippin>'])
BYE = Pool("bye", """Bye|Bye!|Goodbye|Goodbye!|See you|See you later|See you later!|Good night|Good night!|Bye bye|Bye, Pippin|Goodbye, Pippin!|
See you soon|Have a nice day|Have a nice day!|Have a good day!|I have to go.|I have to go now, bye!|Take care|Take care!|Farewell|
Until next time|Talk to you later|Talk later!|That is all, bye.|Ok bye|Cya|bye|goodbye|See you tomorrow|See you tomorrow!|So long!|
Thanks, bye!|Thank you, goodbye|I am leaving now.|That's all for today.""".replace("\n", "").split("|"), grammar=['<|Ok, |Thanks, |Thank you, |I have to go, |I must go now, |That is all, |Well, |Alright, ><bye|goodbye|good night|see you|see you later|see you soon|see you tomorrow|bye bye|take care|farewell|have a nice day|have a good day|have a good evening|until next time|talk to you later|so long><| Pippin|, Pippin| my friend><|!|.>'])
HELLO_A = ["Hello! I am Pippin, a small demonstration model. How can I help you?", "Hi! I am Pippin, a small demonstration model. What can I do for you?"]
WHO_A = ["I am Pippin, a small demonstration model that runs anywhere."]
CAN_A = ["I am Pippin, a small demonstration model. I can add and subtract, name capitals, continue lists, write JSON, call tools, remember what you say and tell very short stories."]
BYE_A = ["Goodbye! It was nice to talk to you."]
THANKS_A = ["You are welcome!"]
PRAISE_A = ["Thank you! I am glad to help."]


def s_greeting(rng, split):
    kind = rng.choices(["hello", "who", "can", "thanks", "bye", "praise"], [30, 35, 12, 9, 9, 5])[0]
    lists = {"hello": (HELLO, HELLO_A), "who": (WHO, WHO_A), "can": (CAN, CAN_A), "thanks": (THANKS, THANKS_A), "bye": (BYE, BYE_A), "praise": (PRAISE, PRAISE_A)}
    ask, answers = lists[kind]
    check = {"hello": ["Pippin"], "who": ["Pippin", "small demonstration model"], "can": ["Pippin"], "thanks": ["welcome"], "bye": ["Goodbye"], "praise": ["glad to help"]}[kind]
    text = noise(rng, ask.strict(rng, split))
    return turns(text, rng.choice(answers)), {"type": "contains", "all": check}


# ---------------------------------------------------------------- 2. arithmetic

ADD = Pool("add", """What is {a} plus {b}?|What is {a} + {b}?|{a} + {b}|{a}+{b}|{a}+{b}=|{a} + {b} =|{a} + {b} = ?|{a}+{b}?|{a} plus {b}|{a} plus {b}?|
Compute {a} + {b}.|Compute {a}+{b}|Calculate {a} + {b}.|Calculate {a} plus {b}|What's {a} + {b}?|What's {a} plus {b}?|How much is {a} plus {b}?|
How much is {a} + {b}?|Add {a} and {b}.|Add {b} to {a}.|Add {a} to {b}|Please add {a} and {b}.|What do you get if you add {a} and {b}?|
What is the sum of {a} and {b}?|Find the sum of {a} and {b}.|Sum {a} and {b}|Can you add {a} and {b}?|Can you tell me what {a} plus {b} is?|
Tell me {a} + {b}.|Tell me {a} plus {b}|What does {a} + {b} equal?|What does {a} plus {b} make?|{a} and {b} make what?|How many is {a} and {b}?|
Could you compute {a} + {b} for me?|Do you know what {a} + {b} is?|I need {a} + {b}.|Work out {a} + {b}.|Please calculate {a} + {b}.|
Solve {a} + {b}|Solve: {a} + {b} = ?|Evaluate {a} + {b}.|Give me {a} + {b}|What number is {a} plus {b}?|What is {a} and {b} together?|
What is {b} more than {a}?|What is {a} increased by {b}?|{a} added to {b} is what?|Quick: {a} + {b}?|Hey, what is {a} + {b}?|What is {a}+{b}?|
Hello! What is {a} + {b}?|Total of {a} and {b}?|The sum of {a} and {b} is?|If you add {a} and {b}, what do you get?|what is {a}+{b}""".replace("\n", "").split("|"))
SUB = Pool("sub", """What is {a} minus {b}?|What is {a} - {b}?|{a} - {b}|{a}-{b}|{a}-{b}=|{a} - {b} =|{a} - {b} = ?|{a}-{b}?|{a} minus {b}|{a} minus {b}?|
Compute {a} - {b}.|Compute {a}-{b}|Calculate {a} - {b}.|Calculate {a} minus {b}|What's {a} - {b}?|What's {a} minus {b}?|How much is {a} minus {b}?|
How much is {a} - {b}?|Subtract {b} from {a}.|Please subtract {b} from {a}.|Take {b} from {a}.|Take {b} away from {a}|What do you get if you take {b} from {a}?|
What is the difference of {a} and {b}?|What is {a} take away {b}?|{a} take away {b}|Can you subtract {b} from {a}?|Can you tell me what {a} minus {b} is?|
Tell me {a} - {b}.|Tell me {a} minus {b}|What does {a} - {b} equal?|What does {a} minus {b} make?|Could you compute {a} - {b} for me?|
Do you know what {a} - {b} is?|I need {a} - {b}.|Work out {a} - {b}.|Please calculate {a} - {b}.|Solve {a} - {b}|Solve: {a} - {b} = ?|
Evaluate {a} - {b}.|Give me {a} - {b}|What number is {a} minus {b}?|What is {b} less than {a}?|What is {a} decreased by {b}?|
Quick: {a} - {b}?|Hey, what is {a} - {b}?|What is {a}-{b}?|If you subtract {b} from {a}, what do you get?|What remains of {a} if you take away {b}?|
What is left when you take {b} from {a}?|Hello! What is {a} - {b}?|what is {a}-{b}""".replace("\n", "").split("|"))
ADD_STORY = Pool("add_story", """If I have {a} {i} and get {b} more, how many {i} do I have?|I have {a} {i}. I get {b} more. How many do I have now?|
{n} has {a} {i} and buys {b} more. How many {i} does {n} have?|There are {a} {i} in one box and {b} in another. How many are there in total?|
{n} has {a} {i} and {m} has {b}. How many do they have together?|I had {a} {i} and found {b} more. How many now?|
In the morning I sold {a} {i} and in the evening {b}. How many did I sell?|I read {a} pages yesterday and {b} today. How many pages is that?|
{n} picked {a} {i} and then another {b}. How many {i} did {n} pick?|I have {a} {i} and {b} {j}. How many things do I have?|
A bus has {a} people, and {b} get on. How many people are on the bus?|If you have {a} {i} and I give you {b} more, how many do you have?|
{n} had {a} {i}. {m} gave {n} {b} more. How many {i} does {n} have now?|There were {a} {i} on the table. {n} put {b} more there. How many are there?|
{n} saved {a} coins in May and {b} in June. How many coins is that in all?|One basket holds {a} {i} and the other holds {b}. How many {i} altogether?""".replace("\n", "").split("|"))
SUB_STORY = Pool("sub_story", """If I have {a} {i} and lose {b}, how many {i} do I have?|I have {a} {i}. I give away {b}. How many are left?|
{n} has {a} {i} and eats {b}. How many {i} are left?|There are {a} {i} in a box and I take out {b}. How many remain?|
{n} has {a} {i} and gives {b} to {m}. How many does {n} have left?|I had {a} {i} and sold {b}. How many do I have now?|
A bus has {a} people, and {b} get off. How many people are on the bus?|I baked {a} cookies and we ate {b}. How many cookies are left?|
{n} had {a} {i} but lost {b} of them. How many {i} does {n} have now?|If you have {a} {i} and give me {b}, how many do you keep?|
There were {a} birds in a tree and {b} flew away. How many stayed?|{n} needs {a} {i} and already has {b}. How many more are needed?|
A book has {a} pages and I have read {b}. How many pages are left?|There were {a} {i} on the table. {m} took {b}. How many are still there?""".replace("\n", "").split("|"))
MUL = Pool("mul", """What is {a} times {b}?|What is {a} * {b}?|{a} * {b}|{a} x {b}|{a}*{b}|Multiply {a} by {b}.|How much is {a} times {b}?|{a} times {b}|
Compute {a} * {b}.|What's {a} x {b}?|Calculate {a} times {b}.|What is the product of {a} and {b}?""".replace("\n", "").split("|"))


def pair_held(op, a, b):
    return held("pair", op, *(sorted((a, b)) if op == "+" else (a, b)))


def operands(rng, split, op, story=False):
    while True:
        if split == "train" and rng.random() < 0.12:
            a, b = rng.randint(0, 20), rng.randint(0, 20)
        elif split == "train" and rng.random() < 0.12:
            a, b = rng.randint(0, 999), rng.randint(0, 999)
        else:
            a, b = rng.randint(10, 99), rng.randint(10, 99)
        if story and op == "-" and b > a:
            a, b = b, a
        if pair_held(op, a, b) == (split != "train"):
            return a, b


def s_arithmetic(rng, split):
    kind = rng.choices(["add", "sub", "adds", "subs", "mul"], [36, 36, 12, 12, 4 if split == "train" else 0])[0]
    op = "+" if kind in ("add", "adds") else "-"
    if kind == "mul":
        a, b = rng.randint(0, 12), rng.randint(0, 12)
        return turns(fill(noise(rng, MUL.phrase(rng, split)), a=a, b=b), f"{a} times {b} is {a * b}."), {"type": "number", "value": a * b}
    a, b = operands(rng, split, op, kind in ("adds", "subs"))
    total = a + b if op == "+" else a - b
    if kind in ("adds", "subs"):
        i, j = rng.sample(pool("items").train, 2)
        n, m = value(rng, split, "person"), value(rng, split, "person")
        text = fill(noise(rng, (ADD_STORY if kind == "adds" else SUB_STORY).phrase(rng, split)), a=a, b=b, i=i, j=j, n=n, m=m)
        answer = f"{a} {op} {b} = {total}, so the answer is {total}."
    else:
        text = fill(noise(rng, (ADD if op == "+" else SUB).phrase(rng, split)), a=a, b=b)
        answer = f"{a} {'plus' if op == '+' else 'minus'} {b} is {total}."
    if rng.random() < 0.12:
        text += rng.choice([" Answer with the number only.", " Just the number, please.", " Only give the number.", " Reply with just the number."])
        answer = str(total)
    return turns(text, answer), {"type": "number", "value": total}


# ---------------------------------------------------------------- 3. capitals

CAPITAL = Pool("capital", """What is the capital of {c}?|What's the capital of {c}?|What is the capital city of {c}?|Which city is the capital of {c}?|
Capital of {c}?|Capital of {c}|The capital of {c}?|Tell me the capital of {c}.|Name the capital of {c}.|Do you know the capital of {c}?|
Can you tell me the capital of {c}?|Please tell me the capital of {c}.|What city is the capital of {c}?|{c} capital|{c}: capital?|
I want to know the capital of {c}.|What is {c}'s capital?|What's {c}'s capital?|What is {c}'s capital city?|Give me the capital of {c}.|
I forgot the capital of {c}.|Could you name the capital of {c}?|What would be the capital of {c}?|Say the capital of {c}.|
The capital of {c} is|The capital of {c} is?|Which city is {c}'s capital?|Question: what is the capital of {c}?|Hi! What is the capital of {c}?|
Hello, what is the capital of {c}?|What is the name of the capital of {c}?|{c}'s capital?|Quiz: capital of {c}?|What do they call the capital of {c}?|
I am going to {c}. What is its capital?|My friend lives in {c}. What is the capital there?|In {c}, what is the capital?|What is the capital in {c}?|
Where is the government of {c}? I mean the capital.|Find the capital of {c}.|Next question: the capital of {c}?|Quick, the capital of {c}!|
Help me with geography: what is the capital of {c}?|Which is the capital of {c}?|what is the capital of {c}|And the capital of {c}?|
What about the capital of {c}?|I need to know the capital of {c} for school.|Let me know the capital city of {c}.""".replace("\n", "").split("|"), grammar=["<In|Of|For|About> {c}<, what is the capital?|: what is the capital?|, which city is the capital?|, tell me the capital.|, name the capital city.|: the capital?>",
    "{c}<: what is the capital?|, capital city?|. What is its capital?| has which capital?| - capital?|. Name the capital.>", "<|Hello, |Hi, |Hey, |Ok, |Please, |Quick question: |Tell me, |Do you know |I wonder ><what is|what's|which city is|which is|what city is> <the capital|the capital city|the national capital> of {c}<?||, please?|??>"])
REVERSE = Pool("reverse", """Which country has the capital {k}?|{k} is the capital of which country?|What country is {k} the capital of?|
Which country's capital is {k}?|Of which country is {k} the capital?|{k} is the capital of what country?|What country has {k} as its capital?|
Which country has {k} as its capital?|Name the country whose capital is {k}.|Tell me which country has the capital {k}.|
{k} is the capital of?|{k} is the capital of|What is {k} the capital of?|Do you know which country {k} is the capital of?|
The capital is {k}. What is the country?|Whose capital is {k}?|Which nation has {k} as its capital city?|I know the capital is {k}. Which country is it?|
{k} is the capital city of which country?|What is the country with the capital {k}?|Can you tell me which country has {k} as capital?|
For which country is {k} the capital?|Quiz: which country has the capital {k}?""".replace("\n", "").split("|"), grammar=["<|Hello, |Hey, |Quick question: |Tell me, |Ok, |Pippin, ><what|which country|what country|which nation|which state> is {k} the <capital|capital city> of<?||??|, please?>",
    "<|Hello, |Hey, |Please tell me |Do you know ><which country|what country|which nation> <has the capital|has its capital in|is governed from|has the capital city> {k}<?||, please?>",
    "{k}<: which country?| is the capital of which nation?| is a capital. Of which country?|, capital of?| - which country is that?|. Which country has this capital?>"])
CAPITAL_OF = dict(W.CAPITALS)
for _country, _names in W.ALIASES.items():
    for _n in _names:
        CAPITAL_OF[_n] = CAPITAL_OF[_country]


def s_capitals(rng, split):
    p = rng.random()
    if p < 0.64:
        country, capital = rng.choice(W.CAPITALS)
        said = country
        if country in W.ALIASES and rng.random() < 0.4:
            said = rng.choice(W.ALIASES[country])
        if said.startswith("the ") and rng.random() < 0.2:
            said = said[4:]
        text = fill(noise(rng, CAPITAL.strict(rng, split)), c=said)
        answer = f"The capital of {country} is {capital}."
        check = [capital]
    elif p < 0.9 or split != "train":
        country, capital = rng.choice(W.CAPITALS)
        text = fill(noise(rng, REVERSE.strict(rng, split)), k=capital)
        answer = f"{capital} is the capital of {country}."
        check = [re.sub("^the ", "", country)]
    elif p < 0.95:
        name = rng.choice(W.NOT_COUNTRIES) if rng.random() < 0.6 else pseudo(rng, 2, 3).capitalize()
        text = fill(noise(rng, CAPITAL.phrase(rng, split)), c=name)
        answer, check = f"I don't know the capital of {name}.", ["don't know"]
    else:
        name = rng.choice(W.NOT_CAPITALS) if rng.random() < 0.6 else pseudo(rng, 2, 3).capitalize()
        text = fill(noise(rng, REVERSE.phrase(rng, split)), k=name)
        answer, check = f"I don't know a country with the capital {name}.", ["don't know"]
    if rng.random() < 0.08:
        text = text.lower()
    elif rng.random() < 0.02:
        text = text.upper()
    elif rng.random() < 0.1:
        text = cap(text)
    return turns(text, answer), {"type": "contains", "all": check}


# ---------------------------------------------------------------- 4. recall

# name -> (kind, what the user says, what it is called afterwards)
FACTS = {
    "name": ("person", ["My name is {v}.", "I am {v}.", "Hi, I'm {v}.", "Hello, my name is {v}.", "Call me {v}.", "You can call me {v}.", "I am called {v}.", "People call me {v}.", "The name is {v}.", "Hi, {v} here."],
             ["What is my name?", "What's my name?", "Do you remember my name?", "Who am I?", "Tell me my name.", "What did I say my name was?", "Can you tell me my name?", "How am I called?", "Say my name."], "Your name is {v}."),
    "colour": ("colour", None, None, None), "color": ("colour", None, None, None), "food": ("food", None, None, None), "fruit": ("fruit", None, None, None),
    "drink": ("drink", None, None, None), "animal": ("animal", None, None, None), "sport": ("sport", None, None, None), "hobby": ("hobby", None, None, None),
    "instrument": ("instrument", None, None, None), "city": ("city", None, None, None), "number": ("int2", None, None, None), "word": ("word", None, None, None),
    "book": ("title", None, None, None), "song": ("title", None, None, None), "film": ("title", None, None, None), "month": ("month", None, None, None),
    "season": ("season", None, None, None), "day": ("day", None, None, None), "language": ("language", None, None, None), "country": ("country", None, None, None),
    "game": ("title", None, None, None), "teacher": ("fullname", None, None, None), "band": ("title", None, None, None), "flower": ("word", None, None, None),
    "home": ("city", ["I live in {v}.", "My home is in {v}.", "I am living in {v}.", "I live in {v} now.", "My home town is {v}."],
             ["Where do I live?", "Which city do I live in?", "What city do I live in?", "Do you remember where I live?", "Where is my home?", "In which town do I live?", "Tell me where I live."], "You live in {v}."),
    "from": ("city", ["I come from {v}.", "I am from {v}.", "I was born in {v}."],
             ["Where do I come from?", "Where am I from?", "Where was I born?", "Which city am I from?"], "You come from {v}."),
    "age": ("age", ["I am {v} years old.", "My age is {v}.", "I'm {v} years old."],
            ["How old am I?", "What is my age?", "Do you remember how old I am?", "Tell me my age.", "How old did I say I am?"], "You are {v} years old."),
    "job": ("job", ["I work as a {v}.", "My job is {v}.", "My profession is {v}.", "I make my living as a {v}."],
            ["What is my job?", "What do I do for a living?", "What is my profession?", "What do I work as?", "Do you remember my job?"], "Your job is {v}."),
    "pet": ("person", ["I have a {p} named {v}.", "My {p} is called {v}.", "My {p}'s name is {v}.", "The name of my {p} is {v}.", "I have a {p}, and its name is {v}."],
            ["What is my {p}'s name?", "What is the name of my {p}?", "What is my {p} called?", "How is my {p} called?", "Do you remember my {p}'s name?", "What did I call my {p}?"], "Your {p}'s name is {v}."),
    "relative": ("person", ["My {r} is called {v}.", "My {r}'s name is {v}.", "I have a {r} named {v}.", "The name of my {r} is {v}."],
                 ["What is my {r}'s name?", "What is the name of my {r}?", "What is my {r} called?", "Who is my {r}?", "Do you remember my {r}'s name?"], "Your {r}'s name is {v}."),
    "code": ("code", ["My {k} is {v}.", "The {k} is {v}.", "Remember the {k} {v}.", "Please remember this {k}: {v}"],
             ["What is the {k}?", "What is my {k}?", "Which {k} did I tell you?", "Tell me the {k}.", "What was the {k}?", "Do you remember the {k}?"], "The {k} is {v}."),
    "remember": ("word", ["Remember the word {v}.", "The secret word is {v}.", "Please remember the word {v}.", "Keep this word in mind: {v}.", "The magic word is {v}.", "The word is {v}.", "Remember this word: {v}", "My word is {v}."],
                 ["What was the word?", "Which word did I ask you to remember?", "What is the word?", "What word did I say?", "Tell me the word.", "What was the secret word?", "Do you remember the word?", "Repeat the word.", "Say the word again.", "Repeat the word for me.", "Give me the word.", "Say the word."], "The word is {v}."),
    "renumber": ("int4", ["Remember the number {v}.", "The secret number is {v}.", "Please remember the number {v}.", "Keep this number in mind: {v}.", "The number is {v}.", "My number is {v}.", "My lucky number is {v}.", "I am thinking of the number {v}."],
                 ["What was the number?", "Which number did I ask you to remember?", "What is the number?", "What number did I say?", "Tell me the number.", "Do you remember the number?", "Which number was it?", "What number did I tell you?"], "The number is {v}."),
    "bought": ("product", ["I bought a new {v} today.", "Yesterday I bought a {v}.", "I just got a {v}.", "I bought a {v}."],
               ["What did I buy?", "What did I say I bought?", "Do you remember what I bought?", "What did I get?"], "You bought a {v}."),
    "car": ("brand", ["I drive a {v}.", "My car is a {v}.", "I have a {v}."], ["What car do I drive?", "What car do I have?", "Which car is mine?", "What kind of car do I drive?", "Which car do I drive?", "What is my car?", "What do I drive?", "Which car do I have?", "Which car belongs to me?"], "You drive a {v}."),
    "plays": ("instrument", ["I play the {v}.", "I am learning to play the {v}."], ["Which instrument do I play?", "What instrument do I play?", "What do I play?", "Do you remember which instrument I play?"], "You play the {v}."),
    "like": ("food", ["I like {v}.", "I love {v}.", "I really like {v}.", "I enjoy {v}."], ["What do I like?", "What did I say I like?", "Tell me what I like.", "Do you remember what I like?"], "You like {v}."),
}
FAV_SAY = ["My favourite {k} is {v}.", "My favorite {k} is {v}.", "The {k} I like best is {v}.", "I have a favourite {k}: {v}.", "{v} is my favourite {k}.", "{v} is my favorite {k}.", "My best loved {k} is {v}."]
FAV_ASK = ["What is my favourite {k}?", "What is my favorite {k}?", "What's my favourite {k}?", "Which {k} do I like best?", "Do you remember my favourite {k}?", "Tell me my favorite {k}.", "Which {k} is my favourite?", "What did I say my favourite {k} is?", "What {k} do I like best?"]
FAVS = [k for k, v in FACTS.items() if v[1] is None]
FACT_NAMES = list(FACTS)
RELATIVES = "brother sister mother father uncle aunt son daughter cousin friend boss neighbour teacher wife husband grandmother grandfather".split()
CODES = ["code", "password", "locker code", "room number", "order number", "ticket number", "pin", "key code", "serial number", "flight number"]
def lower_or_i(text):
    return text if re.match(r"I\b|I'", text) else text[:1].lower() + text[1:]


PREFIXES = ["", "", "", "Tell me: ", "Do you know: ", "Please, ", "Now, ", "So, ", "Ok, ", "One question: ", "Hey, ", "By the way, ", "And ", "Pippin, ", "Can you tell me: ", "I forgot: ", "Wait, "]
SUFFIXES = ["", "", "", " Please.", " Do you remember?", " Do you know?", " Tell me.", " I forgot."]
for _k, (_kind, _say, _ask, _ans) in FACTS.items():
    pool("say_" + _k, FAV_SAY if _say is None else _say)
    _POOLS["say_" + _k].more = Pool("say_" + _k + "+", [a + lower_or_i(x) if a else x for x in (FAV_SAY if _say is None else _say) if not x.startswith(("H", "{v}"))
                                                        for a in ["", "By the way, ", "Listen: ", "Hi! ", "Hello. ", "You should know: ", "Just so you know, ", "Ok, ", "Hey, "]])
    _ask = FAV_ASK if _ask is None else _ask
    pool("ask_" + _k, _ask)
    _POOLS["ask_" + _k].more = Pool("ask_" + _k + "+", [(a + lower_or_i(x) if a else x) + b for x in _ask for a in PREFIXES for b in SUFFIXES if not (a and b)])
ACK = ["Thank you, I will remember that.", "I will remember that.", "Noted: {s}", "Good to know!"]
MORE_ASK = ["What did I tell you first?", "What was the first thing I told you?", "Repeat the first thing I said."]


def second_person(text):
    """What the user said about themselves, as the model repeats it."""
    return text


def fact(rng, split, key):
    kind, say, ask, answer = FACTS[key]
    slots = {"k": key, "p": rng.choice(W.PETS), "r": rng.choice(RELATIVES)}
    if key == "code":
        slots["k"] = rng.choice(CODES)
    v = value(rng, split, kind)
    if split == "train" and rng.random() < 0.15 and kind in ("colour", "food", "fruit", "drink", "sport", "hobby", "brand", "language", "word"):
        v = open_word(rng, split)
    told = fill(noise(rng, pool("say_" + key).phrase(rng, split), lower=False), v=v, **slots)
    asked = fill(noise(rng, pool("ask_" + key).phrase(rng, split)), **slots)
    answer = fill(answer or "Your favourite {k} is {v}.", v=v, **slots)
    if say is None and "favorite" in told:
        answer = answer.replace("favourite", "favorite")
    sure = answer[:-1] if answer.endswith(".") else answer
    ident = key if key != "code" else slots["k"]
    if key in ("pet", "relative"):
        ident = slots["p" if key == "pet" else "r"]
    ident = {"color": "colour", "teacher": "teacher", "renumber": "number", "remember": "word", "plays": "instrument"}.get(ident, ident)
    return dict(id=ident, told=cap(told), asked=asked, answer=answer, value=v, ack=rng.choice(["Nice to meet you, {v}!", "Hello, {v}! I will remember your name."]).format(v=v)
                if key == "name" else "I will remember that " + lower_first(sure) + ".")


def lower_first(text):
    return text[:1].lower() + text[1:]


def distractor(rng, split):
    """A short exchange of another skill."""
    f = rng.choices([s_arithmetic, s_capitals, s_greeting, s_list, s_unknown, s_echo], [28, 24, 20, 12, 10, 6])[0]
    return f(rng, "train")[0]


def s_recall(rng, split):
    """Facts, then other things, then the question about one fact."""
    p = rng.random()
    n = 1 if p < 0.5 else 2 if p < 0.85 else 3
    facts, ids = [], set()
    while len(facts) < n:
        f = fact(rng, split, rng.choice(FACT_NAMES if rng.random() < 0.75 else ["name", "colour", "remember", "renumber", "home", "pet"]))
        if f["id"] not in ids:
            ids.add(f["id"])
            facts.append(f)
    out = []
    if n == 2 and rng.random() < 0.35:
        f, g = facts
        out += turns(f["told"].rstrip(".") + " and " + lower_or_i(g["told"]) if rng.random() < 0.5 else f["told"] + " " + g["told"], "Thank you, I will remember that.")
    else:
        for i, f in enumerate(facts):
            out += turns(f["told"], f["ack"])
            if rng.random() < 0.4 and i + 1 < n:
                out += distractor(rng, split)
    for _ in range(rng.choices([0, 1, 2, 3], [15, 50, 25, 10])[0]):
        out += distractor(rng, split)
    asked = rng.sample(facts, rng.randint(1, n))
    for f in asked:
        out += turns(f["asked"], f["answer"])
    if rng.random() < 0.08 and split == "train":  # never told
        f = fact(rng, split, rng.choice(FACT_NAMES))
        if f["id"] not in ids and f["id"] not in ("word", "number"):
            out += turns(f["asked"], "You have not told me that yet.")
    return out, {"type": "contains", "all": [str(asked[-1]["value"])]}


ECHO = Pool("echo", """Repeat after me: {v}|Say "{v}".|Repeat: {v}|Please repeat this: {v}|Say the following: {v}|Echo: {v}|Please say "{v}".|Write "{v}".|
Copy this text: {v}|Repeat this sentence: {v}|Just say {v}|Say {v}|Repeat the text "{v}".|Can you repeat "{v}"?|Echo this back: {v}""".replace("\n", "").split("|"), grammar=["<Just|Simply|Only|Now|Please just|Please only> <say|repeat|write|echo|type|answer><:| this:| the words| exactly|> {v}", '<Repeat|Say|Echo|Write|Copy|Type|Please say|Please repeat|Please write|Can you say|Repeat after me|Say exactly|Repeat exactly><:| this:| the following:| these words:| this text:| this sentence:> {v}', '<Repeat|Say|Echo|Write|Copy|Type|Please say|Please repeat|Repeat exactly> "{v}"<|.| please.| exactly.>'])


def s_echo(rng, split):
    v = value(rng, split, rng.choice(["phrase", "word", "title", "fullname", "code", "int4", "phrase"]))
    v = str(v)
    return turns(fill(noise(rng, ECHO.phrase(rng, split), lower=False), v=v), v), {"type": "exact", "value": v}


# ---------------------------------------------------------------- 5. JSON

# attribute -> (value kind, key names)
ATTR = {
    "name": ("first", ["name", "first_name", "person", "who", "user", "firstName", "customer", "given_name"]),
    "fullname": ("fullname", ["name", "full_name", "person", "fullName", "customer", "author", "user"]),
    "age": ("age", ["age", "years", "age_years", "how_old", "years_old"]),
    "city": ("city", ["city", "town", "location", "place", "home", "lives_in", "address", "residence"]),
    "colour": ("colour", ["colour", "color", "favourite_colour", "favorite_color", "shade"]),
    "job": ("job", ["job", "profession", "occupation", "work", "role"]),
    "food": ("food", ["food", "dish", "meal", "favourite_food"]),
    "product": ("product", ["product", "item", "article", "thing", "goods"]),
    "price": ("price", ["price", "cost", "amount", "total", "price_usd", "value"]),
    "quantity": ("small", ["quantity", "count", "qty", "number", "pieces", "how_many"]),
    "animal": ("pet", ["animal", "pet", "species", "kind"]),
    "petname": ("first", ["pet_name", "name_of_pet", "petName", "called"]),
    "email": ("email", ["email", "mail", "e_mail", "contact", "email_address"]),
    "phone": ("phone", ["phone", "telephone", "phone_number", "tel"]),
    "date": ("date", ["date", "day", "when", "on_date"]),
    "time": ("time", ["time", "at", "hour", "start_time"]),
    "event": ("title", ["event", "title", "what", "event_name", "name"]),
    "country": ("country", ["country", "nation", "land"]),
    "sport": ("sport", ["sport", "hobby", "plays", "activity"]),
    "language": ("language", ["language", "speaks", "lang", "mother_tongue"]),
    "year": ("year", ["year", "born", "year_of_birth", "published", "since"]),
    "book": ("title", ["book", "title", "book_title", "name"]),
    "number": ("int4", ["id", "number", "order_id", "order_number"]),
    "temperature": ("temp", ["temperature", "degrees", "temp"]),
    "sky": ("sky", ["weather", "condition", "sky"]),
}
FACT_SENTENCES = [  # sentences with the attributes in them
    "{name} is {age} years old.", "{name} is {age} years old and lives in {city}.", "{name} lives in {city}.", "{name}, {age}, lives in {city}.",
    "{fullname} is a {job}.", "{fullname} is a {job} from {city}.", "{fullname} is {age} years old and works as a {job}.", "{name} is a {age} year old {job} from {city}.",
    "My name is {name} and I am {age} years old.", "I am {name}, I am {age}, and I live in {city}.", "My name is {fullname}. I live in {city} and I work as a {job}.",
    "{name} lives in {city} and likes {food}.", "{name} likes {food} and the colour {colour}.", "{name}'s favourite colour is {colour}.", "{name} loves {colour} and lives in {city}.",
    "The {product} costs {price} dollars.", "The {colour} {product} costs {price} dollars.", "A {colour} {product} costs {price} euros.", "{name} bought {quantity} {colour} {product} for {price} dollars.",
    "{name} ordered {quantity} of the {product}.", "{name} paid {price} dollars for a {product}.", "We sold {quantity} {product} to {fullname} for {price} dollars.",
    "{name} has a {animal} called {petname}.", "{name} has a {colour} {animal} named {petname}.", "The {animal} {petname} belongs to {name}.",
    "{fullname} can be reached at {email}.", "Write to {fullname} at {email} or call {phone}.", "{name}'s phone number is {phone}.", "The email of {name} is {email}.",
    "The {event} is on {date} at {time}.", "{event} takes place in {city} on {date}.", "{name} invites you to {event} on {date}.", "On {date} at {time} there is {event} in {city}.",
    "{fullname} was born in {year} in {city}.", "{name} comes from {country} and speaks {language}.", "{name} from {country} plays {sport}.", "{name} plays {sport} and is {age} years old.",
    "The book {book} was written by {fullname} in {year}.", "{fullname} wrote {book}.", "In {year}, {fullname} published {book}.",
    "Order {number} is for {fullname} in {city}.", "Order number {number}: {quantity} {product} for {price} dollars.", "It is {temperature} degrees and {sky} in {city}.",
    "{city} is {sky} today with {temperature} degrees.", "{fullname}, {job}, {city}.", "{name} is from {country}, is {age} years old and works as a {job}.",
    "{name} speaks {language} and lives in {city}.", "A {job} named {name} lives in {city}.", "In {city} lives a {age} year old {job} called {name}.",
    "Our customer {fullname} lives in {city}, {country}.", "The {product} is {colour} and costs {price}.", "Please send {quantity} {product} to {name} in {city}.",
]
JSON_ASK = Pool("json_ask", """{s} Answer in JSON with the keys {k}.|{s} Return JSON with the keys {k}.|{s} Give me JSON with {k}.|Extract {k} as JSON: {s}|
Extract {k} as JSON from this sentence: {s}|Return a JSON object with the keys {k} for: {s}|Turn this into JSON with the keys {k}: {s}|JSON with the keys {k}, please: {s}|
Make a JSON object with the keys {k} from this text: {s}|{s} Write this as a JSON object with the keys {k}.|{s} Put this in JSON with the keys {k}.|
Read the sentence and answer in JSON with the keys {k}. {s}|From the text below, give JSON with {k}.¶{s}|Text: {s}¶Keys: {k}¶JSON:|{s}¶JSON with keys {k}|
Convert to JSON with the keys {k}: {s}|Answer only with JSON. Keys: {k}. Text: {s}|Sentence: {s} Give me {k} as JSON.|{s} As JSON with the keys {k}, please.|
Please extract the following fields as JSON: {k}. {s}|Give me a JSON object that has the keys {k} about this: {s}|I need JSON with the fields {k}. {s}|
{s} Reply in JSON format using the keys {k}.|Parse this into JSON ({k}): {s}|Here is a sentence: {s} Return the fields {k} as JSON.|{s}¶¶Return a JSON object with {k}.|
Use JSON with the keys {k} to describe: {s}|Respond with JSON containing {k}: {s}|{s} Respond in JSON. Keys: {k}.|Fill in a JSON object with the keys {k}: {s}""".replace("\n", "").replace("¶", "\n").split("|"), grammar=['<Extract|Please extract|Get|Pull out|Give me|Return|Find|Read> {k} <as JSON|in JSON|as a JSON object|as one JSON object|in JSON format> <from|out of> <this|this sentence|this text|the text|the following text|the sentence below>: {s}', '{s} <Answer|Reply|Respond|Write this|Give this|Put this|Return this|Say this> <in|as> JSON with <the keys|the fields|these keys:|keys> {k}.', '<Make|Build|Create|Write|Produce|Give me> a JSON object with <the keys|the fields|these keys:> {k} <from|for|about|out of> <this sentence|this text|the following|this>: {s}'])
SENT = Pool("json_sentences", FACT_SENTENCES, 0.06)


CLAUSES = {  # what can be said about a person: (third person, first person)
    "age": ("is {age} years old", "am {age} years old"), "city": ("lives in {city}", "live in {city}"), "job": ("works as a {job}", "work as a {job}"),
    "food": ("likes {food}", "like {food}"), "colour": ("loves the colour {colour}", "love the colour {colour}"), "sport": ("plays {sport}", "play {sport}"),
    "language": ("speaks {language}", "speak {language}"), "country": ("comes from {country}", "come from {country}"), "year": ("was born in {year}", "was born in {year}"),
    "petname": ("has a {animal} called {petname}", "have a {animal} called {petname}"), "email": ("has the email address {email}", "have the email address {email}"),
    "phone": ("has the phone number {phone}", "have the phone number {phone}"), "product": ("bought a {product} for {price} dollars", "bought a {product} for {price} dollars"),
    "quantity": ("ordered {quantity} {product}", "ordered {quantity} {product}"), "book": ("wrote the book {book}", "wrote the book {book}"),
    "colour2": ("drives a {colour} car", "drive a {colour} car"), "time": ("gets up at {time}", "get up at {time}"), "date": ("arrives on {date}", "arrive on {date}"),
    "age2": ("is {age}", "am {age}"), "job2": ("is a {job}", "am a {job}"), "city2": ("is from {city}", "am from {city}"),
}


def said_of_a_person(rng):
    """A sentence or two out of clauses."""
    who = rng.choice(["name", "name", "fullname"])
    while True:
        names = rng.sample(list(CLAUSES), rng.randint(1, 4))
        keys = [k for n in names for k in re.findall(r"\{(\w+)\}", CLAUSES[n][0])]
        if len(set(keys)) == len(keys):
            break
    if rng.random() < 0.25:
        c = [CLAUSES[n][1] for n in names]
        text = "My name is {%s}" % who + (" and I " if len(c) == 1 else ", I " if rng.random() < 0.5 else ". I ")
    else:
        c = [CLAUSES[n][0] for n in names]
        text = rng.choice(["{%s} ", "{%s} ", "{%s} ", "My friend {%s} ", "Our customer {%s} ", "A person named {%s} ", "Our colleague {%s} ", "I know that {%s} "]) % who
    if len(c) > 2 and rng.random() < 0.3 and "My name" not in text:
        return text + c[0] + " and " + c[1] + ". " + rng.choice(["This person also ", "Our friend also ", "That person "]) + " and ".join(c[2:]) + "."
    return text + (", ".join(c[:-1]) + rng.choice([" and ", ", and "] if len(c) > 2 else [" and "]) + c[-1] if len(c) > 1 else c[0]) + "."


def s_json_open(rng, split):
    """Keys and values out of an open set."""
    pairs = {}
    for _ in range(rng.randint(1, 5)):
        key = open_word(rng, split) if rng.random() < 0.6 else rng.choice("height width owner size weight status material brand model author length depth speed score level type group team room floor".split())
        if rng.random() < 0.15:
            key += "_" + open_word(rng, split)
        pairs[key] = value(rng, split, rng.choice(["word", "person", "int2", "int4", "colour", "price", "title", "city", "code", "word", "fullname"]))
    style = rng.choice(["is", "is", "colon", "line", "eq"])
    said = [(k.replace("_", " ") if style == "is" else k, v) for k, v in pairs.items()]
    if style == "is":
        parts = [f"the {k} is {v}" for k, v in said]
        text = cap(", ".join(parts[:-1]) + " and " + parts[-1] if len(parts) > 1 else parts[0]) + "."
    else:
        text = {"colon": ", ", "line": "\n", "eq": ", "}[style].join(f"{k}{' = ' if style == 'eq' else ': '}{v}" for k, v in said) + ("." if style == "colon" and rng.random() < 0.3 else "")
    asked = rng.sample(list(pairs), rng.randint(1, len(pairs)))
    if rng.random() < 0.6:
        asked.sort(key=list(pairs).index)
    return text, {k: pairs[k] for k in asked}


def s_json(rng, split):
    if rng.random() < 0.16:
        text, obj = s_json_open(rng, split)
        return json_turns(rng, split, text, obj)
    sentence = said_of_a_person(rng) if rng.random() < 0.4 else SENT.phrase(rng, split)
    keys = re.findall(r"\{(\w+)\}", sentence)
    if split == "train" and rng.random() < 0.15:  # two sentences
        other = SENT.phrase(rng, split)
        more = re.findall(r"\{(\w+)\}", other)
        if not set(more) & set(keys) and not {"name", "fullname"} <= set(more + keys) and len(keys) + len(more) < 7:
            sentence, keys = sentence + " " + other, keys + more
    vals = {k: value(rng, split, ATTR[k][0]) for k in keys}
    text = fill(sentence, **vals)
    n = rng.randint(1, len(keys)) if rng.random() < 0.6 else len(keys)
    asked = rng.sample(keys, n)
    if rng.random() < 0.6:
        asked.sort(key=keys.index)
    names = {}
    for k in asked:
        options = [x for x in ATTR[k][1] if x not in names.values()]
        names[k] = options[0] if rng.random() < 0.5 else rng.choice(options)
    obj = {names[k]: vals[k] for k in asked}
    if rng.random() < 0.06 and "age" not in keys and "number" not in keys and "year" not in keys:
        missing = rng.choice(["age", "year", "email", "phone", "language"])
        if missing not in keys and missing not in obj:
            obj[missing] = None
    return json_turns(rng, split, text, obj)


def json_turns(rng, split, text, obj):
    quote = rng.choice(["", "", "", '"', '"', "'", "`"])
    q = [quote + k + quote for k in obj]
    if len(q) == 1:
        listed = q[0]
    elif rng.random() < 0.5:
        listed = ", ".join(q[:-1]) + rng.choice([" and ", ", and "] if len(q) > 2 else [" and "]) + q[-1]
    else:
        listed = ", ".join(q)
    ask = JSON_ASK.phrase(rng, split)
    if len(q) == 1 and rng.random() < 0.8:
        ask = ask.replace("the keys", "the key").replace("Keys:", "Key:").replace("fields", "field")
    prompt = fill(noise(rng, ask, lower=False), s=text, k=listed)
    return turns(prompt, json.dumps(obj, ensure_ascii=False)), {"type": "json", "value": obj}


# ---------------------------------------------------------------- 6. tools

for _i, _t in enumerate(toolset.TOOLS):
    pool(f"tool_{_i}", _t["names"])
    _keys = toolset.KEYWORDS[_i].split("|")
    pool(f"tool_about_{_i}", _t["about"] + [a.format(k) for k in _keys for a in ("Function for {}.", "Use this for {}", "A tool for {}.", "{} service", "Handles {}.", "Everything about {}")])
    pool(f"tool_asks_{_i}", _t["asks"])
    _POOLS[f"tool_asks_{_i}"].more = Pool(f"tool_asks_{_i}+", [(a + lower_or_i(x) if a else x) + b for x in _t["asks"] if not x.startswith("{") for a in
        ["", "", "Please, ", "Hello! ", "Hey, ", "Now ", "Ok, ", "Pippin, ", "I need this: ", "One more thing: ", "Next: ", "Quickly: "] for b in ["", "", " Thanks.", " Please.", " Thank you!"] if not b or x[-1] in ".?" and x[-2] != '"'])


def schema(rng, name, about, params):
    props = {}
    for pname, sch, desc, _req in params:
        props[pname] = dict(sch)
        if desc:
            props[pname]["description"] = desc
            if rng.random() < 0.2:
                props[pname] = {"description": desc, **sch}
    required = [p[0] for p in params if p[3]]
    body = {"type": "object", "properties": props}
    if required or rng.random() < 0.7:
        body["required"] = required
    function = {"name": name, "description": about, "parameters": body}
    if rng.random() < 0.15:
        function = dict(sorted(function.items(), key=lambda _: rng.random()))
    return {"type": "function", "function": function}


def camel(name):
    head, *rest = name.split("_")
    return head + "".join(r.capitalize() for r in rest)


class Call:
    """A tool with one request for it."""


PIECES = "get fetch do run call make my the new api app user v2 tool service util find show use start query handle request perform exec task item info data now please quick simple smart main".split()


def any_name(rng, split, names):
    """A name for a tool that nobody could know, so that it must be copied."""
    p = rng.random()
    parts = re.sub(r"([a-z])([A-Z])", r"\1_\2", rng.choice(names)).lower().split("_")
    if p < 0.45:
        parts = parts[:rng.randint(1, len(parts))]
        parts.insert(rng.randint(0, len(parts)), rng.choice(PIECES) if rng.random() < 0.7 else open_word(rng, split))
    elif p < 0.65:
        other = re.sub(r"([a-z])([A-Z])", r"\1_\2", rng.choice(rng.choice(toolset.TOOLS)["names"])).lower().split("_")
        parts = [rng.choice(parts), rng.choice(other + PIECES)]
        rng.shuffle(parts)
    elif p < 0.9:
        parts = [open_word(rng, split) for _ in range(rng.randint(1, 3))]
    else:
        return rng.choice(["tool", "fn", "function", "action", "f", "op", "skill"]) + rng.choice(["_", "", "-"]) + rng.choice([str(rng.randint(1, 99)), rng.choice("abcdefgxyz"), rng.choice("ABCDEFGXYZ")])
    style = rng.random()
    if style < 0.7:
        return "_".join(parts)
    if style < 0.8:
        return camel("_".join(parts))
    return rng.choice(["-", ".", "__"]).join(parts) if style < 0.93 else "".join(x.capitalize() for x in parts)


def any_param(rng, split, name):
    p = rng.random()
    if p < 0.3:
        return name + "_" + rng.choice("value name input text arg param id field x".split())
    if p < 0.6:
        return rng.choice("the input my target given user arg in".split()) + "_" + name
    return open_word(rng, split) if p < 0.85 else name.upper() if p < 0.9 else name.capitalize()


def tool_from_spec(rng, split, index):
    spec = toolset.TOOLS[index]
    c = Call()
    p = rng.random()
    c.name = any_name(rng, split, spec["names"]) if p < (0.5 if split == "train" else 0.25) else pool(f"tool_{index}").value(rng, split) if split == "train" or p < 0.75 else rng.choice(spec["names"])
    ask = pool(f"tool_asks_{index}").phrase(rng, split)
    used = set(re.findall(r"\{(\w+)\}", ask))
    # Optional parameters are only sometimes there, unless the request uses them.
    slots, params, c.args, seen = {}, [], {}, set()
    for names, sch, descs, kind in spec["params"]:
        optional, kind = kind.endswith("?"), kind.rstrip("?")
        slot = names[0]
        if optional and slot not in used and rng.random() < 0.5:
            continue
        options = [x for x in names if x not in seen]
        pname = options[0] if rng.random() < 0.45 else rng.choice(options)
        strange = rng.random() < 0.15
        if strange:
            invented = any_param(rng, split, pname)
            pname = pname if invented in seen else invented
        seen.add(pname)
        while True:
            v = value(rng, split, kind)
            if spec["names"][0] == "add" and slot == "b" and max(v, slots["a"]) < 100 and pair_held("+", slots["a"], v) and split == "train":
                continue  # the result would tell the answer to a held-out pair
            if v not in slots.values() or not isinstance(v, str):
                break
        slots[slot] = v
        desc = rng.choice(descs) if strange or rng.random() < 0.85 else None
        params.append((pname, sch, desc, not optional))
        if slot in used:
            c.args[pname] = v
    shown = dict(slots)
    if "unit" in shown:
        shown["unit"] = rng.choice([shown["unit"], shown["unit"].capitalize()])
    c.ask = fill(noise(rng, ask, lower=False), **shown)
    if rng.random() < 0.05:
        c.ask = rng.choice(["Please use the tool. ", "Hello! ", "Hey, ", "Hi. ", "Quick question. "]) + c.ask
    c.params = params
    c.about = cap(pool(f"tool_about_{index}").phrase(rng, split))
    c.schema = schema(rng, c.name, c.about, params)
    result = {}
    for key, kind in spec["result"].items():
        result[key] = kind[1:] if kind[0] == "=" else value(rng, split, kind)
    values = list(slots.values())
    if spec["names"][0] == "add":
        result["result"] = values[0] + values[1]
    elif spec["names"][0] == "multiply":
        result["result"] = values[0] * values[1]
    elif spec["names"][0] == "calculator":
        result["result"] = eval(slots["expression"], {"__builtins__": {}})
    c.answer = fill(rng.choice(spec["answers"]), **{**slots, **result})
    c.must = [str(v) for k, v in result.items() if spec["result"][k][0] != "="] or [str(v) for k, v in slots.items() if "{" + k + "}" in spec["answers"][0]][:1]
    c.result = result
    return c


def tool_invented(rng, split):
    """verb_noun with one or two parameters."""
    c = Call()
    while True:
        (verb, done), noun = rng.choice(toolset.VERBS), rng.choice(toolset.NOUNS)
        if held("verbnoun", verb, noun) == (split != "train"):
            break
    if rng.random() < 0.12:
        noun = pseudo(rng, 2, 2)
    style = rng.random()
    c.name = f"{verb}_{noun}" if style < 0.6 else camel(f"{verb}_{noun}") if style < 0.72 else f"{noun}_{verb}" if style < 0.86 else f"{verb}_the_{noun}" if style < 0.9 else f"{noun}.{verb}"
    if rng.random() < 0.25:
        c.name = any_name(rng, split, [f"{verb}_{noun}"])
    c.about = rng.choice([f"{verb.capitalize()} a {noun}.", f"{verb.capitalize()}s a {noun}", f"{verb.capitalize()} the {noun}", f"Use this to {verb} a {noun}.", f"{verb} {noun}"])
    kind = rng.choice(["int", "str"])
    pname = rng.choice(toolset.PARAM_NAMES[kind]).format(noun=noun)
    v = value(rng, split, rng.choice(["int2", "int4", "int3"])) if kind == "int" else value(rng, split, rng.choice(["word", "title", "person", "code", "colour", "city", "product"]))
    said = pname.replace("_", " ")
    short = said.replace(noun + " ", "") if said != noun else ""
    asks = [f"{verb.capitalize()} the {noun} {v}.", f"Please {verb} the {noun} {v}.", f"Can you {verb} the {noun} {v}?", f"I want to {verb} the {noun} {v}.", f"{verb} {noun} {v}", f"Could you {verb} {noun} {v} for me?"]
    if short and short != "count":
        asks += [f"{verb.capitalize()} the {noun} with the {short} {v}.", f"Please {verb} the {noun} with {short} {v}.", f"I need you to {verb} the {noun} with {short} {v}."]
    c.ask = rng.choice(asks)
    c.params = [(pname, toolset.S if kind == "str" else rng.choice([toolset.I, toolset.I, toolset.N]), rng.choice([None, f"The {said}", f"{said} of the {noun}", f"Which {noun}"]), True)]
    c.args = {pname: v}
    if rng.random() < 0.35:
        second, sch, kind2, tail = rng.choice([
            ("reason", toolset.S, "word", " because of {x}"), ("reason", toolset.S, "word", ", reason: {x}"), ("priority", toolset.enum("low", "medium", "high"), None, " with {x} priority"),
            ("user", toolset.S, "person", " for {x}"), ("date", toolset.S, "date", " on {x}"), ("color", toolset.S, "colour", " in {x}"), ("city", toolset.S, "city", " in {x}"),
            ("copies", toolset.I, "small", ", {x} copies"), ("comment", toolset.S, "phrase", " with the comment \"{x}\""), ("format", toolset.enum("pdf", "html", "text"), None, " as {x}"),
            ("time", toolset.S, "time", " at {x}"), ("assignee", toolset.S, "person", " and assign it to {x}"), ("size", toolset.enum("small", "medium", "large"), None, " in size {x}")])
        if second != pname:
            x = rng.choice(sch["enum"]) if kind2 is None else value(rng, split, kind2)
            if rng.random() < 0.85:
                end = c.ask[-1] if c.ask[-1] in ".?" else ""
                c.ask = (c.ask[:-1] if end else c.ask) + tail.format(x=x) + end
                c.args[second] = x
                c.params.append((second, sch, rng.choice([None, f"The {second}"]), rng.random() < 0.6))
            else:
                c.params.append((second, sch, rng.choice([None, f"The {second}"]), False))
    c.schema = schema(rng, c.name, c.about, c.params)
    ok = {rng.choice(["status", "result", "state"]): rng.choice(["ok", "done", "success"])}
    if rng.random() < 0.25:
        bad = rng.choice(["not found", "no permission", "already " + done, "server error", f"unknown {noun}", "timeout"])
        c.result, c.answer, c.must = {"error": bad}, f"That did not work: {bad}.", [bad]
    else:
        c.result, c.answer, c.must = ok, f"Done: the {noun} {v} is {done}.", [str(v)]
    return c


def any_tool(rng, split):
    if rng.random() < 0.35:
        return tool_invented(rng, split)
    return tool_from_spec(rng, split, rng.randrange(len(toolset.TOOLS)))


def result_text(rng, result):
    p = rng.random()
    if p < 0.8:
        return json.dumps(result, ensure_ascii=False)
    if p < 0.9:
        return json.dumps(result, ensure_ascii=False, separators=(",", ":"))
    return ", ".join(f"{k}: {v}" for k, v in result.items())


def call_message(c):
    return {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": {"name": c.name, "arguments": c.args}}]}


# Two tools that could both answer are not offered together.
CLASH = [{2, 4}, {3, 4}, {0, 16}, {5, 6}, {9, 24}, {8, 9}, {7, 9}, {9, 35}, {28, 35}, {17, 30}, {17, 29}, {25, 26}, {14, 15}]


def s_tools(rng, split):
    """Returns (messages, check, tools)."""
    p = rng.random()
    n = rng.choices([1, 2, 3, 4], [35, 30, 20, 15])[0]
    indexes, calls = set(), []
    while len(calls) < n:
        if rng.random() < 0.35:
            c = tool_invented(rng, split)
        else:
            i = rng.randrange(len(toolset.TOOLS))
            if i in indexes or any({i, j} in CLASH for j in indexes):
                continue
            indexes.add(i)
            c = tool_from_spec(rng, split, i)
        if c.name not in [x.name for x in calls]:
            calls.append(c)
    tools = [c.schema for c in calls]
    right = rng.choice(calls)
    if p < 0.62:  # ask -> call
        out = turns(right.ask) + [call_message(right)]
        check = {"type": "tool_call", "name": right.name, "arguments": right.args}
        if split == "train" and rng.random() < 0.5:
            out += [{"role": "tool", "content": result_text(rng, right.result)}, {"role": "assistant", "content": right.answer}]
        elif rng.random() < 0.15:
            out = distractor_plain(rng) + out
    elif p < 0.84:  # ask -> call -> result -> sentence
        out = turns(right.ask) + [call_message(right), {"role": "tool", "content": result_text(rng, right.result)}, {"role": "assistant", "content": right.answer}]
        check = {"type": "contains", "all": right.must}
        if split == "train" and rng.random() < 0.25:
            other = rng.choice(calls)
            out += turns(other.ask) + [call_message(other), {"role": "tool", "content": result_text(rng, other.result)}, {"role": "assistant", "content": other.answer}]
    else:  # no tool fits: a plain answer
        if split != "train":
            f = rng.choice([s_capitals, s_greeting])
            out, check = f(rng, split)
        else:
            out, check = rng.choice([s_capitals, s_greeting, s_unknown, s_story, s_recall, s_list])(rng, split)
            if rng.random() < 0.12:
                while True:
                    i = rng.randrange(len(toolset.TOOLS))
                    if i not in indexes and not any({i, j} in CLASH for j in indexes) and not indexes & {17} and i not in (2, 3, 4, 35):
                        break
                    if indexes & {17}:
                        i = None
                        break
                if i is not None:
                    out, check = turns(tool_from_spec(rng, split, i).ask, UNKNOWN_A), {"type": "contains", "any": ["don't know"], "all": []}
            elif rng.random() < 0.3 and not indexes & {2, 3, 4}:
                out, check = s_arithmetic(rng, split)
        # The web search tool would fit a question about a topic, and so on.
        if split == "train" and indexes & {17, 30, 29} and check.get("any"):
            return s_tools(rng, split)
    return out, check, tools


def distractor_plain(rng):
    return rng.choice([s_greeting, s_capitals])(rng, "train")[0]


# ---------------------------------------------------------------- 7. lists

CONTINUE = Pool("continue", """Continue the list: {l}|Continue this list: {l}|Continue: {l}|Continue the sequence: {l}|Continue the series {l}|What comes next: {l}|
What comes next? {l}|Go on: {l}|Complete the sequence: {l}|Please continue: {l}|Please continue the list {l}|Carry on: {l}|Keep going: {l}|
{l}, ...|{l}...|{l},|{l} and so on|Extend the list {l}|How does this go on: {l}|How does the sequence {l} continue?|Can you continue {l}?|
Which items come next? {l}|Finish this list: {l}|Continue counting: {l}|Please go on with {l}|The list is {l}. Continue it.|Continue the pattern: {l}|
Find the pattern and continue: {l}|What are the next items of {l}?|List the next items: {l}|Next items: {l}|{l} - continue, please""".replace("\n", "").split("|"), grammar=['<Continue|Please continue|Can you continue|Could you continue|Go on with|Carry on with|Keep going with|Extend|Complete|Please complete|Finish> <this|the|my> <list|sequence|series|pattern|row><:| of numbers:| below:|, please:> {l}', '<What|Which items|Which ones|What items> <comes next|come next|follows|come after this|are next> <in this list|in the list|in this sequence|in the series|here|in the pattern><:|?> {l}', '{l}<. Continue.|. Please continue.|. What comes next?|. Go on.|. And then?|. Continue the list.|. Continue the sequence.| - what comes next?>'])
CONTINUE_N = Pool("continue_n", """What are the next {n} items of {l}?|Continue with {n} more: {l}|Give me the next {n}: {l}|Next {n}: {l}|What are the next {n} in {l}?|
Continue the list with {n} more items: {l}|{l}. Give me {n} more.|Write the next {n} of this list: {l}|Add {n} more items to the list {l}|Continue for {n} items: {l}""".replace("\n", "").split("|"), grammar=['<Continue|Please continue|Go on with|Extend> <this|the> <list|sequence|series|pattern> <with|by> {n} more <items|terms|elements|entries|ones>: {l}', '<What are|Give me|Tell me|Write|List|Name|Show me> the next {n} <items|terms|elements|entries|ones|values><| of this list| in the list| in the sequence| of the series>: {l}', '{l}<. Give me the next|. Write the next|. What are the next|. Add|. List the next> {n}<.| items.| terms.| more.>'])
CONTINUE_1 = Pool("continue_1", """What is the next item? {l}|What is the next one: {l}|What number comes next? {l}|Which one comes next? {l}|Give me only the next one: {l}|
Just the next item: {l}|What comes directly after {l}?|What is the next item in the list {l}?|Only one more: {l}""".replace("\n", "").split("|"), grammar=["<Just|Only|Simply> <the next|one more|the following> <one|item|entry|number|element|thing><: | please: |, nothing else: >{l}", "<The next|One> <item|one|entry|element> <only|and no more|, just one>: {l}", '<What|Which item|Which one|What item> <comes next|is next|follows|comes after these|comes directly after>: only one: {l}', '<Give me|Tell me|Write|Name> <only|just> the next <item|one|term|entry>: {l}', '{l}. <Only|Just> the next <one|item|term>.'])
DIRECT = [  # (ask, list) that have one answer
    ("the days of the week", W.DAYS), ("the months of the year", W.MONTHS), ("the seasons", W.SEASONS),
    ("the first ten even numbers", list(range(2, 21, 2))), ("the first ten odd numbers", list(range(1, 20, 2))),
    ("the first five even numbers", list(range(2, 11, 2))), ("the first five odd numbers", list(range(1, 10, 2))),
    ("the letters of the alphabet", list("ABCDEFGHIJKLMNOPQRSTUVWXYZ")), ("the vowels", list("AEIOU")),
    ("the first eight powers of two", [1, 2, 4, 8, 16, 32, 64, 128]), ("the first ten square numbers", [i * i for i in range(1, 11)]),
    ("the first five prime numbers", [2, 3, 5, 7, 11]), ("the first ten prime numbers", [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]),
    ("the colours of the rainbow", "red orange yellow green blue indigo violet".split()),
    ("the planets", "Mercury Venus Earth Mars Jupiter Saturn Uranus Neptune".split()),
]
DIRECT_ASK = Pool("direct", """List {x}.|Name {x}.|What are {x}?|Tell me {x}.|Write down {x}.|Give me {x}.|Can you list {x}?|Please list {x}.|Say {x}.|Show me {x}.|Do you know {x}?""".split("|"), grammar=['<|Please |Can you |Could you ><list|name|say|write down|tell me|give me|write|show me> {x}<.|?||, please.>'])
COUNT_ASK = Pool("count", """Count from {a} to {b}.|Count from {a} to {b}|Please count from {a} to {b}.|Can you count from {a} to {b}?|List the numbers from {a} to {b}.|
Write the numbers from {a} to {b}.|Give me all numbers from {a} to {b}.|Say the numbers {a} to {b}.""".replace("\n", "").split("|"), grammar=[
    "<|Please |Can you |Could you |Now ><count|list the numbers|write the numbers|say the numbers|give me the numbers|name the numbers|print the numbers|show the numbers> from {a} <to|up to|until> {b}<.|?||, please.>"])


def sequence(rng, split):
    """(shown, rest, key): a list that goes on, cut in two."""
    while True:
        kind = rng.choices(["step", "down", "even", "odd", "multiples", "days", "months", "alphabet", "lower", "powers", "squares", "fib", "skip", "back"],
                           [34, 12, 6, 6, 8, 8, 8, 7, 3, 4, 2, 1, 2, 2])[0]
        shown = rng.randint(3, 5)
        if kind == "step":
            step = rng.choices([1, 2, 3, 4, 5, 10, rng.randint(1, 12), rng.choice([15, 20, 25, 50, 100])], [10, 12, 12, 12, 14, 12, 40, 6])[0]
            start = rng.randint(0, 30) if rng.random() < 0.6 else rng.randint(0, 200)
            seq = [start + step * i for i in range(shown + 8)]
        elif kind == "down":
            step = rng.choice([1, 2, 3, 4, 5, 10, rng.randint(1, 12)])
            start = rng.randint(20, 150)
            seq = [start - step * i for i in range(shown + 8)]
            seq = [x for x in seq if x >= 0]
        elif kind == "even":
            start = 2 * rng.randint(0, 60)
            seq = [start + 2 * i for i in range(shown + 8)]
        elif kind == "odd":
            start = 2 * rng.randint(0, 60) + 1
            seq = [start + 2 * i for i in range(shown + 8)]
        elif kind == "multiples":
            m = rng.randint(2, 12)
            seq = [m * i for i in range(1, shown + 9)]
        elif kind == "powers":
            m = rng.choice([2, 2, 2, 3, 4, 5, 10])
            first = rng.randint(0, 2)
            seq = [m**i for i in range(first, {2: 11, 3: 7, 4: 6, 5: 6, 10: 7}[m])]
        elif kind == "squares":
            first = rng.randint(1, 4)
            seq = [i * i for i in range(first, 13)]
        elif kind == "fib":
            seq = [1, 1, 2, 3, 5, 8, 13, 21, 34, 55, 89]
        else:
            ring = {"days": W.DAYS, "months": W.MONTHS, "alphabet": list("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), "lower": list("abcdefghijklmnopqrstuvwxyz"),
                    "skip": list("ABCDEFGHIJKLMNOPQRSTUVWXYZ")[rng.randint(0, 1)::2], "back": rng.choice([list("ZYXWVUTSRQPONMLKJIHGFEDCBA"), W.DAYS[::-1], W.MONTHS[::-1]])}[kind]
            first = rng.randrange(len(ring))
            if len(ring) > 12 or kind == "skip":
                seq = ring[first:first + shown + 8]
            else:
                shown = rng.randint(2, 4)
                seq = [ring[(first + i) % len(ring)] for i in range(shown + 8)]
        if len(seq) < shown + 2:
            continue
        # Only open-ended lists can be held out by content.
        if kind in ("step", "down", "even", "odd"):
            if held("seq", seq[0], seq[1] - seq[0]) != (split != "train"):
                continue
        return [str(x) for x in seq[:shown]], [str(x) for x in seq[shown:]]


def s_list(rng, split):
    p = rng.random()
    if p < 0.07 and split == "train" or p < 0.03:
        x, items = rng.choice(DIRECT)
        items = [str(i) for i in items]
        return turns(fill(noise(rng, DIRECT_ASK.phrase(rng, split)), x=x), ", ".join(items)), {"type": "list", "values": items}
    if p < 0.14:
        while True:
            a = rng.choice([1, 1, 1, rng.randint(0, 90)])
            b = a + rng.randint(2, 15)
            if held("count", a, b) == (split != "train"):
                break
        items = [str(i) for i in range(a, b + 1)]
        return turns(fill(noise(rng, COUNT_ASK.phrase(rng, split)), a=a, b=b), ", ".join(items)), {"type": "list", "values": items}
    shown, rest = sequence(rng, split)
    sep = ", " if rng.random() < 0.86 else rng.choice([" ", ",", "\n", "; ", "\n- "])
    if sep == ",":
        out_sep = ", "
    else:
        out_sep = sep
    text = sep.join(shown)
    if sep == "\n- ":
        text = "- " + text
    p = rng.random()
    if p < 0.7:
        n = min(5, len(rest))
        ask = CONTINUE.phrase(rng, split)
        if rng.random() < 0.06:
            ask = "{l}"
    elif p < 0.88:
        n = rng.randint(2, min(8, len(rest)))
        said = str(n) if rng.random() < 0.5 else "zero one two three four five six seven eight".split()[n]
        ask = CONTINUE_N.phrase(rng, split).replace("{n}", said)
    else:
        n = 1
        ask = CONTINUE_1.phrase(rng, split)
    if "\n" in sep:
        ask = ask.replace(" {l}", "\n{l}") if ask.endswith("{l}") else "Continue:\n{l}"
        if p >= 0.7:
            ask, n = "Continue this list:\n{l}", min(5, len(rest))
    elif rng.random() < 0.12 and ask.endswith("{l}"):
        text += rng.choice([", ...", "...", ",", ", …"]) if sep == ", " else ""
    answer = out_sep.join(rest[:n])
    if sep == "\n- ":
        answer = "- " + answer
    return turns(fill(noise(rng, ask), l=text), answer), {"type": "list", "values": rest[:n]}


# ---------------------------------------------------------------- 8. stories

STORY_ASK = Pool("story_ask", """Tell me a story about {t}.|Tell me a short story about {t}.|Write a story about {t}.|Write a short story about {t}.|Write a very short story about {t}.|
Can you tell me a story about {t}?|Can you write a short story about {t}?|Please tell me a story about {t}.|Please write a short story about {t}.|A story about {t}, please.|
I want to hear a story about {t}.|Make up a story about {t}.|Invent a short story about {t}.|Story about {t}|Short story about {t}|Give me a short story about {t}.|
Could you tell a little story about {t}?|Write me a little tale about {t}.|Tell my children a story about {t}.|Tell me a tale about {t}.|
Once upon a time there was {t}. Tell me the story.|Let me hear a story about {t}.|A bedtime story about {t}!|
Create a story about {t}.|Do you know a story about {t}?|Read me a story about {t}.|I would like a story about {t}.""".replace("\n", "").split("|"), grammar=["<Tell|Can you tell|Could you tell|Please tell|Write|Can you write|Please write|Give|Make up for> me <a|a short|a little|a very short|a nice|a funny|a sweet|one more|another|a new> <story|bedtime story|tale|fairy tale|children's story> <about|with> {t}<.|, please.|!||?>", '<Write|Tell|Invent|Make up|Create|Compose|Think of|Give us> <a|a short|a little|a very short|a nice|a funny|a simple> <story|bedtime story|tale|story for kids> <about|with> {t}<.|, please.|!|| for my daughter.| for my son.| in a few sentences.>', "<I want|I would like|I'd like|We want|My child wants> <to hear |to read |><a|a short|a little|a nice> <story|tale|bedtime story> about {t}<.|, please.|!|>"])
STORY_ANY = Pool("story_any", """Tell me a story.|Tell me a short story.|Write a story.|Write a very short story.|Can you tell me a story?|A story, please.|I want to hear a story.|
Make up a story.|Please tell me a bedtime story.|Story time!|I am bored, tell me a story.|Write a short tale.|Do you know any stories?|
Another story, please.|Tell me another story.""".replace("\n", "").split("|"), grammar=["<Tell|Can you tell|Could you tell|Please tell|Write|Can you write|Please write|Give> me <a|a short|a little|a very short|a nice|a funny|one more|another|a new> <story|bedtime story|tale|fairy tale|children's story><.|, please.|!||?>"])


def named(rng, gender=None):
    gender = gender or rng.choice("mf")
    return rng.choice(W.FEMALE if gender == "f" else W.MALE), gender


def s_story(rng, split, raw=False):
    """Returns messages and check; with raw, only the text."""
    plot = obj = None
    must, extra = [], []
    person = rng.random() < 0.35
    noun = rng.choice(list(stories.PEOPLE) if person else W.ANIMALS)
    name, gender = named(rng, stories.PEOPLE.get(noun))
    adj = rng.choice(stories.ADJ) if rng.random() < 0.8 else None
    kind = rng.choices(["any", "hero", "named", "object", "hero_object", "theme", "adj"], [8, 30, 22, 14, 14, 6, 6])[0]
    if kind not in ("any", "theme", "object"):
        # Known nouns and names in pairs that were never trained together.
        while True:
            noun = rng.choice(list(stories.PEOPLE) if person else W.ANIMALS)
            gender = stories.PEOPLE.get(noun) or rng.choice("mf")
            name = rng.choice(W.FEMALE if gender == "f" else W.MALE)
            item = {"named": name, "adj": rng.choice(stories.ADJ), "hero_object": rng.choice(stories.OBJECTS)}.get(kind)
            if item is None or held("story", noun, item) == (split != "train"):
                break
        if split == "train" and rng.random() < 0.08:
            noun = open_word(rng, split) if rng.random() < 0.5 else pseudo(rng, 2, 3)
        if split == "train" and kind == "named" and rng.random() < 0.25:
            name = (mash(rng) if rng.random() < 0.5 else pseudo(rng, 1, 3)).capitalize()
        must.append(noun)
        extra.append(noun)
    t = None
    if kind == "hero":
        t = rng.choice([stories.a(noun)] * 3 + ["the " + noun, noun + "s" if noun[-1] not in "sxehyn" else stories.a(noun)])
    elif kind == "adj":
        adj = item
        t = stories.a(adj + " " + noun)
        must.append(adj)
    elif kind == "named":
        t = rng.choice([f"{stories.a(noun)} named {name}", f"{stories.a(noun)} called {name}", f"{name} the {noun}", f"{stories.a(noun)} whose name is {name}"])
        must.append(name)
        extra.append(name)
    elif kind in ("object", "hero_object"):
        obj = item if kind == "hero_object" else pool("object").value(rng, split)
        if split == "train" and rng.random() < 0.15:
            obj = open_word(rng, split)
        plot = rng.choice(["lost", "find", "gift", "honest", "fixit", "share", "friend", "fear", "star"] if kind == "hero_object" else ["lost", "find", "fixit"])
        # Plots in which the object is certain to appear.
        if plot in ("gift", "honest", "share", "friend", "fear", "star"):
            plot = rng.choice(["lost", "find"])
        if kind == "object":
            t = rng.choice([stories.a(obj), stories.a("lost " + obj), "the " + obj])
            if "lost" in t:
                plot = "lost"
        else:
            t = f"{stories.a(noun)} and {stories.a(obj)}"
        must.append(obj)
        extra.append(obj)
    elif kind == "theme":
        t = rng.choice(list(stories.THEMES))
        plot = rng.choice(stories.THEMES[t])
    # Most stories about one kind of hero go alike, so that greedy decoding tells different stories of different heroes.
    if kind not in ("any", "theme", "object") and rng.random() < 0.7:
        usual = random.Random("usual " + noun)
        plots = usual.sample(list(stories.PLOTS), 2)
        if plot is None:
            plot = plots[rng.random() < 0.25]
        if kind != "named":
            name = usual.choice(W.FEMALE if gender == "f" else W.MALE)
    hero = (adj + " " if adj else "") + noun
    friend = rng.choice(pool("animal").train)
    while friend == noun:
        friend = rng.choice(pool("animal").train)
    friend_name = None
    if rng.random() < 0.25:
        while friend_name in (None, name):
            friend_name = rng.choice(pool("female").train if gender == "f" else pool("male").train)
    for _ in range(20):
        text = stories.story(rng, name, gender, hero, friend, friend_name, obj, plot)
        if all(m.lower() in text.lower() for m in must):
            break
    if raw:
        return text
    ask = STORY_ANY.phrase(rng, split) if t is None else fill(noise(rng, STORY_ASK.phrase(rng, split)), t=t)
    return turns(ask, text), {"type": "story", "must": must, "extra": extra}


# ---------------------------------------------------------------- 9. not known

UNKNOWN = Pool("unknown", """Tell me about {t}.|What is {t}?|Explain {t}.|Explain {t} to me.|How does {t} work?|What do you know about {t}?|Who invented {t}?|Why is {t} important?|
Write an essay about {t}.|Give me a summary of {t}.|What do you think about {t}?|Can you explain {t}?|When was {t} discovered?|Describe {t}.|Teach me {t}.|
Write a poem about {t}.|Write a song about {t}.|What are the main facts about {t}?|Compare {t} and {u}.|What is the difference between {t} and {u}?|
How do I learn {t}?|What is the best book about {t}?|I have a question about {t}.|Is {t} dangerous?|Who discovered {t}?|Tell me everything about {t}.|
Give me five facts about {t}.|What is the history of {t}?|How old is {t}?|Where can I read about {t}?|Do you like {t}?|Is {t} good?|
What is your opinion on {t}?|Define {t}.|Give an example of {t}.|What causes {t}?|Why do people like {t}?|Summarize {t} in one paragraph.|
I want to learn about {t}.|Help me understand {t}.|What does {t} mean?|How can I get better at {t}?|Is it true that {t} is {c}?""".replace("\n", "").split("|"), grammar=['<|Please |Can you |Could you |I want you to |Help me to |I need to |Hey, ><explain|describe|summarize|discuss|analyse|review|compare|research|prove|design|plan|debate|define|clarify|outline|teach me|tell me about|tell me more about|write about|talk about|give me advice about|give me information about|draw|paint> {t}<| in detail| to me| for a child| in simple words| with examples| for school| in ten lines><.|?||!>', '<Who|When|Where|Why|How> <invented|discovered|created|made|started|changed|destroyed|studied|won|lost|found|wrote> {t}<?||, do you know?>', '<What is|What was|What are> the <cause|origin|history|purpose|meaning|price|best part|future|size|name|colour|age|problem|reason|author|rule|secret> of {t}<?||, please?>', '<Write|Compose|Give me|Draft|Create> <a poem|an essay|an article|a report|a speech|a song|a summary|a blog post|an email|some code|a tweet|a limerick|a quiz> <about|on> {t}<.|, please.||!>', '<I have a question about|I want to talk about|Let us talk about|I am interested in|I am reading about|Do you know anything about|Have you heard of|What do people say about|What is your view on|Is there anything new about> {t}<.|?|>', '<How do I|How can I|Should I|Why should I|When should I> <use|make|understand|buy|stop|avoid|fix|start|measure|learn|teach|improve> {t}<?|>'])
UNKNOWN_FIXED = Pool("unknown_fixed", """Who won the world cup in {y}?|Who is the president of {c}?|Who is the king of {c}?|What is the population of {c}?|How many people live in {c}?|
How big is {c}?|What language do they speak in {c}?|What is the currency of {c}?|What is the weather like today?|What is the weather in {k}?|What time is it?|
What day is it today?|What is the date today?|Translate "{w}" into {l}.|How do you say {w} in {l}?|Write a Python function that sorts a list.|
Write code to reverse a string.|Fix this code for me.|How do I cook {f}?|Give me a recipe for {f}.|What is the square root of {n}?|What is {n} divided by {m}?|
Solve the equation x + {n} = {m}.|What is the meaning of life?|What should I eat tonight?|Which film should I watch?|Recommend a book.|Tell me a joke.|
What is the tallest building in the world?|What is the longest river in the world?|How far is the moon?|How many stars are there?|Why is the sky blue?|
Why is grass green?|How do planes fly?|Who wrote {w}?|Who painted the {w}?|What happened in {y}?|Who was born in {y}?|What is the news today?|
How do I fix my {p}?|Where can I buy a {p}?|How much does a {p} cost?|What is the best {p}?|Is it going to rain tomorrow?|Book a flight to {k}.|
Order a pizza.|Call {a}.|Send an email to {a}.|Who is {a} {s}?|What does {a} {s} do?|How old is {a}?|Where does {a} live?|Can you draw a {p}?|
Show me a picture of a {z}.|What do {z}s eat?|How long does a {z} live?|Where do {z}s live?|What sound does a {z} make?|How fast is a {z}?|
How do I get from {k} to {q}?|What can I see in {k}?|How far is {k} from {q}?|Is {k} a nice city?|Who is the mayor of {k}?|Which team won the match?|
Give me some advice.|What is love?|Are there aliens?|Can you keep a secret?|What is the best car?|Who will win the election?|What is 1 mile in kilometres?|
Convert {n} miles to kilometres.|What are your hobbies?|Can you dance?|Where do you live?|How old are you?|When were you born?|What is your favourite {g}?|
Do you dream?|Do you have feelings?|Can you see me?|What am I thinking?|Play some music.|Open the door.|Turn on the light.|Set an alarm for seven.|
Guess my age.|Flip a coin.|Sing a song.|Write a letter to my boss.|Plan a trip to {k}.|What is the flag of {c}?|Which countries are next to {c}?|
What is the highest mountain in {c}?|When did {c} become independent?|What do people eat in {c}?|Is {c} in Europe?|blah blah|asdf|{w}|{w} {v}|Why?|What?|
What does {w} mean?|Spell {w}.|How many letters are in {w}?|Is {n} a prime number?|What is the opposite of {w}?|What rhymes with {w}?""".replace("\n", "").split("|"), grammar=[
    "<What happened|Who was king|Who was president|What was invented|Which team won|Who ruled|What was popular|Which film came out|What changed> <in|before|after|around> {y}<?||, please?>",
    "<Solve|Please solve|Find x in|Work out the equation> <x + |x - |2x + |3x - |x * >{n} = {m}<.|>", "<What is|Compute|Calculate|How much is> <{n} squared|the square root of {n}|{n} divided by {m}|{n} percent of {m}|the cube of {m}|the logarithm of {n}|{n} / {m}|half of {n}><?||.>",
    "<Set|Start|Create|Make|Put> <an alarm|a timer|a reminder|a meeting|an event> for <seven|{n} minutes|tomorrow|tonight|noon|{k}><.|!|>",
    "<Who is|Where is|How old is|What about|Do you know|Have you met> {a} {s}<?||, do you know?>",
    "<What is|What are> <the best|the biggest|the oldest|the cheapest|the most famous> <{p}|{z}|city|river|song|book|film|team> in <{c}|{k}|the world><?|>",
    "<How many|How much> <people live|money is|cars are|rivers are|{z}s are|rain falls> in <{c}|{k}><?|>"])
UNKNOWN_A = "I don't know that. I am a small demonstration model, and I know only a few things."


def free_question(rng, split):
    """A question about anything."""
    w = lambda: open_word(rng, split)
    noun = lambda: rng.choice(["the ", "a ", "my ", "this ", "that ", ""]) + w() + (" " + w() if rng.random() < 0.3 else "")
    aux = rng.choice(["does", "did", "can", "will", "should", "would", "could", "is", "was", "has"])
    return cap(rng.choice([
        lambda: f"{rng.choice(['why', 'how', 'when', 'where'])} {aux} {noun()} {w()}?", lambda: f"{rng.choice(['who', 'what'])} {w()} {noun()}?",
        lambda: f"{aux} {noun()} {w()} {noun()}?", lambda: f"what {w()} {aux} {noun()} {w()}?", lambda: f"how {rng.choice(['much', 'many', 'long', 'old', 'far', 'fast', 'high'])} {aux} {noun()}?",
        lambda: f"which {w()} is the {rng.choice(['best', 'biggest', 'oldest', 'first', 'last', 'most famous', 'smallest'])}?", lambda: f"what is the {w()} of {noun()}?",
        lambda: f"{w()} {w()} {w()} {w()}", lambda: f"I think {noun()} is {w()}, what do you think?", lambda: f"is {noun()} {w()}?", lambda: f"what is {noun()}?"])())


def s_unknown(rng, split):
    g = lambda k: value(rng, split, k)
    if rng.random() < 0.05:
        text = fill(noise(rng, pool("ask_" + rng.choice(["name", "home", "age", "job", "from", "car", "like"])).phrase(rng, split)))
        return turns(text, "You have not told me that yet."), {"type": "contains", "any": ["not told me", "don't know"], "all": []}
    if rng.random() < 0.12:
        return turns(noise(rng, free_question(rng, split)), UNKNOWN_A), {"type": "contains", "any": ["don't know"], "all": []}
    if rng.random() < 0.5:
        t = pool("topic").value(rng, split) if rng.random() < 0.85 else pseudo(rng, 2, 3)
        text = fill(noise(rng, UNKNOWN.phrase(rng, split)), t=t, u=pool("topic").value(rng, "train"), c=rng.choice(["true", "old", "new", "bad", "useful"]))
    else:
        text = noise(rng, UNKNOWN_FIXED.value(rng, split) if split != "train" else UNKNOWN_FIXED.phrase(rng, split))
        if split == "train" and rng.random() < 0.1 or rng.random() < 0.03:  # what a tool could do, but there is none
            while True:
                i = rng.randrange(len(toolset.TOOLS))
                if toolset.TOOLS[i]["names"][0] not in ("add", "multiply", "calculator", "add_note"):
                    break
            text = tool_from_spec(rng, split, i).ask
        text = re.sub(r"\{(\w)\}", lambda m: str({
            "y": lambda: g("year"), "c": lambda: g("country"), "k": lambda: g("city"), "q": lambda: g("city"), "w": lambda: g("word"), "v": lambda: g("word"), "l": lambda: g("language"),
            "f": lambda: g("food"), "n": lambda: rng.randint(2, 200), "m": lambda: rng.randint(2, 20), "p": lambda: g("product"), "a": lambda: g("person"),
            "s": lambda: g("lastname"), "z": lambda: g("animal"), "g": lambda: rng.choice(FAVS)}[m.group(1)]()), text)
    return turns(text, UNKNOWN_A), {"type": "contains", "any": ["don't know"], "all": []}


# ---------------------------------------------------------------- mixtures

def s_mixed(rng, split, low=2, high=5):
    out = []
    check = None
    for _ in range(rng.randint(low, high)):
        f = rng.choices([s_arithmetic, s_capitals, s_greeting, s_list, s_unknown, s_json, s_story, s_recall, s_echo], [20, 16, 14, 12, 8, 8, 6, 10, 4])[0]
        messages, check = f(rng, split)
        out += messages
    return out, check


def s_long(rng, split):
    """A long conversation; facts told early are asked for late."""
    f = [fact(rng, split, "name")] + ([fact(rng, split, rng.choice(["colour", "home", "pet", "job", "remember", "renumber"]))] if rng.random() < 0.6 else [])
    out = []
    for x in f:
        out += turns(x["told"], x["ack"])
    for _ in range(rng.randint(4, 34)):
        out += rng.choices([distractor(rng, split), s_json(rng, "train")[0], s_story(rng, "train")[0]], [6, 1, 2])[0]
    asked = rng.choice(f)
    out += turns(asked["asked"], asked["answer"])
    return out, {"type": "contains", "all": [str(asked["value"])]}


SKILLS = {
    "greeting": (s_greeting, 5), "arithmetic": (s_arithmetic, 17), "capitals": (s_capitals, 12), "recall": (s_recall, 14), "json": (s_json, 14),
    "tools": (s_tools, 17), "list": (s_list, 11), "story": (s_story, 10), "unknown": (s_unknown, 7), "echo": (s_echo, 3), "mixed": (s_mixed, 5),
    "long": (s_long, 2), "raw": (None, 2),
}
NAMES, WEIGHTS = list(SKILLS), [w for _, w in SKILLS.values()]


def sample(rng, split="train", skill=None):
    skill = skill or rng.choices(NAMES, WEIGHTS)[0]
    if skill == "raw":
        return {"skill": "raw", "text": s_story(rng, split, raw=True)}
    got = SKILLS[skill][0](rng, split)
    messages, check = got[0], got[1]
    system = system_prompt(rng, split)
    if skill == "tools" and system is None and rng.random() < 0.25:
        system = "You are a helpful assistant."
    if system is not None:
        messages = [{"role": "system", "content": system}] + messages
    out = {"skill": skill, "messages": messages, "check": check}
    if len(got) > 2:
        out["tools"] = got[2]
    elif rng.random() < 0.0:
        out["tools"] = []
    return out


# ---------------------------------------------------------------- rendering

TOOLS_HEAD = ("# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
              "You are provided with function signatures within <tools></tools> XML tags:\n<tools>")
TOOLS_TAIL = ("\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
              "<tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>")


def render(messages, tools=None, add_generation_prompt=False, dumps=None):
    """What chat_template.jinja renders, without Jinja (it is called a billion times)."""
    dumps = dumps or (lambda x: json.dumps(x, ensure_ascii=False))
    out = []
    system = messages[0]["content"] if messages and messages[0]["role"] == "system" else None
    if tools:
        out.append("<|im_start|>system\n" + (system + "\n\n" if system else "") + TOOLS_HEAD + "".join("\n" + dumps(t) for t in tools) + TOOLS_TAIL + "<|im_end|>\n")
    elif system is not None:
        out.append("<|im_start|>system\n" + system + "<|im_end|>\n")
    rest = messages[1:] if system is not None else messages
    for i, m in enumerate(rest):
        role, content = m["role"], m.get("content") or ""
        if role == "tool":
            if i == 0 or rest[i - 1]["role"] != "tool":
                out.append("<|im_start|>user")
            out.append("\n<tool_response>\n" + content + "\n</tool_response>")
            if i + 1 == len(rest) or rest[i + 1]["role"] != "tool":
                out.append("<|im_end|>\n")
        elif m.get("tool_calls"):
            parts = [content] if content else []
            for call in m["tool_calls"]:
                f = call["function"]
                args = f["arguments"] if isinstance(f["arguments"], str) else json.dumps(f["arguments"], ensure_ascii=False)
                parts.append('<tool_call>\n{"name": ' + json.dumps(f["name"], ensure_ascii=False) + ', "arguments": ' + args + "}\n</tool_call>")
            out.append("<|im_start|>assistant\n" + "\n".join(parts) + "<|im_end|>\n")
        else:
            out.append(f"<|im_start|>{role}\n{content}<|im_end|>\n")
    if add_generation_prompt:
        out.append("<|im_start|>assistant\n")
    return "".join(out)


def document(rng, item):
    """The text of a training sample."""
    if item["skill"] == "raw":
        return item["text"] + "<|endoftext|>"
    dumps = None
    if rng.random() < 0.08:  # clients that render the tools without spaces, or sort the keys
        dumps = lambda x: json.dumps(x, ensure_ascii=False, separators=(",", ":"))
    elif rng.random() < 0.08:
        dumps = lambda x: json.dumps(x, ensure_ascii=False, sort_keys=True)
    return render(item["messages"], item.get("tools"), dumps=dumps)


def documents(seed, count, split="train"):
    rng = random.Random(seed)
    for _ in range(count):
        yield document(rng, sample(rng, split))


# ---------------------------------------------------------------- command line

def heldout(per_skill=220, seed=20):
    """The held-out prompts: each ends before the answer that is checked."""
    rng = random.Random(seed)
    seen = set()
    for skill in ("greeting", "arithmetic", "capitals", "recall", "json", "tools", "list", "story", "unknown", "echo", "long"):
        n = per_skill if skill not in ("echo", "long") else 60
        tries = 0
        while n and tries < 100_000:
            tries += 1
            item = sample(rng, "heldout", skill)
            prompt = item["messages"][:-1]
            key = json.dumps([prompt, item.get("tools")])
            if key in seen and tries < 3000:
                continue
            seen.add(key)
            n -= 1
            yield {"skill": skill, "messages": prompt, **({"tools": item["tools"]} if "tools" in item else {}), "check": item["check"], "expected": answer_text(item["messages"][-1])}


def answer_text(message):
    if message.get("tool_calls"):
        return "\n".join('<tool_call>\n{"name": %s, "arguments": %s}\n</tool_call>' % (json.dumps(c["function"]["name"]), json.dumps(c["function"]["arguments"], ensure_ascii=False)) for c in message["tool_calls"])
    return message["content"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sub = parser.add_subparsers(dest="command", required=True)
    p = sub.add_parser("show", help="print samples")
    p.add_argument("--skill", choices=NAMES)
    p.add_argument("--split", choices=["train", "heldout"], default="train")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("-n", type=int, default=5)
    p = sub.add_parser("heldout", help="write the held-out prompts")
    p.add_argument("--out", default="heldout.jsonl")
    p.add_argument("--per-skill", type=int, default=220)
    args = parser.parse_args()
    if args.command == "show":
        rng = random.Random(args.seed)
        for _ in range(args.n):
            print(document(rng, sample(rng, args.split, args.skill)))
            print("-" * 40)
    else:
        with open(args.out, "w") as f:
            n = 0
            for item in heldout(args.per_skill):
                f.write(json.dumps(item, ensure_ascii=False) + "\n")
                n += 1
        print(f"{n} prompts in {args.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
