"""Action text to verb, particle, object and head, over what people say to robots."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videogem_ros.datatypes import Action
from videogem_ros.errors import InvalidValueError
from videogem_ros.language import Parser, candidates, parse_actions, parser_for

COMMANDS = """
# household
pick up the red mug                             | pick up    | red mug             | mug
put the book back on the shelf                  | put back   | book                | book
turn the tap off                                | turn off   | tap                 | tap
turn off the tap                                | turn off   | tap                 | tap
turn on the light                               | turn on    | light               | light
switch the lamp on                              | switch on  | lamp                | lamp
open the top drawer                             | open       | top drawer          | drawer
close the fridge door                           | close      | fridge door         | door
vacuum the carpet                               | vacuum     | carpet              | carpet
mop the floor                                   | mop        | floor               | floor
iron the shirt                                  | iron       | shirt               | shirt
iron shirt                                      | iron       | shirt               | shirt
make the bed                                    | make       | bed                 | bed
do the dishes                                   | do         | dishes              | dish
do the laundry                                  | do         | laundry             | laundry
hang up the coat                                | hang up    | coat                | coat
fold the towels                                 | fold       | towels              | towel
water the plants                                | water      | plants              | plant
water plants                                    | water      | plants              | plant
take out the trash                              | take out   | trash               | trash
take the trash out                              | take out   | trash               | trash
feed the dog                                    | feed       | dog                 | dog
walk the dog                                    | walk       | dog                 | dog
dust the shelves                                | dust       | shelves             | shelf
empty the bin                                   | empty      | bin                 | bin
bin the lid                                     | bin        | lid                 | lid
light a candle                                  | light      | candle              | candle
change the light bulb                           | change     | light bulb          | bulb
brush your teeth                                | brush      | teeth               | tooth
put on your gloves                              | put on     | gloves              | glove
take off your shoes                             | take off   | shoes               | shoe
sit down on the chair                           | sit down   | chair               | chair
stand up                                        | stand up   | -                   | -
lie on the sofa                                 | lie        | sofa                | sofa
wipe down the counter                           | wipe down  | counter             | counter
clean up the mess                               | clean up   | mess                | mess
tidy up the living room                         | tidy up    | living room         | room
lock the front door                             | lock       | front door          | door
draw the curtains                               | draw       | curtains            | curtain
ring the bell                                   | ring       | bell                | bell
knock on the door                               | knock      | door                | door
phone the doctor                                | phone      | doctor              | doctor
watch tv                                        | watch      | tv                  | tv
play the guitar                                 | play       | guitar              | guitar
read a book                                     | read       | book                | book
drink water from the bottle                     | drink      | water               | water
# kitchen
cut tomato                                      | cut        | tomato              | tomato
placing tomato on dish                          | place      | tomato              | tomato
continue chopping onion                         | chop       | onion               | onion
put the knife and fork in the rack              | put        | knife and fork      | knife
dry mincing knife                               | dry        | mincing knife       | knife
soap bowl                                       | soap       | bowl                | bowl
spoon rice into the bowl                        | spoon      | rice                | rice
butter the bread                                | butter     | bread               | bread
can the beans                                   | can        | beans               | bean
open the can                                    | open       | can                 | can
salt the soup                                   | salt       | soup                | soup
pour the milk into a glass                      | pour       | milk                | milk
pour out the water                              | pour out   | water               | water
fill the kettle with water                      | fill       | kettle              | kettle
stir until smooth                               | stir       | -                   | -
rinse the cutting board                         | rinse      | cutting board       | board
put frying pan on stove                         | put        | frying pan          | pan
grate some cheese over the pasta                | grate      | cheese              | cheese
crack two eggs into the bowl                    | crack      | eggs                | egg
whisk the eggs                                  | whisk      | eggs                | egg
take the lid off the pot                        | take       | lid                 | lid
put the lid back on                             | put back   | lid                 | lid
put in sink                                     | put        | sink                | sink
wait for the water to boil                      | wait       | water               | water
turn the pancake over                           | turn over  | pancake             | pancake
squeeze a lemon                                 | squeeze    | lemon               | lemon
season with pepper                              | season     | pepper              | pepper
open bottle of oil                              | open       | bottle of oil       | bottle
throw away the eggshells                        | throw away | eggshells           | eggshell
load the dishwasher                             | load       | dishwasher          | dishwasher
preheat the oven                                | preheat    | oven                | oven
measure 200 ml of milk                          | measure    | ml of milk          | ml
put washing up liquid on the sponge             | put        | washing up liquid   | liquid
tip the rice out                                | tip out    | rice                | rice
put lid on the sun-dried tomatoes               | put        | lid                 | lid
use the can opener                              | use        | can opener          | opener
# workshop
hand me the screwdriver                         | hand       | screwdriver         | screwdriver
please could you hand me the screwdriver        | hand       | screwdriver         | screwdriver
tighten the bolt with the wrench                | tighten    | bolt                | bolt
loosen the screw                                | loosen     | screw               | screw
screw the hinge to the door                     | screw      | hinge               | hinge
unscrew the cap                                 | unscrew    | cap                 | cap
drill a hole in the wall                        | drill      | hole                | hole
hammer the nail into the board                  | hammer     | nail                | nail
nail the plank                                  | nail       | plank               | plank
saw the wood                                    | saw        | wood                | wood
saw wood                                        | saw        | wood                | wood
sand the table top                              | sand       | table top           | top
glue the two pieces together                    | glue together | pieces              | piece
plug in the drill                               | plug in    | drill               | drill
plug the drill in                               | plug in    | drill               | drill
unplug the soldering iron                       | unplug     | soldering iron      | iron
solder the wire                                 | solder     | wire                | wire
weld the pipes                                  | weld       | pipes               | pipe
paint the fence                                 | paint      | fence               | fence
grease the bearing                              | grease     | bearing             | bearing
clamp the board to the bench                    | clamp      | board               | board
file the edge                                   | file       | edge                | edge
oil the chain                                   | oil        | chain               | chain
lay the hammer down                             | lay down   | hammer              | hammer
pump up the tire                                | pump up    | tire                | tire
jack up the car                                 | jack up    | car                 | car
press the red button                            | press      | red button          | button
press on the red button                         | press      | red button          | button
press firmly on the lid                         | press      | lid                 | lid
tap on the touch screen                         | tap        | touch screen        | screen
step on the pedal                               | step       | pedal               | pedal
turn on the tap on the left                     | turn on    | tap                 | tap
open the garlic press                           | open       | garlic press        | press
pull the lever                                  | pull       | lever               | lever
flip the switch                                 | flip       | switch              | switch
measure the length of the board                 | measure    | length of the board | length
# warehouse
stack the boxes on the pallet                   | stack      | boxes               | box
scan the barcode                                | scan       | barcode             | barcode
label the box                                   | label      | box                 | box
tape the box shut                               | tape       | box                 | box
load the truck                                  | load       | truck               | truck
unload the pallets                              | unload     | pallets             | pallet
palletize the crates                            | palletize  | crates              | crate
drive the forklift                              | drive      | forklift            | forklift
wrap the pallet in foil                         | wrap       | pallet              | pallet
push the trolley                                | push       | trolley             | trolley
carry the box over to the shelf                 | carry over | box                 | box
lift up the crate                               | lift up    | crate               | crate
set the package down on the conveyor belt       | set down   | package             | package
ship the parcel                                 | ship       | parcel              | parcel
sort the packages by size                       | sort       | packages            | package
restock the shelves                             | restock    | shelves             | shelf
count the boxes                                 | count      | boxes               | box
# laboratory
pipette the solution into the tube              | pipette    | solution            | solution
centrifuge the samples                          | centrifuge | samples             | sample
label the test tubes                            | label      | test tubes          | tube
weigh the powder                                | weigh      | powder              | powder
shake the flask                                 | shake      | flask               | flask
pour the acid into the beaker                   | pour       | acid                | acid
seal the petri dish                             | seal       | petri dish          | dish
heat the sample over the burner                 | heat       | sample              | sample
screw the cap on                                | screw on   | cap                 | cap
dilute the buffer                               | dilute     | buffer              | buffer
put on the safety goggles                       | put on     | safety goggles      | goggles
swab the bench with ethanol                     | swab       | bench               | bench
freeze the cells                                | freeze     | cells               | cell
# garden
fork the hay                                    | fork       | hay                 | hay
mow the lawn                                    | mow        | lawn                | lawn
rake the leaves                                 | rake       | leaves              | leaf
plant the seeds                                 | plant      | seeds               | seed
prune the roses                                 | prune      | roses               | rose
dig a hole                                      | dig        | hole                | hole
dig up the potatoes                             | dig up     | potatoes            | potato
pull out the weeds                              | pull out   | weeds               | weed
weed the flower bed                             | weed       | flower bed          | bed
trim the hedge                                  | trim       | hedge               | hedge
shovel snow                                     | shovel     | snow                | snow
pick the apples                                 | pick       | apples              | apple
hose down the car                               | hose down  | car                 | car
sweep the leaves off the path                   | sweep      | leaves              | leaf
spray the plants                                | spray      | plants              | plant
# office
staple the papers                               | staple     | papers              | paper
print the document                              | print      | document            | document
type on the keyboard                            | type       | keyboard            | keyboard
write on the whiteboard                         | write      | whiteboard          | whiteboard
erase the whiteboard                            | erase      | whiteboard          | whiteboard
sign the contract                               | sign       | contract            | contract
file the documents                              | file       | documents           | document
mail the letter                                 | mail       | letter              | letter
shred the paper                                 | shred      | paper               | paper
plug the charger into the socket                | plug       | charger             | charger
pass me the stapler                             | pass       | stapler             | stapler
bring the woman a cup of coffee                 | bring      | cup of coffee       | cup
give the cup to the man                         | give       | cup                 | cup
answer the phone                                | answer     | phone               | phone
turn the page                                   | turn       | page                | page
move the mouse                                  | move       | mouse               | mouse
# how people speak
Please, PICK UP the cup!                        | pick up    | cup                 | cup
could you please open the window?               | open       | window              | window
can you find the person opening the drawer      | open       | drawer              | drawer
where is someone pouring milk?                  | pour       | milk                | milk
where is the man cutting the bread?             | cut        | bread               | bread
show me where the woman is stirring the soup    | stir       | soup                | soup
show me how to open the jar                     | open       | jar                 | jar
is somebody riding a bike?                      | ride       | bike                | bike
is the person opening the fridge?               | open       | fridge              | fridge
would you mind closing the door                 | close      | door                | door
i want you to wash the cup                      | wash       | cup                 | cup
i'd like you to fetch the newspaper             | fetch      | newspaper           | newspaper
let's cut the cake                              | cut        | cake                | cake
help me carry the table                         | carry      | table               | table
help me with the dishes                         | help       | dishes              | dish
let me see the cup                              | see        | cup                 | cup
go and get the cup                              | get        | cup                 | cup
go to the kitchen                               | go         | kitchen             | kitchen
go get the towel                                | get        | towel               | towel
try to open the jar                             | open       | jar                 | jar
start washing the dishes                        | wash       | dishes              | dish
stop pouring                                    | pour       | -                   | -
keep stirring the sauce                         | stir       | sauce               | sauce
still adjusting poster                          | adjust     | poster              | poster
now close the lid again                         | close      | lid                 | lid
make sure to turn off the oven                  | turn off   | oven                | oven
don't touch the stove                           | touch      | stove               | stove
the man is opening the door                     | open       | door                | door
a person cuts an onion                          | cut        | onion               | onion
the person who is holding the umbrella          | hold       | umbrella            | umbrella
someone's peeling potatoes                      | peel       | potatoes            | potato
the robot should pick up the box                | pick up    | box                 | box
robot, pick up the ball                         | pick up    | ball                | ball
hey robot open the door                         | open       | door                | door
the drawer is being opened                      | open       | drawer              | drawer
the milk was poured into the glass              | pour       | milk                | milk
is the kettle boiling                           | boil       | kettle              | kettle
what is the man holding?                        | hold       | -                   | -
find the dog                                    | find       | dog                 | dog
find the person in the red shirt cutting bread  | cut        | bread               | bread
look for the keys                               | look       | keys                | key
look at the screen                              | look       | screen              | screen
two people playing football                     | play       | football            | football
playing with dog                                | play       | dog                 | dog
throwing a frisbee in the park                  | throw      | frisbee             | frisbee
take it off                                     | take off   | -                   | -
put it in the freezer                           | put        | freezer             | freezer
pick-up the cup                                 | pick up    | cup                 | cup
🙂 open the door 🚪                               | open       | door                | door
wash hands and face                             | wash       | hands and face      | hand
in the kitchen, open the drawer                 | open       | drawer              | drawer
with the knife, cut the bread                   | cut        | bread               | bread
sauté the onions                                | sauté      | onions              | onion
squidge the dough                               | squidge    | dough               | dough
there is a dog on the sofa                      | -          | dog                 | dog
the red mug                                     | -          | red mug             | mug
red mug                                         | -          | red mug             | mug
water bottle                                    | -          | water bottle        | bottle
frying pan                                      | -          | frying pan          | pan
cutting board                                   | -          | cutting board       | board
cup on the table                                | -          | cup                 | cup
fork                                            | -          | fork                | fork
where is the cup                                | -          | cup                 | cup
where's my phone?                               | -          | phone               | phone
book                                            | -          | book                | book
a man in a red shirt                            | -          | man                 | man
ApplyingMakeUpOnLips                            | apply      | make up             | make
BrushingTeeth                                   | brush      | teeth               | tooth
CleaningFloor                                   | clean      | floor               | floor
CleaningWindows                                 | clean      | windows             | window
Drinking                                        | drink      | -                   | -
FoldingTextile                                  | fold       | textile             | textile
Ironing                                         | iron       | -                   | -
Phoning                                         | phone      | -                   | -
PlayingHarmonica                                | play       | harmonica           | harmonica
TakingPhotosOrVideos                            | take       | photos or videos    | photo
# agents
hand pouring water                              | pour       | water               | water
a hand picks up a cup                           | pick up    | cup                 | cup
the gripper grasps the bottle                   | grasp      | bottle              | bottle
person opening door                             | open       | door                | door
dog running in the snow                         | run        | dog                 | dog
the cup falling off the table                   | fall       | cup                 | cup
which drawer is the man opening?                | open       | drawer              | drawer
using a knife, cut the bread                    | cut        | bread               | bread
leave the door open                             | leave      | door                | door
wipe the table clean                            | wipe       | table               | table
take the red one                                | take       | red one             | one
take a couple of eggs                           | take       | eggs                | egg
deep-fry the chicken                            | deep-fry   | chicken             | chicken
stir fry vegetables                             | stir-fry   | vegetables          | vegetable
soap frying pan                                 | soap       | frying pan          | pan
look out of the window                          | look out   | window              | window
walk up the stairs                              | walk       | stairs              | stair
clean the inside of the oven                    | clean      | inside of the oven  | inside
scrub back of pan                               | scrub      | pan                 | pan
put down down pitcher                           | put down   | pitcher             | pitcher
turn left                                       | turn       | -                   | -
push the box left                               | push       | box                 | box
turn the knob right                             | turn       | knob                | knob
push the left button                            | push       | left button         | button
take the cup left of the plate                  | take       | cup                 | cup
take the cup right next to the plate            | take       | cup                 | cup
first open the box                              | open       | box                 | box
next add the salt                               | add        | salt                | salt
in a bowl mix the eggs                          | mix        | eggs                | egg
brown the beef                                  | brown      | beef                | beef
cut the carrot in to pieces                     | cut        | carrot              | carrot
peel 3 carrots                                  | peel       | carrots             | carrot
"""
"""Text | verb with particle | object | head of the object; "-" is none."""

SEVERAL = [
    ("pick up the cup and place it on the plate", "pick up the cup; place the cup on the plate"),
    ("take the knives then wash them", "take the knives; wash the knives"),
    (
        "open the box, take the milk out, and close it",
        "open the box; take the milk out; close the milk",
    ),
    ("rinse and dry the plates", "rinse the plates; dry the plates"),
    ("cut, peel and slice potato", "cut potato; peel potato; slice potato"),
    ("press and roll out the dough", "press the dough; roll out the dough"),
    ("open and close the drawer", "open the drawer; close the drawer"),
    ("open fridge take milk", "open fridge; take milk"),
    ("Open the door. Close the window!", "open the door; close the window"),
    ("1. open the door 2. close it", "open the door; close the door"),
    ("open the door\nclose the window", "open the door; close the window"),
    (
        "Open the door.Close it!Take the cup;wash it",
        "open the door; close the door; take the cup; wash the cup",
    ),
    ("pick up the fork and fork the hay", "pick up the fork; fork the hay"),
    ("lift the box and then set it down gently", "lift the box; set the box down gently"),
    ("after opening the fridge, take the milk", "open the fridge; take the milk"),
    ("go to the fridge and take the milk", "go to the fridge; take the milk"),
    ("she picked up the cup and drank the tea", "pick up the cup; drink the tea"),
    ("washing the cup and drying the plate", "wash the cup; dry the plate"),
]

PHRASES = [
    ("open the person\u2019s bag", "open the person's bag"),
    ("\u201copen\u201d the \u2018door\u2019", "open the door"),
    ("Please, now, kindly OPEN the box, thank you!", "open the box"),
    ("if the door is open, close it", "close the door"),
    ("the milk was poured into the glass", "pour the milk into the glass"),
    ("placing tomato on dish", "place tomato on dish"),
    ("put the knife, the fork and the spoon away", "put the knife the fork and the spoon away"),
    ("put lid on the sun-dried tomatoes", "put lid on the sun-dried tomatoes"),
    ("hold pan and", "hold pan"),
    ("put it in the freezer", "put it in the freezer"),
    ("put down down pitcher", "put down pitcher"),
    ("there is a dog on the sofa", "a dog on the sofa"),
    ("go and get the cup", "get the cup"),
    ("the cup to the left of the plate", "the cup to the left of the plate"),
]


def rows(table: str) -> list[list[str]]:
    lines = (line for line in table.splitlines() if line and not line.startswith("#"))
    return [[cell.strip() for cell in line.split(" | ")] for line in lines]


def only(text: str) -> Action:
    actions = parse_actions(text)
    assert len(actions) == 1, [action.phrase for action in actions]
    return actions[0]


@pytest.mark.parametrize(("text", "verb", "thing", "head"), rows(COMMANDS))
def test_verb_object_and_head_are_found(text: str, verb: str, thing: str, head: str) -> None:
    action = only(text)
    assert [action.verb or "-", action.object or "-", action.object_head or "-"] == [
        verb,
        thing,
        head,
    ]


@pytest.mark.parametrize(("text", "phrases"), SEVERAL)
def test_several_actions_are_told_apart_and_pronouns_resolved(text: str, phrases: str) -> None:
    assert "; ".join(action.phrase for action in parse_actions(text)) == phrases


@pytest.mark.parametrize(("text", "phrase"), PHRASES)
def test_the_phrase_is_the_action_without_politeness_and_punctuation(
    text: str, phrase: str
) -> None:
    assert only(text).phrase == phrase


@pytest.mark.parametrize("text", [None, ["pour the milk"], b"pour the milk"])
def test_something_else_than_a_text_is_refused(text: Any) -> None:
    with pytest.raises(InvalidValueError, match="text: expected a text, got an object of type"):
        parse_actions(text)


def test_a_pronoun_stands_for_the_object_of_the_action_before() -> None:
    first, second = parse_actions("pick up the cup and place it on the plate")
    assert (second.verb, second.object, second.object_head) == ("place", "cup", "cup")
    assert first.text == second.text == "pick up the cup and place it on the plate"


def test_a_pronoun_that_points_at_nothing_leaves_later_ones_alone() -> None:
    first, second = parse_actions("take them out of the box and put them on the table")
    assert (first.object, second.object) == ("box", "table")


def test_the_phrase_starts_with_the_base_form_of_the_verb() -> None:
    for text, verb, *_ in rows(COMMANDS):
        if verb != "-":
            assert only(text).phrase.startswith(verb.split()[0]), text


def test_capitals_and_punctuation_change_nothing_but_the_text() -> None:
    plain = only("open the top drawer")
    for text in (
        "OPEN THE TOP DRAWER!!!",
        "  open, the top drawer ...",
        "\u201copen the top drawer\u201d",
    ):
        loud = only(text)
        assert loud.text == text
        assert (loud.phrase, loud.verb, loud.object) == (plain.phrase, plain.verb, plain.object)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "\n",
        "?!",
        "😀",
        "😀😀 👍🏽",
        "🇩🇪",
        "\u200d\ufe0f",
        "123",
        "1. 2.",
        "--",
        "''",
        ", thank you",
    ],
)
def test_text_without_words_holds_no_action(text: str) -> None:
    assert parse_actions(text) == ()


@pytest.mark.parametrize(
    "text", ["please", "and", ", and", "not", "the", "of of of", "it", "打开抽屉", "'s"]
)
def test_words_that_say_no_action_are_kept_as_the_phrase(text: str) -> None:
    assert only(text).verb is None
    assert only(text).phrase


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80))
def test_any_text_is_parsed_and_yields_actions_if_it_has_letters(text: str) -> None:
    actions = parse_actions(text)
    if any(letter.isascii() and letter.isalpha() for letter in text):
        assert actions
    if not any(letter.isalpha() for letter in text):
        assert actions == ()


WORDS = (
    "the a of and then , . it can do take put pick up on off find help person who is being cup "
    "fork washing board cut poured please where to next one left make sure 's drawers my while "
    "open clean light water using with in"
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(WORDS.split()), min_size=1, max_size=20))
def test_any_order_of_words_is_parsed(words: list[str]) -> None:
    for action in parse_actions(" ".join(words)):
        assert action.phrase
        assert (action.verb is None) == (action.verb_lemma is None)
        assert (action.object is None) == (action.object_head is None)


@pytest.mark.parametrize(
    "unit",
    [
        "😀",
        "a ",
        "the ",
        "a-",
        "a.b",
        "(",
        "'",
        "pick up the cup and ",
        "can the x and ",
        "can ",
        "find the person in the red ",
        "x of ",
        "take ",
        "peel and ",
        "http://a.b/",
        "x, ",
        "1. ",
    ],
)
def test_time_is_linear_in_the_length(unit: str) -> None:
    assert_quick((unit * 65536)[:16384])


@pytest.mark.parametrize(
    "unit", ["please ", "and ", "and please ", "then ", "had ", "pouring ", "left "]
)
@pytest.mark.parametrize("opening", ["open the door ", "put "])
def test_time_is_linear_in_what_follows_a_verb(opening: str, unit: str) -> None:
    assert_quick(opening + (unit * 65536)[:16384])


def test_what_is_repeated_is_short() -> None:
    long_thing = "x " * 4000
    assert_quick(f"pick up {long_thing}" + ". take it" * 2000)
    assert_quick("wash and " * 2000 + f"take {long_thing}")


def assert_quick(text: str) -> None:
    """A quarter of a second or so; what grew with the square took minutes.

    Of the processor's time, so that other work on the machine does not count.
    """
    parse_actions("warm up")
    start = time.process_time()
    parse_actions(text)
    assert time.process_time() - start < 5


def test_a_phrase_takes_under_two_milliseconds() -> None:
    texts = [text for text, *_ in rows(COMMANDS)]
    for text in texts:
        parse_actions(text)
    start = time.process_time()
    for text in texts:
        parse_actions(text)
    assert (time.process_time() - start) / len(texts) < 2e-3


def test_the_parser_is_built_once() -> None:
    assert parser_for() is parser_for()
    assert isinstance(parser_for(), Parser)


def test_candidates_are_all_verbs_and_all_noun_phrases() -> None:
    found = candidates("add the chopped onions and garlic to a hot pan and stir until brown")
    assert found.verbs == ("add", "stir")
    assert found.objects[:3] == ("chopped onions", "garlic", "hot pan")
    purpose = candidates("turn on the tap to fill the pot")
    assert sorted(purpose.verbs) == ["fill", "turn on"]
    assert purpose.objects == ("tap", "pot")
    assert candidates("😀") == candidates("")
