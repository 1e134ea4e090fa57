"""The words that the grammar hinges on: closed classes, and verbs that are nouns as well.

The tables of spaCy's lemmatizer, which are WordNet's, list nearly every household noun as a verb
and many a verb as a noun, and not how usual each is. The lists here say what a word is taken for
where the words around it leave that open.
"""

from __future__ import annotations

from videogem_ros.language.words import Tag


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


STRONG_VERBS = _words(
    """act add approach attack bake beat bend bite blend blot blow boil break bring broil build
    burn buy call carry cast catch check chew chill chop chuck clap clean clear climb cling
    close collect combine come compare construct cook crawl crouch crush cut dance decrease
    deposit detect dig dip direct discard disconnect dispatch dissolve divide douse drag draw
    dredge drink drive drizzle drop dry dump dunk eat empty exit extract feel fetch fill find
    fix flick fling flip fly fold freeze fry gather gaze get give go grab grasp grate grind
    grip gulp hang haul heave help hide hike hit hoist hold hop hope hug hunt hurl incorporate
    increase insert interview join juggle jump keep kick kiss kneel knit knock launch lay lean
    leave let lick lie lift load lob look love lower make march mash massage measure melt mimic
    mince mix move mow munch need nod nudge offer open pass pause pick pierce place play pluck
    plunge point poke pop pose press prick prod prune pry pull punch push put raise reach read
    refill reject release remove reorder repair rescue reset return reverse review ride rinse
    rip roast rub rummage run salute saute save say scatter scold scoop scour scramble scrape
    scream scrub scrunch search secure select separate serve set sew shake shoot shout show
    shred shrug shuck shut simmer sing sip ski skip slap slide slurp smack smash smear smile
    smooth snatch sneeze sniff snip snowboard soak sort spill spin spit splash split spread
    sprinkle squat squeeze squirt squish stab stand stare start stay steal steer stir stitch
    stop stretch strike stroke strum study suck surf swallow swat sweep swerve swim swing swirl
    tackle take talk tamper taste teach tear tease tell test thaw think throw thrust tickle
    tidy tie tilt tip tiptoe toggle toss touch trade transfer travel tread trim try tuck tug
    tumble turn tweak twist type use visit wade wag wait wake walk want wash watch wave wear
    weave weigh weld wet whack whistle wiggle wink wipe work wrestle wring write yank yawn yell
    zoom"""
)
"""Verbs that outweigh the noun or adjective of the same form whatever follows."""

_SIMPLE_LIKELY_VERBS = _words(
    """age assist attempt balance bounce bow brush buff bump bundle carve change char charge
    circle clamp click clutch coat comb compress cool copy core count cover crack crank crimp
    crinkle crop crumble crumple cube curl dab deal design dice display ditch dock dodge drain
    drape dress dribble drill dust edge exchange exercise feed film filter finish fit flake
    flap float fluff flush force form fuel garnish gauge glaze glue grease grill groom guard
    guide gut halve hammer handle harvest heap heat hitch husk jam knot lather layer level log
    mark mop mount order pack paddle pat patch peel perch pile pinch pipe pitch polish position
    pound practice practise process program prop pump quarter race rake ram rattle rearrange
    record resume rock roll row sample sand saw scan score scratch scroll seal season shape
    shave shear shell shelve shift shine shovel sieve sift sign signal skate sketch skew skewer
    slice sling slot smell smoke snap solder spike splatter spray squash stack steam step stick
    store strain strip stuff swab swap swipe swish switch tack tag tally tamp tap tattoo
    telephone thread toast tow trace track train trap trickle trigger vacuum vault view warm
    wedge wheel whip whisk wrap zap zero zest zip"""
)

DENOMINAL_VERBS = _words(
    """bag bin block bone brine butter clip dish fan file flash flour fork hand hook hose hull
    iron juice label ladle light line lock microwave milk nail oil paint park paste phone pin
    pit plant plate plug post power print rest salt scale screw seed skim skin soap spear
    sponge spoon stain stamp staple stem strap sugar tape top towel trash water wax weed wind"""
)
"""Verbs at the start of a text where a noun follows ("spoon rice"), nouns after "and"."""

COMPOUND_VERBS = _words(
    """air-dry air-fry blow-dry deep-clean deep-fry double-check dry-clean hand-wash pan-fry
    power-wash pressure-cook shallow-fry slow-cook stir-fry vacuum-clean"""
)
"""Verbs of two words, with or without a hyphen."""

LIKELY_VERBS = _SIMPLE_LIKELY_VERBS | COMPOUND_VERBS
"""Verbs where a noun follows ("peel potatoes"), nouns where none does."""

