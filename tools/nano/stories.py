"""Very short stories from a small grammar, and the checker for them.

A story is an opening, a plot of two to four sentences and an ending. Every
sentence has alternatives and slots, so the number of different stories is far
beyond what training can visit; the model has to learn the grammar.
"""

import re

from words import FEMALE, MALE, ANIMALS

PEOPLE = {  # noun -> pronoun gender, or None when either fits
    "girl": "f", "boy": "m", "king": "m", "queen": "f", "prince": "m", "princess": "f", "farmer": None, "sailor": None,
    "baker": None, "wizard": "m", "witch": "f", "knight": None, "pirate": None, "robot": None, "giant": None, "elf": None,
    "old man": "m", "old woman": "f", "shepherd": None, "teacher": None, "gardener": None, "painter": None, "fisherman": "m",
    "miller": None, "tailor": None, "explorer": None, "astronaut": None, "child": None, "grandmother": "f", "grandfather": "m",
    "musician": None, "carpenter": None, "doctor": None, "inventor": None, "ghost": None, "troll": None, "fairy": "f",
    "cook": None, "student": None, "clockmaker": None,
}
ADJ = """little small young brave curious clever gentle kind shy quiet cheerful friendly playful patient lonely happy sleepy
hungry careful honest proud grumpy bold tiny busy merry stubborn thoughtful""".split()
ORIGINAL = "old blue red golden silver tiny strange shiny wooden broken dusty small heavy bright simple green beautiful round".split()
OBJECTS = """lantern key map book bell kite boat drum flute mirror ribbon basket hat scarf coin ring stone feather button clock
box ball lamp whistle shell crown compass letter candle teapot wagon blanket spoon ladder violin coat bottle puzzle doll
necklace umbrella telescope painting rope bucket seed pebble pearl guitar mask balloon notebook""".split()
PLACES = ["in a quiet village", "near a deep forest", "by the sea", "at the edge of a forest", "on a green hill",
          "in a small town", "beside a wide river", "in a cosy cottage", "under an old oak tree", "in a snowy valley",
          "on a little farm", "near a blue lake", "in a busy city", "on a small island", "at the foot of a mountain",
          "behind the old mill", "in a sunny meadow", "next to a garden", "in a tall tower", "in an old castle"]
GO = ["the forest", "the river", "the market", "the old bridge", "the beach", "the meadow", "the top of the hill", "the lake",
      "the village", "the mountain", "the garden", "the harbour", "the old mill", "the castle", "the cave", "the orchard"]
HIDE = ["under a bush", "behind a big rock", "in the tall grass", "under the bed", "inside a hollow tree", "near the well",
        "behind the door", "at the bottom of the stairs", "beside the path", "under a pile of leaves", "in a dusty corner"]
FOOD = ["bread", "soup", "cheese", "apple pie", "porridge", "honey cake", "warm milk", "berry jam", "a pot of stew",
        "fresh bread", "a basket of cherries", "pancakes", "a bowl of nuts", "plum cake"]
BUILD = ["a raft", "a tree house", "a bridge", "a snow fort", "a little cart", "a sand castle", "a windmill", "a kite",
         "a wooden boat", "a stone wall", "a swing", "a small hut", "a sledge"]
SKILL = ["swim", "sing", "dance", "paint", "juggle", "skate", "climb trees", "play the flute", "bake bread", "ride a bicycle",
         "whistle", "read", "play the drum", "tell jokes", "sail a boat", "fly a kite"]
FEAR = ["the dark", "thunder", "deep water", "high places", "loud noises", "spiders", "big crowds", "the wind", "shadows"]
WEATHER = ["a cold winter morning", "a bright summer day", "a rainy afternoon", "a windy evening", "a quiet night",
           "a warm spring morning", "a foggy autumn day", "a starry night", "a snowy evening", "a sunny afternoon"]
PLANT = ["a sunflower", "an apple tree", "a rose bush", "a tall beanstalk", "a pear tree", "a patch of strawberries",
         "a bed of tulips", "an oak tree", "a giant pumpkin"]