MOTION_VERBS = _words(
    "climb come crawl drive fall fly go jump look move ride run slide step swim walk"
)
"""Verbs behind which "off the table" says where, and no particle stands before an object."""

RUN_ON_VERBS = _words(
    "add bring close fetch get give grab insert open pick pour put remove take throw"
)
"""Verbs that start another command even right behind a noun ("open drawer take spoon")."""

ASPECT_VERBS = _words(
    "attempt begin continue finish keep practice practise proceed resume start stop try"
)
WISH_VERBS = _words("ask hope intend like love mind need plan prepare remember tell want wish")
CAUSATIVE_VERBS = _words("allow come go help let make")
PERCEPTION_VERBS = _words(
    """detect find highlight identify locate look notice observe point recognize search see
    show spot tell track watch"""
)
"""Verbs that may introduce the action that is meant: "keep stirring", "find the man cutting"."""

GIVING_VERBS = _words(
    "bring buy fetch feed get give hand lend make offer pass pay pour send serve show throw toss"
)
"""Verbs that take receiver and thing without a preposition: "hand the man a cup"."""

PHRASAL_VERBS = {
    "carry": _words("on over"),
    "fill": _words("in"),
    "flip": _words("over"),
    "hand": _words("in over"),
    "hang": _words("on"),
    "hold": _words("on"),
    "knock": _words("over"),
    "plug": _words("in"),
    "log": _words("in"),
    "roll": _words("over"),
    "screw": _words("on in"),
    "switch": _words("on"),
    "take": _words("over"),
    "tip": _words("over"),
    "try": _words("on"),
    "turn": _words("around on over"),
}
"""Particles that are prepositions behind other verbs: "turn on the tap", "walk on the grass"."""

TOUCH_VERBS = _words("click pat pound step tap")
"""Verbs rather than nouns where "on" follows: "tap on the screen"."""

LOOSE_PARTICLES = _words("around in on over through under")
"""Particles of the verbs in PHRASAL_VERBS alone, unless nothing follows them."""

WEARABLES = _words(
    """apron backpack belt boot bracelet cap clothes coat dress earring gear glass glove goggle
    goggles hat headphone headset helmet jacket jeans lipstick makeup mask necklace pants
    pyjamas ring scarf shirt shoe sandal slipper sock suit sunglasses sweater tie trousers
    uniform vest watch"""
)
"""What one puts on oneself: "put on the gloves", against "put on the table"."""

PEOPLE = _words(
    """baby boy chef child cook customer doctor driver engineer farmer friend gentleman girl
    guest guy human kid lady man mechanic men nurse operator patient people person player robot
    student surgeon teacher technician user waiter waitress woman worker"""
)
"""Heads of phrases that say who acts, as lemmas; never what is acted on by somebody unnamed."""

AGENTS = PEOPLE | _words("arm bird cat cow dog finger gripper hand horse")
"""Heads of phrases behind which a verb is to be expected."""

PARTICLE_NOUNS = frozenset(["make up"])
"""Nouns of two words whose second is a particle: "apply make up"."""

QUANTITIES = _words("couple lot lots number plenty")
"""Nouns that measure what stands behind their "of"."""

RESULTS = _words("clean closed dry empty flat full loose open ready shut straight tight upright")
"""States in which an action leaves its object ("wipe the table clean"), not parts of its name."""

TIMES = _words("day hour hr min minute moment sec second week while")
"""Nouns that say how long, not what."""

COMPOUNDS = {
    first: _words(seconds)
    for first, seconds in {
        "baking": "dish pan paper powder sheet soda tin tray",
        "boiling": "water",
        "bin": "bag lid liner",
        "butter": "dish knife",
        "carving": "board knife",
        "change": "purse",
        "chopping": "block board knife",
        "cleaning": "agent cloth fluid liquid product rag spray supply",
        "cooking": "oil pan pot spoon utensil",
        "cutting": "board knife mat plier tool",
        "dining": "chair room table",
        "dish": "cloth rack soap sponge towel",
        "drawing": "board pin",
        "drill": "bit press",
        "drinking": "glass straw water",
        "drying": "machine rack",
        "dust": "bin cloth pan",
        "fishing": "line net pole rod",
        "frying": "pan",
        "grease": "gun",
        "hand": "brush cream mixer sanitizer saw soap towel truck",
        "hose": "pipe reel",
        "ironing": "board",
        "light": "bulb fixture switch",
        "living": "room",
        "measuring": "cup glass jug spoon tape",
        "mixing": "bowl spoon",
        "oil": "bottle can filter",
        "packing": "box tape",
        "paper": "bag cup towel",
        "parking": "lot space",
        "phone": "case charger",
        "plant": "pot",
        "plug": "socket",
        "power": "cable cord drill plug socket strip supply tool",
        "rocking": "chair",
        "rolling": "pan pin",
        "running": "shoe",
        "salt": "shaker",
        "screw": "driver",
        "serving": "dish plate spoon tray",
        "sewing": "machine",
        "shopping": "bag basket cart list trolley",
        "shower": "curtain head",
        "sleeping": "bag",
        "soap": "bar bottle dish dispenser",
        "soldering": "iron",
        "spray": "bottle can",
        "steering": "wheel",
        "swimming": "pool",
        "switch": "panel",
        "tape": "dispenser measure recorder",
        "training": "shoe",
        "trash": "bag bin can",
        "vacuum": "cleaner",
        "vending": "machine",
        "walking": "stick",
        "washing": "basket liquid machine powder",
        "water": "bottle can cooler glass jug tank tap",
        "watering": "can",
        "wrapping": "paper",
        "writing": "desk pad",
    }.items()
}