THEMES = {  # a word a prompt may ask for -> plots that are about it
    "friendship": ["friend", "lonely"], "courage": ["fear", "storm"], "kindness": ["share", "stuck", "gift"],
    "sharing": ["share"], "a storm": ["storm"], "learning": ["learn"], "winter": ["snow"], "the stars": ["star"],
    "music": ["music"], "a garden": ["plant"], "being lost": ["way"], "a race": ["race"], "a journey": ["trip", "way"],
    "honesty": ["honest"], "patience": ["plant", "learn"], "snow": ["snow"], "the sea": ["trip"], "a surprise": ["gift", "party"],
    "a party": ["party"], "helping": ["stuck", "fixit"], "a secret": ["door"], "hope": ["plant", "way"],
}

OPEN = [
    "Once upon a time, there was {a:hero} named {N}.",
    "There once was {a:hero} named {N}, who lived {place}.",
    "{N} was {a:hero} who lived {place}.",
    "Once there was {a:hero} called {N}.",
    "Long ago, {a:hero} named {N} lived {place}.",
    "{Place} lived {a:hero} named {N}.",
    "In a faraway land, there lived {a:hero} named {N}.",
    "This is the story of {a:hero} named {N}, who lived {place}.",
    "{N} was {a:hero} with a big heart.",
    "Not so long ago, {a:hero} named {N} lived {place}.",
    "A long time ago, there lived {a:hero} called {N}.",
]

PLOTS = {
    "lost": [
        ["One day, {N} lost {his} {obj}.", "One morning, {his} favourite {obj} was gone.",
         "On {weather}, {N} could not find {his} {obj}.", "One day, the wind carried {his} {obj} away."],
        ["{He} looked everywhere, but {he} could not find it.", "{He} searched all day near {go}.",
         "{N} walked to {go} and looked for it.", "{He} asked everyone in the village about it."],
        ["Then {aF} said, \"I saw your {obj} {hide}.\"", "At last, {aF} came by and helped {him} look.",
         "{AF} heard about it and came to help.", "Luckily, {aF} had seen it on the way to {go}."],
        ["Together, they found the {obj} {hide}.", "Soon they found the {obj} {hide}.",
         "And there it was, {hide}."],
    ],
    "find": [
        ["One day, {N} found {a:o} {obj} {hide}.", "On {weather}, {he} saw {a:o} {obj} {hide}.",
         "While walking to {go}, {N} discovered {a:o} {obj}.", "One morning, {a:o} {obj} lay {hide}."],
        ["{He} picked it up and wondered who had lost it.", "The {obj} was beautiful, but {N} knew it belonged to someone.",
         "{He} had never seen such {a:o2} {obj} before.", "{He} carried it home and put it on the table."],
        ["Then {N} met {aF}, who was looking for the {obj}.", "The next day, {aF} came to {go} and looked very sad.",
         "Soon {aF} knocked at the door and asked about the {obj}."],
        ["{N} gave it back, and {theF} was very grateful.", "{N} smiled and gave the {obj} to {theF}.",
         "{He} handed it over at once, and {theF} danced with joy."],
    ],
    "friend": [
        ["{N} wanted a friend to play with.", "Every day, {N} played alone near {go}.",
         "{He} often felt lonely and wished for a friend."],
        ["On {weather}, {he} met {aF} near {go}.", "One day, {aF} came to {go}.",
         "Then {N} heard a small voice, and it was {aF}."],
        ["\"Do you want to play with me?\" asked {theF}.", "\"Will you be my friend?\" asked {N}.",
         "They talked, laughed and shared some {food0}.", "{N} showed {theF} {his} {obj}, and they both laughed."],
        ["They played together until the sun went down.", "From that day on, they met every morning.",
         "They walked to {go2} and watched the clouds."],
    ],
    "lonely": [
        ["{N} had moved to a new home and knew nobody there.", "Nobody ever came to visit, so {N} felt lonely."],
        ["One evening, {he} put {a:o} {obj} in the window.", "One day, {he} baked {food} and invited everyone from the village.",
         "{He} wrote a letter and let the wind carry it away."],
        ["The first guest was {aF}.", "Soon {aF} came to see what it was.", "The next morning, {aF} stood at the door."],
        ["They ate, sang and told stories all night.", "After that, the house was never quiet again.",
         "{N} was so happy that {he} danced around the room."],
    ],
    "storm": [
        ["On {weather}, a big storm came.", "One night, the wind began to howl.", "One day, dark clouds filled the sky."],
        ["{N} was on the way to {go} and had no place to hide.", "The rain fell hard, and {N} could not see the path.",
         "The thunder was loud, but {N} was not alone."],
        ["Then {he} saw a light, and it was the home of {aF}.", "{AF} called out, \"Come in, it is warm here!\"",
         "{N} met {aF}, who was cold and wet, and took {his} friend home."],
        ["They sat by the fire and ate {food0}.", "They waited together until the storm was over.",
         "In the morning, the sun was shining again."],
    ],
    "fear": [
        ["{N} was afraid of {fear}.", "There was only one problem: {N} was afraid of {fear}.",
         "Everyone thought {N} was brave, but {he} was afraid of {fear}."],
        ["One night, {aF} cried for help near {go}.", "One day, {his} best friend got lost near {go}.",
         "On {weather}, {he} heard someone call for help."],
        ["{N} took a deep breath and went to help.", "{He} was shaking, but {he} did not run away.",
         "{He} held {his} {obj} tightly and walked on."],
        ["In the end, {N} was not afraid any more.", "{He} learned that being brave means trying anyway.",
         "After that, {fear} did not seem so bad."],
    ],
    "build": [
        ["{N} wanted to build {build}.", "One day, {N} decided to build {build}.", "{He} dreamed of building {build}."],
        ["{He} worked hard from morning until night.", "At first, it fell down again and again.",
         "{He} gathered wood, rope and stones near {go}."],
        ["{AF} saw this and offered to help.", "Then {aF} brought {a:o} {obj}, which was just what {he} needed.",
         "{N} asked {aF} for help, and they worked together."],
        ["After three days, it was finished.", "When it was done, everyone came to see it.",
         "It was the finest thing that anyone had ever seen."],
    ],
    "share": [
        ["One day, {N} made {food}.", "On {weather}, {N} was cooking {food}.", "{N} had some {food0} for lunch."],
        ["The smell was so good that {aF} came to the door.", "Then {aF} came by and said, \"I am so hungry.\"",
         "{AF} sat outside and had nothing to eat."],
        ["{N} did not have much, but {he} shared it.", "\"Please come in and eat with me,\" said {N}.",
         "{N} cut everything in two and gave away half."],
        ["{TheF} thanked {him} and gave {him} {a:o} {obj}.", "The next day, {theF} came back with {a:o} {obj} as a gift.",
         "They ate together and became friends."],
    ],
    "stuck": [
        ["One day, {N} heard a cry near {go}.", "On {weather}, {N} was walking to {go}.",
         "One morning, {he} saw something move {hide}."],
        ["It was {aF} that was stuck in the mud.", "There was {aF} caught in a net.", "{AF} had fallen into a hole."],
        ["{N} found a rope and pulled with all {his} strength.", "{He} used {his} {obj} to help.",
         "\"Do not worry,\" said {N}, \"I will help you.\""],
        ["Soon {theF} was free again.", "At last, {theF} was safe and smiled at {him}.",
         "{TheF} never forgot what {N} had done."],
    ],
    "learn": [
        ["{N} wanted to learn to {skill}.", "More than anything, {N} wished to {skill}.", "Everyone could {skill}, but {N} could not."],
        ["{He} tried every day, but it was hard.", "The first time, {he} failed, and everyone laughed.",
         "{He} asked {aF} for help."],
        ["{AF} said, \"Be patient and try again.\"", "{N} practised each morning near {go}.",
         "Day after day, {he} got a little better."],
        ["On {weather}, {he} could finally do it.", "After many weeks, {N} could {skill} better than anyone.",
         "One day, it worked, and {N} shouted with joy."],
    ],
    "plant": [
        ["One day, {N} planted a small seed.", "{N} found a seed and put it in the ground.",
         "In spring, {aF} gave {N} a seed."],
        ["{He} gave it water every morning.", "For many days, nothing happened.", "{He} waited and waited, but it did not grow."],
        ["Then a tiny green leaf came out of the ground.", "{N} did not give up and sang to it each evening."],
        ["By the end of summer, it was {plant}.", "After a long time, it became {plant}.",
         "One morning, {plant} stood there in the sun."],
    ],
    "star": [
        ["On {weather0}, {N} saw a star fall from the sky.", "Every night, {N} looked at the stars.",
         "One night, a little star landed near {go}."],
        ["{He} took {his} {obj} and walked to {go}.", "{He} wanted to know where it came from.",
         "{He} could not sleep, so {he} went outside."],
        ["There {he} met {aF}, who had seen it too.", "\"Make a wish,\" whispered {aF}.",
         "\"I am far from home,\" said a small bright voice."],
        ["Together they watched the sky until morning.", "{N} made a wish, and it came true the next day.",
         "{N} held up {his} {obj}, and the light rose back into the sky."],
    ],
    "gift": [
        ["It was the birthday of {his} best friend, {aF}.", "{N} wanted to make a gift for {aF}."],
        ["{He} had no money, so {he} made {a:o} {obj}.", "{He} spent all week making {a:o} {obj}.",
         "{He} went to {go} and looked for {a:o} {obj}."],
        ["{N} was worried that it was not good enough.", "{He} wrapped it in leaves and tied it with string.",
         "On the way, {he} almost dropped it."],
        ["But {theF} loved it more than anything.", "\"This is the best gift of all,\" said {theF}.",
         "{TheF} was so happy that they danced together."],
    ],
    "race": [
        ["One day, there was a race to {go}.", "{N} decided to run in the great race."],
        ["Everyone thought that {aF} would win.", "{AF} laughed and said, \"I am much faster than you.\"",
         "At the start, {aF} was far ahead."],
        ["Halfway there, {theF} fell and hurt a foot.", "{N} kept going, step by step, and never stopped."],
        ["{N} came first, and everyone cheered.", "{N} stopped to help, and they crossed the line together.",
         "{He} did not win, but {he} had never had so much fun."],
    ],
    "door": [
        ["One day, {N} found a secret door {hide}.", "On {weather}, {N} saw a small door that had never been there before."],
        ["{He} opened it with {a:o} {obj}.", "{He} knocked three times, and it opened slowly.",
         "Behind it was a long dark tunnel."],
        ["Inside, {he} met {aF}.", "On the other side was a garden full of light, and {aF} was waiting.",
         "\"I have waited for you,\" said {aF}."],
        ["They talked for hours and promised to keep the secret.", "{N} went back every week to visit {his} new friend.",
         "When {N} came home, {he} told nobody."],
    ],
    "snow": [
        ["One morning, everything was white with snow.", "On a cold winter day, it began to snow."],
        ["{N} put on {his} warm coat and ran outside.", "{N} took {his} {obj} and walked to {go}.",
         "{He} had never seen so much snow."],
        ["There {he} met {aF}, who was very cold.", "{AF} was already there and threw a snowball.",
         "{He} built a snowman with {aF}."],
        ["They went home and shared {food0}.", "They played until their noses were red.",
         "In the evening, they sat by the fire and told stories."],
    ],
    "trip": [
        ["One day, {N} set out in a little boat.", "{N} had always wanted to see {go}.",
         "On {weather}, {N} packed {a:o} {obj} and left home."],
        ["The journey was long, and {he} was tired.", "On the way, {he} met {aF}.", "The waves were high, but {N} was not afraid."],
        ["{AF} showed {him} the right way.", "\"May I come with you?\" asked {aF}."],
        ["At last, {N} reached {go2}.", "{He} saw many wonderful things and wrote them down.",
         "When {he} came home, {he} had many stories to tell."],
    ],
    "music": [
        ["{N} had {a:o} flute that made a lovely sound.", "Every evening, {N} played a song near {go}.",
         "{N} loved music, but {he} was too shy to play for others."],
        ["One day, {aF} stopped to listen.", "On {weather}, {aF} heard the song."],
        ["\"Please play it again,\" said {theF}.", "{TheF} began to sing along.", "{TheF} asked {him} to play at the summer party."],
        ["Soon the whole village was dancing.", "After that, they made music together every day.",
         "Everyone clapped, and {N} was very proud."],
    ],
    "way": [
        ["One day, {N} walked too far and lost the way home.", "On {weather}, {N} got lost near {go}."],
        ["It was getting dark, and {he} was scared.", "{He} sat down {hide} and began to cry.",
         "All the paths looked the same."],
        ["Then {aF} found {him} and asked what was wrong.", "{He} saw {aF} with {a:o} {obj}."],
        ["{TheF} led {him} home, one step at a time.", "{TheF} knew every path and brought {him} home.",
         "Together they followed the river until they saw the lights of the village."],
    ],
    "honest": [
        ["One day, {N} broke {a:o} {obj} by accident.", "{N} found a bag of gold coins near {go}."],
        ["Nobody had seen it, but {N} felt bad.", "{He} could have kept quiet, but {he} did not want to lie."],
        ["{He} went to {aF} and told the truth.", "{N} walked to {aF} and said, \"I must tell you something.\""],
        ["{TheF} was not angry and thanked {him} for being honest.", "\"Thank you for telling me,\" said {theF}."],
    ],
    "party": [
        ["It was {his} birthday, but nobody said a word about it.", "{N} woke up and thought everyone had forgotten {his} birthday."],
        ["{He} walked to {go} and felt sad.", "All day long, the house was quiet."],
        ["In the evening, {aF} asked {him} to come to {go2}.", "Then {aF} brought {him} {a:o} {obj}."],
        ["There were lights, music and {food0}.", "Suddenly all {his} friends jumped out and cheered."],
    ],
    "fixit": [
        ["One day, the old {obj} stopped working.", "{AF} came to {N} with {a:b} {obj}."],
        ["Nobody knew how to mend it.", "\"Can you help me?\" asked {theF0}.", "{N} looked at it for a long time."],
        ["{He} worked on it all night.", "{N} took it apart and put it back together.", "With a little glue and a lot of patience, {he} mended it."],
        ["In the morning, the {obj} was as good as new.", "Everyone was amazed at what {N} had done."],
    ],
}
END = [
    "{N} was very happy.", "They lived happily ever after.", "And from that day on, they were the best of friends.",
    "{N} went home with a smile.", "That night, {N} slept well.", "{He} never forgot that day.", "And so the day ended well.",
    "{N} learned that it is good to help others.", "Everyone was glad.", "It was the best day of {his} life.",
    "{N} smiled and looked up at the sky.", "And {N} was never lonely again.", "{He} knew that good friends are worth more than gold.",
    "Since then, {N} has told this story many times.", "At the end of the day, {N} was tired but happy.",
    "And that is how {N} became known all over the land.",
]
# Endings that only make sense with a friend in the story.
WITH_FRIEND = {1, 2, 12}