_CLOSED: dict[Tag, str] = {
    Tag.DETERMINER: """a an the my your our their its every no several few many much another
        little""",
    Tag.DETERMINER | Tag.PRONOUN: """this that these those his her some any each all both either
        neither more most enough""",
    Tag.PRONOUN: """i you he she it we they me him us them mine yours ours theirs myself yourself
        himself herself itself ourselves themselves someone somebody anyone anybody everyone
        everybody something anything everything nothing none there""",
    Tag.NUMBER | Tag.NOUN: "one",
    Tag.NUMBER: """two three four five six seven eight nine ten eleven twelve twenty thirty
        forty fifty hundred thousand""",
    Tag.PREPOSITION: """about above across after against along alongside among amid as at before
        behind below beneath beside besides between beyond by despite during except for from
        inside into near of onto opposite outside past per since than throughout toward towards
        underneath upon via with within without including""",
    Tag.PREPOSITION | Tag.PARTICLE: "up down off out in on over through under around",
    Tag.PREPOSITION | Tag.BASE: "like",
    Tag.PREPOSITION | Tag.ING: "using",
    Tag.PARTICLE: """away back together apart aside forward forwards backward backwards
        ahead""",
    Tag.TO: "to",
    Tag.AUXILIARY: """am is are was were be been being 'm 're 've 'll 'd having does did ca could
        will wo would shall sha should may might must""",
    Tag.AUXILIARY | Tag.BASE: "do have",
    Tag.AUXILIARY | Tag.THIRD: "has",
    Tag.AUXILIARY | Tag.PAST: "had",
    Tag.AUXILIARY | Tag.BASE | Tag.NOUN: "can",
    Tag.AUXILIARY | Tag.POSSESSIVE: "'s",
    Tag.POSSESSIVE: "'",
    Tag.CONJUNCTION: "and or plus but nor",
    Tag.SUBORDINATOR: """if until till because while when whenever unless whether although though
        once""",
    Tag.QUESTION: "what which who whom whose where how why",
    Tag.FILLER: """please kindly now then still just again also too so finally lastly afterwards
        meanwhile immediately already currently ok okay yes yeah hey hi hello oh uh um thanks thank
        sorry maybe perhaps not n't never gon na wan ta""",
    Tag.ADVERB: "fast hard here straight very well",
    Tag.COMMA: ", :",
    Tag.STOP: ". ; ! ?",
    # Adjectives and places that the table lists as verbs as well.
    Tag.ADJECTIVE | Tag.NOUN: """red blue green black white yellow purple grey gray big small
        large long short hot cold wooden metal plastic left right round front next first second
        last own free ready middle bottom other""",
    Tag.ADJECTIVE | Tag.NOUN | Tag.BASE: "brown",
    Tag.NOUN: "building ceiling clothing evening morning man men people",
}
CLOSED_TAGS = {form: tag for tag, forms in _CLOSED.items() for form in forms.split()}

IRREGULAR_NOUNS = {"chilies": "chili", "chilis": "chili"} | {
    plural: plural
    for plural in _words("jeans pants pliers shears shorts species trousers tweezers")
}
"""Nouns whose lemma in the tables is not what is meant."""

BASE_AND_PAST = _words("bed bound feed lay overlay saw seed shed weed")
"""Verbs whose base form is also the past of another verb."""
PARTICIPLE_LIKE_BASE = _words(
    "burst cast cut hit hurt let put quit read rid set shed shut slit split spread"
)
MISSING_VERBS = _words("aliquot juice pipette squidge")
"""Verbs of kitchens and laboratories that the tables lack."""