FEMALE_SET, MALE_SET = set(FEMALE), set(MALE)
PRONOUN = {"m": ("he", "his", "him"), "f": ("she", "her", "her")}


def a(phrase):
    vowel = phrase[0].lower() in "aeiou" and not re.match("uni|eu|one|use", phrase.lower())
    return ("an " if vowel or phrase.lower().startswith(("honest", "hour")) else "a ") + phrase


def cap(text):
    return text[0].upper() + text[1:]


def story(rng, name, gender, hero, friend, friend_name=None, obj=None, plot=None):
    """One story. `hero` is a noun phrase without article ("small fox")."""
    he, his, him = PRONOUN[gender]
    obj = obj or rng.choice(OBJECTS)
    if plot is None:
        plot = rng.choice(list(PLOTS))
    friend_phrase = a(rng.choice(ADJ) + " " + friend if rng.random() < 0.7 else friend)
    if friend_name:
        friend_phrase += " named " + friend_name
    state = {"met": False}

    def fill(sentence, first_f="{aF}"):
        def slot(match):
            key = match.group(1)
            if key == "a:hero":
                return a(hero)
            if key == "a:o":
                return a(rng.choice(ORIGINAL))
            if key == "a:o2":
                return a(rng.choice(["beautiful", "strange", "fine", "shiny", "wonderful", "lovely"]))
            if key == "a:b":
                return a("broken")
            if key in ("aF", "AF", "theF", "TheF", "theF0"):
                if friend_name and state["met"]:
                    text = friend_name if rng.random() < 0.6 else "the " + friend
                elif key in ("aF", "AF") and not state["met"]:
                    text = friend_phrase
                else:
                    text = "the " + friend
                if not state["met"] and key in ("theF", "TheF", "theF0"):
                    text = friend_phrase
                state["met"] = True
                return cap(text) if key in ("AF", "TheF") or match.start() == 0 else text
            if key == "N":
                return name
            if key in ("he", "his", "him", "He"):
                return {"he": he, "his": his, "him": him, "He": cap(he)}[key]
            if key == "obj":
                return obj
            if key == "place":
                return rng.choice(PLACES)
            if key == "Place":
                return cap(rng.choice(PLACES))
            if key in ("go", "go2"):
                return rng.choice(GO)
            if key == "hide":
                return rng_hide
            if key == "food":
                food = rng.choice(FOOD)
                return food if food.startswith("a ") or food in ("pancakes",) else "some " + food
            if key == "food0":
                return rng.choice([f for f in FOOD if not f.startswith("a ")])
            if key == "build":
                return rng.choice(BUILD)
            if key == "skill":
                return rng_skill
            if key == "fear":
                return rng_fear
            if key == "weather":
                return rng.choice(WEATHER)
            if key == "weather0":
                return rng.choice(["a quiet night", "a starry night", "a warm night", "a cold clear night"])
            if key == "plant":
                return rng.choice(PLANT)
            raise KeyError(key)
        return re.sub(r"\{([A-Za-z0-9:]+)\}", slot, sentence)

    rng_skill, rng_fear, rng_hide = rng.choice(SKILL), rng.choice(FEAR), rng.choice(HIDE)
    out = [fill(rng.choice(OPEN))]
    steps = PLOTS[plot]
    for step in steps:
        out.append(fill(rng.choice(step)))
    endings = [e for i, e in enumerate(END) if state["met"] or i not in WITH_FRIEND]
    if len(out) < 5 or rng.random() < 0.75:
        out.append(fill(rng.choice(endings)))
    out = [cap(s) for s in out]
    if len(set(out)) != len(out):  # two slots agreed by chance
        return story(rng, name, gender, hero, friend, friend_name, obj, plot)
    return " ".join(out)


def sentences(text):
    """Splits at sentence ends; a quotation belongs to its sentence."""
    parts = re.findall(r"[^.!?]*(?:\"[^\"]*\"[^.!?]*)*[.!?]+\"?", text)
    out = []
    for part in (p.strip() for p in parts):
        if out and part[:1].islower():  # "Why?" asked the owl.
            out[-1] += " " + part
        elif part:
            out.append(part)
    return out


_WORDS = None


def vocabulary():
    """All words that a generated story may contain."""
    global _WORDS
    if _WORDS is None:
        text = [OPEN, END, PLACES, GO, HIDE, FOOD, BUILD, SKILL, FEAR, WEATHER, PLANT, ORIGINAL, ADJ, OBJECTS, list(PEOPLE), ANIMALS]
        text += [alternatives for plot in PLOTS.values() for alternatives in plot]
        words = "he she his her him a an some beautiful strange fine shiny wonderful lovely broken the named quiet starry warm cold clear night"
        for part in text:
            for line in part:
                words += " " + re.sub(r"\{[^}]*\}", " ", line)
        _WORDS = set(re.findall(r"[a-z]+", words.lower())) | {n.lower() for n in FEMALE + MALE}
    return _WORDS


def check_story(text, extra_words=(), must=()):
    """Returns None when `text` passes the heuristics, else what is wrong."""
    text = text.strip()
    if "\n" in text:
        return "more than one paragraph"
    parts = sentences(text)
    if not 3 <= len(parts) <= 7:
        return f"{len(parts)} sentences"
    if "".join(parts).replace(" ", "") != text.replace(" ", ""):
        return "text outside of sentences"
    if len(set(parts)) != len(parts):
        return "a repeated sentence"
    known = vocabulary() | {w.lower() for e in extra_words for w in re.findall(r"[A-Za-z]+", e)}
    for part in parts:
        start = part.lstrip('"')
        if not start[0].isupper():
            return f"no capital: {part}"
        if part.count('"') % 2:
            return f"open quotation: {part}"
        if len(part) > 160:
            return f"a long sentence: {part}"
        if re.search(r"\b(\w+) \1\b", part):
            return f"a doubled word: {part}"
        if re.search(r"\ba (?!uni)[aeiou]", part) or re.search(r"\ban (?!honest)[^aeiou]", part, re.I):
            return f"a/an: {part}"
        for word in re.findall(r"[A-Za-z]+", part):
            if word.lower() not in known:
                return f"unknown word {word}"
    outside = re.sub(r"\"[^\"]*\"", "", text)
    he = len(re.findall(r"\b(he|his|him)\b", outside, re.I))
    she = len(re.findall(r"\b(she|her)\b", outside, re.I))
    if he and she:
        return "he and she"
    named = re.search(r"(?:named|called) ([A-Z]\w*)|^([A-Z]\w*) was", text)
    if not named:
        return "nobody has a name"
    name = named.group(1) or named.group(2)
    if (name in FEMALE_SET and he) or (name in MALE_SET and she):
        return f"pronoun does not fit {name}"
    for word in must:
        if word.lower() not in text.lower():
            return f"does not mention {word}"
    return None
